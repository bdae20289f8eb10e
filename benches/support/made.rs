//! Deterministic points: uniform, Gaussian, and noisy Gaussian sheets of few real dimensions in
//! many.
//!
//! Rows are made in chunks, each from a generator seeded by (seed, stream, chunk), so that neither
//! the number of threads nor the number of rows changes a row.

/// Rows that one generator makes.
pub(crate) const ROWS_PER_CHUNK: usize = 1024;
/// The stream that a family of sheets is drawn from; rows use the others.
const SHEETS_STREAM: u64 = u64::MAX;

/// SplitMix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators" (2014).
pub(crate) struct SplitMix64(u64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64, stream: u64, chunk: u64) -> Self {
        let mut state = seed;
        for part in [stream, chunk] {
            state = SplitMix64(state ^ part).next_u64();
        }
        SplitMix64(state)
    }

    pub(crate) fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// In [0, 1): 24 bits.
    pub(crate) fn uniform(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 / (1u32 << 24) as f32
    }

    /// Fills `out` with standard normal values: Box and Muller (1958).
    fn fill_normal(&mut self, out: &mut [f32]) {
        for pair in out.chunks_mut(2) {
            let above_zero = ((self.next_u64() >> 11) + 1) as f64 / (1u64 << 53) as f64;
            let turn = (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
            let length = (-2.0 * above_zero.ln()).sqrt();
            let (sin, cos) = (std::f64::consts::TAU * turn).sin_cos();
            pair[0] = (length * cos) as f32;
            if let Some(second) = pair.get_mut(1) {
                *second = (length * sin) as f32;
            }
        }
    }
}

/// Where rows come from.
pub(crate) enum Made {
    /// Uniform in the unit cube.
    Uniform {
        /// Values per row.
        dim: usize,
    },
    /// Standard normal.
    Gaussian {
        /// Values per row.
        dim: usize,
    },
    /// Uniform on the unit sphere.
    Sphere {
        /// Values per row.
        dim: usize,
    },
    /// A mixture of sheets.
    Sheets(Sheets),
}

/// Equally likely Gaussian sheets: a center, plus a standard normal vector of `real_dim` dimensions
/// in an orthonormal basis of the sheet's own, plus noise in all `dim` dimensions.
pub(crate) struct Sheets {
    dim: usize,
    real_dim: usize,
    noise: f32,
    /// `[sheets x dim]`.
    centers: Vec<f32>,
    /// `[sheets x real_dim x dim]`.
    bases: Vec<f32>,
}

impl Sheets {
    /// Draws `sheets` centers from [-1, 1)^dim, and as many bases.
    pub(crate) fn new(sheets: usize, dim: usize, real_dim: usize, noise: f32, seed: u64) -> Self {
        let mut random = SplitMix64::new(seed, SHEETS_STREAM, 0);
        let centers = (0..sheets * dim).map(|_| 2.0 * random.uniform() - 1.0).collect();
        let mut bases = vec![0.0; sheets * real_dim * dim];
        // Without real dimensions a sheet is a cluster of noise.
        for basis in bases.chunks_exact_mut((real_dim * dim).max(1)) {
            random.fill_normal(basis);
            orthonormalise(basis, dim);
        }
        Sheets { dim, real_dim, noise, centers, bases }
    }

    fn fill(&self, random: &mut SplitMix64, rows: &mut [f32]) {
        let sheets = self.centers.len() / self.dim;
        let mut coordinates = vec![0.0; self.real_dim];
        for row in rows.chunks_exact_mut(self.dim) {
            let sheet = (random.next_u64() % sheets as u64) as usize;
            random.fill_normal(&mut coordinates);
            random.fill_normal(row);
            let center = &self.centers[sheet * self.dim..][..self.dim];
            for (value, center) in row.iter_mut().zip(center) {
                *value = center + self.noise * *value;
            }
            let size = self.real_dim * self.dim;
            let basis = self.bases[sheet * size..][..size].chunks_exact(self.dim);
            for (coordinate, axis) in coordinates.iter().zip(basis) {
                for (value, axis) in row.iter_mut().zip(axis) {
                    *value += coordinate * axis;
                }
            }
        }
    }
}

/// Gram-Schmidt on the rows of `basis`, each projected out twice for the rounding.
fn orthonormalise(basis: &mut [f32], dim: usize) {
    for i in 0..basis.len() / dim {
        let (before, rest) = basis.split_at_mut(i * dim);
        let row = &mut rest[..dim];
        for axis in before.chunks_exact(dim).chain(before.chunks_exact(dim)) {
            let along: f32 = row.iter().zip(axis).map(|(a, b)| a * b).sum();
            row.iter_mut().zip(axis).for_each(|(a, b)| *a -= along * b);
        }
        normalise(row);
    }
}

fn normalise(row: &mut [f32]) {
    let length = row.iter().map(|a| a * a).sum::<f32>().sqrt();
    row.iter_mut().for_each(|a| *a /= length);
}

impl Made {
    /// Values per row.
    pub(crate) fn dim(&self) -> usize {
        match self {
            Made::Uniform { dim } | Made::Gaussian { dim } | Made::Sphere { dim } => *dim,
            Made::Sheets(sheets) => sheets.dim,
        }
    }

    /// The first `count` rows of a stream, row-major `[count x dim]`. Runs on all cores.
    pub(crate) fn rows(&self, count: usize, seed: u64, stream: u64) -> Vec<f32> {
        self.rows_from(0, count, seed, stream)
    }

    /// `count` rows of a stream from row `first * ROWS_PER_CHUNK` on.
    pub(crate) fn rows_from(&self, first: u64, count: usize, seed: u64, stream: u64) -> Vec<f32> {
        let dim = self.dim();
        let mut rows = vec![0.0; count * dim];
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let chunks = count.div_ceil(ROWS_PER_CHUNK);
        let chunks_each = chunks.div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            let shares = rows.chunks_mut(chunks_each * ROWS_PER_CHUNK * dim);
            for (thread, share) in shares.enumerate() {
                scope.spawn(move || {
                    for (i, chunk) in share.chunks_mut(ROWS_PER_CHUNK * dim).enumerate() {
                        let chunk_index = first + (thread * chunks_each + i) as u64;
                        self.fill(&mut SplitMix64::new(seed, stream, chunk_index), chunk);
                    }
                });
            }
        });
        rows
    }

    fn fill(&self, random: &mut SplitMix64, rows: &mut [f32]) {
        match self {
            Made::Uniform { .. } => rows.iter_mut().for_each(|v| *v = random.uniform()),
            Made::Gaussian { .. } => random.fill_normal(rows),
            Made::Sphere { dim } => rows.chunks_exact_mut(*dim).for_each(|row| {
                random.fill_normal(row);
                normalise(row);
            }),
            Made::Sheets(sheets) => sheets.fill(random, rows),
        }
    }
}
