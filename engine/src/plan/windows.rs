//! Windows of time that people have put aside, as one cycle honours them: whoever would run into one
//! that is not its own does not start on its nodes.

use super::bookings::{BookedPart, Booking};
use super::explain::{Blocker, NAMED_MAX, Reason, blocker};
use super::round::Round;
use super::waiting::Item;
use crate::command::PlacedPart;
use crate::state::window::{Holders, Window, longest_ms};
use muster_common::job::Scheduling;
use muster_common::time::{DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS};
use muster_common::{DeviceId, GangId, JobId, NodeId, Time};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What stands for a window among bookings: no job has this number.
const fn stand_in(window: &Window) -> GangId {
    GangId::new(JobId(0), window.number)
}

impl Booking {
    /// Does it stand for a window that a person has put aside, with all of its nodes?
    pub fn is_window(&self) -> bool {
        self.fixed && self.gang.job == JobId(0)
    }

    /// The part of a run that must not reach into it: what a person has put aside is kept free of whatever
    /// may run so long, a booking of whatever is expected to.
    pub fn run_beside(&self, item: &Item) -> u64 {
        if self.is_window() { item.longest().max(item.left()) } else { item.left() }
    }
}

impl Item {
    /// The longest that it may run.
    pub fn longest(&self) -> u64 {
        longest_ms(&self.scheduling)
    }
}

/// What `why` says of a gang that would run into others' windows. `first`: the first start that a shorter run could end
/// before, if that would make room.
pub fn reserved_for_others(
    met: &[&Arc<Window>],
    nodes: &BTreeSet<NodeId>,
    scheduling: &Scheduling,
    (now, first): (Time, Option<Time>),
) -> Blocker {
    let over = met.iter().map(|window| window.end).max();
    let one = |window: &&Arc<Window>| {
        let whose = match &window.holders {
            Holders::Nobody => "nobody".to_owned(),
            Holders::Account(account) => format!("account {account}"),
            Holders::Jobs(jobs) if jobs.len() == 1 => "another job".to_owned(),
            Holders::Jobs(jobs) => format!("{} other jobs", jobs.len()),
        };
        let begins = match window.start.since_ms(now) {
            0 => "since it has begun".to_owned(),
            ms => format!("from {} on", duration(ms)),
        };
        format!("{} ({whose}, {begins}, for {})", window.name, duration(window.end.since_ms(window.start.max(now))))
    };
    let named: Vec<String> = met.iter().take(NAMED_MAX).map(one).collect();
    let limits = &scheduling.limits;
    let limit = match limits.time_ms.or(limits.exact_ms) {
        None => "having no time limit, it".to_owned(),
        Some(ms) => format!("with its time limit of {} it", duration(ms)),
    };
    let detail = format!(
        "{limit} would run into {}, and without the {} kept there is no room for it",
        named.join(", "),
        if nodes.len() == 1 { "node".into() } else { format!("{} nodes", nodes.len()) }
    );
    let most_ms = first.map_or(0, |first| first.since_ms(now).saturating_sub(scheduling.checkpoint.grace_ms));
    let help = match most_ms {
        0..MINUTE_MS => "it starts when the reservation is over; `muster reservation show` tells more".to_owned(),
        ms => format!("give a time limit of at most {}, if it can do with that", duration(ms)),
    };
    Blocker { until: over, ..blocker(Reason::Reserved, detail).on(nodes.iter().copied()).help(help) }
}

/// In days, hours and minutes, or in seconds, rounded down.
fn duration(ms: u64) -> String {
    let (days, hours, minutes) = (ms / DAY_MS, ms % DAY_MS / HOUR_MS, ms % HOUR_MS / MINUTE_MS);
    let parts = [(days, "d"), (hours, "h"), (minutes, "m")];
    let said: String = parts.iter().filter(|(n, _)| *n > 0).map(|(n, unit)| format!("{n}{unit}")).collect();
    if said.is_empty() { format!("{}s", ms / SECOND_MS) } else { said }
}

