//! Witnesses (C2SP tlog-witness): strangers who cosign each checkpoint that they have seen to grow out of the one before. Whoever asks for
//! their signatures need not trust that this issuer tells everybody the same past.
//!
//! Nothing waits for them, and none for another. The newest checkpoint that one has cosigned is kept beside the tree, as `cosigned-ID`.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mayfly_verify::sha256;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::note::{Checkpoint, Verifier, split};
use super::tiles::Folder;
use super::tree;
use crate::https::{self, with_causes};

/// The type of a key that cosigns (C2SP tlog-cosignature): Ed25519 over a time and a checkpoint.
const COSIGNATURE: u8 = 4;
/// Between two questions at least.
const PACE: Duration = Duration::from_secs(1);
/// Longest pause after a failure.
const PAUSE: Duration = Duration::from_secs(60);
/// Longest answer, in bytes.
const MAX_ANSWER: usize = 16 * 1024;

/// A configured witness. An attacker who controls it can withhold its signature, and nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Its URL, to which `/add-checkpoint` is added. What it says is signed, so it needs no TLS.
    pub url: String,
    /// Its key.
    pub key: Cosigner,
    /// PEM file with the only roots of its TLS certificate. `None` means the roots of the system.
    pub ca_file: Option<PathBuf>,
}

/// What verifies the signatures of a witness: a name and a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cosigner {
    /// The name of the key.
    pub name: String,
    id: [u8; 4],
    public: [u8; 32],
}

impl Cosigner {
    /// Reads a vkey: `<name>+<hex of the id>+<base64 of type and key>`.
    pub fn read(text: &str) -> Result<Cosigner, String> {
        let malformed =
            || "this is no vkey of a witness: it looks like <name>+<8 hex digits>+<base64>, for cosignatures".to_owned();
        let mut parts = text.trim_end().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let key = BASE64.decode(key.ok_or_else(malformed)?).map_err(|_| malformed())?;
        let (kind, public) = key.split_first().ok_or_else(malformed)?;
        let public = <[u8; 32]>::try_from(public).map_err(|_| malformed())?;
        let name = name.filter(|name| !name.is_empty() && !name.contains(char::is_whitespace)).ok_or_else(malformed)?;
        let digest = sha256(&[name.as_bytes(), b"\n", &[COSIGNATURE], &public].concat());
        let mut made = [0u8; 4];
        made.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        let fits = *kind == COSIGNATURE && id == Some(hex::encode(made).as_str());
        if fits { Ok(Cosigner { name: name.to_owned(), id: made, public }) } else { Err(malformed()) }
    }

    /// The id of its key, as a part of a file's name.
    fn short(&self) -> String {
        hex::encode(self.id)
    }

    /// When it cosigned the text of a note, in Unix seconds, by one of these signature lines. `None` if none of them is its own and holds.
    pub fn cosigned(&self, text: &str, signatures: &str) -> Option<u64> {
        signatures.lines().find_map(|line| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let signature = BASE64.decode(signature).ok()?;
            let (id, rest) = signature.split_at_checked(4)?;
            let (time, signature) = rest.split_at_checked(8)?;
            if name != self.name || id != self.id {
                return None;
            }
            let time = u64::from_be_bytes(time.try_into().ok()?);
            let signed = format!("cosignature/v1\ntime {time}\n{text}");
            UnparsedPublicKey::new(&ED25519, self.public).verify(signed.as_bytes(), signature).ok()?;
            Some(time)
        })
    }
}

/// Why a witness has not cosigned.
#[derive(Debug, PartialEq, Eq)]
enum Refused {
    /// It has seen this many entries.
    Seen(u64),
    /// It cannot be reached, does not know the history, or its answer is not one.
    Other(String),
}

/// The configured witnesses of a history.
pub struct Witnesses {
    all: Vec<(Settings, reqwest::Client)>,
    folder: Folder,
    verifier: Verifier,
    // Guards how many entries each has cosigned, and why it has not cosigned more, in the order of the configuration. Held for a look.
    known: Mutex<Vec<(u64, Option<String>)>>,
}

impl Witnesses {
    pub(super) fn new(settings: Vec<Settings>, folder: Folder, verifier: Verifier) -> Result<Witnesses, String> {
        let client = |settings: Settings| {
            let client = https::open_client(settings.ca_file.as_deref()).map_err(|e| e.to_string())?;
            Ok::<_, String>((settings, client))
        };
        let all = settings.into_iter().map(client).collect::<Result<Vec<_>, _>>()?;
        let known = Mutex::new(vec![(0, None); all.len()]);
        Ok(Witnesses { all, folder, verifier, known })
    }

