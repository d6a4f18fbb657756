//! The pod list of Alibaba's GPU cluster trace of 2023: shares of GPUs, CPU, memory, GPU models.
//! A pod runs from its scheduling (from its creation, where it never was) to its deletion.

use super::fields::{duration_ms, id, name, submit_ms, whole};
use super::rows::{Row, Rows};
use super::table::{self, Layout};
use super::{RecordedEnd, TraceJob};
use std::io::BufRead;

const LAYOUT: Layout = Layout {
    format: "openb",
    delimiter: b',',
    required: &[
        "name",
        "cpu_milli",
        "memory_mib",
        "num_gpu",
        "gpu_milli",
        "gpu_spec",
        "pod_phase",
        "creation_time",
        "deletion_time",
        "scheduled_time",
    ],
    optional: &["qos"],
};

pub(super) fn parse(input: &mut dyn BufRead) -> Result<Rows, String> {
    table::read(&LAYOUT, input, |rows, line, fields| {
        let number = |field: &str| {
            let value = whole(field, fields.get(field))?;
            u64::try_from(value).map_err(|_| format!("{field} is negative"))
        };
        let created_ms = submit_ms(fields.get("creation_time"))?;
        let scheduled_ms = match fields.get("scheduled_time") {
            "" => {
                rows.changed(line, "was never scheduled; it runs from its creation on");
                created_ms
            }
            text => submit_ms(text)?,
        };
        let deleted_ms = duration_ms("deletion_time", fields.get("deletion_time"))?;
        let run_ms = deleted_ms.checked_sub(scheduled_ms).ok_or("it is deleted before it is scheduled")?;
        if run_ms == 0 {
            return Ok(Row::Dropped("run time 0"));
        }
        let (devices, milli) = (number("num_gpu")?, number("gpu_milli")?);
        if devices > 256 || milli > 1000 {
            return Err(format!("{devices} devices with {milli} thousandths each"));
        }
        Ok(Row::job(TraceJob {
            id: id(fields.get("name"))?,
            submit_ms: created_ms,
            run_ms,
            requested_ms: run_ms,
            devices: devices as u32,
            share_milli: if devices == 1 && milli > 0 { milli as u16 } else { 1000 },
            cpu_milli: Some(number("cpu_milli")?),
            memory_bytes: Some(number("memory_mib")?.saturating_mul(1 << 20)),
            models: fields.get("gpu_spec").split('|').filter_map(name).collect(),
            account: name(fields.get("qos")),
            recorded_end: match fields.get("pod_phase") {
                "Succeeded" => RecordedEnd::Succeeded,
                "Failed" => RecordedEnd::Failed,
                _ => RecordedEnd::Unknown,
            },
            ..TraceJob::default()
        }))
    })
}
