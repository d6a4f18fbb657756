//! Limits of accounts and users: what a job may ask for at all, and how much may run at a time. The
//! same predicates at submit, in a cycle, at commit and in explanations.

use super::explain::Reason;
use crate::command::Principal;
use crate::organisation::{Account, Budget, Caps, Organisation};
use crate::state::State;
use crate::state::account::Accounts;
use crate::state::job::JobRecord;
use crate::state::usage::Held;
use muster_common::calendar::Period;
use muster_common::job::Scheduling;
use muster_common::money::{MicroUsd, device_cost};
use muster_common::{Name, Time};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

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
    /// What it costs until its time limit, in millionths of a US dollar; `None` = it has no limit. `used`: spent or set aside
    /// in the period, which ends at `until`.
    Money {
        micro_usd: Option<u64>,
        used: u64,
        per: Period,
        until: Time,
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
            Who::Account(_) if matches!(self.of, Of::Money { .. }) => Reason::Budget,
            Who::Account(_) => Reason::AccountLimit,
            Who::User(..) => Reason::UserLimit,
        }
    }

    /// Would it be in the way of everything else that its payer has waiting?
    pub fn is_for_all(&self) -> bool {
        match self.of {
            Of::Gpus { .. } | Of::Running { .. } => true,
            Of::Money { used, .. } => used >= self.most,
            Of::Jobs { .. } | Of::Array { .. } | Of::Time { .. } => false,
        }
    }

    /// The part of a job file that asks for too much.
    pub fn part(&self, scheduling: &Scheduling) -> &'static str {
        match self.of {
            Of::Gpus { .. } if scheduling.groups.len() > 1 => "group",
            Of::Gpus { .. } => "gang",
            Of::Array { .. } => "array",
            Of::Time { .. } | Of::Money { .. } => "limits.time",
            Of::Running { .. } | Of::Jobs { .. } => "account",
        }
    }

    /// Would it never be over, as things are set?
    pub fn is_for_good(&self) -> bool {
        match self.of {
            Of::Gpus { milli, .. } => milli > self.most.saturating_mul(1000),
            Of::Array { .. } | Of::Time { .. } => true,
            Of::Money { micro_usd, .. } => micro_usd.is_none_or(|cost| cost > self.most),
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
            Of::Money { micro_usd: Some(cost), used, per, .. } => {
                let [most, used, cost] = [most, used, cost].map(MicroUsd);
                write!(f, " may spend ${most} in a {per}; ${used} are spent or set aside and this takes up to ${cost}")
            }
            Of::Money { micro_usd: None, per, .. } => {
                let most = MicroUsd(most);
                write!(f, " may spend ${most} in a {per}; this has no time limit, so what it will cost is not known")
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
    money: Option<Money>,
}

/// A budget, with what counts against it.
#[derive(Debug, Clone)]
struct Money {
    budget: Budget,
    used: MicroUsd,
    until: Time,
    prices: Arc<Organisation>,
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
pub fn scopes(state: &State, account: &Name, user: &Principal, now: Time) -> Vec<Scope> {
    let accounts = state.accounts();
    if !accounts.have_caps() {
        return Vec::new();
    }
    let held = state.usage().of_payer(&(account.clone(), user.clone())).held;
    let of_user = Scope {
        who: Who::User(user.clone(), account.clone()),
        caps: user_caps(accounts, account, user),
        held,
        money: None,
    };
    let of_account = |account: &Account| Scope {
        who: Who::Account(account.name.clone()),
        caps: account.limits,
        held: state.usage().of_account(&account.name),
        money: money(state, account, now),
    };
    let all = std::iter::once(of_user).chain(accounts.upward(account).map(of_account));
    all.filter(|scope| scope.caps != Caps::default() || scope.money.is_some()).collect()
}

fn money(state: &State, account: &Account, now: Time) -> Option<Money> {
    let spending = state.usage().spendings().of(&account.name, now)?;
    let prices = state.accounts().document().clone();
    Some(Money { budget: account.budget?, used: spending.used(), until: spending.until, prices })
}

/// What a gang costs until its time limit, at so much an hour.
pub fn until_limit(hourly: MicroUsd, scheduling: &Scheduling) -> MicroUsd {
    let ms = scheduling.limits.time_ms.unwrap_or(0);
    device_cost(u128::from(ms) * 1000, hourly)
}

/// The shortest of the time limits that a payer's jobs are under.
pub fn longest_ms(state: &State, account: &Name, user: &Principal) -> Option<u64> {
    scopes(state, account, user, state.now()).iter().filter_map(|scope| scope.caps.time_ms).min()
}

/// Why a gang may not start beside what its payer holds already.
pub fn over(scopes: &[Scope], scheduling: &Scheduling) -> Option<Over> {
    scopes.iter().find_map(|scope| {
        let held = || scope.over_held(scheduling).or_else(|| scope.over_budget(scheduling));
        scope.over_shape(scheduling).or_else(held)
    })
}

/// All of that, the one that decides first.
pub fn all_over(scopes: &[Scope], scheduling: &Scheduling) -> Vec<Over> {
    let of = |scope: &Scope| {
        let shape = [scope.over_array(scheduling), scope.over_time(scheduling)];
        let held = [scope.over_gpus(scheduling), scope.over_running(), scope.over_budget(scheduling)];
        shape.into_iter().chain(held)
    };
    scopes.iter().flat_map(of).flatten().collect()
}

/// Why a job is refused when it is submitted or edited. `new`: it is one job more.
pub fn refuses(scopes: &[Scope], scheduling: &Scheduling, new: bool) -> Option<Over> {
    scopes.iter().find_map(|scope| {
        let over = |of, most| Over { who: scope.who.clone(), of, most };
        let jobs = scope.caps.jobs.filter(|most| new && scope.held.jobs >= *most);
        let jobs = jobs.map(|most| over(Of::Jobs { held: scope.held.jobs }, most.into()));
        let never = || {
            [scope.over_held(scheduling), scope.over_budget(scheduling)].into_iter().flatten().find(Over::is_for_good)
        };
        scope.over_shape(scheduling).or_else(never).or(jobs)
    })
}

impl Scope {
    fn over(&self, of: Of, most: u64) -> Over {
        Over { who: self.who.clone(), of, most }
    }

    fn over_shape(&self, scheduling: &Scheduling) -> Option<Over> {
        self.over_array(scheduling).or_else(|| self.over_time(scheduling))
    }

    fn over_array(&self, scheduling: &Scheduling) -> Option<Over> {
        let elements = scheduling.array.as_ref().map_or(0, |array| array.count);
        let most = self.caps.array.filter(|most| elements > *most)?;
        Some(self.over(Of::Array { elements }, most.into()))
    }

    fn over_time(&self, scheduling: &Scheduling) -> Option<Over> {
        let limit_ms = scheduling.limits.time_ms;
        let most = self.caps.time_ms.filter(|most| limit_ms.is_none_or(|limit| limit > *most))?;
        Some(self.over(Of::Time { limit_ms }, most))
    }

    fn over_held(&self, scheduling: &Scheduling) -> Option<Over> {
        self.over_gpus(scheduling).or_else(|| self.over_running())
    }

    fn over_gpus(&self, scheduling: &Scheduling) -> Option<Over> {
        let (milli, held) = (milli_of(scheduling), self.held.milli);
        let most = self.caps.gpus.filter(|_| milli > 0).map(u64::from)?;
        let is_over = held.saturating_add(milli) > most.saturating_mul(1000);
        is_over.then(|| self.over(Of::Gpus { milli, held }, most))
    }

    fn over_running(&self) -> Option<Over> {
        let held = self.held.running;
        let most = self.caps.running.filter(|most| held >= *most)?;
        Some(self.over(Of::Running { held }, most.into()))
    }
}

impl Scope {
    /// Is what runs within it?
    fn is_within(&self) -> bool {
        let (gpus, running) = (self.caps.gpus, self.caps.running);
        gpus.is_none_or(|most| self.held.milli <= u64::from(most) * 1000)
            && running.is_none_or(|most| self.held.running <= most)
    }

    /// Until it is placed, a gang counts at the dearest model it may get.
    fn over_budget(&self, scheduling: &Scheduling) -> Option<Over> {
        let money = self.money.as_ref()?;
        let hourly = money.prices.hourly_at_most(scheduling);
        if hourly == MicroUsd(0) {
            return None;
        }
        let cost = scheduling.limits.time_ms.map(|_| until_limit(hourly, scheduling).0);
        let (most, used) = (money.budget.usd.0, money.used.0);
        let of = Of::Money { micro_usd: cost, used, per: money.budget.per, until: money.until };
        let over = cost.is_none_or(|cost| used.saturating_add(cost) > most);
        over.then(|| self.over(of, most))
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
    /// Of an account with all below it.
    of_accounts: BTreeMap<Name, Placed>,
    of_users: BTreeMap<(Name, Principal), Placed>,
    /// When the next of the periods ends whose budgets keep somebody waiting.
    pub period_ends: Option<Time>,
}

/// What a cycle has placed.
#[derive(Debug, Clone, Copy, Default)]
struct Placed {
    milli: u64,
    running: u32,
    cost: MicroUsd,
}

impl Room {
    pub fn over(&mut self, state: &State, job: &JobRecord, scheduling: &Scheduling, now: Time) -> Option<Over> {
        let found = self.find(state, job, scheduling, now);
        if let Some(Over { of: Of::Money { until, .. }, .. }) = found {
            self.period_ends = self.period_ends.into_iter().chain([until]).min();
        }
        found
    }

    /// All limits that keep the gang from starting beside what the cycle has placed.
    pub fn all_over(&self, state: &State, job: &JobRecord, scheduling: &Scheduling, now: Time) -> Vec<Over> {
        match state.accounts().have_caps() {
            true => all_over(&self.scopes_with_placed(state, job, scheduling, now), scheduling),
            false => Vec::new(),
        }
    }

    fn find(&mut self, state: &State, job: &JobRecord, scheduling: &Scheduling, now: Time) -> Option<Over> {
        let known = self.scopes.get(&scheduling.account).and_then(|users| users.get(&job.principal));
        if let Some(scopes) = known {
            return over(scopes, scheduling);
        }
        let scopes = self.scopes_with_placed(state, job, scheduling, now);
        let found = over(&scopes, scheduling);
        self.scopes.entry(scheduling.account.clone()).or_default().insert(job.principal.clone(), scopes);
        found
    }

    fn scopes_with_placed(&self, state: &State, job: &JobRecord, scheduling: &Scheduling, now: Time) -> Vec<Scope> {
        let mut scopes = scopes(state, &scheduling.account, &job.principal, now);
        for scope in &mut scopes {
            let placed = match &scope.who {
                Who::Account(name) => self.of_accounts.get(name),
                Who::User(user, account) => self.of_users.get(&(account.clone(), user.clone())),
            };
            let Placed { milli, running, cost } = placed.copied().unwrap_or_default();
            scope.held.milli += milli;
            scope.held.running += running;
            if let Some(money) = &mut scope.money {
                money.used.0 = money.used.0.saturating_add(cost.0);
            }
        }
        scopes
    }

    /// Would limits let a gang that runs start again once it has stopped? Budgets are asked about in [`Self::affords`].
    pub fn lets_go_on(&self, state: &State, job: &JobRecord, scheduling: &Scheduling, now: Time) -> bool {
        let scopes = match state.accounts().have_caps() {
            true => self.scopes_with_placed(state, job, scheduling, now),
            false => Vec::new(),
        };
        scopes.iter().all(|scope| scope.over_shape(scheduling).is_none() && scope.is_within())
    }

    /// Would budgets let all of these be set aside beside what is used?
    pub fn affords(&self, state: &State, wanted: &[&Scheduling], now: Time) -> bool {
        let accounts = state.accounts();
        let mut costs: BTreeMap<&Name, u64> = BTreeMap::new();
        for scheduling in wanted {
            let cost = match (accounts.document().hourly_at_most(scheduling), scheduling.limits.time_ms) {
                (MicroUsd(0), _) => continue,
                (hourly, Some(_)) => until_limit(hourly, scheduling).0,
                (_, None) => u64::MAX,
            };
            for account in accounts.upward(&scheduling.account) {
                let sum = costs.entry(&account.name).or_default();
                *sum = sum.saturating_add(cost);
            }
        }
        costs.into_iter().all(|(name, cost)| {
            let placed = self.of_accounts.get(name).map_or(0, |placed| placed.cost.0);
            let budget = accounts.get(name).and_then(|account| money(state, account, now));
            budget.is_none_or(|money| money.used.0.saturating_add(placed).saturating_add(cost) <= money.budget.usd.0)
        })
    }

    /// One more gang runs.
    pub fn place(&mut self, state: &State, job: &JobRecord, scheduling: &Scheduling) {
        if !state.accounts().have_caps() {
            return;
        }
        self.scopes.clear();
        let milli = milli_of(scheduling);
        let cost = until_limit(state.accounts().document().hourly_at_most(scheduling), scheduling);
        let add = |placed: &mut Placed| {
            placed.milli += milli;
            placed.running += 1;
            placed.cost.0 = placed.cost.0.saturating_add(cost.0);
        };
        for account in state.accounts().upward(&scheduling.account) {
            add(self.of_accounts.entry(account.name.clone()).or_default());
        }
        add(self.of_users.entry((scheduling.account.clone(), job.principal.clone())).or_default());
    }
}
