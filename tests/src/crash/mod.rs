//! Crash images: the disks that a power cut could leave, made from a record of a real run, opened by the real stores.
//!
//! A *life* is one run of `muster-crash-workload` under the recorder (`crash-recorder`): it opens the folder, writes from
//! a seed and marks what was acknowledged. A *cut* is a point in its record. An *image* is a folder the cut could leave:
//! what was synced, and of the rest what a seed picked. Every image is opened and judged; one of a life's images is where
//! its next life begins, so that recovery itself is cut as well.

pub mod check;
pub mod choice;
pub mod damage;
pub mod dice;
pub mod disk;
pub mod engine;
pub mod expect;
pub mod image;
pub mod life;
pub mod mark;
pub mod planted;
pub mod preload;
pub mod record;
pub mod series;
pub mod workload;
