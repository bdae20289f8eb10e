//! The specification and the files agree: a reader that knows nothing but the tables of
//! `format-spec.md` decodes real stores, and finds in them what the library finds. Not a test of
//! damage, which `trust` does with this reader.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::ops::Range;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

use treering::{CreateOptions, OpenOptions, Provenance, Retention, Store, VersionId, VersionKind};

use crate::common::{Random, canonical_sum, crc32, threads, tiny};

const SPEC: &str = include_str!("../../format-spec.md");

/// Section 3: no piece straddles a multiple of this.
const WINDOW: u64 = 1 << 30;

/// "No slot", "no parent".
const NONE: u32 = u32::MAX;

pub(crate) struct Field {
    pub(crate) offset: usize,
    pub(crate) bytes: usize,
    kind: String,
    pub(crate) name: String,
}

/// A record as its table describes it.
pub(crate) struct Record {
    pub(crate) bytes: usize,
    pub(crate) fields: Vec<Field>,
}

impl Record {
    pub(crate) fn field(&self, name: &str) -> &Field {
        let found = self.fields.iter().find(|field| field.name == name);
        found.unwrap_or_else(|| panic!("the specification has no field {name}"))
    }

    fn bytes_of<'a>(&self, name: &str, record: &'a [u8]) -> &'a [u8] {
        let field = self.field(name);
        &record[field.offset..field.offset + field.bytes]
    }

    /// An unsigned field.
    pub(crate) fn get(&self, name: &str, record: &[u8]) -> u64 {
        little_endian(self.bytes_of(name, record))
    }

    fn get_u32(&self, name: &str, record: &[u8]) -> u32 {
        u32::try_from(self.get(name, record)).expect("a field of four bytes or fewer")
    }

    fn get_f32(&self, name: &str, record: &[u8]) -> f32 {
        f32::from_bits(self.get_u32(name, record))
    }

    fn check_reserved(&self, what: &str, record: &[u8]) {
        for field in self.fields.iter().filter(|field| field.name.starts_with("reserved")) {
            assert_zero(self.bytes_of(&field.name, record), what);
        }
    }
}

/// One line of the table of logical arrays.
struct ArrayLine {
    name: String,
    coordinates: bool,
    row_bytes: String,
    row: String,
}

/// What the tables of the specification say.
pub(crate) struct Spec {
    pub(crate) records: BTreeMap<String, Record>,
    arrays: Vec<ArrayLine>,
    /// Offset and content of each page of the preamble, and of the end of it.
    pages: Vec<(usize, String)>,
    counters: Vec<String>,
}

impl Spec {
    pub(crate) fn parse() -> Self {
        let mut spec = Spec {
            records: BTreeMap::new(),
            arrays: Vec::new(),
            pages: Vec::new(),
            counters: Vec::new(),
        };
        let mut heading = "";
        for line in SPEC.lines() {
            if line.starts_with('#') {
                heading = line.trim_start_matches('#').trim();
                if let Some(rest) = heading.strip_prefix("Record `") {
                    let (name, bytes) = rest.split_once("`: ").expect("`name`: N bytes");
                    let bytes = bytes.trim_end_matches(" bytes").parse().expect("a size");
                    spec.records.insert(name.to_string(), Record { bytes, fields: Vec::new() });
                }
                continue;
            }
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let Some(first) = line.starts_with('|').then(|| cells[0].parse().ok()).flatten() else {
                continue;
            };
            if let Some(rest) = heading.strip_prefix("Record `") {
                let name = rest.split('`').next().expect("a name");
                let [_, bytes, kind, name_of_field, meaning] = cells[..] else {
                    panic!("{line}: a field has five cells")
                };
                assert!(!meaning.is_empty(), "{line}");
                spec.records.get_mut(name).expect("its heading came first").fields.push(Field {
                    offset: first,
                    bytes: bytes.parse().expect("a size"),
                    kind: kind.to_string(),
                    name: name_of_field.to_string(),
                });
            } else if heading == "Logical arrays" {
                assert_eq!(first, spec.arrays.len(), "{line}: arrays are numbered from 0");
                spec.arrays.push(ArrayLine {
                    name: cells[1].to_string(),
                    coordinates: cells[2] == "coordinates",
                    row_bytes: cells[3].to_string(),
                    row: cells[4].trim_matches('`').to_string(),
                });
            } else if heading.ends_with("Preamble") && cells.len() == 2 {
                spec.pages.push((first, cells[1].to_string()));
            }
        }
        let list = SPEC.split("Counters, in this order:").nth(1).expect("a list of counters");
        let list = list.split("They are statistics").next().expect("its end");
        let names = list.split('`').skip(1).step_by(2);
        spec.counters = names.map(str::to_string).collect();
        spec
    }

    fn record(&self, name: &str) -> &Record {
        &self.records[name]
    }

    fn array(&self, name: &str) -> usize {
        let found = self.arrays.iter().position(|line| line.name == name);
        found.unwrap_or_else(|| panic!("the specification has no array {name}"))
    }

    pub(crate) fn array_name(&self, array: usize) -> &str {
        &self.arrays[array].name
    }

    /// The number of an array.
    pub(crate) fn number_of(&self, array: &str) -> usize {
        self.array(array)
    }

    /// The record that the rows of an array are, if they are records.
    pub(crate) fn record_of(&self, array: usize) -> Option<&Record> {
        self.records.get(&self.arrays[array].row)
    }

    /// Number of data arrays: those before the store state.
    pub(crate) fn data_arrays(&self) -> usize {
        self.array("versions")
    }

    /// Offsets of the pages with this content, in order.
    pub(crate) fn pages_of(&self, content: &str) -> Vec<usize> {
        let found = self.pages.iter().filter(|(_, what)| what.starts_with(content));
        found.map(|(offset, _)| *offset).collect()
    }

    /// Offset of one copy of the slot of a commit.
    pub(crate) fn slot_page(&self, commit: u64, copy: u64) -> usize {
        let content = format!("slot place {}, copy {copy}", commit % 4);
        self.pages_of(&content)[0]
    }

    pub(crate) fn hint_page(&self) -> usize {
        self.pages_of("hint")[0]
    }

    pub(crate) fn data_start(&self) -> usize {
        self.pages_of("segments")[0]
    }
}

fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |value, &byte| value << 8 | u64::from(byte))
}

fn assert_zero(bytes: &[u8], what: &str) {
    assert!(bytes.iter().all(|&byte| byte == 0), "{what}: not zero");
}

/// Whether s is within 2^level.
fn within(s: f32, level: i16) -> bool {
    match level {
        ..=-75 => s == 0.0,
        -74..64 => f64::from(s) <= 4f64.powi(i32::from(level)),
        64.. => true,
    }
}

