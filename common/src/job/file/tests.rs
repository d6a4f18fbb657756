use super::*;
use crate::job::{Count, RanksPerNode, Run, StopSignal};
use crate::topology::TopologyMode;

fn read(json: &str) -> JobFile {
    serde_json::from_str(json).expect("well formed")
}

fn refused(json: &str) -> Vec<SpecError> {
    compile(&read(json)).expect_err("must be refused")
}

#[test]
fn the_whole_example_compiles_to_what_it_says() {
    let file = read(
        r#"{"name": "llama-sft", "queue": "research", "account": "nlp", "priority": "high", "workdir": "/home/a",
            "env": {"NCCL_DEBUG": "WARN"},
            "limits": {"time": "1-12:00:00", "expected": "20h", "wait": "3d"},
            "gang": {"nodes": 16, "gpus_per_node": 8, "gpu": "H100 | H200", "memory_per_node": "64GiB", "cpus_per_node": 32,
                     "topology": {"within": "leaf", "at_most": 2, "prefer": 1}, "ranks_per_node": "gpu",
                     "labels": {"disk": "nvme"}, "exclude": ["n9", "n2"], "run": ["python", "train.py"]},
            "retry": {"infra": 5, "app": 1, "exclude_failed_node": true},
            "checkpoint": {"signal": "USR1", "grace": "120s"}, "fence": {"after": "90s"},
            "logs": {"file_size": "1MiB", "files": 3}}"#,
    );
    let (scheduling, launch) = compile(&file).expect("sound");
    let group = &scheduling.groups[0];
    assert_eq!(group.count, Count::Nodes { nodes: 16, per_node: 8 });
    assert_eq!(group.models.iter().map(|model| model.as_str()).collect::<Vec<_>>(), ["H100", "H200"]);
    assert_eq!((group.cpu_milli_per_node, group.memory_bytes_per_node), (Some(32_000), Some(64 << 30)));
    assert_eq!(group.ranks, RanksPerNode::PerDevice);
    let wishes: Vec<_> = group.topology.iter().map(|wish| (wish.mode, wish.at_most)).collect();
    assert_eq!(wishes, [(TopologyMode::Required, 2), (TopologyMode::Preferred, 1)]);
    assert_eq!(group.exclude.iter().map(|node| node.as_str()).collect::<Vec<_>>(), ["n2", "n9"]);
    assert_eq!(scheduling.limits.time_ms, Some(129_600_000));
    assert_eq!((scheduling.retry.infra, scheduling.retry.app, scheduling.fence_after_ms), (5, 1, Some(90_000)));
    assert_eq!(scheduling.checkpoint.signal, Some(StopSignal::Usr1));
    assert_eq!((launch.logs.file_bytes, launch.logs.files), (1 << 20, 3));
    assert_eq!(launch.run, Run::Argv(vec!["python".into(), "train.py".into()]));
}

#[test]
fn everything_but_run_has_a_default() {
    let (scheduling, launch) = compile(&read(r#"{"gang": {"run": "hostname"}}"#)).expect("sound");
    assert_eq!(scheduling.groups[0].count, Count::Nodes { nodes: 1, per_node: 0 });
    assert_eq!(scheduling.groups[0].ranks, RanksPerNode::Fixed(1));
    assert_eq!((scheduling.retry.infra, scheduling.retry.app, scheduling.gangs()), (3, 0, 1));
    assert_eq!((launch.name.as_str(), launch.workdir), ("job", None));
}

#[test]
fn a_job_file_survives_the_trip_to_the_server() {
    let json = r#"{"gang": {"nodes": 2, "ranks_per_node": "gpu", "gpus_per_node": 4, "share": 0.5, "run": "x",
                   "memory_per_node": "1GiB"}, "array": {"grid": {"lr": ["1e-4", 3], "flag": [true]}}}"#;
    let file = read(json);
    let sent = serde_json::to_string(&file).expect("encodes");
    assert_eq!(read(&sent), file);
}

