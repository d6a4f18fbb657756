//! The calling side: channels that connect when used, follow a renewed identity and say why they cannot connect.

use std::error::Error;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use http::uri::Authority as Address;
use hyper_util::rt::TokioIo;
use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::transport::{Channel, Endpoint};

use super::listen::tune;
use super::tls::Unexpected;
use super::{Credentials, Expect, Fingerprint, IdentityError, Trust, client_config};

const ALPN: [&[u8]; 1] = [b"h2"];
/// From the first packet to the end of the handshake.
const CONNECT_LIMIT_MS: u64 = 4_000;
const KEEPALIVE: Duration = Duration::from_secs(2);
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(3);

/// Why a connection could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// Nothing answers at the address.
    #[error("cannot reach {address}: {cause}; is the server running there, and is the address right?")]
    Unreachable {
        /// The address.
        address: String,
        /// What the system said.
        cause: io::Error,
    },
    /// The other side did not get through the handshake in time.
    #[error("no answer from {address} within {limit_ms} ms; is something else listening there?")]
    Slow {
        /// The address.
        address: String,
        /// The limit.
        limit_ms: u64,
    },
    /// The server is not who it should be.
    #[error("the server at {address} is refused: {why}")]
    Refused {
        /// The address.
        address: String,
        /// The reason.
        why: String,
    },
    /// This side's identity cannot be used.
    #[error(transparent)]
    Own(#[from] IdentityError),
}

/// A channel to a server of the own cluster, showing `credentials`. It connects when used, and again when cut.
///
/// # Errors
/// An address that is not `host:port`.
pub fn connect(address: &str, credentials: &Credentials, expect: Expect) -> Result<Channel, IdentityError> {
    let cluster = expect.cluster.clone().unwrap_or_else(|| credentials.current().name().cluster.clone());
    channel(Dialer {
        address: checked(address)?,
        own: Some(credentials.clone()),
        trust: None,
        expect: expect.of_cluster(cluster),
    })
}

/// Like [`connect`], showing no certificate.
///
/// # Errors
/// An address that is not `host:port`.
pub fn connect_anonymous(address: &str, ca_pem: &str, expect: Expect) -> Result<Channel, IdentityError> {
    channel(Dialer { address: checked(address)?, own: None, trust: Some(Trust::Ca(ca_pem.to_owned())), expect })
}

/// For joining: shows no certificate and believes only the CA with this fingerprint, which the server sends along.
///
/// # Errors
/// An address that is not `host:port`.
pub fn connect_pinned(address: &str, ca: Fingerprint, expect: Expect) -> Result<Channel, IdentityError> {
    channel(Dialer { address: checked(address)?, own: None, trust: Some(Trust::Pinned(ca)), expect })
}

/// Why a call failed before or beneath the RPC itself: nobody there, wrong server, a certificate refused by either side.
/// `None` when the status came from the server's own code.
pub fn explain_transport(status: &tonic::Status) -> Option<String> {
    let mut next = Error::source(status);
    let mut last = None;
    while let Some(error) = next {
        if let Some(dial) = error.downcast_ref::<DialError>() {
            return Some(dial.to_string());
        }
        last = Some(error.to_string());
        next = error.source();
    }
    last.map(|reason| format!("the connection failed: {reason}"))
}

fn checked(address: &str) -> Result<String, IdentityError> {
    let bad = || IdentityError::BadAddress(address.chars().take(256).flat_map(char::escape_default).collect());
    let parsed: Address = address.parse().map_err(|_| bad())?;
    let whole = parsed.port_u16().is_some_and(|port| port != 0) && !parsed.host().is_empty() && !address.contains('@');
    whole.then(|| address.to_owned()).ok_or_else(bad)
}

fn channel(dialer: Dialer) -> Result<Channel, IdentityError> {
    let address = dialer.address.clone();
    channel_over(&address, dialer)
}