/// A segment or table node that something refers to.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) array: usize,
    pub(crate) level: u32,
    /// Number of the segment, or position among the nodes of the level.
    pub(crate) index: usize,
    pub(crate) range: Range<usize>,
    birth: u64,
    /// Where the entry lies that refers to it. If several do, the first that was followed.
    pub(crate) entry_at: usize,
}

impl Piece {
    /// Section 5: of what the piece is, then of its bytes.
    pub(crate) fn checksum(&self, file: &[u8]) -> u32 {
        let mut covered = vec![self.array as u8, self.level as u8, 0, 0, 0, 0, 0, 0];
        covered.extend_from_slice(&(self.index as u64).to_le_bytes());
        covered.extend_from_slice(&self.birth.to_le_bytes());
        covered.extend_from_slice(&file[self.range.clone()]);
        crc32(&covered)
    }
}

/// A field of a file that can be given a wrong value.
pub(crate) struct Lie {
    pub(crate) name: String,
    pub(crate) at: usize,
    pub(crate) bytes: usize,
}

/// All fields of a record but checksums, those of the records in it one by one.
fn add_fields(spec: &Spec, places: &mut Vec<Lie>, name: &str, record: &str, at: usize) {
    for field in &spec.record(record).fields {
        let (kind, count) = match field.kind.split_once('[') {
            Some((kind, count)) => (kind, count.trim_end_matches(']').parse().expect("a number")),
            None => (&field.kind[..], 1),
        };
        let one = field.bytes / count;
        for i in (0..count).filter(|_| field.name != "crc" && field.name != "counters") {
            let name = format!("{name}.{}[{i}]", field.name);
            match spec.records.contains_key(kind) {
                true => add_fields(spec, places, &name, kind, at + field.offset + one * i),
                false => places.push(Lie { name, at: at + field.offset + one * i, bytes: one }),
            }
        }
    }
}

/// The rows of an array, and where each of them lies.
#[derive(Default)]
pub(crate) struct Rows {
    row_bytes: usize,
    data: Vec<u8>,
    pub(crate) at: Vec<usize>,
}

impl Rows {
    pub(crate) fn len(&self) -> usize {
        self.at.len()
    }

    /// All rows, one after the other.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.data[row * self.row_bytes..(row + 1) * self.row_bytes]
    }

    fn iter(&self) -> impl Iterator<Item = &[u8]> {
        (0..self.len()).map(|row| self.row(row))
    }

    fn u64(&self, row: usize) -> u64 {
        little_endian(self.row(row))
    }

    fn floats(&self, row: usize) -> Vec<f32> {
        let words = self.row(row).chunks_exact(4);
        words.map(|word| f32::from_le_bytes(word.try_into().expect("four bytes"))).collect()
    }
}

/// A store file, read by the specification. Panics on anything that is not as specified.
pub(crate) struct Image<'a> {
    spec: &'a Spec,
    pub(crate) bytes: &'a [u8],
    dim: usize,
    block: usize,
    topology: usize,
    coordinates: usize,
    leaf_capacity: u64,
    /// The newest slot: where its first copy lies, and how far the file reaches.
    pub(crate) slot_at: usize,
    pub(crate) commit: u64,
    pub(crate) file_bytes: usize,
    /// By address. Pieces that several versions have in common are here once.
    pub(crate) pieces: BTreeMap<usize, Piece>,
}

/// A version of an image: the file offset of its row.
#[derive(Clone, Copy)]
pub(crate) struct Version {
    row_at: usize,
}

impl<'a> Image<'a> {
    pub(crate) fn new(spec: &'a Spec, bytes: &'a [u8]) -> Self {
        let header = spec.record("header");
        let slot = spec.record("slot");
        let pages = spec.pages_of("header");
        let page = |at: usize| &bytes[at..at + 4096];
        let h = page(pages[0]);
        assert_eq!(h, page(pages[1]), "the copies of the header are equal");
        assert_eq!(header.bytes_of("magic", h), b"TREERING");
        assert_eq!(header.get("format_version", h), 2);
        assert_eq!(header.get("header_bytes", h), header.bytes as u64);
        assert_eq!(crc32(&h[..header.field("crc").offset]), header.get_u32("crc", h));
        for mask in ["features_compatible", "features_read_only", "features_incompatible"] {
            assert_eq!(header.get(mask, h), 0);
        }
        header.check_reserved("header", h);
        assert_zero(&h[header.bytes..], "rest of the header's page");
        for at in (0..spec.data_start()).step_by(65_536) {
            assert_zero(&bytes[at + 4096..at + 65_536], "hole of the preamble");
        }
        for at in spec.pages_of("reserved") {
            assert_zero(page(at), "reserved page");
        }

        let mut newest = None;
        for at in spec.pages_of("slot") {
            let s = page(at);
            if s.iter().all(|&byte| byte == 0) {
                continue;
            }
            assert_eq!(slot.bytes_of("magic", s), b"TREESLOT");
            assert_eq!(crc32(&s[..slot.field("crc").offset]), slot.get_u32("crc", s));
            assert_eq!(slot.bytes_of("store_lineage", s), header.bytes_of("lineage", h));
            slot.check_reserved("slot", s);
            assert_zero(&s[slot.bytes..], "rest of a slot's page");
            let commit = slot.get("commit", s);
            assert!([0, 1].map(|copy| spec.slot_page(commit, copy)).contains(&at), "place");
            if newest.is_none_or(|(best, _)| best < commit) {
                newest = Some((commit, at));
            }
        }
        let (commit, slot_at) = newest.expect("a slot");
        assert_eq!(page(slot_at), page(spec.slot_page(commit, 1)), "both copies are equal");
        let hint = spec.record("hint");
        let t = page(spec.hint_page());
        assert_eq!(hint.bytes_of("magic", t), b"TREEHINT");
        assert_eq!(crc32(&t[..hint.field("crc").offset]), hint.get_u32("crc", t));
        assert_eq!(hint.get("commit", t), commit);
        assert_eq!(hint.bytes_of("store_lineage", t), header.bytes_of("lineage", h));
        hint.check_reserved("hint", t);
        assert_zero(&t[hint.bytes..], "rest of the hint's page");

        let file_bytes = slot.get("file_bytes", page(slot_at)) as usize;
        assert!(bytes.len() >= file_bytes);
        Image {
            spec,
            bytes,
            dim: header.get("dim", h) as usize,
            block: header.get("block_bytes", h) as usize,
            topology: header.get("topology_segment_bytes", h) as usize,
            coordinates: header.get("coordinate_segment_bytes", h) as usize,
            leaf_capacity: header.get("leaf_capacity", h),
            slot_at,
            commit,
            file_bytes,
            pieces: BTreeMap::new(),
        }
    }

