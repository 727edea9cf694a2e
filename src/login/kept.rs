//! The tokens of a person who has signed in: kept in a file that only they can read, and refreshed before they expire.

use std::fs::{self, File, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Found, LoginError, Provider, Tokens, claims, refused, unix_now};
use crate::keys::keystore::write_private;

/// A token that expires within this many seconds is not used.
const MARGIN: u64 = 30;
/// Age in seconds at which a token is refreshed, because by default issuers refuse tokens that are older than an hour.
const AGE: u64 = 3300;
/// How long to wait for another command that refreshes the same token.
const PATIENCE: Duration = Duration::from_secs(20);

/// The content of the file.
#[derive(Serialize, Deserialize)]
struct Kept {
    issuer: String,
    client: String,
    resource: Option<String>,
    token: String,
    refresh_token: Option<String>,
}

/// The unverified claims of a token about its person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// The provider.
    pub iss: String,
    /// Whom it names.
    pub sub: String,
    /// Its audiences.
    pub audiences: Vec<String>,
    /// When it expires, Unix seconds.
    pub ends_at: u64,
    /// Whether it can be refreshed without a sign-in.
    pub refreshes: bool,
}

/// Stores the tokens of a sign-in in a folder.
pub fn keep(dir: &Path, provider: &Provider, tokens: &Tokens) -> Result<Said, LoginError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|e| at(dir, &e))?;
    write(dir, &Kept::of(provider, tokens))?;
    Ok(said(&tokens.token, tokens.refresh.is_some()))
}

/// What became of a sign-in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forgotten {
    /// Whether anything was kept.
    pub kept: bool,
    /// Whether the provider has ended the sign-in too. It has not where there was no refresh token, or where it offers no such thing.
    pub revoked: bool,
}

/// Forgets what is kept in a folder, and has the provider end the sign-in. It is forgotten here even if the provider cannot be told, which is
/// an error.
pub async fn forget(dir: &Path, provider: &Provider) -> Result<Forgotten, LoginError> {
    if !path(dir).exists() {
        return Ok(Forgotten { kept: false, revoked: false });
    }
    // ORDER: no other command refreshes the token in between, and keeps the next one.
    let _lock = lock(dir).await?;
    let refresh = read(dir, provider).ok().and_then(|kept| kept.refresh_token);
    let kept = remove(dir)?;
    let revoked = match refresh {
        Some(refresh) => Found::of(provider).await?.revoke(&refresh).await?,
        None => false,
    };
    Ok(Forgotten { kept, revoked })
}

/// Removes what is kept in a folder. Returns whether there was anything.
fn remove(dir: &Path) -> Result<bool, LoginError> {
    match fs::remove_file(path(dir)) {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(at(&path(dir), &e)),
    }
}

