//! Rows as bytes, laid out for filtering: by sixteens in *panels*, so that every lane is a row and
//! nothing is added across lanes.

use super::Kernel;
#[cfg(target_arch = "x86_64")]
use super::lanes::{Job, Lanes};
use super::scalar::LANES;

/// Eight cells of sixteen rows: the first four of each, then the last four. Aligned, so that no
/// load straddles two cache lines.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Octet(pub(super) [[i32; LANES]; 2]);

/// The first and the last four cells.
#[inline(always)]
pub(super) fn halves(octet: u64) -> [i32; 2] {
    [octet as i32, (octet >> 32) as i32]
}

/// Rows of equally many octets. Lanes of the last panel that are past the last row are zeros.
#[derive(Default)]
pub(super) struct Panels {
    /// Per row.
    pub(super) octets: usize,
    /// `[panels][octets]`.
    pub(super) cells: Vec<Octet>,
    /// Per panel, for each row, half the sum of c (c - 2 shift) over its cells c, negated and
    /// rounded up.
    pub(super) starts: Vec<[i32; LANES]>,
}

impl Panels {
    /// Puts `rows`, `[rows][octets]`, in place of what was there.
    ///
    /// `shift`: half the number of cells of the grid.
    pub(super) fn lay(&mut self, kernel: Kernel, rows: &[u64], octets: usize, shift: u8) {
        let panels = (rows.len() / octets).div_ceil(LANES);
        self.octets = octets;
        self.cells.resize(panels * octets, Octet([[0; LANES]; 2]));
        self.starts.resize(panels, [0; LANES]);
        let work = Lay { rows, shift, panels: self };
        super::dispatch!(kernel, work.portable(), lanes => lanes.vectorize(work));
    }
}

struct Lay<'a> {
    rows: &'a [u64],
    shift: u8,
    panels: &'a mut Panels,
}

impl Lay<'_> {
    fn portable(self) {
        let Lay { rows, shift, panels } = self;
        let octets = panels.octets;
        let to = panels.cells.chunks_exact_mut(octets).zip(&mut panels.starts);
        for ((panel, starts), rows) in to.zip(rows.chunks(LANES * octets)) {
            panel.fill(Octet([[0; LANES]; 2]));
            starts.fill(0);
            for (lane, (row, start)) in rows.chunks_exact(octets).zip(starts).enumerate() {
                let mut moment = 0;
                for (to, &octet) in panel.iter_mut().zip(row) {
                    let [first, second] = halves(octet);
                    (to.0[0][lane], to.0[1][lane]) = (first, second);
                    for cell in octet.to_le_bytes() {
                        moment += i32::from(cell) * (i32::from(cell) - 2 * i32::from(shift));
                    }
                }
                *start = -(moment >> 1);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
impl Job for Lay<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Lay { rows, shift, panels } = self;
        let octets = panels.octets;
        let to = panels.cells.chunks_exact_mut(octets).zip(&mut panels.starts);
        for ((panel, start), rows) in to.zip(rows.chunks(LANES * octets)) {
            // Past the last row come rows of no cells.
            let mut sixteen: [&[u64]; LANES] = [&[]; LANES];
            for (to, row) in sixteen.iter_mut().zip(rows.chunks_exact(octets)) {
                *to = row;
            }
            let (pairs, lone) = panel.as_chunks_mut::<2>();
            for (i, [first, second]) in pairs.iter_mut().enumerate() {
                let mut two = [&[0; 2]; LANES];
                for (to, row) in two.iter_mut().zip(&sixteen) {
                    *to = row.as_chunks().0.get(i).unwrap_or(&[0; 2]);
                }
                let columns = lanes.columns(&two);
                for (column, to) in columns.into_iter().zip(first.0.iter_mut().chain(&mut second.0))
                {
                    lanes.store_ints(column, to);
                }
            }
            for to in lone {
                to.0 = [[0; LANES]; 2];
                for (lane, row) in rows.chunks_exact(octets).enumerate() {
                    [to.0[0][lane], to.0[1][lane]] = halves(row[octets - 1]);
                }
            }
            let mut moments = lanes.load_ints(&[0; LANES]);
            for rows in &*panel {
                moments = lanes.add_moments(moments, &rows.0, shift);
            }
            lanes.store_ints(moments, start);
            *start = start.map(|moment| -(moment >> 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Random;
    use super::*;

    /// Every instruction set lays the same bytes in the same places.
    #[test]
    fn every_row_is_a_lane() {
        let mut random = Random(43);
        for kernel in Kernel::available() {
            let mut panels = Panels::default();
            for (last, shift) in [(127, 64), (kernel.last_cell(1), kernel.last_cell(1) / 2 + 1)] {
                for (count, octets) in [(40, 3), (1, 1), (16, 2), (17, 5), (33, 16), (5, 70)] {
                    let mut cell = || ((random.next() >> 20) % (u64::from(last) + 1)) as u8;
                    let rows: Vec<u64> = (0..count * octets)
                        .map(|_| u64::from_le_bytes(std::array::from_fn(|_| cell())))
                        .collect();
                    panels.lay(kernel, &rows, octets, shift);
                    assert_eq!(panels.starts.len(), count.div_ceil(LANES));
                    assert_eq!(panels.cells.len(), panels.starts.len() * octets);
                    for row in 0..panels.starts.len() * LANES {
                        let (panel, lane) = (row / LANES, row % LANES);
                        let mut moment = 0;
                        for octet in 0..octets {
                            let place = panels.cells[panel * octets + octet].0.map(|i| i[lane]);
                            let expected = rows.get(row * octets + octet).copied().unwrap_or(0);
                            assert_eq!(place, halves(expected), "row {row} octet {octet}");
                            for cell in expected.to_le_bytes().map(i32::from) {
                                moment += cell * (cell - 2 * i32::from(shift));
                            }
                        }
                        assert_eq!(panels.starts[panel][lane], -(moment >> 1), "row {row}");
                    }
                }
            }
        }
    }
}
