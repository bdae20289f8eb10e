//! The answers to queries as CSV, as JSON and as `.npy`.
//!
//! Distances are written with as many digits as bring the same f32 back.

use std::fmt::Write as _;
use std::path::Path;

use super::{NpyFile, Sink, beside};
use crate::failure::Failure;
use treering::Neighbor;
use treering::files::publish::Outputs;

/// Takes the answers to one query after the other.
pub(crate) trait AnswerWriter {
    /// Appends the answers to the next query, nearest first.
    fn answers(&mut self, neighbors: &[Neighbor]) -> Result<(), Failure>;

    /// Hands on what there is so far, if a part of the output is of use: whoever asks one question
    /// after the other waits for the answer.
    fn flow(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// Completes the output.
    fn finish(self: Box<Self>) -> Result<(), Failure>;
}

/// CSV with the header `query,rank,id,distance`; queries and ranks count from 0.
pub(crate) struct CsvAnswers {
    sink: Sink,
    query: u64,
    text: String,
}

impl CsvAnswers {
    pub(crate) fn new(mut sink: Sink) -> Result<CsvAnswers, Failure> {
        sink.write(b"query,rank,id,distance\n")?;
        Ok(CsvAnswers { sink, query: 0, text: String::new() })
    }
}

impl AnswerWriter for CsvAnswers {
    fn answers(&mut self, neighbors: &[Neighbor]) -> Result<(), Failure> {
        self.text.clear();
        let query = self.query;
        for (rank, Neighbor { id, distance }) in neighbors.iter().enumerate() {
            writeln!(self.text, "{query},{rank},{id},{distance}").expect("a String takes anything");
        }
        self.query += 1;
        self.sink.write(self.text.as_bytes())
    }

    fn flow(&mut self) -> Result<(), Failure> {
        self.sink.flush()
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        self.sink.finish()
    }
}

/// One JSON object: what the caller puts first, then `answers`, one `{query, ids, distances}` per
/// query.
pub(crate) struct JsonAnswers {
    sink: Sink,
    query: u64,
    text: String,
}

impl JsonAnswers {
    /// `fields` are members of the object, without braces: `"k":3`.
    pub(crate) fn new(mut sink: Sink, fields: &str) -> Result<JsonAnswers, Failure> {
        sink.write(format!("{{{fields},\"answers\":[").as_bytes())?;
        Ok(JsonAnswers { sink, query: 0, text: String::new() })
    }
}

impl AnswerWriter for JsonAnswers {
    fn answers(&mut self, neighbors: &[Neighbor]) -> Result<(), Failure> {
        let text = &mut self.text;
        text.clear();
        if self.query > 0 {
            text.push(',');
        }
        *text += &format!("{{\"query\":{},\"ids\":[", self.query);
        list(text, neighbors.iter().map(|neighbor| neighbor.id));
        text.push_str("],\"distances\":[");
        list(text, neighbors.iter().map(|neighbor| neighbor.distance));
        text.push_str("]}");
        self.query += 1;
        self.sink.write(text.as_bytes())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Failure> {
        self.sink.write(format!("],\"queries\":{}}}\n", self.query).as_bytes())?;
        self.sink.finish()
    }
}

/// Appends numbers with commas between them.
pub(crate) fn list<T: std::fmt::Display>(text: &mut String, values: impl Iterator<Item = T>) {
    for (i, value) in values.enumerate() {
        let comma = if i > 0 { "," } else { "" };
        write!(text, "{comma}{value}").expect("a String takes anything");
    }
}

/// Two arrays `[queries x per_query]`: ids as u64 under the name given, distances as f32 beside it.
pub(crate) struct NpyAnswers {
    ids: NpyFile,
    distances: NpyFile,
    per_query: usize,
    queries: u64,
    bytes: Vec<u8>,
}

impl NpyAnswers {
    pub(crate) fn create(
        outputs: &mut Outputs,
        path: &Path,
        per_query: usize,
    ) -> Result<NpyAnswers, Failure> {
        Ok(NpyAnswers {
            ids: NpyFile::create(outputs, path, "<u8")?,
            distances: NpyFile::create(outputs, &beside(path, "distances"), "<f4")?,
            per_query,
            queries: 0,
            bytes: Vec::new(),
        })
    }
}

impl AnswerWriter for NpyAnswers {
    fn answers(&mut self, neighbors: &[Neighbor]) -> Result<(), Failure> {
        assert_eq!(neighbors.len(), self.per_query, "every query has min(k, live) answers");
        self.queries += 1;
        self.bytes.clear();
        self.bytes.extend(neighbors.iter().flat_map(|neighbor| neighbor.id.to_le_bytes()));
        self.ids.write(&self.bytes)?;
        self.bytes.clear();
        self.bytes.extend(neighbors.iter().flat_map(|neighbor| neighbor.distance.to_le_bytes()));
        self.distances.write(&self.bytes)
    }

    fn finish(self: Box<Self>) -> Result<(), Failure> {
        let shape = [self.queries, self.per_query as u64];
        self.distances.finish(&shape)?;
        self.ids.finish(&shape)
    }
}
