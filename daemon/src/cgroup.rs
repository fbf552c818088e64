//! A cgroup (version 2) for each process of a job, below that of the node, where the node may make some. With it ends all that the process has started, also what
//! has left its process group. Nothing is limited by it.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mobula_core::NodeUid;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, Signal, kill_process};

/// The file in the home that says where the groups of the node are, or why there are none.
const FILE: &str = "cgroup";
/// How long what was killed has to be gone.
const EMPTY_WITHIN: Duration = Duration::from_secs(2);
/// Groups within a group that are removed with it: a job may make some.
const DEPTH_MAX: usize = 8;

/// Why a node makes no groups.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoGroups {
    #[error("no cgroup2 file system is mounted")]
    NotMounted,
    #[error("this process is in no cgroup of version 2 that can be seen from here")]
    NotSeen,
    #[error("{}: {error}", path.display())]
    Refused { path: PathBuf, error: io::Error },
}

/// Where a node makes groups.
pub(crate) struct Groups(Result<Place, NoGroups>);

struct Place {
    /// The node's own group.
    base: PathBuf,
    /// What the names of the groups of this home begin with, and of no other's.
    prefix: String,
}

/// The group of one process.
pub(crate) struct Group(PathBuf);

impl Groups {
    /// Looks whether groups can be made, and ends what an earlier node of this home has left in some; the caller has the home to itself. May block for
    /// [`EMPTY_WITHIN`] where that does not end.
    pub(crate) fn open(home: &Path) -> Self {
        let place = Place::find(home);
        let earlier = said(home).and_then(Result::ok).map(|base| Place { base, prefix: prefix(home) });
        for place in earlier.iter().chain(&place) {
            place.sweep();
        }
        let text = match &place {
            Ok(place) => format!("{}\n", place.base.display()),
            Err(reason) => format!("{NONE}{reason}\n"),
        };
        if let Err(error) = fs::write(home.join(FILE), text) {
            tracing::warn!(%error, "it cannot be written down where the cgroups of processes are");
        }
        match &place {
            Ok(place) => tracing::info!(below = %place.base.display(), "processes of jobs have cgroups"),
            Err(reason) => tracing::info!(%reason, "processes of jobs have no cgroups"),
        }
        Groups(place)
    }

    /// A group for a process that is about to begin. None if there cannot be one, which costs nothing but what groups are for.
    pub(crate) fn make(&self, process: NodeUid) -> Option<Group> {
        let place = self.0.as_ref().ok()?;
        let path = place.base.join(format!("{}{:016x}", place.prefix, process.0));
        match fs::create_dir(&path) {
            Ok(()) => Some(Group(path)),
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "a process of a job has no cgroup");
                None
            }
        }
    }
}

impl Place {
    fn find(home: &Path) -> Result<Self, NoGroups> {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let base = directory(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))?;
        let place = Place { base, prefix: prefix(home) };
        // Only trying shows it: a mount may be read-only, and a directory another user's.
        let trial = place.base.join(format!("{}trial", place.prefix));
        let refused = |path: &Path| {
            let path = path.to_owned();
            move |error| NoGroups::Refused { path, error }
        };
        let _ = fs::remove_dir(&trial);
        fs::create_dir(&trial).map_err(refused(&trial))?;
        let moves = [&place.base, &trial].map(|group| {
            let path = group.join("cgroup.procs");
            OpenOptions::new().write(true).open(&path).map(drop).map_err(refused(&path))
        });
        fs::remove_dir(&trial).map_err(refused(&trial))?;
        moves.into_iter().collect::<Result<(), _>>()?;
        Ok(place)
    }

    /// Ends all groups of this home.
    fn sweep(&self) {
        for name in names(&self.base).filter(|name| name.starts_with(&self.prefix)) {
            tracing::warn!(name, "an earlier node has left processes, which end now");
            Group(self.base.join(name)).end();
        }
    }
}

impl Group {
    /// Puts a process into it, with all that it starts from now on.
    pub(crate) fn enter(&self, pid: u32) {
        if let Err(error) = write(&self.0.join("cgroup.procs"), &pid.to_string()) {
            tracing::warn!(pid, path = %self.0.display(), %error, "a process of a job is in no cgroup of its own");
        }
    }

    /// Kills all that is in it.
    pub(crate) fn kill(&self) {
        if write(&self.0.join("cgroup.kill"), "1").is_err() {
            // Before Linux 5.14 they are killed one by one, until no new ones are found.
            kill_listed(&self.0, 0);
        }
    }

