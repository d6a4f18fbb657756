//! What people write: job files, policies, configuration, traces, references.

use super::{Target, choice, chosen};
use muster_common::job::file::{JobFile, compile, parse_duration_ms, parse_size_bytes};
use muster_common::job::{Hash, Launch, Scheduling};
use muster_common::{Name, Time};
use muster_engine::command::{ConfigChange, Principal, Submit};
use muster_engine::policy::Policy;
use muster_engine::policy::formula::{Figures, Formula};
use muster_engine::{Command, Entry, State, apply};
use muster_runtime::config::{self, Layers, Places};
use muster_scheduler::fuzz;
use muster_sim::trace::throughputs::Throughputs;
use muster_sim::trace::{Format, read_lenient};
use std::sync::Arc;

pub const JOB_FILE: Target = Target {
    name: "job_file",
    what: "a job file as TOML and JSON, compiled, submitted and planned",
    run: run_job_file,
    seeds: seeds_job_file,
    words: &[
        b"[gang]\n",
        b"[array]\n",
        b"[limits]\n",
        b"[retry]\n",
        b"nodes = ",
        b"gpus_per_node = ",
        b"gpus = ",
        b"run = ",
        b"topology = ",
        b"count = ",
        b"grid = ",
        b"share = ",
        b"time = ",
        b"\"4G\"",
        b"\"1h30m\"",
        b"\"gang\":{",
        b"\"run\":",
    ],
    length_max: 4 << 10,
};

pub const POLICY: Target = Target {
    name: "policy",
    what: "a policy and its formula, put into a State and used",
    run: run_policy,
    seeds: seeds_policy,
    words: &[
        b"order = ",
        b"formula",
        b"log10(",
        b"min(",
        b"pow(",
        b"run",
        b"remaining",
        b"devices",
        b"wait",
        b"submit",
        b"class",
        b"1e308",
        b"^",
        b"admission = ",
        b"backfill = ",
        b"replan = ",
        b"[classes]\n",
    ],
    length_max: 2 << 10,
};

pub const CONFIG: Target = Target {
    name: "config",
    what: "layered settings, server.toml and agent.toml",
    run: run_config,
    seeds: seeds_config,
    words: &[
        b"[server]\n",
        b"address = ",
        b"members = ",
        b"[[members]]\n",
        b"listen = ",
        b"timing",
        b"place = ",
        b"\"",
        b"'''",
    ],
    length_max: 2 << 10,
};

pub const TRACE: Target = Target {
    name: "trace",
    what: "recorded work, in every format that is text",
    run: run_trace,
    seeds: seeds_trace,
    words: &[
        b"; MaxProcs: ",
        b"job_id",
        b"num_gpu",
        b"gpu_num",
        b"submit_time",
        b"duration",
        b"-1",
        b"NaN",
        b"inf",
        b"1e300",
        b"\"",
        b",",
        b"|",
        b"\t",
        b"\r\n",
        b"JobID|",
        b"2020-06-09 18:41:01",
        b"1-02:03:04",
        b"UNLIMITED",
        b"gres/gpu=4",
        b"{\"schema\":\"muster.trace/1\"}\n",
        b"\"devices\":",
        b"\"attempts\":[",
        b"\"gpus\":[",
    ],
    length_max: 2 << 10,
};

pub const WORDS: Target = Target {
    name: "words",
    what: "names, times, sizes, page tokens",
    run: run_words,
    seeds: || [&b"1h30m"[..], b"1.5GiB", b"live:17", b"ended:9", b"node-1", b"10d"].map(<[u8]>::to_vec).to_vec(),
    words: &[b"live:", b"ended:", b"GiB", b"ms", b"."],
    length_max: 256,
};

const FILES: &[&str] = &[
    include_str!("../../../examples/allreduce.toml"),
    include_str!("../../../examples/retry.toml"),
    include_str!("../../../examples/sweep.toml"),
    include_str!("../../../examples/torch-ddp.toml"),
    include_str!("../../../examples/wont-fit.toml"),
];

fn seeds_job_file() -> Vec<Vec<u8>> {
    let toml = FILES.iter().map(|text| chosen(0, text.as_bytes()));
    let json = |text: &&str| -> Vec<u8> {
        let file: JobFile = toml::from_str(text).expect("an example");
        chosen(1, &serde_json::to_vec(&file).expect("plain data"))
    };
    toml.chain(FILES.iter().map(json)).collect()
}

fn run_job_file(input: &[u8]) {
    let Some((kind, bytes)) = choice(input) else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let compiled = if kind % 2 == 0 {
        let Ok(file) = config::parse::<JobFile>("job.toml", text) else { return };
        let Ok(compiled) = compile(&file) else { return };
        // The command line sends as JSON what it read as TOML.
        let json = serde_json::to_string(&file).expect("a job file is plain data");
        assert_eq!(fuzz::job_file(&json).as_ref(), Some(&compiled), "TOML and JSON mean different jobs");
        compiled
    } else {
        let Some(compiled) = fuzz::job_file(text) else { return };
        compiled
    };
    submit(compiled);
}

