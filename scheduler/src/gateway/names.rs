//! The jobs that references name. A name is the caller's own job before anybody else's, and one that has ended keeps
//! its name, so that what a script names is neither lost nor another's between two of its commands.

use super::ended::{Latest, newest_named};
use super::errors;
use super::roles::Caller;
use crate::history::HistoryStore;
use muster_common::{JobId, Name};
use muster_engine::State;
use muster_proto::client::JobRef;
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use std::collections::{BTreeMap, BTreeSet};

/// Ids shown when a name is not unique.
const SHOWN_MAX: usize = 5;

/// The job a reference names: see [`find_all`].
///
/// # Errors
/// As of [`find_all`].
pub(super) fn find(
    state: &State,
    history: &HistoryStore,
    caller: &Caller,
    reference: Option<&JobRef>,
) -> Result<JobId, ErrorInfo> {
    let missing = || errors::usage("the call names no job").hint("give the job's id or its name");
    let reference = reference.ok_or_else(missing)?;
    find_all(state, history, caller, std::slice::from_ref(reference))?.pop().ok_or_else(missing)
}

/// The job of each reference, in their order. A name is that of, in this order: the caller's live job, the caller's job
/// that ended last under it, another's live job, another's that ended last. State and history are gone through once
/// for all names. Reads history: not for an async thread.
///
/// # Errors
/// [`ErrorCode::JobNotFound`], [`ErrorCode::JobAmbiguous`], or [`ErrorCode::Usage`] when one names nothing at all.
pub(super) fn find_all(
    state: &State,
    history: &HistoryStore,
    caller: &Caller,
    references: &[JobRef],
) -> Result<Vec<JobId>, ErrorInfo> {
    let wanted = references.iter().map(Wanted::read).collect::<Result<Vec<_>, _>>()?;
    let names = wanted.iter().filter_map(|wanted| match wanted {
        Wanted::Id(_) => None,
        Wanted::Name(name) => Some((name.clone(), Live::default())),
    });
    let mut live: BTreeMap<Name, Live> = names.collect();
    if !live.is_empty() {
        for job in state.jobs().values() {
            let Some(named) = live.get_mut(&job.name) else { continue };
            let side = if caller.owns(&job.principal) { &mut named.own } else { &mut named.others };
            side.add(job.id);
        }
    }
    // Only a live job of the caller's own goes before what has ended.
    let unsure: BTreeSet<Name> =
        live.iter().filter(|(_, live)| live.own.count == 0).map(|(name, _)| name.clone()).collect();
    let ended = newest_named(history, (state.applied_index() + 1, 0), caller, &unsure)?;
    let chosen = wanted.into_iter().map(|wanted| match wanted {
        Wanted::Id(id) => Ok(id),
        Wanted::Name(name) => choose(&name, live.get(&name), ended.get(&name)),
    });
    chosen.collect()
}

/// What a reference gives.
enum Wanted {
    Id(JobId),
    Name(Name),
}

impl Wanted {
    fn read(reference: &JobRef) -> Result<Self, ErrorInfo> {
        if reference.id > 0 {
            return Ok(Self::Id(JobId(reference.id)));
        }
        if reference.name.is_empty() {
            return Err(errors::usage("the call names no job").hint("give the job's id or its name"));
        }
        let name = Name::new(reference.name.as_str());
        name.map(Self::Name)
            .map_err(|error| errors::usage(format!("that is no job's name: {error}")).hint("give the job's id"))
    }
}

/// The live jobs of one name.
#[derive(Default)]
struct Live {
    own: Few,
    others: Few,
}

/// How many, and the first of them.
#[derive(Default)]
struct Few {
    count: usize,
    first: Vec<JobId>,
}

impl Few {
    fn add(&mut self, id: JobId) {
        self.count += 1;
        if self.first.len() < SHOWN_MAX {
            self.first.push(id);
        }
    }

    /// The only one, if there is one at all.
    fn only(&self, name: &Name) -> Result<Option<JobId>, ErrorInfo> {
        if self.count <= 1 {
            return Ok(self.first.first().copied());
        }
        let shown: Vec<String> = self.first.iter().map(JobId::to_string).collect();
        let message = format!("{} live jobs are called `{name}`: {}", self.count, shown.join(", "));
        Err(ErrorInfo::new(ErrorCode::JobAmbiguous, message).hint("give the id of one of them"))
    }
}