    /// Kills all that is in it, waits until it is gone, and removes the group. What does not end, since the kernel holds it, is left to the next start of the node.
    #[expect(clippy::disallowed_methods, reason = "the thread of a process, or the start of a node")]
    pub(crate) fn end(self) {
        let until = Instant::now() + EMPTY_WITHIN;
        self.kill();
        while let Err(error) = remove(&self.0, 0) {
            let left = until.saturating_duration_since(Instant::now());
            if error.kind() == io::ErrorKind::NotFound {
                return;
            }
            if left.is_zero() {
                return tracing::warn!(path = %self.0.display(), %error, "processes of a job have not ended, although they were killed");
            }
            self.kill();
            let _ = wait_until_empty(&self.0, left);
        }
    }
}

/// The node's own group in the file system.
fn directory(mountinfo: &str, cgroup: &str) -> Result<PathBuf, NoGroups> {
    let (root, mount) = mountinfo.lines().find_map(mounted).ok_or(NoGroups::NotMounted)?;
    let own = cgroup.lines().find_map(|line| line.strip_prefix("0::")).ok_or(NoGroups::NotSeen)?;
    let below = Path::new(own).strip_prefix(&root).map_err(|_| NoGroups::NotSeen)?;
    match below.components().all(|part| matches!(part, std::path::Component::Normal(_))) {
        true => Ok(mount.join(below)),
        // Outside of what this process may see: `/../other`.
        false => Err(NoGroups::NotSeen),
    }
}

/// The root within the file system and the mount point of a line of mountinfo that is about cgroup2 (proc_pid_mountinfo(5)).
fn mounted(line: &str) -> Option<(PathBuf, PathBuf)> {
    let (fields, of_system) = line.split_once(" - ")?;
    if of_system.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = fields.split(' ').skip(3).map(|field| PathBuf::from(unescaped(field)));
    fields.next().zip(fields.next())
}

/// Blanks, tabs, ends of lines and backslashes in paths are written as octal numbers.
fn unescaped(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (written, meant)| text.replace(written, meant))
}

/// Of this home alone: several nodes may share a group.
fn prefix(home: &Path) -> String {
    let home = fs::canonicalize(home).unwrap_or_else(|_| home.to_owned());
    let hash = blake3::hash(home.as_os_str().as_encoded_bytes()).to_hex();
    format!("mobula-{}-", &hash[..16])
}

const NONE: &str = "none: ";

/// What the node of this home has found when it began.
fn said(home: &Path) -> Option<Result<PathBuf, String>> {
    let text = fs::read_to_string(home.join(FILE)).ok()?;
    let text = text.trim_end();
    Some(text.strip_prefix(NONE).map_or_else(|| Ok(PathBuf::from(text)), |reason| Err(reason.to_owned())))
}

/// Whether processes of jobs have cgroups, for people.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cgroups(Result<PathBuf, String>);

/// Whether the processes of jobs have cgroups: as the node that runs in this home has found, else as one would that this process is. May block.
pub fn cgroups(home: &Path, is_running: bool) -> Cgroups {
    let said = if is_running { said(home) } else { None };
    Cgroups(said.unwrap_or_else(|| match Place::find(home) {
        Ok(place) => Ok(place.base),
        Err(reason) => Err(reason.to_string()),
    }))
}

impl fmt::Display for Cgroups {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Ok(base) => {
                write!(f, "each process of a job has one below {}: all that it starts ends with it", base.display())
            }
            Err(reason) => write!(
                f,
                "not here ({reason}): what a process of a job starts in a session of its own outlives it; a service with Delegate=yes, as in deploy/, or root \
                 may make them"
            ),
        }
    }
}

/// The groups in a group.
fn names(group: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    let groups = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    groups.filter_map(|entry| entry.file_name().into_string().ok())
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.write_all(text.as_bytes())
}

fn kill_listed(group: &Path, depth: usize) {
    if depth < DEPTH_MAX {
        names(group).for_each(|name| kill_listed(&group.join(name), depth + 1));
    }
    let listed = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in listed.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)) {
        let _ = kill_process(pid, Signal::KILL);
    }
}

/// Removes a group with those in it; an error as long as something runs in one of them.
fn remove(group: &Path, depth: usize) -> io::Result<()> {
    if depth < DEPTH_MAX {
        names(group).try_for_each(|name| remove(&group.join(name), depth + 1))?;
    }
    fs::remove_dir(group)
}

