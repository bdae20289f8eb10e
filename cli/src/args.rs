//! What may be written after `treering`: verbs, options, and the checks that need no file.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};

use crate::ingest::{CsvRules, Delimiter, Format, Reading};
use treering::{CancelToken, Metric, When};

/// An exact nearest-neighbour index on disk that keeps every version of itself.
///
/// Points go in by the batch; each batch makes a version; every version can be asked, at any later
/// time, for exactly the answers it gave then.
#[derive(Debug, Parser)]
#[command(name = "treering", version, after_help = EXIT_CODES)]
pub(super) struct Cli {
    #[command(flatten)]
    pub(super) global: Global,
    #[command(subcommand)]
    pub(super) verb: Verb,
}

const EXIT_CODES: &str = "\
Exit codes: 0 ok; 1 failure; 2 usage; 3 corrupt, or verify failed; 4 locked by another writer;
5 version, tag or id not found; 6 out of memory limit or disk; 130 interrupted (the store stays openable).

INPUT and QUERIES: .npy (n x d, float32, float64 or uint8), .csv or .tsv (numbers, at most one header line),
or - for CSV on standard input; --format overrides the ending.
WHEN: a version number, a tag, latest, or an RFC 3339 time, which means the newest version not after it.";

/// Options of every verb.
#[derive(Args, Debug)]
pub(super) struct Global {
    /// Print one JSON object on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Worker threads; 0 means one per core. No answer depends on it
    #[arg(long, global = true, value_name = "N", default_value_t = 0,
          value_parser = clap::value_parser!(u16).range(..=1024))]
    pub(super) threads: u16,
    /// No progress bar and no summary
    #[arg(long, global = true)]
    pub(super) quiet: bool,
    /// Wait so long, such as 30s, for another writer of the store to end
    #[arg(long, global = true, value_name = "DURATION", value_parser = duration)]
    pub(super) wait: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Show the whole story on built-in data, in a temporary folder
    Demo,
    /// Make a new store from the rows of INPUT (version 1)
    Build(Build),
    /// Add the rows of INPUT as one new version
    Insert(Insert),
    /// Delete points by id, as one new version
    Delete(Delete),
    /// Build the tree anew from the live points, as one new version: smaller and faster after many
    /// batches
    Compact(Compact),
    /// Nearest neighbours of each row of QUERIES, or all points within a radius
    Query(Query),
    /// Print points by id
    Get(Get),
    /// Write all live points and their ids
    Export(Export),
    /// List the versions, newest first
    Log(Log),
    /// What changed between two versions: ids, or the answers to queries
    Diff(Diff),
    /// Name a version, take a name away, or list the names
    Tag(Tag),
    /// Go back to an older version, as one new version; nothing is rewritten
    Restore(Restore),
    /// Let old versions go, and give their space back
    Expire(Expire),
    /// Write all versions and tags, or those after WHEN, to a file that `receive` reads
    Backup(Backup),
    /// Take over the versions of a backup; makes the store if there is none
    Receive(Receive),
    /// Check checksums and, with --deep, every invariant of the tree
    Verify(Verify),
    /// Write the store anew without the holes that old versions have left: all versions and tags,
    /// in a shorter file
    Vacuum(Vacuum),
    /// Say what is left of a damaged or truncated store; with --write, make a new store of it
    Recover(Recover),
    /// Sizes and shape of a version
    Stats(Stats),
    /// Measure query speed, and compare a sample with brute force
    Bench(Bench),
}

#[derive(Args, Debug)]
pub(super) struct Build {
    /// The file to make; it must not exist
    #[arg(value_parser = PathBufValueParser::new().try_map(new_store))]
    pub(super) store: PathBuf,
    #[command(flatten)]
    pub(super) input: Input,
    /// The distance, fixed for the life of the store
    #[arg(long, value_enum, default_value_t = MetricName::Euclidean)]
    pub(super) metric: MetricName,
    /// Points per bucket, at most: 1 is the textbook tree; more builds faster and takes less space
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    pub(super) leaf_capacity: Option<u32>,
    #[command(flatten)]
    pub(super) memory: Memory,
    #[command(flatten)]
    pub(super) message: Message,
}

