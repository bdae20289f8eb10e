//! A writer of stores that are hostile on purpose: it takes a real store apart into the rows of its
//! arrays, lets a test lie in any of them, and writes everything anew, field by field, under
//! checksums that are right.
//!
//! So a lie is never hidden by a checksum, and structure can be made that no flipped byte makes:
//! segments that many entries share, claims of rows that are nowhere, trees that are chains, holes
//! instead of data. It knows the format from `format-spec.md` alone, and shares nothing with the
//! library.
//!
//! What is not lied about is as the library would have left it: with no lies at all the file is a
//! whole store.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::common::crc32;
use crate::format::{Image, Record, Spec};

/// Bytes of a page of the preamble, of an entry, and of the head of a table node.
const PAGE: usize = 4096;
const ENTRY: usize = 24;
const NODE_HEAD: usize = 16;

/// Table nodes beyond this are not written for one array, however many rows it claims.
const MOST_NODES: usize = 8192;

/// What an entry says: address, birth, checksum, stored length.
pub(crate) type Entry = [u8; ENTRY];

/// How the table of one array lies.
#[derive(Clone, Debug, Default)]
pub(crate) struct TableLie {
    /// The root claims so many rows.
    pub(crate) rows: Option<u64>,
    /// Entries for which there is no segment take those that there are, again and again.
    pub(crate) aliased: bool,
    /// They are full segments of zeros, each in a hole of its own.
    pub(crate) holes: bool,
    /// The nodes above the segments bear this birth.
    pub(crate) birth: Option<u64>,
}

/// A version, taken apart.
#[derive(Clone)]
pub(crate) struct Version {
    /// Its row; what it says of `roots` is made anew.
    pub(crate) row: Vec<u8>,
    /// The rows of each data array.
    pub(crate) arrays: Vec<Vec<u8>>,
    pub(crate) lies: BTreeMap<usize, TableLie>,
    expired: bool,
}

/// A store, taken apart.
#[derive(Clone)]
pub(crate) struct Forge<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) header: Vec<u8>,
    pub(crate) slot: Vec<u8>,
    pub(crate) versions: Vec<Version>,
    pub(crate) tags: Vec<u8>,
    pub(crate) freed: Vec<u8>,
    /// Lies about `versions`, `free_map`, `freed` and `tags`, by array.
    pub(crate) state_lies: BTreeMap<usize, TableLie>,
    /// Fields of the slot that are set when all else is.
    pub(crate) slot_lies: Vec<(&'static str, u64)>,
    /// The file is so long, its end being a hole.
    pub(crate) len: Option<u64>,
    /// Where the first segment lies.
    start: u64,
    row_bytes: Vec<usize>,
    per_segment: Vec<usize>,
    block: usize,
}

/// Puts a value into a field.
pub(crate) fn put(record: &Record, name: &str, bytes: &mut [u8], value: u64) {
    let field = record.field(name);
    bytes[field.offset..field.offset + field.bytes]
        .copy_from_slice(&value.to_le_bytes()[..field.bytes]);
}

impl<'a> Forge<'a> {
    /// Takes a file apart.
    pub(crate) fn of(spec: &'a Spec, bytes: &[u8]) -> Self {
        let mut image = Image::new(spec, bytes);
        let arrays = 0..spec.number_of("tags") + 1;
        let data: Vec<String> =
            (0..spec.data_arrays()).map(|array| spec.array_name(array).to_string()).collect();
        let versions = image.versions();
        let versions = versions.into_iter().map(|version| {
            let (row, expired) = image.version_row(version);
            let row = row.to_vec();
            let rows = |name: &String| match expired {
                true => Vec::new(),
                false => image.data(version, name).bytes().to_vec(),
            };
            let arrays = data.iter().map(rows).collect();
            Version { row, arrays, lies: BTreeMap::new(), expired }
        });
        let versions = versions.collect();
        let header = spec.records["header"].bytes;
        Forge {
            spec,
            header: bytes[..header].to_vec(),
            slot: image.slot().to_vec(),
            versions,
            tags: image.state("tags").bytes().to_vec(),
            freed: Vec::new(),
            state_lies: BTreeMap::new(),
            slot_lies: Vec::new(),
            len: None,
            start: spec.data_start() as u64,
            row_bytes: arrays.clone().map(|array| image.row_bytes(array)).collect(),
            per_segment: arrays.map(|array| image.rows_per_segment(array)).collect(),
            block: spec.records["header"].get("block_bytes", bytes) as usize,
        }
    }

