//! How many cases a property is tried on.

use proptest::prelude::ProptestConfig;

/// The usual number, or `MUSTER_CASES` for a long run. The cases are others each time, but for a
/// seed in `PROPTEST_RNG_SEED`.
pub fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("MUSTER_CASES").ok();
    let asked = asked.map(|text| text.parse().expect("MUSTER_CASES is a number of cases"));
    ProptestConfig { cases: asked.unwrap_or(usual), ..ProptestConfig::default() }
}
