use super::*;
use std::path::PathBuf;

fn parse(text: &str) -> Result<World, String> {
    toml::from_str(text).map_err(|error| error.to_string()).and_then(|world: World| world.checked())
}

#[test]
fn a_world_needs_only_its_nodes() {
    let world = parse("[[nodes]]\ncount = 2\ndevices = 8\n").unwrap();
    assert_eq!((world.devices(), world.registrations().count()), (16, 2));
    assert!(world.events.ends_first && world.preemption.keeps_work);
}

#[test]
fn mistakes_are_refused_by_name() {
    for (text, part) in [
        ("[[nodes]]\ncount = 2\ndevices = 8\ncolour = 1\n", "colour"),
        ("nodes = []\n", "0 nodes"),
        ("[[nodes]]\ncount = 2\ndevices = 0\n", "0 devices"),
        ("[[nodes]]\ncount = 2\ndevices = 8\ncpus = 4\n", "fewer CPUs"),
        ("[[nodes]]\ncount = 1\ndevices = 8\n[jobs]\nstep = 9\n", "jobs.step is 9"),
        ("[[nodes]]\ncount = 1\ndevices = 8\n[events]\ncycle_after = \"never\"\n", "cycle_after"),
        ("[[nodes]]\ncount = 1\ndevices = 8\n[[outages]]\nnode = \"node-1\"\nat_s = 5\n", "no node `node-1`"),
        ("[[nodes]]\ncount = 1\ndevices = 8\n[[outages]]\nnode = \"node-0\"\nat_s = 5\nfor_s = 0\n", "down for 0 s"),
        (
            "[[nodes]]\ncount = 1\ndevices = 8\n[[outages]]\nnode = \"node-0\"\nat_s = 14\n\
             [[outages]]\nnode = \"node-0\"\nat_s = 5\nfor_s = 10\n",
            "`node-0` goes down at 14 s, and is down from 5 s until 15 s",
        ),
        (
            "[[nodes]]\ncount = 1\ndevices = 8\n[[outages]]\nnode = \"node-0\"\nat_s = 5\n\
             [[outages]]\nnode = \"node-0\"\nat_s = 99\nfor_s = 10\n",
            "`node-0` goes down at 99 s, and is down from 5 s for good",
        ),
        ("[[nodes]]\ncount = 1\ndevices = 1\n[[nodes]]\ncount = 1\ndevices = 1\n", "two groups"),
    ] {
        let why = parse(text).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
}

#[test]
fn mistakes_about_spot_machines_are_refused_by_name() {
    let nodes = "[[nodes]]\nname = \"rented\"\ncount = 1\ndevices = 8\n";
    let spot = |name: &str, rate: &str| format!("[[spot]]\nnodes = \"{name}\"\nevictions_per_1000_days = {rate}\n");
    let drain = "[[drains]]\nnode = \"rented-0\"\nat_s = 5\n";
    for (text, part) in [
        (spot("rente", "5.0"), "no group of nodes `rente`"),
        (spot("rented", "0.0"), "more than 0"),
        (spot("rented", "nan"), "more than 0"),
        (spot("rented", "5.0") + &spot("rented", "5.0"), "named twice"),
        (spot("rented", "5.0") + "notice_s = 99999999999\n", "at most"),
        (spot("rented", "5.0") + "eviction = 1\n", "eviction"),
        (spot("rented", "5.0") + drain, "drain another one"),
    ] {
        let why = parse(&(nodes.to_owned() + &text)).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
}

#[test]
fn times_that_no_trace_can_hold_are_refused() {
    let of = |what: &str| format!("[[nodes]]\ncount = 1\ndevices = 8\n{what}");
    let (year_s, latest_s) = (366 * 86_400, 1_000_000_000_000_u64);
    let outage =
        |at_s: u64, for_s: u64| of(&format!("[[outages]]\nnode = \"node-0\"\nat_s = {at_s}\nfor_s = {for_s}\n"));
    let drain = |at_s: u64| of(&format!("[[drains]]\nnode = \"node-0\"\nat_s = {at_s}\n"));
    let drained = |until_s: u64| drain(0) + &format!("until_s = {until_s}\n");
    for sound in [outage(latest_s, year_s), drain(latest_s), drained(latest_s)] {
        parse(&sound).unwrap();
    }
    for (text, part) in [
        (outage(5, year_s + 1), "for_s is at most 31622400"),
        (outage(5, 20_000_000_000_000_000), "for_s is at most"),
        (outage(latest_s + 1, 1), "outages: node `node-0`: 1000000000001 s is beyond"),
        (drain(latest_s + 1), "drains: node `node-0`: 1000000000001 s is beyond"),
        (drained(latest_s + 1), "drains: node `node-0`: 1000000000001 s is beyond"),
    ] {
        let why = parse(&text).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    }
}

#[test]
fn ticks_round_up() {
    let mut world = parse("[[nodes]]\ncount = 1\ndevices = 1\n").unwrap();
    assert_eq!(world.on_tick(1_001), 1_001);
    world.events.tick_ms = 1_000;
    assert_eq!((world.on_tick(1_001), world.on_tick(2_000)), (2_000, 2_000));
}

fn examples(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples").join(folder);
    let files: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(!files.is_empty(), "{}", folder.display());
    files
}

fn worlds() -> Vec<World> {
    let read = |path: &PathBuf| World::read(path).map_or_else(|error| panic!("{error}"), |(world, _)| world);
    examples("worlds").iter().map(read).collect()
}

/// Some name nodes, levels or models of a world that is also an example.
fn goes_with_a_world<T>(path: &Path, worlds: &[World], read: impl Fn(&Path, &World) -> Result<T, SimError>) -> T {
    let mut refused = None;
    for world in worlds {
        match read(path, world) {
            Ok(what) => return what,
            Err(error) => refused = Some(error),
        }
    }
    panic!("{}", refused.expect("there are worlds"));
}

#[test]
fn examples_are_sound() {
    let worlds = worlds();
    for path in examples("prices") {
        goes_with_a_world(&path, &worlds, crate::prices::Prices::read);
    }
    for path in examples("organisations") {
        goes_with_a_world(&path, &worlds, crate::run::read_organisation);
    }
}

#[test]
fn every_example_of_a_truth_slows_down_what_is_spread() {
    let worlds = worlds();
    for path in examples("truths") {
        let (truth, _) = goes_with_a_world(&path, &worlds, crate::run::read_truth);
        assert!(truth.spread.iter().any(|spread| spread.percent > 100), "{}", path.display());
    }
}