    pub(crate) fn rows(&self, version: usize, array: &str) -> usize {
        let array = self.spec.number_of(array);
        self.versions[version].arrays[array].len() / self.row_bytes[array]
    }

    /// One row of an array of a version.
    pub(crate) fn row(&mut self, version: usize, array: &str, row: usize) -> &mut [u8] {
        let array = self.spec.number_of(array);
        let bytes = self.row_bytes[array];
        &mut self.versions[version].arrays[array][row * bytes..(row + 1) * bytes]
    }

    /// A field of a row.
    pub(crate) fn get(&mut self, version: usize, array: &str, row: usize, field: &str) -> u64 {
        let record = self.spec.record_of(self.spec.number_of(array)).expect("rows are records");
        record.get(field, self.row(version, array, row))
    }

    /// Sets a field of a row.
    pub(crate) fn set(&mut self, version: usize, array: &str, row: usize, field: &str, value: u64) {
        let record = self.spec.record_of(self.spec.number_of(array)).expect("rows are records");
        put(record, field, self.row(version, array, row), value);
    }

    /// Sets a field of a version's row.
    pub(crate) fn set_version(&mut self, version: usize, field: &str, value: u64) {
        put(&self.spec.records["version"], field, &mut self.versions[version].row, value);
    }

    /// The lie about the table of an array, of a version or of the store state.
    pub(crate) fn table(&mut self, version: usize, array: &str) -> &mut TableLie {
        let number = self.spec.number_of(array);
        match number < self.spec.data_arrays() {
            true => self.versions[version].lies.entry(number).or_default(),
            false => self.state_lies.entry(number).or_default(),
        }
    }

    /// Everything lies from here on; what is before is a hole.
    pub(crate) fn start_at(&mut self, address: u64) {
        self.start = address;
    }

    /// Replaces the rows of an array.
    pub(crate) fn fill(&mut self, version: usize, array: &str, rows: Vec<u8>) {
        let array = self.spec.number_of(array);
        assert_eq!(rows.len() % self.row_bytes[array], 0, "whole rows");
        self.versions[version].arrays[array] = rows;
    }

    /// Writes it all.
    pub(crate) fn write(&self) -> Forgery {
        let mut file =
            Laid { forge: self, pieces: Vec::new(), at: self.start, known: HashMap::new() };
        let spec = self.spec;
        let mut rows = Vec::new();
        for version in &self.versions {
            let mut row = version.row.clone();
            let roots = spec.records["version"].field("roots").offset;
            for (array, content) in version.arrays.iter().enumerate().filter(|_| !version.expired) {
                let lie = version.lies.get(&array).cloned().unwrap_or_default();
                let root = file.table(array, content, &lie);
                row[roots + 32 * array..][..32].copy_from_slice(&root);
            }
            rows.extend(row);
        }
        let lie = |array: usize| self.state_lies.get(&array).cloned().unwrap_or_default();
        let [versions, map, freed, tags] =
            ["versions", "free_map", "freed", "tags"].map(|name| spec.number_of(name));
        let mut freed_rows = self.freed.clone();
        let whole = self.per_segment[freed] * self.row_bytes[freed];
        freed_rows.resize(freed_rows.len().next_multiple_of(whole), 0);
        let roots = [
            file.table(versions, &rows, &lie(versions)),
            [0; 32],
            file.table(freed, &freed_rows, &lie(freed)),
            file.table(tags, &self.tags, &lie(tags)),
        ];
        let root = file.free_map(map, &lie(map));
        let roots = [roots[0], root, roots[2], roots[3]].concat();
        let Laid { mut pieces, at: end, .. } = file;
        self.preamble(&mut pieces, &roots, end);
        Forgery { pieces, len: self.len.unwrap_or(end).max(end) }
    }

