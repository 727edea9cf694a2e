//! The reserve: a file beside the journal that only occupies space. When the disk is full it is given up piece by piece for records
//! that must still be written, such as revocations, and it is refilled before other records get room.

use std::fs::{File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::{FallocateFlags, fallocate, fstatvfs};
use rustix::io::Errno;

/// The size of a piece, in bytes.
const PIECE: u64 = 1 << 20;
/// Space that stays free on the disk when the reserve is refilled, for keys and other small files, in bytes.
const SLACK: u64 = 4 << 20;

/// The file.
pub struct Reserve {
    file: File,
    size: u64,
    left: u64,
}

impl Reserve {
    /// Opens the file, or makes it, and fills it to `size` bytes, as far as there is room.
    pub fn open(path: &Path, size: u64) -> io::Result<Reserve> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        let left = file.metadata()?.len().min(size);
        file.set_len(left)?;
        let mut reserve = Reserve { file, size, left };
        reserve.fill();
        Ok(reserve)
    }

    /// Whether no part of it is given up.
    pub fn is_whole(&self) -> bool {
        self.left >= self.size
    }

    /// Bytes that are left of it.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Gives up a piece. Returns `false` if nothing is left.
    pub fn give(&mut self) -> bool {
        let next = self.left.saturating_sub(PIECE);
        let given = self.left > 0 && self.file.set_len(next).is_ok();
        if given {
            self.left = next;
        }
        given
    }

    /// Refills it, if the disk has room for that and for some small files besides.
    pub fn fill(&mut self) {
        let missing = self.size.saturating_sub(self.left);
        if missing == 0 || self.free().is_some_and(|free| free < missing.saturating_add(SLACK)) {
            return;
        }
        // On most file systems bytes that were never written occupy no space, unless it is allocated like this.
        let filled = match fallocate(&self.file, FallocateFlags::empty(), self.left, missing) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.write(missing),
            other => other.map_err(io::Error::from),
        };
        match filled {
            Ok(()) => self.left = self.size,
            // A quota was reached, or another process took the space. What was allocated is given back.
            Err(error) => {
                tracing::debug!(%error, "the journal's reserve cannot be filled");
                let _ = self.file.set_len(self.left);
            }
        }
    }

    /// Bytes that are free on its disk for this user. `None` if the system cannot say.
    pub fn free(&self) -> Option<u64> {
        let stat = fstatvfs(&self.file).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn write(&mut self, missing: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(self.left))?;
        let piece = [0u8; 1 << 13];
        let mut rest = missing;
        while rest > 0 {
            let n = usize::try_from(rest).unwrap_or(usize::MAX).min(piece.len());
            self.file.write_all(piece.get(..n).unwrap_or_default())?;
            rest -= n as u64;
        }
        self.file.sync_data()
    }
}

/// Whether a file error means that there is no room: the disk is full, or the user's quota is reached.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether writing another file beside this one fails because there is no room. SQLite's error is the same for a quota and for a
/// broken disk.
pub fn has_no_room(beside: &Path) -> bool {
    let mut probe = beside.as_os_str().to_owned();
    probe.push("-probe");
    let probe = Path::new(&probe);
    let written = File::create(probe).and_then(|mut file| file.write_all(&[0; 1 << 14]).and_then(|()| file.sync_data()));
    let _ = std::fs::remove_file(probe);
    written.is_err_and(|error| is_full(&error))
}
