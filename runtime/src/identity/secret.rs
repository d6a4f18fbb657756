//! Secrets that are shown once, such as join tokens.

use rustls::crypto::ring::default_provider;

use super::IdentityError;

const SECRET_BYTES: usize = 32;

/// 256 random bits as 64 hexadecimal digits.
///
/// # Errors
/// A failure of the random source.
pub fn random_secret() -> Result<String, IdentityError> {
    let mut bytes = [0; SECRET_BYTES];
    let filled = default_provider().secure_random.fill(&mut bytes);
    filled.map_err(|_| IdentityError::crypto("make a secret", "the random source failed"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_secrets_are_alike() {
        let (one, other) = (random_secret().unwrap(), random_secret().unwrap());
        assert_eq!((one.len(), one == other), (64, false));
    }
}