    /// Header, slot and hint.
    fn preamble(&self, pieces: &mut Vec<(u64, Vec<u8>)>, roots: &[u8], end: u64) {
        let (header, slot) = (&self.spec.records["header"], &self.spec.records["slot"]);
        let seal = |record: &Record, bytes: &mut Vec<u8>| {
            let crc = crc32(&bytes[..record.field("crc").offset]);
            put(record, "crc", bytes, u64::from(crc));
            bytes.resize(PAGE, 0);
        };
        let mut bytes = self.header.clone();
        seal(header, &mut bytes);
        let copies = self.spec.pages_of("header");
        pieces.extend(copies.into_iter().map(|at| (at as u64, bytes.clone())));

        let mut bytes = self.slot.clone();
        let at = slot.field("roots").offset;
        bytes[at..at + roots.len()].copy_from_slice(roots);
        put(slot, "file_bytes", &mut bytes, self.len.unwrap_or(end).max(end));
        put(slot, "newest_version", &mut bytes, self.versions.len() as u64);
        for &(field, value) in &self.slot_lies {
            match field.split_once(' ') {
                // Rows of a root.
                Some(("rows", array)) => {
                    let number = self.spec.number_of(array) - self.spec.data_arrays();
                    let at = at + 32 * number + ENTRY;
                    bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
                }
                _ => put(slot, field, &mut bytes, value),
            }
        }
        let commit = slot.get("commit", &bytes);
        seal(slot, &mut bytes);
        for copy in 0..2 {
            pieces.push((self.spec.slot_page(commit, copy) as u64, bytes.clone()));
        }
        let hint = &self.spec.records["hint"];
        let mut bytes = vec![0; hint.bytes];
        bytes[..8].copy_from_slice(b"TREEHINT");
        put(hint, "commit", &mut bytes, commit);
        let lineage = hint.field("store_lineage");
        let from = header.field("lineage").offset;
        bytes[lineage.offset..lineage.offset + 16].copy_from_slice(&self.header[from..from + 16]);
        seal(hint, &mut bytes);
        pieces.push((self.spec.hint_page() as u64, bytes));
    }
}

/// Pieces on their way to their places.
struct Laid<'a, 'b> {
    forge: &'b Forge<'a>,
    pieces: Vec<(u64, Vec<u8>)>,
    at: u64,
    /// What two versions have in common is laid once.
    known: HashMap<(usize, u8, u64, Vec<u8>), Entry>,
}

/// Checksum of a piece: of what it is, and of its bytes, whose own checksum is known.
fn sealed((array, level, index, birth): (usize, u8, u64, u64), content: &crc32fast::Hasher) -> u32 {
    let mut whole = crc32fast::Hasher::new();
    whole.update(&[array as u8, level, 0, 0, 0, 0, 0, 0]);
    whole.update(&index.to_le_bytes());
    whole.update(&birth.to_le_bytes());
    whole.combine(content);
    whole.finalize()
}

/// Of each segment, with the zeros behind it.
fn content_of_segments(rows: &[u8], segment: usize, block: usize) -> Vec<crc32fast::Hasher> {
    let padded = |rows: &[u8]| {
        let mut rows = rows.to_vec();
        rows.resize(rows.len().next_multiple_of(block), 0);
        content(&rows)
    };
    rows.chunks(segment).map(padded).collect()
}

fn content(bytes: &[u8]) -> crc32fast::Hasher {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(bytes);
    hasher
}

impl Laid<'_, '_> {
    fn entry(address: u64, birth: u64, crc: u32, bytes: usize) -> Entry {
        let mut entry = [0; ENTRY];
        entry[..8].copy_from_slice(&address.to_le_bytes());
        entry[8..16].copy_from_slice(&birth.to_le_bytes());
        entry[16..20].copy_from_slice(&crc.to_le_bytes());
        entry[20..].copy_from_slice(&(bytes as u32).to_le_bytes());
        entry
    }

    /// Room for a piece, which must not straddle a multiple of 1 GiB.
    fn room(&mut self, bytes: usize) -> u64 {
        let window = 1u64 << 30;
        if self.at / window != (self.at + bytes as u64 - 1) / window {
            self.at = self.at.next_multiple_of(window);
        }
        let address = self.at;
        self.at += bytes as u64;
        address
    }

    fn lay(
        &mut self,
        array: usize,
        level: u8,
        index: u64,
        birth: u64,
        mut piece: Vec<u8>,
    ) -> Entry {
        piece.resize(piece.len().next_multiple_of(self.forge.block), 0);
        let key = (array, level, index << 8 | birth & 0xFF, piece);
        if let Some(&entry) = self.known.get(&key) {
            return entry;
        }
        let address = self.room(key.3.len());
        let crc = sealed((array, level, index, birth), &content(&key.3));
        let entry = Self::entry(address, birth, crc, key.3.len());
        self.pieces.push((address, key.3.clone()));
        self.known.insert(key, entry);
        entry
    }

