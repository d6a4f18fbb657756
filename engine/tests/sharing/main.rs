//! What accounts own and may have, and taking it back. One program for all of it: linking is most of what a test costs to build.

#[path = "../plan_support/mod.rs"]
mod plan_support;
#[path = "../property/mod.rs"]
mod property;
#[path = "../taking_support/mod.rs"]
mod taking_support;

mod budget;
mod complaints_taking;
mod consolidate;
mod consolidate_random;
mod crowded_domains;
mod declare;
mod edited_firm;
mod forecast_misses;
mod held_wounded;
mod hived;
mod hived_obtainable;
mod hived_random;
mod hived_settles;
mod hived_turns;
mod instances_quota;
mod kept_ahead;
mod kueue_borrow;
mod limits;
mod mended_quota;
mod moved_edit;
mod preempt_wake;
mod quota;
mod quota_random;
mod reclaim_models;
mod slurm_limits;
mod slurm_preempt;
mod spot;
mod taking;
mod taking_random;
mod total_cpu;
