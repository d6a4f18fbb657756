//! The wire: generated messages and their conversions to and from `muster-common`.

#[allow(clippy::all, missing_docs)]
pub mod agent {
    tonic::include_proto!("muster.agent.v1");
}
