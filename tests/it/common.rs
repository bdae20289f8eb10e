//! What the stories share: a random generator, awkward data, and a model that knows the right
//! answers.

use std::sync::atomic::{AtomicU64, Ordering};

use treering::{CreateOptions, Neighbor, OpenOptions, Snapshot, Store, VerifyOptions};

/// Verifications of whole stores so far, the allocation check of each included.
pub(crate) static ALLOCATION_CHECKS: AtomicU64 = AtomicU64::new(0);

/// SplitMix64: small, seeded, the same everywhere.
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Uniform in [0, 1).
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    pub(crate) fn points(&mut self, n: usize, dim: usize) -> Vec<f32> {
        (0..n * dim).map(|_| self.unit()).collect()
    }
}

/// Data that breaks careless indexes: (name, dimension, rows).
pub(crate) fn shapes(n: usize) -> Vec<(&'static str, usize, Vec<f32>)> {
    let mut random = Random(42);
    let mut shapes = vec![
        ("uniform 3-d", 3, random.points(n, 3)),
        ("uniform 1-d", 1, random.points(n, 1)),
        ("uniform 8-d", 8, random.points(n, 8)),
        ("uniform 40-d", 40, random.points(n / 4, 40)),
        // Long enough rows that sums stop early, enough of them that a scan goes in steps.
        ("uniform 300-d", 300, random.points(n / 4, 300)),
        ("all equal", 2, [0.25, -7.0].repeat(n)),
    ];
    let mut duplicates = random.points(n, 3);
    for i in 0..n {
        if random.below(10) == 0 {
            let from = random.below(n as u64) as usize;
            duplicates.copy_within(from * 3..from * 3 + 3, i * 3);
        }
    }
    shapes.push(("10 % duplicates", 3, duplicates));
    let few = random.points(n / 10, 3);
    let repeated = (0..n).flat_map(|_| {
        let i = random.below(n as u64 / 10) as usize;
        few[i * 3..i * 3 + 3].to_vec()
    });
    shapes.push(("90 % duplicates", 3, repeated.collect()));
    let side = (n as f64).cbrt() as usize;
    let lattice =
        (0..side * side * side).flat_map(|i| [i % side, i / side % side, i / side / side]);
    shapes.push(("integer lattice", 3, lattice.map(|x| x as f32).collect()));
    let line = (0..n).flat_map(|i| [i as f32, 2.0 * i as f32, -(i as f32)]);
    shapes.push(("collinear", 3, line.collect()));
    shapes.push(("powers of two", 1, (0..60).map(|i| 2f32.powi(i - 30)).collect()));
    let mut outlier = random.points(n, 2);
    outlier[n] = 1e9;
    shapes.push(("one outlier", 2, outlier));
    let tiny: Vec<f32> = random.points(n, 3).iter().map(|x| x * 1e-30).collect();
    shapes.push(("scale 1e-30", 3, tiny));
    let verge: Vec<f32> = random.points(n, 3).iter().map(|x| x * 3e-21).collect();
    shapes.push(("scale 3e-21", 3, verge));
    let huge: Vec<f32> = random.points(n, 3).iter().map(|x| x * 1e15).collect();
    shapes.push(("scale 1e15", 3, huge));
    let vast: Vec<f32> = random.points(n, 3).iter().map(|x| (x - 0.5) * 2e18).collect();
    shapes.push(("scale 1e18", 3, vast));
    let mut sorted = random.points(n, 1);
    sorted.sort_by(f32::total_cmp);
    shapes.push(("sorted", 1, sorted));
    let zeros = (0..n).map(|i| if i % 2 == 0 { 0.0 } else { -0.0 });
    shapes.push(("signed zeros", 1, zeros.collect()));
    let spread = (0..n).flat_map(|i| {
        let scale = 10f32.powi((i % 60) as i32 - 42);
        [random.unit() * scale, random.unit() * scale]
    });
    shapes.push(("60 orders of magnitude", 2, spread.collect()));
    shapes
}

