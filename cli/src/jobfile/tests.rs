use super::*;
use muster_common::job::file::Command;

fn refused(text: &str) -> CliError {
    refused_with(text, &[])
}

fn refused_with(text: &str, sets: &[&str]) -> CliError {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    parse("train.toml", text.to_owned(), &sets, Path::new("/home/a")).expect_err("must be refused")
}

fn accepted(text: &str, sets: &[&str]) -> JobFile {
    let sets: Vec<String> = sets.iter().map(|set| (*set).to_owned()).collect();
    match parse("train.toml", text.to_owned(), &sets, Path::new("/home/a")) {
        Ok(loaded) => file_of(&loaded),
        Err(error) => panic!("{}", error.text(false)),
    }
}

/// What the server is sent.
fn file_of(loaded: &Loaded) -> JobFile {
    serde_json::from_str(&loaded.spec_json).expect("it was made from one")
}

#[test]
fn each_mistake_is_a_typed_error_at_its_line() {
    use ErrorCode::*;
    let table: &[(&str, ErrorCode, usize)] = &[
        ("[gang\nrun = 'x'", SpecSyntax, 1),
        ("name = yes\n[gang]\nrun = 'x'", SpecSyntax, 1),
        ("[gang]\nrun = 'x'\nrun = 'y'", SpecSyntax, 3),
        ("[gang]\nrun = 'x'\ngpu_per_node = 8", SpecUnknownKey, 3),
        ("[gangs]\nrun = 'x'", SpecUnknownKey, 1),
        ("run = 'x'", SpecUnknownKey, 1),
        ("[gang]\nrun = 5", SpecType, 2),
        ("[gang]\nrun = 'x'\nnodes = 'four'", SpecType, 3),
        ("[gang]\nrun = 'x'\n[limits]\ntime = 3600", SpecType, 4),
        ("[gang]\nrun = 'x'\n[limits]\ntime = '36 hours'", SpecValue, 4),
        ("[gang]\nrun = 'x'\nnodes = -1", SpecValue, 3),
        ("[gang]\nnodes = 4", SpecMissing, 1),
        ("name = 'a b'\n[gang]\nrun = 'x'", SpecValue, 1),
        ("name = \"a\\u001b[31m\"\n[gang]\nrun = 'x'", SpecValue, 1),
        ("[gang]\nrun = 'x'\nnodes = 0", SpecValue, 3),
        ("[gang]\nrun = 'x'\ntopology = { within = 'leaf', at_most = 0 }", SpecValue, 3),
        ("[gang]\nrun = 'x'\n[env]\nRANK = '0'", SpecValue, 4),
        ("[gang]\nrun = 'x'\n[replicas]\ncount = 2", NotThereYet, 3),
        ("[gang]\nrun = 'x'\n[[group]]\nname = 'head'\nnodes = 0", SpecValue, 5),
        ("[gang]\nrun = 'x'\n[hooks]\npreflight = 'x'", NotThereYet, 3),
        ("[gang]\nrun = 'x'\n[files]\ncode = 'x'", NotThereYet, 3),
        ("[gang]\nrun = 'x'\n[array]\nlines = 'no-such-file.txt'", FileNotFound, 4),
    ];
    for (text, code, line) in table {
        let mut error = refused(text);
        let place = error.reports_mut()[0].place.clone();
        assert_eq!((error.code(), place.map(|place| place.line)), (*code, Some(*line)), "{}", error.text(false));
    }
}

#[test]
fn an_unknown_key_says_which_was_meant() {
    insta::assert_snapshot!(refused("name = 'a'\n[gang]\nrun = 'x'\ngpu_per_node = 8\n").text(false));
    insta::assert_snapshot!(refused("[gang]\nrun = 'x'\nqueue = 'research'\n").text(false));
    insta::assert_snapshot!(refused("[gang]\nrun = 'x'\n\n[limits]\nnodes = 4\n").text(false));
}

#[test]
fn a_wrong_type_says_what_was_expected() {
    insta::assert_snapshot!(refused("[gang]\nrun = 'x'\n[limits]\ntime = 3600\n").text(false));
}

#[test]
fn a_missing_run_shows_where_it_belongs() {
    insta::assert_snapshot!(refused("[gang]\nnodes = 4\n").text(false));
}

#[test]
fn all_mistakes_are_shown_at_once() {
    insta::assert_snapshot!(refused("name = ''\n[gang]\nrun = 'x'\nnodes = 0\n[limits]\ntime = '1ms'\n").text(false));
}

#[test]
fn an_error_of_the_server_points_into_the_file() {
    let source = Source::new("train.toml", "[gang]\nrun = 'x'\ngpus_per_node = 64\n".into());
    let info =
        ErrorInfo::new(ErrorCode::NeverFits, "job can never start: asks for 64 GPUs per node, largest node has 8")
            .path("gang.gpus_per_node")
            .hint("for 64 GPUs in all, write `nodes = 8` and `gpus_per_node = 8`");
    insta::assert_snapshot!(place_server_error(info.into(), &source).text(false));
}

#[test]
fn what_the_cluster_does_not_take_has_its_line() {
    let text = "queue = 'bacth'\naccount = 'reserch'\n\n[gang]\nrun = 'x'\n\n[after]\nok = [7, 4711]\n\n[limits]\ntime = '2h'\n";
    let source = Source::new("train.toml", text.into());
    for (path, line) in [("queue", 1), ("account", 2), ("gang", 4), ("after.ok", 8), ("limits.time", 11)] {
        let info = ErrorInfo::new(ErrorCode::SpecValue, format!("{path}: not taken")).path(path);
        let text = place_server_error(info.into(), &source).text(false);
        assert!(text.contains(&format!(" --> train.toml:{line}:")), "{path}:\n{text}");
    }
}

