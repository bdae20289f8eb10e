//! The table of guarded maps, in every order that the memory model allows.

use std::sync::Arc;

use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use loom::thread;

#[path = "../../../../src/arena/fault_table.rs"]
mod fault_table;

mod arena {
    pub(crate) mod sync {
        pub(crate) mod atomic {
            pub(crate) use loom::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};
        }
    }
}

use fault_table::{Place, Table};

const LEN: usize = 100;

fn table<const N: usize>() -> Arc<Table<N>> {
    let place = |_| Place { start: AtomicUsize::new(0), damaged: AtomicBool::new(false) };
    Arc::new(Table { places: std::array::from_fn(place), damaged: AtomicUsize::new(0) })
}

/// What a thread reads where a map was: 0 as long as that is there, else the handler's zeros. The
/// system call that puts them there is a release at least.
#[derive(Clone)]
struct Page(Arc<AtomicUsize>);

impl Page {
    fn replace(&self) {
        self.0.store(1, Ordering::Release);
    }

    fn is_zeros(&self) -> bool {
        self.0.load(Ordering::Relaxed) == 1
    }
}

/// Whoever has read zeros is told, though another map is marked and given back meanwhile.
fn no_zero_is_believed() {
    let table = table::<2>();
    let (page, place) = (Page(Arc::new(AtomicUsize::new(0))), table.take(1_000).unwrap());
    let faulting = {
        let (table, page) = (table.clone(), page.clone());
        thread::spawn(move || {
            assert_eq!(table.mark(1_050, LEN), Some(1_000));
            page.replace();
            assert!(table.any_damaged());
        })
    };
    let other = {
        let table = table.clone();
        thread::spawn(move || {
            let place = table.take(5_000).unwrap();
            assert_eq!(table.mark(5_099, LEN), Some(5_000));
            table.give_back(place);
        })
    };
    if page.is_zeros() {
        assert!(table.any_damaged());
    }
    faulting.join().unwrap();
    other.join().unwrap();
    assert!(table.is_damaged(place) && table.any_damaged());
    table.give_back(place);
    assert!(!table.any_damaged(), "nothing is left");
}

/// Two threads fault in the same map: it is marked once.
fn one_map_counts_once() {
    let table = table::<1>();
    let place = table.take(1_000).unwrap();
    let threads = [1_000, 1_099].map(|address| {
        let table = table.clone();
        thread::spawn(move || assert_eq!(table.mark(address, LEN), Some(1_000)))
    });
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(table.mark(1_100, LEN), None, "beyond it");
    table.give_back(place);
    assert!(!table.any_damaged());
}

/// A place belongs to one guard, and is free of marks when it is taken again.
fn a_place_is_taken_once() {
    let table = table::<1>();
    let threads = [1_000, 5_000].map(|start| {
        let table = table.clone();
        thread::spawn(move || {
            let Some(place) = table.take(start) else { return false };
            assert!(!table.is_damaged(place));
            assert_eq!(table.mark(start, LEN), Some(start));
            table.give_back(place);
            true
        })
    });
    let taken = threads.map(|thread| thread.join().unwrap());
    assert!(taken.contains(&true) && !table.any_damaged());
}

fn main() {
    loom::model(no_zero_is_believed);
    loom::model(one_map_counts_once);
    loom::model(a_place_is_taken_once);
    println!("fault table: every order");
}
