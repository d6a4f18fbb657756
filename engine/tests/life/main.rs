//! What becomes of a job, and what State remembers. One program for all of it: linking is most of what a test costs to build.

#[path = "../property/mod.rs"]
mod property;
#[path = "../support/mod.rs"]
mod support;

mod circles;
mod deadline_revision;
mod depend;
mod edit;
mod excluded;
mod extremes;
mod forecasts;
mod format;
mod lifecycle;
mod named_twice;
mod organisation;
mod organisation_bounds;
mod policies;
mod random;
mod reasons;
mod restore;
mod second_tries;
mod stale_plan_window;
mod timer_clash;
mod touched;
