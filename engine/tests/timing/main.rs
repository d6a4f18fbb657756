//! When gangs start: bookings, windows of time, estimates and what would help. One program for all of it: linking is most of what a test costs to build.

#[path = "../plan_support/mod.rs"]
mod plan_support;
#[path = "../property/mod.rs"]
mod property;
#[path = "../taking_support/mod.rs"]
mod taking_support;

mod bookings_kept;
mod coarse;
mod complaints_explain;
mod elastic;
mod plan_backfill;
mod plan_explain;
mod plan_rematch;
mod plan_reserve;
mod plan_windows;
mod range_of_plays;
mod remedy;
mod slurm_backfill;
mod start_range;
mod wakes;
mod windows;
mod windows_kept;