    pub(crate) fn row_bytes(&self, array: usize) -> usize {
        let line = &self.spec.arrays[array];
        let bytes = match line.row_bytes.strip_suffix(" x dim") {
            Some(factor) => factor.parse::<usize>().expect("a factor") * self.dim,
            None => line.row_bytes.parse().expect("a size"),
        };
        let by_row = match &line.row[..] {
            "u64" => 8,
            "u32" => 4,
            "f32" => 4,
            "f32[dim]" => 4 * self.dim,
            "f32[2 x dim][16]" => 4 * 2 * self.dim * 16,
            record => self.spec.record(record).bytes,
        };
        assert_eq!(bytes, by_row, "{}", line.name);
        bytes
    }

    pub(crate) fn rows_per_segment(&self, array: usize) -> usize {
        let segment = match self.spec.arrays[array].coordinates {
            true => self.coordinates,
            false => self.topology,
        };
        (segment / self.row_bytes(array)).max(1)
    }

    /// Reads an array, given where its root lies.
    pub(crate) fn array(&mut self, name: &str, root_at: usize) -> Rows {
        let array = self.spec.array(name);
        let root = self.spec.record("root");
        let rows = root.get("rows", &self.bytes[root_at..]) as usize;
        let entry_at = root_at + root.field("entry").offset;
        let row_bytes = self.row_bytes(array);
        let per_segment = self.rows_per_segment(array);
        let segments = rows.div_ceil(per_segment);
        let fanout =
            (self.block - self.spec.record("table_node").bytes) / self.spec.record("entry").bytes;
        let height = (0..).find(|&h| fanout.pow(h) >= segments).expect("a height");
        let mut found = Rows { row_bytes, ..Rows::default() };
        if rows == 0 {
            assert_zero(&self.bytes[entry_at..entry_at + 24], "root of an empty array");
            return found;
        }
        for segment in 0..segments {
            let mut entry_at = entry_at;
            for level in (1..=height).rev() {
                let index = segment / fanout.pow(level);
                let node = self.piece((array, level, index), entry_at, self.block);
                let record = self.spec.record("table_node");
                let bytes = &self.bytes[node.range.clone()];
                assert_eq!(record.bytes_of("magic", bytes), b"TNOD");
                assert_eq!(record.get("array", bytes), array as u64);
                assert_eq!(record.get("level", bytes), u64::from(level));
                assert_eq!(record.get("index", bytes), index as u64);
                record.check_reserved("table node", bytes);
                let below = segments.div_ceil(fanout.pow(level - 1));
                let used = record.bytes + 24 * fanout.min(below - index * fanout);
                assert_zero(&bytes[used..], "unused entries of a table node");
                let child = segment / fanout.pow(level - 1) % fanout;
                entry_at = node.range.start + record.bytes + 24 * child;
            }
            let used = (rows - segment * per_segment).min(per_segment);
            let stored = (used * row_bytes).next_multiple_of(self.block);
            let piece = self.piece((array, 0, segment), entry_at, stored);
            let bytes = &self.bytes[piece.range.clone()];
            assert_zero(&bytes[used * row_bytes..], "padding of a segment");
            found.data.extend_from_slice(&bytes[..used * row_bytes]);
            found.at.extend((0..used).map(|row| piece.range.start + row * row_bytes));
        }
        if let Some(record) = self.spec.records.get(&self.spec.arrays[array].row) {
            found.iter().for_each(|row| record.check_reserved(name, row));
        }
        found
    }

    /// Follows an entry: checks everything that section 12 asks for.
    fn piece(
        &mut self,
        (array, level, index): (usize, u32, usize),
        entry_at: usize,
        stored: usize,
    ) -> Piece {
        let record = self.spec.record("entry");
        let entry = &self.bytes[entry_at..entry_at + record.bytes];
        let address = record.get("address", entry) as usize;
        let birth = record.get("birth", entry);
        let bytes = record.get("bytes", entry) as usize;
        let name = &self.spec.arrays[array].name;
        assert_eq!(bytes, stored, "{name}: stored length");
        assert!(address >= self.spec.data_start() && address.is_multiple_of(self.block), "{name}");
        assert!(address + bytes <= self.file_bytes, "{name}");
        assert_eq!(address as u64 / WINDOW, (address + bytes - 1) as u64 / WINDOW, "{name}");
        assert!(birth >= 1 && birth <= self.commit, "{name}: birth");
        if let Some((_, parent)) = self.pieces.range(..=entry_at).next_back()
            && parent.range.contains(&entry_at)
            && parent.level > 0
        {
            assert!(birth <= parent.birth, "{name}: a child is not younger than its parent");
        }
        if let Some(known) = self.pieces.get(&address) {
            assert_eq!((known.array, known.level, known.birth), (array, level, birth), "{name}");
            return known.clone();
        }
        let range = address..address + bytes;
        let piece = Piece { array, level, index, range, birth, entry_at };
        assert_eq!(piece.checksum(self.bytes), record.get_u32("crc", entry), "{name}: checksum");
        self.pieces.insert(address, piece.clone());
        piece
    }

    /// Reads everything there is, and checks the use of space.
    pub(crate) fn check_all(&mut self) {
        for name in ["versions", "free_map", "freed", "tags"] {
            self.state(name);
        }
        for version in self.retained() {
            for number in 0..self.spec.array("versions") {
                self.data(version, &self.spec.arrays[number].name);
            }
        }
        self.check_space();
    }

    /// Fields worth lying in: those of the slot, of the version's row, of some table nodes, and of
    /// the first and last row of each array that the version has. Afterwards, `pieces` are those of
    /// this version and the store state.
    pub(crate) fn places(&mut self, version: Version) -> Vec<Lie> {
        let spec = self.spec;
        self.pieces.clear();
        let mut places = Vec::new();
        add_fields(spec, &mut places, "slot", "slot", self.slot_at);
        for line in &spec.arrays {
            let number = spec.array(&line.name);
            let rows = match number < spec.array("versions") {
                true => self.data(version, &line.name),
                false => self.state(&line.name),
            };
            for row in [0, rows.len().wrapping_sub(1)].into_iter().filter(|&row| row < rows.len()) {
                let name = format!("{}[{row}]", line.name);
                match spec.records.contains_key(&line.row) {
                    true => add_fields(spec, &mut places, &name, &line.row, rows.at[row]),
                    false => places.push(Lie { name, at: rows.at[row], bytes: rows.row_bytes }),
                }
            }
        }
        let mut seen = vec![0; spec.arrays.len()];
        for piece in self.pieces.values().filter(|piece| piece.level > 0) {
            seen[piece.array] += 1;
            if seen[piece.array] == 1 {
                let name = format!("table node of {}", spec.arrays[piece.array].name);
                let at = piece.range.start;
                add_fields(spec, &mut places, &name, "table_node", at);
                add_fields(spec, &mut places, &name, "entry", at + spec.record("table_node").bytes);
            }
        }
        places
    }