/// Asserts that the tree and the full scan agree, bit for bit, for queries made from the data.
pub(crate) fn assert_exact(snapshot: &Snapshot, points: &[f32], what: &str) {
    let dim = snapshot.dim();
    let rows = points.len() / dim;
    let mut random = Random(7);
    let mut queries: Vec<f32> = Vec::new();
    for i in 0..24 {
        let row = random.below(rows as u64) as usize;
        let at = &points[row * dim..row * dim + dim];
        let other = random.below(rows as u64) as usize;
        let other = &points[other * dim..other * dim + dim];
        queries.extend(at.iter().zip(other).map(|(a, b)| match i % 3 {
            0 => *a,
            1 => a * 0.5 + b * 0.5,
            _ => a + (random.unit() - 0.5) * (b - a),
        }));
    }
    for k in [0, 1, 3, 10, 100, rows + 5] {
        let tree = snapshot.knn_batch(&queries, k).unwrap();
        let scan = snapshot.brute_knn_batch(&queries, k).unwrap();
        for (i, (tree, scan)) in tree.iter().zip(scan.iter()).enumerate() {
            assert_eq!(tree, scan, "{what}: query {i}, k {k}");
        }
    }
    // One at a time, with one searcher: after a few trials it may scan instead of descending.
    let mut searcher = snapshot.searcher();
    for k in [3, 10] {
        for query in queries.chunks_exact(dim) {
            let scan = snapshot.brute_knn(query, k).unwrap();
            assert_eq!(searcher.knn(query, k).unwrap(), scan, "{what}: one at a time, k {k}");
        }
    }
    for query in queries.chunks_exact(dim) {
        let near = snapshot.brute_knn(query, 20).unwrap();
        let radii = [0.0, near.last().map_or(1.0, |n: &Neighbor| n.distance), f32::INFINITY];
        for radius in radii.into_iter().chain(near.first().map(|n| n.distance.next_down().max(0.0)))
        {
            let scan = snapshot.brute_within(query, radius).unwrap();
            assert_eq!(snapshot.within(query, radius).unwrap(), scan, "{what}: radius {radius}");
            let count = snapshot.count_within(query, radius).unwrap();
            assert_eq!(count, scan.len() as u64, "{what}: count, radius {radius}");
        }
    }
}

/// Asserts that every version passes every check there is.
#[track_caller]
pub(crate) fn assert_sound(store: &Store, what: &str) {
    let report = store.verify(VerifyOptions::all().deep(true)).unwrap();
    ALLOCATION_CHECKS.fetch_add(1, Ordering::Relaxed);
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    assert!(report.is_ok(), "{what}: {problems:#?}");
}

/// Options with tiny segments, so that small data has many of them.
pub(crate) fn tiny(dim: usize, leaf_capacity: u32) -> CreateOptions {
    CreateOptions::new(dim)
        .leaf_capacity(leaf_capacity)
        .block_bytes(256)
        .topology_segment_bytes(256)
        .coordinate_segment_bytes(512)
}

pub(crate) fn threads(threads: usize) -> OpenOptions {
    OpenOptions::new().threads(threads)
}

/// What a command says that mounts a file system in a namespace of its own; `None`, saying why,
/// where that cannot be had. It ends with 77 if it cannot mount.
pub(crate) fn with_a_mount(unshare: &mut std::process::Command) -> Option<std::process::Output> {
    let Ok(output) = unshare.output() else {
        println!("skipped: there is no `unshare`");
        return None;
    };
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(77) || errors.contains("unshare failed") {
        println!("skipped: a tmpfs cannot be mounted here: {errors}");
        return None;
    }
    Some(output)
}

/// s of section 7 of the specification.
pub(crate) fn canonical_sum(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0.0f32; 16];
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        lanes[i % 16] += (a - b) * (a - b);
    }
    for half in [8, 4, 2, 1] {
        for i in 0..half {
            lanes[i] += lanes[i + half];
        }
    }
    lanes[0]
}

/// CRC-32 of section 1, one bit at a time.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = crc >> 1 ^ if crc & 1 == 1 { 0xEDB8_8320 } else { 0 };
        }
    }
    !crc
}
