//! What a verified certificate says about the other side.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{IdentityError, Name, Role, Sans};

const PREFIX: &str = "sha256:";

/// SHA-256 of a certificate's DER form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    /// Of this certificate.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let bad = || IdentityError::BadFingerprint(text.chars().take(80).flat_map(char::escape_default).collect());
        let digits = text.strip_prefix(PREFIX).ok_or_else(bad)?.as_bytes();
        let mut bytes = [0; 32];
        if digits.len() != bytes.len() * 2 {
            return Err(bad());
        }
        let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|value| u8::try_from(value).ok());
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            let (high, low) = (digit(pair[0]).ok_or_else(bad)?, digit(pair[1]).ok_or_else(bad)?);
            *byte = high << 4 | low;
        }
        Ok(Self(bytes))
    }
}

/// The holder of a certificate. Whether the certificate is to be believed is TLS's business, before this.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// The cluster's id.
    pub cluster: String,
    /// The role.
    pub role: Role,
    /// The name within the role.
    pub name: String,
    /// The certificate's own fingerprint.
    pub fingerprint: Fingerprint,
    /// When the certificate ends; check it on long-lived connections.
    pub not_after_ms: u64,
}

impl Peer {
    /// Reads the one Muster name of a certificate.
    ///
    /// # Errors
    /// Not a certificate, a CA certificate, no URI or more than one, or a URI that is not a Muster name.
    pub fn from_der(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::NotMuster("it is not an X.509 certificate"))?;
        if !rest.is_empty() {
            return Err(IdentityError::NotMuster("bytes follow the certificate"));
        }
        if certificate.is_ca() {
            return Err(IdentityError::NotMuster("it is a CA certificate"));
        }
        let uris = uris(&certificate)?;
        let [uri] = uris[..] else {
            return Err(IdentityError::NotMuster("it must carry exactly one URI name"));
        };
        let Name { cluster, role, name } = Name::from_uri(uri)?;
        let ends_s = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or(0);
        let not_after_ms = ends_s.saturating_mul(1_000);
        Ok(Self { cluster, role, name, fingerprint: Fingerprint::of(der), not_after_ms })
    }

    /// Whether it holds this role.
    pub fn is(&self, role: Role) -> bool {
        self.role == role
    }

    /// Whether it is exactly this principal.
    pub fn is_named(&self, role: Role, name: &str) -> bool {
        self.role == role && self.name == name
    }

    /// Whether its certificate's time is over.
    pub fn expired(&self, now_ms: u64) -> bool {
        now_ms > self.not_after_ms
    }

    /// Its name alone.
    pub fn as_name(&self) -> Name {
        Name { cluster: self.cluster.clone(), role: self.role, name: self.name.clone() }
    }
}

pub(super) fn uris<'a>(certificate: &'a X509Certificate<'_>) -> Result<Vec<&'a str>, IdentityError> {
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| IdentityError::NotMuster("its alternative names are malformed or repeated"))?
        .ok_or(IdentityError::NotMuster("it carries no alternative names"))?;
    let uris = names.value.general_names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some(*uri),
        _ => None,
    });
    Ok(uris.collect())
}

/// What a certificate carries beside its Muster name and its role's host name.
pub(super) fn sans(certificate: &X509Certificate<'_>, role: Role) -> Sans {
    let mut sans = Sans::default();
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return sans };
    for name in &names.value.general_names {
        match name {
            GeneralName::DNSName(dns) if *dns != role.dns() => sans.dns.push((*dns).to_owned()),
            GeneralName::IPAddress(bytes) => sans.ip.extend(ip_of(bytes)),
            _ => {}
        }
    }
    sans
}

fn ip_of(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_survives_its_text_and_near_misses_do_not() {
        let print = Fingerprint::of(b"certificate");
        let text = print.to_string();
        assert_eq!(text.parse::<Fingerprint>().expect("own form"), print);
        for bad in
            [&text[1..], &text[..text.len() - 1], &text.replace("sha256", "sha512"), &format!("{text}0"), "sha256:é"]
        {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
        assert!(text.replacen(|c: char| c.is_ascii_hexdigit(), "+", 5).parse::<Fingerprint>().is_err());
    }
}