#[test]
fn set_overrides_adds_and_repairs() {
    let text = "[gang]\nrun = 'x'\nnodes = 0\n";
    let file =
        accepted(text, &["gang.nodes=8", "limits.time=48h", "name=other", "env.A=\"1\"", "gang.run=[\"a\", \"b\"]"]);
    let gang = file.gang.expect("given");
    assert_eq!(gang.nodes, Some(muster_common::job::file::NodeCount::Fixed(8)));
    assert_eq!(gang.run, Some(Command::Argv(vec!["a".into(), "b".into()])));
    assert_eq!(file.limits.time.map(|time| time.ms()), Some(48 * 3_600_000));
    assert_eq!((file.name.as_deref(), file.env["A"].as_str()), (Some("other"), "1"));
}

#[test]
fn moments_and_durations_are_set_without_quotes() {
    let file = accepted("[gang]\nrun = 'x'\n", &["begin=2026-12-01T08:00:00Z", "limits.time=12:00:00"]);
    assert_eq!(file.begin.map(|moment| moment.ms()), Some(1_796_112_000_000));
    assert_eq!(file.limits.time.map(|time| time.ms()), Some(12 * 3_600_000));
}

#[test]
fn a_wrong_set_is_refused() {
    for (set, code) in [
        ("gang.nodes", ErrorCode::Usage),
        ("gang..nodes=1", ErrorCode::Usage),
        ("gang.run.x=1", ErrorCode::Usage),
        ("gang.nodez=1", ErrorCode::SpecUnknownKey),
        ("gang.nodes=many", ErrorCode::SpecType),
    ] {
        assert_eq!(refused_with("[gang]\nrun = 'x'\n", &[set]).code(), code, "{set}");
    }
}

#[test]
fn name_and_workdir_come_from_the_file_itself() {
    let file = accepted("workdir = '.'\n[gang]\nrun = 'x'\n", &[]);
    assert_eq!((file.name.as_deref(), file.workdir.as_deref()), (Some("train"), Some("/home/a")));
    assert_eq!(accepted("[gang]\nrun = 'x'\n", &[]).workdir, None);
}

#[test]
fn json_is_accepted_by_extension_or_by_its_first_character() {
    let text = r#"{"schema": "muster.job/1", "gang": {"run": "x"}}"#;
    for name in ["job.json", "<stdin>"] {
        let loaded = parse(name, text.to_owned(), &[], Path::new("/")).expect("sound");
        assert!(file_of(&loaded).gang.is_some());
    }
    let error = parse("job.json", "{\n \"gang\": {\"runs\": 1}}".into(), &[], Path::new("/")).expect_err("a wrong key");
    assert_eq!(error.code(), ErrorCode::SpecUnknownKey);
    assert!(error.text(false).contains("job.json:2:"), "{}", error.text(false));
}

#[test]
fn lists_of_an_array_are_read_beside_the_job_file() {
    let folder = tempfile::tempdir().expect("a temp folder");
    std::fs::write(folder.path().join("cases.txt"), "one\n\ntwo\n").expect("written");
    std::fs::write(folder.path().join("cases.json"), r#"[{"lr": 0.1}, {"lr": "1e-4"}]"#).expect("written");
    let array = |from: &str| {
        let text = format!("[gang]\nrun = 'x'\n[array]\n{from}\n");
        let loaded = parse("a.toml", text, &[], folder.path()).expect("sound");
        compile(&file_of(&loaded)).expect("sound").1.elements
    };
    assert_eq!(
        array("lines = 'cases.txt'").iter().map(|element| element["line"].as_str()).collect::<Vec<_>>(),
        ["one", "two"]
    );
    assert_eq!(
        array("json = 'cases.json'").iter().map(|element| element["lr"].as_str()).collect::<Vec<_>>(),
        ["0.1", "1e-4"]
    );
}

#[test]
fn a_file_that_is_missing_denied_or_too_big_is_a_typed_error() {
    let folder = tempfile::tempdir().expect("a temp folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    assert_eq!(load(&path("none.toml"), &[]).expect_err("missing").exit_code(), 3);
    std::fs::write(path("big.toml"), "#".repeat(SPEC_BYTES_MAX + 1)).expect("written");
    assert_eq!(load(&path("big.toml"), &[]).expect_err("too big").code(), ErrorCode::SpecTooBig);
    std::fs::write(path("bytes.toml"), [0xff, 0xfe]).expect("written");
    assert_eq!(load(&path("bytes.toml"), &[]).expect_err("not text").code(), ErrorCode::SpecSyntax);
}

#[test]
fn every_example_is_a_sound_job_file() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    for name in ["allreduce", "torch-ddp", "sweep", "retry", "wont-fit"] {
        let path = folder.join(format!("{name}.toml"));
        if let Err(error) = load(&path.display().to_string(), &[]) {
            panic!("{}", error.text(false));
        }
    }
}

#[test]
fn every_example_of_the_job_file_page_is_sound() {
    let page = include_str!("../../../docs/reference/job-file.md");
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 3, "the page shows a gang, its wishes and its groups");
    for block in blocks {
        compile(&accepted(block, &[])).expect("it compiled a moment ago");
    }
}

#[test]
fn a_mistake_in_a_group_is_shown_at_its_line() {
    let error = refused("[[group]]\nname = 'a'\nrun = 'x'\n[[group]]\nname = 'b'\nnodes = 0\nrun = 'x'\n");
    assert_eq!(error.code(), ErrorCode::SpecValue);
    assert!(error.text(false).contains("train.toml:6:"), "{}", error.text(false));
}
