//! Values by node, in the order of ids. Ids are indexes of the log at which nodes joined, so they lie almost
//! evenly: where one stands is guessed, and mostly right, instead of searched for.

use muster_common::NodeId;

/// How far from the guess is looked before all is searched.
const NEAR: usize = 8;

/// Where an id stands in ascending ids, or would.
pub fn place_of(ids: &[NodeId], id: NodeId) -> Result<usize, usize> {
    let (Some(first), Some(last)) = (ids.first(), ids.last()) else { return Err(0) };
    if id < *first {
        return Err(0);
    }
    if id > *last {
        return Err(ids.len());
    }
    let (off, span, most) = (id.0 - first.0, last.0 - first.0, ids.len() as u64 - 1);
    let guess = if span == most { off } else { off.saturating_mul(most) / span.max(1) };
    let guess = guess.min(most) as usize;
    if ids[guess] == id {
        return Ok(guess);
    }
    let (from, to) = (guess.saturating_sub(NEAR), (guess + NEAR).min(ids.len() - 1));
    if ids[from] <= id && id <= ids[to] {
        return match ids[from..=to].binary_search(&id) {
            Ok(at) => Ok(from + at),
            Err(at) => Err(from + at),
        };
    }
    ids.binary_search(&id)
}

/// A sorted map that is looked up much more often than it grows.
#[derive(Debug, Clone)]
pub struct ByNode<T> {
    ids: Vec<NodeId>,
    values: Vec<T>,
}

impl<T> Default for ByNode<T> {
    fn default() -> Self {
        Self { ids: Vec::new(), values: Vec::new() }
    }
}

impl<T> ByNode<T> {
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    pub fn get(&self, id: &NodeId) -> Option<&T> {
        place_of(&self.ids, *id).ok().map(|at| &self.values[at])
    }

    pub fn get_mut(&mut self, id: &NodeId) -> Option<&mut T> {
        place_of(&self.ids, *id).ok().map(|at| &mut self.values[at])
    }

    pub fn contains_key(&self, id: &NodeId) -> bool {
        place_of(&self.ids, *id).is_ok()
    }

    pub fn insert(&mut self, id: NodeId, value: T) {
        match place_of(&self.ids, id) {
            Ok(at) => self.values[at] = value,
            Err(at) => {
                self.ids.insert(at, id);
                self.values.insert(at, value);
            }
        }
    }

    pub fn remove(&mut self, id: &NodeId) -> Option<T> {
        let at = place_of(&self.ids, *id).ok()?;
        self.ids.remove(at);
        Some(self.values.remove(at))
    }

    pub fn or_default(&mut self, id: NodeId) -> &mut T
    where
        T: Default,
    {
        let at = match place_of(&self.ids, id) {
            Ok(at) => at,
            Err(at) => {
                self.ids.insert(at, id);
                self.values.insert(at, T::default());
                at
            }
        };
        &mut self.values[at]
    }

    /// Makes places for nodes in ascending order, all of them at once.
    pub fn make_places(&mut self, ids: impl Iterator<Item = NodeId>)
    where
        T: Default,
    {
        let new: Vec<NodeId> = ids.filter(|id| !self.contains_key(id)).collect();
        if new.is_empty() {
            return;
        }
        let known = std::mem::take(&mut self.ids).into_iter().zip(std::mem::take(&mut self.values));
        let all = new.into_iter().map(|id| (id, T::default())).chain(known);
        // A stable sort of two runs is a merge.
        *self = all.collect();
    }

    pub fn keys(&self) -> impl Iterator<Item = &NodeId> {
        self.ids.iter()
    }

    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.values.iter()
    }

    pub fn iter(&self) -> impl Iterator<Item = (&NodeId, &T)> {
        self.ids.iter().zip(&self.values)
    }
}

impl<T> FromIterator<(NodeId, T)> for ByNode<T> {
    /// Of one node's values the last counts.
    fn from_iter<I: IntoIterator<Item = (NodeId, T)>>(values: I) -> Self {
        let mut all: Vec<(NodeId, T)> = values.into_iter().collect();
        all.sort_by_key(|(id, _)| *id);
        let mut map = Self { ids: Vec::with_capacity(all.len()), values: Vec::with_capacity(all.len()) };
        for (id, value) in all {
            map.insert(id, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_as_a_btree_map(gaps in proptest::collection::vec(prop_oneof![Just(1u64), 1u64..4, 1u64..900], 1..200), ops in proptest::collection::vec((0usize..220, any::<bool>()), 0..400)) {
            let mut at = 1u64 << 40;
            let ids: Vec<NodeId> = gaps.iter().map(|gap| { at += gap; NodeId(at) }).collect();
            let mut model: BTreeMap<NodeId, usize> = ids.iter().map(|id| (*id, 0)).collect();
            let mut map: ByNode<usize> = ids.iter().rev().map(|id| (*id, 0)).collect();
            for (value, (at, insert)) in ops.into_iter().enumerate() {
                let id = ids.get(at).copied().unwrap_or(NodeId((1 << 40) - 5 + at as u64 * 7));
                match insert {
                    true => {
                        map.insert(id, value);
                        model.insert(id, value);
                    }
                    false => prop_assert_eq!(map.remove(&id), model.remove(&id)),
                }
                *map.or_default(ids[0]) += 1;
                *model.entry(ids[0]).or_default() += 1;
            }
            prop_assert!(map.iter().eq(model.iter()));
            prop_assert_eq!(map.len(), model.len());
            for id in ids {
                prop_assert_eq!(map.get(&id), model.get(&id));
                prop_assert_eq!(map.contains_key(&id), model.contains_key(&id));
            }
        }
    }
}
