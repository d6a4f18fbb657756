//! Lists of jobs: the live ones by id, then those that have ended, the newest first.

use super::ended::{Depth, newest_first};
use super::names::find_all;
use super::past::Past;
use super::render::job;
use super::roles::Caller;
use super::subject::Subject;
use super::{Inner, errors, why};
use crate::history::{HistoryStore, Place};
use muster_common::{JobId, Time};
use muster_engine::State;
use muster_engine::forecast::Forecast;
use muster_engine::plan::brief::Briefs;
use muster_proto::client as pb;
use muster_proto::convert::error::ErrorInfo;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

const LIMIT: u32 = 200;
const LIMIT_MAX: u32 = 1000;
const REFS_MAX: usize = 1000;
/// A job with more gangs is listed without what its attempts tell.
pub(super) const GANGS_MAX: u32 = 64;

const LIVE: &[&str] = &["QUEUED", "STARTING", "RUNNING", "STOPPING"];
const ENDED: &[&str] = &["SUCCEEDED", "FAILED", "CANCELLED", "TIMED_OUT"];

/// Where a page begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// Live jobs after this id.
    Live(u64),
    /// Ended jobs whose end is before this place in history.
    Ended(Place),
}

impl Page {
    pub(super) fn read(text: &str) -> Result<Self, ErrorInfo> {
        if text.is_empty() {
            return Ok(Page::Live(0));
        }
        let parsed = text.split_once(':').and_then(|(kind, at)| match (kind, at.split_once('.')) {
            ("live", None) => Some(Page::Live(at.parse().ok()?)),
            ("ended", Some((index, ordinal))) => Some(Page::Ended((index.parse().ok()?, ordinal.parse().ok()?))),
            _ => None,
        });
        parsed.ok_or_else(|| errors::usage("that is no page of a list").hint("give `next_page` of the reply before"))
    }

    pub(super) fn text(self) -> String {
        match self {
            Page::Live(at) => format!("live:{at}"),
            Page::Ended((index, ordinal)) => format!("ended:{index}.{ordinal}"),
        }
    }
}

/// What is wanted.
struct Filter {
    states: Vec<String>,
    user: Option<String>,
    ended: bool,
    limit: usize,
}

impl Filter {
    fn read(request: &pb::ListJobsRequest, caller: &Caller) -> Result<Self, ErrorInfo> {
        let known = |word: &str| LIVE.contains(&word) || ENDED.contains(&word);
        if let Some(word) = request.states.iter().find(|word| !known(word)) {
            let hint = format!("there is: {}", [LIVE, ENDED].concat().join(", "));
            return Err(errors::usage(format!("`{word}` is no state of a job")).hint(hint));
        }
        if request.limit > LIMIT_MAX {
            return Err(errors::usage(format!("at most {LIMIT_MAX} jobs fit on a page")).hint("ask for the next page"));
        }
        let user = if request.user.is_empty() { &caller.name } else { &request.user };
        Ok(Self {
            user: (!request.all_users).then(|| user.clone()),
            ended: request.ended || request.states.iter().any(|word| ENDED.contains(&word.as_str())),
            limit: (if request.limit == 0 { LIMIT } else { request.limit }) as usize,
            states: request.states.clone(),
        })
    }

    fn takes(&self, job: &pb::Job) -> bool {
        self.states.is_empty() || self.states.contains(&job.state)
    }

    fn takes_user(&self, user: &str) -> bool {
        self.user.as_deref().is_none_or(|wanted| wanted == user)
    }
}

pub(super) async fn list(
    inner: &Arc<Inner>,
    caller: &Caller,
    request: pb::ListJobsRequest,
) -> Result<pb::ListJobsReply, ErrorInfo> {
    let filter = Filter::read(&request, caller)?;
    let page = Page::read(&request.page)?;
    if request.jobs.len() > REFS_MAX {
        return Err(errors::usage(format!("at most {REFS_MAX} jobs may be named")).hint("list all and filter"));
    }
    let (state, caller) = (inner.fresh().await?, caller.clone());
    inner
        .reading(move |inner| {
            let now = inner.now(&state);
            let history = &inner.ctx.history;
            let mut lines = Lines { inner, looked: None };
            let (jobs, next): (Vec<pb::Job>, _) = match request.jobs.as_slice() {
                [] => {
                    let (subjects, next) = page_of(&state, history, &filter, page, now)?;
                    (subjects.iter().map(|subject| lines.of(subject)).collect(), next)
                }
                refs => (named(&state, history, &find_all(&state, history, &caller, refs)?, now, &mut lines)?, None),
            };
            let jobs = jobs.into_iter().filter(|job| filter.takes(job)).collect();
            Ok(pb::ListJobsReply { jobs, next_page: next.map(Page::text).unwrap_or_default() })
        })
        .await
}

