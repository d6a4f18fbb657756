//! What is attacked: one target for each way bytes from outside come in.

mod commands;
mod files;
mod messages;
mod recorded;
mod state;
mod texts;

/// One decoder, and what follows from what it takes.
pub struct Target {
    pub name: &'static str,
    pub what: &'static str,
    /// Panics when a promise is broken; refusing an input is no panic.
    pub run: fn(&[u8]),
    /// Real inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Words worth writing into inputs.
    pub words: &'static [&'static [u8]],
    pub length_max: usize,
}

pub const ALL: &[Target] = &[
    state::ENTRY,
    state::APPLY,
    commands::COMMANDS,
    state::SNAPSHOT_STATE,
    messages::AGENT_UP,
    messages::AGENT_DOWN,
    messages::PEER,
    messages::ERROR_INFO,
    files::SEALED,
    files::SNAPSHOT_FILE,
    files::WAL,
    files::SHIM,
    files::TABLE,
    recorded::DECISIONS,
    texts::JOB_FILE,
    texts::POLICY,
    texts::CONFIG,
    texts::TRACE,
    texts::WORDS,
];

/// The first byte as a choice, and the rest.
fn choice(input: &[u8]) -> Option<(u8, &[u8])> {
    input.split_first().map(|(first, rest)| (*first, rest))
}

/// A text with a choice in front of it.
fn chosen(which: u8, rest: &[u8]) -> Vec<u8> {
    [&[which], rest].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::corpus;
    use std::collections::BTreeSet;

    #[test]
    fn every_kept_input_is_survived() {
        for target in ALL {
            let kept = corpus::read(&corpus::folder().join(target.name)).expect("readable");
            assert!(!kept.is_empty(), "{} has no kept inputs", target.name);
            let seeds = (target.seeds)();
            assert!(seeds.iter().all(|seed| seed.len() <= target.length_max), "{} has a seed too long", target.name);
            for input in seeds.iter().chain(&kept) {
                let outcome = std::panic::catch_unwind(|| (target.run)(input));
                assert!(outcome.is_ok(), "{} panics at {}", target.name, corpus::to_hex(input));
            }
        }
    }

    #[test]
    fn every_file_of_inputs_belongs_to_a_target() {
        let names: BTreeSet<String> = ALL.iter().map(|target| target.name.to_owned()).collect();
        assert_eq!(names.len(), ALL.len(), "two targets have one name");
        let entries = std::fs::read_dir(corpus::folder()).expect("the folder of inputs");
        let files: BTreeSet<String> =
            entries.map(|entry| entry.expect("readable").file_name().to_string_lossy().into_owned()).collect();
        assert_eq!(files, names);
    }
}
