use super::fixture::{Cluster, START, principal, spec};
use crate::gateway::errors;
use crate::gateway::never::Emptied;
use crate::gateway::roles::Caller;
use crate::gateway::submit::{Wish, body_hash, dry_run, parse, prepare};
use muster_common::job::SPEC_BYTES_MAX;
use muster_engine::command::ConfigChange;
use muster_engine::outcome::Refusal;
use muster_engine::{Command, Response, State};
use muster_proto::convert::error::{ErrorCode, ErrorInfo, decode};
use muster_runtime::identity::Role;

fn alice() -> Caller {
    Caller { name: "alice".into(), role: Role::User, forwarded: false }
}

fn wish(key: &str) -> Wish<'_> {
    Wish { key, key_made_at_ms: None, hold: false, retry_of: None, now: START }
}

fn refused(state: &State, json: &str) -> ErrorInfo {
    let parsed = parse(json);
    let checked = parsed.and_then(|(scheduling, launch)| {
        prepare(state, &Emptied::default(), &alice(), (scheduling, launch), &wish("k"))
    });
    checked.err().unwrap_or_else(|| panic!("{json} was taken"))
}

#[test]
fn bad_job_files_are_refused_with_code_path_and_hint() {
    use ErrorCode::*;
    let cluster = Cluster::new(4, 8);
    let table = [
        ("{", SpecSyntax, None, 2),
        (r#"{"gang":{"run":"x"},"gan":{}}"#, SpecUnknownKey, Some("gan"), 2),
        (r#"{"gang":{"run":"x","gpus_per_nod":1}}"#, SpecUnknownKey, Some("gpus_per_nod"), 2),
        (r#"{"gang":{"run":"x","gpus_per_node":"many"}}"#, SpecType, None, 2),
        (r#"{"gang":{"nodes":1}}"#, SpecMissing, Some("gang.run"), 2),
        (r#"{"name":"a\u001b[31m","gang":{"run":"x"}}"#, SpecValue, Some("name"), 2),
        (r#"{"gang":{"run":"x"},"replicas":{}}"#, NotThereYet, Some("replicas"), 2),
        (r#"{"priority":"urgent","gang":{"run":"x"}}"#, PriorityUnknown, Some("priority"), 6),
        (r#"{"gang":{"nodes":1,"gpus_per_node":64,"run":"x"}}"#, NeverFits, Some("gang.gpus_per_node"), 6),
        (r#"{"gang":{"nodes":9,"gpus_per_node":8,"run":"x"}}"#, NeverFits, Some("gang.nodes"), 6),
        (r#"{"gang":{"gpus":33,"run":"x"}}"#, NeverFits, Some("gang.gpus"), 6),
        (
            r#"{"gang":{"nodes":1,"gpus_per_node":1,"cpus_per_node":900,"run":"x"}}"#,
            NeverFits,
            Some("gang.cpus_per_node"),
            6,
        ),
        (
            r#"{"gang":{"nodes":1,"gpus_per_node":1,"memory_per_node":"9TiB","run":"x"}}"#,
            NeverFits,
            Some("gang.memory_per_node"),
            6,
        ),
        (
            r#"{"gang":{"nodes":1,"gpus_per_node":1,"labels":{"zone":"z"},"run":"x"}}"#,
            NeverFits,
            Some("gang.labels"),
            6,
        ),
        (r#"{"gang":{"nodes":1,"gpus_per_node":1,"gpu":"B300","run":"x"}}"#, ModelUnknown, Some("gang.gpu"), 6),
        (
            r#"{"gang":{"nodes":2,"gpus_per_node":1,"topology":{"within":"pod","at_most":1},"run":"x"}}"#,
            TopologyUnknown,
            Some("gang.topology.within"),
            6,
        ),
    ];
    for (json, code, path, exit_code) in table {
        let error = refused(&cluster.state, json);
        assert_eq!((error.code, error.path.as_deref(), error.exit_code), (code, path, exit_code), "{json}: {error}");
        assert!(error.hint.is_some_and(|hint| !hint.is_empty()), "{json} has no hint");
        assert!(!error.message.chars().any(char::is_control), "{json}: {:?}", error.message);
    }
}

fn organise(cluster: &mut Cluster) {
    let document = r#"{
        "account": [{"name": "research", "limits": {"gpus": 8, "array": 2, "time_ms": 3600000}}],
        "queue": [
            {"name": "batch", "account": "research", "default_time_ms": 60000},
            {"name": "debug", "default_time_ms": 60000, "max_time_ms": 60000}
        ]
    }"#;
    let change = ConfigChange::Organisation(serde_json::from_str(document).unwrap());
    let outcome = cluster.apply(Command::Configure { change: Box::new(change), by: principal("root") });
    assert_eq!(outcome.response, Response::Done);
}

/// What reads well and would fit is judged only where it is applied.
#[test]
fn what_state_does_not_take_names_its_part_of_the_job_file_and_what_to_do() {
    let mut cluster = Cluster::new(4, 8);
    organise(&mut cluster);
    let table = [
        (r#""after":{"ok":[4711]}"#, "after.ok", "take it out of `after.ok`"),
        (r#""after":{"started":[4711]}"#, "after.started", "take it out of `after.started`"),
        (r#""after":{"any":[4711]}"#, "after.any", "take it out of `after.any`"),
        (r#""after":{"not_ok":[4711]}"#, "after.not_ok", "take it out of `after.not_ok`"),
        (r#""queue":"bacth""#, "queue", "`muster queue ls`"),
        (r#""account":"reserch""#, "account", "name one of the accounts"),
        (r#""limits":{"time":"2h"}"#, "limits.time", "give a `limits.time` within it"),
        (r#""queue":"debug","account":"research","limits":{"time":"2m"}"#, "limits.time", "another queue"),
        (r#""array":{"range":"0-2"}"#, "array", "ask for less"),
        (r#""gang":{"nodes":2,"gpus_per_node":8,"run":"x"}"#, "gang", "ask for less"),
    ];
    for (part, path, hint) in table {
        let queue = if part.contains("queue") { "" } else { r#""queue":"batch","# };
        let gang = if part.contains("gang") { "" } else { r#","gang":{"run":"x"}"# };
        let (scheduling, launch) = spec(&format!("{{{queue}{part}{gang}}}"));
        let submit = prepare(&cluster.state, &Emptied::default(), &alice(), (scheduling, launch), &wish("k")).unwrap();
        let error = dry_run(&cluster.state, submit, START).err().unwrap_or_else(|| panic!("{part} was taken"));
        assert_eq!((error.code, error.path.as_deref()), (ErrorCode::SpecValue, Some(path)), "{part}: {error}");
        assert!(error.message.starts_with(&format!("{path}: ")), "{part}: {error}");
        assert!(error.hint.as_deref().is_some_and(|told| told.contains(hint)), "{part}: {:?}", error.hint);
    }
}

#[test]
fn a_reason_that_only_looks_like_one_with_a_part_has_no_path() {
    for why in ["there is: a, b", "the reason", ": x", "a b: c", "queue `a`: full", "http://x"] {
        assert_eq!(errors::refused(Refusal::Invalid(why.into())).path, None, "{why}");
    }
    let declared = errors::refused(Refusal::Invalid("account[2].quota.H100: too much is owed".into()));
    assert_eq!(declared.path.as_deref(), Some("account[2].quota.H100"));
    assert_eq!(declared.hint.as_deref(), Some("correct the value and try again"));
}

#[test]
fn a_job_file_over_the_limit_is_refused_before_it_is_read() {
    let json = format!(r#"{{"gang":{{"run":"{}"}}}}"#, "x".repeat(SPEC_BYTES_MAX));
    let error = refused(&State::new("dev"), &json);
    assert_eq!((error.code, error.exit_code), (ErrorCode::SpecTooBig, 2));
}

#[test]
fn what_a_client_wrote_never_makes_an_error_too_long_or_unprintable() {
    let key = format!("\\u001b[31m{}", "k".repeat(100_000));
    let error = refused(&State::new("dev"), &format!(r#"{{"gang":{{"run":"x"}},"{key}":1}}"#));
    let path = error.path.clone().unwrap();
    assert_eq!(error.code, ErrorCode::SpecUnknownKey);
    assert!(error.message.len() < 3000 && path.len() < 3000 && !path.contains('\x1b'));
    assert!(decode(&error.into()).is_some());
}

#[test]
fn a_nearly_right_key_is_told() {
    let error = refused(&State::new("dev"), r#"{"gang":{"run":"x","gpus_per_nod":1}}"#);
    assert_eq!(error.hint.as_deref(), Some("did you mean `gpus_per_node`?"));
}

#[test]
fn keys_that_cannot_be_keys_are_refused() {
    let (scheduling, launch) = spec(r#"{"gang":{"run":"x"}}"#);
    let state = State::new("dev");
    let long = "k".repeat(129);
    for key in ["", "a\nb", &long] {
        let error = prepare(&state, &Emptied::default(), &alice(), (scheduling.clone(), launch.clone()), &wish(key))
            .unwrap_err();
        assert_eq!(error.code, ErrorCode::Usage, "{key:?}");
    }
    let future = Wish { key_made_at_ms: Some(START.0 + 2 * 3_600_000), ..wish("k") };
    let error = prepare(&state, &Emptied::default(), &alice(), (scheduling, launch), &future).unwrap_err();
    assert_eq!(error.code, ErrorCode::Usage);
}

#[test]
fn a_cluster_without_nodes_takes_jobs_for_later() {
    let (scheduling, launch) = spec(r#"{"gang":{"nodes":8,"gpus_per_node":8,"gpu":"H100","run":"x"}}"#);
    assert!(prepare(&State::new("dev"), &Emptied::default(), &alice(), (scheduling, launch), &wish("k")).is_ok());
}

#[test]
fn the_hash_of_a_body_covers_command_name_and_request() {
    let hash = |json: &str| {
        let (scheduling, launch) = spec(json);
        body_hash(&scheduling, &launch)
    };
    let one = hash(r#"{"name":"a","gang":{"run":"x"}}"#);
    assert_eq!(one, hash(r#"{"gang":{"run":"x"},"name":"a"}"#));
    for other in [
        r#"{"name":"b","gang":{"run":"x"}}"#,
        r#"{"name":"a","gang":{"run":"y"}}"#,
        r#"{"name":"a","gang":{"nodes":2,"run":"x"}}"#,
    ] {
        assert_ne!(one, hash(other), "{other}");
    }
}

#[test]
fn a_dry_run_says_whether_it_would_start_and_changes_nothing() {
    let mut cluster = Cluster::new(2, 8);
    let whole = r#"{"gang":{"nodes":2,"gpus_per_node":8,"run":"x"},"limits":{"time":"1h"}}"#;
    let before = cluster.state.hash();
    let try_it = |cluster: &Cluster| {
        let (scheduling, launch) = spec(whole);
        let submit = prepare(&cluster.state, &Emptied::default(), &alice(), (scheduling, launch), &wish("k")).unwrap();
        dry_run(&cluster.state, submit, cluster.state.now()).unwrap().starts_now
    };
    assert!(try_it(&cluster));
    assert_eq!(cluster.state.hash(), before);
    let job = cluster.submit("bob", whole);
    cluster.start(muster_common::GangId::new(job, 0));
    assert!(!try_it(&cluster));
}