/// How much memory may be used.
#[derive(Args, Debug)]
pub(super) struct Memory {
    /// Use no more memory than this, the page cache aside; what does not fit goes to temporary
    /// files
    #[arg(long, value_name = "SIZE", value_parser = crate::human::parse_bytes)]
    pub(super) memory_limit: Option<u64>,
    /// Where temporary files go, if not to the store's folder
    #[arg(long, value_name = "FOLDER", requires = "memory_limit")]
    pub(super) temporary_folder: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Insert {
    /// The store
    pub(super) store: PathBuf,
    #[command(flatten)]
    pub(super) input: Input,
    /// What to do with ids that are live already
    #[arg(long, value_enum, value_name = "WHAT", default_value_t = OnDuplicate::Error)]
    pub(super) on_duplicate: OnDuplicate,
    #[command(flatten)]
    pub(super) memory: Memory,
    #[command(flatten)]
    pub(super) message: Message,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("which").required(true).args(["ids", "id"]))]
pub(super) struct Delete {
    /// The store
    pub(super) store: PathBuf,
    /// Ids to delete
    #[arg(value_name = "ID")]
    pub(super) id: Vec<u64>,
    /// A file of ids: text, one a line, or .npy of uint64 or int64
    #[arg(long, value_name = "FILE")]
    pub(super) ids: Option<PathBuf>,
    #[command(flatten)]
    pub(super) message: Message,
}

#[derive(Args, Debug)]
pub(super) struct Compact {
    /// The store
    pub(super) store: PathBuf,
    #[command(flatten)]
    pub(super) memory: Memory,
    #[command(flatten)]
    pub(super) message: Message,
}

#[derive(Args, Debug)]
#[command(group = ArgGroup::new("what").required(true).args(["k", "radius"]))]
pub(super) struct Query {
    /// The store
    pub(super) store: PathBuf,
    /// Rows to ask for
    pub(super) queries: PathBuf,
    /// Neighbours per query
    #[arg(short)]
    pub(super) k: Option<usize>,
    /// All points within this distance, inclusive
    #[arg(long, value_name = "R", allow_negative_numbers = true, value_parser = radius)]
    pub(super) radius: Option<f32>,
    #[command(flatten)]
    pub(super) at: At,
    /// Write to FILE instead: .csv, .npy (ids; distances go to a second file, *_distances.npy), or
    /// - for CSV on standard output
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// Compare with every point instead of using the tree; the answers are the same
    #[arg(long)]
    pub(super) brute_force: bool,
    #[command(flatten)]
    pub(super) text: Text,
}

#[derive(Args, Debug)]
pub(super) struct Get {
    /// The store
    pub(super) store: PathBuf,
    /// Ids to print
    #[arg(value_name = "ID", required = true)]
    pub(super) id: Vec<u64>,
    #[command(flatten)]
    pub(super) at: At,
}

#[derive(Args, Debug)]
pub(super) struct Export {
    /// The store
    pub(super) store: PathBuf,
    /// The file to write: .csv with ids, or .npy (points; ids go to a second file, *_ids.npy); - is
    /// CSV
    pub(super) out: PathBuf,
    #[command(flatten)]
    pub(super) at: At,
}

