//! The way back: the job file that would make a job, from what the house keeps of it.

use super::{
    Array, Checkpoint, Command, DurationText, Fence, Gang, Inline, JobFile, Limits, Logs, MomentText, NodeCount,
    OneOrMany, Prefer, Ranks, Retry, Scalar, Segments, SizeText, Spread, Topology,
};
use crate::job::{
    ArraySpec, CheckpointSpec, Count, GroupRequest, Launch, LogLimits, RanksPerNode, RetryBudget, Run, Scheduling,
    StopSignal,
};
use crate::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use crate::topology::{LabelWish, TopologyMode, TopologyRequest};
use std::collections::BTreeMap;

/// A job file that compiles to exactly these two parts, as long as they came from one. What has its
/// default is left out, but for the words people look for: queue, account and priority.
pub fn decompile(scheduling: &Scheduling, launch: &Launch) -> JobFile {
    let mut file = scheduling_file(scheduling);
    file.name = Some(launch.name.to_string());
    file.workdir.clone_from(&launch.workdir);
    file.env.clone_from(&launch.env);
    file.gang.get_or_insert_default().run = Some(command(&launch.run));
    for (group, launch) in file.group.iter_mut().zip(&launch.groups) {
        group.run = launch.run.as_ref().map(command);
        group.env.clone_from(&launch.env);
    }
    file.array = scheduling.array.as_ref().map(|spec| array(spec, &launch.elements));
    let default = LogLimits::default();
    file.logs = Logs {
        file_size: (launch.logs.file_bytes != default.file_bytes).then(|| size(launch.logs.file_bytes)),
        files: (launch.logs.files != default.files).then_some(launch.logs.files),
    };
    file
}

fn command(run: &Run) -> Command {
    match run {
        Run::Script(script) => Command::Script(script.clone()),
        Run::Argv(argv) => Command::Argv(argv.clone()),
    }
}

/// The scheduling part of a job file alone: without name, command, environment and elements.
pub fn scheduling_file(scheduling: &Scheduling) -> JobFile {
    let (retry, retry_default) = (&scheduling.retry, RetryBudget::default());
    let (checkpoint, checkpoint_default) = (&scheduling.checkpoint, CheckpointSpec::default());
    let several = scheduling.groups.len() > 1;
    let named = |group: &GroupRequest| Gang { name: Some(group.name.to_string()), ..gang(group) };
    let all = || Gang { topology: topology(&scheduling.together), ..Gang::default() };
    JobFile {
        queue: Some(scheduling.queue.to_string()),
        account: Some(scheduling.account.to_string()),
        priority: Some(scheduling.class.to_string()),
        preemptible: (!scheduling.preemptible).then_some(false),
        begin: scheduling.begin_at_ms.map(MomentText::of_ms),
        deadline: scheduling.deadline_at_ms.map(MomentText::of_ms),
        after: super::start::after_file(&scheduling.after),
        gang: if several {
            Some(all()).filter(|all| *all != Gang::default())
        } else {
            scheduling.groups.first().map(gang)
        },
        group: if several { scheduling.groups.iter().map(named).collect() } else { Vec::new() },
        limits: Limits {
            time: scheduling.limits.time_ms.map(duration),
            expected: scheduling.limits.expected_ms.map(duration),
            wait: scheduling.limits.wait_ms.map(duration),
        },
        retry: Retry {
            infra: (retry.infra != retry_default.infra).then_some(retry.infra),
            app: (retry.app != retry_default.app).then_some(retry.app),
            exclude_failed_node: (retry.exclude_failed_node != retry_default.exclude_failed_node)
                .then_some(retry.exclude_failed_node),
        },
        checkpoint: Checkpoint {
            signal: checkpoint.signal.map(|signal| signal_word(signal).to_owned()),
            grace: (checkpoint.grace_ms != checkpoint_default.grace_ms).then(|| duration(checkpoint.grace_ms)),
        },
        array: scheduling.array.as_ref().map(|spec| array(spec, &[])),
        fence: Fence { after: scheduling.fence_after_ms.map(duration) },
        ..JobFile::default()
    }
}

