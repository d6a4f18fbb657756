//! What each command ends with when it fails, by the real program: a mistake in the line, nobody logged
//! in, nobody there, a file that is not. The table of commands is checked against the help of all of them.

use muster_runtime::clock::{Clock, SystemClock};
use muster_runtime::identity::{Authority, LEAF_VALID_MS, Name, Role, Sans};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// Commands that ask a cluster, each with the least it takes. `JOB` and `POLICY` stand for files that are sound.
const CLIENTS: &[&str] = &[
    "submit JOB",
    "plan JOB",
    "run -- true",
    "ps",
    "show 4711",
    "why 4711",
    "logs 4711",
    "cancel 4711",
    "wait 4711",
    "retry 4711",
    "edit 4711 --priority high",
    "hold 4711",
    "release 4711",
    "apply --history",
    "queue ls",
    "queue show default",
    "node ls",
    "node show n1",
    "node drain n1 --reason x --yes",
    "node undrain n1",
    "node cordon n1 --reason x",
    "node uncordon n1",
    "node token",
    "node state-released n1 --reason x --yes",
    "node end-quarantine n1 --slot 0 --reason x",
    "node remove n1 --reason x --yes",
    "events",
    "reservation create firmware --duration 4h --all-nodes",
    "reservation ls",
    "reservation show firmware",
    "reservation delete firmware",
    "policy history",
    "policy shadow set POLICY",
    "policy shadow report",
    "policy shadow clear",
    "sim import --from live",
    "sim replay --verify live",
    "sim snapshot live -o now",
    "cluster status",
    "cluster set policy",
    "cluster upgrade",
    "cluster members",
    "cluster members add s4=127.0.0.1:1",
    "cluster members remove s1 --yes",
    "cluster members replace s1 s4=127.0.0.1:1 --yes",
    "cluster transfer",
    "cluster doctor",
    "cluster backup a.backup",
    "bench submit",
    "bench start",
    "bench drain",
    "bench array",
];

/// Commands that need no cluster to answer, or are one.
const OTHERS: &[&str] = &[
    "version",
    "dev",
    "server",
    "agent",
    "agent join",
    "sim import",
    "sim gen",
    "sim run",
    "sim compare",
    "sim sweep",
    "sim tune",
    "sim explain",
    "sim report",
    "policy promote",
    "cluster init",
    "cluster issue",
    "cluster members prepare",
    "cluster restore",
    "completion",
    "man",
];

struct Place {
    folder: TempDir,
}

impl Place {
    /// A folder with an identity and a job file.
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let now_ms = SystemClock.wall_ms();
        let authority = Authority::create("test", now_ms).expect("a CA");
        let name = Name::new("test", Role::Admin, "root").expect("a name");
        let identity = authority.issue(&name, &Sans::default(), now_ms, LEAF_VALID_MS).expect("an identity");
        let dir = folder.path().join("identity");
        std::fs::create_dir(&dir).expect("a folder");
        identity.save(&dir).expect("saved");
        std::fs::write(folder.path().join("job.toml"), "[gang]\nrun = \"true\"\n").expect("written");
        std::fs::write(folder.path().join("policy.toml"), "order = \"fifo\"\n").expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    fn words(&self, line: &str) -> Vec<String> {
        let word = |word: &str| match word {
            "JOB" => self.path("job.toml"),
            "POLICY" => self.path("policy.toml"),
            other => other.to_owned(),
        };
        line.split(' ').map(word).collect()
    }

    fn muster(&self, words: &[String], flags: &[&str]) -> Output {
        // Flags go in front: behind `--` they would be the job's.
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(flags).args(words).current_dir(self.folder.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.folder.path()).env("XDG_CONFIG_HOME", self.folder.path().join("none"));
        command.output().expect("the program starts")
    }
}

#[track_caller]
fn ends_with(output: &Output, code: i32, what: &str) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{what}: {stderr}");
    assert!(output.stdout.is_empty(), "{what} printed data: {}", String::from_utf8_lossy(&output.stdout));
    assert!(!stderr.trim().is_empty(), "{what} said nothing");
}