#[derive(Args, Debug)]
pub(super) struct Log {
    /// The store
    pub(super) store: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct Diff {
    /// The store
    pub(super) store: PathBuf,
    /// The earlier version: a number, a tag, or a time in RFC 3339
    pub(super) from: When,
    /// The later version
    pub(super) to: When,
    /// Only say how many
    #[arg(long)]
    pub(super) count: bool,
    /// Compare the answers to the rows of this file instead, and show those that changed
    #[arg(long, value_name = "QUERIES", requires = "k")]
    pub(super) queries: Option<PathBuf>,
    /// Neighbours per query
    #[arg(short, requires = "queries")]
    pub(super) k: Option<usize>,
    #[command(flatten)]
    pub(super) text: Text,
}

#[derive(Args, Debug)]
pub(super) struct Tag {
    /// The store
    pub(super) store: PathBuf,
    /// The name; without it all tags are listed
    pub(super) name: Option<String>,
    /// The version to name: a number, a tag, or a time in RFC 3339; the newest if not given
    #[arg(long, value_name = "WHEN", requires = "name", conflicts_with = "delete")]
    pub(super) at: Option<When>,
    /// Take the name away; the version stays
    #[arg(long, requires = "name")]
    pub(super) delete: bool,
    /// Give the name to this version even if another has it, which may then expire
    #[arg(long = "move", requires = "name", conflicts_with = "delete")]
    pub(super) is_moved: bool,
}

#[derive(Args, Debug)]
pub(super) struct Restore {
    /// The store
    pub(super) store: PathBuf,
    /// The version to go back to: a number, a tag, or a time in RFC 3339
    pub(super) when: When,
    #[command(flatten)]
    pub(super) message: Message,
}

#[derive(Args, Debug)]
pub(super) struct Expire {
    /// The store
    pub(super) store: PathBuf,
    /// Keep the newest N versions
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(super) keep_last: Option<u64>,
    /// Keep versions that are not older than this, such as 30d, 12h or 90m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(super) keep_for: Option<Duration>,
    /// Tell what would go, and change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// From now on every commit applies the rule; without a rule, none does any more
    #[arg(long, conflicts_with = "dry_run")]
    pub(super) save_policy: bool,
}

#[derive(Args, Debug)]
pub(super) struct Backup {
    /// The store
    pub(super) store: PathBuf,
    /// The file to write, which is replaced when the backup is whole; - is standard output
    pub(super) file: PathBuf,
    /// Only what came after this version, which the receiver has: a number, a tag, or a time in RFC
    /// 3339
    #[arg(long, value_name = "WHEN")]
    pub(super) since: Option<When>,
}

#[derive(Args, Debug)]
pub(super) struct Receive {
    /// The store
    #[arg(value_parser = PathBufValueParser::new().try_map(new_store))]
    pub(super) store: PathBuf,
    /// The file that `backup` wrote; - is standard input
    pub(super) file: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct Verify {
    /// The store
    pub(super) store: PathBuf,
    /// Check this version instead of the newest
    #[arg(long, value_name = "WHEN", conflicts_with = "all")]
    pub(super) at: Option<When>,
    /// Check every version; what several share is read once
    #[arg(long)]
    pub(super) all: bool,
    /// Check every invariant of the tree as well
    #[arg(long)]
    pub(super) deep: bool,
    /// Compare the whole file with its checksums, in the order in which it lies there, keeping no
    /// version from expiring; says where to go on if it is interrupted
    #[arg(long, conflicts_with_all = ["at", "all", "deep"])]
    pub(super) scrub: bool,
    /// Read no more than this a second
    #[arg(long, value_name = "SIZE", requires = "scrub", value_parser = crate::human::parse_bytes)]
    pub(super) rate: Option<u64>,
    /// Go on where an earlier scrub stopped
    #[arg(
        long,
        value_name = "BYTE",
        requires = "scrub",
        default_value_t = 0,
        hide_default_value = true
    )]
    pub(super) from: u64,
    /// Stop after so much
    #[arg(long, value_name = "SIZE", requires = "scrub", value_parser = crate::human::parse_bytes)]
    pub(super) at_most: Option<u64>,
}

#[derive(Args, Debug)]
pub(super) struct Vacuum {
    /// The store; a copy of it must fit beside it twice
    pub(super) store: PathBuf,
}

#[derive(Args, Debug)]
pub(super) struct Recover {
    /// The damaged store; it is only read
    pub(super) store: PathBuf,
    /// Make FILE a store of the versions that are whole; it must not exist
    #[arg(long, value_name = "FILE", value_parser = PathBufValueParser::new().try_map(new_store))]
    pub(super) write: Option<PathBuf>,
}

#[derive(Args, Debug)]
pub(super) struct Stats {
    /// The store
    pub(super) store: PathBuf,
    #[command(flatten)]
    pub(super) at: At,
}

#[derive(Args, Debug)]
pub(super) struct Bench {
    /// The store
    pub(super) store: PathBuf,
    /// Rows to ask for
    pub(super) queries: PathBuf,
    /// Neighbours per query
    #[arg(short)]
    pub(super) k: usize,
    #[command(flatten)]
    pub(super) at: At,
    #[command(flatten)]
    pub(super) text: Text,
}

/// Rows to be stored, and their ids.
#[derive(Args, Debug)]
pub(super) struct Input {
    /// Rows to store
    pub(super) input: PathBuf,
    /// Their ids: text, one a line, or .npy of uint64 or int64. Without it they are numbered on
    /// from the last
    #[arg(long, value_name = "FILE", conflicts_with = "id_column")]
    pub(super) ids: Option<PathBuf>,
    #[command(flatten)]
    pub(super) text: Text,
}

/// How rows are read. Columns are named by their names in the header, or by their numbers from 1.
#[derive(Args, Debug)]
pub(super) struct Text {
    /// The format of the rows, whatever their file's ending
    #[arg(long, value_enum)]
    pub(super) format: Option<Format>,
    /// What separates the fields of text: a character such as ';', or tab, or space
    #[arg(long, value_name = "C")]
    pub(super) delimiter: Option<Delimiter>,
    /// The first line of the text is a header, whatever it looks like
    #[arg(long, conflicts_with = "no_header")]
    pub(super) header: bool,
    /// The first line of the text is a row, whatever it looks like
    #[arg(long)]
    pub(super) no_header: bool,
    /// The columns of the text that hold coordinates, in their order; all but that of the ids if
    /// not given
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) columns: Vec<String>,
    /// The column of the text that holds the ids
    #[arg(long, value_name = "NAME")]
    pub(super) id_column: Option<String>,
}

