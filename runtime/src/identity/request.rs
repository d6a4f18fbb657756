//! The joining side: a key that never leaves the machine and the request to certify it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::authority::new_key;
use super::{Identity, IdentityError};

/// A fresh private key and its certificate request.
pub struct KeyRequest {
    key: KeyPair,
    csr_pem: String,
}

impl std::fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KeyRequest")
    }
}

impl KeyRequest {
    /// Makes the key. The request carries no name: the signer chooses it.
    ///
    /// # Errors
    /// A failure of the random source.
    pub fn new() -> Result<Self, IdentityError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).and_then(|csr| csr.pem());
        let csr_pem = csr.map_err(|error| IdentityError::crypto("write the certificate request", error))?;
        Ok(Self { key, csr_pem })
    }

    /// What to send to the signer.
    pub fn csr_pem(&self) -> &str {
        &self.csr_pem
    }

    /// Puts key and certificate together, once the signer has answered.
    ///
    /// # Errors
    /// A certificate for another key, of another CA, or outside its time.
    pub fn finish(self, cert_pem: &str, ca_pem: &str, now_ms: u64) -> Result<Identity, IdentityError> {
        Identity::from_pem(cert_pem, &self.key.serialize_pem(), ca_pem, now_ms)
    }
}
