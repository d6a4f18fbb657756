//! Where gangs are put. One program for all of it: linking is most of what a test costs to build.

#[path = "../plan_support/mod.rs"]
mod plan_support;
#[path = "../property/mod.rs"]
mod property;

mod at_most_beside_excluded;
mod complaints_placement;
mod optimal;
mod plan_placement;
mod plan_random;
mod plan_scale;
mod plan_scores;
mod plan_wishes;
mod ranks_beyond_the_agent;
mod registered_again;
mod shares_span_the_gap;
mod slurm_block;
mod stale_classes;
