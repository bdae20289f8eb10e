//! The store in time: versions by tag and time, tags, and going back.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::format::tag_row::TagRow;
use crate::insert::report::Report;
use crate::maintain::diff::{Diff, Side, diff};
use crate::store::Store;
use crate::store::snapshot::Snapshot;
use crate::values::error::{AtError, CommitError, ReadError, RestoreError, TagError};
use crate::values::ids::VersionId;
use crate::values::options::CancelToken;
use crate::values::retention::{ExpireReport, Retention};
use crate::values::tag_name::check_name;
use crate::values::when::{Tag, When};
use crate::version::commit::{Draft, commit};
use crate::version::database::VersionAt;
use crate::version::expire;

impl Store {
    /// The version that was the newest at a time: the newest whose own time is not after it.
    ///
    /// # Errors
    ///
    /// [`AtError::BeforeFirst`] if the store had no version then; damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// let then = std::time::SystemTime::now();
    /// # std::thread::sleep(std::time::Duration::from_millis(2));
    /// store.insert(&[2.0])?;
    /// assert_eq!(store.as_of(then)?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn as_of(&self, time: SystemTime) -> Result<Snapshot, AtError> {
        self.at(self.find(&When::Time(time))?)
    }

    /// The version that has a tag.
    ///
    /// # Errors
    ///
    /// [`AtError::NoSuchTag`]; damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// store.tag("first", VersionId(1))?;
    /// store.insert(&[2.0])?;
    /// assert_eq!(store.at_tag("first")?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn at_tag(&self, name: &str) -> Result<Snapshot, AtError> {
        self.at(self.find(&When::Tag(name.to_string()))?)
    }

    /// The number of the version that `when` means. That it can still be opened is for
    /// [`Store::at`] to say.
    ///
    /// # Errors
    ///
    /// No version has the tag, or is as old as the time; damage or I/O failure. A version number is
    /// not looked up.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId, When};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// let when: When = "9999-01-01T00:00:00Z".parse()?;
    /// assert_eq!(store.find(&when)?, VersionId(1));
    /// # Ok(())
    /// # }
    /// ```
    pub fn find(&self, when: &When) -> Result<VersionId, AtError> {
        match when {
            When::Version(version) => Ok(*version),
            When::Latest => Ok(VersionId(self.core.db.newest_version()?.0.version)),
            When::Tag(name) => {
                let tags = self.core.db.tags()?;
                match tags.binary_search_by(|tag| tag.name().cmp(name)) {
                    Ok(i) => Ok(VersionId(tags[i].version)),
                    Err(_) => Err(AtError::NoSuchTag {
                        name: name.clone(),
                        tags: tags.iter().map(|tag| tag.name().to_string()).collect(),
                    }),
                }
            }
            When::Time(time) => {
                let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
                let time_ns = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
                let before = |first| AtError::BeforeFirst { time: *time, first };
                match self.core.db.version_at(time_ns)? {
                    VersionAt::Version(version) => Ok(VersionId(version)),
                    VersionAt::BeforeFirst(first) => {
                        Err(before(Some(UNIX_EPOCH + Duration::from_nanos(first))))
                    }
                    VersionAt::NoVersions => Err(before(None)),
                }
            }
        }
    }

    /// All tags, by name.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// store.tag("first", VersionId(1))?;
    /// assert_eq!(store.tags()?[0].name, "first");
    /// # Ok(())
    /// # }
    /// ```
    pub fn tags(&self) -> Result<Vec<Tag>, ReadError> {
        let tags = self.core.db.tags()?;
        let tag =
            |row: &TagRow| Tag { name: row.name().to_string(), version: VersionId(row.version) };
        Ok(tags.iter().map(tag).collect())
    }

    /// Names a version. A tag of this name moves. Durable when it returns; makes no version.
    ///
    /// `name`: 1 to 112 bytes, all of them characters that show, or spaces between them: no control
    /// or format characters (such as direction overrides), no other separators, no invisible
    /// letters. Not all digits, not a time and not `latest`, so that it cannot be taken for another
    /// [`When`]. Names that older stores have can be read, used and taken away, whatever they are.
    ///
    /// # Errors
    ///
    /// The name is refused, or there is no such version; then nothing changes. See [`TagError`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// store.insert(&[2.0])?;
    /// store.tag("good", VersionId(1))?;
    /// store.tag("good", VersionId(2))?; // moves
    /// assert_eq!(store.at_tag("good")?.len(), 2);
    /// assert!(store.tag("17", VersionId(1)).is_err());
    /// assert!(store.tag("a\u{202e}b", VersionId(1)).is_err()); // would turn what follows
    /// # Ok(())
    /// # }
    /// ```
    pub fn tag(&mut self, name: &str, version: VersionId) -> Result<(), TagError> {
        check_name(name).map_err(|why| TagError::Name { name: name.to_string(), why })?;
        self.writable()?;
        let newest = VersionId(self.core.db.newest_version().map_err(AtError::from)?.0.version);
        if version.0 == 0 || version > newest {
            return Err(AtError::NoSuchVersion { asked: version, newest }.into());
        }
        self.core.db.version(version).map(drop)?;
        let mut tags = self.core.db.tags().map_err(AtError::from)?;
        let row = TagRow::new(name, version.0);
        match tags.binary_search_by(|tag| tag.name().cmp(name)) {
            Ok(i) if tags[i] == row => return Ok(()),
            Ok(i) => tags[i] = row,
            Err(i) => tags.insert(i, row),
        }
        Ok(self.write_tags(tags)?)
    }

    /// Takes a tag away. The version stays.
    ///
    /// # Errors
    ///
    /// There is no such tag; see [`TagError`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// store.tag("wrong", VersionId(1))?;
    /// store.delete_tag("wrong")?;
    /// assert!(store.tags()?.is_empty());
    /// # Ok(())
    /// # }
    /// ```
    pub fn delete_tag(&mut self, name: &str) -> Result<(), TagError> {
        self.writable()?;
        self.find(&When::Tag(name.to_string()))?;
        let mut tags = self.core.db.tags().map_err(AtError::from)?;
        tags.retain(|tag| tag.name() != name);
        Ok(self.write_tags(tags)?)
    }

    fn writable(&self) -> Result<(), CommitError> {
        self.core.check_process()?;
        match self.core.options.read_only {
            true => Err(CommitError::ReadOnly),
            false => Ok(()),
        }
    }

    fn write_tags(&mut self, tags: Vec<TagRow>) -> Result<(), CommitError> {
        let core = &self.core;
        let cancel = &core.options.cancel;
        core.pool.install(|| {
            commit(&core.db, Draft { tags: Some(tags), ..Draft::nothing(cancel) }).map(drop)
        })
    }

    /// Makes versions durable that have been waiting for it; see [`crate::Durability::Deferred`].
    /// Costs nothing if there are none.
    ///
    /// # Errors
    ///
    /// I/O failure.
    pub fn sync(&self) -> Result<(), CommitError> {
        self.core.check_process()?;
        if self.core.db.is_settled() {
            return Ok(());
        }
        // Not to be stopped half-way: the versions have been acknowledged.
        let patient = CancelToken::default();
        self.core.pool.install(|| commit(&self.core.db, Draft::nothing(&patient)).map(drop))
    }

    /// Makes a version with the points of an older one; see [`crate::Transaction::restore`]. Costs
    /// a few blocks, whatever the size of the version. What came in between stays in the history.
    ///
    /// # Errors
    ///
    /// No such version; damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0, 2.0])?;
    /// store.delete(&[0, 1])?;
    /// let report = store.restore(VersionId(1))?;
    /// assert_eq!((report.version, report.points), (VersionId(3), 2));
    /// assert_eq!(store.at(VersionId(2))?.len(), 0);
    /// # Ok(())
    /// # }
    /// ```
    pub fn restore(&mut self, version: VersionId) -> Result<Report, RestoreError> {
        let mut transaction = self.begin();
        transaction.restore(version)?;
        Ok(transaction.commit()?)
    }

    /// Lets versions go that `rule` does not keep, and gives their space back to the file system.
    /// The newest version, those with a tag and those that somebody has open, in this process or
    /// another, stay. Costs in proportion to what differs between the versions that go and those
    /// that stay. Blocks no reader for longer than it takes.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure. If it fails half-way, versions may be gone and their space not given
    /// back yet; it is free in the file, and the next call gives it back.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// use treering::Retention;
    /// let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// for i in 0..5 {
    ///     store.insert(&[i as f32])?;
    /// }
    /// store.tag("keep me", VersionId(1))?;
    /// let report = store.expire(Retention::new().keep_last(2))?;
    /// assert_eq!(report.expired, [VersionId(2), VersionId(3)]);
    /// assert!(store.at(VersionId(2)).is_err());
    /// assert_eq!(store.at_tag("keep me")?.len(), 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire(&mut self, rule: Retention) -> Result<ExpireReport, CommitError> {
        self.expire_and(rule, false)
    }

    /// [`Store::expire`], and every commit from now on that makes a version applies the same rule;
    /// what it frees is used again by later commits. The version that a new one is made from goes
    /// with a later commit. A rule that keeps everything ends this.
    ///
    /// # Errors
    ///
    /// As for [`Store::expire`].
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// use treering::Retention;
    /// let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.set_retention(Retention::new().keep_last(3))?;
    /// for i in 0..10 {
    ///     store.insert(&[i as f32])?;
    /// }
    /// assert_eq!(store.versions()?.len(), 3);
    /// # Ok(())
    /// # }
    /// ```
    pub fn set_retention(&mut self, rule: Retention) -> Result<ExpireReport, CommitError> {
        self.expire_and(rule, true)
    }

    fn expire_and(&mut self, rule: Retention, save: bool) -> Result<ExpireReport, CommitError> {
        self.writable()?;
        let core = &self.core;
        let cancel = &core.options.cancel;
        let done = core.pool.install(|| expire::expire(&core.db, rule, save, cancel));
        let (done, before) = done.map_err(|e| core.db.explain(e))?;
        Ok(report(&done, (before, self.file_bytes())))
    }

    /// What [`Store::expire`] would do. Nothing is written; the length of the file afterwards is
    /// not told.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Retention, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// store.insert(&[2.0])?;
    /// let report = store.expire_preview(Retention::new().keep_last(1))?;
    /// assert_eq!(report.expired, [VersionId(1)]);
    /// assert!(report.bytes_freed > 0 && store.at(VersionId(1)).is_ok());
    /// # Ok(())
    /// # }
    /// ```
    pub fn expire_preview(&self, rule: Retention) -> Result<ExpireReport, CommitError> {
        self.core.check_process()?;
        let db = &self.core.db;
        let done = db.confirm(expire::preview(db, rule))?;
        let bytes = self.file_bytes();
        Ok(report(&done, (bytes, bytes)))
    }

    /// The rule that commits apply; see [`Store::set_retention`].
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    pub fn retention(&self) -> Result<Retention, ReadError> {
        self.core.db.retention()
    }

    /// Bytes of the file that each version has for itself: what expiring it alone would free.
    /// Oldest first. Costs in proportion to what the versions differ in.
    ///
    /// # Errors
    ///
    /// Damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0])?;
    /// store.insert(&[2.0])?;
    /// for (version, bytes) in store.unique_bytes()? {
    ///     println!("{version}: {bytes}");
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub fn unique_bytes(&self) -> Result<Vec<(VersionId, u64)>, ReadError> {
        let unique = self.core.db.confirm(self.core.db.unique_bytes())?;
        Ok(unique.into_iter().map(|(version, bytes)| (VersionId(version), bytes)).collect())
    }

    /// Which ids came, went, or got other coordinates from one version to another. Reads what the
    /// two do not share, and nothing below.
    ///
    /// # Errors
    ///
    /// A version that cannot be opened; damage or I/O failure.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # use treering::{CreateOptions, OpenOptions, Store, VersionId};
    /// # let mut store = Store::in_memory(CreateOptions::new(1), OpenOptions::new())?;
    /// store.insert(&[1.0, 2.0])?;
    /// store.delete(&[0])?;
    /// store.insert(&[3.0])?;
    /// let diff = store.diff(VersionId(1), VersionId(3))?;
    /// assert_eq!((diff.added, diff.removed), (vec![2], vec![0]));
    /// # Ok(())
    /// # }
    /// ```
    pub fn diff(&self, from: VersionId, to: VersionId) -> Result<Diff, AtError> {
        let (from, to) = (self.at(from)?, self.at(to)?);
        let [old, new] = [&from, &to].map(|side| Side::new(side.tree(), &side.row().roots));
        Ok(self.core.db.confirm(diff(&self.core.db, old, new))?)
    }
}

fn report(done: &expire::Expiry, file_bytes: (u64, u64)) -> ExpireReport {
    ExpireReport {
        expired: done.rows.iter().map(|row| VersionId(row.version)).collect(),
        pinned: done.pinned.iter().copied().map(VersionId).collect(),
        bytes_freed: done.bytes(),
        file_bytes,
        clock_leap: done.leap(),
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // As good as it can be done here; who must know calls `sync`. In a child neither is done.
        if self.sync().is_ok() {
            self.core.db.end_writing();
        }
    }
}

#[cfg(test)]
mod tests;
