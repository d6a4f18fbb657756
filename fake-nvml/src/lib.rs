//! A stand-in for `libnvidia-ml.so`, so that tests run the agent's real NVML path on any machine.
//!
//! It plays one machine from a fixture file: the path is in the environment variable
//! `MUSTER_FAKE_NVML`, or given to [`control::fake_load`]. Beside the fixture, `gpus.json` gives product
//! names and memory. The exported `fake_*` functions make devices fail; a second `dlopen` of the same
//! file reaches the same machine, and a copy of the file under another name is another machine.
//!
//! Only the calls that the agent makes are here. The library is named so that it can never be
//! taken for the driver's own.

#![allow(non_snake_case, reason = "the names are NVML's")]
#![allow(clippy::missing_safety_doc, reason = "the contract of every call is that of NVML's header")]

pub mod control;
pub mod device;
pub mod events;
mod fixture;
pub mod health;
pub mod library;
pub mod links;
mod node;
mod write;
