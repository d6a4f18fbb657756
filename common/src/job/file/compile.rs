//! A job file into the scheduling part and the launch part.
use super::JobFile;
use super::array::compile_array;
use super::decompile::reads_as_number;
use super::env::check_env;
use super::error::{Errors, SpecError, SpecErrorKind};
use super::gang::name;
use super::groups::compile_groups;
use super::start::compile_start;
use crate::Name;
use crate::job::{
    CheckpointSpec, DEFAULT_NAME, GroupRequest, Launch, Limits, LogLimits, RetryBudget, Scheduling, StopSignal,
};
use crate::time::{DAY_MS, HOUR_MS, SECOND_MS};

/// The schema that this version reads.
const SCHEMA: &str = "muster.job/1";
const LIMIT_MS_MAX: u64 = 3660 * DAY_MS;
const GRACE_MS_MAX: u64 = HOUR_MS;
const FENCE_MS_MAX: u64 = 7 * DAY_MS;
const RETRIES_MAX: u64 = 1000;
const WORKDIR_BYTES_MAX: usize = 4096;
const LOG_FILE_BYTES: (u64, u64) = (4 << 10, 4 << 30);
const LOG_FILES: (u64, u64) = (2, 100);
const RANKS_MAX: u64 = 4_000_000;

/// What the house needs of a job file.
///
/// # Errors
/// Everything that is wrong with it, at most 20 of them.
pub fn compile(file: &JobFile) -> Result<(Scheduling, Launch), Vec<SpecError>> {
    let mut errors = Errors::default();
    refuse_later(file, &mut errors);
    let groups = compile_groups(file, &mut errors);
    let ranks: u64 = groups.requests.iter().map(GroupRequest::ranks_most).sum();
    if ranks > RANKS_MAX {
        errors.add(
            SpecErrorKind::TooBig,
            "gang.ranks_per_node",
            format!("{ranks} ranks in one gang"),
            format!("at most {RANKS_MAX} are allowed"),
        );
    }
    check_env(&file.env, "env", &mut errors);
    let (array, elements) = match &file.array {
        Some(array) => {
            let (spec, elements) = compile_array(array, &mut errors);
            (Some(spec), elements)
        }
        None => (None, Vec::new()),
    };
    let mut word = |path, text: &Option<String>, default| match text {
        Some(text) => name(path, text, &mut errors),
        None => Some(Name::literal(default)),
    };
    let job_name = word("name", &file.name, "job");
    let queue = word("queue", &file.queue, DEFAULT_NAME);
    let account = word("account", &file.account, DEFAULT_NAME);
    let class = word("priority", &file.priority, "normal");
    check_name(file, &mut errors);
    let limits = limits(file, &mut errors);
    let retry = retry(file, &mut errors);
    let checkpoint = checkpoint(file, &mut errors);
    let fence_after_ms = file.fence.after.as_ref().map(|after| {
        errors.check_duration("fence.after", after, SECOND_MS, FENCE_MS_MAX);
        after.ms()
    });
    let logs = logs(file, &mut errors);
    let after = compile_start(file, &limits, &mut errors);
    check_workdir(file, &mut errors);
    let parts = || {
        let launch = Launch {
            name: job_name?,
            run: groups.run,
            env: file.env.clone(),
            groups: groups.launches,
            workdir: file.workdir.clone(),
            logs,
            elements,
        };
        let scheduling = Scheduling {
            queue: queue?,
            account: account?,
            class: class?,
            groups: groups.requests,
            together: groups.together,
            array,
            limits,
            retry,
            checkpoint,
            preemptible: file.preemptible.unwrap_or(true),
            fence_after_ms,
            begin_at_ms: file.begin.map(|moment| moment.ms()),
            deadline_at_ms: file.deadline.map(|moment| moment.ms()),
            after,
        };
        Some((scheduling, launch))
    };
    errors.into_result(parts())
}

fn refuse_later(file: &JobFile, errors: &mut Errors) {
    let later = [
        ("replicas", file.replicas, "serving jobs (`[replicas]`) are"),
        ("hooks", file.hooks, "hooks (`[hooks]`) are"),
        ("files", file.files, "uploaded files (`[files]`) are"),
    ];
    for (path, _, what) in later.into_iter().filter(|(_, given, _)| given.is_some()) {
        let why = "the format is settled, the part is not built";
        errors.add(SpecErrorKind::NotThereYet, path, format!("{what} not there yet"), why);
        errors.hint(
            "this version runs `[gang]`, `[[group]]`, `[limits]`, `[retry]`, `[checkpoint]`, `[array]`, `[logs]` and `[fence]`",
        );
    }
    if let Some(schema) = file.schema.as_ref().filter(|schema| *schema != SCHEMA) {
        errors.value("schema", format!("{schema:?} is not a schema of this version"), format!("it reads `{SCHEMA}`"));
    }
}