fn gang(group: &GroupRequest) -> Gang {
    let (nodes, gpus_per_node, gpus) = match &group.count {
        Count::Nodes { nodes, per_node: 0 } => (Some(NodeCount::Fixed(*nodes)), None, None),
        Count::Nodes { nodes, per_node } => (Some(NodeCount::Fixed(*nodes)), Some(*per_node), None),
        Count::Total(total) => (None, None, Some(total.devices)),
    };
    let models: Vec<&str> = group.models.iter().map(|model| model.as_str()).collect();
    Gang {
        nodes,
        gpus_per_node,
        gpus,
        gpu: (!models.is_empty()).then(|| models.join(" | ")),
        share: (!group.share.is_whole()).then(|| f64::from(group.share.0) / 1000.0),
        cpus_per_node: group.cpu_milli_per_node.map(|milli| u32::try_from(milli / 1000).unwrap_or(u32::MAX)),
        memory_per_node: group.memory_bytes_per_node.map(size),
        ranks_per_node: match group.ranks {
            RanksPerNode::Fixed(1) => None,
            RanksPerNode::Fixed(ranks) => Some(Ranks::Fixed(ranks)),
            RanksPerNode::PerDevice => Some(Ranks::PerGpu),
        },
        mixed_gpus: group.mixed_models.then_some(true),
        exclusive: group.exclusive.then_some(true),
        topology: topology(&group.topology),
        segments: group.segment.as_ref().map(|segment| Segments {
            nodes: Some(segment.nodes),
            within: Some(segment.level.to_string()),
            apart: segment.apart.then_some(true),
        }),
        spread: group
            .spread
            .as_ref()
            .map(|spread| Spread { over: Some(spread.level.to_string()), nodes: Some(spread.nodes) }),
        prefer: group.prefers.iter().map(prefer).collect(),
        communication: group.communication_percent.map(|percent| f64::from(percent) / 100.0),
        labels: group.labels.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
        avoid: group.avoid.iter().map(|(key, value)| (key.to_string(), value.clone())).collect(),
        exclude: group.exclude.iter().map(ToString::to_string).collect(),
        ..Gang::default()
    }
}

/// One table for each level that is named.
fn topology(requests: &[TopologyRequest]) -> Option<OneOrMany<Topology>> {
    let mut levels: Vec<Topology> = Vec::new();
    for request in requests {
        let name = request.level.to_string();
        let at = match levels.iter().position(|known| known.within.as_ref() == Some(&name)) {
            Some(at) => at,
            None => {
                levels.push(Topology { within: Some(name), ..Topology::default() });
                levels.len() - 1
            }
        };
        match request.mode {
            TopologyMode::Required => levels[at].at_most = Some(request.at_most),
            TopologyMode::Preferred => levels[at].prefer = Some(request.at_most),
        }
    }
    OneOrMany::of(levels)
}

fn prefer(wish: &LabelWish) -> Prefer {
    Prefer { label: Some(wish.label.to_string()), value: wish.value.clone(), weight: Some(wish.weight) }
}

fn array(spec: &ArraySpec, elements: &[BTreeMap<String, String>]) -> Array {
    let scalars = |element: &BTreeMap<String, String>| {
        element.iter().map(|(name, value)| (name.clone(), Scalar(value.clone()))).collect()
    };
    let listed = !elements.is_empty();
    Array {
        range: (!listed).then(|| format!("0-{}", spec.count.saturating_sub(1))),
        json: listed.then(|| Inline::List(elements.iter().map(scalars).collect())),
        at_once: spec.at_once,
        stop_after_failures: spec.stop_after_failures,
        ..Array::default()
    }
}

const fn signal_word(signal: StopSignal) -> &'static str {
    match signal {
        StopSignal::Usr1 => "USR1",
        StopSignal::Usr2 => "USR2",
        StopSignal::Term => "TERM",
        StopSignal::Int => "INT",
        StopSignal::Hup => "HUP",
    }
}

/// `36h`, `1h30m`, `90s`, `1s250ms`.
fn duration(ms: u64) -> DurationText {
    let units = [(DAY_MS, "d"), (HOUR_MS, "h"), (MINUTE_MS, "m"), (SECOND_MS, "s"), (1, "ms")];
    let mut rest = ms;
    let mut text = String::new();
    for (unit_ms, unit) in units {
        if rest >= unit_ms {
            text.push_str(&format!("{}{unit}", rest / unit_ms));
            rest %= unit_ms;
        }
    }
    let text = if text.is_empty() { "0s" } else { &text };
    DurationText::new(text).expect("numbers with units are a duration")
}

