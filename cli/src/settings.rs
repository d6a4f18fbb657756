//! Where the client's settings come from: flag, environment, `./muster.toml`, the user's file, the
//! machine's file.

use crate::error::CliError;
use muster_common::job::file::parse_duration_ms;
use muster_proto::convert::error::ErrorCode;
use muster_runtime::config::{Layers, Origin, Places};
use std::path::{Path, PathBuf};

/// `MUSTER_SERVER`, `MUSTER_IDENTITY`, `MUSTER_TIMEOUT` in the environment.
const KEYS: &[&str] = &["server", "identity", "timeout"];
const SERVERS_MAX: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `host:port` of servers, in the order they are tried.
    pub servers: Vec<String>,
    /// The folder with the caller's certificate and key.
    pub identity: Option<PathBuf>,
    /// How long one call may take with all its tries; `None` = as is usual for it.
    pub timeout_ms: Option<u64>,
}

/// What the command line says.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub server: Option<String>,
    pub identity: Option<String>,
    pub timeout: Option<String>,
    /// In place of the user's file.
    pub config: Option<PathBuf>,
}

pub fn load(flags: &Flags, env: &[(String, String)]) -> Result<Settings, CliError> {
    let variable =
        |name: &str| env.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, value)| value.clone());
    let mut places = Places::standard(variable);
    if let Some(config) = flags.config.clone().or_else(|| variable("MUSTER_CONFIG").map(PathBuf::from)) {
        // A file that may not be looked at is left to the reader, which says so.
        if matches!(config.try_exists(), Ok(false)) {
            let message = format!("the settings file {} does not exist", config.display());
            return Err(
                CliError::new(ErrorCode::ConfigMissing, message).hint("give --config or MUSTER_CONFIG another path")
            );
        }
        places = Places { project: None, user: Some(config), system: None };
    }
    let mut layers = Layers::load(KEYS, &places, env.iter().cloned())?;
    for (key, flag, value) in [
        ("server", "--server", &flags.server),
        ("identity", "--identity", &flags.identity),
        ("timeout", "--timeout", &flags.timeout),
    ] {
        if let Some(value) = value {
            layers.set_flag(key, flag, value)?;
        }
    }
    resolve(&layers)
}

fn resolve(layers: &Layers) -> Result<Settings, CliError> {
    let wrong = |key: &str, why: String| {
        let origin = layers.get(key).map(|setting| setting.origin.to_string()).unwrap_or_default();
        CliError::new(ErrorCode::ConfigInvalid, format!("setting `{key}` from {origin}: {why}"))
    };
    let servers: Vec<String> = layers
        .value("server")
        .unwrap_or_default()
        .split(',')
        .map(str::trim)
        .filter(|server| !server.is_empty())
        .map(str::to_owned)
        .collect();
    if servers.len() > SERVERS_MAX {
        return Err(wrong("server", format!("{} addresses; at most {SERVERS_MAX} are used", servers.len())));
    }
    let identity = layers.get("identity").map(|setting| match &setting.origin {
        // A path in a file is meant relative to that file.
        Origin::Project { path, .. } | Origin::User { path, .. } | Origin::System { path, .. } => {
            path.parent().unwrap_or(Path::new("")).join(&setting.value)
        }
        _ => PathBuf::from(&setting.value),
    });
    let timeout_ms = layers.value("timeout").map(parse_duration_ms).transpose();
    let timeout_ms = timeout_ms.map_err(|error| wrong("timeout", error.to_string()))?;
    Ok(Settings { servers, identity, timeout_ms })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_flag_beats_the_environment_and_that_beats_the_file() {
        let folder = tempfile::tempdir().expect("a temp folder");
        let file = folder.path().join("config.toml");
        std::fs::write(&file, "server = [\"a:1\", \"b:2\"]\nidentity = \"me\"\ntimeout = \"5s\"\n").expect("written");
        let config = env(&[("MUSTER_CONFIG", &file.display().to_string())]);
        let settings = load(&Flags::default(), &config).expect("sound");
        assert_eq!(settings.servers, ["a:1", "b:2"]);
        assert_eq!(settings.identity, Some(folder.path().join("me")));
        assert_eq!(settings.timeout_ms, Some(5000));

        let mut more = config.clone();
        more.extend(env(&[("MUSTER_SERVER", "c:3"), ("MUSTER_TIMEOUT", "7s")]));
        let flags = Flags { timeout: Some("9s".into()), ..Flags::default() };
        let settings = load(&flags, &more).expect("sound");
        assert_eq!((settings.servers, settings.timeout_ms), (vec!["c:3".to_owned()], Some(9000)));

        std::fs::write(&file, "").expect("written");
        assert_eq!(load(&Flags::default(), &config).expect("sound").timeout_ms, None, "nobody said");
    }

    #[test]
    fn a_wrong_value_names_its_origin_and_a_missing_file_is_said() {
        let here = env(&[("XDG_CONFIG_HOME", "/nonexistent"), ("MUSTER_TIMEOUT", "soon")]);
        let error = load(&Flags::default(), &here).expect_err("not a duration");
        assert!(error.text(false).contains("environment MUSTER_TIMEOUT"), "{}", error.text(false));
        let flags = Flags { config: Some("/nonexistent/config.toml".into()), ..Flags::default() };
        assert_eq!(load(&flags, &[]).expect_err("no such file").code(), ErrorCode::ConfigMissing);
    }
}