#[test]
fn each_value_that_cannot_be_meant_names_its_path() {
    let table: &[(&str, &str, SpecErrorKind)] = &[
        (r#"{}"#, "gang.run", SpecErrorKind::Missing),
        (r#"{"gang": {"run": "  "}}"#, "gang.run", SpecErrorKind::Value),
        (r#"{"gang": {"run": []}}"#, "gang.run", SpecErrorKind::Value),
        (r#"{"name": "a\u001b[31m", "gang": {"run": "x"}}"#, "name", SpecErrorKind::Value),
        (r#"{"queue": "a b", "gang": {"run": "x"}}"#, "queue", SpecErrorKind::Value),
        (r#"{"schema": "muster.job/9", "gang": {"run": "x"}}"#, "schema", SpecErrorKind::Value),
        (r#"{"workdir": ".", "gang": {"run": "x"}}"#, "workdir", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "nodes": 0}}"#, "gang.nodes", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "nodes": {"min": 1, "max": 4}}}"#, "gang.nodes", SpecErrorKind::NotThereYet),
        (r#"{"gang": {"run": "x", "gpus_per_node": 9999}}"#, "gang.gpus_per_node", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "nodes": 3, "gpus": 8}}"#, "gang.gpus", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "nodes": 2, "gpus_per_node": 8, "gpus": 8}}"#, "gang.gpus", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "gpu": "H100"}}"#, "gang.gpu", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "gpu": "mem>=80G", "gpus": 1}}"#, "gang.gpu", SpecErrorKind::NotThereYet),
        (r#"{"gang": {"run": "x", "gpu": "H100 |", "gpus": 1}}"#, "gang.gpu", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "share": 1.5, "gpus_per_node": 1}}"#, "gang.share", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "ranks_per_node": 0}}"#, "gang.ranks_per_node", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "ranks_per_node": 1025}}"#, "gang.ranks_per_node", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "ranks_per_node": "gpu"}}"#, "gang.ranks_per_node", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "topology": {"at_most": 2}}}"#, "gang.topology.within", SpecErrorKind::Missing),
        (
            r#"{"gang": {"run": "x", "topology": {"within": "leaf", "at_most": 1, "prefer": 2}}}"#,
            "gang.topology.prefer",
            SpecErrorKind::Value,
        ),
        (r#"{"gang": {"run": "x", "resize": {}}}"#, "gang.resize", SpecErrorKind::NotThereYet),
        (r#"{"gang": {"run": "x"}, "env": {"1A": ""}}"#, "env.1A", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "env": {"RANK": "1"}}"#, "env.RANK", SpecErrorKind::Value),
        (
            r#"{"gang": {"run": "x"}, "limits": {"time": "1h", "expected": "2h"}}"#,
            "limits.expected",
            SpecErrorKind::Value,
        ),
        (r#"{"gang": {"run": "x"}, "limits": {"time": "1ms"}}"#, "limits.time", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "retry": {"app": 5000}}"#, "retry.app", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "checkpoint": {"signal": "KILL"}}"#, "checkpoint.signal", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "checkpoint": {"grace": "2h"}}"#, "checkpoint.grace", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "logs": {"files": 1}}"#, "logs.files", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "fence": {"after": "10ms"}}"#, "fence.after", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "array": {}}"#, "array", SpecErrorKind::Missing),
        (r#"{"gang": {"run": "x"}, "array": {"range": "0-9", "lines": ["a"]}}"#, "array", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "array": {"range": "9-0"}}"#, "array.range", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "array": {"range": "ten"}}"#, "array.range", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "array": {"range": "0-1000000"}}"#, "array", SpecErrorKind::TooBig),
        (r#"{"gang": {"run": "x"}, "array": {"lines": "cases.txt"}}"#, "array.lines", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "array": {"grid": {"lr": []}}}"#, "array.grid.lr", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "replicas": {"count": 2}}"#, "replicas", SpecErrorKind::NotThereYet),
        (r#"{"gang": {"run": "x"}, "group": [{"nodes": 1}]}"#, "group.0.name", SpecErrorKind::Missing),
        (r#"{"group": [{"name": "a", "run": "x"}, {"name": "a", "run": "x"}]}"#, "group.1.name", SpecErrorKind::Value),
        (r#"{"group": [{"name": "a", "run": "x"}, {"name": "b"}]}"#, "group.1.run", SpecErrorKind::Missing),
        (r#"{"group": [{"name": "a", "run": "x", "nodes": 0}]}"#, "group.0.nodes", SpecErrorKind::Value),
        (r#"{"group": [{"name": "a", "run": "x", "env": {"RANK": "1"}}]}"#, "group.0.env.RANK", SpecErrorKind::Value),
        (r#"{"gang": {"nodes": 2}, "group": [{"name": "a", "run": "x"}]}"#, "gang", SpecErrorKind::Value),
        (
            r#"{"gang": {"topology": {"within": "leaf", "at_most": 2}}, "group": [{"name": "a", "run": "x"}]}"#,
            "gang.topology",
            SpecErrorKind::Value,
        ),
        (r#"{"gang": {"run": "x", "name": "a"}}"#, "gang.name", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "env": {"A": "1"}}}"#, "gang.env", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "segments": {"within": "leaf"}}}"#, "gang.segments.nodes", SpecErrorKind::Missing),
        (r#"{"gang": {"run": "x", "segments": {"nodes": 2}}}"#, "gang.segments.within", SpecErrorKind::Missing),
        (r#"{"gang": {"run": "x", "spread": {"nodes": 2}}}"#, "gang.spread.over", SpecErrorKind::Missing),
        (r#"{"gang": {"run": "x", "prefer": [{"weight": 1}]}}"#, "gang.prefer.0.label", SpecErrorKind::Missing),
        (
            r#"{"gang": {"run": "x", "prefer": [{"label": "disk", "weight": 5000}]}}"#,
            "gang.prefer.0.weight",
            SpecErrorKind::Value,
        ),
        (r#"{"gang": {"run": "x", "data": ["a b"]}}"#, "gang.data", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "communication": 40.0}}"#, "gang.communication", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x", "mixed_gpus": true, "gpus": 8}}"#, "gang.mixed_gpus", SpecErrorKind::Value),
        (r#"{"gang": {"run": "x"}, "hooks": {}}"#, "hooks", SpecErrorKind::NotThereYet),
        (r#"{"gang": {"run": "x"}, "files": {}}"#, "files", SpecErrorKind::NotThereYet),
    ];
    for (json, path, kind) in table {
        let errors = refused(json);
        assert!(errors.iter().any(|error| (error.path.as_str(), error.kind) == (path, *kind)), "{json}: {errors:?}");
    }
}

#[test]
fn everything_wrong_is_said_at_once() {
    let errors = refused(r#"{"name": "", "gang": {"nodes": 0}, "limits": {"time": "1ms"}}"#);
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(paths, ["gang.nodes", "gang.run", "name", "limits.time"]);
}

#[test]
fn devices_in_all_are_spread_as_fits_or_divided() {
    let count = |json: &str| compile(&read(json)).expect("sound").0.groups[0].count.clone();
    assert!(matches!(count(r#"{"gang": {"run": "x", "gpus": 12}}"#), Count::Total(total) if total.devices == 12));
    assert_eq!(
        count(r#"{"gang": {"run": "x", "gpus": 64, "gpus_per_node": 8}}"#),
        Count::Nodes { nodes: 8, per_node: 8 }
    );
    assert_eq!(count(r#"{"gang": {"run": "x", "gpus": 64, "nodes": 16}}"#), Count::Nodes { nodes: 16, per_node: 4 });
}

#[test]
fn a_grid_gives_every_combination_once() {
    let json =
        r#"{"gang": {"run": "x"}, "array": {"grid": {"lr": ["1e-4", "3e-4"], "seed": [0, 1, 2]}, "at_once": 4}}"#;
    let (scheduling, launch) = compile(&read(json)).expect("sound");
    assert_eq!(scheduling.gangs(), 6);
    let shown: Vec<String> =
        launch.elements.iter().map(|element| format!("{} {}", element["lr"], element["seed"])).collect();
    assert_eq!(shown, ["1e-4 0", "1e-4 1", "1e-4 2", "3e-4 0", "3e-4 1", "3e-4 2"]);
}

#[test]
fn a_plain_range_needs_no_variables_and_another_gives_the_number() {
    let compiled = |range: &str| {
        let json = format!(r#"{{"gang": {{"run": "x"}}, "array": {{"range": "{range}"}}}}"#);
        let (scheduling, launch) = compile(&read(&json)).expect("sound");
        (scheduling.gangs(), launch.elements.iter().map(|element| element["index"].clone()).collect::<Vec<_>>())
    };
    assert_eq!(compiled("0-99"), (100, vec![]));
    assert_eq!(compiled("10-30:10"), (3, vec!["10".into(), "20".into(), "30".into()]));
}

#[test]
fn variables_of_an_array_have_a_limit() {
    let line = "x".repeat(1000);
    let lines: Vec<&str> = (0..300).map(|_| line.as_str()).collect();
    let json = serde_json::json!({"gang": {"run": "x"}, "array": {"lines": lines}}).to_string();
    assert_eq!(refused(&json)[0].kind, SpecErrorKind::TooBig);
}

#[test]
fn unknown_keys_and_wrong_types_are_refused_while_reading() {
    for (json, part) in [
        (r#"{"gangs": {}}"#, "unknown field `gangs`"),
        (r#"{"gang": {"gpu_per_node": 8}}"#, "unknown field `gpu_per_node`"),
        (r#"{"gang": {"run": 5}}"#, "expected a script as a string, or a command as a list of strings"),
        (r#"{"limits": {"time": 3600}}"#, "expected a duration in quotes"),
        (r#"{"limits": {"time": "3600"}}"#, "`3600` is not a duration"),
        (r#"{"gang": {"nodes": -1}}"#, "expected a number of nodes"),
        (r#"{"gang": {"ranks_per_node": "all"}}"#, "one rank per GPU"),
        (r#"{"env": {"A": 1}}"#, "expected a string"),
    ] {
        let error = serde_json::from_str::<JobFile>(json).expect_err("must be refused").to_string();
        assert!(error.contains(part), "{json}: {error}");
    }
}
