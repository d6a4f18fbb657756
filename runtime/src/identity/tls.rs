//! TLS 1.3 settings for both ends, and the check that the other end is who it should be.

use std::sync::{Arc, OnceLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, PeerIncompatible, RootCertStore, ServerConfig,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};

use super::{Fingerprint, Identity, IdentityError, Peer, Role};

/// A chain from the other side is a leaf and a CA or two; more is somebody wasting our time.
const LONGEST_CHAIN: usize = 8;
const MOST_CERTIFICATES: usize = 16;

/// Makes ring the process's cryptography, once; further calls do nothing.
pub fn install_crypto() {
    // Losing the race to another caller leaves the same provider installed.
    CryptoProvider::install_default(rustls::crypto::ring::default_provider()).ok();
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())).clone()
}

/// Which CA a client believes.
#[derive(Debug, Clone)]
pub enum Trust {
    /// The CA of this PEM text (or any of several).
    Ca(String),
    /// The CA with this fingerprint, which the server must send along.
    Pinned(Fingerprint),
}

/// Whom a client wants to find at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expect {
    /// The role it must have.
    pub role: Role,
    /// The cluster it must belong to; `None` accepts any that the CA vouches for.
    pub cluster: Option<String>,
    /// The name it must have; `None` accepts any of the role.
    pub name: Option<String>,
}

impl Expect {
    /// Any server.
    pub fn server() -> Self {
        Self { role: Role::Server, cluster: None, name: None }
    }

    /// Of this cluster only.
    pub fn of_cluster(self, cluster: impl Into<String>) -> Self {
        Self { cluster: Some(cluster.into()), ..self }
    }

    /// This one only, so that a reused address cannot answer for another.
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    fn check(&self, peer: &Peer) -> Result<(), Unexpected> {
        let wrong_cluster = self.cluster.as_ref().is_some_and(|cluster| *cluster != peer.cluster);
        let wrong_name = self.name.as_ref().is_some_and(|name| *name != peer.name);
        if wrong_cluster || wrong_name || self.role != peer.role {
            return Err(Unexpected::Other {
                wanted: self.to_string(),
                found: format!("{} of cluster {}", peer.as_name(), peer.cluster),
            });
        }
        Ok(())
    }
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.role)?;
        self.name.iter().try_for_each(|name| write!(f, " {name}"))?;
        self.cluster.iter().try_for_each(|cluster| write!(f, " of cluster {cluster}"))
    }
}

/// A server whose certificate is good and which is not the one wanted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unexpected {
    #[error("wanted {wanted}, found {found}")]
    Other { wanted: String, found: String },
    #[error("{0}")]
    Nameless(IdentityError),
    #[error("the server did not present the CA {0} that the join token names")]
    NotPinned(Fingerprint),
}

/// Settings of a listener. A client may come without a certificate; whoever presents one must be of this CA.
///
/// # Errors
/// When the identity's key or CA cannot be used.
pub fn server_config(identity: &Identity, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, IdentityError> {
    server_config_with(identity, alpn, client_verifier(identity.ca_ders())?)
}

/// Settings of a listener for peers with a certificate of this CA, and nobody else.
///
/// # Errors
/// When the identity's key or CA cannot be used.
pub fn server_config_of_known(identity: &Identity, alpn: &[&[u8]]) -> Result<Arc<ServerConfig>, IdentityError> {
    let known = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(identity.ca_ders())?), provider())
        .build()
        .map_err(|error| IdentityError::crypto("use the CA certificate", error))?;
    server_config_with(identity, alpn, known)
}

fn server_config_with(
    identity: &Identity,
    alpn: &[&[u8]],
    clients: Arc<dyn ClientCertVerifier>,
) -> Result<Arc<ServerConfig>, IdentityError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IdentityError::crypto("set up TLS 1.3", error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(identity.chain(), identity.key_der())
        .map_err(|error| IdentityError::crypto("use the private key", error))?;
    // A resumed session would skip the checks of a certificate that has expired or was replaced since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(Arc::new(config))
}

/// Settings of a client: shows `identity` if there is one, believes `trust` and insists on `expect`.
///
/// # Errors
/// A CA that is not PEM, or an identity whose key cannot be used.
pub fn client_config(
    identity: Option<&Identity>,
    trust: &Trust,
    expect: Expect,
    alpn: &[&[u8]],
) -> Result<ClientConfig, IdentityError> {
    let trusted = match trust {
        Trust::Ca(pem) => Trusted::Roots(roots(&certificates(pem, "the CA certificate")?)?),
        Trust::Pinned(fingerprint) => Trusted::Pinned(*fingerprint),
    };
    let verifier = Arc::new(ExpectedServer { trusted, expect, provider: provider() });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| IdentityError::crypto("set up TLS 1.3", error))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match identity {
        Some(identity) => builder
            .with_client_auth_cert(identity.chain(), identity.key_der())
            .map_err(|error| IdentityError::crypto("use the private key", error))?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    config.alpn_protocols = alpn.iter().map(|protocol| protocol.to_vec()).collect();
    Ok(config)
}

pub(super) fn client_verifier(ca: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, IdentityError> {
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots(ca)?), provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| IdentityError::crypto("use the CA certificate", error))
}

pub(super) fn certificates(pem: &str, what: &'static str) -> Result<Vec<CertificateDer<'static>>, IdentityError> {
    let parsed: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).take(MOST_CERTIFICATES).collect();
    parsed.ok().filter(|ders| !ders.is_empty()).ok_or(IdentityError::BadPem(what))
}

fn roots(ca: &[CertificateDer<'static>]) -> Result<RootCertStore, IdentityError> {
    let mut roots = RootCertStore::empty();
    for der in ca {
        roots.add(der.clone()).map_err(|error| IdentityError::crypto("use the CA certificate", error))?;
    }
    Ok(roots)
}

#[derive(Debug)]
enum Trusted {
    Roots(RootCertStore),
    Pinned(Fingerprint),
}

/// Believes the cluster's CA and compares the name in the certificate; host names and addresses decide nothing.
#[derive(Debug)]
struct ExpectedServer {
    trusted: Trusted,
    expect: Expect,
    provider: Arc<CryptoProvider>,
}

impl ExpectedServer {
    fn verify_chain(
        &self,
        leaf: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), rustls::Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.provider.signature_verification_algorithms.all;
        let verify = |roots: &RootCertStore| {
            rustls::client::verify_server_cert_signed_by_trust_anchor(&parsed, roots, chain, now, algorithms)
        };
        match &self.trusted {
            Trusted::Roots(roots) => verify(roots),
            Trusted::Pinned(fingerprint) => {
                let pinned = chain.iter().find(|der| Fingerprint::of(der) == *fingerprint);
                let pinned = pinned.ok_or_else(|| refuse(Unexpected::NotPinned(*fingerprint)))?;
                let mut roots = RootCertStore::empty();
                roots.add(pinned.clone().into_owned())?;
                verify(&roots)
            }
        }
    }
}

fn refuse(why: Unexpected) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(why))).into()
}

impl ServerCertVerifier for ExpectedServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if intermediates.len() > LONGEST_CHAIN {
            return Err(CertificateError::BadEncoding.into());
        }
        self.verify_chain(end_entity, intermediates, now)?;
        let peer = Peer::from_der(end_entity).map_err(|error| refuse(Unexpected::Nameless(error)))?;
        self.expect.check(&peer).map_err(refuse)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
