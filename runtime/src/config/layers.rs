//! Single settings from several places: flag, environment, project file, user file, system file, built-in default.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use toml::de::{DeTable, DeValue};

use super::file::{ConfigError, mistake, nearest, read_text};

const VARIABLE_PREFIX: &str = "MUSTER_";

/// Where a value came from; the order is the order of strength.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A command-line flag.
    Flag {
        /// The flag as typed, such as `--server`.
        name: String,
    },
    /// An environment variable.
    Env {
        /// Its name.
        name: String,
    },
    /// The project's file, `./muster.toml`.
    Project {
        /// The file.
        path: PathBuf,
        /// The line of the value.
        line: usize,
    },
    /// The user's file.
    User {
        /// The file.
        path: PathBuf,
        /// The line of the value.
        line: usize,
    },
    /// The machine's file.
    System {
        /// The file.
        path: PathBuf,
        /// The line of the value.
        line: usize,
    },
    /// Built in.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag { name } => write!(f, "flag {name}"),
            Self::Env { name } => write!(f, "environment {name}"),
            Self::Project { path, line } | Self::User { path, line } | Self::System { path, line } => {
                write!(f, "{}:{line}", path.display())
            }
            Self::Default => f.write_str("default"),
        }
    }
}

/// A value and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The value as text; lists are joined by commas.
    pub value: String,
    /// Its origin.
    pub origin: Origin,
}

/// The files that are looked at; one that does not exist is skipped.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Strongest: the project's.
    pub project: Option<PathBuf>,
    /// The user's.
    pub user: Option<PathBuf>,
    /// Weakest: the machine's.
    pub system: Option<PathBuf>,
}

impl Places {
    /// `./muster.toml`, `$XDG_CONFIG_HOME/muster/config.toml` (or under `$HOME/.config`), `/etc/muster/config.toml`.
    pub fn standard(variable: impl Fn(&str) -> Option<String>) -> Self {
        let set = |name: &str| variable(name).filter(|value| Path::new(value).is_absolute()).map(PathBuf::from);
        let home = set("XDG_CONFIG_HOME").or_else(|| set("HOME").map(|home| home.join(".config")));
        Self {
            project: Some(PathBuf::from("muster.toml")),
            user: home.map(|folder| folder.join("muster").join("config.toml")),
            system: Some(PathBuf::from("/etc/muster/config.toml")),
        }
    }
}

/// All values of all known settings, each with its origin.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// Per key, strongest first.
    values: BTreeMap<String, Vec<Setting>>,
}

impl Layers {
    /// Gathers the settings `keys` (dotted, such as `server.address`) from the files of `places` and from `env`, where the
    /// variable of `server.address` is `MUSTER_SERVER_ADDRESS`. Variables that belong to no key are left alone.
    ///
    /// # Errors
    /// An unreadable file, or a [`super::Mistake`]: not TOML, an unknown key, or a table where a value belongs.
    pub fn load(
        keys: &[&str],
        places: &Places,
        env: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, ConfigError> {
        let values = keys.iter().map(|key| ((*key).to_owned(), Vec::new())).collect();
        let mut layers = Self { values };
        let variables: BTreeMap<String, String> =
            keys.iter().map(|key| (variable_of(key), (*key).to_owned())).collect();
        for (name, value) in env {
            if let Some(key) = variables.get(&name).filter(|_| !value.is_empty()) {
                layers.put(key, value, Origin::Env { name })?;
            }
        }
        type MakeOrigin = fn(PathBuf, usize) -> Origin;
        let files: [(&Option<PathBuf>, MakeOrigin); 3] = [
            (&places.project, |path, line| Origin::Project { path, line }),
            (&places.user, |path, line| Origin::User { path, line }),
            (&places.system, |path, line| Origin::System { path, line }),
        ];
        for (path, origin) in files {
            if let Some(path) = path {
                layers.read(path, origin)?;
            }
        }
        Ok(layers)
    }

    /// Puts a flag's value on top. `flag` is its spelling, such as `--server`.
    ///
    /// # Errors
    /// A key that [`Layers::load`] was not given.
    pub fn set_flag(&mut self, key: &str, flag: &str, value: impl Into<String>) -> Result<(), ConfigError> {
        self.put(key, value.into(), Origin::Flag { name: flag.to_owned() })
    }

    /// Puts a built-in value below all others.
    ///
    /// # Errors
    /// A key that [`Layers::load`] was not given.
    pub fn set_default(&mut self, key: &str, value: impl Into<String>) -> Result<(), ConfigError> {
        self.put(key, value.into(), Origin::Default)
    }

    /// The strongest value of a setting.
    pub fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key)?.first()
    }

    /// The strongest value's text.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.get(key).map(|setting| setting.value.as_str())
    }

    /// Every value of a setting, strongest first.
    pub fn every(&self, key: &str) -> &[Setting] {
        self.values.get(key).map_or(&[], Vec::as_slice)
    }

    /// All settings that have a value, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.values.iter().filter_map(|(key, all)| Some((key.as_str(), all.first()?)))
    }

    fn put(&mut self, key: &str, value: String, origin: Origin) -> Result<(), ConfigError> {
        let Some(all) = self.values.get_mut(key) else {
            let hint = nearest(key, self.values.keys().map(String::as_str)).map(str::to_owned);
            return Err(ConfigError::UnknownKey { key: key.to_owned(), hint });
        };
        let at = all.partition_point(|setting| setting.origin < origin);
        all.insert(at, Setting { value, origin });
        Ok(())
    }

    fn read(&mut self, path: &Path, origin: fn(PathBuf, usize) -> Origin) -> Result<(), ConfigError> {
        let text = match read_text(path) {
            Err(ConfigError::Missing { .. }) => return Ok(()),
            other => other?,
        };
        let shown = path.display().to_string();
        let table = DeTable::parse(&text).map_err(|error| mistake(&shown, &text, error.message(), error.span()))?;
        let mut found = Vec::new();
        flatten("", table.get_ref(), &mut found);
        for (key, at, value) in found {
            let complain = |message: String| mistake(&shown, &text, &message, Some(at.clone()));
            if !self.values.contains_key(&key) {
                return Err(complain(self.unknown(&key)));
            }
            let value = value.ok_or_else(|| {
                complain(format!("`{key}` must be a text, a number, true or false, or a list of these"))
            })?;
            let line = text[..at.start.min(text.len())].matches('\n').count() + 1;
            self.put(&key, value, origin(path.to_owned(), line))?;
        }
        Ok(())
    }

    /// Worded like serde's own complaint, from which the hint is made.
    fn unknown(&self, key: &str) -> String {
        let known: Vec<String> = self.values.keys().map(|key| format!("`{key}`")).collect();
        format!("unknown setting `{key}`, expected one of {}", known.join(", "))
    }
}

