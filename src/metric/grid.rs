//! A grid laid over the values: rows as bytes, eight components at a time, and how far a row is from what its bytes say.
//!
//! The grid is chosen from a sample of the values. A bad choice costs time only: what lies between cells, or beyond the
//! last of them, shows in the error of its row, and B4 (`bounds.rs`) takes errors into account.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
use super::{Kernel, portable};

/// Components that are quantised together.
pub(super) const OCTET: usize = 8;

/// The highest cell of a component; the lowest is 0.
pub(super) const LAST_CELL: u8 = 127;

/// Cells per unit stay between the inverse of this and this, so that nothing overflows but what lies far outside.
const MOST_SCALE: f64 = (1_u128 << 100) as f64;

/// Halvings of the grid that are tried, at most: more than f32 has exponents for.
const MOST_HALVINGS: usize = 100;

/// Where the cells are.
#[derive(Clone, Debug)]
pub(crate) struct Grid {
    dim: usize,
    /// Octets of the row, those first in which the sample differs most.
    order: Vec<u32>,
    /// In that order: the value in the middle of cell 0. Components past the row are 0.
    origins: Vec<[f32; OCTET]>,
    /// Cells per unit.
    scale: f32,
}

/// Rows as bytes.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// `[rows][octets]`: eight cells, the first component's in the lowest byte.
    pub(super) octets: Vec<u64>,
    /// Per row, an f32 sum of the squares of what its components differ from their cells by, in cells.
    pub(super) residuals: Vec<f32>,
    /// Per row, the sum of c (c - 128) over its cells c.
    pub(super) moments: Vec<i32>,
}

impl Cells {
    fn clear(&mut self) {
        self.octets.clear();
        self.residuals.clear();
        self.moments.clear();
    }
}

impl Grid {
    /// A grid for values like those of `sample`, row-major `[a x dim]`, a > 0.
    ///
    /// The widest column fits the grid, unless a few rows far from all others make that too coarse: the grid is halved,
    /// towards the medians, as long as most rows of the sample come nearer to their cells.
    pub(crate) fn new(kernel: Kernel, sample: &[f32], dim: usize) -> Self {
        assert!(!sample.is_empty(), "a grid is made for some rows");
        let columns: Vec<Column> = (0..dim).map(|c| Column::of(sample, dim, c)).collect();
        let width =
            columns.iter().map(|column| column.width).fold(0.0, f64::max) * (1.0 + 1.0 / 16.0);
        let (mut best, mut least) = (None, f64::INFINITY);
        let sample: Vec<&[f32]> = sample.chunks_exact(dim).collect();
        let mut cells = Cells::default();
        for halvings in 0..MOST_HALVINGS {
            let part = 0.5_f64.powi(halvings as i32);
            let scale = f64::from(LAST_CELL) / (width * part);
            let scale = scale.clamp(1.0 / MOST_SCALE, MOST_SCALE) as f32;
            let half = f64::from(LAST_CELL) / f64::from(scale) / 2.0;
            let origins =
                columns.iter().map(|c| (c.median + (c.middle - c.median) * part - half) as f32);
            let origins: Vec<f32> = origins.collect();
            let grid = Grid {
                dim,
                order: (0..dim.div_ceil(OCTET) as u32).collect(),
                origins: origins.chunks(OCTET).map(padded).collect(),
                scale,
            };
            grid.quantize(kernel, &sample, grid.octets(), &mut cells);
            let most = cells.residuals.len() * 7 / 8;
            let (_, residual, _) = cells.residuals.select_nth_unstable_by(most, f32::total_cmp);
            let error = f64::from(*residual).sqrt() / f64::from(scale);
            if halvings > 0 && error >= least {
                break;
            }
            (best, least) = (Some(grid), error);
        }
        let mut grid = best.expect("the first grid is taken whatever its error");
        grid.quantize(kernel, &sample, grid.octets(), &mut cells);
        grid.sort(&cells);
        grid
    }

    /// Puts the octets first whose cells have the greatest variance.
    fn sort(&mut self, cells: &Cells) {
        let octets = self.octets();
        let rows = cells.residuals.len() as f64;
        let mut spread = vec![0.0; octets];
        for (octet, spread) in spread.iter_mut().enumerate() {
            let (mut sums, mut squares) = ([0.0; OCTET], 0.0);
            for row in cells.octets.chunks_exact(octets) {
                for (sum, cell) in sums.iter_mut().zip(row[octet].to_le_bytes()) {
                    *sum += f64::from(cell);
                    squares += f64::from(cell) * f64::from(cell);
                }
            }
            *spread = squares - sums.iter().map(|sum| sum * sum).sum::<f64>() / rows;
        }
        self.order.sort_by(|&a, &b| spread[b as usize].total_cmp(&spread[a as usize]));
        self.origins = self.order.iter().map(|&octet| self.origins[octet as usize]).collect();
    }

