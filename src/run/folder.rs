//! A folder that root writes in for another user, held open by descriptor.
//!
//! That user may rename, link and replace entries of the folders that it can write to, at any moment. So no path is resolved twice
//! here. The path is walked component by component, a link is followed only if nobody but us could have made it, and everything
//! after that uses the descriptor of the folder or of the new file (T90).

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid, chownat, fchmod, fchown, fstat, fsync, mkdirat, openat,
    readlinkat, renameat, statat, symlinkat, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

/// Most links in one path, as many as the system follows.
const LINKS: usize = 40;

/// Uid and gid of another user.
pub type Owner = (u32, u32);

/// An open folder. Files are written into this folder even if its path is changed meanwhile.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens a folder, or makes it, for `owner` if that is another user.
    ///
    /// For another user, the folder must belong to that user or to us, and a link in the path must be ours and in a folder that
    /// nobody else can write to. For ourselves, the path is resolved as usual.
    pub fn open(path: &Path, owner: Option<Owner>) -> Result<Folder, String> {
        let opened = match owner {
            None => DirBuilder::new().recursive(true).mode(0o755).create(path).and_then(|()| Folder::existing(path)),
            Some(owner) => Walk::to(path, owner).map(Folder),
        };
        opened.map_err(|e| format!("`{}`: {e}", path.display()))
    }

    /// Opens a folder that exists.
    pub fn existing(path: &Path) -> io::Result<Folder> {
        by_path(path).map(Folder)
    }

    /// Makes a folder of mode 0700 in this one, for us. Fails if there is something of that name.
    pub fn create(&self, name: &OsStr) -> io::Result<Folder> {
        mkdirat(&self.0, name, Mode::RWXU)?;
        let dir = open_dir(self.0.as_fd(), name)?;
        fresh(&dir)?;
        Ok(Folder(dir))
    }

    /// Writes a file that only its owner can read, as a whole or not at all. It is durable on return.
    pub fn write(&self, name: &str, content: &[u8], owner: Option<Owner>) -> io::Result<()> {
        let draft = draft(name)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&self.0, &draft, flags, Mode::RUSR | Mode::WUSR)?);
        let written = (|| {
            // The umask may have narrowed the mode.
            fchmod(&file, Mode::RUSR | Mode::WUSR)?;
            file.write_all(content)?;
            if let Some((uid, gid)) = owner {
                // ORDER: before the file gets its name. By descriptor this changes the new file, and not another one under the same
                // name.
                fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            file.sync_all()?;
            renameat(&self.0, &draft, &self.0, name)?;
            Ok(fsync(readable(&self.0)?)?)
        })();
        if written.is_err() {
            let _ = unlinkat(&self.0, &draft, AtFlags::empty());
        }
        written
    }

    /// Opens a folder in this one. A link is not followed.
    pub fn within(&self, name: &OsStr) -> io::Result<Folder> {
        Ok(Folder(open_dir(self.0.as_fd(), name)?))
    }

    /// Replaces `name` by a symbolic link, in one step. The link stays ours, because a link cannot be given away by descriptor.
    pub fn link(&self, name: &str, target: &str) -> io::Result<()> {
        if self.target(name).is_some_and(|now| now == target) {
            return Ok(());
        }
        let draft = draft(name)?;
        symlinkat(target, &self.0, &draft)?;
        let placed = renameat(&self.0, &draft, &self.0, name);
        if placed.is_err() {
            let _ = unlinkat(&self.0, &draft, AtFlags::empty());
        }
        placed?;
        Ok(fsync(readable(&self.0)?)?)
    }

    /// The target of a symbolic link. `None` if it does not exist, is no link, or its target is not UTF-8.
    pub fn target(&self, name: &str) -> Option<String> {
        readlinkat(&self.0, name, Vec::new()).ok()?.into_string().ok()
    }

    /// Gives an entry of this folder to another user. The folder must be one that only we can write to.
    pub fn give(&self, name: &OsStr, (uid, gid): Owner) -> io::Result<()> {
        Ok(chownat(&self.0, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Gives the folder itself to another user.
    pub fn give_all(&self, (uid, gid): Owner) -> io::Result<()> {
        Ok(fchown(readable(&self.0)?, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    /// Whether a file of this folder has exactly this content. A link is not followed.
    pub fn holds(&self, name: &str, content: &[u8]) -> bool {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(file) = openat(&self.0, name, flags, Mode::empty()) else { return false };
        let mut found = Vec::new();
        // Reading one byte more detects a longer file.
        let most = u64::try_from(content.len()).unwrap_or(u64::MAX).saturating_add(1);
        File::from(file).take(most).read_to_end(&mut found).is_ok() && found == content
    }

    /// Names of everything in this folder.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(readable(&self.0)?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        Ok(names)
    }

    /// Removes a file of this folder.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::empty())?)
    }

    /// Removes an empty folder in this one. A link is not followed.
    pub fn remove_folder(&self, name: &OsStr) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, AtFlags::REMOVEDIR)?)
    }
}

