//! Datagrams between an agent and the leader: renewals, their answers, telemetry.
//!
//! The first byte is the version. Version 0 is frozen: it says which versions its sender speaks, so
//! that any two releases can tell each other why they do not understand each other. All numbers are
//! little-endian. A datagram has exactly one form: what decodes, encodes to the same bytes.

mod read;

use read::Reader;
use thiserror::Error;

/// What both ends say in the handshake. It never changes; versions are told apart by datagrams themselves.
pub const ALPN: &[u8] = b"muster-datagram";
/// The newest version this release speaks, and the one it sends.
pub const NEWEST: u8 = 1;
/// The oldest version this release understands.
pub const OLDEST: u8 = 1;
/// The longest datagram: it fits beside QUIC's own bytes into the smallest packet every path takes.
pub const BYTES_MAX: usize = 1_099;
/// Samples in one datagram; a node with more devices sends several.
pub const SAMPLES_MAX: usize = (BYTES_MAX - TELEMETRY_HEAD_BYTES) / SAMPLE_BYTES;

const ABOUT_VERSIONS: u8 = 0;
const RENEWAL: u8 = 1;
const EXTENDED: u8 = 2;
const TELEMETRY: u8 = 3;

const TELEMETRY_HEAD_BYTES: usize = 2 + 8 + 1;
const SAMPLE_BYTES: usize = 2 + 1 + 1 + 2 + 4 + 8;

const KNOWS_BUSY: u8 = 1;
const KNOWS_MEMORY: u8 = 2;
const KNOWS_TEMPERATURE: u8 = 4;
const KNOWS_POWER: u8 = 8;
const KNOWS_ALL: u8 = KNOWS_BUSY | KNOWS_MEMORY | KNOWS_TEMPERATURE | KNOWS_POWER;

/// One datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Datagram {
    /// Agent to leader: extend the leases of this control session.
    Renewal(Renewal),
    /// Leader to agent: the renewal of that number is acknowledged.
    Extended(Renewal),
    /// Agent to leader: how devices are doing; at most [`SAMPLES_MAX`].
    Telemetry { session: u64, samples: Vec<Sample> },
    /// To whoever sent what could not be taken. Never answered.
    Refusal(Refusal),
}

/// A renewal, or its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The control session it belongs to.
    pub session: u64,
    /// Counted by the agent within the session.
    pub number: u64,
}

/// What one device's driver said at one moment. `None` where it did not say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sample {
    pub slot: u16,
    /// 0 to 100.
    pub busy_percent: Option<u8>,
    pub memory_used_bytes: Option<u64>,
    pub temperature_c: Option<u16>,
    pub power_mw: Option<u32>,
}

/// Why a datagram was not taken, and what its receiver speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    pub oldest: u8,
    pub newest: u8,
    pub why: Why,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// Its version is not among those spoken here.
    Version,
    /// It is not in the form that its version prescribes.
    Malformed,
    /// The session it names is not this server's.
    NotHere,
    /// A reason of a newer release.
    Other(u8),
}

impl Refusal {
    /// In the name of this release.
    pub fn ours(why: Why) -> Self {
        Self { oldest: OLDEST, newest: NEWEST, why }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.why {
            Why::Version => {
                let Self { oldest, newest, .. } = self;
                write!(f, "the other side speaks datagram versions {oldest} to {newest}, this one {OLDEST} to {NEWEST}")
            }
            Why::Malformed => f.write_str("the other side found the datagram malformed"),
            Why::NotHere => f.write_str("the control session is not that server's"),
            Why::Other(code) => write!(f, "refused for a reason of a newer release (code {code})"),
        }
    }
}

/// Why bytes are no datagram of this release.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    #[error("version {0}; spoken here are {OLDEST} to {NEWEST}")]
    Version(u8),
    #[error("{0} bytes; a datagram has at most {BYTES_MAX}")]
    TooLong(usize),
    #[error("it ends too early")]
    Short,
    #[error("{0} bytes follow its end")]
    Trailing(usize),
    #[error("there is no kind {0}")]
    Kind(u8),
    #[error("the field `{0}` is out of its range")]
    Field(&'static str),
}

impl DecodeError {
    /// What its sender is told.
    pub fn why(self) -> Why {
        match self {
            Self::Version(_) => Why::Version,
            _ => Why::Malformed,
        }
    }
}

/// Reads one datagram.
///
/// # Errors
/// A version that is not spoken here, or bytes in another form than the version's.
pub fn decode(bytes: &[u8]) -> Result<Datagram, DecodeError> {
    if bytes.len() > BYTES_MAX {
        return Err(DecodeError::TooLong(bytes.len()));
    }
    let mut from = Reader::new(bytes);
    let version = from.u8()?;
    let datagram = match version {
        ABOUT_VERSIONS => Datagram::Refusal(refusal(&mut from)?),
        OLDEST..=NEWEST => match from.u8()? {
            RENEWAL => Datagram::Renewal(renewal(&mut from)?),
            EXTENDED => Datagram::Extended(renewal(&mut from)?),
            TELEMETRY => telemetry(&mut from)?,
            other => return Err(DecodeError::Kind(other)),
        },
        other => return Err(DecodeError::Version(other)),
    };
    match from.left() {
        0 => Ok(datagram),
        left => Err(DecodeError::Trailing(left)),
    }
}

