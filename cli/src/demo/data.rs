//! The built-in data: a noisy surface in space with a few dense clusters beside it. The same seed
//! gives the same rows.

/// Values per row.
pub(super) const DIM: usize = 3;

/// Of so many rows one belongs to a cluster.
const CLUSTERED: u64 = 6;
const CLUSTERS: u64 = 12;

/// An endless stream of rows.
pub(super) struct DemoData {
    state: u64,
}

impl DemoData {
    /// A stream that depends on the seed only.
    pub(super) fn new(seed: u64) -> DemoData {
        DemoData { state: seed.wrapping_mul(0xD1B5_4A32_D192_ED03) }
    }

    /// The next rows, row-major `[count x 3]`.
    pub(super) fn rows(&mut self, count: usize) -> Vec<f32> {
        (0..count).flat_map(|_| self.row()).collect()
    }

    fn row(&mut self) -> [f32; DIM] {
        if self.next().is_multiple_of(CLUSTERED) {
            let cluster = self.next() % CLUSTERS;
            // Where a cluster lies must not depend on the stream.
            let mut place = DemoData::new(1_000 + cluster);
            let center = [place.unit(), place.unit(), place.unit() - 0.5];
            return center.map(|x| (x + 0.01 * self.noise()) as f32);
        }
        let (u, v) = (self.unit(), self.unit());
        // Powers and products only: library sines may differ in the last bit from system to system.
        let height = 1.6 * (u - 0.5) * (u - 0.5) - 1.2 * (v - 0.5) * (v - 0.5) + 0.3 * u * v;
        [u, v, height].map(|x| (x + 0.004 * self.noise()) as f32)
    }

    /// Uniform in [0, 1).
    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// Mean 0, variance 1, nearly normal.
    fn noise(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// splitmix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_rows() {
        let rows = DemoData::new(1).rows(1_000);
        assert_eq!(rows, DemoData::new(1).rows(1_000));
        assert_ne!(rows, DemoData::new(2).rows(1_000));
        assert!(rows.iter().all(|x| x.abs() < 2.0));
    }
}
