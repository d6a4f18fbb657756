use super::fixture::{Cluster, START, spec};
use crate::gateway::roles::Caller;
use crate::gateway::submit::{Wish, body_hash, dry_run, parse, prepare};
use muster_common::job::SPEC_BYTES_MAX;
use muster_engine::State;
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
    let checked = parsed.and_then(|(scheduling, launch)| prepare(state, &alice(), scheduling, launch, &wish("k")));
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
        let error = prepare(&state, &alice(), scheduling.clone(), launch.clone(), &wish(key)).unwrap_err();
        assert_eq!(error.code, ErrorCode::Usage, "{key:?}");
    }
    let future = Wish { key_made_at_ms: Some(START.0 + 2 * 3_600_000), ..wish("k") };
    let error = prepare(&state, &alice(), scheduling, launch, &future).unwrap_err();
    assert_eq!(error.code, ErrorCode::Usage);
}

#[test]
fn a_cluster_without_nodes_takes_jobs_for_later() {
    let (scheduling, launch) = spec(r#"{"gang":{"nodes":8,"gpus_per_node":8,"gpu":"H100","run":"x"}}"#);
    assert!(prepare(&State::new("dev"), &alice(), scheduling, launch, &wish("k")).is_ok());
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
        let submit = prepare(&cluster.state, &alice(), scheduling, launch, &wish("k")).unwrap();
        dry_run(&cluster.state, submit, cluster.state.now()).unwrap().starts_now
    };
    assert!(try_it(&cluster));
    assert_eq!(cluster.state.hash(), before);
    let job = cluster.submit("bob", whole);
    cluster.start(muster_common::GangId::new(job, 0));
    assert!(!try_it(&cluster));
}
