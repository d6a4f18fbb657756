//! Why a job of a run waited. The run is played again from its folder, up to the job's end, and looked at from time to
//! time with the engine's own explanation, as `muster why` has it.

use crate::SimError;
use crate::estimates::Sample;
use crate::metrics::JobState;
use crate::output;
use crate::play::{Play, Watch};
use crate::recorder::Recorder;
use crate::run::{Going, Progress, read_organisation};
use crate::trace::throughputs::Throughputs;
use crate::trace::{self, BadRows, Format, Reading, Trace};
use crate::world::World;
use crate::world::truth::Truth;
use muster_common::text::nearest;
use muster_common::{GangId, Time};
use muster_engine::plan::explain::{Blocker, explain as explanation};
use muster_engine::policy::Policy;
use muster_engine::{ENGINE_VERSION, Memo, State};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone)]
pub struct ExplainArgs {
    /// Of a run.
    pub folder: PathBuf,
    /// What it played: the folder knows it by its hash only.
    pub trace: PathBuf,
    pub format: Option<Format>,
    pub throughputs: Option<PathBuf>,
    pub organisation: Option<PathBuf>,
    /// As the trace calls it.
    pub job: String,
    /// A moment on the trace's clock; the middle of its first wait, unless given.
    pub at: Option<Time>,
}

/// Most looks at one job.
const LOOKS_MAX: u64 = 1_000;

/// One stretch of waiting for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stretch {
    pub from_s: f64,
    pub to_s: f64,
    /// A word, as `muster why` has it.
    pub reason: String,
    /// At its beginning.
    pub text: String,
}

/// All waiting for one reason.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Share {
    pub reason: String,
    pub wait_s: f64,
    pub percent: f64,
    /// What it said when it was seen last.
    pub text: String,
}

/// One thing that was in the way at the moment that was asked for.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct InTheWay {
    pub reason: String,
    pub text: String,
    /// What would have helped, where something would.
    pub hint: Option<String>,
    /// Jobs, as the trace calls them, and nodes.
    pub who: Vec<String>,
}

/// The answer at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    pub at_s: f64,
    /// False: it ran, had ended, or was not there yet.
    pub waits: bool,
    /// From 1, and of how many.
    pub position: Option<u32>,
    pub queue_length: Option<u32>,
    pub booked_s: Option<f64>,
    pub blockers: Vec<InTheWay>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explained {
    pub schema: &'static str,
    pub job_id: String,
    pub state: JobState,
    pub submit_s: f64,
    pub start_s: Option<f64>,
    pub end_s: Option<f64>,
    /// All of it, that of later attempts too.
    pub wait_s: f64,
    /// Moments that were looked at; what is between two of them counts for the first.
    pub looks: u64,
    /// The most first.
    pub shares: Vec<Share>,
    pub stretches: Vec<Stretch>,
    pub answer: Option<Answer>,
}

/// What of a run's manifest says how to play it again.
#[derive(Deserialize)]
struct Recorded {
    engine_version: u32,
    trace_file: File,
    throughputs_file: Option<File>,
    organisation_file: Option<File>,
    start_job: usize,
    jobs: Option<usize>,
    bad_rows: BadRows,
    seed: u64,
    policy: Policy,
    world: World,
    truth: Truth,
}

#[derive(Deserialize)]
struct File {
    name: String,
    sha256: String,
}

/// When a job of the run started first and ended.
#[derive(Deserialize)]
struct Row {
    job_id: String,
    start_s: Option<f64>,
    end_s: Option<f64>,
}

