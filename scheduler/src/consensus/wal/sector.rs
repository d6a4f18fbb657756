//! The smallest unit of the log on disk: 512 bytes that prove by themselves what they are.
//!
//! `crc32(4) batch(8) ordinal(2) used(2) data(496)`, little-endian. The checksum begins with the segment's number, so that a
//! sector found in the wrong file is not taken for one of its own. `used` counts the bytes of `data`; its top bit marks the
//! last sector of a batch. Unwritten space is zeros, which no written sector can be.
//!
//! A disk writes a sector whole or not at all, so each sector of a torn batch is either valid or zeros; anything else
//! was damaged after it was written.

/// Bytes of one sector.
pub(crate) const SECTOR_BYTES: usize = 512;
const HEAD_BYTES: usize = 16;
/// Payload bytes in one sector; every sector of a batch but its last is full.
pub(crate) const DATA_BYTES: usize = SECTOR_BYTES - HEAD_BYTES;
const LAST: u16 = 0x8000;
/// Payload bytes of one batch at most: its sectors are counted in 16 bits.
pub(crate) const BATCH_BYTES_CEILING: usize = DATA_BYTES * u16::MAX as usize;

/// What 512 bytes turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Sector<'a> {
    /// Never written.
    Unwritten,
    /// Written and whole.
    Written { batch: u64, ordinal: u16, last: bool, data: &'a [u8] },
    /// Neither.
    Damaged,
}

/// Bytes that `payload_bytes` of a batch take on disk.
pub(crate) fn batch_bytes(payload_bytes: usize) -> usize {
    payload_bytes.div_ceil(DATA_BYTES).max(1) * SECTOR_BYTES
}

/// Lays a batch's payload out in sectors.
pub(crate) fn lay_out(segment: u64, batch: u64, payload: &[u8]) -> Vec<u8> {
    debug_assert!(payload.len() <= BATCH_BYTES_CEILING);
    let mut sectors = vec![0; batch_bytes(payload.len())];
    let count = sectors.len() / SECTOR_BYTES;
    let mut rest = payload;
    for (ordinal, sector) in sectors.chunks_exact_mut(SECTOR_BYTES).enumerate() {
        let (data, later) = rest.split_at(rest.len().min(DATA_BYTES));
        rest = later;
        let last = if ordinal + 1 == count { LAST } else { 0 };
        sector[4..12].copy_from_slice(&batch.to_le_bytes());
        sector[12..14].copy_from_slice(&(ordinal as u16).to_le_bytes());
        sector[14..16].copy_from_slice(&(data.len() as u16 | last).to_le_bytes());
        sector[HEAD_BYTES..HEAD_BYTES + data.len()].copy_from_slice(data);
        let crc = checksum(segment, &sector[4..]);
        sector[..4].copy_from_slice(&crc.to_le_bytes());
    }
    sectors
}

/// Reads one sector of the segment with that number.
///
/// # Panics
/// If `bytes` are not exactly one sector.
pub(crate) fn read(segment: u64, bytes: &[u8]) -> Sector<'_> {
    assert_eq!(bytes.len(), SECTOR_BYTES);
    if bytes.iter().all(|byte| *byte == 0) {
        return Sector::Unwritten;
    }
    let used = u16::from_le_bytes([bytes[14], bytes[15]]);
    let length = usize::from(used & !LAST);
    if length > DATA_BYTES || le_u32(bytes) != checksum(segment, &bytes[4..]) {
        return Sector::Damaged;
    }
    Sector::Written {
        batch: le_u64(&bytes[4..]),
        ordinal: u16::from_le_bytes([bytes[12], bytes[13]]),
        last: used & LAST != 0,
        data: &bytes[HEAD_BYTES..HEAD_BYTES + length],
    }
}

fn checksum(segment: u64, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.to_le_bytes());
    hasher.update(bytes);
    hasher.finalize()
}

pub(crate) fn le_u32(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

pub(crate) fn le_u64(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_reads_back_sector_by_sector() {
        for length in [0, 1, DATA_BYTES - 1, DATA_BYTES, DATA_BYTES + 1, 5000] {
            let payload: Vec<u8> = (0..length).map(|byte| byte as u8).collect();
            let sectors = lay_out(7, 42, &payload);
            assert_eq!(sectors.len(), batch_bytes(length));
            let mut back = Vec::new();
            let count = sectors.len() / SECTOR_BYTES;
            for (at, bytes) in sectors.chunks_exact(SECTOR_BYTES).enumerate() {
                let Sector::Written { batch: 42, ordinal, last, data } = read(7, bytes) else { panic!("sector {at}") };
                assert_eq!((usize::from(ordinal), last), (at, at + 1 == count));
                back.extend_from_slice(data);
            }
            assert_eq!(back, payload);
        }
    }

    #[test]
    fn every_flipped_bit_and_a_foreign_segment_are_damage() {
        let sector = lay_out(1, 1, b"payload");
        for bit in 0..SECTOR_BYTES * 8 {
            let mut bytes = sector.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(1, &bytes), Sector::Damaged, "bit {bit}");
        }
        assert_eq!(read(2, &sector), Sector::Damaged);
        assert_eq!(read(1, &[0; SECTOR_BYTES]), Sector::Unwritten);
    }
}
