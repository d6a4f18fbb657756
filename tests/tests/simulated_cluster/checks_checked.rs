//! The same situations, once as they are and once with a violation of the protocol planted in them: the first must go
//! well, and the second must be noticed.

use crate::alone;
use crate::planted::Planted;
use crate::play::play;
use crate::stage::Stage;
use crate::world::{SERVERS, settings};

/// So many seeds may be played before what is planted in them must have been noticed.
const SEEDS: u64 = 8;

/// What was noticed in a situation with something planted in it.
fn noticed(planted: Planted, situation: fn(Planted)) -> String {
    let why = alone(format!("{planted:?}"), move || situation(planted)).expect_err("nobody noticed");
    println!("{planted:?}: {why}");
    why
}

/// A node that nobody reaches while ranks run on it, for longer than it takes to run them elsewhere.
fn a_node_is_cut_off_for_long(planted: Planted) {
    let mut stage = Stage::with(110, 3, planted);
    let job = stage.submit("cut-off", 1, 1, "40000:0");
    stage.await_running(job, 1);
    let node = stage.nodes_of(job).remove(0);
    let servers = stage.world.server_names();
    servers.iter().for_each(|server| stage.world.sim.partition(node.as_str(), server.as_str()));
    stage.await_running(job, 2);
    stage.run_for(settings().fence_after_ms);
    servers.iter().for_each(|server| stage.world.sim.repair(node.as_str(), server.as_str()));
    stage.cancel(job);
    stage.come_to_rest();
}

#[test]
fn a_node_cut_off_for_long_never_runs_two_attempts() {
    alone("honest".to_owned(), || a_node_is_cut_off_for_long(Planted::Nothing)).expect("it goes well");
}

#[test]
fn planted_ranks_that_outlive_their_lease_are_noticed() {
    let why = noticed(Planted::LeasesWithoutEnd, a_node_is_cut_off_for_long);
    assert!(why.contains("alive at once"), "{why}");
}

#[test]
fn planted_renewals_from_a_timer_are_noticed() {
    let why = noticed(Planted::RenewalsFromATimer, a_node_is_cut_off_for_long);
    assert!(why.contains("alive at once"), "{why}");
}

/// A server votes for a candidate and loses power. Then the old leader reaches it again, and the new one nobody.
fn a_voter_loses_power(planted: Planted) {
    let mut stage = Stage::with(111, 1, planted);
    let old = stage.leader();
    let others = stage.others(old);
    others.iter().for_each(|other| stage.world.sim.partition(format!("server-{old}"), other.as_str()));
    let mut votes = (0, 0);
    stage.world.run_until("a server votes for another", 20_000, |world| {
        let vote_of = |id: u64| world.server(id).log.last_vote().filter(|vote| !vote.committed && vote.server != id);
        let vote = (1..=SERVERS).filter(|id| *id != old).find_map(|id| Some((id, vote_of(id)?.server)));
        votes = vote.unwrap_or_default();
        vote.is_some()
    });
    let (voter, candidate) = votes;
    stage.world.run_until("the vote is counted", 1_000, |world| {
        world.server(candidate).log.last_vote().is_some_and(|vote| vote.committed && vote.server == candidate)
    });
    stage.world.crash_server(voter);
    let name = |id| format!("server-{id}");
    stage.world.sim.partition(name(voter), name(candidate));
    stage.run_for(100);
    stage.world.sim.repair(name(old), name(voter));
    stage.world.start(&name(voter));
    stage.submit("between", 1, 1, "500:0");
    stage.world.sim.repair(name(voter), name(candidate));
    stage.world.sim.repair(name(old), name(candidate));
    stage.run_for(5_000);
    stage.submit("after", 1, 1, "500:0");
    stage.come_to_rest();
}

#[test]
fn a_voter_that_loses_power_remembers_its_vote() {
    alone("honest".to_owned(), || a_voter_loses_power(Planted::Nothing)).expect("it goes well");
}

#[test]
fn planted_votes_that_are_not_synced_are_noticed() {
    let why = noticed(Planted::UnsyncedVotes, a_voter_loses_power);
    // Beside its log a server keeps the newest term in which it has voted.
    assert!(why.contains("has voted in term"), "{why}");
}

#[test]
fn seeds_notice_planted_spent_tokens() {
    let notice = |seed| {
        let played = alone(format!("{:?} {seed}", Planted::SpentTokens), move || play(seed, Planted::SpentTokens));
        played.err().is_some_and(|why| why.contains("was started a second time"))
    };
    assert!((1..=SEEDS).any(notice), "{SEEDS} seeds were played and none noticed");
}
