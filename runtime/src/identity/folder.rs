//! An identity in memory and in its folder.

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rcgen::{KeyPair, PublicKeyData};
use rustls::CertificateError;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use tokio::sync::watch;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::peer::sans;
use super::tls::{certificates, client_verifier};
use super::{Fingerprint, IdentityError, Name, Peer, Sans};
use crate::durable::{DurableError, create_folder, put_in_place, read_limited, write_atomic, write_private};

pub(super) const CA_CERT_FILE: &str = "ca.crt";
const CERT_FILE: &str = "identity.crt";
const KEY_FILE: &str = "identity.key";
/// The key of a certificate that is being replaced.
const NEXT_KEY_FILE: &str = "identity.key.next";
const PEM_LIMIT_BYTES: u64 = 64 << 10;

/// One save at a time: two beside each other could leave one's certificate with the other's key.
static SAVING: Mutex<()> = Mutex::new(());

/// A certificate, its private key and the CA that it belongs to.
pub struct Identity {
    name: Name,
    peer: Peer,
    cert_pem: String,
    key_pem: String,
    ca_pem: String,
    leaf: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    ca: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({}, {})", self.name.uri(), self.peer.fingerprint)
    }
}

impl Identity {
    /// Puts an identity together and checks that its parts belong together and that it is valid now. `ca_pem` may hold
    /// several CA certificates while the CA is being changed.
    ///
    /// # Errors
    /// Not PEM, no Muster name, a key of another certificate, another CA, or outside its time.
    pub fn from_pem(cert_pem: &str, key_pem: &str, ca_pem: &str, now_ms: u64) -> Result<Self, IdentityError> {
        let identity = Self::assemble(cert_pem, key_pem, ca_pem)?;
        identity.check(now_ms)?;
        Ok(identity)
    }

    /// Like [`Identity::from_pem`] without the checks against time and CA.
    pub(super) fn assemble(cert_pem: &str, key_pem: &str, ca_pem: &str) -> Result<Self, IdentityError> {
        let leaf = certificates(cert_pem, "the certificate")?.swap_remove(0);
        let ca = certificates(ca_pem, "the CA certificate")?;
        let bad_key = || IdentityError::BadPem("the private key");
        let key = PrivateKeyDer::from_pem_slice(key_pem.as_bytes()).map_err(|_| bad_key())?;
        let peer = Peer::from_der(&leaf)?;
        let name = peer.as_name();
        let public = KeyPair::from_pem(key_pem).map_err(|_| bad_key())?;
        let (_, parsed) = X509Certificate::from_der(&leaf).map_err(|_| IdentityError::BadPem("the certificate"))?;
        if parsed.public_key().subject_public_key.data.as_ref() != public.der_bytes() {
            return Err(IdentityError::KeyMismatch { name: name.to_string() });
        }
        Ok(Self {
            name,
            peer,
            cert_pem: cert_pem.to_owned(),
            key_pem: key_pem.to_owned(),
            ca_pem: ca_pem.to_owned(),
            leaf,
            key,
            ca,
        })
    }

