//! The leader's own measure of its estimates: how far a start is from the one that was booked for it first.

use muster_common::{AttemptNo, GangId, Time};
use muster_engine::State;
use muster_engine::state::gang::GangRecord;
use muster_engine::state::reservation::{Reservation, ReservationKind};
use std::collections::BTreeMap;

/// Gangs that are remembered at a time. Bookings are far fewer; the others lost theirs and wait for another.
const KEPT_MAX: usize = 1024;

/// The starts that were booked first, in the memory of one term of leadership: a new leader begins with the bookings
/// that it finds.
#[derive(Debug, Default)]
pub struct FirstBooked {
    starts: BTreeMap<GangId, First>,
}

#[derive(Debug)]
struct First {
    booked: Time,
    /// The gang's last attempt then: after another one it waits anew.
    after: Option<AttemptNo>,
}

/// A gang for which a start had been booked was placed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Started {
    pub booked: Time,
    pub placed: Time,
}

impl FirstBooked {
    /// Takes in a newer State. What was placed since the one before.
    pub fn look(&mut self, state: &State) -> Vec<Started> {
        self.look_within(state, KEPT_MAX)
    }

    fn look_within(&mut self, state: &State, kept_max: usize) -> Vec<Started> {
        let mut started = Vec::new();
        self.starts.retain(|gang, first| match fate(state, *gang) {
            Fate::Waits => first.after == last_attempt(state, *gang),
            Fate::Placed(placed) => {
                started.push(Started { booked: first.booked, placed });
                false
            }
            Fate::Gone => false,
        });
        let booked = |gang: &GangId| state.reservations().get(gang).is_some_and(is_booking);
        let fresh = |known: &&Reservation| is_booking(known) && !self.starts.contains_key(&known.gang);
        let fresh: Vec<&Reservation> = state.reservations().values().filter(fresh).collect();
        // Where all cannot be kept, those that lost their booking go first.
        let too_many = (self.starts.len() + fresh.len()).saturating_sub(kept_max);
        let lost: Vec<GangId> = self.starts.keys().filter(|gang| !booked(gang)).take(too_many).copied().collect();
        for gang in lost {
            self.starts.remove(&gang);
        }
        let room = kept_max.saturating_sub(self.starts.len());
        let first = |known: &Reservation| First { booked: known.start, after: last_attempt(state, known.gang) };
        self.starts.extend(fresh.into_iter().take(room).map(|known| (known.gang, first(known))));
        started
    }
}

fn last_attempt(state: &State, gang: GangId) -> Option<AttemptNo> {
    state.gang(gang).map(|record| record.attempt)
}

fn is_booking(known: &Reservation) -> bool {
    matches!(known.kind, ReservationKind::Head | ReservationKind::Booked) && known.start < Time::NEVER
}

enum Fate {
    /// With its booking or, for now, without.
    Waits,
    Placed(Time),
    Gone,
}

