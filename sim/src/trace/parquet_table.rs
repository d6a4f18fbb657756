//! Our own format as a table: a file of Parquet with one job a row, the columns of `muster.trace/1`
//! and the same rules. Lists and documents are text: models with commas between, `scheduling` as JSON.

use super::jsonl::{Line, SCHEMA, row};
use super::rows::Rows;
use super::{JOBS_MAX, RecordedEnd, TraceJob, Work};
use crate::columnar::read::{Cell, Table};
use crate::columnar::{self, Column, optional, text, whole};
use muster_common::Name;
use muster_common::text::nearest;
use std::io::{self, Write};

/// Kept in the file: the schema, and the devices of the machine it was recorded on. A table that
/// somebody made elsewhere need not have them.
const NOTE_SCHEMA: &str = "muster.schema";
const NOTE_DEVICES: &str = "muster.devices";
const REQUIRED: [&str; 4] = ["job_id", "submit_ms", "run_ms", "devices"];

fn columns<'a>() -> Vec<Column<'a, &'a TraceJob>> {
    vec![
        text("job_id", |job| Some(job.id.as_str().into())),
        whole("submit_ms", |job| Some(job.submit_ms)),
        whole("run_ms", |job| Some(job.run_ms)),
        optional(whole("requested_ms", |job| Some(job.requested_ms))),
        whole("devices", |job| Some(job.devices.into())),
        optional(whole("share_milli", |job| Some(job.share_milli.into()))),
        optional(whole("cpu_milli", |job| job.cpu_milli)),
        optional(whole("memory_bytes", |job| job.memory_bytes)),
        optional(text("models", |job| {
            let models: Vec<&str> = job.models.iter().map(Name::as_str).collect();
            (!models.is_empty()).then(|| models.join(",").into())
        })),
        optional(text("user", |job| job.user.as_deref().map(Into::into))),
        optional(text("account", |job| job.account.as_ref().map(|account| account.as_str().into()))),
        optional(text("recorded_end", |job| {
            let end = serde_json::to_value(job.recorded_end).ok()?;
            (job.recorded_end != RecordedEnd::Unknown).then(|| end.as_str().map(|end| end.to_owned().into()))?
        })),
        optional(whole("recorded_start_ms", |job| job.recorded_start_ms)),
        optional(text("work_kind", |job| job.work.as_ref().map(|work| work.kind.as_str().into()))),
        optional(whole("work_steps", |job| job.work.as_ref().map(|work| work.steps))),
        optional(text("name", |job| job.name.as_ref().map(|name| name.as_str().into()))),
        optional(text("scheduling", |job| Some(serde_json::to_string(job.scheduling.as_ref()?).ok()?.into()))),
    ]
}

/// Writes jobs as such a table.
///
/// # Errors
/// Those of the output.
pub fn write(output: &mut (dyn Write + Send), jobs: &[TraceJob], recorded_devices: Option<u32>) -> io::Result<()> {
    let mut notes = vec![(NOTE_SCHEMA, SCHEMA.to_owned())];
    notes.extend(recorded_devices.map(|devices| (NOTE_DEVICES, devices.to_string())));
    columnar::parquet(&columns(), jobs.iter(), &notes, output)
}

/// # Errors
/// What keeps the table from being one of ours.
pub(super) fn parse(table: &Table) -> Result<Rows, String> {
    if let Some(schema) = table.note(NOTE_SCHEMA).filter(|schema| *schema != SCHEMA) {
        return Err(format!("its schema is `{}`; this version reads {SCHEMA}", super::fields::short(schema)));
    }
    if table.rows > JOBS_MAX as u64 {
        return Err(format!("it has {} rows; at most {JOBS_MAX} jobs are read; cut it into parts", table.rows));
    }
    let known: Vec<&'static str> = columns().iter().map(|column| column.name).collect();
    for (at, name) in table.columns.iter().enumerate() {
        if !known.contains(&name.as_str()) {
            return Err(unknown(name, &known));
        }
        if table.columns[..at].contains(name) {
            return Err(format!("it has the column `{name}` twice; leave one out"));
        }
    }
    if let Some(missing) = REQUIRED.iter().find(|name| !table.columns.iter().any(|column| column == *name)) {
        return Err(format!("there is no column `{missing}`; it needs {}", REQUIRED.join(", ")));
    }
    let mut rows = Rows::new("parquet");
    let devices = table.note(NOTE_DEVICES).map(str::parse).transpose();
    rows.recorded_devices = devices.map_err(|_| format!("its note `{NOTE_DEVICES}` is no number of devices"))?;
    table.each(|number, cells| {
        let mut fields = Fields { columns: &table.columns, cells };
        rows.add(number, fields.line().and_then(row))
    })?;
    Ok(rows)
}

