//! The open nodes of one class in one domain, found by how many wholly free devices they have: a bit a
//! node and level, so that taking devices and giving them back costs no search through the others.

use super::by_node;
use muster_common::NodeId;
use std::sync::Arc;

const WORD: usize = 64;

#[derive(Debug, Clone, Default)]
pub struct Pool {
    /// In ascending order. One that is closed keeps its place.
    members: Arc<Vec<NodeId>>,
    /// By wholly free devices, then by place among the members.
    levels: Vec<Vec<u64>>,
    /// How many nodes have so many wholly free devices.
    counts: Vec<u32>,
    free_sum: u64,
}

impl Pool {
    /// Moves a node from one number of free devices to another; `None` = it is not open.
    pub fn shift(&mut self, id: NodeId, before: Option<u32>, after: Option<u32>) {
        let at = self.place_of(id);
        if let Some(whole) = before {
            self.levels[whole as usize][at / WORD] &= !(1 << (at % WORD));
            self.counts[whole as usize] -= 1;
            self.free_sum -= u64::from(whole);
        }
        if let Some(whole) = after {
            while self.levels.len() <= whole as usize {
                self.levels.push(Vec::new());
                self.counts.push(0);
            }
            let level = &mut self.levels[whole as usize];
            if level.len() <= at / WORD {
                level.resize(at / WORD + 1, 0);
            }
            level[at / WORD] |= 1 << (at % WORD);
            self.counts[whole as usize] += 1;
            self.free_sum += u64::from(whole);
        }
    }

    /// Of a member, new or old.
    fn place_of(&mut self, id: NodeId) -> usize {
        if self.members.last().is_none_or(|last| *last < id) {
            Arc::make_mut(&mut self.members).push(id);
            return self.members.len() - 1;
        }
        match by_node::place_of(&self.members, id) {
            Ok(at) => at,
            Err(at) => {
                Arc::make_mut(&mut self.members).insert(at, id);
                self.levels.iter_mut().for_each(|level| open_up(level, at));
                at
            }
        }
    }

    /// Forgets a node that is not listed any more.
    pub fn forget(&mut self, id: NodeId) {
        if let Ok(at) = by_node::place_of(&self.members, id) {
            Arc::make_mut(&mut self.members).remove(at);
            self.levels.iter_mut().for_each(|level| close_up(level, at));
        }
    }

    pub fn len(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.counts.iter().all(|count| *count == 0)
    }

    /// Wholly free devices of all its nodes.
    pub fn free_sum(&self) -> u64 {
        self.free_sum
    }

    /// Nodes with at least so many wholly free devices.
    pub fn nodes_with(&self, devices: u32) -> u64 {
        self.counts.iter().skip(devices as usize).map(|&count| u64::from(count)).sum()
    }

    /// Those nodes, the least free first, then by id.
    pub fn having(&self, devices: u32) -> impl Iterator<Item = (u32, NodeId)> + '_ {
        let levels = (0u32..).zip(&self.levels).zip(&self.counts).skip(devices as usize);
        levels.filter(|(_, count)| **count > 0).flat_map(move |((whole, level), _)| {
            let words = level.iter().enumerate().filter(|(_, word)| **word != 0);
            words.flat_map(move |(at, word)| Ones(*word).map(move |bit| (whole, self.members[at * WORD + bit])))
        })
    }
}

/// The places of ones in a word, the lowest first.
struct Ones(u64);

impl Iterator for Ones {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let bit = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(bit)
    }
}

/// Makes room for one bit.
fn open_up(level: &mut Vec<u64>, at: usize) {
    let (word, bit) = (at / WORD, at % WORD);
    if word >= level.len() {
        return;
    }
    if level.last().is_some_and(|last| last >> (WORD - 1) == 1) {
        level.push(0);
    }
    for later in (word + 1..level.len()).rev() {
        level[later] = level[later] << 1 | level[later - 1] >> (WORD - 1);
    }
    let below = (1u64 << bit) - 1;
    level[word] = level[word] & below | (level[word] & !below) << 1;
}

/// Takes one bit out.
fn close_up(level: &mut [u64], at: usize) {
    let (word, bit) = (at / WORD, at % WORD);
    if word >= level.len() {
        return;
    }
    let below = (1u64 << bit) - 1;
    level[word] = level[word] & below | level[word] >> 1 & !below;
    for later in word + 1..level.len() {
        level[later - 1] |= level[later] << (WORD - 1);
        level[later] >>= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn lists_as_a_sorted_map_would(ops in proptest::collection::vec((0u64..300, proptest::option::of(0u32..9), any::<bool>()), 0..1200)) {
            let (mut pool, mut model) = (Pool::default(), BTreeMap::new());
            for (id, after, forget) in ops {
                let id = NodeId(id);
                let before = model.remove(&id);
                pool.shift(id, before, after);
                if let Some(whole) = after {
                    model.insert(id, whole);
                } else if forget {
                    pool.forget(id);
                }
            }
            let mut listed: Vec<(u32, NodeId)> = model.iter().map(|(id, whole)| (*whole, *id)).collect();
            listed.sort_unstable();
            prop_assert_eq!(pool.len(), listed.len() as u64);
            prop_assert_eq!(pool.is_empty(), listed.is_empty());
            prop_assert_eq!(pool.free_sum(), listed.iter().map(|(whole, _)| u64::from(*whole)).sum::<u64>());
            for devices in 0..10 {
                listed.retain(|(whole, _)| *whole >= devices);
                prop_assert_eq!(pool.nodes_with(devices), listed.len() as u64);
                prop_assert!(pool.having(devices).eq(listed.iter().copied()));
            }
        }
    }
}