impl Text {
    /// What the arguments say, as the readers want it.
    pub(super) fn reading(&self, cancel: &CancelToken) -> Reading {
        let header = match (self.header, self.no_header) {
            (true, _) => Some(true),
            (_, true) => Some(false),
            _ => None,
        };
        let csv = CsvRules {
            delimiter: self.delimiter,
            header,
            columns: self.columns.clone(),
            id_column: self.id_column.clone(),
            one_by_one: false,
        };
        let (format, cancel) = (self.format, cancel.clone());
        Reading { format, csv, temporary: None, cancel, watch: None }
    }
}

/// The note kept with a new version.
#[derive(Args, Debug)]
pub(super) struct Message {
    /// A note kept with the version, at most 256 bytes
    #[arg(long = "message", value_name = "TEXT", default_value = "", hide_default_value = true, value_parser = message)]
    pub(super) text: String,
}

/// The version to look at.
#[derive(Args, Debug)]
pub(super) struct At {
    /// The version to look at: a number, a tag, or a time in RFC 3339; the newest if not given
    #[arg(long = "at", value_name = "WHEN")]
    pub(super) when: Option<When>,
}

/// A distance, as `--metric` names it.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum MetricName {
    /// Straight-line distance
    Euclidean,
}

impl From<MetricName> for Metric {
    fn from(name: MetricName) -> Metric {
        match name {
            MetricName::Euclidean => Metric::Euclidean,
        }
    }
}

/// What `insert` does with ids that are live already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum OnDuplicate {
    /// Refuse the whole batch
    Error,
    /// Delete the old points and insert the new ones, in one version
    Replace,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text
        .parse::<jiff::Span>()
        .and_then(|span| span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()));
    parsed.ok().and_then(|duration| Duration::try_from(duration).ok()).ok_or_else(|| {
        "a duration is a number of days, hours, minutes or seconds: 30d, 12h, 1h30m".to_owned()
    })
}

fn radius(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(radius) if radius >= 0.0 => Ok(radius),
        _ => Err("a radius is a number from 0 up".to_owned()),
    }
}

/// The path of a store that may be made. Elsewhere `-` is a standard stream, which a store cannot
/// be; so it is no accident.
fn new_store(path: PathBuf) -> Result<PathBuf, &'static str> {
    match path.as_os_str() == "-" {
        true => Err("a store is a file; for one of this name write ./-"),
        false => Ok(path),
    }
}

fn message(text: &str) -> Result<String, String> {
    const LIMIT: usize = 256;
    if text.len() > LIMIT {
        return Err(format!("the message has {} bytes, at most {LIMIT} are kept", text.len()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    fn accepts(line: &str) -> bool {
        Cli::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn exactly_one_of_k_and_radius() {
        assert!(accepts("treering query s q.npy -k 3"));
        assert!(accepts("treering query s q.npy --radius 0.5 --at 3 --json --threads 2"));
        assert!(!accepts("treering query s q.npy"));
        assert!(!accepts("treering query s q.npy -k 3 --radius 1"));
        assert!(!accepts("treering query s q.npy --radius -1"));
        assert!(!accepts("treering query s q.npy --radius nan"));
        assert!(accepts("treering query s q.npy -k 3 --at yesterday"));
        assert!(!accepts("treering query s q.npy -k 3 --at 2026-11-25T22:00:00"));
    }

    #[test]
    fn durations() {
        let seconds = |text| duration(text).map(|duration| duration.as_secs());
        assert_eq!(seconds("30d"), Ok(30 * 86_400));
        assert_eq!(seconds("1h30m"), Ok(5400));
        for text in ["", "30", "-1d", "1 month", "1y", "soon"] {
            assert!(duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn exactly_one_way_to_name_ids() {
        assert!(accepts("treering delete s 1 2 3"));
        assert!(accepts("treering delete s --ids f"));
        assert!(!accepts("treering delete s"));
        assert!(!accepts("treering delete s 1 --ids f"));
        assert!(!accepts("treering get s"));
    }

    #[test]
    fn long_messages_are_refused() {
        assert!(accepts(&format!("treering delete s 1 --message {}", "m".repeat(256))));
        assert!(!accepts(&format!("treering delete s 1 --message {}", "m".repeat(257))));
    }
}