/// Plays a run again up to the end of one of its jobs.
///
/// # Errors
/// A folder that is no run's, another trace than it played, a job it does not have, or a run that another engine decided.
pub fn explain(args: &ExplainArgs, progress: &mut dyn FnMut(Progress) -> Going) -> Result<Explained, SimError> {
    let recorded = read_manifest(&args.folder)?;
    let (trace, throughputs) = read_inputs(args, &recorded)?;
    let organisation = args.organisation.as_deref().map(|path| read_organisation(path, &recorded.world)).transpose()?;
    let organisation = organisation.map(|(known, _)| known);
    let index = position(&trace, &args.job)?;
    let row = read_row(&args.folder, &args.job)?;
    let submit = Time(recorded.world.on_tick(trace.jobs[index].submit_ms));
    let last_s = row.end_s.or(row.start_s);
    let until = last_s.map_or(Time::NEVER, |s| Time((s * 1000.0) as u64));
    let at = args.at.unwrap_or_else(|| {
        let start_ms = row.start_s.map_or(until.0, |s| (s * 1000.0) as u64);
        Time(submit.0 + start_ms.saturating_sub(submit.0) / 2)
    });
    let spacing_ms = if last_s.is_some() { until.since_ms(submit) / LOOKS_MAX } else { 60_000 };
    let mut looker = Looker {
        index,
        at,
        until,
        spacing_ms,
        memo: Memo::default(),
        looks: 0,
        next_look: Time::ZERO,
        open: None,
        stretches: Vec::new(),
        answer: None,
        done: false,
    };
    let play = Play {
        world: &recorded.world,
        truth: &recorded.truth,
        policy: &recorded.policy,
        organisation: organisation.as_ref(),
        throughputs: throughputs.as_ref(),
        seed: recorded.seed,
        bounds: Vec::new(),
        watts: Vec::new(),
        estimates: Sample::default(),
        check: false,
    };
    let played = play.run_watched(trace.jobs.clone(), None, progress, &mut looker)?;
    if !(played.complete || looker.done) {
        return Err(SimError::Arguments(
            "it was stopped before the end of the job, so there is nothing to tell".into(),
        ));
    }
    let result = &played.results[index];
    let start_s = result.first_start.map(|at| at.0 as f64 / 1000.0);
    if start_s != row.start_s {
        let why = format!(
            "the job starts at {} s when it is played again, and started at {} s: another program made this run",
            told(start_s),
            told(row.start_s)
        );
        return Err(SimError::Report { path: args.folder.clone(), why });
    }
    Ok(looker.explained(args, submit, result.state, &row))
}

fn told(seconds: Option<f64>) -> String {
    seconds.map_or_else(|| "no".to_owned(), |seconds| seconds.to_string())
}

fn read_manifest(folder: &Path) -> Result<Recorded, SimError> {
    let path = folder.join("manifest.json");
    let bytes = std::fs::read(&path).map_err(|source| SimError::Read { path: path.clone(), source })?;
    let recorded: Recorded = serde_json::from_slice(&bytes)
        .map_err(|error| SimError::Report { path: path.clone(), why: error.to_string() })?;
    if recorded.engine_version != ENGINE_VERSION {
        let why = format!(
            "engine version {} decided this run, and this program has {ENGINE_VERSION}; run it again first",
            recorded.engine_version
        );
        return Err(SimError::Report { path, why });
    }
    Ok(recorded)
}

fn read_inputs(args: &ExplainArgs, recorded: &Recorded) -> Result<(Trace, Option<Throughputs>), SimError> {
    same("--trace", Some(&args.trace), Some(&recorded.trace_file))?;
    same("--throughputs", args.throughputs.as_deref(), recorded.throughputs_file.as_ref())?;
    same("--organisation", args.organisation.as_deref(), recorded.organisation_file.as_ref())?;
    let throughputs = args.throughputs.as_deref().map(Throughputs::read).transpose()?;
    let reading = Reading { format: args.format, bad_rows: recorded.bad_rows, throughputs: throughputs.as_ref() };
    let trace = trace::read(&args.trace, reading)?.window(recorded.start_job, recorded.jobs)?;
    Ok((trace, throughputs))
}

/// Is a file what the run was made from?
fn same(flag: &str, path: Option<&Path>, recorded: Option<&File>) -> Result<(), SimError> {
    match (path, recorded) {
        (None, None) => Ok(()),
        (Some(path), None) => {
            Err(SimError::Arguments(format!("the run was made without {flag}; leave {} out", path.display())))
        }
        (None, Some(file)) => {
            Err(SimError::Arguments(format!("the run was made with {}; name it with {flag}", file.name)))
        }
        (Some(path), Some(file)) if output::input_file(path)?.sha256 == file.sha256 => Ok(()),
        (Some(path), Some(file)) => Err(SimError::Arguments(format!(
            "{} is not what the run was made from: that is {} with SHA-256 {}",
            path.display(),
            file.name,
            file.sha256
        ))),
    }
}

fn position(trace: &Trace, id: &str) -> Result<usize, SimError> {
    trace.jobs.iter().position(|job| job.id == id).ok_or_else(|| {
        let near = nearest(id, trace.jobs.iter().map(|job| job.id.as_str()));
        let near = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        SimError::Arguments(format!("the run has no job `{id}`{near}"))
    })
}

fn read_row(folder: &Path, id: &str) -> Result<Row, SimError> {
    let path = folder.join("jobs.csv");
    let wrong = |why: String| SimError::Report { path: path.clone(), why };
    let mut reader = csv::Reader::from_path(&path).map_err(|error| wrong(error.to_string()))?;
    for row in reader.deserialize::<Row>() {
        let row = row.map_err(|error| wrong(error.to_string()))?;
        if row.job_id == id {
            return Ok(row);
        }
    }
    Err(wrong(format!("it has no row of job `{id}`")))
}