    /// The file with other values at places that [`Image::places`] gave, and all checksums above
    /// them repaired.
    pub(crate) fn with(&self, changes: &[(&Lie, &[u8])]) -> Vec<u8> {
        let mut bytes = self.bytes.to_vec();
        for (place, value) in changes {
            bytes[place.at..place.at + place.bytes].copy_from_slice(value);
        }
        for (place, _) in changes {
            let mut at = place.at;
            while at >= self.spec.data_start() {
                let (_, piece) = self.pieces.range(..=at).next_back().expect("a piece");
                at = piece.entry_at;
                let birth = at + self.spec.record("entry").field("birth").offset;
                let birth = little_endian(&bytes[birth..birth + 8]);
                let crc = Piece { birth, ..piece.clone() }.checksum(&bytes);
                let field = at + self.spec.record("entry").field("crc").offset;
                bytes[field..field + 4].copy_from_slice(&crc.to_le_bytes());
            }
        }
        let slot = self.spec.record("slot");
        let field = self.slot_at + slot.field("crc").offset;
        let crc = crc32(&bytes[self.slot_at..field]);
        bytes[field..field + 4].copy_from_slice(&crc.to_le_bytes());
        let copies = [0, 1].map(|copy| self.spec.slot_page(self.commit, copy));
        bytes.copy_within(copies[0]..copies[0] + slot.bytes, copies[1]);
        bytes
    }

    pub(crate) fn state(&mut self, name: &str) -> Rows {
        let roots = self.spec.record("slot").field("roots").offset;
        let number = self.spec.array(name) - self.spec.array("versions");
        self.array(name, self.slot_at + roots + 32 * number)
    }

    /// All versions, oldest first.
    pub(crate) fn versions(&mut self) -> Vec<Version> {
        let rows = self.state("versions");
        let newest = self.spec.record("slot").get("newest_version", &self.bytes[self.slot_at..]);
        assert_eq!(rows.len() as u64, newest);
        rows.at.iter().map(|&row_at| Version { row_at }).collect()
    }

    /// Versions that have not expired, oldest first; the oldest is the one that the slot names.
    pub(crate) fn retained(&mut self) -> Vec<Version> {
        let mut versions = self.versions();
        let roots = self.spec.record("version").field("roots");
        versions.retain(|&version| {
            let expired = self.version_field(version, "expired_ns") > 0;
            if expired {
                let at = version.row_at + roots.offset;
                assert_zero(&self.bytes[at..at + roots.bytes], "roots of an expired version");
            } else {
                assert_eq!(self.version_field(version, "expired_keep_last"), 0);
                assert_eq!(self.version_field(version, "expired_keep_for_ns"), 0);
            }
            !expired
        });
        let oldest = versions.first().map_or(0, |&version| self.version_field(version, "version"));
        let slot = self.spec.record("slot");
        assert_eq!(slot.get("oldest_version", &self.bytes[self.slot_at..]), oldest);
        versions
    }

    /// The row of a version as it lies in the file, and whether it has expired.
    pub(crate) fn version_row(&self, version: Version) -> (&'a [u8], bool) {
        let bytes = self.spec.record("version").bytes;
        let row = &self.bytes[version.row_at..version.row_at + bytes];
        (row, self.version_field(version, "expired_ns") > 0)
    }

    /// The newest slot as it lies in the file.
    pub(crate) fn slot(&self) -> &'a [u8] {
        &self.bytes[self.slot_at..self.slot_at + self.spec.record("slot").bytes]
    }

    /// Where the root of a data array of a version lies.
    pub(crate) fn root_at(&self, version: Version, name: &str) -> usize {
        let roots = self.spec.record("version").field("roots").offset;
        version.row_at + roots + 32 * self.spec.array(name)
    }

    pub(crate) fn data(&mut self, version: Version, name: &str) -> Rows {
        let at = self.root_at(version, name);
        self.array(name, at)
    }

    /// A version's number.
    pub(crate) fn number(&self, version: Version) -> u64 {
        self.version_field(version, "version")
    }

    fn version_field(&self, version: Version, name: &str) -> u64 {
        self.spec.record("version").get(name, &self.bytes[version.row_at..])
    }

    /// The live points of a version by the tombstones alone.
    fn live_points(&mut self, version: Version) -> BTreeMap<u64, Vec<f32>> {
        let ids = self.data(version, "ids");
        let coordinates = self.data(version, "coordinates");
        let tombstones = self.data(version, "tombstones");
        assert_eq!(coordinates.len(), ids.len());
        assert_eq!(tombstones.len(), ids.len().div_ceil(64));
        let dead = |slot: usize| tombstones.u64(slot / 64) >> (slot % 64) & 1 == 1;
        assert!((ids.len()..tombstones.len() * 64).all(|slot| !dead(slot)), "bits beyond the end");
        let mut points = BTreeMap::new();
        for slot in (0..ids.len()).filter(|&slot| !dead(slot)) {
            let twice = points.insert(ids.u64(slot), coordinates.floats(slot));
            assert!(twice.is_none(), "two live slots of one id");
        }
        points
    }

    /// Section 8: exactly what is reached, and the freed list, is in use.
    fn check_space(&mut self) {
        let map = self.state("free_map");
        let freed = self.state("freed");
        assert_eq!(map.len() % self.rows_per_segment(self.spec.array("free_map")), 0);
        assert_eq!(freed.len() % self.rows_per_segment(self.spec.array("freed")), 0);
        let mut used = vec![false; map.len() * 64];
        let mut mark = |start: usize, bytes: usize, block: usize| {
            assert!(start.is_multiple_of(block) && bytes.is_multiple_of(block));
            for used in &mut used[start / block..(start + bytes) / block] {
                assert!(!std::mem::replace(used, true), "a block at {start} belongs to two");
            }
        };
        mark(0, self.spec.data_start(), self.block);
        for piece in self.pieces.values() {
            mark(piece.range.start, piece.range.len(), self.block);
        }
        let record = self.spec.record("freed");
        for row in freed.iter() {
            let bytes = record.get("bytes", row) as usize;
            mark(record.get("address", row) as usize, bytes, self.block);
        }
        for (block, &used) in used.iter().enumerate() {
            let bit = map.u64(block / 64) >> (block % 64) & 1 == 1;
            assert_eq!(bit, used, "block {block}");
        }
        let last = used.iter().rposition(|&used| used).expect("the preamble");
        assert_eq!((last + 1) * self.block, self.file_bytes);
    }
}

/// The tree of a version by section 7, walked from the root.
struct Walk<'a> {
    spec: &'a Spec,
    dim: usize,
    leaf_capacity: u64,
    rows: BTreeMap<&'static str, Rows>,
    /// Node in which each slot was met.
    node_of: Vec<Option<u32>>,
    levels: BTreeMap<i16, u64>,
}

