//! How a cycle decides: order, what fits where, filling around those that wait, taking back, and
//! the explanation of all of it through the same predicates.

pub mod feasible;
