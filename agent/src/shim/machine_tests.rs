use super::machine::{Action, Event, Failure, KILL_AGAIN_MS, Machine, Phase, RankExit, step};

const LEASE_END: u64 = 10_000;
const TERM: i32 = 15;
const USR1: i32 = 10;

fn exit(rank: u32, code: i32) -> RankExit {
    RankExit { rank, code, signal: 0, why: String::new(), wall_ms: 5 }
}

fn at_barrier() -> Machine {
    let mut machine = Machine::new([4, 5], LEASE_END);
    assert_eq!(step(&mut machine, 1, Event::Checked(Ok(()))), []);
    assert_eq!(machine.phase, Phase::Barrier);
    machine
}

fn running() -> Machine {
    let mut machine = at_barrier();
    assert_eq!(step(&mut machine, 2, Event::Go), [Action::Spawn]);
    machine
}

fn killed_at(now_ms: u64) -> Phase {
    Phase::Killing { since_ms: now_ms, again_at_ms: now_ms + KILL_AGAIN_MS }
}

#[test]
fn rule_4c_no_rank_runs_before_the_gang_has_started() {
    let mut machine = Machine::new([4, 5], LEASE_END);
    assert_eq!(step(&mut machine, 1, Event::Go), [], "a rank was let go before the checks were done");
    assert_eq!(step(&mut machine, 2, Event::Checked(Ok(()))), [], "a rank was let go at the barrier");
    assert_eq!(step(&mut machine, 3, Event::Tick), []);
    assert!(!machine.spawned);
    assert_eq!(step(&mut machine, 4, Event::Go), [Action::Spawn]);
    assert_eq!(step(&mut machine, 5, Event::Go), [], "ranks were started twice");
}

#[test]
fn rule_9a_the_lease_kills_the_whole_tree_at_its_end_in_every_phase() {
    let stopping = {
        let mut machine = running();
        step(&mut machine, 3, Event::Stop { signal: None, grace_ms: 1_000_000 });
        machine
    };
    for mut machine in [Machine::new([4, 5], LEASE_END), at_barrier(), running(), stopping] {
        assert_eq!(machine.next_deadline_ms(), Some(LEASE_END));
        assert_eq!(step(&mut machine, LEASE_END - 1, Event::Tick), []);
        assert_eq!(step(&mut machine, LEASE_END, Event::Tick), [Action::KillTree]);
        assert_eq!(machine.phase, killed_at(LEASE_END));
        assert!(machine.lease_expired);
    }
}

#[test]
fn rule_9a_what_comes_after_the_lease_revives_nothing() {
    for late in [Event::LeaseExtended { deadline_ms: 99_999 }, Event::Go] {
        let mut machine = at_barrier();
        assert_eq!(step(&mut machine, LEASE_END, late), [Action::KillTree]);
        assert_eq!(step(&mut machine, LEASE_END + 1, Event::LeaseExtended { deadline_ms: 99_999 }), []);
        assert_eq!(
            step(&mut machine, LEASE_END + 1, Event::TreeEmpty),
            [Action::WriteReleased { lease_expired: true }]
        );
        assert_eq!(step(&mut machine, LEASE_END + 2, Event::Go), []);
        assert_eq!(machine.next_deadline_ms(), None);
    }
}

#[test]
fn the_lease_only_grows() {
    let mut machine = running();
    step(&mut machine, 3, Event::LeaseExtended { deadline_ms: LEASE_END + 500 });
    step(&mut machine, 4, Event::LeaseExtended { deadline_ms: LEASE_END - 500 });
    assert_eq!(machine.deadline_ms, LEASE_END + 500);
    assert_eq!(step(&mut machine, LEASE_END, Event::Tick), []);
}

#[test]
fn losing_the_agent_changes_nothing() {
    let mut machine = running();
    let before = machine.clone();
    assert_eq!(step(&mut machine, 3, Event::AgentGone), []);
    assert_eq!(machine, before);
}

#[test]
fn a_stop_is_term_then_grace_then_kill() {
    let mut machine = running();
    assert_eq!(step(&mut machine, 100, Event::Stop { signal: None, grace_ms: 50 }), [Action::Signal(TERM)]);
    assert_eq!(machine.next_deadline_ms(), Some(150));
    assert_eq!(step(&mut machine, 149, Event::Tick), []);
    assert_eq!(step(&mut machine, 150, Event::Tick), [Action::KillTree]);
    assert_eq!(step(&mut machine, 151, Event::Tick), []);
    assert_eq!(step(&mut machine, 150 + KILL_AGAIN_MS, Event::Tick), [Action::KillTree], "the kill is repeated");
    assert_eq!(machine.phase, Phase::Killing { since_ms: 150, again_at_ms: 150 + 2 * KILL_AGAIN_MS });
}

