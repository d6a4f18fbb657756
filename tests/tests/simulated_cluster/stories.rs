//! Situations that have a name, each played once.

use crate::stage::Stage;
use crate::world::settings;

/// On a thread of its own: whatever a thread remembers would make the story another one.
fn on_own_thread(story: fn()) {
    std::thread::spawn(story).join().expect("the story goes well");
}

/// The lease of jobs that ask for no other.
fn lease_ms() -> u64 {
    settings().lease_ms(None)
}

/// A little more than an observer of silence needs to notice.
const NOTICE_MS: u64 = 1_500;
const YEAR_MS: i64 = 365 * 86_400_000;
const DAY_MS: i64 = 86_400_000;

#[test]
fn a_shorter_suspicion_reaches_agents_that_are_connected() {
    on_own_thread(|| {
        // Agents register before the settings are changed from those of a new cluster.
        let mut stage = Stage::new(100, 3);
        stage.run_for(10_000);
        assert_eq!(stage.silences(), (0, 0), "agents renew as seldom as before");
    });
}

#[test]
fn renewals_through_an_old_leader_extend_no_lease() {
    on_own_thread(|| {
        let mut stage = Stage::new(101, 3);
        let job = stage.submit("cut-off", 1, 1, "20000:0");
        stage.await_running(job, 1);
        let node = stage.nodes_of(job).remove(0);
        let leader = stage.leader();
        let others = stage.others(leader);
        // The node and the old leader see each other and nobody else.
        for other in &others {
            stage.world.sim.partition(format!("server-{leader}"), other.as_str());
            stage.world.sim.partition(node.as_str(), other.as_str());
        }
        stage.run_for(lease_ms() - 1_000);
        assert!(stage.world.observer.runs_on(&node), "ranks live as long as their lease");
        stage.run_for(1_000 + settings().kill_bound_ms);
        assert!(!stage.world.observer.runs_on(&node), "an old leader extended a lease");
        stage.await_running(job, 2);
        assert_ne!(stage.nodes_of(job), [node.clone()]);
        for other in &others {
            stage.world.sim.repair(format!("server-{leader}"), other.as_str());
            stage.world.sim.repair(node.as_str(), other.as_str());
        }
        stage.come_to_rest();
        assert_eq!(stage.job(job).state, "SUCCEEDED");
    });
}

#[test]
fn an_acknowledgement_that_races_a_fence_never_makes_two_attempts() {
    on_own_thread(|| {
        let mut stage = Stage::new(102, 3);
        let servers = stage.world.server_names();
        let (mut fenced, mut spared) = (0, 0);
        // Renewals that come a moment before, while and after the node is fenced.
        for (round, after_ms) in [5_600, 6_000, 6_250, 6_500, 7_200].into_iter().enumerate() {
            let job = stage.submit(&format!("race-{round}"), 1, 2, "30000:0");
            stage.await_running(job, 1);
            let node = stage.nodes_of(job).remove(0);
            let before = stage.silences().1;
            servers.iter().for_each(|server| stage.world.sim.hold(node.as_str(), server.as_str()));
            stage.run_for(after_ms);
            servers.iter().for_each(|server| stage.world.sim.release(node.as_str(), server.as_str()));
            stage.run_for(2 * NOTICE_MS);
            if stage.silences().1 > before {
                fenced += 1
            } else {
                spared += 1
            }
            stage.cancel(job);
            stage.come_to_rest();
        }
        assert!(fenced > 0 && spared > 0, "no race: {fenced} fenced, {spared} spared");
    });
}

#[test]
fn desired_from_a_lagging_leader_starts_nothing() {
    on_own_thread(|| {
        let mut stage = Stage::new(103, 1);
        let leader = stage.leader();
        let old = format!("server-{leader}");
        // What the leader says to the node from here on comes late.
        stage.world.sim.hold(old.as_str(), "node-1");
        let job = stage.submit("late-order", 1, 1, "run");
        stage.run_for(500);
        // It loses the lead, the node turns to the next one, and there the job is cancelled.
        stage.others(leader).iter().for_each(|other| stage.world.sim.partition(old.as_str(), other.as_str()));
        stage.run_for(3_000);
        stage.cancel(job);
        stage.run_for(8_000);
        let started = stage.world.observer.started;
        stage.world.sim.release(old.as_str(), "node-1");
        stage.run_for(3_000);
        assert_eq!(stage.world.observer.started, started, "an outdated order was followed");
        stage.others(leader).iter().for_each(|other| stage.world.sim.repair(old.as_str(), other.as_str()));
        stage.come_to_rest();
        assert_eq!(stage.job(job).state, "CANCELLED");
    });
}