#[test]
fn the_tables_hold_every_command_there_is() {
    let help =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/commands/snapshots/muster__commands__snapshots__help.snap");
    let help = std::fs::read_to_string(help).expect("the help of every command");
    let all: Vec<&str> = help.lines().filter_map(|line| line.strip_prefix("=== muster ")).collect();
    let known =
        |name: &str| CLIENTS.iter().chain(OTHERS).any(|line| *line == name || line.starts_with(&format!("{name} ")));
    for name in &all {
        let group = all.iter().any(|other| other.starts_with(&format!("{name} ")));
        let hidden = ["shim", "rank", "dev-reaper"].iter().any(|hidden| name.starts_with(hidden));
        assert!(group || hidden || known(name), "`muster {name}` has no row in cli/tests/exit_codes.rs");
    }
    assert!(all.len() > 30, "only {} commands were found", all.len());
}

#[test]
fn a_mistake_in_the_line_is_2_for_every_command() {
    let place = Place::new();
    for line in CLIENTS.iter().chain(OTHERS) {
        let mut words = place.words(line);
        words.insert(
            line.split(' ').take_while(|word| !word.starts_with('-')).count().min(1),
            "--no-such-flag".to_owned(),
        );
        ends_with(&place.muster(&words, &[]), 2, &format!("{line} --no-such-flag"));
    }
}

#[test]
fn nobody_logged_in_is_4_and_no_server_known_is_2_for_every_client() {
    let place = Place::new();
    for line in CLIENTS {
        // What `run` fails with itself is told apart from what its job ends with.
        let own = |code: i32| if line.starts_with("run ") { 125 } else { code };
        let words = place.words(line);
        ends_with(&place.muster(&words, &["--server", "127.0.0.1:1"]), own(4), line);
        let identity = place.path("identity");
        ends_with(&place.muster(&words, &["--identity", &identity]), own(2), line);
    }
}

#[test]
fn nobody_there_is_7_for_every_client() {
    let place = Place::new();
    let identity = place.path("identity");
    for line in CLIENTS {
        let own = if line.starts_with("run ") { 125 } else { 7 };
        let flags = ["--server", "127.0.0.1:1", "--identity", &identity, "--timeout", "50ms"];
        ends_with(&place.muster(&place.words(line), &flags), own, line);
    }
}

#[test]
fn a_failure_is_one_document_with_the_same_code() {
    let place = Place::new();
    let identity = place.path("identity");
    let flags = ["--json", "--server", "127.0.0.1:1", "--identity", &identity, "--timeout", "50ms"];
    let output = place.muster(&place.words("ps"), &flags);
    let document: serde_json::Value = serde_json::from_slice(&output.stderr).expect("one document");
    assert_eq!((document["schema"].as_str(), document["exit_code"].as_i64()), (Some("muster.error/1"), Some(7)));
    assert_eq!(document["error"]["code"], "UNAVAILABLE");
}

#[test]
fn a_missing_file_is_3_and_a_wrong_one_2() {
    let place = Place::new();
    for command in ["submit", "plan"] {
        ends_with(&place.muster(&place.words(&format!("{command} none.toml")), &[]), 3, command);
    }
    std::fs::write(place.path("wrong.toml"), "[gang]\nruns = 1\n").expect("written");
    for command in ["submit", "plan"] {
        ends_with(&place.muster(&place.words(&format!("{command} wrong.toml")), &[]), 2, command);
    }
}

#[test]
fn what_cannot_be_asked_is_2_with_advice() {
    let place = Place::new();
    for line in
        ["ps --limit 0", "logs 4711 --attempt 0", "show 0", "queue show default --limit 0", "man no-such-command"]
    {
        ends_with(&place.muster(&place.words(line), &[]), 2, line);
    }
    let identity = place.path("identity");
    let editor = place.muster(&place.words("edit 4711"), &["--server", "127.0.0.1:1", "--identity", &identity]);
    ends_with(&editor, 2, "edit without a terminal");
    assert!(String::from_utf8_lossy(&editor.stderr).contains("--priority"));
}