fn submit((scheduling, launch): (Scheduling, Launch)) {
    let mut state = State::new("test");
    let submit = Submit {
        key: "key".into(),
        key_made_at: None,
        principal: Principal("alice".into()),
        name: launch.name.clone(),
        scheduling,
        launch: Arc::new(launch),
        body_hash: Hash([0; 32]),
        hold: false,
        retry_of: None,
    };
    apply(&mut state, &Entry { index: 1, term: 1, at: Time(1), command: Command::Submit(Box::new(submit)) });
    state.check().unwrap_or_else(|broken| panic!("invariant: a job file broke it: {broken}"));
    super::commands::survive_reads(&state);
}

fn seeds_policy() -> Vec<Vec<u8>> {
    let files = [
        include_str!("../../../examples/policies/production.toml"),
        include_str!("../../../examples/policies/srtf-refill.toml"),
        include_str!("../../../examples/policies/f1-strict-backfill.toml"),
    ];
    let policies = files.iter().map(|text| chosen(0, text.as_bytes()));
    let formulas =
        ["log10(run) * devices + 870 * log10(submit)", "-(wait / 3600)^2 + min(class, 3) - abs(pow(2, 0.5))"];
    policies.chain(formulas.iter().map(|text| chosen(1, text.as_bytes()))).collect()
}

fn run_policy(input: &[u8]) {
    let Some((kind, bytes)) = choice(input) else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if kind % 2 == 1 {
        let Ok(formula) = Formula::parse(text) else { return };
        let figures = Figures { run: 1e9, remaining: f64::INFINITY, devices: 0.0, wait: 3.0, submit: 1e9, class: -1.0 };
        formula.value(&figures);
        formula.is_timed();
        return;
    }
    let Ok(policy) = config::parse::<Policy>("policy.toml", text) else { return };
    let mut state = super::commands::small_cluster();
    let accepted = policy.validate().is_ok();
    let change = Box::new(ConfigChange::Policy(policy));
    let command = Command::Configure { change, by: Principal("alice".into()) };
    let entry = Entry { index: state.applied_index() + 1, term: 1, at: state.now(), command };
    let outcome = apply(&mut state, &entry);
    let refused = matches!(outcome.response, muster_engine::Response::Refused(_));
    assert_eq!(accepted, !refused, "the check before the log and the one in it differ");
    super::commands::survive_reads(&state);
}

const SERVER: &str = "id = 1\nname = \"s1\"\ncluster_id = \"c\"\ndir = \"/d\"\nidentity = \"/i\"\nlisten = \"[::]:7070\"\n\
    [[members]]\nid = 1\nname = \"s1\"\naddress = \"h:1\"\n[timing]\nheartbeat_ms = 5\n";
const AGENT: &str =
    "servers = [\"h:1\"]\nname = \"n1\"\nstate_dir = \"/s\"\n[labels]\na = \"b\"\n[place]\nnetwork = [\"leaf\"]\n";
const LAYERS: &str = "[server]\naddress = [\"a:1\", \"b:2\"]\n[output]\ncolor = true\n";

fn seeds_config() -> Vec<Vec<u8>> {
    [SERVER, AGENT, LAYERS].iter().zip(0..).map(|(text, kind)| chosen(kind, text.as_bytes())).collect()
}

fn run_config(input: &[u8]) {
    let Some((kind, bytes)) = choice(input) else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let told = match kind % 3 {
        0 => fuzz::server_config(text).err(),
        1 => muster_agent::fuzz::agent_config(text).err(),
        _ => {
            let folder = tempfile::NamedTempFile::new().expect("a file");
            std::fs::write(folder.path(), text).expect("written");
            let places = Places { project: Some(folder.path().to_owned()), ..Places::default() };
            Layers::load(&["server.address", "output.color"], &places, []).err()
        }
    };
    // The place of a mistake must be printable whatever the text is.
    if let Some(error) = told {
        assert!(!error.to_string().is_empty());
    }
}

/// What jobs in steps are read with.
const THROUGHPUTS: &str =
    r#"{"v100": {"('A', 2)": {"null": 8.0}}, "v100_unconsolidated": {"('A', 2)": {"null": 4.0}}}"#;

