//! A folder of TOML files as one declaration, with where in which file each part of it stands.

use crate::error::{CliError, Report};
use crate::jobfile::Source;
use muster_common::job::file::{DurationText, MomentText};
use muster_common::{JobId, Name, Time};
use muster_engine::command::{Declaration, MakeWindow, Principal, Which};
use muster_engine::organisation::{Account, Organisation, Price, Queue};
use muster_engine::policy::Policy;
use muster_engine::state::declarations::SOURCE_BYTES_MAX;
use muster_engine::state::window::Holders;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::config::{FILE_LIMIT_BYTES, parse};
use muster_runtime::durable::read_limited;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Most files of one folder.
const FILES_MAX: usize = 1000;

/// What one file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Part {
    account: Vec<Account>,
    queue: Vec<Queue>,
    policy: Option<Policy>,
    reservation: Vec<ReservationText>,
    price: Vec<Price>,
    preemptible_only: BTreeMap<Name, String>,
}

/// As in `muster reservation create`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ReservationText {
    name: Name,
    start: MomentText,
    #[serde(default)]
    end: Option<MomentText>,
    #[serde(default)]
    duration: Option<DurationText>,
    #[serde(default)]
    nodes: Vec<Name>,
    #[serde(default)]
    domain: Option<String>,
    #[serde(default)]
    all_nodes: bool,
    #[serde(default)]
    count: Option<u32>,
    #[serde(default)]
    model: Option<Name>,
    #[serde(default)]
    within: Option<Name>,
    #[serde(default)]
    account: Option<Name>,
    #[serde(default)]
    jobs: Vec<u64>,
    #[serde(default)]
    reason: String,
}

/// All that a folder says.
#[derive(Debug)]
pub struct Folder {
    source: String,
    /// A folder says all of its reservations, a single file only some.
    whole: bool,
    files: Vec<Source>,
    organisation: Option<Arc<Organisation>>,
    policy: Option<Box<Policy>>,
    windows: Option<Vec<MakeWindow>>,
    /// File, and number in it, of each account, queue and reservation.
    places: BTreeMap<&'static str, Vec<(usize, usize)>>,
    /// File of each label of `preemptible_only`.
    labels: BTreeMap<String, usize>,
    policy_at: Option<usize>,
}

impl Folder {
    /// # Errors
    /// Every mistake that can be seen without the cluster, with its file and line.
    pub fn read(path: &Path) -> Result<Self, CliError> {
        let whole = path.is_dir();
        let mut folder = Self {
            source: source(path),
            whole,
            files: Vec::new(),
            organisation: None,
            policy: None,
            windows: None,
            places: BTreeMap::new(),
            labels: BTreeMap::new(),
            policy_at: None,
        };
        let (mut organisation, mut windows) = (Organisation::default(), Vec::new());
        for (at, file) in files(path)?.iter().enumerate() {
            let text = read_limited(file, FILE_LIMIT_BYTES)?;
            let name = file.display().to_string();
            let text = String::from_utf8(text).map_err(|_| {
                CliError::new(ErrorCode::ConfigInvalid, format!("{name} is not text"))
                    .hint("write it as TOML, in UTF-8")
            })?;
            let part: Part = parse(&name, &text)?;
            folder.files.push(Source::new(&name, text));
            folder.note("account", at, part.account.len());
            folder.note("queue", at, part.queue.len());
            folder.note("reservation", at, part.reservation.len());
            folder.note("price", at, part.price.len());
            organisation.accounts.extend(part.account);
            organisation.queues.extend(part.queue);
            organisation.prices.extend(part.price);
            for (key, value) in part.preemptible_only {
                if organisation.preemptible_only.get(&key).is_some_and(|known| *known != value) {
                    let message = format!("preemptible_only.{key}: another file has another value");
                    return Err(folder.error(at, "preemptible_only", &message, "keep one of the two"));
                }
                folder.labels.insert(key.to_string(), at);
                organisation.preemptible_only.insert(key, value);
            }
            windows.extend(part.reservation);
            if let Some(policy) = part.policy {
                folder.take_policy(at, policy)?;
            }
        }
        folder.take_organisation(organisation)?;
        if whole || !windows.is_empty() {
            folder.take_windows(windows)?;
        }
        Ok(folder)
    }

    pub fn source(&self) -> &str {
        &self.source
    }

    /// What is sent.
    pub fn json(&self, made_from: Option<u32>) -> String {
        let declaration = Declaration {
            source: self.source.clone(),
            made_from,
            organisation: self.organisation.clone(),
            policy: self.policy.clone(),
            windows: self.windows.clone(),
            whole: self.whole,
        };
        serde_json::to_string(&declaration).expect("configuration has string keys and no floats")
    }

