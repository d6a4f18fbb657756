//! Numbers that look drawn and are the same whenever they are asked for.

/// SplitMix64's step and finalizer (Steele, Lea and Flood, OOPSLA'14): another number for each seed.
pub(crate) fn mixed(seed: u64) -> u64 {
    let mut z = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Decisions and ranges rest on these numbers.
    #[test]
    fn the_numbers_are_those_of_the_paper() {
        assert_eq!([mixed(0), mixed(1)], [0xe220_a839_7b1d_cdaf, 0x910a_2dec_8902_5cc1]);
    }
}
