//! A grid laid over the values: rows as bytes, eight components at a time, and how far a row is
//! from what its bytes say.
//!
//! The grid is chosen from a sample of the values. A bad choice costs time only: what lies between
//! cells, or beyond the last of them, shows in the error of its row, and B4 (`bounds.rs`) takes
//! errors into account. Values that are whole numbers, or multiples of anything else, lie in the
//! middle of their cells, as far as there are enough of these, and err by hardly anything.

#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
use super::{Kernel, portable};

/// Components that are quantised together.
pub(crate) const OCTET: usize = 8;

/// Cells per unit stay between the inverse of this and this, so that nothing overflows but what
/// lies far outside.
const MOST_SCALE: f64 = (1_u128 << 100) as f64;

/// Halvings of the grid that are tried, at most: more than f32 has exponents for.
const MOST_HALVINGS: usize = 100;

/// Most components that are laid on more than 128 cells.
const MOST_FINE: usize = 8192;

/// Columns, at most, that are asked for the spacing of the values.
const SPACED_COLUMNS: usize = 8;

/// The stride of the values of the sample that tell the median: it need not be the very one.
const MEDIAN_STEP: usize = 4;

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
    /// The highest cell; the lowest is 0.
    last: u8,
}

/// Rows as bytes.
#[derive(Debug, Default)]
pub(super) struct Cells {
    /// `[rows][octets]`: eight cells, the first component's in the lowest byte.
    pub(super) octets: Vec<u64>,
    /// Per row, an f32 sum of the squares of what its components differ from their cells by, in
    /// cells.
    pub(super) residuals: Vec<f32>,
}

impl Grid {
    /// A grid for values like those of `rows` and of `queries`, each row-major `[a x dim]`, the
    /// first not empty.
    ///
    /// Rows whose values lie on a lattice of few enough places get a cell for each. Otherwise the
    /// widest column fits the grid, unless a few rows far from all others make that too coarse: the
    /// grid is halved, towards the medians, as long as most of the sample comes nearer to its
    /// cells.
    pub(crate) fn new(kernel: Kernel, rows: &[f32], queries: &[f32], dim: usize) -> Self {
        assert!(!rows.is_empty(), "a grid is made for some rows");
        let (middles, width) = extent([rows, queries], dim);
        let last = kernel.last_cell(dim);
        let sample = [rows, queries].map(|rows| rows.chunks_exact(dim).collect::<Vec<_>>());
        let mut cells = Cells::default();
        let (mut best, mut least) = (None, f64::INFINITY);
        let spacing = spacing(rows, dim);
        if spacing.is_finite() && width <= spacing * f64::from(last) {
            let origin = |(middle, &place): (&f64, &f32)| {
                let wanted = middle - spacing * f64::from(last) / 2.0;
                let place = f64::from(place);
                (place + ((wanted - place) / spacing).round() * spacing) as f32
            };
            let grid = Grid::at(middles.iter().zip(rows).map(origin), 1.0 / spacing, last);
            least = grid.error(kernel, &sample, &mut cells);
            best = Some(grid);
        }
        let mut medians = Vec::new();
        for halvings in 0..MOST_HALVINGS {
            let part = 0.5_f64.powi(halvings as i32);
            let scale = f64::from(last) / (width * (1.0 + 1.0 / 16.0) * part);
            let scale = scale.clamp(1.0 / MOST_SCALE, MOST_SCALE);
            let half = f64::from(last) / scale / 2.0;
            if halvings == 1 {
                medians = (0..dim).map(|column| median(rows, dim, column)).collect();
            }
            let origin = |(column, &middle): (usize, &f64)| {
                let median = medians.get(column).copied().unwrap_or(middle);
                (median + (middle - median) * part - half) as f32
            };
            let grid = Grid::at(middles.iter().enumerate().map(origin), scale, last);
            let error = grid.error(kernel, &sample, &mut cells);
            if best.is_some() && error >= least {
                break;
            }
            (best, least) = (Some(grid), error);
        }
        let mut grid = best.expect("the first grid is taken whatever its error");
        grid.quantize(kernel, &sample[0], grid.octets(), &mut cells);
        grid.sort(&cells);
        grid
    }

