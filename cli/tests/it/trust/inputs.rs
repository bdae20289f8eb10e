//! Arbitrary bytes for the readers of the command's inputs: `.npy` arrays and text, of rows and of
//! ids. Whole inputs are changed here and there; what comes out must be whole rows, the same from a
//! file and from a pipe, or a typed error.
//!
//! The targets of `fuzz/` call [`npy`] and [`csv`]; the test at the end calls them with seeded
//! input.

use treering_cli::readers::{InputForm, read_ids, read_rows};

/// An array as NumPy writes it.
fn array(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
    let order = if fortran { "True" } else { "False" };
    let mut header =
        format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    while !(10 + header.len() + 1).is_multiple_of(64) {
        header.push(' ');
    }
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// Whole arrays of every type and order.
fn arrays() -> Vec<Vec<u8>> {
    let floats: Vec<u8> = (0..60).flat_map(|i| (i as f32 * 0.5).to_le_bytes()).collect();
    let doubles: Vec<u8> = (0..60).flat_map(|i| f64::from(i).to_le_bytes()).collect();
    let ids: Vec<u8> = (0..60u64).flat_map(u64::to_le_bytes).collect();
    vec![
        array("<f4", false, "(20, 3)", &floats),
        array("<f4", true, "(20, 3)", &floats),
        array("<f8", false, "(12, 5)", &doubles),
        array("<f8", true, "(12, 5)", &doubles),
        array("|u1", false, "(30, 8)", &floats),
        array("<u8", false, "(60,)", &ids),
        array("<i8", false, "(60,)", &ids),
    ]
}

/// Whole texts.
fn texts() -> [&'static str; 5] {
    [
        "1,2,3\n4,5,6\n7,8,9\n-1e3,0.25,1e-45\n",
        "x,y\r\n0.5, 1.5\r\n\r\n\"2\",3\r\n",
        "3.5\n-0\n1e38\n",
        "0\n1\n\n 18446744073709551615 \n",
        "a,b\n",
    ]
}

/// Changes bytes of a whole input: three bytes of `data` each, for the place, what is done there,
/// and with what.
fn changed(mut whole: Vec<u8>, data: &[u8], telling: &[u8]) -> Vec<u8> {
    for change in data.chunks_exact(3) {
        let at = usize::from(change[0]) * (1 + usize::from(change[1] >> 4)) % (whole.len() + 1);
        let value = match change[1] & 1 {
            0 => change[2],
            _ => telling[usize::from(change[2]) % telling.len()],
        };
        match change[1] >> 1 & 7 {
            0 => whole.truncate(at),
            1 => drop(whole.splice(at..at, vec![value; usize::from(change[2])])),
            2 => whole.insert(at, value),
            3 => drop(whole.splice(at..(at + 1).min(whole.len()), [])),
            _ if at < whole.len() => whole[at] = value,
            _ => whole.push(value),
        }
    }
    whole
}

/// Reads rows and ids, as from a file and as from a pipe.
fn read(bytes: &[u8], npy: bool) {
    let [file, pipe] = [false, true].map(|piped| InputForm { npy, piped });
    let (a, b) = (read_rows(bytes.to_vec(), file), read_rows(bytes.to_vec(), pipe));
    match (&a, &b) {
        (Ok((dim, values)), Ok((_, piped))) => {
            assert!(*dim > 0 && values.len().is_multiple_of(*dim), "parts of rows");
            assert!(values.len() <= bytes.len(), "more values than bytes");
            assert!(values.iter().zip(piped).all(|(a, b)| a.to_bits() == b.to_bits()));
            assert_eq!(values.len(), piped.len(), "a pipe has other rows");
        }
        (Err(a), Err(b)) => assert!(!a.to_string().is_empty() && !b.to_string().is_empty()),
        other => panic!("a file and a pipe are read differently: {other:?}"),
    }
    let (a, b) = (read_ids(bytes.to_vec(), file), read_ids(bytes.to_vec(), pipe));
    match (&a, &b) {
        (Ok(a), Ok(b)) => assert!(a == b && a.len() <= bytes.len()),
        (Err(a), Err(b)) => assert!(!a.to_string().is_empty() && !b.to_string().is_empty()),
        other => panic!("a file and a pipe are read differently: {other:?}"),
    }
}

/// `.npy` arrays. The first byte of `data` says which of them is changed.
pub(crate) fn npy(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let mut whole = arrays();
    let whole = whole.swap_remove(usize::from(first) % whole.len());
    read(&changed(whole, data, b"0123456789()[]{}'\",: \n<>|=fiuTFSO\x01\x02\x93\xff"), true);
}

/// Text. The first byte of `data` says which is changed.
pub(crate) fn csv(data: &[u8]) {
    let Some((&first, data)) = data.split_first() else { return };
    let whole = texts()[usize::from(first) % texts().len()].as_bytes().to_vec();
    read(&changed(whole, data, b"0123456789,\"\r\n +-.eEinfaN\xff\xef\xbb\xbf#;"), false);
}

#[cfg(test)]
mod tests {
    use super::super::figures::{say, scale};
    use super::*;
    use crate::allocation::largest_of;
    use crate::common::Random;

    /// What the readers set aside whatever they read: pieces of 1 MiB, and as much again while a
    /// vector grows.
    const PIECES: usize = 2 << 20;

    #[test]
    fn no_input_breaks_a_reader() {
        let targets = [("npy", npy as fn(&[u8])), ("csv", csv)];
        let rounds = scale(2_000, 20_000);
        let mut random = Random(6);
        for round in 0..rounds {
            let (name, target) = targets[round % 2];
            let len = 1 + 3 * random.below(8) as usize;
            let data: Vec<u8> = (0..len).map(|_| random.next() as u8).collect();
            let largest = largest_of(|| {
                let done = std::panic::catch_unwind(|| target(&data));
                assert!(done.is_ok(), "{name} with {data:?}");
            });
            assert!(largest <= PIECES, "{name} asks for {largest} bytes, with {data:?}");
        }
        say("inputs to readers", rounds);
    }

    /// Changes must not make everything an error, or nothing is tried behind the first check.
    #[test]
    fn what_is_not_changed_is_read() {
        let rows = |bytes: Vec<u8>, npy| read_rows(bytes, InputForm { npy, piped: false });
        let ids = |bytes: Vec<u8>, npy| read_ids(bytes, InputForm { npy, piped: false });
        let counts = arrays().into_iter().map(|whole| match rows(whole.clone(), true) {
            Ok((dim, values)) => values.len() / dim,
            Err(_) => ids(whole, true).unwrap().len(),
        });
        assert_eq!(Vec::from_iter(counts), [20, 20, 12, 12, 30, 60, 60]);
        let counts = texts().map(|text| rows(text.into(), false).map(|(_, values)| values.len()));
        // The last is a header without rows.
        assert!(matches!(counts, [Ok(12), Ok(4), Ok(3), Ok(3), Err(_)]), "{counts:?}");
        assert_eq!(ids(texts()[3].into(), false).unwrap().len(), 3);
        for first in 0..=255 {
            npy(&[first]);
            csv(&[first]);
        }
    }

    /// Headers that promise much, of files and of pipes that hold little.
    #[test]
    fn promises_are_not_believed() {
        for shape in [
            "(1000000000, 1000)",
            "(1, 4611686018427387904)",
            "(4611686018427387904, 1)",
            "(0, 4611686018427387904)",
        ] {
            for (descr, fortran) in [("<f4", false), ("<f4", true), ("|u1", true), ("<f8", false)] {
                let whole = array(descr, fortran, shape, &[0; 800]);
                assert!(largest_of(|| read(&whole, true)) <= PIECES, "{descr} {shape}");
            }
        }
        let whole = array("<u8", false, "(1000000000000,)", &[0; 800]);
        assert!(largest_of(|| read(&whole, true)) <= PIECES);
    }
}
