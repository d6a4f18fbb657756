//! The cluster's certificate authority.

use std::net::IpAddr;
use std::path::Path;

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use time::OffsetDateTime;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::folder::{CA_CERT_FILE, read_key, read_pem, write_pair};
use super::peer::uris;
use super::tls::{certificates, provider};
use super::{Fingerprint, Identity, IdentityError, Name, check_word};

/// Milliseconds of a day.
pub const DAY_MS: u64 = 86_400_000;
/// How long a certificate of a server, agent or user is good unless another time is asked for.
pub const LEAF_VALID_MS: u64 = 90 * DAY_MS;
/// How long a CA is good.
pub const CA_VALID_MS: u64 = 3_650 * DAY_MS;

/// Certificates begin this much before now, for machines whose clocks are behind.
const BACKDATE_MS: u64 = 5 * 60_000;
const CA_KEY_FILE: &str = "ca.key";
const MOST_SANS: usize = 64;
const LARGEST_REQUEST_BYTES: usize = 16 << 10;

/// Further names under which a certificate's holder may be reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sans {
    /// Host names.
    pub dns: Vec<String>,
    /// Addresses.
    pub ip: Vec<IpAddr>,
}

/// The CA: its certificate and its key.
pub struct Authority {
    cluster: String,
    key: KeyPair,
    pem: String,
    der: CertificateDer<'static>,
    not_before_ms: u64,
    not_after_ms: u64,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({}, {})", self.cluster, self.fingerprint())
    }
}

impl Authority {
    /// Makes the CA of a new cluster, good for ten years.
    ///
    /// # Errors
    /// A cluster id that is no valid word, or a failure of the random source.
    pub fn create(cluster: &str, now_ms: u64) -> Result<Self, IdentityError> {
        check_word("cluster id", cluster)?;
        let key = new_key()?;
        let mut params = bare_params(now_ms, now_ms.saturating_add(CA_VALID_MS))?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::OrganizationName, cluster);
        params.distinguished_name.push(DnType::CommonName, "Muster CA");
        params.subject_alt_names = vec![uri_san(&ca_uri(cluster))?];
        let certificate =
            params.self_signed(&key).map_err(|error| IdentityError::crypto("sign the CA certificate", error))?;
        Self::from_pem(&certificate.pem(), &key.serialize_pem())
    }

    /// Takes a CA that [`Authority::create`] made. `cert_pem` may hold the certificates of several CAs while the CA is being
    /// changed: the key tells which of them signs, and who is issued an identity believes all of them.
    ///
    /// # Errors
    /// Not PEM, not a Muster CA, or a key of another certificate.
    pub fn from_pem(cert_pem: &str, key_pem: &str) -> Result<Self, IdentityError> {
        let ders = certificates(cert_pem, "the CA certificate")?;
        let key = KeyPair::from_pem(key_pem).map_err(|_| IdentityError::BadPem("the CA key"))?;
        let mut cluster = String::new();
        for der in ders {
            let ca = CaCertificate::read(&der)?;
            if ca.public_key == key.der_bytes() {
                let CaCertificate { cluster, not_before_ms, not_after_ms, .. } = ca;
                return Ok(Self { cluster, key, pem: cert_pem.to_owned(), der, not_before_ms, not_after_ms });
            }
            cluster = ca.cluster;
        }
        Err(IdentityError::KeyMismatch { name: format!("the CA of cluster {cluster}") })
    }

    /// Loads `ca.crt` and `ca.key` from a folder.
    ///
    /// # Errors
    /// A file that is missing, unreadable or open to others, an expired CA, and what [`Authority::from_pem`] refuses.
    pub fn load(folder: &Path, now_ms: u64) -> Result<Self, IdentityError> {
        let cert = read_pem(&folder.join(CA_CERT_FILE), "CA certificate")?;
        let loaded = Self::from_pem(&cert, &read_key(&folder.join(CA_KEY_FILE), "CA key")?)?;
        loaded.check(now_ms)?;
        Ok(loaded)
    }

    /// Writes `ca.crt` and `ca.key` (mode 0600) into a folder, key first.
    ///
    /// # Errors
    /// A folder or file that cannot be written.
    pub fn save(&self, folder: &Path) -> Result<(), IdentityError> {
        write_pair(folder, (CA_KEY_FILE, &self.key_pem()), &[(CA_CERT_FILE, &self.pem)])
    }

    /// The cluster it speaks for.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its certificate, among others while the CA is being changed.
    pub fn ca_pem(&self) -> &str {
        &self.pem
    }

    /// When it begins.
    pub fn not_before_ms(&self) -> u64 {
        self.not_before_ms
    }

    /// When it ends, and with it every certificate that it signed.
    pub fn not_after_ms(&self) -> u64 {
        self.not_after_ms
    }

    /// Its private key: keep it off logs and wires.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }

    /// What a join token carries to recognise it by.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.der)
    }

    /// Makes a key and a certificate for `name`, good for `valid_ms` (never longer than the CA itself).
    ///
    /// # Errors
    /// A name of another cluster, invalid further names, an expired CA.
    pub fn issue(&self, name: &Name, sans: &Sans, now_ms: u64, valid_ms: u64) -> Result<Identity, IdentityError> {
        let key = new_key()?;
        let cert_pem = self.certify(&key, name, sans, now_ms, valid_ms)?;
        Identity::assemble(&cert_pem, &key.serialize_pem(), &self.pem)
    }

    /// Signs a certificate request. Nothing of the request is taken over but its public key, whose possession it proves:
    /// the name and all further names are the caller's.
    ///
    /// # Errors
    /// A request that is too large, malformed or not signed by its own key, and what [`Authority::issue`] refuses.
    pub fn sign(
        &self,
        csr_pem: &str,
        name: &Name,
        sans: &Sans,
        now_ms: u64,
        valid_ms: u64,
    ) -> Result<String, IdentityError> {
        if csr_pem.len() > LARGEST_REQUEST_BYTES {
            return Err(IdentityError::BadRequest(format!("it is larger than {LARGEST_REQUEST_BYTES} bytes")));
        }
        let request = CertificateSigningRequestParams::from_pem(csr_pem)
            .map_err(|error| IdentityError::BadRequest(error.to_string()))?;
        self.certify(&request.public_key, name, sans, now_ms, valid_ms)
    }

    fn certify(
        &self,
        public_key: &impl PublicKeyData,
        name: &Name,
        sans: &Sans,
        now_ms: u64,
        valid_ms: u64,
    ) -> Result<String, IdentityError> {
        self.check(now_ms)?;
        // The fields are public, so they are checked here and not only where names are made.
        let name = Name::new(name.cluster.clone(), name.role, name.name.clone())?;
        if name.cluster != self.cluster {
            return Err(IdentityError::BadRequest(format!(
                "{name} is of cluster {}, this CA of cluster {}",
                name.cluster, self.cluster
            )));
        }
        let ends_ms = now_ms.saturating_add(valid_ms).min(self.not_after_ms);
        let mut params = bare_params(now_ms, ends_ms)?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if name.role.accepts_connections() {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
        }
        params.distinguished_name.push(DnType::OrganizationName, name.cluster.as_str());
        // The common name may hold 64 characters only and decides nothing: the URI does.
        params.distinguished_name.push(DnType::CommonName, name.role.as_str());
        params.subject_alt_names = all_sans(&name, sans)?;
        params.use_authority_key_identifier_extension = true;
        let issuer = Issuer::from_ca_cert_der(&self.der, &self.key)
            .map_err(|error| IdentityError::crypto("use the CA certificate", error))?;
        let certificate = params
            .signed_by(public_key, &issuer)
            .map_err(|error| IdentityError::crypto("sign the certificate", error))?;
        Ok(certificate.pem())
    }

    fn check(&self, now_ms: u64) -> Result<(), IdentityError> {
        if now_ms > self.not_after_ms {
            let name = format!("the CA of cluster {}", self.cluster);
            return Err(IdentityError::Expired { name, not_after_ms: self.not_after_ms });
        }
        Ok(())
    }
}

