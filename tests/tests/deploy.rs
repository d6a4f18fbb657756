//! What is shipped beside the program is true: settings, units, container files and examples.

use muster_tests::binary::muster;
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a package lies in the workspace").to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// With every `#key = value` and `#[table]` in force. Prose has a blank after its `#`.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.strip_prefix('#') {
        Some(setting) if !setting.is_empty() && !setting.starts_with(' ') => format!("{setting}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// All keys that a settings file may have, from the answer to one that it may not.
fn keys<T: DeserializeOwned>() -> Vec<String> {
    let error = toml::from_str::<T>("no_such_key = 1").err().expect("unknown keys are errors").to_string();
    let listed = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}")).1;
    let keys: Vec<String> = listed.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    assert!(keys.len() > 5, "{error}");
    keys
}

fn check_example<T: DeserializeOwned>(path: &str, validate: impl Fn(&T)) {
    let text = read(path);
    for text in [text.clone(), uncommented(&text)] {
        let config: T = muster_runtime::config::parse(path, &text).unwrap_or_else(|error| panic!("{error}"));
        validate(&config);
    }
    let table: toml::Table = uncommented(&text).parse().expect("it was just parsed");
    for key in keys::<T>() {
        assert!(table.contains_key(&key), "{path} does not show `{key}`");
    }
}

#[test]
fn the_servers_example_shows_every_setting_and_is_read_by_the_server() {
    let validate = |config: &muster_scheduler::config::ServerConfig| config.validate().expect("sound");
    check_example("deploy/etc/server.toml.example", validate);
}

#[test]
fn the_agents_example_shows_every_setting_and_is_read_by_the_agent() {
    check_example("deploy/etc/agent.toml.example", |config: &muster_agent::Config| config.validate().expect("sound"));
}

fn unit(name: &str) -> Vec<(String, String)> {
    let text = read(&format!("deploy/systemd/{name}"));
    let pair = |line: &str| line.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()));
    text.lines().filter(|line| !line.starts_with('#')).filter_map(pair).collect()
}

fn value<'a>(unit: &'a [(String, String)], key: &str) -> &'a str {
    &unit.iter().find(|(name, _)| name == key).unwrap_or_else(|| panic!("no {key}=")).1
}

#[test]
fn an_agents_restart_leaves_its_ranks_alone_and_an_unconfigured_daemon_does_not_start() {
    let agent = unit("muster-agent.service");
    for (key, wanted) in
        [("KillMode", "process"), ("Delegate", "yes"), ("Restart", "always"), ("OOMPolicy", "continue")]
    {
        assert_eq!(value(&agent, key), wanted, "{key}=");
    }
    for (name, daemon) in [("muster-agent.service", "agent"), ("muster-server.service", "server")] {
        let unit = unit(name);
        let file = format!("/etc/muster/{daemon}.toml");
        assert_eq!(value(&unit, "ConditionPathExists"), file);
        assert_eq!(value(&unit, "ExecStart"), format!("/usr/bin/muster {daemon} --config {file}"));
        assert_eq!(value(&unit, "StateDirectory"), format!("muster/{daemon}"));
    }
    // Ranks outlive the agent, and so do the folders by which it finds them.
    assert_eq!((value(&agent, "RuntimeDirectory"), value(&agent, "RuntimeDirectoryPreserve")), ("muster/agent", "yes"));
}

#[test]
fn systemd_takes_the_units_and_finds_the_server_well_confined() {
    // Exposure from 0 to 10 in tenths; systemd calls up to 4.9 OK.
    const EXPOSURE_MAX: &str = "20";
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        println!("NOT CHECKED: systemd-analyze is not on this machine");
        return;
    }
    let analyze = |words: &[&str]| {
        let output = Command::new("systemd-analyze").args(words).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said)
    };
    for name in ["muster-server.service", "muster-agent.service"] {
        let path = root().join("deploy/systemd").join(name);
        let (_, said) = analyze(&["verify", "--man=no", path.to_str().expect("a plain path")]);
        // The program is not installed here; whatever else systemd says of these units counts.
        let wrong: Vec<&str> = said
            .lines()
            .filter(|line| line.contains("muster-") && !line.contains("/usr/bin/muster is not executable"))
            .collect();
        assert_eq!(wrong, [""; 0]);
    }
    let server = root().join("deploy/systemd/muster-server.service");
    let (confined, said) = analyze(&[
        "security",
        "--offline=true",
        &format!("--threshold={EXPOSURE_MAX}"),
        server.to_str().expect("a plain path"),
    ]);
    assert!(confined, "{said}");
}