    /// A grid with these origins, one for each component.
    fn at(origins: impl Iterator<Item = f32>, scale: f64, last: u8) -> Self {
        let origins: Vec<f32> = origins.collect();
        Grid {
            dim: origins.len(),
            order: (0..origins.len().div_ceil(OCTET) as u32).collect(),
            origins: origins.chunks(OCTET).map(padded).collect(),
            scale: scale.clamp(1.0 / MOST_SCALE, MOST_SCALE) as f32,
            last,
        }
    }

    /// How far most rows are from their cells, and most queries, together.
    fn error(&self, kernel: Kernel, sample: &[Vec<&[f32]>; 2], cells: &mut Cells) -> f64 {
        let mut error = 0.0;
        for rows in sample.iter().filter(|rows| !rows.is_empty()) {
            self.quantize(kernel, rows, self.octets(), cells);
            let most = cells.residuals.len() * 7 / 8;
            let (_, residual, _) = cells.residuals.select_nth_unstable_by(most, f32::total_cmp);
            error += f64::from(*residual).sqrt();
        }
        error / f64::from(self.scale)
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

    /// The grid of the whole numbers from 0 to the last cell.
    #[cfg(test)]
    pub(super) fn whole(kernel: Kernel, dim: usize) -> Self {
        Grid::at(std::iter::repeat_n(0.0, dim), 1.0, kernel.last_cell(dim))
    }

    pub(super) fn dim(&self) -> usize {
        self.dim
    }

    /// Number of octets of a row.
    pub(crate) fn octets(&self) -> usize {
        self.order.len()
    }

    /// Half the number of cells of a component.
    pub(super) fn shift(&self) -> u8 {
        self.last / 2 + 1
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
        cells.octets.resize(rows.len() * octets, 0);
        cells.residuals.clear();
        let work = Quantize { grid: self, octets, rows, cells };
        super::dispatch!(kernel, work.portable(), lanes => lanes.vectorize(work));
    }

    /// The true distance `distance`, in cells.
    pub(super) fn in_cells(&self, distance: f64) -> f64 {
        distance * f64::from(self.scale)
    }
}

impl Kernel {
    /// The highest cell of rows of `dim` components, the lowest being 0: 127 or 255.
    ///
    /// What is multiplied without loss decides. Beyond some thousand components sums of the greater
    /// cells would not leave room for what lets rows pass unseen (`filter.rs`).
    pub(super) fn last_cell(self, dim: usize) -> u8 {
        #[cfg(target_arch = "x86_64")]
        fn of<L: Lanes>(_: L) -> u8 {
            L::LAST_CELL
        }
        let last = super::dispatch!(self, 255, lanes => of(lanes));
        if dim <= MOST_FINE { last } else { 127 }
    }
}

/// The least difference between two values of a column, in a few of the columns; infinite if there
/// is none.
fn spacing(rows: &[f32], dim: usize) -> f64 {
    let mut least = f64::INFINITY;
    for column in (0..dim).step_by(dim.div_ceil(SPACED_COLUMNS)) {
        let mut values: Vec<f32> = rows[column..].iter().step_by(dim).copied().collect();
        values.sort_unstable_by(f32::total_cmp);
        let differences = values.windows(2).map(|pair| f64::from(pair[1]) - f64::from(pair[0]));
        least = differences.filter(|&difference| difference > 0.0).fold(least, f64::min);
    }
    least
}

/// The middle between the least and the greatest value of each column, and how far these are apart
/// at most.
fn extent(sample: [&[f32]; 2], dim: usize) -> (Vec<f64>, f64) {
    let (mut low, mut high) = (vec![f32::INFINITY; dim], vec![f32::NEG_INFINITY; dim]);
    for row in sample.iter().flat_map(|rows| rows.chunks_exact(dim)) {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(row) {
            (*low, *high) = (low.min(value), high.max(value));
        }
    }
    let ends = low.into_iter().zip(high).map(|(low, high)| (f64::from(low), f64::from(high)));
    let width = ends.clone().map(|(low, high)| high - low).fold(0.0, f64::max);
    (ends.map(|(low, high)| (low + high) / 2.0).collect(), width)
}

/// A value of the column that about as many of the sample are below as above.
fn median(sample: &[f32], dim: usize, column: usize) -> f64 {
    let mut values: Vec<f32> =
        sample[column..].iter().step_by(dim * MEDIAN_STEP).copied().collect();
    let middle = values.len() / 2;
    (*values.select_nth_unstable_by(middle, f32::total_cmp).1).into()
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
        let Quantize { grid, octets, rows, cells } = self;
        for (row, to) in rows.iter().zip(cells.octets.chunks_exact_mut(octets)) {
            let (whole, rest) = row.as_chunks();
            let rest = padded(rest);
            let mut sum = 0.0;
            for ((to, &octet), origin) in to.iter_mut().zip(&grid.order).zip(&grid.origins) {
                let values = whole.get(octet as usize).unwrap_or(&rest);
                let residual;
                (*to, residual) = portable::quantize(values, origin, grid.scale, grid.last.into());
                sum += residual;
            }
            cells.residuals.push(sum);
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for Quantize<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        const NONE: [f32; OCTET] = [0.0; OCTET];
        let Quantize { grid, octets, rows, cells } = self;
        let (orders, lone_order) = grid.order[..octets].as_chunks::<2>();
        let (origins, lone_origin) = grid.origins[..octets].as_chunks::<2>();
        let (scale, last) = (grid.scale, grid.last.into());
        cells.residuals.reserve(rows.len());
        for (row, to) in rows.iter().zip(cells.octets.chunks_exact_mut(octets)) {
            let (whole, rest) = row.as_chunks();
            let rest = padded(rest);
            let octet = |i: u32| whole.get(i as usize).unwrap_or(&rest);
            let mut sum = lanes.zero();
            let (pairs, lone) = to.as_chunks_mut::<2>();
            for ((to, order), origin) in pairs.iter_mut().zip(orders).zip(origins) {
                let values = lanes.load_halves(octet(order[0]), octet(order[1]));
                let origin = lanes.load_halves(&origin[0], &origin[1]);
                (sum, *to) = lanes.quantize(sum, values, origin, scale, last);
            }
            for ((to, &order), origin) in lone.iter_mut().zip(lone_order).zip(lone_origin) {
                let values = lanes.load_halves(octet(order), &NONE);
                let origin = lanes.load_halves(origin, &NONE);
                let both;
                (sum, both) = lanes.quantize(sum, values, origin, scale, last);
                *to = both[0];
            }
            cells.residuals.push(lanes.total(sum));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::*;

    /// Every instruction set finds the same cells, but for values half-way between two, and says
    /// truly how far off they are.
    #[test]
    fn residuals_are_what_cells_leave() {
        let mut random = Random(41);
        for kernel in Kernel::available() {
            for dim in [1, 3, 7, 8, 9, 16, 40, 130] {
                for scale in [1.0, 1e15, 1e-15, 1e-30] {
                    let mut rows = random.uniform(50 * dim, scale);
                    // One row far outside.
                    rows[7 * dim] = (100.0 * scale) as f32;
                    let grid = Grid::new(kernel, &rows, &[], dim);
                    let mut cells = Cells::default();
                    let rows: Vec<&[f32]> = rows.chunks_exact(dim).collect();
                    grid.quantize(kernel, &rows, grid.octets(), &mut cells);
                    let mut far = 0;
                    for (r, row) in rows.iter().enumerate() {
                        let octets = &cells.octets[r * grid.octets()..][..grid.octets()];
                        let mut squares = 0.0;
                        for ((&octet, origin), cells) in
                            grid.order.iter().zip(&grid.origins).zip(octets)
                        {
                            for (i, cell) in cells.to_le_bytes().into_iter().enumerate() {
                                assert!(cell <= grid.last);
                                let value =
                                    row.get(octet as usize * OCTET + i).copied().unwrap_or(0.0);
                                let place = (f64::from(value) - f64::from(origin[i]))
                                    * f64::from(grid.scale);
                                squares += (place - f64::from(cell)).powi(2);
                            }
                        }
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