impl<'a> Walk<'a> {
    fn new(image: &mut Image<'a>, version: Version) -> Self {
        const ARRAYS: [&str; 16] = [
            "coordinates",
            "ids",
            "tombstones",
            "owners",
            "centers",
            "radii",
            "nodes",
            "links",
            "counts",
            "runs",
            "level_counts",
            "index_runs",
            "index_pieces",
            "index_keys",
            "index_slots",
            "boxes",
        ];
        let rows: BTreeMap<_, _> =
            ARRAYS.iter().map(|&name| (name, image.data(version, name))).collect();
        Walk {
            spec: image.spec,
            dim: image.dim,
            leaf_capacity: image.leaf_capacity,
            node_of: vec![None; rows["ids"].len()],
            rows,
            levels: BTreeMap::new(),
        }
    }

    fn live(&self, slot: u32) -> bool {
        self.rows["tombstones"].u64(slot as usize / 64) >> (slot % 64) & 1 == 0
    }

    fn id(&self, slot: u32) -> u64 {
        self.rows["ids"].u64(slot as usize)
    }

    fn level(&self, node: u32) -> i16 {
        let field = self.spec.record("node").get("level", self.rows["nodes"].row(node as usize));
        field as u16 as i16
    }

    fn sum_to(&self, slot: u32, node: u32) -> f32 {
        let point = self.rows["coordinates"].floats(slot as usize);
        canonical_sum(&point, &self.rows["centers"].floats(node as usize))
    }

    /// Checks a node and all below it. Returns the slots met, those that are not live included.
    fn node(&mut self, node: u32, parent: u32) -> Vec<u32> {
        let at = node as usize;
        let record = self.spec.record("node");
        assert_eq!(record.get_u32("parent", self.rows["nodes"].row(at)), parent);
        let flat = record.get("flat_capacity", self.rows["nodes"].row(at));
        let level = self.level(node);
        assert!((-75..=64).contains(&level));
        *self.levels.entry(level).or_insert(0) += 1;

        let link = self.spec.record("link");
        let row = self.rows["links"].row(at).to_vec();
        let [start, twins, bucket] =
            ["slot_start", "twin_count", "bucket_count"].map(|name| link.get_u32(name, &row));
        let child_start = link.get_u32("child_start", &row);
        let first = child_start..child_start + link.get_u32("child_count", &row);
        let mut children = Vec::new();
        children.push(first);
        let mut ranges =
            [start..start + twins, start + twins..start + twins + bucket].map(|r| vec![r]);
        let own_radius = link.get_f32("own_radius", &row);
        let count_record = self.spec.record("count");
        let count_row = self.rows["counts"].row(at).to_vec();
        assert!(count_record.get("flags", &count_row) <= 1);
        let [first, count] =
            ["run_start", "run_count"].map(|name| count_record.get_u32(name, &count_row));
        let run = self.spec.record("run");
        for at in first..first + count {
            let row = self.rows["runs"].row(at as usize);
            let start = run.get_u32("start", row);
            let range = start..start + run.get_u32("count", row);
            match run.get("kind", row) {
                0 => children.push(range),
                1 => ranges[1].push(range),
                2 => ranges[0].push(range),
                kind => panic!("run of kind {kind}"),
            }
        }

        let radius = self.rows["radii"].floats(at)[0];
        let mut slots = Vec::new();
        for range in &ranges[0] {
            assert!(range.clone().is_sorted_by_key(|slot| self.id(slot)), "twins are by id");
            assert!(range.clone().all(|slot| self.sum_to(slot, node) == 0.0), "twins are at 0");
            slots.extend(range.clone());
        }
        for range in &ranges[1] {
            let key = |slot: u32| (self.sum_to(slot, node).to_bits(), self.id(slot));
            assert!(range.clone().is_sorted_by_key(key), "a bucket is by distance and id");
            for slot in range.clone().filter(|&slot| self.live(slot)) {
                let s = self.sum_to(slot, node);
                assert!(s > 0.0 && s.sqrt() <= own_radius && within(s, level));
            }
            slots.extend(range.clone());
        }
        let rows: u64 = ranges[1].iter().map(|range| range.len() as u64).sum();
        assert!(rows <= flat.max(self.leaf_capacity - 1), "capacity of a bucket");
        for &slot in &slots {
            assert_eq!(self.node_of[slot as usize].replace(node), None, "slot in two nodes");
        }
        let center = self.rows["centers"].floats(at);
        for child in children.into_iter().flatten() {
            assert!(child > node, "children come later");
            let below = self.level(child);
            let s = canonical_sum(&self.rows["centers"].floats(child as usize), &center);
            assert!(below < level && within(s, below + 1) && !within(s, below));
            slots.extend(self.node(child, node));
        }
        let live: Vec<u32> = slots.iter().copied().filter(|&slot| self.live(slot)).collect();
        assert!(live.iter().all(|&slot| self.sum_to(slot, node).sqrt() <= radius));
        assert!(parent != NONE || live.iter().all(|&slot| within(self.sum_to(slot, node), level)));
        if self.dim <= 8 {
            let boxes = self.rows["boxes"].floats(at / 16);
            for c in 0..self.dim {
                let [low, high] = [c, self.dim + c].map(|row| boxes[16 * row + at % 16]);
                let value = |slot: u32| self.rows["coordinates"].floats(slot as usize)[c];
                assert!(live.iter().all(|&slot| (low..=high).contains(&value(slot))), "box");
            }
        }
        let live_count = count_record.get("live", &count_row);
        assert_eq!(live_count, live.len() as u64, "live count of node {node}");
        let span = count_record.get_u32("span", &count_row);
        if span > 0 {
            let mut sorted = slots.clone();
            sorted.sort_unstable();
            assert!(sorted.iter().copied().eq(start..start + span), "span of node {node}");
        }
        slots
    }

    fn check(&mut self) {
        let nodes = self.rows["links"].len();
        for name in ["centers", "radii", "nodes", "counts"] {
            assert_eq!(self.rows[name].len(), nodes, "{name}");
        }
        let groups = if self.dim <= 8 { nodes.div_ceil(16) } else { 0 };
        assert_eq!(self.rows["boxes"].len(), groups, "boxes");
        if nodes > 0 {
            self.node(0, NONE);
        }
        let slots = self.node_of.len() as u32;
        for slot in (0..slots).filter(|&slot| self.live(slot)) {
            let node = self.node_of[slot as usize].expect("a live slot is in some node");
            assert_eq!(self.owner(slot), node, "owner of slot {slot}");
            assert_eq!(self.find(self.id(slot)), Some(slot), "id index");
        }
        assert_eq!(self.rows["coordinates"].row_bytes, 4 * self.dim);
        for (row, count) in self.rows["level_counts"].iter().enumerate() {
            let found = self.levels.get(&(row as i16 - 75)).copied().unwrap_or(0);
            assert_eq!(little_endian(count), found, "level_counts, row {row}");
        }
    }

