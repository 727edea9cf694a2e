//! Contexts: each names an issuer, the roots that verify it, and the identity or sign-in to use there. They are kept for one
//! person, in the folder `mayfly` of their configuration (`$XDG_CONFIG_HOME`, or `~/.config`).
//!
//! Each context is a folder with `context.json`, `bundle.pem` and, after a sign-in, `login.json`. Folders have mode 0700 and files
//! 0600.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::keys::keystore::write_private;
use crate::login::Provider;

/// Longest name of a context, in bytes.
const MAX_NAME: usize = 63;

/// All contexts of a person.
pub struct Contexts {
    dir: PathBuf,
}

/// A context with its name.
#[derive(Clone, Debug)]
pub struct Context {
    /// Its name.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Its settings.
    pub settings: Settings,
}

/// The settings of a context: everything but its roots and tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// `host:port` of the issuer.
    pub server: String,
    /// The folder of the identity to use there, as an absolute path. `None` if a person uses the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<PathBuf>,
    /// The provider where the person signs in. `None` if nobody does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login: Option<Provider>,
}

impl Contexts {
    /// The contexts of the person who runs this process. Fails if there is no home folder.
    pub fn of_user() -> Result<Contexts, String> {
        let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let base = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
        let base = base.ok_or("there is no folder for contexts: set HOME or XDG_CONFIG_HOME to an absolute path")?;
        Ok(Contexts { dir: base.join("mayfly") })
    }

    /// Those in a folder.
    pub fn in_folder(dir: impl Into<PathBuf>) -> Contexts {
        Contexts { dir: dir.into() }
    }

    /// Every context, in order of name.
    pub fn all(&self) -> Result<Vec<Context>, String> {
        let mut names: Vec<String> = match fs::read_dir(self.dir.join("contexts")) {
            Ok(entries) => entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok()).collect(),
            Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
            Err(e) => return Err(format!("`{}`: {e}", self.dir.join("contexts").display())),
        };
        names.retain(|name| check(name).is_ok());
        names.sort_unstable();
        names.iter().map(|name| self.read(name)).collect()
    }

    /// The context of this name.
    pub fn read(&self, name: &str) -> Result<Context, String> {
        check(name)?;
        let dir = self.folder(name);
        let path = dir.join("context.json");
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(format!(
                    "there is no context `{name}`: see `mayfly context list`, or make it with `mayfly context add`"
                ));
            }
            Err(e) => return Err(format!("`{}`: {e}", path.display())),
        };
        let settings = serde_json::from_slice(&text).map_err(|e| format!("`{}`: {e}", path.display()))?;
        Ok(Context { name: name.to_owned(), dir, settings })
    }

    /// Makes a context. `bundle` is PEM. With `replace` it replaces one of the same name, whose tokens are deleted.
    pub fn add(&self, name: &str, settings: Settings, bundle: &[u8], replace: bool) -> Result<Context, String> {
        check(name)?;
        let dir = self.folder(name);
        if dir.symlink_metadata().is_ok() && !replace {
            return Err(format!("there is a context `{name}` already: give another name, or replace it with --force"));
        }
        let at = |e: &dyn std::fmt::Display| format!("`{}`: {e}", dir.display());
        // The folder is renamed to its final name when it is complete, so that nobody sees a part of it.
        let fresh = self.dir.join("contexts").join(format!(".{name}.{}", std::process::id()));
        let made = (|| {
            make(&self.dir.join("contexts")).map_err(|e| at(&e))?;
            let _ = fs::remove_dir_all(&fresh);
            make(&fresh).map_err(|e| at(&e))?;
            let text = serde_json::to_vec_pretty(&settings).map_err(|e| at(&e))?;
            write_private(&fresh.join("bundle.pem"), bundle).map_err(|e| at(&e))?;
            write_private(&fresh.join("context.json"), &text).map_err(|e| at(&e))?;
            if replace && dir.symlink_metadata().is_ok() {
                fs::remove_dir_all(&dir).map_err(|e| at(&e))?;
            }
            fs::rename(&fresh, &dir).map_err(|e| at(&e))
        })();
        made.inspect_err(|_| drop(fs::remove_dir_all(&fresh)))?;
        Ok(Context { name: name.to_owned(), dir: self.folder(name), settings })
    }

    /// Removes a context with its tokens. The folder of its identity stays.
    pub fn remove(&self, name: &str) -> Result<(), String> {
        let context = self.read(name)?;
        fs::remove_dir_all(&context.dir).map_err(|e| format!("`{}`: {e}", context.dir.display()))?;
        if self.current()?.as_deref() == Some(name) {
            fs::remove_file(self.pointer()).map_err(|e| format!("`{}`: {e}", self.pointer().display()))?;
        }
        Ok(())
    }

    /// The name of the context for commands that name none. `None` if none was chosen.
    pub fn current(&self) -> Result<Option<String>, String> {
        match fs::read_to_string(self.pointer()) {
            Ok(text) => Ok(Some(text.trim().to_owned()).filter(|name| !name.is_empty())),
            Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(e) => Err(format!("`{}`: {e}", self.pointer().display())),
        }
    }

    /// Chooses the context for commands that name none.
    pub fn choose(&self, name: &str) -> Result<Context, String> {
        let context = self.read(name)?;
        write_private(&self.pointer(), format!("{name}\n").as_bytes()).map_err(|e| e.to_string())?;
        Ok(context)
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.dir.join("contexts").join(name)
    }

    fn pointer(&self) -> PathBuf {
        self.dir.join("current-context")
    }
}