/// Waits until nothing runs in a group, or for so long.
fn wait_until_empty(group: &Path, at_most: Duration) -> io::Result<()> {
    let mut events = File::open(group.join("cgroup.events"))?;
    let mut text = String::new();
    events.read_to_string(&mut text)?;
    if text.lines().any(|line| line == "populated 0") {
        return Ok(());
    }
    events.rewind()?;
    // The kernel says there when that changes; killing again helps those that fork meanwhile.
    let at_most = Timespec::try_from(at_most.min(Duration::from_millis(100))).map_err(io::Error::other)?;
    poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&at_most))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str = "22 1 0:20 / /proc rw - proc proc rw\n\
        31 22 0:27 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

    fn found(mountinfo: &str, cgroup: &str) -> Option<String> {
        directory(mountinfo, cgroup).ok().map(|path| path.display().to_string())
    }

    #[test]
    fn the_own_group_is_found_as_the_kernel_lists_it() {
        let service = "0::/system.slice/mobula-node.service\n";
        assert_eq!(found(UNIFIED, service).as_deref(), Some("/sys/fs/cgroup/system.slice/mobula-node.service"));
        let hybrid = "9:name=systemd:/\n4:memory:/x\n0::/user.slice\n";
        assert_eq!(found(HYBRID, hybrid).as_deref(), Some("/sys/fs/cgroup/unified/user.slice"));
        assert_eq!(found(HYBRID, "4:memory:/x\n0::/\n").as_deref(), Some("/sys/fs/cgroup/unified/"));
        // A part of the tree is mounted, as in a container that shares the namespace of its host.
        let part = "9 1 0:27 /docker/a\\040b /sys/fs/c\\134d ro - cgroup2 cgroup rw\n";
        assert_eq!(found(part, "0::/docker/a b/job\n").as_deref(), Some("/sys/fs/c\\d/job"));
        assert_eq!(found(part, "0::/docker/other\n"), None);
        // Seen from another namespace.
        assert_eq!(found(UNIFIED, "0::/../other\n"), None);
    }

    #[test]
    fn where_there_is_no_cgroup_2_it_says_so() {
        let reason = |mountinfo, cgroup| directory(mountinfo, cgroup).expect_err("nothing there").to_string();
        let only_1 = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        assert!(reason(only_1, "0::/\n").contains("no cgroup2 file system"));
        assert!(reason(UNIFIED, "4:memory:/x\n").contains("in no cgroup"));
        for broken in ["", "\n", " - cgroup2", "1 2 - cgroup2 x", "a b c / - cgroup2 x y"] {
            assert!(reason(broken, "0::/\n").contains("no cgroup2 file system"), "{broken:?}");
        }
    }

    #[test]
    fn what_a_node_has_found_is_read_by_others() {
        let home = tempfile::tempdir().expect("a directory");
        assert_eq!(said(home.path()), None);
        let file = home.path().join(FILE);
        fs::write(&file, "/sys/fs/cgroup/a b\n").expect("room");
        assert_eq!(said(home.path()), Some(Ok(PathBuf::from("/sys/fs/cgroup/a b"))));
        let says = cgroups(home.path(), true).to_string();
        assert!(says.contains("below /sys/fs/cgroup/a b"), "{says}");
        fs::write(&file, "none: Permission denied\n").expect("room");
        let says = cgroups(home.path(), true).to_string();
        assert!(says.contains("not here (Permission denied)") && says.contains("Delegate=yes"), "{says}");
        assert_ne!(prefix(home.path()), prefix(Path::new("/")));
    }

    /// Starts a shell that starts a session of its own, which would outlive it.
    #[test]
    fn a_group_takes_all_along_that_was_started_in_it() {
        let home = tempfile::tempdir().expect("a directory");
        let groups = Groups::open(home.path());
        let Some(group) = groups.make(NodeUid(7)) else { return eprintln!("skipped: {}", cgroups(home.path(), true)) };
        let path = group.0.clone();
        let gate = std::process::Stdio::piped();
        let mut shell = std::process::Command::new("sh");
        shell
            .args(["-c", "read go; setsid sleep 600 & echo started; wait"])
            .stdin(gate)
            .stdout(std::process::Stdio::piped());
        let mut shell = shell.spawn().expect("a shell");
        group.enter(shell.id());
        drop(shell.stdin.take());
        let mut line = [0; 8];
        shell.stdout.take().expect("a pipe").read_exact(&mut line).expect("it says so");
        // One that an earlier node has left.
        drop(group);
        let listed = fs::read_to_string(path.join("cgroup.procs")).expect("there").lines().count();
        assert!(listed >= 2, "{listed} processes");
        let again = Groups::open(home.path());
        assert!(!path.exists(), "it was removed, and so all in it was gone");
        assert!(!shell.wait().expect("ours").success());
        // Also where the kernel cannot kill a whole group, and with groups in it.
        let group = again.make(NodeUid(8)).expect("as before");
        fs::create_dir(group.0.join("inner")).expect("allowed");
        let mut sleep = std::process::Command::new("sleep").arg("600").spawn().expect("a program");
        Group(group.0.join("inner")).enter(sleep.id());
        kill_listed(&group.0, 0);
        assert!(!sleep.wait().expect("ours").success());
        let path = group.0.clone();
        group.end();
        assert!(!path.exists());
    }
}
