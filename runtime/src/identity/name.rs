//! Roles and names.

use std::fmt;
use std::str::FromStr;

use super::IdentityError;

const SCHEME: &str = "muster://";
const LONGEST_WORD: usize = 128;

/// What the holder of a certificate is to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A scheduler server.
    Server,
    /// A node's daemon.
    Agent,
    /// A person or program that submits work.
    User,
    /// A person or program that may change the cluster.
    Admin,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 4] = [Self::Server, Self::Agent, Self::User, Self::Admin];

    /// The word used in names.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Agent => "agent",
            Self::User => "user",
            Self::Admin => "admin",
        }
    }

    /// The DNS name every certificate of this role carries.
    pub fn dns(self) -> String {
        format!("{self}.muster.internal")
    }

    /// Whether holders of this role also accept connections, so that their certificates allow it.
    pub fn accepts_connections(self) -> bool {
        matches!(self, Self::Server | Self::Agent)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let found = Self::ALL.into_iter().find(|role| role.as_str() == text);
        found.ok_or_else(|| IdentityError::BadRole(text.escape_default().to_string()))
    }
}

/// A principal: one name in one role of one cluster.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// The cluster's id.
    pub cluster: String,
    /// The role.
    pub role: Role,
    /// The name within the role.
    pub name: String,
}

impl Name {
    /// A checked name.
    ///
    /// # Errors
    /// See [`check_word`].
    pub fn new(cluster: impl Into<String>, role: Role, name: impl Into<String>) -> Result<Self, IdentityError> {
        let (cluster, name) = (cluster.into(), name.into());
        check_word("cluster id", &cluster)?;
        check_word("name", &name)?;
        Ok(Self { cluster, role, name })
    }

    /// `muster://<cluster>/<role>/<name>`, the form inside certificates.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}/{}", self.cluster, self.role, self.name)
    }

    /// Reads exactly what [`Name::uri`] writes.
    ///
    /// # Errors
    /// Anything else: another scheme, more or fewer parts, an unknown role, a forbidden character.
    pub fn from_uri(uri: &str) -> Result<Self, IdentityError> {
        let bad = || IdentityError::BadUri(uri.escape_default().to_string());
        let parts: Vec<&str> = uri.strip_prefix(SCHEME).ok_or_else(bad)?.split('/').collect();
        let [cluster, role, name] = parts[..] else {
            return Err(bad());
        };
        Self::new(cluster, role.parse()?, name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.role, self.name)
    }
}

/// Checks a cluster id or a principal's name: 1 to 128 of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
///
/// # Errors
/// [`IdentityError::BadWord`] with the rule that is broken; `what` says which word it is.
pub fn check_word(what: &'static str, word: &str) -> Result<(), IdentityError> {
    let why = if word.is_empty() {
        "it is empty"
    } else if word.len() > LONGEST_WORD {
        "it is longer than 128 bytes"
    } else if !word.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        "it must begin with a letter or digit"
    } else if !word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')) {
        "only letters, digits, dot, underscore and hyphen are allowed"
    } else {
        return Ok(());
    };
    let given: String = word.chars().take(LONGEST_WORD).flat_map(char::escape_default).collect();
    Err(IdentityError::BadWord { what, given, why })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_role_survives_its_uri_and_nothing_else_is_a_name() {
        for role in Role::ALL {
            let name = Name::new("c1", role, "node-7.rack_2").expect("valid");
            assert_eq!(Name::from_uri(&name.uri()).expect("own form"), name);
        }
        for bad in [
            "muster://c1/server",
            "muster://c1/server/a/b",
            "muster://c1/server/a/",
            "muster://c1/servers/a",
            "muster://c1/Server/a",
            "muster://c1/server/",
            "muster:///server/a",
            "MUSTER://c1/server/a",
            "https://c1/server/a",
            "muster://c1/server/a?x",
            "muster://c1/server/a%20b",
            "muster://c1/server/a\n",
            " muster://c1/server/a",
            "muster://c1/ca",
        ] {
            assert!(Name::from_uri(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn words_with_control_characters_are_refused_and_shown_escaped() {
        let error = Name::new("c1", Role::User, "ada\u{1b}[31m").expect_err("control character").to_string();
        assert!(error.contains("\\u{1b}") && !error.contains('\u{1b}'), "{error}");
        assert!(check_word("name", &"x".repeat(129)).is_err());
        assert!(check_word("name", "-rf").is_err());
        check_word("name", &"x".repeat(128)).expect("just fits");
    }
}
