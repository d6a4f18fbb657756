//! How a cycle decides: order, what fits where, filling around those that wait, taking back, and
//! the explanation of all of it through the same predicates.

pub mod backfill;
mod blockers;
pub mod brief;
mod capacity;
pub mod devices;
pub mod explain;
pub mod feasible;
pub mod fill;
#[cfg(test)]
mod fixtures;
pub mod ledger;
pub mod never;
pub mod order;
pub mod place;
pub mod replan;
pub mod round;
pub mod scope;
pub mod steps;
pub mod waiting;
