//! How a cycle decides: order, what fits where, filling around those that wait, taking back, and
//! the explanation of all of it through the same predicates.

pub mod apart;
pub mod backfill;
mod blockers;
pub mod bookings;
pub mod brief;
mod capacity;
mod cells;
mod compare;
pub mod devices;
mod earliest;
pub mod explain;
pub mod fair;
pub mod feasible;
pub mod fill;
#[cfg(test)]
mod fixtures;
mod foreseen;
mod fragment;
pub mod groups;
mod islands;
pub mod lanes;
pub mod ledger;
pub mod limits;
pub mod never;
pub mod order;
pub mod place;
mod pool;
pub mod quota;
mod rebook;
pub mod replan;
mod request;
pub mod round;
pub mod running;
pub mod runtime;
pub mod scope;
mod score;
mod search;
mod shape;
pub mod standing;
pub mod steps;
mod stream;
mod take;
pub mod timeline;
pub mod waiting;
pub mod walk;
mod windows;