fn variable_of(key: &str) -> String {
    let upper = key.to_ascii_uppercase().replace(['.', '-'], "_");
    format!("{VARIABLE_PREFIX}{upper}")
}

/// A dotted key, where it stands, and its value if it is of a kind that settings have.
type Found = (String, std::ops::Range<usize>, Option<String>);

fn flatten(prefix: &str, table: &DeTable<'_>, found: &mut Vec<Found>) {
    for (name, value) in table.iter() {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        match value.get_ref() {
            DeValue::Table(inner) => flatten(&key, inner, found),
            other => found.push((key, name.span(), text_of(other))),
        }
    }
}

fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Integer(number) => Some(number.to_string()),
        DeValue::Float(number) => Some(number.to_string()),
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Array(items) => {
            let items: Option<Vec<String>> = items.iter().map(|item| text_of(item.get_ref())).collect();
            Some(items?.join(","))
        }
        DeValue::Table(_) | DeValue::Datetime(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 3] = ["server.address", "output.color", "timeout-ms"];

    struct Files {
        _folder: tempfile::TempDir,
        places: Places,
    }

    fn files(project: &str, user: &str, system: &str) -> Files {
        let folder = tempfile::tempdir().expect("a temp folder");
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            if !text.is_empty() {
                std::fs::write(&path, text).expect("written");
            }
            Some(path)
        };
        let places = Places { project: write("p", project), user: write("u", user), system: write("s", system) };
        Files { _folder: folder, places }
    }

    fn env(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_stronger_place_wins_and_the_origin_is_remembered() {
        let files = files(
            "[server]\naddress = [\"a:1\", \"b:2\"]\n",
            "timeout-ms = 5000\n",
            "timeout-ms = 1\nserver.address = \"s\"\n[output]\ncolor = true\n",
        );
        let env = env(&[("MUSTER_TIMEOUT_MS", "7"), ("MUSTER_JOB_ID", "9"), ("MUSTER_OUTPUT_COLOR", "")]);
        let mut all = Layers::load(&KEYS, &files.places, env).expect("good");
        assert_eq!(all.value("server.address"), Some("a:1,b:2"));
        assert_eq!(all.value("timeout-ms"), Some("7"));
        assert_eq!(all.get("timeout-ms").expect("set").origin.to_string(), "environment MUSTER_TIMEOUT_MS");
        let color = &all.get("output.color").expect("set").origin;
        assert!(matches!(color, Origin::System { line: 4, .. }), "{color}");
        all.set_flag("timeout-ms", "--timeout", "3").expect("known");
        all.set_default("timeout-ms", "0").expect("known");
        let values: Vec<&str> = all.every("timeout-ms").iter().map(|setting| setting.value.as_str()).collect();
        assert_eq!(values, ["3", "7", "5000", "1", "0"]);
        assert_eq!(all.iter().count(), 3);
    }

    #[test]
    fn an_unknown_key_in_a_file_is_refused_with_line_and_hint() {
        let files = files("", "timeout-ms = 1\n[server]\nadress = \"x\"\n", "");
        let error = Layers::load(&KEYS, &files.places, env(&[])).expect_err("misspelt").to_string();
        assert!(error.contains("u:3:1") && error.contains("did you mean `server.address`?"), "{error}");
        let mut none = Layers::load(&KEYS, &Places::default(), env(&[])).expect("empty");
        let error = none.set_flag("timeout_ms", "--timeout", "1").expect_err("misspelt").to_string();
        assert_eq!(error, "unknown setting `timeout_ms`; did you mean `timeout-ms`?");
    }

    #[test]
    fn the_standard_places_follow_the_xdg_rules() {
        let places = Places::standard(|name| (name == "HOME").then(|| "/home/ada".to_owned()));
        assert_eq!(places.user, Some(PathBuf::from("/home/ada/.config/muster/config.toml")));
        let places = Places::standard(|name| Some(format!("/x/{name}")));
        assert_eq!(places.user, Some(PathBuf::from("/x/XDG_CONFIG_HOME/muster/config.toml")));
        assert_eq!(Places::standard(|_| None).user, None);
    }
}