/// A name that nobody can guess.
pub fn unguessable() -> io::Result<String> {
    let mut random = [0u8; 12];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no random name could be made"))?;
    Ok(hex::encode(random))
}

/// The temporary name of an entry.
fn draft(name: &str) -> io::Result<String> {
    Ok(format!(".{name}.{}", unguessable()?))
}

/// A walk along the path to a folder for another user.
struct Walk {
    /// The folder reached so far.
    at: OwnedFd,
    /// Components that are left.
    rest: VecDeque<OsString>,
    links: usize,
}

impl Walk {
    /// Walks to the folder, and makes missing folders. The last one is made for `owner`, and those above it for us, because another
    /// run may put the folder of another user into them.
    fn to(path: &Path, owner: Owner) -> io::Result<OwnedFd> {
        let mut walk = Walk { at: top(path)?, rest: components(path), links: 0 };
        while let Some(name) = walk.rest.pop_front() {
            match open_dir(walk.at.as_fd(), &name) {
                Ok(next) => walk.at = next,
                Err(Errno::NOENT) => walk.at = walk.make(&name, owner)?,
                // The error for a link depends on the version of the system.
                Err(Errno::LOOP | Errno::NOTDIR) => walk.follow(&name)?,
                Err(e) => return Err(e.into()),
            }
        }
        let of = fstat(&walk.at)?.st_uid;
        if of != owner.0 && of != geteuid().as_raw() {
            return Err(refused(&format!("it belongs to uid {of}: it must be the folder of uid {} or our own", owner.0)));
        }
        Ok(walk.at)
    }

    fn make(&self, name: &OsStr, owner: Owner) -> io::Result<OwnedFd> {
        let last = self.rest.is_empty();
        let mode = if last { Mode::RWXU } else { Mode::RWXU | Mode::RWXG | Mode::RWXO };
        // The umask narrows the mode of those above.
        mkdirat(&self.at, name, mode)?;
        let dir = open_dir(self.at.as_fd(), name)?;
        if last {
            // If the other user can write to the folder above, it may have put another folder here. If that one is empty and was
            // only ours, nothing is lost by giving it away.
            fresh(&dir)?;
            fchown(readable(&dir)?, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        }
        Ok(dir)
    }

    /// Continues at the target of a link, which is walked like the path itself.
    fn follow(&mut self, name: &OsStr) -> io::Result<()> {
        let link = statat(&self.at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        if FileType::from_raw_mode(link.st_mode) != FileType::Symlink {
            return Err(Errno::NOTDIR.into());
        }
        if !ours(&link) || !only_ours_to_write(&fstat(&self.at)?) {
            return Err(refused("a link on the way to it could have been made by another user"));
        }
        self.links += 1;
        if self.links > LINKS {
            return Err(Errno::LOOP.into());
        }
        let target = readlinkat(&self.at, name, Vec::new())?.into_bytes();
        let target = PathBuf::from(OsString::from_vec(target));
        if target.is_absolute() {
            self.at = top(&target)?;
        }
        for component in components(&target).into_iter().rev() {
            self.rest.push_front(component);
        }
        Ok(())
    }
}

/// Opens a folder by its path for relative calls (`O_PATH`), which needs no permission to list it.
fn by_path(path: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// The folder in which a path begins.
fn top(path: &Path) -> io::Result<OwnedFd> {
    by_path(Path::new(if path.is_absolute() { "/" } else { "." }))
}

fn components(path: &Path) -> VecDeque<OsString> {
    let named = |component: Component<'_>| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    path.components().filter_map(named).collect()
}

fn open_dir(at: std::os::fd::BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    openat(at, name, OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// The same folder, opened to be listed, synced and given away.
fn readable(dir: &OwnedFd) -> Result<OwnedFd, Errno> {
    openat(dir, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Checks that a folder looks as if we had just made it: it is ours alone, and empty.
fn fresh(dir: &OwnedFd) -> io::Result<()> {
    let stat = fstat(dir)?;
    let mut entries = Dir::new(readable(dir)?)?;
    let empty = entries.all(|entry| entry.is_ok_and(|entry| [c".", c".."].contains(&entry.file_name())));
    if !ours(&stat) || !only_ours_to_write(&stat) || !empty {
        return Err(refused("another folder was put in its place"));
    }
    Ok(())
}

fn ours(stat: &Stat) -> bool {
    stat.st_uid == 0 || stat.st_uid == geteuid().as_raw()
}

fn only_ours_to_write(stat: &Stat) -> bool {
    ours(stat) && !Mode::from_raw_mode(stat.st_mode).intersects(Mode::WGRP | Mode::WOTH)
}

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}
