//! In which order gangs are looked at. One program for all of it: linking is most of what a test costs to build.

#[path = "../plan_support/mod.rs"]
mod plan_support;
#[path = "../property/mod.rs"]
mod property;
#[path = "../taking_support/mod.rs"]
mod taking_support;

mod fair_tree;
mod kueue_order;
mod named_orders;
mod plan_order;
mod refill_old_revision;
mod starvation;