/// What is needed of a CA's certificate.
struct CaCertificate {
    cluster: String,
    public_key: Vec<u8>,
    not_before_ms: u64,
    not_after_ms: u64,
}

impl CaCertificate {
    fn read(der: &[u8]) -> Result<Self, IdentityError> {
        let (_, parsed) = X509Certificate::from_der(der).map_err(|_| IdentityError::BadPem("the CA certificate"))?;
        let cluster = match &uris(&parsed)?[..] {
            [uri] => uri.strip_prefix("muster://").and_then(|rest| rest.strip_suffix("/ca")),
            _ => None,
        };
        let cluster = cluster.filter(|_| parsed.is_ca()).ok_or(IdentityError::NotMuster("it is no Muster CA"))?;
        check_word("cluster id", cluster)?;
        let ms = |seconds: i64| u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000);
        Ok(Self {
            cluster: cluster.to_owned(),
            public_key: parsed.public_key().subject_public_key.data.to_vec(),
            not_before_ms: ms(parsed.validity().not_before.timestamp()),
            not_after_ms: ms(parsed.validity().not_after.timestamp()),
        })
    }
}

pub(super) fn new_key() -> Result<KeyPair, IdentityError> {
    KeyPair::generate().map_err(|error| IdentityError::crypto("make a private key", error))
}

fn ca_uri(cluster: &str) -> String {
    format!("muster://{cluster}/ca")
}

fn bare_params(now_ms: u64, ends_ms: u64) -> Result<CertificateParams, IdentityError> {
    let mut serial = [0; 16];
    let random = provider().secure_random;
    random.fill(&mut serial).map_err(|_| IdentityError::crypto("draw a serial number", "no randomness"))?;
    // A serial is a positive integer.
    serial[0] &= 0x7f;
    let mut params = CertificateParams::default();
    params.not_before = date(now_ms.saturating_sub(BACKDATE_MS))?;
    params.not_after = date(ends_ms)?;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.distinguished_name = DistinguishedName::new();
    Ok(params)
}

fn date(ms: u64) -> Result<OffsetDateTime, IdentityError> {
    let seconds = i64::try_from(ms / 1_000).unwrap_or(i64::MAX);
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|error| IdentityError::crypto("write a date", error))
}

fn uri_san(uri: &str) -> Result<SanType, IdentityError> {
    let text = uri.try_into().map_err(|error: rcgen::Error| IdentityError::crypto("write a URI name", error))?;
    Ok(SanType::URI(text))
}

fn all_sans(name: &Name, sans: &Sans) -> Result<Vec<SanType>, IdentityError> {
    if sans.dns.len() + sans.ip.len() > MOST_SANS {
        return Err(IdentityError::BadRequest(format!("more than {MOST_SANS} further names")));
    }
    let mut all = vec![uri_san(&name.uri())?];
    let own = name.role.dns();
    for dns in std::iter::once(&own).chain(&sans.dns) {
        let refused = || IdentityError::BadRequest(format!("`{}` is not a host name", dns.escape_default()));
        rustls_pki_types::DnsName::try_from(dns.as_str()).map_err(|_| refused())?;
        all.push(SanType::DnsName(dns.as_str().try_into().map_err(|_| refused())?));
    }
    all.extend(sans.ip.iter().map(|ip| SanType::IpAddress(*ip)));
    Ok(all)
}