/// The person who has signed in, by the tokens in a folder. `None` if nobody has.
pub fn who(dir: &Path, provider: &Provider) -> Result<Option<Said>, LoginError> {
    match read(dir, provider) {
        Ok(kept) => Ok(Some(said(&kept.token, kept.refresh_token.is_some()))),
        Err(LoginError::NotSignedIn(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

/// A token of the person who has signed in, for at least some seconds. Refreshes it if that is due and possible.
pub async fn token(dir: &Path, provider: &Provider) -> Result<String, LoginError> {
    let kept = read(dir, provider)?;
    if !kept.is_due(unix_now()) {
        return Ok(kept.token);
    }
    // ORDER: under a lock, because many providers accept a refresh token once, and revoke all of them if it is used twice.
    let _lock = lock(dir).await?;
    let kept = read(dir, provider)?;
    let now = unix_now();
    if !kept.is_due(now) {
        return Ok(kept.token);
    }
    let Some(refresh) = &kept.refresh_token else {
        return Err(LoginError::NotSignedIn("your sign-in has ended".into()));
    };
    let found = match Found::of(provider).await {
        Ok(found) => found,
        // The old token has not expired, so it is used.
        Err(LoginError::Unreachable(..)) if said(&kept.token, false).ends_at > now + MARGIN => return Ok(kept.token),
        Err(other) => return Err(other),
    };
    let granted = match found.grant(vec![("grant_type", "refresh_token"), ("refresh_token", refresh)]).await? {
        Ok(granted) => granted,
        Err(refusal) if refusal.error == "invalid_grant" => {
            remove(dir)?;
            return Err(LoginError::NotSignedIn("your sign-in has ended".into()));
        }
        Err(refusal) => return Err(refused(&refusal)),
    };
    // RFC 6749 6: without a new refresh token the old one stays valid.
    let next = granted.refresh_token.clone().or_else(|| kept.refresh_token.clone());
    let tokens = Tokens { refresh: next, ..found.wanted(granted, None)? };
    write(dir, &Kept::of(provider, &tokens))?;
    Ok(tokens.token)
}

impl Kept {
    fn of(provider: &Provider, tokens: &Tokens) -> Kept {
        Kept {
            issuer: provider.issuer.clone(),
            client: provider.client.clone(),
            resource: provider.resource.clone(),
            token: tokens.token.clone(),
            refresh_token: tokens.refresh.clone(),
        }
    }

    fn is_due(&self, now: u64) -> bool {
        let issued_at = claims(&self.token).and_then(|claims| claims.get("iat")?.as_f64());
        #[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^53")]
        let old = issued_at.is_some_and(|issued_at| issued_at + AGE as f64 <= now as f64);
        said(&self.token, false).ends_at <= now.saturating_add(MARGIN) || (self.refresh_token.is_some() && old)
    }
}

fn said(token: &str, refreshes: bool) -> Said {
    let claims = claims(token).unwrap_or_default();
    let text = |name: &str| claims.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let audiences = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(all)) => all.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float that is cast stays within the range")]
    let ends_at = claims.get("exp").and_then(Value::as_f64).map_or(0, |end| end as u64);
    Said { iss: text("iss"), sub: text("sub"), audiences, ends_at, refreshes }
}

/// T244: tokens in a file that others may read are not used, and tokens of another provider or client are not sent.
fn read(dir: &Path, provider: &Provider) -> Result<Kept, LoginError> {
    let path = path(dir);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(LoginError::NotSignedIn("you are not signed in".into())),
        Err(e) => return Err(at(&path, &e)),
    };
    let mode = path.metadata().map_err(|e| at(&path, &e))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        let shown = path.display();
        return Err(LoginError::Machine(format!(
            "others may read the tokens in `{shown}` (mode {mode:o}): sign in again with `mayfly login`"
        )));
    }
    let kept: Kept = serde_json::from_slice(&text).map_err(|e| LoginError::NotSignedIn(format!("`{}`: {e}", path.display())))?;
    if (&kept.issuer, &kept.client, &kept.resource) != (&provider.issuer, &provider.client, &provider.resource) {
        return Err(LoginError::NotSignedIn(format!("your sign-in is for another client than `{}`", provider.client)));
    }
    Ok(kept)
}

fn write(dir: &Path, kept: &Kept) -> Result<(), LoginError> {
    let text = serde_json::to_vec(kept).map_err(|e| LoginError::Machine(e.to_string()))?;
    write_private(&path(dir), &text).map_err(|e| LoginError::Machine(e.to_string()))
}

async fn lock(dir: &Path) -> Result<File, LoginError> {
    let path = dir.join("login.lock");
    let file = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path).map_err(|e| at(&path, &e))?;
    let began = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if began.elapsed() < PATIENCE => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(TryLockError::WouldBlock) => {
                return Err(LoginError::Machine(format!("another command has held `{}` for too long", path.display())));
            }
            Err(TryLockError::Error(e)) => return Err(at(&path, &e)),
        }
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("login.json")
}

fn at(path: &Path, e: &std::io::Error) -> LoginError {
    LoginError::Machine(format!("`{}`: {e}", path.display()))
}
