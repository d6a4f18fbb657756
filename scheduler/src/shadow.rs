//! The leader's shadow: a second policy on each State on which a cycle was run, without any effect. The newest State
//! wins: what comes while one is worked on replaces what waits, and is counted.

use muster_common::{GangId, Time};
use muster_engine::policy::Policy;
use muster_engine::shadow::{Decided, Kind, under, within};
use muster_engine::{Command, Memo, State, cycle};
use muster_runtime::shutdown::Shutdown;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::watch;

/// Steps of one of its cycles, whatever the policy's own budget is.
pub const STEPS_MAX: u64 = 5_000_000;
/// Differences that are shown one by one, the newest.
const LATEST_MAX: usize = 20;
/// Gangs named of each of them.
const NAMED_MAX: usize = 8;

/// A State, what was decided on it, and the policy to be tried.
#[derive(Clone)]
struct Offer {
    number: u64,
    /// Of the sheet that counts it.
    sheet: u64,
    policy: Arc<Policy>,
    state: Arc<State>,
    now: Time,
    real: Arc<Decided>,
}

/// One cycle that came out otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Latest {
    pub index: u64,
    pub at: Time,
    pub kind: Kind,
    pub only_real: Vec<GangId>,
    pub only_shadow: Vec<GangId>,
}

/// What one setting of the shadow came to, on this leader.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sheet {
    /// Of the setting; 0 = none was run yet.
    pub version: u32,
    pub since: Time,
    /// Cycles of the policy in force, and those of them that the shadow looked at.
    pub offered: u64,
    pub compared: u64,
    /// It came to the end of its steps.
    pub truncated: u64,
    pub kinds: BTreeMap<Kind, u64>,
    /// The newest last.
    pub latest: VecDeque<Latest>,
    /// Tells it from the sheets before it.
    number: u64,
    /// Of the cycle that was compared last.
    last: u64,
}

impl Sheet {
    /// Cycles it could not keep up with; one that waits is none of them.
    pub fn skipped(&self) -> u64 {
        self.last - self.compared
    }

    pub fn agree(&self) -> u64 {
        self.kinds.get(&Kind::Same).copied().unwrap_or(0)
    }
}

/// Cheap to clone.
#[derive(Clone)]
pub struct ShadowHandle {
    offers: watch::Sender<Option<Offer>>,
    sheet: Arc<Mutex<Sheet>>,
}

impl ShadowHandle {
    /// The handle, and the actor behind it.
    pub fn new() -> (Self, Shadow) {
        let (offers, offered) = watch::channel(None);
        let sheet = Arc::new(Mutex::new(Sheet::default()));
        (Self { offers, sheet: sheet.clone() }, Shadow { offered, sheet })
    }

    /// What the policy in force decided on a State. Never waits.
    pub fn offer(&self, state: &Arc<State>, now: Time, commands: &[Command]) {
        let Some(shadow) = state.policies().shadow() else {
            if self.offers.borrow().is_some() {
                self.offers.send_replace(None);
            }
            return;
        };
        let (number, sheet) = {
            let mut sheet = self.sheet.lock().unwrap_or_else(PoisonError::into_inner);
            if sheet.version != shadow.version {
                let number = sheet.number + 1;
                *sheet = Sheet { version: shadow.version, since: now, number, ..Sheet::default() };
            }
            sheet.offered += 1;
            (sheet.offered, sheet.number)
        };
        self.offers.send_replace(Some(Offer {
            number,
            sheet,
            policy: shadow.policy.clone(),
            state: state.clone(),
            now,
            real: Arc::new(Decided::of(commands)),
        }));
    }

    /// A term of leadership is over: what it counted is not the next one's, and its last State is let go.
    pub fn restart(&self) {
        self.offers.send_replace(None);
        let mut sheet = self.sheet.lock().unwrap_or_else(PoisonError::into_inner);
        *sheet = Sheet { number: sheet.number + 1, ..Sheet::default() };
    }