/// `muster WORDS --help`, if there is such a command.
fn help(words: &[&str]) -> Option<String> {
    let output = Command::new(muster()).args(words).arg("--help").output().expect("muster starts");
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The commands of `muster` in a text for shells, each as its words.
fn commands(text: &str) -> Vec<Vec<String>> {
    const ENDS: &[&str] = &["|", "||", "&&", ">", ">>", "<", "2>&1", "--", "\\"];
    let mut found = Vec::new();
    for line in text.replace("\\\n", " ").lines() {
        let mut words = line.split_whitespace().peekable();
        while let Some(word) = words.next() {
            if word != "muster" {
                continue;
            }
            let mut command = Vec::new();
            while let Some(word) = words.next_if(|word| !ENDS.contains(word) && !word.starts_with('#')) {
                command.push(word.trim_end_matches([';', ')', '"']).to_owned());
                if word.ends_with(';') {
                    break;
                }
            }
            // Otherwise it is the name of an image or of a package.
            if command.first().is_some_and(|first| first.chars().all(|c| c.is_ascii_lowercase())) {
                found.push(command);
            }
        }
    }
    found
}

/// Every command is one of the program's, and has the flags that are given to it.
fn check_commands(place: &str, found: &[Vec<String>]) {
    for command in found {
        let mut path: Vec<&str> = Vec::new();
        let mut text = help(&[]).expect("muster has help");
        for word in command {
            let listed =
                text.lines().any(|line| line.starts_with("  ") && line.split_whitespace().next() == Some(word));
            let Some(next) = help(&[&path[..], &[word]].concat()).filter(|_| listed && !word.starts_with('-')) else {
                break;
            };
            (text, path) = (next, [&path[..], &[word]].concat());
        }
        assert!(!path.is_empty(), "{place}: `muster {}`: no such command", command.join(" "));
        for flag in command.iter().filter(|word| word.starts_with("--")) {
            let name = flag.split('=').next().unwrap_or(flag);
            let known = text.split(|c: char| !c.is_ascii_lowercase() && c != '-').any(|word| word == name);
            assert!(known, "{place}: `muster {}` has no {name}", path.join(" "));
        }
    }
}

/// The fenced blocks of a page that a shell could read.
fn fenced(page: &str) -> String {
    let mut inside = false;
    let mut text = String::new();
    for line in page.lines() {
        if let Some(info) = line.strip_prefix("```") {
            inside = !inside && matches!(info.split(' ').next(), Some("sh" | "console"));
        } else if inside {
            text.push_str(&format!("{}\n", line.strip_prefix("$ ").unwrap_or(line)));
        }
    }
    text
}

#[test]
fn every_command_in_the_readme_and_the_guides_exists_with_its_flags() {
    let mut pages = vec!["README.md".to_owned()];
    for folder in ["docs/tutorials", "docs/how-to"] {
        let entries = std::fs::read_dir(root().join(folder)).expect("the folder is there").flatten();
        pages.extend(entries.map(|entry| format!("{folder}/{}", entry.file_name().to_string_lossy())));
    }
    for page in &pages {
        let found = commands(&fenced(&read(page)));
        assert!(!found.is_empty(), "{page} shows no command");
        check_commands(page, &found);
    }
}

/// The compose file as data, anchors resolved; none where nothing here reads YAML.
fn compose() -> Option<Value> {
    const READ: &str = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let path = root().join("deploy/compose/compose.yaml");
    let reads =
        Command::new("python3").args(["-c", "import yaml"]).output().is_ok_and(|output| output.status.success());
    if !reads {
        println!("NOT CHECKED: python3 with yaml is not on this machine");
        return None;
    }
    let output = Command::new("python3").args(["-c", READ]).arg(&path).output().expect("python3 starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(serde_json::from_slice(&output.stdout).expect("JSON"))
}

#[test]
fn the_compose_file_starts_only_commands_that_exist_on_servers_that_were_made() {
    let text = read("deploy/compose/compose.yaml");
    check_commands("compose.yaml", &commands(&text.replace("$$", "$")));
    let Some(compose) = compose() else { return };
    let services = compose["services"].as_object().expect("services");
    let words = |service: &Value| -> Vec<String> {
        let command = service["command"].as_array().into_iter().flatten();
        command.map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let init = words(&services["keys"]).join(" ");
    let servers: Vec<&String> = services.keys().filter(|name| words(&services[*name])[0] == "server").collect();
    assert_eq!(servers, ["a", "b", "c"]);
    for name in servers {
        let service = &services[name];
        check_commands("compose.yaml", &[words(service)]);
        assert!(init.contains(&format!("--server-at {name}={name}:7070")), "{init}");
        assert!(words(service)[2].ends_with(&format!("cluster/servers/{name}/server.toml")), "{service}");
    }
    for (name, service) in services {
        let build = root().join("deploy/compose").join(service["build"]["context"].as_str().expect("a context"));
        assert!(build.join(service["build"]["dockerfile"].as_str().expect("a file")).exists(), "{name}");
    }
}
