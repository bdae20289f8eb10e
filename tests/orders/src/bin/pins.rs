//! Pins, the gate and condemned versions, among threads of several handles, in random orders.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use shuttle::sync::Mutex;
use shuttle::thread;

#[path = "../../../../src/version/pins.rs"]
#[allow(dead_code)]
mod pins;

mod values {
    pub(crate) mod error {
        #[derive(Debug)]
        #[allow(dead_code)]
        pub(crate) struct StorageError {
            pub(crate) operation: &'static str,
            pub(crate) source: std::io::Error,
        }
    }

    pub(crate) mod options {
        #[derive(Clone, Debug, Default)]
        pub(crate) struct CancelToken;

        impl CancelToken {
            pub(crate) fn is_cancelled(&self) -> bool {
                false
            }
        }
    }

    /// The mistakes that the library can be made to make, so that this checker can be checked.
    pub(crate) mod seeded_bug {
        use std::sync::Mutex;

        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) enum SeededBug {
            UnlockWriterAtGate,
            OwnPinsOnly,
            LookForPinsOnly,
            UnpinAtFirstDrop,
        }

        pub(crate) static PLANTED: Mutex<Option<SeededBug>> = Mutex::new(None);

        impl SeededBug {
            pub(crate) fn is_planted(self) -> bool {
                *PLANTED.lock().unwrap() == Some(self)
            }
        }
    }
}

mod arena {
    use super::Description;

    /// One open file.
    pub(crate) struct Arena(pub(crate) Description);

    impl Arena {
        pub(crate) fn storage(&self) -> &dyn storage::Storage {
            &self.0
        }

        pub(crate) fn owner(&self) -> Owner {
            Owner
        }
    }

    pub(crate) struct Owner;

    impl Owner {
        pub(crate) fn is_elsewhere(&self) -> bool {
            false
        }
    }

    pub(crate) mod lock {
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) enum LockRange {
            Writer,
            Turn,
            Gate,
            Versions { first: u64, last: u64 },
        }

        #[derive(Clone, Copy, Debug, PartialEq)]
        pub(crate) enum Hold {
            Shared,
            Exclusive,
            Nothing,
        }
    }

    pub(crate) mod storage {
        use super::lock::{Hold, LockRange};
        use crate::values::error::StorageError;

        pub(crate) trait Storage {
            fn lock(&self, range: LockRange, hold: Hold) -> Result<bool, StorageError>;
            fn is_locked_elsewhere(&self, range: LockRange) -> Result<bool, StorageError>;
            fn clock(&self) -> std::time::Duration;
            fn pause(&self, time: std::time::Duration);
        }
    }

    pub(crate) mod sync {
        pub(crate) use shuttle::sync::{Mutex, MutexGuard};
        pub(crate) mod atomic {
            pub(crate) use shuttle::sync::atomic::{AtomicBool, Ordering};
        }
    }
}

use arena::Arena;
use arena::lock::{Hold, LockRange};
use arena::storage::Storage;
use pins::{Patience, Pins};
use values::error::StorageError;
use values::seeded_bug::{PLANTED, SeededBug};

const ORDERS: usize = 5_000;
const VERSIONS: u64 = 3;

/// The kernel's table of locks: who holds which place, and how.
type Locks = BTreeMap<u64, BTreeMap<usize, Hold>>;

/// One open file description of a file: what it holds is replaced by what it asks for, others are
/// in its way.
struct Description {
    locks: Arc<Mutex<Locks>>,
    number: usize,
}

impl Storage for Description {
    fn lock(&self, range: LockRange, hold: Hold) -> Result<bool, StorageError> {
        let places = match range {
            LockRange::Writer => 1_000..=1_000,
            LockRange::Turn => 1_001..=1_001,
            LockRange::Gate => 1_002..=1_002,
            LockRange::Versions { first, last } => first..=last,
        };
        let mut locks = self.locks.lock().unwrap();
        let in_the_way = |place: u64| {
            locks.get(&place).is_some_and(|holders| {
                holders.iter().any(|(&number, &held)| {
                    let excludes = hold == Hold::Exclusive || held == Hold::Exclusive;
                    number != self.number && excludes
                })
            })
        };
        if hold != Hold::Nothing && places.clone().any(in_the_way) {
            return Ok(false);
        }
        for place in places {
            let holders = locks.entry(place).or_default();
            match hold {
                Hold::Nothing => drop(holders.remove(&self.number)),
                _ => drop(holders.insert(self.number, hold)),
            }
        }
        Ok(true)
    }