impl Context {
    /// The roots of its issuer, PEM.
    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle.pem")
    }
}

fn make(dir: &Path) -> std::io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Checks that a name is a single part of a path, and cannot be taken for an option.
fn check(name: &str) -> Result<(), String> {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let fine =
        name.len() <= MAX_NAME && name.bytes().all(inner) && name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if fine {
        return Ok(());
    }
    let shown: String = name.chars().take(MAX_NAME).collect();
    Err(format!(
        "`{shown}` is no name of a context: write up to {MAX_NAME} of a-z, A-Z, 0-9, `-`, `_` and `.`, a letter or digit first"
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(server: &str) -> Settings {
        Settings { server: server.into(), identity: None, login: None }
    }

    #[test]
    fn t244_contexts_are_kept_whole_and_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::in_folder(dir.path().join("mayfly"));
        assert!(contexts.all().unwrap().is_empty() && contexts.current().unwrap().is_none());
        contexts.add("prod", at("a:1"), b"pem", false).unwrap();
        contexts.add("stage", at("b:1"), b"pem", false).unwrap();
        assert!(contexts.add("prod", at("c:1"), b"pem", false).unwrap_err().contains("--force"));
        assert_eq!(contexts.read("prod").unwrap().settings.server, "a:1");
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        let prod = contexts.choose("prod").unwrap();
        assert_eq!((mode(&prod.dir), mode(&prod.bundle()), mode(&prod.dir.join("context.json"))), (0o700, 0o600, 0o600));
        fs::write(prod.dir.join("login.json"), "secret").unwrap();
        contexts.add("prod", at("c:1"), b"pem", true).unwrap();
        assert_eq!(contexts.read("prod").unwrap().settings.server, "c:1");
        assert!(!prod.dir.join("login.json").exists(), "tokens of the one before are no tokens of this one");
        assert_eq!(contexts.all().unwrap().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["prod", "stage"]);
        // A removed context is no longer the current one, and its files are gone.
        contexts.remove("prod").unwrap();
        assert!(contexts.current().unwrap().is_none() && !prod.dir.exists());
        assert!(contexts.choose("prod").unwrap_err().contains("there is no context `prod`"));
    }

    #[test]
    fn t244_a_name_leads_nowhere_else_and_what_cannot_be_read_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let contexts = Contexts::in_folder(dir.path());
        for name in ["", ".", "..", "../x", "a/b", "-x", ".hidden", "a b", "a\n", "ä", &"a".repeat(64)] {
            for refused in
                [contexts.read(name).err(), contexts.add(name, at("a:1"), b"", true).err(), contexts.remove(name).err()]
            {
                assert!(refused.is_some_and(|e| e.contains("is no name")), "{name:?}");
            }
        }
        let made = contexts.add("x", at("a:1"), b"pem", false).unwrap();
        for (text, told) in
            [("", "EOF"), ("{}", "server"), ("{\"server\":\"a:1\",\"sevrer\":1}", "unknown field"), ("[]", "context.json")]
        {
            fs::write(made.dir.join("context.json"), text).unwrap();
            let refused = contexts.read("x").unwrap_err();
            assert!(refused.contains(told), "{text}: {refused}");
        }
    }
}