fn choose(name: &Name, live: Option<&Live>, ended: Option<&Latest>) -> Result<JobId, ErrorInfo> {
    let nobody = || {
        let message = format!("no job is called `{name}`, nor was one that ended lately");
        ErrorInfo::new(ErrorCode::JobNotFound, message).hint("`muster ps -Ae` lists the jobs and their ids")
    };
    let live = live.ok_or_else(nobody)?;
    if let Some(id) = live.own.only(name)?.or(ended.and_then(|ended| ended.own)) {
        return Ok(id);
    }
    live.others.only(name)?.or(ended.and_then(|ended| ended.others)).ok_or_else(nobody)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::Cluster;
    use muster_runtime::identity::Role;

    fn ann() -> Caller {
        Caller { name: "ann".into(), role: Role::User, forwarded: false }
    }

    fn named(name: &str) -> JobRef {
        JobRef { name: name.into(), ..JobRef::default() }
    }

    fn spec(name: &str) -> String {
        format!(r#"{{"name":"{name}","gang":{{"run":"x"}}}}"#)
    }

    fn seen(cluster: &Cluster, name: &str) -> Result<JobId, ErrorCode> {
        find(&cluster.state, &cluster.history(), &ann(), Some(&named(name))).map_err(|error| error.code)
    }

    #[test]
    fn a_name_is_the_callers_own_job_before_anybody_elses() {
        let mut cluster = Cluster::new(0, 0);
        let train = spec("train");
        assert_eq!(seen(&cluster, "train"), Err(ErrorCode::JobNotFound));
        let others_end = cluster.end("bob", &train);
        assert_eq!(seen(&cluster, "train"), Ok(others_end));
        let others = cluster.submit("bob", &train);
        assert_eq!(seen(&cluster, "train"), Ok(others));
        cluster.submit("carol", &train);
        assert_eq!(seen(&cluster, "train"), Err(ErrorCode::JobAmbiguous));
        let first = cluster.end("ann", &train);
        assert_eq!(seen(&cluster, "train"), Ok(first));
        let last = cluster.end("ann", &train);
        cluster.end("bob", &train);
        assert_eq!(seen(&cluster, "train"), Ok(last), "her own that ended last, whatever others do");
        let own = cluster.submit("ann", &train);
        assert_eq!(seen(&cluster, "train"), Ok(own));
        cluster.submit("ann", &train);
        assert_eq!(seen(&cluster, "train"), Err(ErrorCode::JobAmbiguous));
    }

    #[test]
    fn what_names_nothing_is_refused_and_ids_are_taken_as_they_are() {
        let cluster = Cluster::new(0, 0);
        let code = |reference: Option<&JobRef>| {
            find(&cluster.state, &cluster.history(), &ann(), reference).map_err(|error| error.code)
        };
        assert_eq!(code(None), Err(ErrorCode::Usage));
        assert_eq!(code(Some(&JobRef::default())), Err(ErrorCode::Usage));
        assert_eq!(code(Some(&named("a b"))), Err(ErrorCode::Usage));
        assert_eq!(code(Some(&JobRef { id: 7, ..named("a b") })), Ok(JobId(7)));
    }

    /// A list may name a thousand jobs, and each may be far back in history.
    #[test]
    fn history_is_gone_through_once_for_all_names() {
        let mut cluster = Cluster::new(0, 0);
        let ids: Vec<JobId> = (0..50).map(|n| cluster.end("ann", &spec(&format!("job-{n}")))).collect();
        let names: Vec<JobRef> = (0..50).map(|n| named(&format!("job-{n}"))).collect();
        let (rows, history) = cluster.history_on_rows();
        assert_eq!(find_all(&cluster.state, &history, &ann(), &names).unwrap(), ids);
        let whole = cluster.events.len() as u64;
        assert!(rows.read_back() <= whole, "{} rows read, {whole} there are", rows.read_back());
    }
}