#[test]
fn the_jobs_own_signal_comes_first_and_term_before_the_end() {
    let mut machine = running();
    let stop = Event::Stop { signal: Some(USR1), grace_ms: 4_000 };
    assert_eq!(step(&mut machine, 100, stop.clone()), [Action::Signal(USR1)]);
    assert_eq!(step(&mut machine, 3_099, Event::Tick), []);
    assert_eq!(step(&mut machine, 3_100, Event::Tick), [Action::Signal(TERM)]);
    assert_eq!(step(&mut machine, 3_101, Event::Tick), []);
    assert_eq!(step(&mut machine, 3_500, stop), [], "a repeated stop must not begin again");
    assert_eq!(step(&mut machine, 4_100, Event::Tick), [Action::KillTree]);
}

#[test]
fn a_second_stop_shortens_the_grace_and_never_lengthens_it() {
    let mut machine = running();
    step(&mut machine, 100, Event::Stop { signal: None, grace_ms: 50 });
    step(&mut machine, 110, Event::Stop { signal: None, grace_ms: 5_000 });
    assert_eq!(machine.next_deadline_ms(), Some(150));
    assert_eq!(step(&mut machine, 120, Event::Stop { signal: None, grace_ms: 0 }), [Action::KillTree]);
}

#[test]
fn a_stop_before_the_start_kills_at_once() {
    for mut machine in [Machine::new([4], LEASE_END), at_barrier()] {
        assert_eq!(step(&mut machine, 7, Event::Stop { signal: None, grace_ms: 5_000 }), [Action::KillTree]);
        assert_eq!(step(&mut machine, 8, Event::Checked(Ok(()))), []);
        assert_eq!(step(&mut machine, 8, Event::Go), [], "a stopped allocation was started");
        assert_eq!(step(&mut machine, 9, Event::TreeEmpty), [Action::WriteReleased { lease_expired: false }]);
    }
}

#[test]
fn a_failed_check_ends_without_a_rank() {
    let mut machine = Machine::new([4], LEASE_END);
    let failure = Failure { infra: false, why: "no such folder".to_owned() };
    assert_eq!(step(&mut machine, 1, Event::Checked(Err(failure.clone()))), [Action::KillTree]);
    assert_eq!(step(&mut machine, 2, Event::TreeEmpty), [Action::WriteReleased { lease_expired: false }]);
    assert_eq!((machine.failure, machine.spawned), (Some(failure), false));
}

#[test]
fn an_exit_is_written_at_once_and_the_last_one_ends_what_was_left_behind() {
    let mut machine = running();
    assert_eq!(step(&mut machine, 3, Event::RankExited(exit(4, 1))), [Action::WriteExit(exit(4, 1))]);
    assert_eq!(machine.phase, Phase::Running, "stopping the gang is the server's to say");
    assert_eq!(step(&mut machine, 3, Event::RankExited(exit(4, 0))), [], "an end is final");
    let last = step(&mut machine, 4, Event::RankExited(exit(5, 0)));
    assert_eq!(last, [Action::WriteExit(exit(5, 0)), Action::KillTree]);
    assert_eq!(step(&mut machine, 5, Event::TreeEmpty), [Action::WriteReleased { lease_expired: false }]);
    assert_eq!(step(&mut machine, 6, Event::TreeEmpty), [], "released twice");
}

#[test]
fn rule_8d_nothing_is_released_while_a_rank_has_not_been_seen_to_end() {
    let mut machine = running();
    assert_eq!(step(&mut machine, 3, Event::TreeEmpty), [], "released while it should run");
    step(&mut machine, 4, Event::Stop { signal: None, grace_ms: 0 });
    step(&mut machine, 5, Event::RankExited(exit(4, 137)));
    assert_eq!(step(&mut machine, 6, Event::TreeEmpty), [], "released with a rank unaccounted for");
    step(&mut machine, 7, Event::RankExited(exit(5, 137)));
    assert_eq!(machine.phase, Phase::Killing { since_ms: 4, again_at_ms: 4 + KILL_AGAIN_MS });
    assert_eq!(step(&mut machine, 8, Event::TreeEmpty), [Action::WriteReleased { lease_expired: false }]);
}

#[test]
fn children_of_a_rank_that_ends_first_keep_the_grace() {
    let mut machine = running();
    step(&mut machine, 100, Event::Stop { signal: None, grace_ms: 50 });
    step(&mut machine, 101, Event::RankExited(exit(4, 143)));
    let last = step(&mut machine, 102, Event::RankExited(exit(5, 143)));
    assert_eq!(last, [Action::WriteExit(exit(5, 143)), Action::Drain]);
    assert_eq!(step(&mut machine, 150, Event::Tick), [Action::KillTree]);
}

#[test]
fn an_exit_by_the_lease_says_so() {
    let mut machine = running();
    step(&mut machine, LEASE_END, Event::Tick);
    let [Action::WriteExit(written)] = &step(&mut machine, LEASE_END + 1, Event::RankExited(exit(4, 137)))[..] else {
        panic!("no exit was written");
    };
    assert!(written.why.contains("lease"), "{written:?}");
}