fn unknown(name: &str, known: &[&'static str]) -> String {
    let told = super::fields::short(name);
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("it has a column `{told}`, which no job has; did you mean `{near}`?"),
        None => format!("it has a column `{told}`, which no job has; leave it out. There are {}", known.join(", ")),
    }
}

/// The cells of one row, each taken once.
struct Fields<'a> {
    columns: &'a [String],
    cells: Vec<Cell>,
}

impl Fields<'_> {
    fn take(&mut self, name: &str) -> Cell {
        let at = self.columns.iter().position(|column| column == name);
        let cell = at.and_then(|at| self.cells.get_mut(at));
        cell.map_or(Cell::Unknown, |cell| std::mem::replace(cell, Cell::Unknown))
    }

    fn whole(&mut self, name: &str) -> Result<Option<u64>, String> {
        match self.take(name) {
            Cell::Unknown => Ok(None),
            Cell::Whole(value) => match u64::try_from(value) {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(format!("{name} is {value}; it is at least 0 and below 2^64")),
            },
            // Programs that know no null among whole numbers write these.
            Cell::Real(value) if (0.0..9e15).contains(&value) && value.fract() == 0.0 => Ok(Some(value as u64)),
            other => Err(format!("{name} is {}, not a whole number of at least 0", told(&other))),
        }
    }

    fn number<T: TryFrom<u64>>(&mut self, name: &str) -> Result<Option<T>, String> {
        let value = self.whole(name)?;
        value.map(|value| T::try_from(value).map_err(|_| format!("{name} is {value}, which is too much"))).transpose()
    }

    fn required<T: TryFrom<u64>>(&mut self, name: &str) -> Result<T, String> {
        self.number(name)?.ok_or_else(|| format!("{name} is not given"))
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, String> {
        match self.take(name) {
            Cell::Unknown => Ok(None),
            Cell::Text(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            Cell::Whole(value) if name == "job_id" => Ok(Some(value.to_string())),
            other => Err(format!("{name} is {}, not text", told(&other))),
        }
    }

    fn name(&mut self, name: &str) -> Result<Option<Name>, String> {
        let text = self.text(name)?;
        text.map(|text| Name::new(text).map_err(|error| format!("{name}: {error}"))).transpose()
    }

    fn models(&mut self) -> Result<Vec<Name>, String> {
        let texts = match self.take("models") {
            Cell::Unknown => return Ok(Vec::new()),
            Cell::Text(text) => text.split(',').filter(|model| !model.is_empty()).map(str::to_owned).collect(),
            Cell::Texts(texts) => texts,
            other => return Err(format!("models is {}, not names with commas between", told(&other))),
        };
        texts.into_iter().map(|model| Name::new(model).map_err(|error| format!("models: {error}"))).collect()
    }

    fn work(&mut self) -> Result<Option<Work>, String> {
        match (self.text("work_kind")?, self.whole("work_steps")?) {
            (Some(kind), Some(steps)) => Ok(Some(Work { kind, steps })),
            (None, None) => Ok(None),
            _ => Err("work_kind and work_steps are given together or not at all".into()),
        }
    }

    fn document<T: serde::de::DeserializeOwned>(&mut self, name: &str) -> Result<Option<T>, String> {
        let text = self.text(name)?;
        text.map(|text| serde_json::from_str(&text).map_err(|error| format!("{name}: {error}"))).transpose()
    }

    fn line(&mut self) -> Result<Line, String> {
        let recorded_end = match self.text("recorded_end")? {
            None => RecordedEnd::Unknown,
            Some(word) => serde_json::from_value(serde_json::Value::String(word))
                .map_err(|error| format!("recorded_end: {error}"))?,
        };
        Ok(Line {
            job_id: self.text("job_id")?.unwrap_or_default(),
            submit_ms: self.required("submit_ms")?,
            run_ms: self.required("run_ms")?,
            requested_ms: self.whole("requested_ms")?,
            devices: self.required("devices")?,
            share_milli: self.number("share_milli")?,
            cpu_milli: self.whole("cpu_milli")?,
            memory_bytes: self.whole("memory_bytes")?,
            models: self.models()?,
            user: self.text("user")?,
            account: self.name("account")?,
            recorded_end,
            recorded_start_ms: self.whole("recorded_start_ms")?,
            work: self.work()?,
            name: self.name("name")?,
            scheduling: self.document("scheduling")?,
        })
    }
}

fn told(cell: &Cell) -> String {
    match cell {
        Cell::Unknown => "unknown".to_owned(),
        Cell::Whole(value) => value.to_string(),
        Cell::Real(value) => value.to_string(),
        Cell::Flag(value) => value.to_string(),
        Cell::Text(text) => format!("`{}`", super::fields::short(text)),
        Cell::Texts(_) => "a list".to_owned(),
        Cell::Other(what) => (*what).to_owned(),
    }
}