/// A flag without effect is a mistake that somebody would believe to have had one.
#[test]
fn flags_that_go_against_each_other_are_2() {
    let place = Place::new();
    let identity = place.path("identity");
    for line in [
        "sim replay --verify live --policy POLICY",
        "sim import --from live --bad-rows skip",
        "sim import --from live --start-job 3",
        "sim import --from live --jobs 4",
        "sim import --from live:30d --last 7d",
        "cluster backup a.backup --check --no-decisions",
        "submit JOB --dry-run --wait",
        "submit JOB --dry-run --follow",
        "ps 4711 --user bob",
        "ps 4711 --page live:7",
        "logs 4711@2 --attempt 3",
        "edit 4711_3 --priority high",
        "edit 4711@2 --priority high",
    ] {
        let flags = ["--server", "127.0.0.1:1", "--identity", &identity, "--timeout", "50ms"];
        ends_with(&place.muster(&place.words(line), &flags), 2, line);
    }
}

#[test]
fn devices_of_the_agent_are_not_lost_on_its_way_into_a_cluster() {
    let place = Place::new();
    let output = place.muster(&place.words("agent --devices none join --token x"), &[]);
    ends_with(&output, 2, "agent --devices none join");
    assert!(String::from_utf8_lossy(&output.stderr).contains("muster agent join --devices"), "{output:?}");
}

#[test]
fn a_price_list_that_can_price_no_plan_is_2() {
    let place = Place::new();
    std::fs::write(
        place.path("later.toml"),
        "[[price]]\ncontract = \"on_demand\"\nusd_per_gpu_hour = 2.0\nfrom_s = 60\n[[price]]\n\
         nodes = \"a\"\ncontract = \"owned\"\nusd_per_gpu_hour = 1.0\n",
    )
    .expect("written");
    let output = place.muster(&place.words("plan JOB --prices later.toml"), &[]);
    ends_with(&output, 2, "plan with prices of later and elsewhere");
    assert!(String::from_utf8_lossy(&output.stderr).contains("no price holds for all nodes from the start"));
}

#[test]
fn an_organisation_that_does_not_fit_the_world_is_a_mistake_of_its_file() {
    let place = Place::new();
    std::fs::write(place.path("world.toml"), "[[nodes]]\ncount = 2\ndevices = 8\n").expect("written");
    std::fs::write(place.path("t.csv"), "job_id,num_gpu,submit_time,duration\n0,8,0,60\n").expect("written");
    for organisation in ["[[account]]\nname = \"a\"\nparent = \"b\"\n", "[[account]]\nname = 7\n"] {
        std::fs::write(place.path("wrong.toml"), organisation).expect("written");
        let line = "sim run --policy POLICY --world world.toml --trace t.csv --organisation wrong.toml -o out";
        let output = place.muster(&place.words(line), &[]);
        ends_with(&output, 2, "sim run with a wrong organisation");
        assert!(String::from_utf8_lossy(&output.stderr).contains("wrong.toml: "), "{output:?}");
        assert!(!Path::new(&place.path("out")).exists(), "something was written");
    }
}

#[test]
fn pages_and_scripts_need_no_cluster() {
    let place = Place::new();
    let folder = place.path("man");
    let output = place.muster(&place.words(&format!("man --output {folder}")), &[]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let page = std::fs::read_to_string(Path::new(&folder).join("muster-node-drain.1")).expect("a page");
    assert!(page.contains(".SH SYNOPSIS"));
    let script = place.muster(&place.words("completion bash"), &[]);
    assert!(script.status.success() && script.stdout.len() > 1000);
}

#[test]
fn a_failure_that_nobody_reads_has_its_code_all_the_same() {
    let place = Place::new();
    for flags in [&[] as &[&str], &["--json"]] {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_muster"));
        command.args(flags).args(["show", "0"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(writer);
        command.env_clear().env("HOME", place.folder.path()).current_dir(place.folder.path());
        assert_eq!(command.status().expect("the program starts").code(), Some(2), "{flags:?}");
    }
}