    fn is_locked_elsewhere(&self, _: LockRange) -> Result<bool, StorageError> {
        unreachable!("nobody previews an expiry here")
    }

    fn clock(&self) -> Duration {
        Duration::ZERO
    }

    fn pause(&self, _: Duration) {
        thread::yield_now();
    }
}

/// A file, and what has become of its versions.
#[derive(Clone, Default)]
struct File {
    locks: Arc<Mutex<Locks>>,
    /// Versions that the newest commit does not retain.
    expired: Arc<Mutex<BTreeSet<u64>>>,
    /// Versions whose bytes are gone.
    punched: Arc<Mutex<BTreeSet<u64>>>,
    /// The file has a writer.
    written: Arc<Mutex<bool>>,
}

impl File {
    fn open(&self, number: usize, reader: bool) -> Arc<Pins> {
        let arena = Arc::new(Arena(Description { locks: self.locks.clone(), number }));
        Pins::new(arena, reader, Patience::default())
    }

    /// Opens `version` as a handle does, and looks whether its bytes stay as long as it is open.
    /// Twice by one handle, because pins are counted.
    fn read(&self, pins: &Arc<Pins>, version: u64) {
        let open = || {
            let _gate = pins.enter().unwrap();
            let pin = pins.pin(version).unwrap()?;
            (!self.expired.lock().unwrap().contains(&version)).then_some(pin)
        };
        let first = open();
        let look =
            || assert!(!self.punched.lock().unwrap().contains(&version), "{version} is gone");
        let second = open();
        if first.is_some() {
            look();
        }
        drop(first);
        // Time enough for a writer to let it go.
        (0..20).for_each(|_| thread::yield_now());
        if second.is_some() {
            look();
        }
    }

    /// Lets go what nobody has open of `versions`.
    fn expire(&self, pins: &Arc<Pins>, versions: &[u64]) {
        let condemned = pins.condemn(versions).unwrap();
        let gate = pins.close().unwrap();
        self.expired.lock().unwrap().extend(&condemned.versions);
        drop(gate);
        self.punched.lock().unwrap().extend(&condemned.versions);
    }
}

/// A writer, threads that read through its handle, and two readers with handles of their own.
fn what_is_open_stays() {
    let file = File::default();
    let writer = file.open(0, false);
    let handles = [writer.clone(), file.open(1, true), file.open(2, true)];
    let readers = handles.into_iter().enumerate().map(|(number, pins)| {
        let file = file.clone();
        thread::spawn(move || {
            for round in 0..2 {
                file.read(&pins, 1 + (number as u64 + round) % VERSIONS);
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    for _ in 0..4 {
        let left: Vec<u64> = (1..=VERSIONS)
            .filter(|version| !file.punched.lock().unwrap().contains(version))
            .collect();
        file.expire(&writer, &left);
    }
    readers.into_iter().for_each(|reader| reader.join().unwrap());
}

/// A writer ends while threads go on reading through its handle, and another one takes its place.
fn who_ends_hands_its_pins_over() {
    let file = File::default();
    *file.written.lock().unwrap() = true;
    let first = file.open(0, false);
    let reading = {
        let (file, pins) = (file.clone(), first.clone());
        thread::spawn(move || {
            for version in 1..=2 {
                file.read(&pins, version);
            }
        })
    };
    let next = {
        let file = file.clone();
        thread::spawn(move || {
            for _ in 0..20 {
                if !*file.written.lock().unwrap() {
                    return file.expire(&file.open(1, false), &[1, 2]);
                }
                thread::yield_now();
            }
        })
    };
    if first.hand_over().unwrap() {
        *file.written.lock().unwrap() = false;
    }
    reading.join().unwrap();
    next.join().unwrap();
}

/// With the name of a mistake as its argument: plants it, and should fail.
fn main() {
    if let Some(name) = std::env::args().nth(1) {
        let bugs =
            [SeededBug::OwnPinsOnly, SeededBug::LookForPinsOnly, SeededBug::UnpinAtFirstDrop];
        let bug = bugs.into_iter().find(|bug| format!("{bug:?}") == name);
        *PLANTED.lock().unwrap() = Some(bug.expect("the name of a mistake"));
        shuttle::check_random(what_is_open_stays, 20 * ORDERS);
    }
    shuttle::check_random(what_is_open_stays, ORDERS);
    shuttle::check_random(who_ends_hands_its_pins_over, ORDERS);
    println!("pins: {} orders", 2 * ORDERS);
}