#[test]
fn a_spent_token_offered_again_starts_nothing() {
    on_own_thread(|| {
        let mut stage = Stage::new(104, 1);
        let job = stage.submit("spent", 1, 1, "run");
        stage.await_running(job, 1);
        let servers = stage.world.server_names();
        // The node does as it is told, and no server hears of it: the stop is asked for again and again, by a leader,
        // its successor, and to an agent that was started anew.
        servers.iter().for_each(|server| stage.world.sim.partition_oneway("node-1", server.as_str()));
        stage.cancel(job);
        stage.world.run_until("the ranks end", 20_000, |world| !world.observer.runs_on("node-1"));
        let leader = stage.leader();
        stage.world.crash_server(leader);
        stage.world.crash_agent("node-1");
        stage.run_for(3_000);
        stage.world.start(&format!("server-{leader}"));
        stage.world.start("node-1");
        servers.iter().for_each(|server| stage.world.sim.repair("node-1", server.as_str()));
        stage.come_to_rest();
        assert_eq!(stage.world.observer.started, 1, "a spent token was taken for a new one");
        assert_eq!(stage.job(job).state, "CANCELLED");
    });
}

#[test]
fn an_agent_whose_store_is_wiped_kills_what_it_cannot_name() {
    on_own_thread(|| {
        let mut stage = Stage::new(105, 2);
        let job = stage.submit("forgotten", 2, 2, "5000:0");
        stage.await_running(job, 1);
        stage.world.wipe_store("node-1");
        stage.run_for(300);
        stage.world.start("node-1");
        stage.await_running(job, 2);
        stage.come_to_rest();
        assert_eq!(stage.job(job).state, "SUCCEEDED");
    });
}

#[test]
fn a_leader_whose_clock_is_ten_years_ahead_or_a_day_behind_poisons_nothing() {
    for offset_ms in [10 * YEAR_MS, -DAY_MS] {
        std::thread::spawn(move || {
            let mut stage = Stage::new(106, 2);
            let leader = stage.leader();
            let job = stage.submit("in-time", 1, 1, "40000:0");
            stage.await_running(job, 1);
            stage.world.server(leader).clock.set_offset_ms(offset_ms);
            // Longer than leaders wait between two looks at the clocks.
            stage.run_for(35_000);
            let now_ms = stage.world.state().expect("something was applied").now().0;
            let true_ms = crate::clock::WALL_START_MS + stage.world.time.now_ms();
            assert!(now_ms.abs_diff(true_ms) < 90_000, "state time is {now_ms}, it is {true_ms}");
            stage.world.crash_server(leader);
            stage.run_for(3_000);
            stage.world.start(&format!("server-{leader}"));
            stage.come_to_rest();
            let job = stage.job(job);
            assert_eq!((job.state.as_str(), job.attempt), ("SUCCEEDED", 1));
        })
        .join()
        .unwrap_or_else(|_| panic!("the story goes well with a clock off by {offset_ms} ms"));
    }
}

#[test]
fn two_gangs_on_one_node_whose_tokens_come_in_reverse_order_both_run() {
    on_own_thread(|| {
        let mut stage = Stage::new(107, 1);
        let leader = format!("server-{}", stage.leader());
        // Both orders wait on their way, and the older gang prepares after the younger one was accepted.
        stage.world.sim.hold(leader.as_str(), "node-1");
        let older = stage.submit("older", 1, 1, "4000:0");
        let younger = stage.submit("younger", 1, 1, "4000:0");
        stage.run_for(300);
        stage.world.crash_agent("node-1");
        stage.world.sim.release(leader.as_str(), "node-1");
        stage.world.start("node-1");
        stage.come_to_rest();
        for job in [older, younger] {
            assert_eq!(stage.job(job).state, "SUCCEEDED");
        }
    });
}

#[test]
fn a_paused_leader_that_wakes_to_a_minute_of_silence_fences_nobody() {
    on_own_thread(|| {
        let mut stage = Stage::new(108, 4);
        let job = stage.submit("undisturbed", 2, 1, "90000:0");
        stage.await_running(job, 1);
        let leader = stage.leader();
        let clock = stage.world.server(leader).clock.clone();
        let before = stage.silences();
        // Its clock jumps by a minute at once: for all it knows, every node was silent for so long.
        clock.jump_ms(60_000);
        stage.run_for(5_000);
        assert_eq!(stage.silences(), before, "silence nobody listened to was taken for a node's");
        assert_eq!(stage.leader(), leader);
        stage.come_to_rest();
        let job = stage.job(job);
        assert_eq!((job.state.as_str(), job.attempt), ("SUCCEEDED", 1));
    });
}
