use super::*;
use crate::decisions::Chapter;
use crate::history::{HistoryStore, Record};
use crate::machine::EngineMachine;
use crate::watch::WatchHandle;
use muster_engine::command::{ConfigChange, Principal};
use muster_engine::{Command, Entry, State, apply};
use std::path::{Path, PathBuf};

const INDEX: u64 = 500;

fn state() -> State {
    let mut state = State::new("testing");
    let entry = |index, command| Entry { index, term: 3, at: muster_common::Time(1_700_000_000_000), command };
    apply(&mut state, &entry(INDEX - 1, Command::AdvanceTime { to: muster_common::Time(1_700_000_000_000) }));
    apply(&mut state, &entry(INDEX, Command::Nothing));
    state
}

fn history(dir: &Path) -> HistoryStore {
    let history = HistoryStore::open(dir).unwrap();
    for index in (1..INDEX).step_by(3) {
        let record =
            |ordinal| Record { ordinal, kind: 1, job: Some(index % 7), bytes: vec![ordinal as u8; 300].into() };
        history.append(index, &[record(0), record(1)]).unwrap();
    }
    history.append(INDEX, &[]).unwrap();
    history
}

fn head(state: &State) -> Head {
    Head {
        cluster_id: "testing".into(),
        index: INDEX,
        term: 3,
        generation: state.cluster().generation,
        feature_level: state.cluster().feature_level,
        state_hash: state.hash().to_string(),
        state_bytes: state.encode().len() as u64,
        history_from: 0,
        members: vec![],
        made_at_ms: 1,
        made_by: "s1".into(),
        version: "0".into(),
    }
}

/// A backup in a folder of its own.
fn backup() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (state, history) = (state(), history(&dir.path().join("history")));
    let file = dir.path().join("a.backup");
    let written = write(std::fs::File::create(&file).unwrap(), &head(&state), &state, &history, None).unwrap();
    assert_eq!(written, 2 * (INDEX - 1).div_ceil(3));
    (dir, file)
}

fn servers() -> Servers {
    let server = |id: u64| Member { id, name: format!("s{id}"), address: format!("127.0.0.1:{id}") };
    (1..=3).map(|id| (id, server(id))).collect()
}

#[test]
fn a_backup_reads_back() {
    let (_dir, file) = backup();
    let read = inspect(&file).unwrap();
    assert_eq!((read.head, read.state.hash()), (head(&state()), state().hash()));
    assert_eq!(read.file_bytes, std::fs::metadata(&file).unwrap().len());
}

/// A membership, or a leader's first entry, may be the last that a quiet cluster has.
#[test]
fn a_backup_whose_last_entry_holds_nothing_for_the_state_is_whole() {
    use crate::consensus::Machine;
    use crate::machine::Proposal;
    let dir = tempfile::tempdir().unwrap();
    let history = std::sync::Arc::new(HistoryStore::open(&dir.path().join("history")).unwrap());
    let mut machine = EngineMachine::new(history.clone(), WatchHandle::default());
    let at = muster_common::Time(1_700_000_000_000);
    machine.apply(1, 3, &Proposal { at, command: Command::AdvanceTime { to: at } }.encode()).unwrap();
    machine.skip(2, 3).unwrap();
    let state = machine.view();
    let head = Head { index: 2, ..head(&state) };
    let file = dir.path().join("a.backup");
    write(std::fs::File::create(&file).unwrap(), &head, &state, &history, None).unwrap();
    assert_eq!(inspect(&file).unwrap().head, head);
}

/// Every cut, and every byte changed, of a small backup.
#[test]
fn a_backup_that_is_cut_or_damaged_anywhere_is_refused_and_nothing_is_written() {
    let (dir, file) = backup();
    let whole = std::fs::read(&file).unwrap();
    let (damaged, target) = (dir.path().join("damaged"), dir.path().join("target"));
    let refused = |bytes: &[u8], what: &str| {
        std::fs::write(&damaged, bytes).unwrap();
        let error = inspect(&damaged).expect_err(what);
        assert!(!error.hint().is_empty() && error.to_string().contains("damaged"), "{what}: {error}");
    };
    let step = (whole.len() / 400).max(1);
    for at in (0..whole.len()).step_by(step).chain(whole.len() - 60..whole.len()) {
        refused(&whole[..at], &format!("cut at {at}"));
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        refused(&changed, &format!("byte {at} changed"));
    }
    refused(&[&whole[..], b"x"].concat(), "more behind its end");
    let error = restore(&damaged, &target, &servers(), 10).expect_err("damaged");
    assert!(matches!(error, BackupError::Damaged { .. }) && !target.exists(), "{error}");
}

