//! What is put to the systems: five made workloads, or arrays from files.

use std::error::Error;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use npyz::{NpyFile, Order};

use crate::support::flags;
use crate::support::made::{Made, Sheets};

/// The made workloads.
pub(crate) const NAMES: [&str; 5] = ["W1", "W1b", "W2", "W3", "W4"];

const SEED: u64 = 42;
/// Queries that are held out of a file of points.
const HELD_OUT: usize = 1_000;

/// Points, and queries from the same distribution.
pub(crate) struct Workload {
    pub(crate) name: String,
    pub(crate) dim: usize,
    pub(crate) k: usize,
    /// Row-major `[n x dim]`.
    pub(crate) points: Vec<f32>,
    /// Row-major `[queries x dim]`.
    pub(crate) queries: Vec<f32>,
}

impl Workload {
    pub(crate) fn n(&self) -> usize {
        self.points.len() / self.dim
    }

    pub(crate) fn query_count(&self) -> usize {
        self.queries.len() / self.dim
    }

    /// The first `count` queries.
    pub(crate) fn first(&self, count: usize) -> &[f32] {
        &self.queries[..count * self.dim]
    }

    /// Query `index`, modulo their number.
    pub(crate) fn query(&self, index: usize) -> &[f32] {
        let index = index % self.query_count();
        &self.queries[index * self.dim..(index + 1) * self.dim]
    }
}

/// Makes a workload by name; with `quick` a small one of the same shape.
pub(crate) fn make(name: &str, quick: bool) -> Workload {
    let sheets = |dim, real_dim| Made::Sheets(Sheets::new(100, dim, real_dim, 0.01, SEED));
    let (made, n, queries, k) = match name {
        "W1" => (Made::Uniform { dim: 8 }, 32_768, 1_024, 8),
        "W1b" => (Made::Gaussian { dim: 3 }, 32_768, 1_024, 10),
        "W2" => (Made::Uniform { dim: 3 }, 1_000_000, 10_000, 10),
        "W3" => (sheets(16, 4), 1_000_000, 10_000, 10),
        "W4" => (sheets(128, 8), 1_000_000, 1_000, 10),
        _ => flags::fail(&format!("{name}: no such workload; there are {}", NAMES.join(", "))),
    };
    let (n, queries) = if quick { (n / 64 + 1_000, queries / 16) } else { (n, queries) };
    Workload {
        // Another name, so that no goal is held against it.
        name: if quick { format!("{name}-quick") } else { name.to_string() },
        dim: made.dim(),
        k,
        points: made.rows(n, SEED, 0),
        queries: made.rows(queries, SEED, 1),
    }
}

/// Reads a workload. Without a file of queries, rows spread evenly over the points are taken out
/// and asked for.
pub(crate) fn read(
    points: &str,
    queries: Option<&str>,
    k: usize,
) -> Result<Workload, Box<dyn Error>> {
    let stem = Path::new(points).file_stem().unwrap_or_default();
    let (mut points, dim) = read_npy(points)?;
    let queries = match queries {
        Some(path) => match read_npy(path)? {
            (queries, width) if width == dim => queries,
            (_, width) => {
                return Err(format!("{path}: {width} values per row, the points have {dim}").into());
            }
        },
        None => {
            let n = points.len() / dim;
            let every = n.div_ceil(HELD_OUT).max(2);
            let (mut kept, mut held_out) = (Vec::with_capacity(points.len()), Vec::new());
            for (i, row) in points.chunks_exact(dim).enumerate() {
                let to = if i % every == 0 { &mut held_out } else { &mut kept };
                to.extend_from_slice(row);
            }
            points = kept;
            held_out
        }
    };
    let name = stem.to_string_lossy().into_owned();
    let k = k.clamp(1, points.len() / dim);
    Ok(Workload { name, dim, k, points, queries })
}

/// Values in row-major order, and the length of a row.
fn read_npy(path: &str) -> Result<(Vec<f32>, usize), Box<dyn Error>> {
    let file = File::open(path).map_err(|e| format!("{path}: {e}"))?;
    let npy = NpyFile::new(BufReader::new(file)).map_err(|e| format!("{path}: {e}"))?;
    let dim = match (npy.shape(), npy.order()) {
        (&[rows, dim], Order::C) if rows > 1 && dim > 0 => dim as usize,
        _ => return Err(format!("{path}: not a two-dimensional array in C order").into()),
    };
    let values = match npy.try_data::<f32>() {
        Ok(values) => values.collect::<Result<_, _>>()?,
        Err(npy) => match npy.try_data::<u8>() {
            Ok(values) => values.map(|value| value.map(f32::from)).collect::<Result<_, _>>()?,
            Err(_) => return Err(format!("{path}: neither f32 nor u8").into()),
        },
    };
    Ok((values, dim))
}