    fn note(&mut self, kind: &'static str, file: usize, count: usize) {
        self.places.entry(kind).or_default().extend((0..count).map(|number| (file, number)));
    }

    fn take_policy(&mut self, at: usize, policy: Policy) -> Result<(), CliError> {
        if let Some(first) = self.policy_at {
            let message = format!("policy: {} has one already", self.files[first].name());
            return Err(self.error(at, "policy", &message, "keep one of the two"));
        }
        self.policy_at = Some(at);
        policy
            .validate()
            .map_err(|error| self.placed(ErrorInfo::new(ErrorCode::ConfigInvalid, format!("policy.{error}"))))?;
        self.policy = Some(Box::new(policy));
        Ok(())
    }

    fn take_organisation(&mut self, organisation: Organisation) -> Result<(), CliError> {
        if organisation == Organisation::default() {
            return Ok(());
        }
        // Whether what is owed is there is for the server to say.
        organisation
            .validate(&BTreeMap::new())
            .map_err(|error| self.placed(ErrorInfo::new(ErrorCode::ConfigInvalid, error.to_string())))?;
        self.organisation = Some(Arc::new(organisation));
        Ok(())
    }

    fn take_windows(&mut self, texts: Vec<ReservationText>) -> Result<(), CliError> {
        let mut windows: Vec<MakeWindow> = Vec::new();
        for (at, text) in texts.into_iter().enumerate() {
            let window = window(text).map_err(|(field, what, remedy)| {
                let message = format!("reservation[{at}].{field}: {what}; {remedy}");
                self.placed(ErrorInfo::new(ErrorCode::ConfigInvalid, message))
            })?;
            windows.push(window);
        }
        self.windows = Some(windows);
        Ok(())
    }

    fn error(&self, file: usize, path: &str, message: &str, hint: &str) -> CliError {
        let info = ErrorInfo::new(ErrorCode::ConfigInvalid, message).hint(hint);
        let place = self.files.get(file).and_then(|source| source.place(path, ""));
        CliError::gather(vec![Report { info, place }]).expect("one report was given")
    }

    fn placed(&self, info: ErrorInfo) -> CliError {
        self.with_places(CliError::from(info))
    }

    /// Errors that have a path into the declaration, or begin with one, with the file and line of that part.
    pub fn with_places(&self, error: CliError) -> CliError {
        let mut reports = error.into_reports();
        for report in reports.iter_mut().filter(|report| report.place.is_none()) {
            let first = report.info.message.split([' ', ':']).next();
            let path = report.info.path.as_deref();
            let named = path.and_then(|path| self.place(path).or_else(|| self.place_in_policy(path)));
            report.place = named.or_else(|| self.place(first?));
        }
        CliError::gather(reports).expect("there were some before")
    }

    /// `account[3].quota.H100` in the file that has it.
    fn place(&self, path: &str) -> Option<crate::error::Place> {
        if path == "policy" || path.starts_with("policy.") {
            return self.files.get(self.policy_at?)?.place(path, "");
        }
        if let Some(label) = path.strip_prefix("preemptible_only") {
            // Of too many, those of the last file are the first that can go.
            let file = match label.strip_prefix('.') {
                Some(label) => self.labels.get(label),
                None => self.labels.values().max(),
            };
            return self.files.get(*file?)?.place(path, "");
        }
        let (kind, rest) = path.split_once('[')?;
        let (number, rest) = rest.split_once(']')?;
        let (file, own) = self.places.get(kind)?.get(number.parse::<usize>().ok()?)?;
        self.files.get(*file)?.place(&format!("{kind}.{own}{rest}"), "")
    }

    /// What is said of a policy alone has paths that begin inside it.
    fn place_in_policy(&self, path: &str) -> Option<crate::error::Place> {
        let place = self.place(&format!("policy.{path}"))?;
        // The nearest that the file has; the policy itself would be a guess.
        (Some(&place) != self.place("policy").as_ref()).then_some(place)
    }
}

/// As the history will name it, cut to what it keeps.
fn source(path: &Path) -> String {
    let mut source = path.display().to_string();
    let end = (0..=SOURCE_BYTES_MAX.min(source.len())).rev().find(|at| source.is_char_boundary(*at));
    source.truncate(end.unwrap_or(0));
    source
}

/// The TOML files of a folder in the order of their names, or the one file.
fn files(path: &Path) -> Result<Vec<PathBuf>, CliError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        // A link that leads nowhere is an error when it is read, and no file fewer.
        if file.extension().is_some_and(|extension| extension == "toml") && !file.is_dir() {
            found.push(file);
        }
    }
    found.sort();
    let (name, count) = (path.display(), found.len());
    if found.is_empty() {
        return Err(CliError::new(ErrorCode::ConfigMissing, format!("{name} has no file that ends in .toml"))
            .hint("name the folder that has them; folders inside it are not looked into"));
    }
    if count > FILES_MAX {
        let message = format!("{name} has {count} files that end in .toml; at most {FILES_MAX} are read");
        return Err(CliError::new(ErrorCode::ConfigInvalid, message).hint("join some of them"));
    }
    Ok(found)
}

