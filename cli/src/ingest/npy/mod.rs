//! NumPy's `.npy`: a text header, then the values of one array.
//!
//! Points are an n x d array of little-endian `f32`, `f64` (each rounded to the nearest `f32`) or
//! `u8`; ids a one-dimensional array of `u64` or of `i64` from 0 up. C order is read piece by
//! piece. Fortran order is read first, into a temporary file if it is much, and transposed piece by
//! piece. The length of a regular file is compared with what its header promises before anything is
//! allocated; of a pipe no more is allocated than has arrived, give or take a factor of two.

mod header;
mod rows;
mod values;

use std::path::Path;

use super::{IdSource, IngestError, Input, RowSource, Watch};
use header::Header;
use values::{Element, Values};

/// Types accepted as coordinates.
const POINT_TYPES: &str = "float32, float64 or uint8 (little-endian)";
/// Types accepted as ids.
const ID_TYPES: &str = "uint64 or int64 (little-endian)";

/// Opens an input as rows of coordinates.
pub(super) fn open_rows(
    mut input: Input,
    temporary: &Path,
    watch: Option<Watch>,
) -> Result<Box<dyn RowSource>, IngestError> {
    let header = Header::read(&mut input)?;
    let element = match header.element {
        Some(Element::F32 | Element::F64 | Element::U8) => header.element,
        _ => None,
    };
    let Some(element) = element else {
        return Err(IngestError::NpyType {
            file: input.label,
            found: header.descr,
            wanted: POINT_TYPES,
        });
    };
    let (&[rows, dim], true) = (&header.shape[..], header.shape.last() != Some(&0)) else {
        return Err(header.wrong_shape(input.label, "n rows x d columns, d from 1 up,"));
    };
    let fortran = header.fortran && rows > 1 && dim > 1;
    let values = Values::new(input, &header, element)?;
    // The others are f32 as they are.
    let watch = watch.filter(|_| element == Element::F64);
    match (fortran, element) {
        (false, _) => rows::in_order(values, rows, dim, watch),
        (true, Element::F64) => rows::transposed::<f64>(values, rows, dim, temporary, watch),
        (true, _) => rows::transposed::<f32>(values, rows, dim, temporary, watch),
    }
}

/// Opens an input as a list of ids.
pub(super) fn open_ids(mut input: Input) -> Result<Box<dyn IdSource>, IngestError> {
    let header = Header::read(&mut input)?;
    let element = match header.element {
        Some(Element::U64 | Element::I64) => header.element,
        _ => None,
    };
    let Some(element) = element else {
        return Err(IngestError::NpyType {
            file: input.label,
            found: header.descr,
            wanted: ID_TYPES,
        });
    };
    if header.shape.len() != 1 {
        return Err(header.wrong_shape(input.label, "a list with one dimension"));
    }
    Ok(Box::new(Values::new(input, &header, element)?))
}