#[test]
fn a_folder_with_anything_in_it_is_never_restored_into() {
    let (dir, file) = backup();
    let target = dir.path().join("target");
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("precious"), "x").unwrap();
    let error = restore(&file, &target, &servers(), 10).expect_err("in use");
    assert!(matches!(error, BackupError::NotEmpty { .. }), "{error}");
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 1);
}

#[test]
fn a_restored_folder_holds_the_history_and_a_state_of_a_new_generation() {
    let (dir, file) = backup();
    let target = dir.path().join("target");
    let restored = restore(&file, &target, &servers(), 10).unwrap();
    assert_eq!((restored.index, restored.generation), (INDEX + 11, 2));
    let mut expected = state();
    let change = Box::new(ConfigChange::Restore);
    let command = Command::Configure { change, by: Principal("restore".into()) };
    let at = expected.now();
    apply(&mut expected, &Entry { index: INDEX + 11, term: 4, at, command });
    assert_eq!(restored.state_hash, expected.hash().to_string());
    let before = HistoryStore::open(&dir.path().join("history")).err();
    assert!(before.is_none(), "the original is closed by now");
    for folder in restored.folders.values() {
        let history = HistoryStore::open(&folder.join("history")).unwrap();
        assert_eq!((history.watermark(), history.gaps().unwrap()), (Some(INDEX + 11), vec![]));
        let all = history.read_range(0, usize::MAX).unwrap();
        assert_eq!(all.len() as u64, restored.backup.records + 1, "and the restore itself");
        assert!(!history.job_records(3).unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_starts_from_a_restored_folder_and_leads_alone() {
    use crate::consensus::{Consensus, ConsensusConfig, Lane, PeerConnector};
    use tonic::transport::{Channel, Endpoint};
    struct Alone;
    impl PeerConnector for Alone {
        fn channel(&self, _id: u64, _addr: &str, _lane: Lane) -> Channel {
            Endpoint::from_static("http://127.0.0.1:1").connect_lazy()
        }
    }
    let (dir, file) = backup();
    let alone: Servers = servers().into_iter().take(1).collect();
    let restored = restore(&file, &dir.path().join("target"), &alone, 10).unwrap();
    let folder = &restored.folders[&1];
    let history = std::sync::Arc::new(HistoryStore::open(&folder.join("history")).unwrap());
    let machine = EngineMachine::new(history.clone(), WatchHandle::default());
    let config = ConsensusConfig::new("testing", 1, folder);
    let consensus = Consensus::start(config, machine, std::sync::Arc::new(Alone)).await.unwrap();
    let mut leadership = consensus.leadership();
    let led = leadership.wait_for(|now| now.first_index_of_term_applied);
    let term = tokio::time::timeout(std::time::Duration::from_secs(30), led).await.expect("a leader").unwrap().term;
    assert!(term > 4, "terms are not used again: {term}");
    let view = consensus.view();
    assert_eq!((view.cluster().generation, view.applied_index()), (2, INDEX + 12));
    assert_eq!(history.gaps().unwrap(), vec![]);
    consensus.shutdown().await;
}

/// Nothing rests on the decision log, so nothing fails for its sake.
#[test]
fn a_decision_log_that_cannot_be_read_is_named_in_a_backup_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (state, history) = (state(), history(&dir.path().join("history")));
    let garbage = dir.path().join("0000000001-7.decisions");
    std::fs::write(&garbage, [7; 500]).unwrap();
    let missing = dir.path().join("0000000000-3.decisions");
    let cases: [(std::io::Result<Vec<PathBuf>>, &str); 2] = [
        (Ok(vec![missing, garbage]), "0000000001-7.decisions: is no decision log"),
        (Err(std::io::Error::other("the decision log is closed")), "the decision log is closed"),
    ];
    for (number, (files, expected)) in cases.into_iter().enumerate() {
        let file = dir.path().join(format!("{number}.backup"));
        let parts = decision_files(files);
        let out = std::fs::File::create(&file).unwrap();
        write(out, &head(&state), &state, &history, Some(&parts)).unwrap();
        let mut told = Vec::new();
        let read = decisions(&file, |chapter| told.push(chapter)).unwrap();
        let [Chapter::Unreadable(why)] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((why.as_str(), read.state.hash()), (expected, state.hash()));
        assert!(read.decision_bytes > 0);
    }
}