type Wrong = (&'static str, String, &'static str);

fn window(text: ReservationText) -> Result<MakeWindow, Wrong> {
    let start = Time(text.start.ms());
    let end = match (text.end, text.duration) {
        (Some(end), None) => Time(end.ms()),
        (None, Some(duration)) => start.plus_ms(duration.ms()),
        (None, None) => return Err(("name", "it has no end".into(), "give `duration`, or `end`")),
        (Some(_), Some(_)) => return Err(("end", "it has a duration too".into(), "leave one of them out")),
    };
    let ways = [!text.nodes.is_empty(), text.domain.is_some(), text.all_nodes, text.count.is_some()];
    if ways.iter().filter(|given| **given).count() != 1 {
        let remedy = "give one of `nodes`, `domain`, `count` and `all_nodes`";
        return Err(("name", "its nodes are not said in one way".into(), remedy));
    }
    if text.count.is_none() && (text.model.is_some() || text.within.is_some()) {
        return Err((
            "name",
            "`model` and `within` are for so many nodes of a kind".into(),
            "give `count`, or leave them out",
        ));
    }
    let nodes = match (text.domain, text.count) {
        (Some(path), _) => Which::Domain(path.split('/').map(domain).collect::<Result<_, _>>()?),
        (None, Some(nodes)) => Which::Some { nodes, model: text.model, level: text.within },
        (None, None) if text.all_nodes => Which::All,
        (None, None) => Which::Nodes(text.nodes),
    };
    let holders = match (text.account, text.jobs.is_empty()) {
        (None, true) => Holders::Nobody,
        (Some(account), true) => Holders::Account(account),
        (None, false) => Holders::Jobs(text.jobs.into_iter().map(JobId).collect::<BTreeSet<_>>()),
        (Some(_), false) => return Err(("jobs", "it is for an account too".into(), "leave one of them out")),
    };
    let by = Principal("".into());
    Ok(MakeWindow { name: text.name, start, end, nodes, holders, reason: text.reason, by, managed: true })
}