impl IdSource for Values {
    fn read(&mut self, at_most: usize, into: &mut Vec<u64>) -> Result<usize, IngestError> {
        self.read_ids(at_most, into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An .npy file with this header dictionary and these bytes after it.
    fn file(dictionary: &str, data: &[u8]) -> Vec<u8> {
        let mut header = dictionary.to_owned();
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

    fn array(descr: &str, fortran: bool, shape: &str, data: &[u8]) -> Vec<u8> {
        let order = if fortran { "True" } else { "False" };
        file(&format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}"), data)
    }

    fn f32s(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    fn rows_of(input: Input) -> Result<(usize, Vec<f32>), IngestError> {
        let mut rows = open_rows(input, &std::env::temp_dir(), None)?;
        let mut values = Vec::new();
        while rows.read(2, &mut values, &mut Vec::new())? > 0 {}
        assert_eq!(rows.remaining(), Some(0));
        Ok((rows.dim(), values))
    }

    fn read(bytes: Vec<u8>) -> Result<(usize, Vec<f32>), IngestError> {
        let as_file = rows_of(Input::from_bytes("t.npy", bytes.clone(), false));
        let pipe = rows_of(Input::from_bytes("t.npy", bytes, true));
        match (&as_file, &pipe) {
            // As text, because NaN is not equal to itself.
            (Ok(a), Ok(b)) => assert_eq!(format!("{a:?}"), format!("{b:?}")),
            (Err(_), Err(_)) => {}
            other => panic!("a pipe and a file are read differently: {other:?}"),
        }
        as_file
    }

    fn ids(bytes: Vec<u8>) -> Result<Vec<u64>, IngestError> {
        let mut source = open_ids(Input::from_bytes("t.npy", bytes, false))?;
        let mut ids = Vec::new();
        while source.read(1, &mut ids)? > 0 {}
        Ok(ids)
    }

    #[test]
    fn the_three_types_and_both_orders() {
        let expected = (2, vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let data = f32s(&expected.1);
        assert_eq!(read(array("<f4", false, "(3, 2)", &data)).unwrap(), expected);
        let columns = f32s(&[1.0, 3.0, 5.0, 2.0, 4.0, 6.0]);
        assert_eq!(read(array("<f4", true, "(3, 2)", &columns)).unwrap(), expected);
        let doubles: Vec<u8> =
            [1.0f64, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read(array("<f8", false, "(3, 2)", &doubles)).unwrap(), expected);
        assert_eq!(read(array("|u1", false, "(3, 2)", &[1, 2, 3, 4, 5, 6])).unwrap(), expected);
        assert_eq!(read(array("<f4", false, "(0, 5)", &[])).unwrap(), (5, vec![]));
    }

    /// More than is kept in memory goes through a file.
    #[test]
    fn a_large_array_in_fortran_order() {
        let (rows, dim) = (700_001usize, 3);
        let value = |row: usize, column: usize| (row * 4 + column) as f32;
        let columns = (0..dim).flat_map(|c| (0..rows).map(move |r| value(r, c)));
        let data: Vec<u8> = columns.flat_map(f32::to_le_bytes).collect();
        let bytes = array("<f4", true, &format!("({rows}, {dim})"), &data);
        for piped in [false, true] {
            let input = Input::from_bytes("t.npy", bytes.clone(), piped);
            let mut source = open_rows(input, &std::env::temp_dir(), None).unwrap();
            let (mut found, mut row) = (Vec::new(), 0);
            while source.read(100_000, &mut found, &mut Vec::new()).unwrap() > 0 {
                for chunk in found.chunks(dim) {
                    assert!((0..dim).all(|c| chunk[c] == value(row, c)), "row {row}");
                    row += 1;
                }
                found.clear();
            }
            assert_eq!(row, rows);
        }
    }

    #[test]
    fn doubles_go_to_the_nearest_float() {
        let data: Vec<u8> = [0.1f64, 1.0 + 2f64.powi(-24) * 1.5, f64::NAN, f64::INFINITY]
            .iter()
            .flat_map(|v| v.to_le_bytes())
            .collect();
        let (_, values) = read(array("<f8", false, "(2, 2)", &data)).unwrap();
        assert_eq!(values[0], 0.1f32);
        assert_eq!(values[1], 1.0 + f32::EPSILON);
        assert!(values[2].is_nan() && values[3].is_infinite());
        let data: Vec<u8> = [1.0f64, 2.0, 3.0, 1e39].iter().flat_map(|v| v.to_le_bytes()).collect();
        let message = read(array("<f8", false, "(2, 2)", &data)).unwrap_err().to_string();
        assert!(message.contains("row 1, column 1") && message.contains("1e39"), "{message}");
        let data: Vec<u8> = [1.0f64, 1e39, 2.0, 3.0].iter().flat_map(|v| v.to_le_bytes()).collect();
        let message = read(array("<f8", true, "(2, 2)", &data)).unwrap_err().to_string();
        assert!(message.contains("row 1, column 0"), "{message}");
    }

    #[test]
    fn ids_of_both_types() {
        let data: Vec<u8> = [7u64, u64::MAX].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(ids(array("<u8", false, "(2,)", &data)).unwrap(), [7, u64::MAX]);
        let message = ids(array("<i8", false, "(2,)", &data)).unwrap_err().to_string();
        assert!(message.contains("entry 1 (from 0) is -1"), "{message}");
        assert_eq!(ids(array("<i8", false, "(1,)", &data[..8])).unwrap(), [7]);
        assert!(matches!(
            ids(array("<u8", false, "(1, 2)", &data)),
            Err(IngestError::NpyShape { .. })
        ));
        assert!(matches!(
            ids(array("<i4", false, "(4,)", &data)),
            Err(IngestError::NpyType { .. })
        ));
    }

    #[test]
    fn foreign_files_are_refused_by_kind() {
        use IngestError as E;
        let data = f32s(&[1.0; 6]);
        assert!(matches!(read(b"x,y\n1,2\n3,4\n".to_vec()), Err(E::NotNpy { .. })));
        assert!(matches!(read(vec![]), Err(E::NotNpy { .. })));
        for descr in [">f4", "<f2", "<i4", "<c8", "|b1", "|S4", "|O"] {
            let result = read(array(descr, false, "(3, 2)", &data));
            assert!(matches!(result, Err(E::NpyType { .. })), "{descr}: {result:?}");
        }
        for shape in ["()", "(6,)", "(3, 2, 1)", "(3, 0)"] {
            let result = read(array("<f4", false, shape, &data));
            assert!(matches!(result, Err(E::NpyShape { .. })), "{shape}: {result:?}");
        }
        assert!(matches!(
            read(array("<f4", false, "(4, 2)", &data)),
            Err(E::NpyTruncated { rows: 4, expected: 160, found: 152, .. })
        ));
        assert!(matches!(
            read(array("<f4", false, "(2, 2)", &data)),
            Err(E::NpyTrailing { rows: 2, extra: 8, .. })
        ));
        assert!(matches!(read(array("<f4", true, "(4, 2)", &data)), Err(E::NpyTruncated { .. })));
        // A pipe that went on behind an array without rows passed for whole.
        let empty = read(array("<f4", false, "(0, 2)", &data));
        assert!(matches!(empty, Err(E::NpyTrailing { rows: 0, extra: 24, .. })), "{empty:?}");
    }

    #[test]
    fn headers_are_not_trusted() {
        use IngestError as E;
        let rows = read(array("<f4", false, "(1000000000000000, 3)", &[0; 24]));
        assert!(matches!(rows, Err(E::NpyTruncated { .. })), "{rows:?}");
        let deep = format!("{{'descr': {}", "[".repeat(50_000));
        // Of a depth that was accepted once: 16 levels side by side took minutes.
        let wide = format!(
            "{{'descr': [{}]}}",
            format!("{}1{},", "{1:".repeat(14), "}".repeat(14)).repeat(900)
        );
        for dictionary in [
            "{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 0)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (0xffffffffffffffff, 0xffff)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (184467440737095516160, 2)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (-3, 2)}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'shape': (3, 2)}",
            "{'descr': 'f', 'fortran_order': False, 'shape': (3, 2)}",
            "(3, 2)",
            "\u{0}",
            deep.as_str(),
            wide.as_str(),
        ] {
            let result = read(file(dictionary, &[0; 24]));
            assert!(matches!(result, Err(E::NpyHeader { .. })), "{dictionary:.80}: {result:?}");
        }
        let mut huge = b"\x93NUMPY\x02\x00".to_vec();
        huge.extend(u32::MAX.to_le_bytes());
        huge.extend([b' '; 100]);
        assert!(matches!(read(huge), Err(E::NpyHeader { .. })));
        let mut newer = array("<f4", false, "(1, 2)", &[0; 8]);
        newer[6] = 9;
        assert!(matches!(read(newer), Err(E::NpyHeader { .. })));
    }

    #[test]
    fn every_cut_is_an_error() {
        let whole = array("<f4", false, "(3, 2)", &f32s(&[1.0; 6]));
        for length in 0..whole.len() {
            assert!(read(whole[..length].to_vec()).is_err(), "cut to {length}");
        }
    }
}
