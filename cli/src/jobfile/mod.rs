//! Job files from disk: TOML or JSON, `--set`, and mistakes shown where they are.

mod explain;
mod source;

#[cfg(test)]
mod tests;

use crate::error::{CliError, Report};
use explain::reading_error;
use muster_common::job::SPEC_BYTES_MAX;
use muster_common::job::file::{Inline, JobFile, Scalar, SpecError, SpecErrorKind, compile, reads_as_number};
use muster_proto::convert::error::{ErrorCode, ErrorInfo};
use muster_runtime::durable::read_limited;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use source::Source;

/// A job file that is fit to be sent.
#[derive(Debug)]
pub struct Loaded {
    /// What the server is sent.
    pub spec_json: String,
    pub source: Source,
}

/// Reads, overrides, completes and checks a job file; `-` is standard input.
///
/// # Errors
/// Everything that is wrong with it, with lines.
pub fn load(path: &str, sets: &[String]) -> Result<Loaded, CliError> {
    let text = read(path)?;
    let folder =
        if path == "-" { PathBuf::new() } else { Path::new(path).parent().unwrap_or(Path::new("")).to_owned() };
    let folder = std::path::absolute(if folder.as_os_str().is_empty() { Path::new(".") } else { &folder })?;
    let name = if path == "-" { "<stdin>" } else { path };
    parse(name, text, sets, &folder)
}

/// Like [`load`] for text that is there already; other files are looked for in `folder`.
pub fn parse(name: &str, text: String, sets: &[String], folder: &Path) -> Result<Loaded, CliError> {
    let source = Source::new(name, text);
    let mut file = read_file(&source, sets)?;
    complete(&mut file, &source, folder)?;
    check(file, source)
}

/// As [`parse`], for a text that lacks nothing only this machine could add.
pub fn parse_whole(name: &str, text: String) -> Result<Loaded, CliError> {
    let source = Source::new(name, text);
    check(read_file(&source, &[])?, source)
}

/// A job file as a tree of values.
pub fn from_value(name: &str, value: Value) -> Result<Loaded, CliError> {
    let source = Source::none(name);
    let file: JobFile = serde_json::from_value(value)
        .map_err(|error| reading_error(&source::Fault::without_place(error.to_string()), &source))?;
    check(file, source)
}

/// For job files that were made here, such as `muster run`'s.
pub fn check(file: JobFile, source: Source) -> Result<Loaded, CliError> {
    if let Err(errors) = compile(&file) {
        let reports = errors.iter().map(|error| report(error, &source)).collect();
        return Err(
            CliError::gather(reports).unwrap_or_else(|| CliError::new(ErrorCode::Internal, "refused without a reason"))
        );
    }
    let spec_json = serde_json::to_string(&file).expect("a job file has string keys and finite numbers");
    if spec_json.len() > SPEC_BYTES_MAX {
        return Err(too_big(source.name(), spec_json.len()));
    }
    Ok(Loaded { spec_json, source })
}