fn domain(part: &str) -> Result<Name, Wrong> {
    Name::new(part).map_err(|error| ("domain", format!("`{part}`: {error}"), "write it as in `pod-1/leaf-3`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> (tempfile::TempDir, Result<Folder, CliError>) {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).expect("written");
        }
        let read = Folder::read(dir.path());
        (dir, read)
    }

    /// What is said of a folder, with its own name taken out.
    fn said(files: &[(&str, &str)]) -> String {
        let (dir, read) = folder(files);
        read.unwrap_err().text(false).replace(&dir.path().display().to_string(), "DIR")
    }

    const TEAMS: &str = "[[account]]\nname = \"research\"\n\n[[account]]\nname = \"nlp\"\nparent = \"research\"\n";

    #[test]
    fn several_files_are_one_declaration() {
        let time = "start = \"2026-12-01T06:00:00Z\"\nduration = \"4h\"\n";
        let (_dir, read) = folder(&[
            ("teams.toml", TEAMS),
            ("queues.toml", "[[queue]]\nname = \"batch\"\naccount = \"nlp\"\ndefault_time_ms = 60000\n"),
            ("policy.toml", "[policy]\norder = \"fifo\"\n[policy.classes]\nurgent = 5\n"),
            ("firmware.toml", &format!("[[reservation]]\nname = \"firmware\"\ndomain = \"pod-1/leaf-3\"\n{time}")),
            ("notes.txt", "not looked at"),
        ]);
        let declaration: Declaration = serde_json::from_str(&read.unwrap().json(Some(7))).unwrap();
        let organisation = declaration.organisation.unwrap();
        assert_eq!((organisation.accounts.len(), organisation.queues.len()), (2, 1));
        assert_eq!((declaration.made_from, declaration.policy.unwrap().classes.len()), (Some(7), 1));
        let window = &declaration.windows.unwrap()[0];
        assert_eq!(window.end.since_ms(window.start), 4 * 3_600_000);
        assert_eq!(window.nodes, Which::Domain(vec![Name::literal("pod-1"), Name::literal("leaf-3")]));
    }

    #[test]
    fn a_mistake_is_told_with_its_file_and_line() {
        let cycle = "[[account]]\nname = \"a\"\nparent = \"nlp\"\n";
        let above = TEAMS.replace("name = \"research\"", "name = \"research\"\nparent = \"a\"");
        let time = "start = \"2026-12-01T06:00:00Z\"\n";
        let nodes = "nodes = [\"n1\"]\n";
        for (files, place, words) in [
            (vec![("a.toml", "[[acount]]\n")], "DIR/a.toml:1:3", "account"),
            (vec![("a.toml", "[[account]]\nname = \"x\"\nwieght = 2\n")], "DIR/a.toml:3:1", "weight"),
            (vec![("a.toml", cycle), ("teams.toml", &above)], "DIR/a.toml:3:10", "is above itself"),
            (vec![("a.toml", "[[account]]\nname = \"x\"\nweight = -1\n")], "DIR/a.toml:3:10", "between 0 and"),
            (
                vec![
                    ("a.toml", TEAMS),
                    ("b.toml", "[[queue]]\nname = \"q\"\naccount = \"nlpp\"\ndefault_time_ms = 1\n"),
                ],
                "DIR/b.toml:3:11",
                "did you mean `nlp`?",
            ),
            (vec![("a.toml", "[policy.backfill]\nreserve_depth = 999\n")], "DIR/a.toml:2:17", "between 0 and"),
            (vec![("a.toml", "[policy]\n"), ("b.toml", "[policy]\n")], "DIR/b.toml:1:2", "has one already"),
            (
                vec![("r.toml", &format!("[[reservation]]\nname = \"w\"\n{time}{nodes}"))],
                "DIR/r.toml:2:8",
                "it has no end",
            ),
            (
                vec![("r.toml", &format!("[[reservation]]\nname = \"w\"\n{time}duration = \"soon\"\n{nodes}"))],
                "DIR/r.toml:4:12",
                "duration",
            ),
            (
                vec![("r.toml", &format!("[[reservation]]\nname = \"w\"\n{time}duration = \"4h\"\n"))],
                "DIR/r.toml:2:8",
                "one of `nodes`",
            ),
        ] {
            let text = said(&files);
            assert!(text.contains(place) && text.contains(words), "{place} {words}:\n{text}");
        }
    }

    #[test]
    fn what_the_server_refuses_has_its_file_and_line_too() {
        let (dir, read) =
            folder(&[("a.toml", TEAMS), ("b.toml", "[[account]]\nname = \"x\"\nquota.H100 = { nominal = 9 }\n")]);
        let message = "account[2].quota.H100: with this, 9 H100 are owed and the cluster has 8; lower a `nominal`";
        let error = read.unwrap().with_places(CliError::new(ErrorCode::ConfigInvalid, message));
        let text = error.text(false).replace(&dir.path().display().to_string(), "DIR");
        assert!(text.contains("DIR/b.toml:3:"), "{text}");
    }

    #[test]
    fn a_refusal_with_a_path_has_its_file_and_line() {
        let time = "start = \"2026-12-01T06:00:00Z\"\nduration = \"4h\"\nnodes = [\"n1\"]\n";
        let reservation = format!("[[reservation]]\nname = \"w\"\n{time}reason = \"long\"\n");
        let (dir, read) =
            folder(&[("p.toml", "[policy.elastic.all]\nidle_ms = 60000\n"), ("r.toml", reservation.as_str())]);
        let folder = read.unwrap();
        for (path, place) in [
            ("elastic", Some("DIR/p.toml:1:")),
            ("elastic.all.idle_ms", Some("DIR/p.toml:2:11")),
            ("reservation[0].reason", Some("DIR/r.toml:6:10")),
            ("reservation[0].nodes", Some("DIR/r.toml:5:1")),
            ("request_id", None),
        ] {
            let info = ErrorInfo::new(ErrorCode::ConfigInvalid, "what the server says").path(path);
            let text = folder.placed(info).text(false).replace(&dir.path().display().to_string(), "DIR");
            assert!(place.is_none_or(|place| text.contains(place)), "{path}:\n{text}");
            assert_eq!(text.contains("-->"), place.is_some(), "{path}:\n{text}");
        }
    }

    #[test]
    fn labels_for_preemptible_jobs_have_their_file_and_line() {
        let many: String = (0..16).map(|n| format!("label-{n} = \"x\"\n")).collect();
        let many = format!("[preemptible_only]\n{many}");
        let text = said(&[("a.toml", &many), ("b.toml", "\n[preemptible_only]\none-more = \"x\"\n")]);
        assert!(text.contains("DIR/b.toml:2:2") && text.contains("at most 16"), "{text}");
        let wrong = format!("[preemptible_only]\nlabel = \"{}\"\n", "x".repeat(5000));
        let text = said(&[("a.toml", TEAMS), ("b.toml", &wrong)]);
        assert!(text.contains("DIR/b.toml:2:9"), "{text}");
    }

    #[test]
    fn a_folder_without_files_is_told() {
        assert!(said(&[("a.txt", "")]).contains("no file that ends in .toml"));
    }
}
