//! Where a configuration comes from, so that it can be read again.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{Config, Faults};

/// Where the configuration of a running issuer comes from.
#[derive(Clone, Debug)]
pub enum Source {
    /// The file of `mayfly serve`.
    File(PathBuf),
    /// The configuration of development, with a file that is merged into it if there is one.
    Development {
        /// The home.
        home: PathBuf,
        /// Address of the gRPC listener.
        listen: SocketAddr,
        /// The file.
        over: Option<PathBuf>,
    },
}

impl Source {
    /// Reads the configuration as it is written now.
    pub fn load(&self) -> Result<Config, Faults> {
        match self {
            Source::File(path) => Config::load(path),
            Source::Development { home, listen, over: None } => Config::dev(home, *listen, None),
            Source::Development { over: Some(path), .. } => {
                let name = path.display().to_string();
                let text = std::fs::read_to_string(path).map_err(|e| Faults(vec![format!("{name}: {e}")]))?;
                self.parse(&text, &name)
            }
        }
    }

    /// Reads a text as if it were in the file.
    pub fn parse(&self, text: &str, name: &str) -> Result<Config, Faults> {
        match self {
            Source::File(_) => Config::parse(text, name),
            Source::Development { home, listen, .. } => Config::dev(home, *listen, Some((text, name))),
        }
    }

    /// The file that is read. `None` if there is none.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Source::File(path) => Some(path),
            Source::Development { over, .. } => over.as_deref(),
        }
    }
}