/// Writes one datagram. Of telemetry, samples beyond [`SAMPLES_MAX`] are left out.
pub fn encode(datagram: &Datagram) -> Vec<u8> {
    let two = |kind, renewal: &Renewal| {
        let mut bytes = vec![NEWEST, kind];
        bytes.extend(renewal.session.to_le_bytes());
        bytes.extend(renewal.number.to_le_bytes());
        bytes
    };
    match datagram {
        Datagram::Renewal(renewal) => two(RENEWAL, renewal),
        Datagram::Extended(renewal) => two(EXTENDED, renewal),
        Datagram::Telemetry { session, samples } => {
            let count = samples.len().min(SAMPLES_MAX);
            let mut bytes = vec![NEWEST, TELEMETRY];
            bytes.extend(session.to_le_bytes());
            bytes.push(count as u8);
            samples.iter().take(count).for_each(|sample| put_sample(&mut bytes, sample));
            bytes
        }
        Datagram::Refusal(Refusal { oldest, newest, why }) => {
            let why = match why {
                Why::Version => 1,
                Why::Malformed => 2,
                Why::NotHere => 3,
                Why::Other(code) => *code,
            };
            vec![ABOUT_VERSIONS, *oldest, *newest, why]
        }
    }
}

/// Telemetry of any number of devices as datagrams.
pub fn telemetry_of(session: u64, samples: &[Sample]) -> impl Iterator<Item = Datagram> {
    samples.chunks(SAMPLES_MAX).map(move |samples| Datagram::Telemetry { session, samples: samples.to_vec() })
}

fn refusal(from: &mut Reader<'_>) -> Result<Refusal, DecodeError> {
    let (oldest, newest) = (from.u8()?, from.u8()?);
    let why = match from.u8()? {
        1 => Why::Version,
        2 => Why::Malformed,
        3 => Why::NotHere,
        code => Why::Other(code),
    };
    Ok(Refusal { oldest, newest, why })
}

fn renewal(from: &mut Reader<'_>) -> Result<Renewal, DecodeError> {
    Ok(Renewal { session: from.u64()?, number: from.u64()? })
}

fn telemetry(from: &mut Reader<'_>) -> Result<Datagram, DecodeError> {
    let session = from.u64()?;
    let count = usize::from(from.u8()?);
    if count > SAMPLES_MAX {
        return Err(DecodeError::Field("count"));
    }
    let samples = (0..count).map(|_| sample(from)).collect::<Result<_, _>>()?;
    Ok(Datagram::Telemetry { session, samples })
}

fn sample(from: &mut Reader<'_>) -> Result<Sample, DecodeError> {
    let (slot, known, busy) = (from.u16()?, from.u8()?, from.u8()?);
    let (temperature, power, memory) = (from.u16()?, from.u32()?, from.u64()?);
    if known & !KNOWS_ALL != 0 {
        return Err(DecodeError::Field("known"));
    }
    if busy > 100 {
        return Err(DecodeError::Field("busy_percent"));
    }
    // What is not known is zero, so that a sample has one form only.
    let some = |bit: u8, zero: bool| match known & bit != 0 {
        true => Ok(true),
        false if zero => Ok(false),
        false => Err(DecodeError::Field("known")),
    };
    Ok(Sample {
        slot,
        busy_percent: some(KNOWS_BUSY, busy == 0)?.then_some(busy),
        memory_used_bytes: some(KNOWS_MEMORY, memory == 0)?.then_some(memory),
        temperature_c: some(KNOWS_TEMPERATURE, temperature == 0)?.then_some(temperature),
        power_mw: some(KNOWS_POWER, power == 0)?.then_some(power),
    })
}

fn put_sample(bytes: &mut Vec<u8>, sample: &Sample) {
    let bit = |known: bool, bit: u8| if known { bit } else { 0 };
    let known = bit(sample.busy_percent.is_some(), KNOWS_BUSY)
        | bit(sample.memory_used_bytes.is_some(), KNOWS_MEMORY)
        | bit(sample.temperature_c.is_some(), KNOWS_TEMPERATURE)
        | bit(sample.power_mw.is_some(), KNOWS_POWER);
    bytes.extend(sample.slot.to_le_bytes());
    bytes.push(known);
    bytes.push(sample.busy_percent.unwrap_or(0).min(100));
    bytes.extend(sample.temperature_c.unwrap_or(0).to_le_bytes());
    bytes.extend(sample.power_mw.unwrap_or(0).to_le_bytes());
    bytes.extend(sample.memory_used_bytes.unwrap_or(0).to_le_bytes());
}

impl From<&Sample> for crate::agent::DeviceSample {
    fn from(sample: &Sample) -> Self {
        Self {
            slot: sample.slot.into(),
            busy_percent: sample.busy_percent.map(Into::into),
            memory_used_bytes: sample.memory_used_bytes,
            temperature_c: sample.temperature_c.map(Into::into),
            power_mw: sample.power_mw,
        }
    }
}

impl TryFrom<&crate::agent::DeviceSample> for Sample {
    type Error = DecodeError;

    fn try_from(wire: &crate::agent::DeviceSample) -> Result<Self, DecodeError> {
        let busy = wire.busy_percent.map(|busy| u8::try_from(busy).ok().filter(|busy| *busy <= 100));
        let temperature = wire.temperature_c.map(|celsius| u16::try_from(celsius).ok());
        Ok(Self {
            slot: u16::try_from(wire.slot).map_err(|_| DecodeError::Field("slot"))?,
            busy_percent: busy.map(|busy| busy.ok_or(DecodeError::Field("busy_percent"))).transpose()?,
            memory_used_bytes: wire.memory_used_bytes,
            temperature_c: temperature.map(|it| it.ok_or(DecodeError::Field("temperature_c"))).transpose()?,
            power_mw: wire.power_mw,
        })
    }
}

#[cfg(test)]
mod tests;
