//! What can be wrong with a name, a certificate or the files that hold them.

use std::path::PathBuf;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::durable::DurableError;

/// Why an identity was refused.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A cluster, role or principal name with characters that names may not have.
    #[error("`{given}` is not a valid {what}: {why}")]
    BadWord {
        /// Which word.
        what: &'static str,
        /// The word, escaped.
        given: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// Not of the form `muster://<cluster>/<role>/<name>`.
    #[error("`{0}` is not a Muster name; it must be muster://<cluster>/<role>/<name>")]
    BadUri(String),
    /// A role that does not exist.
    #[error("unknown role `{0}`; roles are server, agent, user, admin")]
    BadRole(String),
    /// Not of the form `sha256:<64 hex digits>`.
    #[error("`{0}` is not a certificate fingerprint; it must be sha256: and 64 hex digits")]
    BadFingerprint(String),
    /// A server address that is not `host:port`.
    #[error("`{0}` is not an address; it must be host:port, such as 10.0.0.1:7070")]
    BadAddress(String),
    /// A certificate that carries no Muster name, or more than one.
    #[error("the certificate names nobody of a Muster cluster: {0}")]
    NotMuster(&'static str),
    /// A file is missing, unreadable or too big.
    #[error("{what}: {cause}; {next}")]
    File {
        /// Which file it is.
        what: &'static str,
        /// What happened.
        cause: DurableError,
        /// What to do.
        next: &'static str,
    },
    /// A private key that others on the machine can read.
    #[error("private key {} has mode {mode:04o}: others can read it; run: chmod 600 {}", path.display(), path.display())]
    KeyTooOpen {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Text that should be PEM of a certain kind and is not.
    #[error("{0} is not valid PEM of the expected kind; restore the file or issue it anew")]
    BadPem(&'static str),
    /// The private key belongs to another certificate.
    #[error("the private key does not belong to the certificate of {name}; both must come from one issue or join")]
    KeyMismatch {
        /// The certificate's name.
        name: String,
    },
    /// The certificate's time is over.
    #[error("the certificate of {name} expired at {}; issue a new one, or join again", moment(*.not_after_ms))]
    Expired {
        /// The certificate's name.
        name: String,
        /// When it ended.
        not_after_ms: u64,
    },
    /// The certificate's time has not come.
    #[error("the certificate of {name} is not valid yet; check this machine's clock")]
    NotYetValid {
        /// The certificate's name.
        name: String,
    },
    /// The certificate was signed by another CA than the one beside it.
    #[error("the certificate of {name} was not signed by the CA {ca}; it belongs to another cluster or an older CA")]
    WrongCa {
        /// The certificate's name.
        name: String,
        /// The CA's fingerprint.
        ca: String,
    },
    /// A certificate request that cannot be signed.
    #[error("the certificate request is refused: {0}")]
    BadRequest(String),
    /// A new certificate under another name than the one it should replace.
    #[error("the new certificate is for {got}, not for {had}; an identity is renewed under its own name only")]
    OtherName {
        /// The name in use.
        had: String,
        /// The name in the new certificate.
        got: String,
    },
    /// The cryptographic library refused.
    #[error("cannot {doing}: {cause}")]
    Crypto {
        /// What was tried.
        doing: &'static str,
        /// What the library said.
        cause: String,
    },
}

impl IdentityError {
    pub(super) fn crypto(doing: &'static str, cause: impl ToString) -> Self {
        Self::Crypto { doing, cause: cause.to_string() }
    }
}

/// RFC 3339 for people; a time beyond the calendar is shown as its number.
fn moment(ms: u64) -> String {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    let shown = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|at| at.format(&Rfc3339).ok());
    shown.unwrap_or_else(|| format!("{ms} ms after 1970"))
}
