//! Cells that are written once, by number: the segments of a column that have been touched.
//!
//! How many there are is what a file claims, so memory must not follow from it. The first [`NEAR`]
//! have a place from the beginning, which is all that most columns need and costs a query no more
//! than a list would; the others get theirs by the page, when the first of a page is set.

use std::sync::OnceLock;

use crate::values::error::ReadError;
use crate::values::memory;

/// Cells with a place of their own from the beginning: at 40 bytes, 1.3 MB of them.
const NEAR: usize = 1 << 15;

/// Cells of a page, and pages of a book.
const PAGE: usize = 512;

type Cell<T> = OnceLock<T>;
type Page<T> = Box<[Cell<T>]>;
type Book<T> = Box<[OnceLock<Page<T>>]>;

/// A number of cells, each of them empty or set.
pub(super) struct Cells<T> {
    near: Vec<Cell<T>>,
    far: Vec<OnceLock<Book<T>>>,
    len: usize,
}

/// So many empty places.
fn empty<T>(count: usize) -> Result<Vec<OnceLock<T>>, ReadError> {
    let mut places = Vec::new();
    memory::reserve(&mut places, count, "the segments of an array")?;
    places.resize_with(count, OnceLock::new);
    Ok(places)
}

/// What is in a place, made by `make` if there is nothing. If another thread is first, its value
/// stays.
fn get_or_make<T>(
    place: &OnceLock<T>,
    make: impl FnOnce() -> Result<T, ReadError>,
) -> Result<&T, ReadError> {
    match place.get() {
        Some(value) => Ok(value),
        None => {
            let value = make()?;
            Ok(place.get_or_init(|| value))
        }
    }
}

impl<T> Cells<T> {
    /// `len` empty cells.
    pub(super) fn new(len: usize) -> Result<Self, ReadError> {
        let far = len.saturating_sub(NEAR).div_ceil(PAGE * PAGE);
        Ok(Cells { near: empty(len.min(NEAR))?, far: empty(far)?, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What a cell holds, if it is set.
    #[inline(always)]
    pub(super) fn get(&self, number: usize) -> Option<&T> {
        match self.near.get(number) {
            Some(cell) => cell.get(),
            None => self.get_far(number),
        }
    }

    /// Book, page and cell of a number.
    #[inline]
    fn place(number: usize) -> (usize, usize, usize) {
        let beyond = number.wrapping_sub(NEAR);
        (beyond / (PAGE * PAGE), beyond / PAGE % PAGE, beyond % PAGE)
    }

    #[inline(never)]
    fn get_far(&self, number: usize) -> Option<&T> {
        let (book, page, cell) = Self::place(number);
        self.far.get(book)?.get()?[page].get()?[cell].get()
    }

    /// Sets an empty cell, and returns what it holds: if another thread was first, what that has
    /// set.
    pub(super) fn set(&self, number: usize, value: T) -> Result<&T, ReadError> {
        assert!(number < self.len, "a cell that there is");
        if let Some(cell) = self.near.get(number) {
            return Ok(cell.get_or_init(|| value));
        }
        let (book, page, cell) = Self::place(number);
        let book = get_or_make(&self.far[book], || Ok(empty(PAGE)?.into_boxed_slice()))?;
        let page = get_or_make(&book[page], || Ok(empty(PAGE)?.into_boxed_slice()))?;
        Ok(page[cell].get_or_init(|| value))
    }

    /// The cell itself, if it has a place.
    fn cell_mut(&mut self, number: usize) -> Option<&mut Cell<T>> {
        if number < NEAR {
            return self.near.get_mut(number);
        }
        let (book, page, cell) = Self::place(number);
        Some(&mut self.far.get_mut(book)?.get_mut()?[page].get_mut()?[cell])
    }

    /// What a cell holds, if it is set, to be changed.
    pub(super) fn get_mut(&mut self, number: usize) -> Option<&mut T> {
        self.cell_mut(number)?.get_mut()
    }

    /// Empties a cell.
    pub(super) fn clear(&mut self, number: usize) {
        self.cell_mut(number).and_then(Cell::take);
    }

    /// Adds a cell that is set.
    pub(super) fn push(&mut self, value: T) -> Result<(), ReadError> {
        match self.len < NEAR {
            true => {
                memory::reserve(&mut self.near, 1, "the segments of an array")?;
                self.near.push(OnceLock::new());
            }
            false if Self::place(self.len).0 == self.far.len() => {
                memory::reserve(&mut self.far, 1, "the segments of an array")?;
                self.far.push(OnceLock::new());
            }
            false => {}
        }
        self.len += 1;
        self.set(self.len - 1, value).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_and_far_cells_are_alike() {
        let last = NEAR + 3 * PAGE * PAGE;
        let mut cells: Cells<usize> = Cells::new(last + 1).unwrap();
        let some = [0, 1, NEAR - 1, NEAR, NEAR + 1, NEAR + PAGE, NEAR + PAGE * PAGE, last];
        for &number in &some {
            assert_eq!(cells.get(number), None);
            assert_eq!(cells.set(number, number).unwrap(), &number);
            assert_eq!(cells.set(number, 0).unwrap(), &number, "the first one stays");
        }
        for &number in &some {
            assert_eq!(cells.get(number), Some(&number));
            *cells.get_mut(number).unwrap() += 1;
            assert_eq!(cells.get(number), Some(&(number + 1)));
            cells.clear(number);
            assert_eq!(cells.get(number), None);
            assert_eq!(cells.get_mut(number), None);
        }
        assert_eq!(cells.get(last + 1), None);
        assert_eq!(cells.get(usize::MAX), None);
    }

    #[test]
    fn pushing_goes_on_from_near_to_far() {
        let mut cells: Cells<usize> = Cells::new(0).unwrap();
        let count = NEAR + PAGE * PAGE + 2;
        (0..count).for_each(|number| cells.push(number).unwrap());
        assert_eq!(cells.len(), count);
        assert!((0..count).all(|number| cells.get(number) == Some(&number)));
    }

    #[test]
    fn a_claim_costs_little() {
        let cells: Cells<[u64; 4]> = Cells::new(1 << 36).unwrap();
        assert_eq!(cells.get(1 << 35), None);
        assert!(cells.near.len() == NEAR && cells.far.len() <= 1 << 18);
    }
}