    /// Why witnesses have not cosigned, one sentence each.
    pub fn troubles(&self) -> Vec<String> {
        let known = self.known.lock();
        let troubles = self.all.iter().zip(known.iter());
        troubles.filter_map(|((witness, _), (_, why))| Some(format!("witness {}: {}", witness.key.name, why.as_ref()?))).collect()
    }

    /// Brings each new checkpoint before the witnesses, until `stop`. None of them waits for another.
    pub async fn keep(self: std::sync::Arc<Self>, stop: watch::Receiver<bool>) {
        let mut all = tokio::task::JoinSet::new();
        for number in 0..self.all.len() {
            all.spawn(std::sync::Arc::clone(&self).keep_one(number, stop.clone()));
        }
        while all.join_next().await.is_some() {}
    }

    /// Brings each new checkpoint before one of them, until `stop`.
    async fn keep_one(self: std::sync::Arc<Self>, number: usize, mut stop: watch::Receiver<bool>) {
        let Some((witness, client)) = self.all.get(number) else { return };
        // How many entries it has seen, as far as is known; and how many it has cosigned.
        let (mut seen, mut done, mut pause) = (0, 0, PACE);
        loop {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|stop| *stop) => return,
            }
            let asked = tokio::select! {
                asked = self.ask(witness, client, &mut seen, done) => asked,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let why = match asked {
                Ok(size) => {
                    (done, pause) = (size, PACE);
                    None
                }
                Err(why) => {
                    metrics::counter!("mayfly_history_witness_failures_total").increment(1);
                    pause = (pause * 2).min(PAUSE);
                    Some(why)
                }
            };
            self.note(number, done, why);
        }
    }

    /// Asks a witness for its signature under the newest checkpoint, unless that has `done` entries. Returns how many it has.
    async fn ask(&self, witness: &Settings, client: &reqwest::Client, seen: &mut u64, done: u64) -> Result<u64, String> {
        let Some(note) = self.folder.checkpoint()? else { return Ok(done) };
        let checkpoint = self.verifier.open(&note)?;
        if checkpoint.size == done {
            return Ok(done);
        }
        let line = self.of_one(witness, client, seen, &note, &checkpoint).await?;
        *seen = checkpoint.size;
        let (folder, id) = (self.folder.clone(), witness.key.short());
        let written = tokio::task::spawn_blocking(move || folder.cosigned(&id, &format!("{note}{line}"))).await;
        written.map_err(|e| e.to_string())??;
        Ok(checkpoint.size)
    }

    /// The signature line of one witness. It says how many entries it has seen if that is not what we think.
    async fn of_one(
        &self,
        witness: &Settings,
        client: &reqwest::Client,
        seen: &mut u64,
        note: &str,
        checkpoint: &Checkpoint,
    ) -> Result<String, String> {
        for _ in 0..2 {
            let proof = tree::consistency(&self.folder, *seen, checkpoint.size)?;
            match add(client, witness, *seen, &proof, note).await {
                Ok(line) => return Ok(line),
                Err(Refused::Seen(size)) if size > checkpoint.size => {
                    return Err(format!(
                        "it has seen {size} entries, and this history has {}: it was put back to an older copy, or another copy of this \
                         issuer runs",
                        checkpoint.size
                    ));
                }
                Err(Refused::Seen(size)) => *seen = size,
                Err(Refused::Other(why)) => return Err(why),
            }
        }
        Err("it does not keep to how many entries it has seen".into())
    }

    fn note(&self, number: usize, done: u64, why: Option<String>) {
        let mut known = self.known.lock();
        let name = self.all.get(number).map_or("", |(witness, _)| witness.key.name.as_str());
        if let Some(one) = known.get_mut(number) {
            if let Some(why) = why.as_ref().filter(|why| one.1.as_ref() != Some(*why)) {
                tracing::warn!(witness = name, why, "the history is not cosigned");
            }
            *one = (done, why);
        }
        #[expect(clippy::cast_precision_loss, reason = "for a gauge")]
        let least = known.iter().map(|(done, _)| *done).min().unwrap_or(0) as f64;
        metrics::gauge!("mayfly_history_cosigned_entries").set(least);
    }
}

