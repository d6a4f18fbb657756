//! A new certificate before the old one runs out.

use muster_proto::agent::RenewRequest;
use muster_proto::agent::agents_client::AgentsClient;
use muster_runtime::aside;
use muster_runtime::clock::Clock;
use muster_runtime::identity::{Credentials, IdentityError, KeyRequest, LEAF_VALID_MS};
use std::path::Path;
use tokio::task::JoinError;
use tonic::transport::Channel;

/// Renewed once less than this is left.
const RENEW_BELOW_MS: u64 = LEAF_VALID_MS / 3;

#[derive(Debug, thiserror::Error)]
pub enum RenewError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("the server gave no new certificate: {0}")]
    Server(#[from] tonic::Status),
    #[error("the new certificate was not written: {0}")]
    Unwritten(#[from] JoinError),
}

/// Renews the certificate if it is time. The key is new as well, and never leaves this machine.
pub async fn renew_if_due(
    client: &mut AgentsClient<Channel>,
    credentials: &Credentials,
    folder: &Path,
    clock: &dyn Clock,
) -> Result<(), RenewError> {
    let left_ms = credentials.current().not_after_ms().saturating_sub(clock.wall_ms());
    if left_ms >= RENEW_BELOW_MS {
        return Ok(());
    }
    let request = KeyRequest::new()?;
    let reply = client.renew(RenewRequest { csr_pem: request.csr_pem().to_owned() }).await?.into_inner();
    // Whoever is believed may name another CA to believe beside its own: so a cluster changes its CA.
    let ca_pem = match reply.ca_pem.is_empty() {
        true => credentials.current().ca_pem().to_owned(),
        false => reply.ca_pem,
    };
    let identity = request.finish(&reply.certificate_pem, &ca_pem, clock.wall_ms())?;
    let folder = folder.to_owned();
    let identity = aside::run(move || identity.save(&folder).map(|()| identity)).await??;
    credentials.replace(identity)?;
    tracing::info!("the node's certificate was renewed");
    Ok(())
}