/// A line of each, in the order in which they are named first. One subject at a time: a thousand of them with all that
/// history tells would not fit into memory.
fn named(
    state: &Arc<State>,
    history: &HistoryStore,
    ids: &[JobId],
    now: Time,
    lines: &mut Lines<'_>,
) -> Result<Vec<pb::Job>, ErrorInfo> {
    let mut seen = BTreeSet::new();
    let first = ids.iter().filter(|id| seen.insert(**id));
    first.map(|id| Ok(lines.of(&Subject::for_list(state, history, *id, now)?))).collect()
}

fn page_of(
    state: &Arc<State>,
    history: &HistoryStore,
    filter: &Filter,
    page: Page,
    now: Time,
) -> Result<(Vec<Subject>, Option<Page>), ErrorInfo> {
    let mut subjects = Vec::new();
    let before = match page {
        Page::Ended(before) => before,
        Page::Live(after) => {
            let from = JobId(after.saturating_add(u64::from(after > 0)));
            for (id, record) in state.jobs().range_from(&from) {
                if !filter.takes_user(&record.principal.0) {
                    continue;
                }
                if subjects.len() == filter.limit {
                    return Ok((subjects, Some(Page::Live(id.0 - 1))));
                }
                let subject = Subject::live(state, *id, Past::default(), now);
                // Filtered here too, so that a page is full of what is wanted.
                subjects.extend(subject.filter(|subject| filter.takes(&job::summary(subject, None))));
            }
            (state.applied_index() + 1, 0)
        }
    };
    if !filter.ended {
        return Ok((subjects, None));
    }
    let left = filter.limit - subjects.len();
    let (ended, next) = ended(state, history, filter, before, left)?;
    subjects.extend(ended);
    Ok((subjects, next.map(Page::Ended)))
}

