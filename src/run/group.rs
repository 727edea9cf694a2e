//! A control group (cgroup v2) for the tree, where the system allows one: below our own group, for a service with
//! `Delegate=yes`, in a container, or as root.
//!
//! Every process that the command starts is in the group, however often it forks, and it leaves the group only if a process with
//! write access to the groups above moves it. So the whole tree can be killed at once, even if it forks faster than it could be
//! searched. A process with write access to the group can enter it, so membership alone does not prove that it is in the tree.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prefix of our groups' names, before a random number.
const NAME: &str = "mayfly-";
/// Bytes of the random number, written in hex.
const RANDOM: usize = 12;
/// An empty group of this age was left behind by a run that was killed.
const ABANDONED: Duration = Duration::from_secs(60);
/// Most groups of other runs that are checked.
const LOOKS: usize = 64;

/// A control group of our own. Dropping it removes the group, if no process is left in it.
#[derive(Debug)]
pub struct Group {
    /// Folder of the group.
    dir: PathBuf,
    /// Name of the group in `/proc/<pid>/cgroup`.
    path: String,
}

impl Group {
    /// Creates a group below the one we are in, or says why that is not possible.
    pub fn new() -> Result<Group, String> {
        let (path, above) = ours()?;
        clear_up(&above);
        let mut name = [0u8; RANDOM];
        aws_lc_rs::rand::fill(&mut name).map_err(|_| "no random name could be made")?;
        let name = format!("{NAME}{}", hex::encode(name));
        let (dir, path) = (above.join(&name), format!("{}/{name}", path.trim_end_matches('/')));
        fs::create_dir(&dir).map_err(|e| format!("`{}`: {e}", dir.display()))?;
        Ok(Group { dir, path })
    }

    /// Runs `start` as a member of the group, so that processes started by it begin in the group, and then leaves the group. The
    /// outer error means that we could not enter, and `start` was not run; the inner one, that we could not leave.
    ///
    /// Meanwhile all threads of this process are members, and none of them may start a process that is not part of the tree.
    pub fn inside<T>(&self, start: impl FnOnce() -> T) -> io::Result<(T, io::Result<()>)> {
        enter(&self.dir)?;
        let started = start();
        Ok((started, enter(self.dir.parent().unwrap_or(&self.dir))))
    }

    /// Whether a process is a member of this group or of one below it.
    pub fn holds(&self, pid: i32) -> io::Result<bool> {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        Ok(unified(&text).is_some_and(|path| is_below(path, &self.path)))
    }

    /// All members of this group and of those below it that have not ended.
    pub fn members(&self) -> Vec<i32> {
        let members = |dir: &PathBuf| fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
        let members: Vec<_> = folders(&self.dir).iter().map(members).collect();
        // 0 stands for a process in another namespace.
        members.iter().flat_map(|text| text.lines()).filter_map(|line| line.parse().ok()).filter(|pid| *pid > 0).collect()
    }

