//! Limits of accounts and users: what a job may ask for at all, and how much may run at a time. The
//! same predicates at submit, in a cycle, at commit and in explanations.

use super::explain::Reason;
use crate::command::Principal;
use crate::organisation::{Account, Caps};
use crate::state::State;
use crate::state::account::Accounts;
use crate::state::job::JobRecord;
use crate::state::usage::Held;
use muster_common::Name;
use muster_common::job::Scheduling;
use std::collections::BTreeMap;
use std::fmt;

/// Whose limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    /// The account and all below it together.
    Account(Name),
    User(Principal, Name),
}

/// Of what, and how much of it is wanted; of what is held at a time also how much there is already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// In thousandths.
    Gpus {
        milli: u64,
        held: u64,
    },
    Running {
        held: u32,
    },
    Jobs {
        held: u32,
    },
    Array {
        elements: u32,
    },
    /// `None` = without a limit.
    Time {
        limit_ms: Option<u64>,
    },
}

/// One limit in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Over {
    pub who: Who,
    pub of: Of,
    pub most: u64,
}

impl Over {
    pub fn reason(&self) -> Reason {
        match self.who {
            Who::Account(_) => Reason::AccountLimit,
            Who::User(..) => Reason::UserLimit,
        }
    }

    /// Would it never be over, as things are set?
    pub fn is_for_good(&self) -> bool {
        match self.of {
            Of::Gpus { milli, .. } => milli > self.most.saturating_mul(1000),
            Of::Array { .. } | Of::Time { .. } => true,
            Of::Running { .. } | Of::Jobs { .. } => false,
        }
    }
}

/// Thousandths as people write them.
struct Devices(u64);

impl fmt::Display for Devices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 % 1000 {
            0 => write!(f, "{}", self.0 / 1000),
            part => write!(f, "{}.{}", self.0 / 1000, format!("{part:03}").trim_end_matches('0')),
        }
    }
}

impl fmt::Display for Over {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.who {
            Who::Account(name) => write!(f, "account `{name}`")?,
            Who::User(user, account) => write!(f, "{} in account `{account}`", user.0)?,
        }
        let most = self.most;
        match self.of {
            Of::Gpus { milli, held } => {
                let (held, milli) = (Devices(held), Devices(milli));
                write!(f, " may hold {most} GPUs at a time; {held} are held and this takes {milli}")
            }
            Of::Running { held } => write!(f, " may run {most} gangs at a time; {held} run"),
            Of::Jobs { held } => write!(f, " may have {most} jobs; there are {held}"),
            Of::Array { elements } => {
                write!(f, " may have arrays of at most {most} elements; this has {elements}")
            }
            Of::Time { limit_ms: Some(limit_ms) } => {
                write!(f, " may have jobs of at most {} s; this has a limit of {} s", most / 1000, limit_ms / 1000)
            }
            Of::Time { limit_ms: None } => {
                write!(f, " may have jobs of at most {} s; this has no time limit", most / 1000)
            }
        }
    }
}

/// One set of limits, with what counts against it.
#[derive(Debug, Clone)]
pub struct Scope {
    who: Who,
    caps: Caps,
    held: Held,
}

/// What a user of an account may: the first that says so, from the user's own entry upward (as Slurm has it,
/// doc/html/resource_limits.shtml).
fn user_caps(accounts: &Accounts, account: &Name, user: &Principal) -> Caps {
    let own = |account: &Account| account.users.get(&*user.0).and_then(|user| user.limits).unwrap_or_default();
    accounts.upward(account).fold(Caps::default(), |caps, account| {
        let (own, all) = (own(account), account.user_limits);
        Caps {
            gpus: caps.gpus.or(own.gpus).or(all.gpus),
            running: caps.running.or(own.running).or(all.running),
            jobs: caps.jobs.or(own.jobs).or(all.jobs),
            array: caps.array.or(own.array).or(all.array),
            time_ms: caps.time_ms.or(own.time_ms).or(all.time_ms),
        }
    })
}

/// Every set of limits that a payer is under, the user's first.
pub fn scopes(state: &State, account: &Name, user: &Principal) -> Vec<Scope> {
    let accounts = state.accounts();
    if !accounts.have_caps() {
        return Vec::new();
    }
    let held = state.usage().of_payer(&(account.clone(), user.clone())).held;
    let of_user =
        Scope { who: Who::User(user.clone(), account.clone()), caps: user_caps(accounts, account, user), held };
    let of_account = |account: &Account| Scope {
        who: Who::Account(account.name.clone()),
        caps: account.limits,
        held: state.usage().of_account(&account.name),
    };
    let all = std::iter::once(of_user).chain(accounts.upward(account).map(of_account));
    all.filter(|scope| scope.caps != Caps::default()).collect()
}