/// Asks one witness to cosign a checkpoint that grew out of `old` entries.
async fn add(
    client: &reqwest::Client,
    witness: &Settings,
    old: u64,
    proof: &[tree::Hash],
    note: &str,
) -> Result<String, Refused> {
    let proof: String = proof.iter().map(|hash| format!("{}\n", BASE64.encode(hash))).collect();
    let other = |e: reqwest::Error| Refused::Other(with_causes(&e));
    let url = format!("{}/add-checkpoint", witness.url.trim_end_matches('/'));
    let mut answer = client.post(url).body(format!("old {old}\n{proof}\n{note}")).send().await.map_err(other)?;
    let status = answer.status();
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(other)? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(Refused::Other(format!("its answer has more than {MAX_ANSWER} bytes")));
        }
        body.extend_from_slice(&chunk);
    }
    let body = String::from_utf8(body).map_err(|_| Refused::Other("its answer is no text".into()))?;
    match status.as_u16() {
        200 => {
            let (text, _) = split(note).map_err(Refused::Other)?;
            let line = body.lines().find(|line| witness.key.cosigned(text, line).is_some());
            line.map(|line| format!("{line}\n")).ok_or_else(|| Refused::Other("its signature does not hold".into()))
        }
        409 => Err(body.trim_end().parse().map_or_else(|_| Refused::Other("it answered 409".into()), Refused::Seen)),
        404 => Err(Refused::Other("it does not know this history: give it the key in `history/vkey`".into())),
        422 => Err(Refused::Other(
            "this history is not the one that it has seen: it was put back and went on differently, or another copy of this issuer runs"
                .into(),
        )),
        403 => Err(Refused::Other("it has another key for this history than the one in `history/vkey`".into())),
        other => Err(Refused::Other(format!("it answered {other}"))),
    }
}

/// What a witness signed, of the folder of a history whose checkpoint is `checkpoint`: how many entries, and when (Unix seconds). Fails if
/// its signature is not there or does not hold, or if the history is not one that grew out of them.
pub fn verify(folder: &Folder, verifier: &Verifier, checkpoint: &Checkpoint, key: &Cosigner) -> Result<(u64, u64), String> {
    let name = &key.name;
    let note = folder.read_cosigned(&key.short())?.ok_or_else(|| format!("`{name}` has cosigned nothing here"))?;
    let cosigned = verifier.open(&note)?;
    let (text, signatures) = split(&note)?;
    let at = key.cosigned(text, signatures).ok_or_else(|| format!("there is no signature of `{name}` that holds"))?;
    if cosigned.size > checkpoint.size {
        let (seen, have) = (cosigned.size, checkpoint.size);
        return Err(format!("`{name}` cosigned {seen} entries, and the history has {have}: it was put back to an older copy"));
    }
    if tree::subtree(folder, checkpoint.size, 0, cosigned.size)? != cosigned.root {
        return Err(format!("the history is not the one that `{name}` cosigned at {} entries", cosigned.size));
    }
    Ok((cosigned.size, at))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};

    use super::*;

    #[test]
    fn a_cosignature_is_of_its_witness_its_time_and_its_text() {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let public = key.public_key().as_ref();
        let id = sha256(&[b"w.example\n\x04", public].concat());
        let vkey = format!("w.example+{}+{}", hex::encode(&id[..4]), BASE64.encode([&[4], public].concat()));
        let cosigner = Cosigner::read(&vkey).unwrap();
        let text = "prod.example/history\n7\nAAAA\n";
        let line = |time: u64, text: &str| {
            let signed = key.sign(format!("cosignature/v1\ntime {time}\n{text}").as_bytes());
            let bytes = [&id[..4], &time.to_be_bytes(), signed.as_ref()].concat();
            format!("\u{2014} w.example {}", BASE64.encode(bytes))
        };
        assert_eq!(cosigner.cosigned(text, &format!("\u{2014} other AAAAAAAA\n{}\n", line(5, text))), Some(5));
        for wrong in [
            line(5, "another\n"),
            line(5, text).replace("w.example", "v.example"),
            String::new(),
            "\u{2014} w.example AAAA".into(),
        ] {
            assert_eq!(cosigner.cosigned(text, &wrong), None, "{wrong}");
        }
        for wrong in ["", "w.example", &vkey.replace("w.", "v."), &vkey.replace('+', " ")] {
            assert!(Cosigner::read(wrong).is_err(), "{wrong}");
        }
        // A key that signs checkpoints is none that cosigns.
        assert!(Cosigner::read("example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k").is_err());
    }
}