    fn owner(&self, slot: u32) -> u32 {
        let owner = self.spec.record("owner");
        let mut rows =
            self.rows["owners"].iter().take_while(|row| owner.get_u32("start", row) <= slot);
        owner.get_u32("owner", rows.by_ref().last().expect("an owner"))
    }

    /// The search of section 7, "Id index".
    fn find(&self, id: u64) -> Option<u32> {
        let (run, piece) = (self.spec.record("index_run"), self.spec.record("index_piece"));
        let runs: Vec<_> = self.rows["index_runs"].iter().collect();
        let used = runs.iter().take_while(|row| run.get("entries", row) > 0).count();
        assert!(runs[used..].iter().all(|row| run.get("entries", row) == 0));
        for row in runs[..used].iter().rev() {
            let start = run.get("piece_start", row) as usize;
            let pieces = (start..start + run.get("piece_count", row) as usize)
                .map(|at| self.rows["index_pieces"].row(at));
            let Some(row) = pieces.take_while(|row| piece.get("first_id", row) <= id).last() else {
                continue;
            };
            let [first, count, slots, keys] = ["first_id", "count", "slot_start", "key_start"]
                .map(|name| piece.get(name, row) as usize);
            let position = match piece.get("sparse", row) {
                0 => Some(id as usize - first).filter(|&position| position < count),
                1 => (0..count).find(|i| self.rows["index_keys"].u64(keys + i) == id),
                other => panic!("piece of kind {other}"),
            };
            let Some(position) = position else { continue };
            match self.rows["index_slots"].u64(slots + position) as u32 {
                NONE => {}
                slot => return Some(slot),
            }
        }
        None
    }
}

/// The frames of a backup stream by section 13: kinds, and where the payloads lie.
pub(crate) fn frames(spec: &Spec, stream: &[u8]) -> Vec<(u64, Range<usize>)> {
    let record = spec.record("frame");
    let (mut at, mut before) = (0, 0u32);
    let mut found = Vec::new();
    while at < stream.len() {
        let head = &stream[at..at + record.bytes];
        let payload = at + record.bytes..at + record.bytes + record.get("bytes", head) as usize;
        let parts = [
            &before.to_le_bytes()[..],
            record.bytes_of("kind", head),
            record.bytes_of("bytes", head),
            &stream[payload.clone()],
        ];
        before = record.get_u32("crc", head);
        assert_eq!(crc32(&parts.concat()), before, "checksum of frame {}", found.len());
        at = payload.end;
        found.push((record.get("kind", head), payload));
    }
    let begin = spec.record("stream");
    let first = &stream[found[0].1.clone()];
    assert_eq!((found[0].0, first.len()), (1, begin.bytes));
    assert_eq!(begin.bytes_of("magic", first), b"TREEBACK");
    assert_eq!(begin.get("stream_version", first), 1);
    begin.check_reserved("stream", first);
    let (base, newest) = (begin.get("base", first), begin.get("newest", first));
    let mut version = base;
    for (kind, payload) in &found[1..] {
        let payload = &stream[payload.clone()];
        match kind {
            2 => {
                version += 1;
                let record = spec.record("version");
                assert_eq!(record.get("version", payload), version);
                let relative = little_endian(&payload[record.bytes..]);
                assert!(relative < version && (relative == 0 || relative >= base));
            }
            3 => {
                let record = spec.record("place");
                assert!(record.get("array", payload) < spec.array("versions") as u64);
            }
            4 => assert_eq!((version, payload.len() % spec.record("tag").bytes), (newest, 0)),
            5 => assert_eq!(little_endian(payload), found.len() as u64 - 1),
            kind => panic!("frame of kind {kind}"),
        }
    }
    assert_eq!(found.last().map(|frame| frame.0), Some(5));
    found
}

/// The rows of every data array of every retained version, and what its record says of it wherever
/// it is.
pub(crate) fn contents(spec: &Spec, bytes: &[u8]) -> Vec<(Vec<u8>, Vec<Vec<u8>>)> {
    let mut image = Image::new(spec, bytes);
    let record = spec.record("version");
    let mut found = Vec::new();
    for version in image.retained() {
        let row = &image.bytes[version.row_at..version.row_at + record.bytes];
        let said = record
            .fields
            .iter()
            .filter(|field| !["commit", "bytes_written", "roots"].contains(&&field.name[..]));
        let said = said.flat_map(|field| row[field.offset..field.offset + field.bytes].to_vec());
        let said = said.collect();
        let arrays = (0..spec.array("versions"))
            .map(|number| image.data(version, &spec.arrays[number].name).data)
            .collect();
        found.push((said, arrays));
    }
    found
}

/// Compares an image with what the library says of the file, version by version.
pub(crate) fn compare(spec: &Spec, bytes: &[u8], store: &Store) {
    let mut image = Image::new(spec, bytes);
    let versions = image.retained();
    let infos = store.versions().unwrap();
    assert_eq!(versions.len(), infos.len());
    let tags = image.state("tags");
    let record = spec.record("tag");
    let named: Vec<(String, u64)> = tags
        .iter()
        .map(|row| {
            let (text, rest) =
                record.bytes_of("name", row).split_at(record.get("name_bytes", row) as usize);
            assert_zero(rest, "rest of a name");
            (String::from_utf8(text.to_vec()).unwrap(), record.get("version", row))
        })
        .collect();
    assert!(named.is_sorted());
    let expected: Vec<(String, u64)> =
        store.tags().unwrap().into_iter().map(|tag| (tag.name, tag.version.0)).collect();
    assert_eq!(named, expected);
    let slot = &image.bytes[image.slot_at..];
    let rule = spec.record("slot");
    let rule = (rule.get("keep_last", slot), rule.get("keep_for_ns", slot));
    let expected = match rule {
        (0, 0) => Retention::new(),
        (last, 0) => Retention::new().keep_last(last),
        (last, age) => Retention::new().keep_last(last).keep_for(Duration::from_nanos(age)),
    };
    assert_eq!(store.retention().unwrap(), expected);
    let mut last_birth = 0;
    for (&version, info) in versions.iter().zip(&infos) {
        let record = spec.record("version");
        let row = &image.bytes[version.row_at..version.row_at + record.bytes];
        let field = |name: &str| record.get(name, row);
        assert_eq!(field("version"), info.version.0);
        assert_eq!(field("parent"), info.parent.0);
        assert_eq!(UNIX_EPOCH + Duration::from_nanos(field("time_ns")), info.time);
        assert_eq!(field("points"), info.points);
        assert_eq!((field("added"), field("removed")), (info.added, info.removed));
        assert_eq!(field("bytes_written"), info.bytes_written);
        let kind = match info.kind {
            VersionKind::Insert => 1,
            VersionKind::Delete => 2,
            VersionKind::Mixed => 3,
            VersionKind::Compact => 4,
            _ => 5,
        };
        assert_eq!(field("kind"), kind);
        assert_eq!(field("ids_exhausted"), 0);
        let (text, rest) =
            record.bytes_of("message", row).split_at(field("message_bytes") as usize);
        assert_eq!(text, info.message.as_bytes());
        assert_zero(rest, "rest of a message");
        let counters = record.bytes_of("counters", row).chunks_exact(8).map(little_endian);
        let named = spec.counters.iter().map(String::as_str).zip(counters);
        for (found, expected) in named.zip(info.counters.iter()) {
            let stored = if expected.0 == "bytes_written" { 0 } else { expected.1 };
            assert_eq!(found, (expected.0, stored));
        }

        let points = image.live_points(version);
        let snapshot = store.at(info.version).unwrap();
        let mut expected = BTreeMap::new();
        snapshot
            .for_each(|id, point| {
                expected.insert(id, point.to_vec());
            })
            .unwrap();
        assert_eq!(points, expected, "live points of version {}", info.version);
        assert_eq!(points.len() as u64, field("points"));
        let next = points.last_key_value().map_or(0, |(id, _)| id + 1);
        assert!(field("next_id") >= next);
        assert!(field("held") >= field("points"));
        let birth = image.version_field(version, "commit");
        assert!(birth > last_birth && birth <= image.commit, "commits of versions ascend");
        last_birth = birth;
        Walk::new(&mut image, version).check();
    }
    image.check_space();
}

