//! JWT-SVIDs as files, for programs that read a token from a file: one file for each audience, replaced at half of its life.
//!
//! A program starts only when every file exists. If a token cannot be minted later, its file stays as it is, the failure is logged,
//! and minting is tried again with growing pauses. The files are removed when the identity ends, and with this (T118).

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mayfly_agent::identity::{Identity, IdentityError, Over};
use tokio::sync::watch;
use zeroize::Zeroizing;

use super::command::NotRun;
use super::folder::{Folder, Owner};

/// Most files of one command.
pub const MOST: usize = 32;
/// How often the clock is read while waiting, because clocks can be set and machines sleep.
const LOOK: Duration = Duration::from_secs(20);
/// Pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A token to write into a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The audience.
    pub audience: String,
    /// The file. A relative path is below the folder in which the command starts.
    pub file: PathBuf,
}

impl Wanted {
    /// Parses `AUDIENCE=FILE`. An audience may contain `=`, but a file may not.
    pub fn parse(text: &str) -> Result<Wanted, String> {
        let (audience, file) = text.rsplit_once('=').ok_or("write AUDIENCE=FILE")?;
        if audience.is_empty() || audience.len() > 256 {
            return Err("an audience has 1 to 256 bytes".into());
        }
        let file = PathBuf::from(file);
        if file.file_name().is_none() {
            return Err(format!("`{}` is no name of a file", file.display()));
        }
        Ok(Wanted { audience: audience.to_owned(), file })
    }
}

/// The token files of one command. Dropping this removes them.
pub struct Tokens {
    files: Vec<TokenFile>,
    owner: Option<Owner>,
}

struct TokenFile {
    wanted: Wanted,
    /// The token that was written last; empty before the first time and after the end.
    written: Zeroizing<String>,
    /// When a new token is due.
    due: SystemTime,
    failures: u32,
}

impl Tokens {
    /// Mints and writes every token, for `owner` if that is another user. Fails if one cannot be minted or written; then there are
    /// no files.
    pub async fn begin(wanted: Vec<Wanted>, owner: Option<Owner>, identity: &Identity) -> Result<Tokens, NotRun> {
        if wanted.len() > MOST {
            return Err(format!("a command has at most {MOST} token files").into());
        }
        let files =
            wanted.into_iter().map(|wanted| TokenFile { wanted, written: Zeroizing::default(), due: UNIX_EPOCH, failures: 0 });
        let mut tokens = Tokens { files: files.collect(), owner };
        for file in &mut tokens.files {
            file.renew(identity, owner).await.map_err(|why| NotRun { code: why.code(), message: why.told(&file.wanted) })?;
        }
        Ok(tokens)
    }

    /// Replaces each token at half of its life, until the identity ends. Then the files are removed, and this returns.
    pub async fn keep(&mut self, identity: &Identity) {
        let mut over: watch::Receiver<Option<Over>> = identity.over();
        loop {
            let now = SystemTime::now();
            let next = self.files.iter().map(|file| file.due.duration_since(now).unwrap_or_default()).min();
            tokio::select! {
                () = tokio::time::sleep(next.unwrap_or(LOOK).min(LOOK)) => {}
                _ = over.wait_for(Option::is_some) => break,
            }
            for file in self.files.iter_mut().filter(|file| file.due <= SystemTime::now()) {
                match file.renew(identity, self.owner).await {
                    Ok(()) => file.failures = 0,
                    Err(Unwritten::Minting(IdentityError::Over(_))) => break,
                    Err(why) => {
                        let pause = FIRST_PAUSE.saturating_mul(1 << file.failures.min(5)).min(LONGEST_PAUSE);
                        file.failures = file.failures.saturating_add(1);
                        file.due = SystemTime::now() + pause;
                        tracing::error!(
                            "{}; the old one stays, next attempt in {} seconds",
                            why.told(&file.wanted),
                            pause.as_secs()
                        );
                    }
                }
            }
        }
        self.remove();
    }

    fn remove(&mut self) {
        for file in &mut self.files {
            file.remove(self.owner);
        }
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        self.remove();
    }
}

/// Why a file has no new token.
enum Unwritten {
    Minting(IdentityError),
    /// The issuer cannot be reached, and the cached token is the one in the file.
    Same,
    File(String),
}

impl Unwritten {
    fn told(&self, wanted: &Wanted) -> String {
        let Wanted { audience, file } = wanted;
        let why: &dyn std::fmt::Display = match self {
            Unwritten::Minting(e) => e,
            Unwritten::Same => &"the issuer does not answer",
            Unwritten::File(why) => why,
        };
        format!("no token for `{audience}` in `{}`: {why}", file.display())
    }

    /// The exit code if the command cannot be started for it.
    fn code(&self) -> u8 {
        match self {
            Unwritten::Minting(IdentityError::Denied { .. } | IdentityError::Over(_)) => 3,
            Unwritten::Minting(IdentityError::Connect(_) | IdentityError::Unavailable(_)) | Unwritten::Same => 5,
            _ => 1,
        }
    }
}

impl TokenFile {
    async fn renew(&mut self, identity: &Identity, owner: Option<Owner>) -> Result<(), Unwritten> {
        let minted = identity.jwt(&self.wanted.audience).await.map_err(Unwritten::Minting)?;
        let token = Zeroizing::new(minted.token);
        if token == self.written {
            return Err(Unwritten::Same);
        }
        let text = |e: std::io::Error| Unwritten::File(e.to_string());
        let (folder, name) = self.place(owner).map_err(Unwritten::File)?;
        folder.write(&name, token.as_bytes(), owner).map_err(text)?;
        self.written = token;
        let now = SystemTime::now();
        let ends_at = minted.expires_at.and_then(|at| u64::try_from(at.seconds).ok()).unwrap_or(0);
        let left = (UNIX_EPOCH + Duration::from_secs(ends_at)).duration_since(now).unwrap_or_default();
        // A clock that is ahead of the issuer's must not make this spin.
        self.due = now + (left / 2).max(FIRST_PAUSE);
        Ok(())
    }

    /// Opened again each time: the folder may have been removed meanwhile.
    fn place(&self, owner: Option<Owner>) -> Result<(Folder, String), String> {
        let parent = match self.wanted.file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let name = self.wanted.file.file_name().and_then(OsStr::to_str).ok_or("its name is not UTF-8")?;
        Ok((Folder::open(parent, owner)?, name.to_owned()))
    }

    /// Removes the file if its content is still ours, because another command may use the same file.
    fn remove(&mut self, owner: Option<Owner>) {
        if self.written.is_empty() {
            return;
        }
        if let Ok((folder, name)) = self.place(owner)
            && folder.holds(&name, self.written.as_bytes())
            && let Err(e) = folder.remove(OsStr::new(&name))
        {
            tracing::error!("cannot remove `{}`: {e}", self.wanted.file.display());
        }
        self.written = Zeroizing::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_equals_sign_ends_the_audience() {
        let wanted = |audience: &str, file: &str| Ok(Wanted { audience: audience.into(), file: file.into() });
        assert_eq!(Wanted::parse("https://a.example=tok"), wanted("https://a.example", "tok"));
        assert_eq!(Wanted::parse("https://a.example/?b=c=d/tok"), wanted("https://a.example/?b=c", "d/tok"));
        for bad in ["", "a", "=tok", "a=", "a=/", "a=..", "a=b/.."] {
            assert!(Wanted::parse(bad).is_err(), "{bad}");
        }
    }
}