/// A channel with the keepalive that every Muster connection has, over streams that `connector` makes.
///
/// # Errors
/// An address that is not `host:port`.
pub fn channel_over<C, S>(address: &str, connector: C) -> Result<Channel, IdentityError>
where
    C: Service<Uri, Response = TokioIo<S>> + Send + 'static,
    C::Future: Send,
    C::Error: Error + Send + Sync + 'static,
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let address = checked(address)?;
    let bad = || IdentityError::BadAddress(address.clone());
    // The scheme towards tonic is http because the connector does the TLS; requests carry https.
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(|_| bad())?;
    let origin: Uri = format!("https://{address}").parse().map_err(|_| bad())?;
    let endpoint = endpoint
        .origin(origin)
        .connect_timeout(Duration::from_millis(CONNECT_LIMIT_MS + 1_000))
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_LIMIT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

#[derive(Debug, Clone)]
struct Dialer {
    address: String,
    own: Option<Credentials>,
    /// `None`: the CA of the own identity, as it is at the time of the call.
    trust: Option<Trust>,
    expect: Expect,
}

impl Dialer {
    async fn dial(self) -> Result<TlsStream<TcpStream>, DialError> {
        let own = self.own.as_ref().map(Credentials::current);
        let trust = match (&self.trust, &own) {
            (Some(trust), _) => trust.clone(),
            (None, Some(own)) => Trust::Ca(own.ca_pem().to_owned()),
            (None, None) => Err(IdentityError::BadPem("the CA certificate"))?,
        };
        let config = client_config(own.as_deref(), &trust, self.expect.clone(), &ALPN)?;
        let name = ServerName::try_from(self.expect.role.dns())
            .map_err(|error| IdentityError::crypto("name the server", error))?;
        let unreachable = |cause| DialError::Unreachable { address: self.address.clone(), cause };
        let work = async {
            let stream = TcpStream::connect(&self.address).await.map_err(unreachable)?;
            tune(&stream);
            let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
            shaken.map_err(|error| match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(tls) => DialError::Refused { address: self.address.clone(), why: tls_reason(tls) },
                None => unreachable(error),
            })
        };
        let slow = || DialError::Slow { address: self.address.clone(), limit_ms: CONNECT_LIMIT_MS };
        tokio::time::timeout(Duration::from_millis(CONNECT_LIMIT_MS), work).await.map_err(|_| slow())?
    }
}

impl Service<Uri> for Dialer {
    type Response = TokioIo<DialedIo>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let dialer = self.clone();
        Box::pin(async move { dialer.dial().await.map(|stream| TokioIo::new(DialedIo(stream))) })
    }
}

/// The client's end of a connection. In TLS 1.3 a server's refusal of our certificate arrives with the first read after
/// the handshake, and HTTP/2 keeps only an error's text: so the reason is put into the text here.
struct DialedIo(TlsStream<TcpStream>);

impl AsyncRead for DialedIo {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf).map_err(|error| {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            match tls.map(tls_reason) {
                Some(reason) => io::Error::new(error.kind(), reason),
                None => error,
            }
        })
    }
}

impl AsyncWrite for DialedIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

fn tls_reason(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(reason) => match reason {
            CertificateError::Other(OtherError(why)) => match why.downcast_ref::<Unexpected>() {
                Some(unexpected) => unexpected.to_string(),
                None => why.to_string(),
            },
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                "its certificate is not from this cluster's CA".to_owned()
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired; renew it there, and check both clocks".to_owned()
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; check both clocks".to_owned()
            }
            other => format!("its certificate is not acceptable: {other}"),
        },
        rustls::Error::AlertReceived(alert) => match alert {
            AlertDescription::CertificateExpired => {
                "the server refused our certificate: it has expired; issue a new one, or join again".to_owned()
            }
            AlertDescription::UnknownCA | AlertDescription::DecryptError => {
                "the server refused our certificate: it is from another cluster's CA".to_owned()
            }
            other => format!("the server refused the connection: {other:?}"),
        },
        rustls::Error::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        other => other.to_string(),
    }
}