/// Ended jobs from the newest back, and where to go on.
fn ended(
    state: &Arc<State>,
    history: &HistoryStore,
    filter: &Filter,
    before: Place,
    limit: usize,
) -> Result<(Vec<Subject>, Option<Place>), ErrorInfo> {
    let mut found = Vec::new();
    let next = newest_first(history, before, Depth::LIST, |id, past| {
        let Some(end) = past.ended.as_ref() else { return Ok(ControlFlow::Continue(())) };
        let wanted = filter.states.is_empty() || filter.states.iter().any(|word| word == end.end.word());
        if !wanted || !filter.takes_user(&end.record.principal.0) {
            return Ok(ControlFlow::Continue(()));
        }
        if found.len() == limit {
            return Ok(ControlFlow::Break(()));
        }
        let past = match end.tally.total() {
            few if few <= GANGS_MAX => Past::of(history, id).map_err(errors::history)?,
            _ => past,
        };
        found.extend(Subject::ended(state, past));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((found, next))
}

/// Renders the lines of one list.
struct Lines<'a> {
    inner: &'a Inner,
    /// Looked at once for the whole list.
    looked: Option<(Arc<Briefs>, Option<Arc<Forecast>>)>,
}

impl Lines<'_> {
    fn of(&mut self, subject: &Subject) -> pb::Job {
        let mut line = job::summary(subject, None);
        if line.state == "QUEUED" {
            let inner = self.inner;
            let (briefs, forecast) = self.looked.get_or_insert_with(|| {
                let (state, now, clock) = (&subject.state, subject.now, &*inner.ctx.clock);
                (inner.looks.get(state, now, clock), inner.estimates.for_list(state, now, clock))
            });
            why::add_reason(&mut line, subject, briefs, forecast.as_deref());
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::{Cluster, principal};
    use crate::gateway::tests::server::Server;
    use crate::records;
    use muster_engine::Command;
    use muster_engine::command::Cancel;
    use muster_proto::convert::error::ErrorCode;

    const SMALL: &str = r#"{"name":"small","array":{"range":"0-3"},"gang":{"run":"x"}}"#;
    const LARGE: &str = r#"{"name":"large","array":{"range":"0-199"},"gang":{"run":"x"}}"#;

    /// Ends all elements of a new array but the last, one by one.
    fn almost_ended(cluster: &mut Cluster, json: &str, gangs: u32) -> JobId {
        let job = cluster.submit("alice", json);
        for ordinal in 0..gangs - 1 {
            let by = principal("alice");
            cluster.apply(Command::Cancel(Cancel { job, ordinal: Some(ordinal), reason: String::new(), by }));
        }
        job
    }

    /// `muster ps` may name an array of a hundred thousand elements a thousand times.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_job_that_is_named_twice_is_listed_once_where_it_was_named_first() {
        let server = Server::start(0).await;
        let mut cluster = Cluster::new(0, 0);
        let (one, other) = (cluster.end("alice", SMALL), almost_ended(&mut cluster, SMALL, 4));
        let (state, now) = (Arc::new(cluster.state.clone()), cluster.state.now());
        let mut lines = Lines { inner: &server.gateway.inner, looked: None };
        let ids = [other, one, other, one, one];
        let listed = named(&state, &cluster.history(), &ids, now, &mut lines).unwrap();
        let told: Vec<(u64, &str)> = listed.iter().map(|job| (job.id, job.state.as_str())).collect();
        assert_eq!(told, [(other.0, "QUEUED"), (one.0, "CANCELLED")]);
    }

    #[test]
    fn of_a_named_job_of_many_gangs_history_reads_its_end_alone() {
        let mut cluster = Cluster::new(0, 0);
        let live = almost_ended(&mut cluster, LARGE, 200);
        let ended = almost_ended(&mut cluster, LARGE, 200);
        let small = almost_ended(&mut cluster, SMALL, 4);
        for job in [ended, small] {
            let by = principal("alice");
            cluster.apply(Command::Cancel(Cancel { job, ordinal: None, reason: String::new(), by }));
        }
        let (rows, history) = cluster.history_on_rows();
        let (state, now) = (Arc::new(cluster.state.clone()), cluster.state.now());
        let load = |job| Subject::for_list(&state, &history, job, now).unwrap();
        let few = load(small);
        assert_eq!(few.past.gangs.len(), 3, "of a small one all is told");
        let read_back = rows.read_back();
        let (many, running) = (load(ended), load(live));
        assert_eq!((many.past.gangs.len(), running.past.gangs.len(), rows.read_back()), (0, 0, read_back + 1));
        let counts = [&many, &running].map(|subject| job::counts(subject).cancelled);
        assert_eq!((counts, many.end.is_some(), running.end.is_some()), ([200, 199], true, false));
        let nobodys = Subject::for_list(&state, &history, JobId(1_000), now).unwrap_err();
        assert_eq!(nobodys.code, ErrorCode::JobNotFound);
    }

    /// One entry may end many jobs, as when a node is fenced.
    #[test]
    fn jobs_that_one_entry_ended_are_listed_once_each_over_pages() {
        let mut cluster = Cluster::new(0, 0);
        let ids = [0, 1, 2].map(|_| cluster.submit("alice", r#"{"gang":{"run":"x"}}"#));
        for job in ids {
            let by = principal("alice");
            cluster.apply(Command::Cancel(Cancel { job, ordinal: None, reason: String::new(), by }));
        }
        let ends = cluster.events.iter().map(|recorded| recorded.event.clone());
        let ends: Vec<_> = ends.filter(|event| Past::of_end(event).is_some()).collect();
        let dir = tempfile::tempdir().unwrap();
        let history = HistoryStore::open(&dir.path().join("history")).unwrap();
        history.append(100, &records::encode(cluster.at, &ends).unwrap()).unwrap();
        let state = Arc::new(cluster.state.clone());
        let filter = Filter { states: Vec::new(), user: None, ended: true, limit: 1 };
        let mut listed = Vec::new();
        let mut before = Some((101, 0));
        while let Some(from) = before {
            assert!(listed.len() <= ids.len(), "{listed:?}");
            let (page, next) = ended(&state, &history, &filter, from, 1).unwrap();
            listed.extend(page.iter().map(Subject::id));
            before = next;
        }
        assert_eq!(listed, [ids[2], ids[1], ids[0]]);
    }

    /// Reading what became of each element would take too long; that is no reason to make a cause up.
    #[test]
    fn an_ended_array_of_many_elements_is_listed_with_how_they_ended_and_no_cause() {
        let mut cluster = Cluster::new(0, 0);
        let array = |last: u32| format!(r#"{{"gang":{{"run":"x"}},"array":{{"range":"0-{last}"}}}}"#);
        let (many, few) = (cluster.end("alice", &array(99)), cluster.end("alice", &array(9)));
        let history = cluster.history();
        let state = Arc::new(cluster.state.clone());
        let filter = Filter { states: Vec::new(), user: None, ended: true, limit: 10 };
        let before = (state.applied_index() + 1, 0);
        let (listed, _) = ended(&state, &history, &filter, before, filter.limit).unwrap();
        let lines: Vec<pb::Job> = listed.iter().map(|subject| job::summary(subject, None)).collect();
        let [looked_up, not_looked_up] = lines.as_slice() else { panic!("{lines:?}") };
        let told = |job: &pb::Job| (job.id, job.cause.clone(), job.cause_text.clone(), job.partial);
        assert_eq!(told(looked_up), (few.0, "cancelled".into(), "element 0: cancelled by alice".into(), false));
        assert_eq!(told(not_looked_up), (many.0, String::new(), "100 cancelled of 100 elements".into(), true));
        assert_eq!(not_looked_up.state, "CANCELLED");
        let whole = Subject::load(&state, &history, many, state.now()).unwrap();
        assert_eq!(job::summary(&whole, None).cause_text, "element 0: cancelled by alice");
    }

    #[test]
    fn pages_read_as_they_are_written() {
        for page in [Page::Live(4711), Page::Ended((9, 2))] {
            assert_eq!(Page::read(&page.text()).unwrap(), page);
        }
        assert_eq!(Page::read("").unwrap(), Page::Live(0));
        for text in ["live", "live:x", "live:1.2", "ended:3", "gone:3", ":"] {
            assert!(Page::read(text).is_err(), "{text}");
        }
    }
}