/// Looks at one job while a run is played.
struct Looker {
    /// Of the job in the trace.
    index: usize,
    /// The moment whose whole answer is wanted.
    at: Time,
    /// Nothing is of interest after this.
    until: Time,
    spacing_ms: u64,
    memo: Memo,
    looks: u64,
    next_look: Time,
    /// What it waits for now, since when.
    open: Option<Stretch>,
    stretches: Vec<Stretch>,
    answer: Option<Answer>,
    done: bool,
}

impl Watch for Looker {
    fn after(&mut self, state: &State, recorder: &Recorder, next: Option<Time>) -> Going {
        let now = state.now();
        let gang = recorder.job_of(self.index).map(|job| GangId::new(job, 0));
        let waits = gang.filter(|gang| waits(state, *gang));
        if self.answer.is_none() && next.is_none_or(|next| next > self.at) {
            self.answer = Some(self.answer(state, waits, recorder));
        }
        match waits {
            None => self.close(now),
            Some(gang) if now >= self.next_look || self.open.is_none() => self.look(state, gang, now, recorder),
            Some(_) => {}
        }
        if let Some(open) = &mut self.open {
            open.to_s = seconds(now);
        }
        self.done = now > self.until && self.answer.is_some();
        if self.done { Going::Stop } else { Going::On }
    }
}

/// Live, and not placed.
fn waits(state: &State, gang: GangId) -> bool {
    let Some(job) = state.job(gang.job) else { return false };
    match state.gang(gang) {
        Some(record) => record.current().is_none(),
        None => job.unstarted.contains(gang.ordinal),
    }
}

fn seconds(at: Time) -> f64 {
    at.0 as f64 / 1000.0
}

/// Who holds what, by the names of the trace: the engine knows jobs by numbers of its own.
fn in_names(text: &str, gangs: &[GangId], recorder: &Recorder) -> String {
    let said = |clause: &str| {
        let (number, held) = clause.split_once(" holds ")?;
        let gang = gangs.iter().find(|gang| gang.job.to_string() == number || gang.to_string() == number)?;
        Some(format!("{} holds {held}", recorder.name_of(gang.job)))
    };
    let one = |list: &str| {
        let clauses = list.split(", ").map(|clause| said(clause).unwrap_or_else(|| clause.to_owned()));
        clauses.collect::<Vec<_>>().join(", ")
    };
    text.split("; ").map(one).collect::<Vec<_>>().join("; ")
}

impl Looker {
    fn look(&mut self, state: &State, gang: GangId, now: Time, recorder: &Recorder) {
        self.looks += 1;
        self.next_look = now.plus_ms(self.spacing_ms);
        let explained = explanation(state, &mut self.memo, gang, now);
        let first = explained.and_then(|explained| explained.blockers.into_iter().next());
        let (reason, text) = match first {
            Some(Blocker { reason, detail, gangs, .. }) => {
                (reason.word().to_owned(), in_names(&detail, &gangs, recorder))
            }
            None => ("next-decision".to_owned(), "nothing is in the way: the next decision starts it".to_owned()),
        };
        if self.open.as_ref().is_some_and(|open| open.reason == reason) {
            return;
        }
        self.close(now);
        self.open = Some(Stretch { from_s: seconds(now), to_s: seconds(now), reason, text });
    }

    fn close(&mut self, now: Time) {
        if let Some(open) = self.open.take() {
            self.stretches.push(Stretch { to_s: seconds(now), ..open });
        }
    }

    fn answer(&mut self, state: &State, gang: Option<GangId>, recorder: &Recorder) -> Answer {
        let at = self.at.max(state.now());
        let explained = gang.and_then(|gang| explanation(state, &mut self.memo, gang, at));
        let in_the_way = |blocker: &Blocker| {
            let gangs = blocker.gangs.iter().map(|gang| recorder.name_of(gang.job));
            let nodes = blocker.nodes.iter().filter_map(|node| state.node(*node)).map(|node| node.name.to_string());
            InTheWay {
                reason: blocker.reason.word().to_owned(),
                text: in_names(&blocker.detail, &blocker.gangs, recorder),
                hint: blocker.hint.clone(),
                who: gangs.chain(nodes).collect(),
            }
        };
        let position = explained.as_ref().and_then(|explained| explained.position);
        Answer {
            at_s: seconds(self.at),
            waits: gang.is_some(),
            position: position.map(|(position, _)| position),
            queue_length: position.map(|(_, length)| length),
            booked_s: explained.as_ref().and_then(|explained| explained.booked).map(seconds),
            blockers: explained.iter().flat_map(|explained| &explained.blockers).map(in_the_way).collect(),
        }
    }

