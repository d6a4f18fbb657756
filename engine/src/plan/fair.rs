//! Fair Tree: users ranked by how much less than their share they have used.
//!
//! As in Slurm (doc/html/fair_tree.shtml, Cox and Morrison): among siblings the level fairshare is
//! LF = S / U, the own part of the siblings' shares over the own part of their use. The tree is walked
//! depth-first by falling LF and users are ranked as they are met, counting down from their number. So
//! every user of a better account is before every user of a worse one. Equal users share a rank, equal
//! accounts have their children merged, and a user equal to an account shares its best rank. LF is
//! compared exactly, so what is equal on paper is equal here.

use std::cmp::Ordering;

/// An account or a user, with what stands below it.
#[derive(Debug, Clone, Default)]
pub struct Branch {
    /// Share against its siblings. `None` = a user that goes first in its account (Slurm's
    /// `Fairshare=parent`).
    pub shares: Option<u64>,
    /// Of a user, decayed and weighted; of an account it is what its children used.
    pub usage: u128,
    /// Of a user, its number.
    pub user: Option<u32>,
    /// Places in the list of branches.
    pub children: Vec<usize>,
}

/// LF as a fraction that is never worked out.
#[derive(Debug, Clone, Copy, Default)]
struct Level {
    shares: Option<u64>,
    all_shares: u64,
    usage: u128,
    all_usage: u128,
}

/// Below this difference two fractions are compared exactly.
const NEAR: f64 = 1e-9;

impl Level {
    /// No shares are worth nothing; unused shares are worth more than any.
    fn value(&self) -> f64 {
        match self.shares {
            None => f64::INFINITY,
            Some(0) => 0.0,
            Some(_) if self.usage == 0 => f64::INFINITY,
            Some(shares) => shares as f64 / self.all_shares as f64 * (self.all_usage as f64 / self.usage as f64),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        let (one, two) = (self.value(), other.value());
        let far = !one.is_finite() || !two.is_finite() || one == 0.0 || two == 0.0;
        if far || (one - two).abs() > NEAR * one.max(two) {
            return one.total_cmp(&two);
        }
        let cross =
            |a: &Self, b: &Self| product([a.shares.unwrap_or(0).into(), a.all_usage, b.all_shares.into(), b.usage]);
        cross(self, other).cmp(&cross(other, self))
    }
}

/// The product of four numbers, the highest digits first.
fn product(factors: [u128; 4]) -> [u64; 8] {
    let mut digits = [0u64; 8];
    digits[7] = 1;
    for factor in factors {
        let (high, low) = ((factor >> 64) as u64, factor as u64);
        let mut next = [0u64; 8];
        for (shift, by) in [(0, low), (1, high)] {
            let mut carry = 0u128;
            for at in (0..8usize).rev() {
                let Some(to) = at.checked_sub(shift) else { break };
                let sum = u128::from(digits[at]) * u128::from(by) + u128::from(next[to]) + carry;
                next[to] = sum as u64;
                carry = sum >> 64;
            }
        }
        digits = next;
    }
    digits
}

/// Ranks of all users by their number: the best has the number of users, the worst may have 1. Slurm's
/// factor is the rank over the number of users. `tree[0]` is the root.
pub fn ranks(tree: &mut [Branch], users: u32) -> Vec<u32> {
    sum_usage(tree, 0);
    let levels = levels(tree);
    let mut walk = Walk { tree, levels: &levels, rank: users, left: users, ranks: vec![0; users as usize] };
    let top = walk.tree[0].children.clone();
    walk.down(top, false);
    walk.ranks
}

/// Accounts are at most a few levels deep.
fn sum_usage(tree: &mut [Branch], at: usize) -> u128 {
    if tree[at].user.is_none() {
        let children = std::mem::take(&mut tree[at].children);
        tree[at].usage = children.iter().fold(0, |sum: u128, child| sum.saturating_add(sum_usage(tree, *child)));
        tree[at].children = children;
    }
    tree[at].usage
}

fn levels(tree: &[Branch]) -> Vec<Level> {
    let mut levels = vec![Level::default(); tree.len()];
    for branch in tree {
        let all_shares = branch.children.iter().map(|child| tree[*child].shares.unwrap_or(0)).sum();
        for &child in &branch.children {
            let Branch { shares, usage, .. } = tree[child];
            levels[child] = Level { shares, all_shares, usage, all_usage: branch.usage };
        }
    }
    levels
}

struct Walk<'a> {
    tree: &'a [Branch],
    levels: &'a [Level],
    rank: u32,
    /// What the next rank is unless it is shared.
    left: u32,
    ranks: Vec<u32>,
}

impl Walk<'_> {
    /// `tied`: the account above shares its best rank with a user beside it.
    fn down(&mut self, mut siblings: Vec<usize>, tied: bool) {
        siblings.sort_by(|a, b| {
            let users_first = |at: &usize| self.tree[*at].user.is_none();
            self.levels[*b].compare(&self.levels[*a]).then(users_first(a).cmp(&users_first(b))).then(a.cmp(b))
        });
        let mut at = 0;
        while at < siblings.len() {
            let one = siblings[at];
            let shared = match at.checked_sub(1) {
                None => tied,
                Some(before) => self.are_equal(siblings[before], one),
            };
            match self.tree[one].user {
                Some(user) => {
                    if !shared {
                        self.rank = self.left;
                    }
                    self.ranks[user as usize] = self.rank;
                    self.left -= 1;
                    at += 1;
                }
                None => {
                    let equal = siblings[at..].iter().take_while(|other| self.are_equal(one, **other)).count();
                    let below = siblings[at..at + equal].iter().flat_map(|account| &self.tree[*account].children);
                    self.down(below.copied().collect(), shared);
                    at += equal;
                }
            }
        }
    }

    fn are_equal(&self, one: usize, other: usize) -> bool {
        self.levels[one].compare(&self.levels[other]).is_eq()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_are_exact() {
        let mut expected = [0; 8];
        expected[7] = 6 * 35;
        assert_eq!(product([2, 3, 5, 7]), expected);
        // (2^127)^4 = 2^508.
        let mut expected = [0; 8];
        expected[0] = 1 << 60;
        assert_eq!(product([1 << 127; 4]), expected);
        assert_eq!(product([u128::MAX, 1, 1, 1])[6..], [u64::MAX, u64::MAX]);
    }
}