/// In the largest unit that divides it.
fn size(bytes: u64) -> SizeText {
    let units = [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let whole = units.into_iter().find(|(unit, _)| bytes >= *unit && bytes.is_multiple_of(*unit));
    let (unit, name) = whole.unwrap_or((1, "B"));
    SizeText::new(&format!("{}{name}", bytes / unit)).expect("a number with a unit is a size")
}

/// Could the text be meant as a job's number (`4711`) or an element's (`4711_3`)? No name may.
pub fn reads_as_number(text: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('_') {
        Some((job, element)) => digits(job) && digits(element),
        None => digits(text),
    }
}

#[cfg(test)]
mod tests {
    use super::super::compile;
    use super::*;

    #[track_caller]
    fn comes_back(json: &str) {
        let file: JobFile = serde_json::from_str(json).expect(json);
        let (scheduling, launch) = compile(&file).expect(json);
        let back = decompile(&scheduling, &launch);
        assert_eq!(compile(&back), Ok((scheduling, launch)), "{json}");
        let text = serde_json::to_string(&back).expect("it encodes");
        assert_eq!(serde_json::from_str::<JobFile>(&text).expect("it is a job file"), back);
    }

    #[test]
    fn the_job_file_of_a_job_makes_the_same_job() {
        let gang = |gang: &str| comes_back(&format!(r#"{{"gang":{{"run":"x",{gang}}}}}"#));
        gang(r#""nodes":3"#);
        gang(r#""nodes":3,"gpus_per_node":8,"gpu":"H100 | H200","ranks_per_node":"gpu","cpus_per_node":12"#);
        gang(r#""gpus":17"#);
        gang(r#""gpus":16,"gpus_per_node":8"#);
        gang(r#""gpus_per_node":2,"share":0.125,"memory_per_node":"1500MB","ranks_per_node":4"#);
        gang(
            r#""nodes":4,"topology":{"within":"leaf"},"labels":{"disk":"nvme"},"avoid":{"contract":"spot"},"exclude":["n9","n1"]"#,
        );
        gang(r#""nodes":4,"topology":{"within":"leaf","at_most":2,"prefer":1}"#);
        gang(r#""nodes":4,"topology":{"within":"leaf","prefer":2}"#);
        gang(r#""nodes":4,"topology":[{"within":"pod"},{"within":"leaf","at_most":3,"prefer":2}]"#);
        gang(
            r#""nodes":32,"segments":{"nodes":16,"within":"nvl72","apart":true},"exclusive":true,"communication":0.35"#,
        );
        gang(r#""nodes":4,"spread":{"over":"leaf"},"data":["imagenet"],"prefer":[{"label":"disk","value":"nvme"}]"#);
        gang(
            r#""nodes":4,"spread":{"over":"leaf","nodes":2},"prefer":[{"label":"disk","weight":3}],"exclusive":false"#,
        );
        gang(r#""gpus":8,"gpu":"H100 | H200","mixed_gpus":true"#);
        comes_back(
            r#"{"gang":{"topology":{"within":"pod"}},"group":[
                {"name":"trainer","nodes":2,"gpus_per_node":8,"run":"python train.py"},
                {"name":"reward","nodes":1,"run":["serve","it"],"env":{"ROLE":"reward"},"topology":{"within":"leaf"}}]}"#,
        );
        comes_back(r#"{"gang":{"run":"x"},"group":[{"name":"a","nodes":2},{"name":"b","gpus":8}]}"#);
        let job = |rest: &str| comes_back(&format!(r#"{{"gang":{{"run":["a","b c"]}},{rest}}}"#));
        job(r#""name":"a","queue":"q","account":"c","priority":"high","preemptible":false,"workdir":"/data""#);
        job(r#""env":{"A":"1"},"limits":{"time":"36h","expected":"90s","wait":"1-12:00:00"}"#);
        job(r#""retry":{"infra":0,"app":2,"exclude_failed_node":true},"checkpoint":{"signal":"USR1","grace":"0s"}"#);
        job(r#""begin":"2026-12-01T08:00:00Z","deadline":"2026-12-02T08:00:00.500Z""#);
        job(r#""after":{"ok":[3,1],"started":[9],"any":[4],"not_ok":[5],"singleton":true,"or_cancel":true}"#);
        job(r#""array":{"range":"0-99","at_once":8,"stop_after_failures":3}"#);
        job(r#""array":{"range":"10-50:10"}"#);
        job(r#""array":{"grid":{"lr":[0.1,"1e-4"],"seed":[1,2,3]}}"#);
        job(r#""array":{"lines":["one","two words"]},"logs":{"file_size":"1MiB","files":3},"fence":{"after":"10m"}"#);
    }

    #[test]
    fn a_number_is_no_name() {
        for text in ["4711", "0", "4711_3"] {
            assert!(reads_as_number(text), "{text}");
        }
        for text in ["", "_3", "4711_", "4711_x", "run-4711", "7b", "1.5"] {
            assert!(!reads_as_number(text), "{text}");
        }
    }
}