    fn explained(mut self, args: &ExplainArgs, submit: Time, state: JobState, row: &Row) -> Explained {
        // It waited to the very end of the run.
        self.stretches.extend(self.open.take());
        let wait_s: f64 = self.stretches.iter().map(|stretch| stretch.to_s - stretch.from_s).sum();
        let mut shares: BTreeMap<&str, (f64, &str)> = BTreeMap::new();
        for stretch in &self.stretches {
            let share = shares.entry(&stretch.reason).or_default();
            share.0 += stretch.to_s - stretch.from_s;
            share.1 = &stretch.text;
        }
        let share = |(reason, (spent_s, text)): (&str, (f64, &str))| Share {
            reason: reason.to_owned(),
            wait_s: spent_s,
            percent: if wait_s > 0.0 { 100.0 * spent_s / wait_s } else { 0.0 },
            text: text.to_owned(),
        };
        let mut shares: Vec<Share> = shares.into_iter().map(share).collect();
        shares.sort_by(|one, other| other.wait_s.total_cmp(&one.wait_s));
        Explained {
            schema: "muster.sim.explained/1",
            job_id: args.job.clone(),
            state,
            submit_s: seconds(submit),
            start_s: row.start_s,
            end_s: row.end_s,
            wait_s,
            looks: self.looks,
            shares,
            stretches: self.stretches,
            answer: self.answer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::given::files_in;
    use crate::run::{RunArgs, SceneArgs};

    fn played(folder: &Path, jobs: &str) -> ExplainArgs {
        let file = files_in(folder);
        let args = RunArgs {
            policy: file("policy.toml", "order = \"fifo\"\n"),
            scene: SceneArgs {
                check: true,
                ..SceneArgs::of(
                    file("world.toml", "[[nodes]]\ncount = 2\ndevices = 8\n"),
                    file("t.csv", &format!("job_id,num_gpu,submit_time,duration\n{jobs}")),
                )
            },
            seed: 0,
            output: folder.join("out"),
            events: false,
            estimates: 0,
        };
        crate::run::run(&args, &mut |_| Going::On).unwrap();
        ExplainArgs {
            folder: args.output,
            trace: args.scene.trace,
            format: None,
            throughputs: None,
            organisation: None,
            job: "2".into(),
            at: None,
        }
    }

    /// Job 0 has the whole cluster for 100 s, job 1 goes before job 2 for 50 s more.
    const JOBS: &str = "0,16,0,100\n1,16,10,50\n2,16,20,5\n";

    fn quietly(args: &ExplainArgs) -> Result<Explained, SimError> {
        explain(args, &mut |_| Going::On)
    }

    #[test]
    fn a_wait_is_told_by_its_reasons_and_as_it_stood_at_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let args = played(folder.path(), JOBS);
        let told = quietly(&args).unwrap();
        assert_eq!((told.submit_s, told.start_s, told.end_s, told.wait_s), (20.0, Some(150.0), Some(155.0), 130.0));
        assert_eq!(told.shares.iter().map(|share| share.wait_s).sum::<f64>(), 130.0);
        assert!(told.stretches.windows(2).all(|pair| pair[0].to_s == pair[1].from_s));
        let answer = told.answer.unwrap();
        assert_eq!((answer.at_s, answer.waits, answer.position, answer.queue_length), (85.0, true, Some(2), Some(2)));
        let later = quietly(&ExplainArgs { at: Some(Time(120_000)), ..args.clone() }).unwrap().answer.unwrap();
        assert_eq!((later.position, later.queue_length), (Some(1), Some(1)));
        assert!(!later.blockers.is_empty(), "{later:?}");
        let running = quietly(&ExplainArgs { at: Some(Time(152_000)), ..args }).unwrap().answer.unwrap();
        assert!(!running.waits && running.blockers.is_empty());
    }

    #[test]
    fn what_is_not_the_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let args = played(folder.path(), JOBS);
        let refused = |args: &ExplainArgs| quietly(args).unwrap_err().to_string();
        assert!(refused(&ExplainArgs { job: "22".into(), ..args.clone() }).contains("no job `22`"));
        let other = folder.path().join("other.csv");
        std::fs::write(&other, "job_id,num_gpu,submit_time,duration\n2,1,0,1\n").unwrap();
        assert!(
            refused(&ExplainArgs { trace: other.clone(), ..args.clone() })
                .contains("is not what the run was made from")
        );
        let extra = ExplainArgs { organisation: Some(other), ..args.clone() };
        assert!(refused(&extra).contains("made without --organisation"));
        let path = args.folder.join("manifest.json");
        let text = std::fs::read_to_string(&path).unwrap();
        let older = text.replace(&format!("\"engine_version\": {ENGINE_VERSION}"), "\"engine_version\": 1");
        assert_ne!(text, older);
        std::fs::write(&path, older).unwrap();
        assert!(refused(&args).contains("engine version 1 decided this run"));
    }
}
