//! The wire: generated messages and their conversions to and from `muster-common`.

#[allow(clippy::all, missing_docs)]
pub mod agent {
    tonic::include_proto!("muster.agent.v1");
}

/// What people and programs say to the cluster.
#[allow(clippy::all, missing_docs)]
pub mod client {
    tonic::include_proto!("muster.client.v1");
}

/// What the scheduler servers say to each other.
#[allow(clippy::all, missing_docs)]
pub mod peer {
    tonic::include_proto!("muster.peer.v1");
}

/// The client API as an encoded `google.protobuf.FileDescriptorSet`, comments included.
pub const CLIENT_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/client.descriptors"));

/// Everything on the wire, agents' and servers' calls too: what attacks go through.
pub const ALL_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/all.descriptors"));

pub mod convert;
pub mod datagram;
pub mod document;
pub mod join_token;
pub mod refs;