    /// Checks that its CA signed it and that it is valid at `now_ms`.
    ///
    /// # Errors
    /// [`IdentityError::Expired`], [`IdentityError::NotYetValid`] or [`IdentityError::WrongCa`].
    pub fn check(&self, now_ms: u64) -> Result<(), IdentityError> {
        let verifier = client_verifier(&self.ca)?;
        let now = UnixTime::since_unix_epoch(Duration::from_millis(now_ms));
        let Err(error) = verifier.verify_client_cert(&self.leaf, &[], now) else {
            return Ok(());
        };
        let name = self.name.to_string();
        Err(match error {
            rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
                IdentityError::Expired { name, not_after_ms: self.peer.not_after_ms }
            }
            rustls::Error::InvalidCertificate(
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
            ) => IdentityError::NotYetValid { name },
            rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer | CertificateError::BadSignature) => {
                IdentityError::WrongCa { name, ca: self.ca_fingerprint().to_string() }
            }
            other => IdentityError::crypto("verify the certificate", other),
        })
    }

    /// Loads `identity.crt`, `identity.key` and `ca.crt` from a folder.
    ///
    /// # Errors
    /// A file that is missing or unreadable, a key that others can read, and what [`Identity::from_pem`] refuses.
    pub fn load(folder: &Path, now_ms: u64) -> Result<Self, IdentityError> {
        let identity = Self::read(folder)?;
        identity.check(now_ms)?;
        Ok(identity)
    }

    /// Like [`Identity::load`] without the checks against time and CA. A [`Identity::save`] that was cut off between the
    /// certificate and its key is finished.
    ///
    /// # Errors
    /// A file that is missing or unreadable, a key that others can read, parts that do not belong together.
    pub fn read(folder: &Path) -> Result<Self, IdentityError> {
        Self::read_with(folder, KEY_FILE).or_else(|error| {
            let identity = Self::read_with(folder, NEXT_KEY_FILE).map_err(|_| error)?;
            // Who may only read goes on with what is there; the next to write finishes it.
            take_next_key(folder).ok();
            Ok(identity)
        })
    }

    fn read_with(folder: &Path, key_file: &str) -> Result<Self, IdentityError> {
        let cert = read_pem(&folder.join(CERT_FILE), "certificate")?;
        let key = read_key(&folder.join(key_file), "private key")?;
        let ca = read_pem(&folder.join(CA_CERT_FILE), "CA certificate")?;
        Self::assemble(&cert, &key, &ca)
    }

    /// Writes the three files, each whole, the key with mode 0600. The key waits beside the old one until the certificate is
    /// there: cut off anywhere, [`Identity::load`] finds the identity of before or this one, unless the CA changes too. Blocks.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        let _alone = SAVING.lock().unwrap_or_else(PoisonError::into_inner);
        create_folder(folder).map_err(unwritten)?;
        // A key left beside by a save that was cut off may be the only one to the certificate that is there.
        if Self::read_with(folder, NEXT_KEY_FILE).is_ok() {
            take_next_key(folder).map_err(unwritten)?;
        }
        write_private(&folder.join(NEXT_KEY_FILE), self.key_pem.as_bytes()).map_err(unwritten)?;
        let ca = folder.join(CA_CERT_FILE);
        if !read_pem(&ca, "CA certificate").is_ok_and(|there| there == self.ca_pem) {
            write_atomic(&ca, self.ca_pem.as_bytes()).map_err(unwritten)?;
        }
        write_atomic(&folder.join(CERT_FILE), self.cert_pem.as_bytes()).map_err(unwritten)?;
        take_next_key(folder).map_err(unwritten)
    }

    /// Whose it is.
    pub fn name(&self) -> &Name {
        &self.name
    }

    /// Itself, as others see it.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The certificate.
    pub fn cert_pem(&self) -> &str {
        &self.cert_pem
    }

    /// The private key: keep it off logs and wires.
    pub fn key_pem(&self) -> &str {
        &self.key_pem
    }

    /// The CA certificate, or several.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// When the certificate begins; 0 when that cannot be read.
    pub fn not_before_ms(&self) -> u64 {
        let Ok((_, parsed)) = X509Certificate::from_der(&self.leaf) else { return 0 };
        u64::try_from(parsed.validity().not_before.timestamp()).unwrap_or(0).saturating_mul(1_000)
    }

    /// When the certificate ends.
    pub fn not_after_ms(&self) -> u64 {
        self.peer.not_after_ms
    }

    /// Further names in the certificate, for who issues its holder another.
    pub fn sans(&self) -> Sans {
        X509Certificate::from_der(&self.leaf).map(|(_, parsed)| sans(&parsed, self.name.role)).unwrap_or_default()
    }

    /// When the certificate of the CA that signed it ends, and with it every one it signed; 0 when that cannot be read.
    pub fn ca_not_after_ms(&self) -> u64 {
        let Ok((_, parsed)) = X509Certificate::from_der(self.issuer()) else { return 0 };
        u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0).saturating_mul(1_000)
    }

    /// The fingerprint of the CA that signed it.
    pub fn ca_fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.issuer())
    }

    /// Whether it believes who is signed by the CA with this fingerprint.
    pub fn believes(&self, ca: Fingerprint) -> bool {
        self.ca.iter().any(|der| Fingerprint::of(der) == ca)
    }

    /// The CA that signed it; the first one when none did.
    fn issuer(&self) -> &CertificateDer<'static> {
        // In its last moment it is valid, whenever this is asked.
        let last = UnixTime::since_unix_epoch(Duration::from_millis(self.peer.not_after_ms));
        let signed = |ca: &&CertificateDer<'static>| {
            let known = client_verifier(std::slice::from_ref(*ca));
            known.is_ok_and(|known| known.verify_client_cert(&self.leaf, &[], last).is_ok())
        };
        self.ca.iter().find(signed).unwrap_or(&self.ca[0])
    }

    pub(super) fn ca_ders(&self) -> &[CertificateDer<'static>] {
        &self.ca
    }

    /// The certificate and the CA after it, so that one who knows only the CA's fingerprint can check it.
    pub(super) fn chain(&self) -> Vec<CertificateDer<'static>> {
        std::iter::once(&self.leaf).chain(&self.ca).cloned().collect()
    }

    pub(super) fn key_der(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

/// The identity in use, replaceable while listeners and channels run: new connections use the new one.
#[derive(Debug, Clone)]
pub struct Credentials(Arc<watch::Sender<Arc<Identity>>>);

impl Credentials {
    /// Starts with this identity.
    pub fn new(identity: Identity) -> Self {
        Self(Arc::new(watch::Sender::new(Arc::new(identity))))
    }

    /// The identity in use.
    pub fn current(&self) -> Arc<Identity> {
        self.0.borrow().clone()
    }

    /// Uses a renewed identity from now on.
    ///
    /// # Errors
    /// One under another name.
    pub fn replace(&self, identity: Identity) -> Result<(), IdentityError> {
        let had = self.current().name.clone();
        if identity.name != had {
            return Err(IdentityError::OtherName { had: had.uri(), got: identity.name.uri() });
        }
        self.0.send_replace(Arc::new(identity));
        Ok(())
    }
}

pub(super) fn read_pem(path: &Path, what: &'static str) -> Result<String, IdentityError> {
    let bytes = read_limited(path, PEM_LIMIT_BYTES).map_err(|cause| IdentityError::File {
        what,
        next: match cause {
            DurableError::Missing { .. } => "create an identity here first, or name its folder",
            DurableError::Denied { .. } => "run as the owner of the file",
            _ => "restore the file or issue it anew",
        },
        cause,
    })?;
    String::from_utf8(bytes).map_err(|_| IdentityError::BadPem(what))
}

pub(super) fn read_key(path: &Path, what: &'static str) -> Result<String, IdentityError> {
    let text = read_pem(path, what)?;
    let mode = std::fs::metadata(path).map_or(0, |data| data.permissions().mode() & 0o777);
    if mode & 0o077 != 0 {
        return Err(IdentityError::KeyTooOpen { path: path.to_owned(), mode });
    }
    Ok(text)
}

/// Writes a key and then what goes with it, where none was before.
pub(super) fn write_pair(folder: &Path, key: (&str, &str), rest: &[(&str, &str)]) -> Result<(), IdentityError> {
    create_folder(folder).map_err(unwritten)?;
    write_private(&folder.join(key.0), key.1.as_bytes()).map_err(unwritten)?;
    for (file, text) in rest {
        write_atomic(&folder.join(file), text.as_bytes()).map_err(unwritten)?;
    }
    Ok(())
}

/// The key that waits beside takes its place.
fn take_next_key(folder: &Path) -> Result<(), DurableError> {
    match put_in_place(&folder.join(NEXT_KEY_FILE), &folder.join(KEY_FILE)) {
        // Whoever loads the folder does the same, and came first.
        Err(error) if error.is_missing() => Ok(()),
        done => done,
    }
}

fn unwritten(cause: DurableError) -> IdentityError {
    IdentityError::File { what: "identity folder", cause, next: "check the folder's owner and free space" }
}
