//! Times of many equal things.

/// Sorted milliseconds.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Distribution(Vec<f64>);

impl Distribution {
    pub fn new(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        Self(values)
    }

    /// The value that a share `q` of all values does not exceed; the nearest rank, never an invented value.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let rank = (q * self.0.len() as f64).ceil() as usize;
        self.0.get(rank.clamp(1, self.0.len().max(1)) - 1).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values = Distribution::new(vec![5.0, 1.0, 4.0, 2.0, 3.0]);
        assert_eq!([0.0, 0.5, 0.99, 1.0].map(|q| values.quantile(q)), [1.0, 3.0, 5.0, 5.0].map(Some));
        assert_eq!(Distribution::default().quantile(0.5), None);
    }
}