impl Round<'_> {
    /// Takes over every window that is not over.
    pub fn take_over_windows(&mut self) {
        let state = self.state;
        for window in state.windows().iter().filter(|window| window.end > self.now) {
            let known = self.ever.windows.get(&window.number).cloned();
            let booking = known.unwrap_or_else(|| Arc::new(self.standing_for(window)));
            self.ever.windows.insert(window.number, booking.clone());
            self.booked.insert(booking);
        }
    }

    /// All of every node.
    fn standing_for(&self, window: &Window) -> Booking {
        let mut on: BTreeMap<NodeId, BookedPart> = BTreeMap::new();
        let mut witness = Vec::new();
        for node in window.nodes.iter().filter_map(|name| self.state.node_named(name)) {
            let slots = || 0..node.inventory.devices.len() as u16;
            witness.extend(slots().map(|slot| DeviceId { node: node.id, slot }));
            let amount = node.inventory.amount();
            let devices = slots().map(|slot| (slot, 1000)).collect();
            let free = vec![1000; node.inventory.devices.len()];
            on.insert(node.id, BookedPart { devices, amount, free, left: amount });
        }
        let (start, end) = (window.start, window.end);
        let on = on.into_iter().collect();
        Booking { gang: stand_in(window), start, end, witness, domain: None, on, fixed: true }
    }

    /// Opens to a gang the windows that are its own, and no others. Returns those that were open before, for
    /// [`Self::leave_windows`].
    fn enter_windows(&mut self, gang: GangId) -> Vec<GangId> {
        let state = self.state;
        let windows = state.windows();
        let job = windows.have_holders().then(|| state.job(gang.job)).flatten();
        let own = job.into_iter().flat_map(|job| {
            let account = &state.scheduling(job).account;
            windows.iter().filter(move |window| window.holders.admit(state.accounts(), gang.job, account))
        });
        self.open_only(own.map(|window| stand_in(window)).collect())
    }

    fn leave_windows(&mut self, before: Vec<GangId>) {
        self.open_only(before);
    }

    /// What is found for a gang, with its own windows open to it.
    pub fn within_own<T>(&mut self, gang: GangId, find: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.enter_windows(gang);
        let found = find(self);
        self.leave_windows(before);
        found
    }

    fn open_only(&mut self, own: Vec<GangId>) -> Vec<GangId> {
        if self.inside.is_empty() && own.is_empty() {
            return Vec::new();
        }
        self.put_back();
        let before = std::mem::take(&mut self.inside);
        let names = before.iter().map(|window| window.gang).collect();
        before.into_iter().for_each(|window| self.booked.insert(window));
        self.inside = own.into_iter().filter_map(|own| self.booked.remove(own)).collect();
        names
    }

    /// Could it run on into a window beyond the first so many starts, though it is not expected to?
    pub fn may_overrun(&self, item: &Item, hit: usize) -> bool {
        let until = self.now.plus_ms(item.longest());
        self.booked.windows_until(hit, until).next().is_some()
    }

    /// Takes from the ledger what is kept in windows beyond the first so many starts that a run of this length
    /// could reach. Whoever calls rolls that back.
    pub fn shut(&mut self, longest_ms: u64, hit: usize) {
        let until = self.now.plus_ms(longest_ms);
        let kept: Vec<Arc<Booking>> = self.booked.windows_until(hit, until).cloned().collect();
        for booking in kept {
            let nodes = self.kept_from_others(&booking);
            self.spent += nodes.len() as u64;
            nodes.into_iter().for_each(|node| self.ledger.shut(node));
        }
    }

    /// Parts beside what the first so many bookings need and on nothing that is kept in a window which it could
    /// run on into. Leaves those bookings set aside.
    pub fn search_beside(&mut self, gang: GangId, item: &Item, hit: usize) -> Option<Vec<PlacedPart>> {
        self.put_back_beyond(hit);
        if !self.may_overrun(item, hit) && self.is_short(item) {
            // As the search would have it.
            self.spent += 1;
            return None;
        }
        self.set_aside(hit);
        let mark = self.ledger.mark();
        self.shut(item.longest(), hit);
        let parts = self.search(gang, item);
        self.ledger.rollback(mark);
        parts
    }

    /// Would a start then reach into a window on any of these nodes?
    pub fn is_met(&self, windows: &[Arc<Booking>], nodes: &[NodeId], start: Time, item: &Item) -> bool {
        let until = start.plus_ms(item.longest());
        let met = |booking: &Arc<Booking>| booking.start < until && start < booking.end;
        windows
            .iter()
            .filter(|booking| met(booking))
            .any(|booking| nodes.iter().any(|node| booking.on.contains_key(node)))
    }
}