/// People and programs name a job by its number or by its name.
fn check_name(file: &JobFile, errors: &mut Errors) {
    let Some(name) = file.name.as_ref().filter(|name| reads_as_number(name)) else { return };
    errors.value("name", format!("`{name}` reads as a job's number"), "nobody could tell which of the two is meant");
    errors.hint(format!("put a letter in it: name = \"run-{name}\""));
}

fn limits(file: &JobFile, errors: &mut Errors) -> Limits {
    let given = &file.limits;
    let mut ms = |path, text: &Option<super::DurationText>| {
        let duration = text.as_ref()?;
        errors.check_duration(path, duration, SECOND_MS, LIMIT_MS_MAX);
        Some(duration.ms())
    };
    let limits = Limits {
        time_ms: ms("limits.time", &given.time),
        expected_ms: ms("limits.expected", &given.expected),
        wait_ms: ms("limits.wait", &given.wait),
        exact_ms: None,
    };
    if let (Some(time), Some(expected)) = (limits.time_ms, limits.expected_ms)
        && expected > time
    {
        errors.value("limits.expected", "expected to run longer than its limit", "it would be stopped before its end");
    }
    limits
}

fn retry(file: &JobFile, errors: &mut Errors) -> RetryBudget {
    let (given, default) = (&file.retry, RetryBudget::default());
    for (path, value) in [("retry.infra", given.infra), ("retry.app", given.app)] {
        if let Some(value) = value {
            errors.check_range(path, value.into(), 0, RETRIES_MAX);
        }
    }
    RetryBudget {
        infra: given.infra.unwrap_or(default.infra),
        app: given.app.unwrap_or(default.app),
        exclude_failed_node: given.exclude_failed_node.unwrap_or(default.exclude_failed_node),
    }
}

fn checkpoint(file: &JobFile, errors: &mut Errors) -> CheckpointSpec {
    let given = &file.checkpoint;
    let signal = given.signal.as_deref().and_then(|word| {
        let known = match word.strip_prefix("SIG").unwrap_or(word) {
            "USR1" => Some(StopSignal::Usr1),
            "USR2" => Some(StopSignal::Usr2),
            "TERM" => Some(StopSignal::Term),
            "INT" => Some(StopSignal::Int),
            "HUP" => Some(StopSignal::Hup),
            _ => None,
        };
        if known.is_none() {
            let why = "USR1, USR2, TERM, INT and HUP are possible";
            errors.value("checkpoint.signal", format!("{word:?} is not a signal for this"), why);
        }
        known
    });
    if let Some(grace) = &given.grace {
        errors.check_duration("checkpoint.grace", grace, 0, GRACE_MS_MAX);
    }
    let grace_ms = given.grace.as_ref().map_or(CheckpointSpec::default().grace_ms, super::DurationText::ms);
    CheckpointSpec { signal, grace_ms }
}

fn logs(file: &JobFile, errors: &mut Errors) -> LogLimits {
    let (given, default) = (&file.logs, LogLimits::default());
    let file_bytes = given.file_size.as_ref().map_or(default.file_bytes, super::SizeText::bytes);
    errors.check_range("logs.file_size", file_bytes, LOG_FILE_BYTES.0, LOG_FILE_BYTES.1);
    let files = given.files.unwrap_or(default.files);
    errors.check_range("logs.files", files.into(), LOG_FILES.0, LOG_FILES.1);
    LogLimits { file_bytes, files }
}

fn check_workdir(file: &JobFile, errors: &mut Errors) {
    let Some(workdir) = &file.workdir else { return };
    let why = "ranks start on nodes, which have no idea of a client's folder";
    if workdir.len() > WORKDIR_BYTES_MAX || workdir.chars().any(char::is_control) {
        errors.value("workdir", "not a path", format!("at most {WORKDIR_BYTES_MAX} printable bytes"));
    } else if !workdir.starts_with('/') {
        errors.value("workdir", format!("`{workdir}` is not an absolute path"), why);
        errors.hint("`muster submit` makes it absolute; a program gives the whole path");
    }
}