    pub fn sheet(&self) -> Sheet {
        self.sheet.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The actor: one cycle at a time, beside everything else.
pub struct Shadow {
    offered: watch::Receiver<Option<Offer>>,
    sheet: Arc<Mutex<Sheet>>,
}

impl Shadow {
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), std::convert::Infallible> {
        let mut memo = Memo::default();
        let mut of_sheet = 0;
        while let Some(Ok(())) = shutdown.unless(self.offered.changed()).await {
            let offer = self.offered.borrow_and_update().clone();
            let Some(offer) = offer else { continue };
            if offer.sheet != of_sheet {
                (memo, of_sheet) = (Memo::default(), offer.sheet);
            }
            let sheet = self.sheet.clone();
            let tried = muster_runtime::aside::run(move || {
                compare(&offer, &mut memo, &sheet);
                memo
            });
            memo = match tried.await {
                Ok(memo) => memo,
                Err(error) => {
                    // Whatever a policy on trial does, the one in force goes on.
                    tracing::error!(%error, "the shadow policy broke off; it goes on with the next State");
                    Memo::default()
                }
            };
        }
        Ok(())
    }
}

fn compare(offer: &Offer, memo: &mut Memo, sheet: &Mutex<Sheet>) {
    let policy = Arc::new(within(&offer.policy, STEPS_MAX));
    let tried = cycle(&under(&offer.state, &policy), memo, offer.now);
    let difference = offer.real.against(&Decided::of(&tried.commands));
    let mut sheet = sheet.lock().unwrap_or_else(PoisonError::into_inner);
    if sheet.number != offer.sheet {
        return;
    }
    sheet.last = offer.number;
    sheet.compared += 1;
    sheet.truncated += u64::from(tried.truncated > 0);
    *sheet.kinds.entry(difference.kind).or_default() += 1;
    // Bookings differ as long as the other policy writes them.
    if difference.kind <= Kind::OtherBookings {
        return;
    }
    if sheet.latest.len() == LATEST_MAX {
        sheet.latest.pop_front();
    }
    let named = |gangs: Vec<GangId>| gangs.into_iter().take(NAMED_MAX).collect();
    sheet.latest.push_back(Latest {
        index: offer.state.applied_index(),
        at: offer.now,
        kind: difference.kind,
        only_real: named(difference.only_real),
        only_shadow: named(difference.only_other),
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_engine::command::{ConfigChange, Principal};
    use muster_engine::{Entry, apply};

    fn set(state: &mut State, policy: Option<Policy>) {
        let change = Box::new(ConfigChange::Shadow(policy.map(Box::new)));
        let command = Command::Configure { change, by: Principal("root".into()) };
        apply(state, &Entry { index: state.applied_index() + 1, term: 1, at: Time(5), command });
    }

    #[tokio::test]
    async fn the_newest_state_wins_and_what_was_passed_over_is_counted() {
        let (handle, shadow) = ShadowHandle::new();
        let mut state = State::new("testing");
        set(&mut state, Some(Policy::default()));
        let state = Arc::new(state);
        // Before anybody looks: only the newest is left.
        (0..3).for_each(|ms| handle.offer(&state, Time(10 + ms), &[]));
        let shutdown = Shutdown::new();
        let running = tokio::spawn(shadow.run(shutdown.clone()));
        let compared = async |count: u64| {
            while handle.sheet().compared < count {
                tokio::task::yield_now().await;
            }
            handle.sheet()
        };
        let sheet = compared(1).await;
        assert_eq!((sheet.offered, sheet.compared, sheet.skipped(), sheet.since), (3, 1, 2, Time(10)));
        handle.offer(&state, Time(20), &[]);
        let sheet = compared(2).await;
        assert_eq!((sheet.agree(), sheet.skipped(), sheet.latest.len()), (2, 2, 0));

        // Another setting begins a new sheet; none leaves it as it was.
        let mut other = (*state).clone();
        set(&mut other, Some(Policy { order: muster_engine::policy::Order::Fifo, ..Policy::default() }));
        handle.offer(&Arc::new(other.clone()), Time(30), &[]);
        let sheet = compared(1).await;
        assert_eq!((sheet.version, sheet.since), (other.config_version(), Time(30)));
        set(&mut other, None);
        handle.offer(&Arc::new(other), Time(40), &[]);
        assert_eq!(handle.sheet(), sheet);

        // Nor does a later term of leadership speak for an earlier one.
        handle.restart();
        assert_eq!((handle.sheet().version, handle.sheet().offered), (0, 0));
        handle.offer(&state, Time(50), &[]);
        let sheet = compared(1).await;
        assert_eq!((sheet.offered, sheet.skipped(), sheet.since), (1, 0, Time(50)));
        shutdown.trigger();
        running.await.unwrap().unwrap();
    }
}