/// The shortest of the time limits that a payer's jobs are under.
pub fn longest_ms(state: &State, account: &Name, user: &Principal) -> Option<u64> {
    scopes(state, account, user).iter().filter_map(|scope| scope.caps.time_ms).min()
}

/// Why a gang may not start beside what its payer holds already.
pub fn over(scopes: &[Scope], scheduling: &Scheduling) -> Option<Over> {
    scopes.iter().find_map(|scope| scope.over_shape(scheduling).or_else(|| scope.over_held(scheduling)))
}

/// Why a job is refused when it is submitted or edited. `new`: it is one job more.
pub fn refuses(scopes: &[Scope], scheduling: &Scheduling, new: bool) -> Option<Over> {
    scopes.iter().find_map(|scope| {
        let over = |of, most| Over { who: scope.who.clone(), of, most };
        let jobs = scope.caps.jobs.filter(|most| new && scope.held.jobs >= *most);
        let jobs = jobs.map(|most| over(Of::Jobs { held: scope.held.jobs }, most.into()));
        let never = scope.over_held(scheduling).filter(Over::is_for_good);
        scope.over_shape(scheduling).or(never).or(jobs)
    })
}

impl Scope {
    fn over_shape(&self, scheduling: &Scheduling) -> Option<Over> {
        let over = |of, most| Over { who: self.who.clone(), of, most };
        let elements = scheduling.array.as_ref().map_or(0, |array| array.count);
        if let Some(most) = self.caps.array.filter(|most| elements > *most) {
            return Some(over(Of::Array { elements }, most.into()));
        }
        let limit_ms = scheduling.limits.time_ms;
        let most = self.caps.time_ms.filter(|most| limit_ms.is_none_or(|limit| limit > *most))?;
        Some(over(Of::Time { limit_ms }, most))
    }

    fn over_held(&self, scheduling: &Scheduling) -> Option<Over> {
        let over = |of, most| Over { who: self.who.clone(), of, most };
        let milli = milli_of(scheduling);
        let most = self.caps.gpus.filter(|_| milli > 0).map(u64::from);
        if let Some(most) = most.filter(|most| self.held.milli.saturating_add(milli) > most.saturating_mul(1000)) {
            return Some(over(Of::Gpus { milli, held: self.held.milli }, most));
        }
        let most = self.caps.running.filter(|most| self.held.running >= *most)?;
        Some(over(Of::Running { held: self.held.running }, most.into()))
    }
}

/// Thousandths of devices that one gang takes.
fn milli_of(scheduling: &Scheduling) -> u64 {
    let of = |group: &muster_common::job::GroupRequest| group.devices().saturating_mul(u64::from(group.share.0));
    scheduling.groups.iter().map(of).fold(0, u64::saturating_add)
}

/// The limits that payers are under in one cycle, with what the cycle has placed so far.
#[derive(Debug, Default)]
pub struct Room {
    scopes: BTreeMap<Name, BTreeMap<Principal, Vec<Scope>>>,
    /// Thousandths and gangs; of an account with all below it.
    of_accounts: BTreeMap<Name, (u64, u32)>,
    of_users: BTreeMap<(Name, Principal), (u64, u32)>,
}

impl Room {
    pub fn over(&mut self, state: &State, job: &JobRecord, scheduling: &Scheduling) -> Option<Over> {
        let known = self.scopes.get(&scheduling.account).and_then(|users| users.get(&job.principal));
        if let Some(scopes) = known {
            return over(scopes, scheduling);
        }
        let mut scopes = scopes(state, &scheduling.account, &job.principal);
        for scope in &mut scopes {
            let placed = match &scope.who {
                Who::Account(name) => self.of_accounts.get(name),
                Who::User(user, account) => self.of_users.get(&(account.clone(), user.clone())),
            };
            let (milli, running) = placed.copied().unwrap_or_default();
            scope.held.milli += milli;
            scope.held.running += running;
        }
        let found = over(&scopes, scheduling);
        self.scopes.entry(scheduling.account.clone()).or_default().insert(job.principal.clone(), scopes);
        found
    }

    /// One more gang runs.
    pub fn place(&mut self, state: &State, job: &JobRecord, scheduling: &Scheduling) {
        if !state.accounts().have_caps() {
            return;
        }
        self.scopes.clear();
        let milli = milli_of(scheduling);
        let add = |(held, running): &mut (u64, u32)| (*held, *running) = (*held + milli, *running + 1);
        for account in state.accounts().upward(&scheduling.account) {
            add(self.of_accounts.entry(account.name.clone()).or_default());
        }
        add(self.of_users.entry((scheduling.account.clone(), job.principal.clone())).or_default());
    }
}
