//! Every kernel of every instruction set against the definition, one row at a time.

use super::*;

/// splitmix64: tests need repeatable numbers, not good ones.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Values in [-scale, scale).
    pub(super) fn uniform(&mut self, count: usize, scale: f64) -> Vec<f32> {
        (0..count)
            .map(|_| (((self.next() >> 11) as f64 * 2.0_f64.powi(-52) - 1.0) * scale) as f32)
            .collect()
    }

    /// Values of one of the kinds that have broken kernels.
    fn values(&mut self, kind: Kind, count: usize) -> Vec<f32> {
        match kind {
            Kind::Scale(scale) => self.uniform(count, scale),
            Kind::Subnormal => (0..count)
                .map(|_| {
                    let bits = self.next();
                    match bits >> 62 {
                        // A subnormal, a signed zero, a number whose square is subnormal, an
                        // ordinary one.
                        0 => f32::from_bits((bits as u32) & 0x807F_FFFF),
                        1 => f32::from_bits((bits as u32) & 0x8000_0000),
                        2 => f32::from_bits((bits as u32) & 0x807F_FFFF | 0x1A80_0000),
                        _ => f32::from_bits((bits as u32) & 0x807F_FFFF | 0x1F80_0000),
                    }
                })
                .collect(),
            Kind::Lattice => (0..count).map(|_| (self.next() % 7) as f32 - 3.0).collect(),
            Kind::Equal => vec![0.1; count],
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Scale(f64),
    Subnormal,
    Lattice,
    Equal,
}

const KINDS: [Kind; 7] = [
    Kind::Scale(1.0),
    Kind::Scale(1e-30),
    Kind::Scale(1e-22),
    Kind::Scale(1e15),
    Kind::Subnormal,
    Kind::Lattice,
    Kind::Equal,
];

fn dims() -> impl Iterator<Item = usize> {
    (1..=70).chain([96, 100, 127, 128, 129, 255, 256, 257, 300, 784, 960, 1024, 1536])
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// Every pair, by the definition.
fn oracle(queries: &[f32], rows: &[f32], dim: usize) -> Vec<f32> {
    let pairs = queries.chunks_exact(dim).flat_map(|q| rows.chunks_exact(dim).map(move |r| (q, r)));
    pairs.map(|(q, r)| scalar_sum(q, r)).collect()
}

fn sums_are_canonical(kernel: Kernel) {
    let mut random = Random(11);
    for dim in dims() {
        for kind in KINDS {
            let query = random.values(kind, dim);
            for count in [0, 1, 2, 3, 4, 5, 7, 15, 16, 17, 31, 33, 50] {
                // Exact allocations, so that a read past the end is a read past the allocation.
                let rows = random.values(kind, count * dim).into_boxed_slice();
                let mut out = vec![f32::NAN; count];
                kernel.sums(&query, &rows, &mut out);
                let expected = oracle(&query, &rows, dim);
                assert_eq!(bits(&out), bits(&expected), "dim {dim}, {count} rows, {kind:?}");
            }
        }
    }
}

/// The number of the first row or box.
const FIRST: u32 = 320;

fn near_rows_are_those_within_the_limit(kernel: Kernel) {
    let mut random = Random(16);
    for dim in dims() {
        for kind in KINDS {
            let query = random.values(kind, dim);
            for count in [1, 2, 5, 15, 16, 17, 33, 50] {
                let rows = random.values(kind, count * dim).into_boxed_slice();
                let sums = oracle(&query, &rows, dim);
                let radii: Vec<f32> = sums.iter().map(|s| s.sqrt() * 0.5).collect();
                for limit in [sums[count / 2], 0.0, f32::INFINITY] {
                    let wanted = |sum: &f32, limit| *sum <= limit;
                    let expected = |limit: &dyn Fn(usize) -> f32| -> Vec<Near> {
                        let near = (0..).zip(&sums);
                        let near = near.filter(|(i, sum)| wanted(sum, limit(*i)));
                        near.map(|(i, &sum)| Near::new(distance(sum), FIRST + i as u32)).collect()
                    };
                    let mut found = Vec::new();
                    kernel.near(&query, &rows, limit, FIRST, &mut found);
                    assert_eq!(found, expected(&|_| limit), "{dim} {kind:?}");
                    let (slack, t) = (Slack::new(dim), limit.sqrt() * 0.5);
                    found.clear();
                    kernel.near_balls(&query, &rows, &radii, slack, t, FIRST, &mut found);
                    let reach = |i: usize| slack.sum_reach(radii[i], t);
                    assert_eq!(found, expected(&reach), "{dim} {kind:?}");
                }
            }
        }
    }
}

/// What lies in a box is never below the box's limit, and the gap of a box far off is seen.
fn boxes_bound_what_they_hold(kernel: Kernel) {
    let mut random = Random(17);
    for dim in 1..=MAX_BOX_DIM {
        let slack = Slack::new(dim);
        for kind in KINDS {
            let query = random.values(kind, dim);
            let groups = 3;
            let corners = random.values(kind, groups * BOX_GROUP * 2 * dim);
            let mut bounds = vec![0.0; corners.len()];
            let mut expected = Vec::new();
            for (i, pair) in corners.chunks_exact(2 * dim).enumerate() {
                let (a, b) = pair.split_at(dim);
                let nearest: Vec<f32> =
                    (0..dim).map(|c| query[c].clamp(a[c].min(b[c]), a[c].max(b[c]))).collect();
                expected.push(scalar_sum(&query, &nearest));
                for c in 0..dim {
                    let row = i / BOX_GROUP * 2 * dim + c;
                    bounds[row * BOX_GROUP + i % BOX_GROUP] = a[c].min(b[c]);
                    bounds[(row + dim) * BOX_GROUP + i % BOX_GROUP] = a[c].max(b[c]);
                }
            }
            for (i, &limit) in expected.iter().enumerate() {
                // All, and all but some at either end.
                let cut = i as u32 / 2;
                let wanted = FIRST + cut..FIRST + expected.len() as u32 - cut;
                let mut found = Vec::new();
                let limit_of_gap = slack.filter_limit(limit);
                kernel.near_boxes(&query, &bounds, FIRST, wanted.clone(), limit_of_gap, &mut found);
                assert!(found.iter().all(|near| near.value() <= limit_of_gap));
                let found: Vec<u32> = found.iter().map(|near| near.number()).collect();
                assert!(found.is_sorted() && found.iter().all(|number| wanted.contains(number)));
                for (number, &sum) in (FIRST..).zip(&expected) {
                    let listed = found.contains(&number);
                    let near = listed || sum > limit || !wanted.contains(&number);
                    assert!(near, "{dim} {kind:?}: lost {sum:e} <= {limit:e}");
                    assert!(!listed || sum <= limit * 1.001 + 1e-40, "{dim} {kind:?}");
                }
            }
        }
    }
}

fn the_nearest_is_the_first_of_the_least(kernel: Kernel) {
    let mut random = Random(18);
    for dim in dims() {
        for kind in KINDS {
            let query = random.values(kind, dim);
            for count in [1, 2, 15, 16, 17, 33, 255, 257, 600] {
                if count * dim > 20_000 {
                    continue;
                }
                let rows = random.values(kind, count * dim).into_boxed_slice();
                let sums = oracle(&query, &rows, dim);
                let least = sums.iter().copied().reduce(f32::min).unwrap();
                let place = sums.iter().position(|&sum| sum == least).unwrap();
                assert_eq!(kernel.nearest(&query, &rows), (place, least), "{dim} {kind:?} {count}");
            }
        }
    }
}

/// Whatever is put into a list, in whatever pieces: the first k are those of everything sorted, and
/// what comes after a tie at the k-th is not taken before that is decided.
fn sorted_lists_hold_the_first(kernel: Kernel) {
    let mut random = Random(19);
    let mut undecided = 0;
    for k in (1..=MAX_SORTED).chain([MAX_SORTED]) {
        // Few distances, so that there are ties, and many.
        for distances in [3.0, 40.0, 1e6] {
            let mut list = Vec::new();
            sorted_list(k, &mut list);
            let values = random.uniform(300, distances);
            let all: Vec<Near> =
                (0..).zip(&values).map(|(i, x)| Near::new(x.abs().round(), i)).collect();
            let mut seen = Vec::new();
            for piece in all.chunks(37) {
                let mut rest = piece;
                while !rest.is_empty() {
                    let taken = kernel.insert_sorted(&mut list, k, rest);
                    assert!(0 < taken && taken <= rest.len());
                    seen.extend_from_slice(&rest[..taken]);
                    rest = &rest[taken..];
                    seen.sort_unstable();
                    let flat = list.as_flattened_mut();
                    assert_eq!(flat[..k.min(seen.len())], seen[..k.min(seen.len())]);
                    assert!(flat[seen.len().min(k)..k].iter().all(|&entry| entry == Near::NONE));
                    if is_undecided(flat, k) {
                        // All that tie are there to choose from. Here the numbers decide.
                        let ties = |list: &[Near]| {
                            let last = seen[k - 1];
                            list.iter().filter(|entry| entry.ties_with(last)).count()
                        };
                        assert_eq!(ties(flat), ties(&seen));
                        flat[k..].fill(Near::NONE);
                        seen.truncate(k);
                        undecided += 1;
                    } else {
                        assert!(rest.is_empty());
                    }
                }
            }
        }
    }
    assert!(undecided > 100);
}

fn tiles_are_canonical(kernel: Kernel) {
    let mut random = Random(12);
    for dim in dims() {
        for (i, kind) in KINDS.into_iter().enumerate() {
            let counts: &[usize] =
                if dim > 300 { &[0, 1, 3, 5, 17] } else { &[0, 1, 3, 4, 17, 33] };
            let queries = random.values(kind, 33 * dim);
            let rows = random.values(kind, 33 * dim);
            for &a in counts {
                for &b in counts {
                    let (queries, rows) = (&queries[..a * dim], &rows[(33 - b) * dim..]);
                    let mut out = vec![f32::NAN; a * b];
                    kernel.tile(queries, rows, dim, &mut out);
                    let expected = oracle(queries, rows, dim);
                    assert_eq!(bits(&out), bits(&expected), "dim {dim}, {a} x {b}, {kind:?}");
                    if i > 1 && dim > 300 {
                        break;
                    }
                }
            }
        }
    }
}

fn tiles_of_many_rows_are_canonical(kernel: Kernel) {
    let mut random = Random(13);
    // More rows than one cache block of each kind of tile, and not a whole number of blocks.
    for (dim, a, b) in [
        (1, 5, 9001),
        (3, 7, 3001),
        (16, 6, 555),
        (17, 5, 515),
        (64, 6, 201),
        (65, 5, 1603),
        (1536, 5, 75),
    ] {
        let queries = random.uniform(a * dim, 1.0);
        let rows = random.uniform(b * dim, 1.0);
        let mut out = vec![f32::NAN; a * b];
        kernel.tile(&queries, &rows, dim, &mut out);
        assert_eq!(bits(&out), bits(&oracle(&queries, &rows, dim)), "dim {dim}, {a} x {b}");
    }
}

fn single_sums_are_canonical(kernel: Kernel) {
    let mut random = Random(14);
    for dim in (0..1).chain(dims()) {
        for kind in KINDS {
            for _ in 0..5 {
                let (a, b) = (random.values(kind, dim), random.values(kind, dim));
                let s = scalar_sum(&a, &b);
                assert_eq!(kernel.sum(&a, &b).to_bits(), s.to_bits(), "dim {dim}, {kind:?}");
                assert_eq!(kernel.sum(&b, &a).to_bits(), s.to_bits(), "dim {dim}, {kind:?}");
            }
        }
    }
}

fn bounded_sums_are_canonical(kernel: Kernel) {
    let mut random = Random(15);
    for dim in dims() {
        for kind in KINDS {
            let (a, b) = (random.values(kind, dim), random.values(kind, dim));
            let s = scalar_sum(&a, &b);
            let below = if s > 0.0 { s.next_down() } else { -1.0 };
            for bound in [s, s.next_up(), below, 0.0, s * 0.01, s * 0.5, f32::MAX, f32::INFINITY] {
                let expected = (s <= bound).then_some(s.to_bits());
                let mut found = Vec::new();
                kernel.pair_sums(&a, &[&b], &[bound], &[Pair { query: 0, row: 0 }], &mut found);
                let found = Some(found[0]).filter(|&s| s <= bound).map(f32::to_bits);
                assert_eq!(found, expected, "dim {dim}, {kind:?}, s {s:e}, bound {bound:e}");
            }
        }
    }
}

/// Each check against each instruction set; one that the processor lacks is skipped, and says so.
macro_rules! every_isa {
    ($($isa:ident: $variant:ident),* $(,)?) => {$(
        mod $isa {
            use super::super::{Isa, Kernel};

            fn run(check: fn(Kernel)) {
                match Kernel::with(Isa::$variant) {
                    Some(kernel) => {
                        assert_eq!(kernel.isa(), Isa::$variant);
                        check(kernel);
                    }
                    None => eprintln!("skipped: no {:?} here", Isa::$variant),
                }
            }

            #[test]
            fn sums() {
                run(super::sums_are_canonical);
            }

            #[test]
            fn near_rows() {
                run(super::near_rows_are_those_within_the_limit);
            }

            #[test]
            fn near_boxes() {
                run(super::boxes_bound_what_they_hold);
            }

            #[test]
            fn nearest_row() {
                run(super::the_nearest_is_the_first_of_the_least);
            }

            #[test]
            fn sorted_list() {
                run(super::sorted_lists_hold_the_first);
            }

            #[test]
            fn tiles() {
                run(super::tiles_are_canonical);
            }

            #[test]
            fn tiles_of_many_rows() {
                run(super::tiles_of_many_rows_are_canonical);
            }

            #[test]
            fn single_sums() {
                run(super::single_sums_are_canonical);
            }

            #[test]
            fn bounded_sums() {
                run(super::bounded_sums_are_canonical);
            }
        }
    )*};
}

every_isa! { portable: Portable, avx2: Avx2, avx512: Avx512 }

#[test]
fn best_is_the_last_available() {
    assert_eq!(Kernel::available().last().map(Kernel::isa), Some(Kernel::best().isa()));
    assert_eq!(Kernel::available().next().map(Kernel::isa), Some(Isa::Portable));
}

#[test]
#[should_panic(expected = "rows are [out x dim]")]
fn sums_refuse_lengths_that_disagree() {
    Kernel::best().sums(&[0.0; 3], &[0.0; 7], &mut [0.0; 2]);
}

#[test]
#[should_panic(expected = "out is [a x b]")]
fn tiles_refuse_lengths_that_disagree() {
    Kernel::best().tile(&[0.0; 6], &[0.0; 9], 3, &mut [0.0; 5]);
}
