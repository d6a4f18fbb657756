//! What becomes of a job, and what State remembers. One program for all of it: linking is most of what a test costs to build.

#[path = "../property/mod.rs"]
mod property;
#[path = "../support/mod.rs"]
mod support;

mod depend;
mod edit;
mod extremes;
mod format;
mod lifecycle;
mod organisation;
mod policies;
mod random;
mod reasons;
mod restore;
mod second_tries;
mod touched;
