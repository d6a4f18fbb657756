//! What an operator carries from `muster node token` to `muster agent join`: where the servers are,
//! which CA to believe, and the one-time secret.

use crate::client::NodeTokenReply;
use crate::convert::error::{ErrorCode, ErrorInfo};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// Says what it is, and which version, before anybody decodes it.
const PREFIX: &str = "muster1.";
const BYTES_MAX: usize = 16 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinToken {
    #[serde(rename = "s")]
    pub servers: Vec<String>,
    /// `sha256:...`
    #[serde(rename = "f")]
    pub ca_fingerprint: String,
    #[serde(rename = "k")]
    pub secret: String,
    #[serde(rename = "c")]
    pub cluster_id: String,
}

impl JoinToken {
    pub fn of(reply: &NodeTokenReply) -> Self {
        Self {
            servers: reply.servers.clone(),
            ca_fingerprint: reply.ca_fingerprint.clone(),
            secret: reply.secret.clone(),
            cluster_id: reply.cluster_id.clone(),
        }
    }

    /// As one word.
    pub fn encode(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings always encode");
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(json))
    }

    /// # Errors
    /// [`ErrorCode::Usage`] when the text is no token, or no longer whole.
    pub fn decode(text: &str) -> Result<Self, ErrorInfo> {
        let wrong = |why: &str| {
            ErrorInfo::new(ErrorCode::Usage, format!("this is not a join token: {why}"))
                .hint("make one with: muster node token")
        };
        let text = text.trim();
        let coded = text.strip_prefix(PREFIX).ok_or_else(|| wrong("it does not begin with `muster1.`"))?;
        if coded.len() > BYTES_MAX {
            return Err(wrong("it is far too long"));
        }
        let json = URL_SAFE_NO_PAD.decode(coded).map_err(|_| wrong("it was cut or changed on the way"))?;
        let token: Self = serde_json::from_slice(&json).map_err(|_| wrong("it was cut or changed on the way"))?;
        if token.servers.is_empty() {
            return Err(wrong("it names no server"));
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_trip_and_a_cut_one_is_refused() {
        let token = JoinToken {
            servers: vec!["10.0.0.1:7070".into(), "[::1]:7070".into()],
            ca_fingerprint: "sha256:00".into(),
            secret: "s3cret".into(),
            cluster_id: "c1".into(),
        };
        let text = token.encode();
        assert_eq!(JoinToken::decode(&format!(" {text}\n")).expect("whole"), token);
        for broken in [&text[..text.len() - 2], "muster1.", "hello", &text.replace("muster1", "muster2")] {
            assert_eq!(JoinToken::decode(broken).expect_err(broken).code, ErrorCode::Usage);
        }
    }
}