#[test]
fn fields_tile_their_records() {
    let spec = Spec::parse();
    assert_eq!(spec.records.len(), 19);
    for (name, record) in &spec.records {
        let mut end = 0;
        for field in &record.fields {
            assert_eq!(field.offset, end, "{name}.{}", field.name);
            let (kind, count) = match field.kind.strip_suffix(']').map(|kind| kind.split_once('['))
            {
                Some(Some((kind, count))) => (kind, count.parse().expect("a number")),
                _ => (&field.kind[..], 1),
            };
            let one = match kind {
                "u8" => 1,
                "u16" | "i16" => 2,
                "u32" | "f32" => 4,
                "u64" => 8,
                "bytes" => field.bytes,
                record => spec.record(record).bytes,
            };
            assert_eq!(field.bytes, one * count, "{name}.{}", field.name);
            end += field.bytes;
        }
        assert_eq!(end, record.bytes, "{name}");
    }
    let version = spec.record("version");
    assert_eq!(version.field("roots").bytes, 32 * spec.array("versions"));
    assert_eq!(version.field("counters").bytes, 8 * spec.counters.len());
    let apart = spec.pages.windows(2).all(|pair| pair[0].0 + 65_536 == pair[1].0);
    assert!(apart && spec.data_start() == 12 * 65_536, "one page to a unit, in order");
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

/// The store of the worked example.
fn example(path: &Path) -> Store {
    let start = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let options = CreateOptions::new(2)
        .leaf_capacity(2)
        .block_bytes(128)
        .topology_segment_bytes(128)
        .coordinate_segment_bytes(128);
    let open = OpenOptions::new().threads(1).provenance(Provenance::Fixed { start, seed: 7 });
    let mut store = Store::create_with(path, options, open).unwrap();
    store.insert(&[0.0, 0.0, 1.0, 0.0, 0.0, 2.0]).unwrap();
    store.delete(&[1]).unwrap();
    store
}

/// The text of the hex dump: every line is `offset  bytes  what they are`.
struct Dump<'a> {
    image: Image<'a>,
    text: String,
}

impl Dump<'_> {
    fn lines(&mut self, at: usize, len: usize, note: &str) {
        for (i, line) in (at..at + len).step_by(16).enumerate() {
            let bytes = &self.image.bytes[line..(line + 16).min(at + len)];
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let note = if i == 0 { note } else { "" };
            let text = format!("{line:08x}  {:<47}  {note}", hex.join(" "));
            writeln!(self.text, "{}", text.trim_end()).unwrap();
        }
    }

    /// The fields of a record that are not zero and not left out.
    fn record(&mut self, name: &str, at: usize, leave_out: &[&str], prefix: &str) {
        let spec = self.image.spec;
        for field in &spec.record(name).fields {
            let start = at + field.offset;
            let bytes = &self.image.bytes[start..start + field.bytes];
            if bytes.iter().all(|&byte| byte == 0) || leave_out.contains(&&field.name[..]) {
                continue;
            }
            let value = little_endian(&bytes[..bytes.len().min(8)]);
            let note = match &field.kind[..] {
                "bytes" => field.name.clone(),
                "f32" => format!("{} = {}", field.name, f32::from_bits(value as u32)),
                "i16" => format!("{} = {}", field.name, value as u16 as i16),
                _ if field.name == "crc" => field.name.clone(),
                "u32" if value == u64::from(NONE) => format!("{} = NONE", field.name),
                kind if kind.starts_with("root") => {
                    for (i, line) in spec.arrays.iter().enumerate() {
                        let number = match name {
                            "slot" => i.checked_sub(spec.array("versions")),
                            _ => Some(i).filter(|&i| i < field.bytes / 32),
                        };
                        if let Some(number) = number {
                            self.root(&line.name, start + 32 * number);
                        }
                    }
                    continue;
                }
                _ => format!("{} = {value}", field.name),
            };
            self.lines(start, field.bytes, &format!("{prefix}{note}"));
        }
    }

    fn root(&mut self, name: &str, at: usize) {
        const SHOWN: [&str; 6] =
            ["coordinates", "tombstones", "links", "versions", "free_map", "freed"];
        let entry = self.image.spec.record("entry");
        let address = entry.get("address", &self.image.bytes[at..]);
        if SHOWN.contains(&name) {
            self.lines(at, 24, &format!("root of {name}: address {address:#x}, birth, crc, bytes"));
            let rows = little_endian(&self.image.bytes[at + 24..at + 32]);
            self.lines(at + 24, 8, &format!("  rows = {rows}"));
        }
    }

    fn title(&mut self, title: &str) {
        writeln!(self.text, "\n{title}").unwrap();
    }

    /// The rows of an array, one by one.
    fn rows(&mut self, name: &str, version: Version, rows: Range<usize>) {
        let found = self.image.data(version, name);
        self.title(&format!("{name} of version {}", self.image.version_field(version, "version")));
        for row in rows {
            let note = match name {
                "coordinates" => format!("slot {row}: {:?}", found.floats(row)),
                "ids" => format!("slot {row}: id {}", found.u64(row)),
                "tombstones" => format!("row {row}: {:#b}", found.u64(row)),
                _ => String::new(),
            };
            if note.is_empty() {
                let record = &self.image.spec.arrays[self.image.spec.array(name)].row;
                self.record(record, found.at[row], &[], &format!("row {row}: "));
            } else {
                self.lines(found.at[row], found.row_bytes, &note);
            }
        }
    }
}