fn read(path: &str) -> Result<String, CliError> {
    let bytes = if path == "-" {
        let mut bytes = Vec::new();
        std::io::stdin().lock().take(SPEC_BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        bytes
    } else {
        read_limited(Path::new(path), SPEC_BYTES_MAX as u64).map_err(|error| {
            let error = CliError::from(error);
            match error.code() {
                ErrorCode::SpecTooBig => error.hint("put long scripts and lists into files of their own"),
                ErrorCode::FileNotFound => error.hint("give the path of a job file, or `-` for standard input"),
                _ => error,
            }
        })?
    };
    if bytes.len() > SPEC_BYTES_MAX {
        return Err(too_big(path, bytes.len()));
    }
    String::from_utf8(bytes).map_err(|_| CliError::new(ErrorCode::SpecSyntax, format!("{path} is not UTF-8 text")))
}

fn too_big(name: &str, bytes: usize) -> CliError {
    CliError::new(
        ErrorCode::SpecTooBig,
        format!("{name} takes {bytes} bytes or more; at most {SPEC_BYTES_MAX} are allowed"),
    )
    .hint("put long scripts and lists into files of their own")
}

fn read_file(source: &Source, sets: &[String]) -> Result<JobFile, CliError> {
    let whole = source.whole();
    if sets.is_empty() {
        return whole.map_err(|fault| reading_error(&fault, source));
    }
    let mut value = source.value().map_err(|fault| reading_error(&fault, source))?;
    for set in sets {
        apply_set(&mut value, set)?;
    }
    serde_json::from_value(value).map_err(|error| {
        // The same complaint about the file itself has a place to point at.
        match whole {
            Err(fault) if fault.message == error.to_string() => reading_error(&fault, source),
            _ => {
                let mut error = reading_error(&source::Fault::without_place(error.to_string()), source);
                for report in error.reports_mut() {
                    report.info.message.push_str(" (after --set)");
                }
                error
            }
        }
    })
}

/// `gang.nodes=8`; the value is TOML, or a bare word that stands for itself.
pub fn apply_set(value: &mut Value, set: &str) -> Result<(), CliError> {
    let wrong = |why: &str| {
        CliError::new(ErrorCode::Usage, format!("--set {set}: {why}")).hint("write for example --set gang.nodes=8")
    };
    let (path, text) =
        set.split_once('=').ok_or_else(|| wrong("a key and a value with `=` between them are needed"))?;
    let parsed: Value = match toml::from_str::<toml::Table>(&format!("value = {text}")) {
        Ok(mut table) if table.len() == 1 => match table.remove("value") {
            // A job file has moments and durations as texts, and TOML takes `12:00:00` for a time of day.
            Some(toml::Value::Datetime(_)) => Value::from(text.trim()),
            value => value.and_then(|value| serde_json::to_value(value).ok()).unwrap_or_default(),
        },
        _ => Value::from(text),
    };
    let mut at = value;
    let keys: Vec<&str> = path.split('.').map(str::trim).collect();
    if keys.iter().any(|key| key.is_empty()) {
        return Err(wrong("an empty key"));
    }
    for key in keys {
        let Value::Object(table) = at else { return Err(wrong(&format!("`{key}` is not inside a table"))) };
        at = table.entry(key.to_owned()).or_insert_with(|| Value::Object(serde_json::Map::new()));
    }
    *at = parsed;
    Ok(())
}

/// What only the client knows: its folder, its files, the file's own name.
fn complete(file: &mut JobFile, source: &Source, folder: &Path) -> Result<(), CliError> {
    if file.name.is_none() {
        let stem = Path::new(source.name()).file_stem().and_then(|stem| stem.to_str());
        let name = stem.filter(|stem| muster_common::Name::new(*stem).is_ok() && !reads_as_number(stem));
        file.name = name.map(str::to_owned);
    }
    if let Some(workdir) = &file.workdir {
        let whole: PathBuf = folder.join(workdir).components().collect();
        file.workdir = Some(whole.display().to_string());
    }
    let Some(array) = &mut file.array else { return Ok(()) };
    if let Some(Inline::File(name)) = &array.lines {
        let text = side_file(folder, name, source, "array.lines")?;
        array.lines =
            Some(Inline::List(text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()));
    }
    if let Some(Inline::File(name)) = &array.json {
        let text = side_file(folder, name, source, "array.json")?;
        let list: Vec<BTreeMap<String, Scalar>> = serde_json::from_str(&text).map_err(|error| {
            let info =
                ErrorInfo::new(ErrorCode::SpecSyntax, format!("{name} is not a JSON list of flat objects: {error}"));
            at_path(info, source, "array.json", "read from here")
        })?;
        array.json = Some(Inline::List(list));
    }
    Ok(())
}

fn side_file(folder: &Path, name: &str, source: &Source, path: &str) -> Result<String, CliError> {
    let bytes = read_limited(&folder.join(name), SPEC_BYTES_MAX as u64).map_err(|error| {
        let error = CliError::from(error);
        at_path(error.info().clone(), source, path, "named here")
    })?;
    String::from_utf8(bytes).map_err(|_| {
        at_path(ErrorInfo::new(ErrorCode::SpecSyntax, format!("{name} is not UTF-8 text")), source, path, "named here")
    })
}

/// An error of the server's that names a part of the job file, shown at that part.
pub fn place_server_error(mut error: CliError, source: &Source) -> CliError {
    for report in error.reports_mut() {
        let path = report.info.path.clone().filter(|_| report.place.is_none());
        report.place = path.and_then(|path| source.place(&path, "asked for here"));
    }
    error
}

fn at_path(info: ErrorInfo, source: &Source, path: &str, label: &str) -> CliError {
    let place = source.place(path, label);
    let report = Report { info: info.path(path), place };
    CliError::gather(vec![report]).expect("one report was given")
}

fn report(error: &SpecError, source: &Source) -> Report {
    let code = match error.kind {
        SpecErrorKind::Missing => ErrorCode::SpecMissing,
        SpecErrorKind::Value => ErrorCode::SpecValue,
        SpecErrorKind::TooBig => ErrorCode::SpecTooBig,
        SpecErrorKind::NotThereYet => ErrorCode::NotThereYet,
    };
    let place = source.place(&error.path, &error.why);
    let message = if place.is_some() {
        format!("{}: {}", error.path, error.what)
    } else {
        format!("{}: {} ({})", error.path, error.what, error.why)
    };
    let mut info = ErrorInfo::new(code, message).path(error.path.clone());
    info.hint.clone_from(&error.hint);
    Report { info, place }
}