/// A sound trace of each format that is text.
fn sound_trace(format: Format) -> Option<&'static str> {
    Some(match format {
        Format::Swf => {
            "; MaxProcs: 64\n1 0 5 100 4 -1 -1 4 200 -1 1 1 1 1 1 1 -1 -1\n2 9 -1 0 1 -1 -1 1 -1 -1 1 1 1 1 1 1 -1 -1\n"
        }
        Format::Tiresias => "job_id,num_gpu,submit_time,duration\n1,4,0,100\n2,1,5.5,3600\n",
        Format::PhillyLog => {
            r#"[{"status":"Pass","vc":"v","jobid":"a1","user":"u","submitted_time":"2017-10-09 07:01:00","attempts":[
{"start_time":"2017-10-09 07:02:00","end_time":"2017-10-09 08:02:00","detail":[{"ip":"m1","gpus":["gpu0","gpu1"]}]},
{"start_time":"2017-10-09 09:00:00","end_time":null,"detail":[]}]},{"status":"Killed","vc":"v","jobid":"a2"}]"#
        }
        Format::PhillyTable => {
            "timestamp,duration,num_gpus,gpu_time,cluster\n2017-09-04 10:30:41,2240194.0,8,17921552.0,7f04ca\n"
        }
        Format::Openb => {
            "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n\
            p0,12000,16384,1,460,V100M16|V100M32,LS,Running,0,100,5\np1,8000,1024,0,0,,BE,Failed,10,30,\n"
        }
        Format::Helios => {
            "job_id,user,vc,gpu_num,cpu_num,node_num,state,submit_time,start_time,end_time,duration,queue\n\
            1,uA,vcX,1,1,1,COMPLETED,2020-06-09 18:41:01,2020-06-09 18:41:01,2020-06-10 04:55:09,36848,0\n"
        }
        Format::Acme => {
            "job_id,user,node_num,gpu_num,cpu_num,type,state,submit_time,start_time,end_time,duration,queue,gpu_time\n\
            d2,u1,8,64.0,960,Pretrain,CANCELLED,2023-05-17 11:28:42+00:00,x,y,82,12.0,5248.0\n"
        }
        Format::Gavel => "A\tpython3\tdir\t-n\t1\t80\t2\t1\t-1.000000\t3\n",
        Format::Sacct => {
            "JobID|User|Account|State|Submit|Start|End|Elapsed|Timelimit|AllocTRES|\n\
            10|ann|nlp|COMPLETED|2024-01-01T00:00:00|2024-01-01T00:01:00|2024-01-01T01:01:00|01:00:00|1-00:00:00|gres/gpu=4|\n"
        }
        Format::Muster => {
            "{\"schema\":\"muster.trace/1\"}\n\
            {\"job_id\":\"a\",\"submit_ms\":5,\"run_ms\":7,\"devices\":1,\"share_milli\":250,\"models\":[\"H100\"],\"user\":\"ann\"}\n"
        }
        Format::Parquet => return None,
    })
}

fn seeds_trace() -> Vec<Vec<u8>> {
    let seed = |(kind, format)| Some(chosen(kind, sound_trace(format)?.as_bytes()));
    (0..).zip(Format::ALL).filter_map(seed).collect()
}

fn run_trace(input: &[u8]) {
    let Some((kind, bytes)) = choice(input) else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let kind = usize::from(kind);
    let table = Throughputs::parse(THROUGHPUTS).expect("a sound table");
    if let Ok(trace) = read_lenient(Format::ALL[kind % Format::ALL.len()], text, Some(&table)) {
        let card = &trace.card;
        let dropped: u64 = card.dropped.iter().map(|noted| noted.rows).sum();
        assert_eq!(card.rows, card.jobs + dropped + card.bad_rows, "a row is gone without a word");
        let jobs = trace.jobs.len();
        let window = trace.window(kind / Format::ALL.len(), Some(2));
        assert!(window.map_or(0, |window| window.jobs.len()) <= jobs);
    }
}

fn run_words(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    fuzz::list_page(text);
    let _ = (parse_duration_ms(text), parse_size_bytes(text));
    if let Ok(name) = Name::new(text) {
        assert!(!name.as_str().contains(|c: char| c.is_control() || c == '/'), "a name is not safe in a path");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the inputs that are made from them reach no reader.
    #[test]
    fn every_format_that_is_text_has_a_sound_trace() {
        let table = Throughputs::parse(THROUGHPUTS).unwrap();
        for format in Format::ALL {
            let Some(text) = sound_trace(format) else {
                assert_eq!(format, Format::Parquet);
                continue;
            };
            let card = read_lenient(format, text, Some(&table)).unwrap().card;
            assert!(card.jobs > 0, "{format:?}: {card:?}");
        }
    }

    #[test]
    fn texts_cut_anywhere_and_with_one_byte_changed_are_survived() {
        for seed in seeds_trace() {
            for at in 1..seed.len() {
                run_trace(&seed[..at]);
                for byte in *b"\"\n|9" {
                    let mut changed = seed.clone();
                    changed[at] = byte;
                    run_trace(&changed);
                }
            }
        }
    }
}