fn fate(state: &State, gang: GangId) -> Fate {
    let waits = || state.job(gang.job).is_some_and(|job| job.unstarted.contains(gang.ordinal));
    match state.gang(gang).map(GangRecord::current) {
        Some(Some(attempt)) => Fate::Placed(attempt.placed_at),
        Some(None) => Fate::Waits,
        None if waits() => Fate::Waits,
        None => Fate::Gone,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tests::fixture::{Cluster, START, principal};
    use muster_common::JobId;
    use muster_common::time::HOUR_MS;
    use muster_engine::Command;
    use muster_engine::command::{Cancel, CommitPlan, PlanStep, ReportBody};

    const WHOLE: &str = r#"{"gang":{"nodes":1,"gpus_per_node":8,"run":"x"},"limits":{"time":"1h"}}"#;

    fn plan(cluster: &mut Cluster, step: PlanStep) {
        let plan = CommitPlan {
            made_at: cluster.state.applied_index(),
            now: cluster.state.now(),
            policy_version: cluster.state.config_version(),
            engine_version: 1,
            steps: vec![step],
        };
        cluster.apply(Command::CommitPlan(Box::new(plan)));
    }

    fn book(cluster: &mut Cluster, job: JobId, kind: ReservationKind, start: Time) {
        let (gang, end) = (GangId::new(job, 0), start.plus_ms(HOUR_MS));
        let step = PlanStep::Reserve(Reservation { gang, kind, start, end, domain: None, witness: Vec::new() });
        plan(cluster, step);
    }

    #[test]
    fn a_start_is_held_against_the_first_that_was_booked_for_it() {
        let (mut cluster, mut booked) = (Cluster::new(2, 8), FirstBooked::default());
        let [early, late] = ["alice", "bob"].map(|user| cluster.submit(user, WHOLE));
        let at = |hours: u64| START.plus_ms(hours * HOUR_MS);
        book(&mut cluster, early, ReservationKind::Booked, at(3));
        book(&mut cluster, late, ReservationKind::Head, at(1));
        assert_eq!(booked.look(&cluster.state), []);
        // It moves, and is taken back: what was said first stays.
        book(&mut cluster, late, ReservationKind::Booked, at(5));
        assert_eq!(booked.look(&cluster.state), []);
        plan(&mut cluster, PlanStep::Unreserve { gang: GangId::new(late, 0) });
        assert_eq!(booked.look(&cluster.state), []);
        cluster.apply(Command::AdvanceTime { to: at(2) });
        cluster.decide();
        let placed = cluster.state.now();
        let expected = [Started { booked: at(3), placed }, Started { booked: at(1), placed }];
        assert_eq!(booked.look(&cluster.state), expected);
        assert_eq!(booked.look(&cluster.state), [], "each once");
    }

    #[test]
    fn the_ones_that_lost_their_booking_make_room_for_new_ones() {
        let (mut cluster, mut booked) = (Cluster::new(1, 8), FirstBooked::default());
        let [lost, kept, new, beyond] = ["alice", "bob", "carol", "dave"].map(|user| cluster.submit(user, WHOLE));
        for job in [lost, kept] {
            book(&mut cluster, job, ReservationKind::Booked, START.plus_ms(HOUR_MS));
        }
        assert_eq!(booked.look_within(&cluster.state, 2), []);
        plan(&mut cluster, PlanStep::Unreserve { gang: GangId::new(lost, 0) });
        for job in [new, beyond] {
            book(&mut cluster, job, ReservationKind::Booked, START.plus_ms(HOUR_MS));
        }
        assert_eq!(booked.look_within(&cluster.state, 2), []);
        let known: Vec<JobId> = booked.starts.keys().map(|gang| gang.job).collect();
        assert_eq!(known, [kept, new]);
    }

    #[test]
    fn who_was_placed_and_waits_again_begins_anew() {
        let (mut cluster, mut booked) = (Cluster::new(1, 8), FirstBooked::default());
        let again = GangId::new(cluster.submit("alice", WHOLE), 0);
        book(&mut cluster, again.job, ReservationKind::Booked, START.plus_ms(HOUR_MS));
        assert_eq!(booked.look(&cluster.state), []);
        cluster.decide();
        // It is placed and fails, and nobody looks in between.
        let node = cluster.nodes_of(again)[0];
        let failed = ReportBody::PrepareFailed { infra: true, why: "no disk".into() };
        cluster.report(node, again, failed);
        cluster.release(again);
        assert!(cluster.state.gang(again).unwrap().current().is_none());
        assert_eq!(booked.look(&cluster.state), []);
        assert!(booked.starts.is_empty());
    }

    #[test]
    fn what_ends_without_a_start_and_what_was_never_booked_count_for_nothing() {
        let (mut cluster, mut booked) = (Cluster::new(1, 8), FirstBooked::default());
        let [gone, kept, plain] = ["alice", "bob", "carol"].map(|user| cluster.submit(user, WHOLE));
        book(&mut cluster, gone, ReservationKind::Booked, START.plus_ms(HOUR_MS));
        book(&mut cluster, kept, ReservationKind::Victims, START.plus_ms(HOUR_MS));
        book(&mut cluster, plain, ReservationKind::Head, Time::NEVER);
        assert_eq!(booked.look(&cluster.state), []);
        assert_eq!(booked.starts.keys().copied().collect::<Vec<_>>(), [GangId::new(gone, 0)]);
        let cancel = Cancel { job: gone, ordinal: None, reason: String::new(), by: principal("alice") };
        cluster.apply(Command::Cancel(cancel));
        assert_eq!(booked.look(&cluster.state), []);
        assert!(booked.starts.is_empty());
    }
}