    /// The grid of the whole numbers from 0 to 127.
    #[cfg(test)]
    pub(super) fn whole(dim: usize) -> Self {
        let octets = dim.div_ceil(OCTET);
        let order = (0..octets as u32).collect();
        Grid { dim, order, origins: vec![[0.0; OCTET]; octets], scale: 1.0 }
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Number of octets of a row.
    pub(crate) fn octets(&self) -> usize {
        self.order.len()
    }

    /// The first `octets` octets of `rows`, each `[dim]`, in place of what was in `cells`.
    pub(super) fn quantize(
        &self,
        kernel: Kernel,
        rows: &[&[f32]],
        octets: usize,
        cells: &mut Cells,
    ) {
        assert!(octets <= self.octets() && rows.iter().all(|row| row.len() == self.dim));
        cells.clear();
        let work = Quantize { grid: self, octets, rows, cells };
        super::dispatch!(kernel, work.portable(), lanes => lanes.vectorize(work));
    }

    /// The true distance `distance`, in cells.
    pub(super) fn in_cells(&self, distance: f64) -> f64 {
        distance * f64::from(self.scale)
    }
}

/// What a sample says of one column.
struct Column {
    median: f64,
    /// Of the least and the greatest value: their middle, and the difference.
    middle: f64,
    width: f64,
}

impl Column {
    fn of(sample: &[f32], dim: usize, column: usize) -> Self {
        let mut values: Vec<f32> = sample[column..].iter().step_by(dim).copied().collect();
        let middle = values.len() / 2;
        let (below, &mut median, above) = values.select_nth_unstable_by(middle, f32::total_cmp);
        let low = f64::from(below.iter().copied().fold(median, f32::min));
        let high = f64::from(above.iter().copied().fold(median, f32::max));
        Column { median: median.into(), middle: (low + high) / 2.0, width: high - low }
    }
}

/// At most eight values; those past them are 0.
#[inline(always)]
fn padded(values: &[f32]) -> [f32; OCTET] {
    let mut all = [0.0; OCTET];
    all[..values.len()].copy_from_slice(values);
    all
}

struct Quantize<'a> {
    grid: &'a Grid,
    octets: usize,
    rows: &'a [&'a [f32]],
    cells: &'a mut Cells,
}

impl Quantize<'_> {
    fn portable(self) {
        for row in self.rows {
            let (mut residual, mut moment) = (0.0, 0);
            let (whole, rest) = row.as_chunks::<OCTET>();
            for (&octet, origin) in self.grid.order[..self.octets].iter().zip(&self.grid.origins) {
                let values = whole.get(octet as usize).copied().unwrap_or_else(|| padded(rest));
                let (cells, r, m) = portable::quantize(&values, origin, self.grid.scale);
                self.cells.octets.push(cells);
                residual += r;
                moment += m;
            }
            self.cells.residuals.push(residual);
            self.cells.moments.push(moment);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Quantize { grid, octets, rows, cells } = self;
        let count = rows.len();
        cells.octets.resize(count * octets, 0);
        cells.residuals.reserve(count);
        cells.moments.reserve(count);
        let order = &grid.order[..octets];
        let origins = &grid.origins[..octets];
        for (r, row) in rows.iter().enumerate() {
            let mut sums = lanes.no_sums();
            let (whole, rest) = row.as_chunks::<OCTET>();
            let to = &mut cells.octets[r * octets..][..octets];
            for ((to, &octet), origin) in to.iter_mut().zip(order).zip(origins) {
                *to = match whole.get(octet as usize) {
                    Some(values) => lanes.quantize(&mut sums, values, origin, grid.scale),
                    None => lanes.quantize(&mut sums, &padded(rest), origin, grid.scale),
                };
            }
            let (residual, moment) = lanes.totals(sums);
            cells.residuals.push(residual);
            cells.moments.push(moment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::*;

    /// Every instruction set finds the same cells, but for values half-way between two, and says truly how far off they
    /// are.
    #[test]
    fn residuals_are_what_cells_leave() {
        let mut random = Random(41);
        for kernel in Kernel::available() {
            for dim in [1, 3, 7, 8, 9, 16, 40, 130] {
                for scale in [1.0, 1e15, 1e-15, 1e-30] {
                    let mut rows = random.uniform(50 * dim, scale);
                    // One row far outside.
                    rows[7 * dim] = (100.0 * scale) as f32;
                    let grid = Grid::new(kernel, &rows, dim);
                    let mut cells = Cells::default();
                    let rows: Vec<&[f32]> = rows.chunks_exact(dim).collect();
                    grid.quantize(kernel, &rows, grid.octets(), &mut cells);
                    let mut far = 0;
                    for (r, row) in rows.iter().enumerate() {
                        let octets = &cells.octets[r * grid.octets()..][..grid.octets()];
                        let (mut squares, mut moment) = (0.0, 0);
                        for ((&octet, origin), cells) in
                            grid.order.iter().zip(&grid.origins).zip(octets)
                        {
                            for (i, cell) in cells.to_le_bytes().into_iter().enumerate() {
                                assert!(cell <= LAST_CELL);
                                let value =
                                    row.get(octet as usize * OCTET + i).copied().unwrap_or(0.0);
                                let place = (f64::from(value) - f64::from(origin[i]))
                                    * f64::from(grid.scale);
                                squares += (place - f64::from(cell)).powi(2);
                                moment += i32::from(cell) * (i32::from(cell) - 128);
                            }
                        }
                        assert_eq!(cells.moments[r], moment);
                        let found = f64::from(cells.residuals[r]);
                        let tolerance = squares * 1e-5 + 1e-3 * dim as f64;
                        assert!(
                            (found - squares).abs() <= tolerance,
                            "{dim} {scale:e}: {found} {squares}"
                        );
                        far += usize::from(found > 0.26 * dim as f64);
                    }
                    // Most rows are no farther than half a cell in each component.
                    assert!(
                        far <= 50 / 4,
                        "dim {dim} scale {scale:e}: {far} rows are off the grid"
                    );
                }
            }
        }
    }
}