    /// Lays the segments and the table of an array, and returns its root.
    fn table(&mut self, array: usize, content: &[u8], lie: &TableLie) -> [u8; 32] {
        let forge = self.forge;
        let per_segment = forge.per_segment[array] as u64;
        let segment = forge.per_segment[array] * forge.row_bytes[array];
        let there = (content.len() / forge.row_bytes[array]) as u64;
        let rows = lie.rows.unwrap_or(there);
        let mut entries: Vec<Entry> = (0..)
            .zip(content.chunks(segment))
            .map(|(i, rows)| self.lay(array, 0, i, 1, rows.to_vec()))
            .collect();
        let fanout = (forge.block - NODE_HEAD) / ENTRY;
        let segments = rows.div_ceil(per_segment);
        let most = (segments as usize).min(MOST_NODES * fanout);
        let real = entries.len();
        if lie.aliased && real > 0 {
            // The last one may be shorter, which would give it away.
            let whole =
                if content.len().is_multiple_of(segment) { real } else { (real - 1).max(1) };
            let sums = content_of_segments(content, segment, forge.block);
            let again = (real..most).map(|i| {
                let mut entry = entries[i % whole];
                let crc = sealed((array, 0, i as u64, 1), &sums[i % whole]);
                entry[16..20].copy_from_slice(&crc.to_le_bytes());
                entry
            });
            entries.extend(again.collect::<Vec<_>>());
        }
        if lie.holes {
            let stored = segment.next_multiple_of(forge.block);
            let zeros = self::content(&vec![0; stored]);
            for i in entries.len()..most {
                let crc = sealed((array, 0, i as u64, 1), &zeros);
                let address = self.room(stored);
                entries.push(Self::entry(address, 1, crc, stored));
            }
        }
        entries.truncate(most.max(real));
        self.nodes(array, rows, segments, entries, lie.birth.unwrap_or(1))
    }

    /// Lays the nodes above some segments of an array.
    fn nodes(
        &mut self,
        array: usize,
        rows: u64,
        segments: u64,
        mut entries: Vec<Entry>,
        birth: u64,
    ) -> [u8; 32] {
        let fanout = (self.forge.block - NODE_HEAD) / ENTRY;
        let mut reach = 1u64;
        let mut level = 0;
        while reach < segments {
            reach = reach.saturating_mul(fanout as u64);
            level += 1;
            let nodes = entries.chunks(fanout).zip(0u64..).map(|(chunk, index)| {
                let mut node = b"TNOD".to_vec();
                node.extend([array as u8, level, 0, 0]);
                node.extend(index.to_le_bytes());
                node.extend(chunk.concat());
                node.resize(self.forge.block, 0);
                (index, node)
            });
            let nodes: Vec<(u64, Vec<u8>)> = nodes.collect();
            entries = nodes
                .into_iter()
                .map(|(index, node)| self.lay(array, level, index, birth, node))
                .collect();
        }
        let mut root = [0; 32];
        if let Some(entry) = entries.first().filter(|_| rows > 0) {
            root[..ENTRY].copy_from_slice(entry);
        }
        root[ENTRY..].copy_from_slice(&rows.to_le_bytes());
        root
    }

    /// Everything that has been laid, and the map itself, is in use.
    fn free_map(&mut self, array: usize, lie: &TableLie) -> [u8; 32] {
        let (block, per_segment) = (self.forge.block as u64, self.forge.per_segment[array] as u64);
        let fanout = (self.forge.block - NODE_HEAD) as u64 / ENTRY as u64;
        let stored = (8 * per_segment).next_multiple_of(block);
        let mut segments = 1u64;
        if self.at > 1 << 44 {
            // As far away as this, a map of everything could not be written.
            return self.table(array, &[0xFF; 8].repeat(per_segment as usize), lie);
        }
        let end = loop {
            let (mut nodes, mut level) = (0, segments);
            while level > 1 {
                level = level.div_ceil(fanout);
                nodes += level;
            }
            let end = self.at + segments * stored + nodes * block;
            if end.div_ceil(block) <= segments * per_segment * 64 {
                break end;
            }
            segments += 1;
        };
        let mut words = vec![0u8; (segments * per_segment * 8) as usize];
        for used in 0..end / block {
            words[used as usize / 8] |= 1 << (used % 8);
        }
        self.table(array, &words, lie)
    }
}

/// A file to be: pieces and where they go. What is between them is a hole.
pub(crate) struct Forgery {
    pub(crate) pieces: Vec<(u64, Vec<u8>)>,
    pub(crate) len: u64,
}

impl Forgery {
    /// Bytes that are not holes.
    pub(crate) fn stored(&self) -> usize {
        self.pieces.iter().map(|piece| piece.1.len()).sum()
    }

    /// Makes the file.
    pub(crate) fn save(&self, path: &Path) {
        let file = File::create(path).expect("a new file");
        file.set_len(self.len).expect("a sparse file");
        for (at, piece) in &self.pieces {
            file.write_all_at(piece, *at).expect("written");
        }
    }
}