    /// Kills all members at once, so that none of them can escape by forking. Linux before 5.14 cannot do this.
    pub fn kill(&self) {
        if let Err(e) = fs::write(self.dir.join("cgroup.kill"), "1") {
            tracing::debug!("the group `{}` cannot be killed at once: {e}", self.dir.display());
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

/// The folder of a group and those below it, parents first.
fn folders(group: &Path) -> Vec<PathBuf> {
    let (mut all, mut looked_at) = (vec![group.to_owned()], 0);
    while let Some(dir) = all.get(looked_at) {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        let below: Vec<_> = folders.map(|entry| entry.path()).collect();
        all.extend(below);
        looked_at += 1;
    }
    all
}

/// Removes the groups. The system refuses to remove a group with members.
fn remove(group: &Path) {
    for dir in folders(group).iter().rev() {
        let _ = fs::remove_dir(dir);
    }
}

/// Moves this process into a group; 0 means the process that writes it. Creates no file if there is no such group.
fn enter(group: &Path) -> io::Result<()> {
    fs::OpenOptions::new().write(true).open(group.join("cgroup.procs"))?.write_all(b"0")
}

/// Name and folder of the group that this process is in.
fn ours() -> Result<(String, PathBuf), String> {
    let read = |path: &str| fs::read_to_string(path).map_err(|e| format!("`{path}`: {e}"));
    let groups = read("/proc/self/cgroup")?;
    let path = unified(&groups).ok_or("there is no cgroup v2")?;
    let dir = folder(&read("/proc/self/mountinfo")?, path).ok_or("no cgroup v2 is mounted where it could be reached")?;
    // Another mount may cover the folder.
    let (members, own) = (read(&dir.join("cgroup.procs").to_string_lossy())?, std::process::id().to_string());
    if !members.lines().any(|pid| pid == own) {
        return Err(format!("`{}` is not the group we are in", dir.display()));
    }
    Ok((path.to_owned(), dir))
}

/// The cgroup v2 in the lines of `/proc/<pid>/cgroup`.
fn unified(groups: &str) -> Option<&str> {
    groups.lines().find_map(|line| line.strip_prefix("0::")).filter(|path| path.starts_with('/'))
}

fn is_below(path: &str, group: &str) -> bool {
    path.strip_prefix(group).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The folder of a group, by `/proc/self/mountinfo`: `id parent device root mountpoint options … - type …`.
fn folder(mounts: &str, path: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, at) = (unescaped(fields.next()?)?, unescaped(fields.next()?)?);
        let rest = if root == "/" { path } else { path.strip_prefix(root.as_str())? };
        let reached = kind.starts_with("cgroup2 ") && (rest.is_empty() || rest.starts_with('/'));
        let outside = root.split('/').any(|part| part == "..") || rest.split('/').any(|part| part == "..");
        (reached && !outside).then(|| Path::new(&at).join(rest.trim_start_matches('/')))
    })
}

/// Decodes a field in which spaces, tabs, newlines and backslashes are written as `\` and three octal digits.
fn unescaped(field: &str) -> Option<String> {
    let mut parts = field.split('\\');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(3)?;
        text.push(char::from(u8::from_str_radix(digits, 8).ok()?));
        text.push_str(rest);
    }
    Some(text)
}

/// Removes groups that were left behind by runs that were killed.
fn clear_up(above: &Path) {
    let entries = fs::read_dir(above).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| is_ours(&entry.file_name().to_string_lossy())).take(LOOKS) {
        let old = entry.metadata().and_then(|of| of.modified()).is_ok_and(|at| at.elapsed().is_ok_and(|age| age > ABANDONED));
        if old {
            remove(&entry.path());
        }
    }
}

fn is_ours(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|random| random.len() == 2 * RANDOM && random.bytes().all(|b| b.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_a_group_is_where_its_mount_says() {
        let mounts = "22 1 0:20 / /proc rw - proc proc rw\n\
                      31 22 0:5 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      41 31 0:38 /user.slice /elsewhere rw shared:9 - cgroup2 cgroup2 rw\n\
                      42 31 0:38 /../.. /above rw - cgroup2 cgroup2 rw\n\
                      43 31 0:38 / /sys/fs/a\\040b rw,relatime - cgroup2 cgroup2 rw\n";
        let at = |path: &str| folder(mounts, path).map(|dir| dir.display().to_string());
        assert_eq!(at("/"), Some("/sys/fs/a b/".into()));
        assert_eq!(at("/user.slice/one.scope"), Some("/elsewhere/one.scope".into()));
        assert_eq!(at("/user.slices"), Some("/sys/fs/a b/user.slices".into()));
        assert_eq!(at("/../other"), None);
        assert_eq!(folder("41 31 0:38 / /x rw - cgroup2x cgroup2 rw", "/"), None);
        assert_eq!(folder("41 31 0:38 / /x\\9 rw - cgroup2 cgroup2 rw", "/"), None);
        assert_eq!(folder("nothing", "/"), None);
    }

    #[test]
    fn a_process_is_in_a_group_or_in_one_below_it() {
        assert_eq!(unified("1:cpu:/x\n0::/a/mayfly-1\n"), Some("/a/mayfly-1"));
        assert_eq!(unified("1:cpu:/x\n"), None);
        assert!(is_below("/a/mayfly-1", "/a/mayfly-1") && is_below("/a/mayfly-1/x", "/a/mayfly-1"));
        assert!(is_ours("mayfly-0123456789abcdef01234567") && !is_ours("mayfly-workers") && !is_ours("other"));
        assert!(!is_below("/a/mayfly-12", "/a/mayfly-1") && !is_below("/a", "/a/mayfly-1"));
    }
}
