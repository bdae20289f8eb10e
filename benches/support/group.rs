//! Memory control groups: running a program where there is only so much memory, and seeing how much
//! it takes.
//!
//! Groups of version 1 and 2 are used, whichever the machine has. Making one needs rights that not
//! everybody has.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A group with a limit, gone when dropped.
pub(crate) struct MemoryGroup {
    folder: PathBuf,
    /// Entry of `memory.stat` that counts anonymous memory.
    anonymous: &'static str,
}

/// How a program in a group ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// Most anonymous memory seen, in bytes, looked at a hundred times a second.
    pub(crate) anonymous_peak: u64,
}

static COUNT: AtomicU32 = AtomicU32::new(0);

impl MemoryGroup {
    /// A new group that may hold `limit` bytes, page cache included.
    ///
    /// # Errors
    ///
    /// Why there can be none, for people.
    pub(crate) fn new(limit: u64) -> Result<Self, String> {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("treering-{}-{count}", std::process::id());
        let v1 = Path::new("/sys/fs/cgroup/memory");
        let (parent, limit_file, anonymous) = match v1.join("memory.limit_in_bytes").exists() {
            true => (v1, "memory.limit_in_bytes", "total_rss"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max", "anon"),
        };
        let folder = parent.join(name);
        fs::create_dir(&folder).map_err(|e| format!("cannot make {}: {e}", folder.display()))?;
        let group = MemoryGroup { folder, anonymous };
        fs::write(group.folder.join(limit_file), limit.to_string())
            .map_err(|e| format!("cannot limit the memory of a control group: {e}"))?;
        // Swap would make the limit soft; where it is not counted there is nothing to forbid.
        let _ = fs::write(group.folder.join("memory.memsw.limit_in_bytes"), limit.to_string());
        let _ = fs::write(group.folder.join("memory.swap.max"), "0");
        Ok(group)
    }

    /// The command that runs `program` in the group.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("sh");
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec \"$@\"";
        command.arg("-c").arg(enter).arg(&self.folder).arg(program);
        command
    }

    /// Waits for a program of the group to end.
    pub(crate) fn wait(&self, child: &mut Child) -> std::io::Result<Ended> {
        let mut anonymous_peak = 0;
        loop {
            anonymous_peak = anonymous_peak.max(self.anonymous_bytes());
            if let Some(status) = child.try_wait()? {
                return Ok(Ended { status, anonymous_peak });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Anonymous memory in the group now.
    fn anonymous_bytes(&self) -> u64 {
        let stat = fs::read_to_string(self.folder.join("memory.stat")).unwrap_or_default();
        let mut lines = stat.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == self.anonymous).and_then(|l| l.1.parse().ok()).unwrap_or(0)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The last process may still be on its way out.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