fn hex_dump(spec: &Spec, bytes: &[u8]) -> String {
    let mut image = Image::new(spec, bytes);
    let versions = image.versions();
    let (first, second) = (versions[0], versions[1]);
    let mut dump = Dump { image, text: String::new() };
    dump.text.push_str("header, copy 0\n");
    dump.record("header", 0, &[], "");
    dump.title("slot of commit 2, copy 0");
    dump.record("slot", spec.slot_page(2, 0), &[], "");
    dump.title("hint");
    dump.record("hint", spec.hint_page(), &[], "");
    dump.title("table node of versions, level 1, index 0");
    let roots = spec.record("slot").field("roots").offset;
    let entry = spec.record("entry");
    let at = entry.get("address", &bytes[dump.image.slot_at + roots..]) as usize;
    dump.record("table_node", at, &[], "");
    let entries = at + spec.record("table_node").bytes;
    for segment in 0..2 {
        let at = entries + entry.bytes * segment;
        let address = entry.get("address", &bytes[at..]);
        let note = format!("entry {segment}: address {address:#x}, birth, crc, bytes");
        dump.lines(at, entry.bytes, &note);
    }
    dump.title("row of version 2, without its counters and most roots");
    dump.record("version", second.row_at, &["counters"], "");
    dump.rows("coordinates", second, 0..3);
    dump.rows("ids", second, 0..3);
    dump.rows("tombstones", first, 0..1);
    dump.rows("tombstones", second, 0..1);
    let nodes = dump.image.data(second, "nodes").len();
    dump.rows("nodes", second, 0..nodes);
    dump.rows("links", second, 0..nodes);
    dump.rows("index_pieces", second, 0..1);
    dump.title("freed");
    let freed = dump.image.state("freed");
    for row in 0..freed.len() {
        dump.record("freed", freed.at[row], &[], &format!("row {row}: "));
    }
    dump.text
}

#[test]
fn the_worked_example_is_the_file() {
    let spec = Spec::parse();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.tre");
    let store = example(&path);
    let bytes = std::fs::read(&path).unwrap();
    compare(&spec, &bytes, &store);

    let text = hex_dump(&spec, &bytes);
    let mut parts = SPEC.split("```hexdump\n");
    let before = parts.next().unwrap();
    let shown = parts.next().and_then(|rest| rest.split("```").next()).unwrap_or("");
    if shown != text && std::env::var_os("TREERING_UPDATE_SPEC").is_some() {
        let after = SPEC.split("```hexdump\n").nth(1).and_then(|rest| rest.split_once("```"));
        let after = after.map_or("\n", |(_, after)| after);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("format-spec.md");
        std::fs::write(path, format!("{before}```hexdump\n{text}```{after}")).unwrap();
    }
    assert!(
        shown == text,
        "the hex dump in format-spec.md is not the file (run once with TREERING_UPDATE_SPEC=1):\n{text}"
    );
    // The lines themselves, whoever wrote them.
    let mut lines = 0;
    for line in shown.lines().filter(|line| line.len() > 10 && &line[8..10] == "  ") {
        let Ok(at) = usize::from_str_radix(&line[..8], 16) else { continue };
        let hex = line[10..].get(..47).unwrap_or(&line[10..]);
        for (i, byte) in hex.split_whitespace().enumerate() {
            assert_eq!(u8::from_str_radix(byte, 16), Ok(bytes[at + i]), "{line}");
        }
        lines += 1;
    }
    assert!(lines > 60, "{lines} lines");
}

#[test]
fn the_same_calls_make_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b] = ["a.tre", "b.tre"].map(|name| {
        let path = dir.path().join(name);
        drop(example(&path));
        std::fs::read(path).unwrap()
    });
    assert!(a == b);
}

/// Several versions with inserts, deletes, moved rows, twins and scattered ids.
pub(crate) fn busy_store(path: &Path, options: CreateOptions, scale: usize) -> Store {
    let dim = options.dim();
    let mut random = Random(11);
    let mut store = Store::create_with(path, options, threads(1)).unwrap();
    store.insert(&random.points(20 * scale, dim)).unwrap();
    store.insert(&random.points(2 * scale, dim)).unwrap();
    store.delete(&(0..5 * scale as u64).map(|i| i * 3).collect::<Vec<_>>()).unwrap();
    let mut batch = store.begin();
    batch.insert(&[0.25, 0.5, 0.75].repeat(dim * scale)[..scale * dim]).unwrap();
    batch.insert_with_ids(&random.points(scale, dim), &ids(&mut random, scale)).unwrap();
    batch.delete(&[1, 2]).unwrap();
    batch.message("twins, scattered ids and two out: ümläut");
    batch.commit().unwrap();
    for name in ["first", "grün", "zuletzt"] {
        store.tag(name, VersionId(1)).unwrap();
    }
    for _ in 0..3 {
        store.insert(&random.points(scale, dim)).unwrap();
    }
    store.restore(VersionId(2)).unwrap();
    store.insert(&random.points(scale, dim)).unwrap();
    store.tag("zuletzt", VersionId(9)).unwrap();
    store.delete_tag("first").unwrap();
    store
}

fn ids(random: &mut Random, count: usize) -> Vec<u64> {
    (0..count as u64).map(|i| (1 << 40) + i * (1 << 20) + random.below(1 << 19)).collect()
}

#[test]
fn big_stores_read_by_the_tables() {
    let spec = Spec::parse();
    let small = |leaf| {
        CreateOptions::new(3)
            .leaf_capacity(leaf)
            .block_bytes(128)
            .topology_segment_bytes(128)
            .coordinate_segment_bytes(256)
    };
    let cases = [(small(8), 100), (small(1), 20), (tiny(5, 32), 60), (CreateOptions::new(100), 20)];
    for (options, scale) in cases {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.tre");
        let store = busy_store(&path, options, scale);
        let bytes = std::fs::read(&path).unwrap();
        compare(&spec, &bytes, &store);
        assert_eq!(store.at(VersionId(3)).unwrap().len(), 17 * scale as u64);

        // And once more when versions have expired, at once and by a rule that is saved.
        let mut store = store;
        let report = store.expire(Retention::new().keep_last(4)).unwrap();
        assert_eq!(report.expired.len(), 4, "of nine, four are new and one has a tag");
        compare(&spec, &std::fs::read(&path).unwrap(), &store);
        let rule = Retention::new().keep_last(3).keep_for(Duration::from_nanos(1));
        store.set_retention(rule).unwrap();
        for _ in 0..4 {
            store.insert(&Random(5).points(scale, store.dim())).unwrap();
            compare(&spec, &std::fs::read(&path).unwrap(), &store);
        }
        assert_eq!(store.versions().unwrap().len(), 5, "three, and two tags");
    }
}
