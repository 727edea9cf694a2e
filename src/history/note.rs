//! Signed notes (C2SP signed-note) and checkpoints (C2SP tlog-checkpoint): the signed statements about the history's content.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use mayfly_verify::sha256;
use zeroize::Zeroizing;

use super::tree::Hash;

/// The type of a key: Ed25519.
const ED: u8 = 1;
/// Most signature lines that are read.
const SIGNATURES: usize = 64;

/// The key that signs checkpoints, with its name, which is the origin of the history.
pub struct Signer {
    key: Ed25519KeyPair,
    verifier: Verifier,
    encoded: Zeroizing<String>,
}

/// The verifier of checkpoints: a name and a public key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verifier {
    /// The name of the key.
    pub name: String,
    id: [u8; 4],
    public: [u8; 32],
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The origin, which identifies the history.
    pub origin: String,
    /// Number of entries.
    pub size: u64,
    /// Root of the tree over them.
    pub root: Hash,
}

impl Signer {
    /// A new key. `name` has neither spaces nor `+`.
    pub fn generate(name: &str) -> Result<Signer, String> {
        let mut seed = Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| "the system gave no randomness".to_owned())?;
        Signer::new(name, &seed)
    }

    fn new(name: &str, seed: &[u8; 32]) -> Result<Signer, String> {
        let key = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|e| e.to_string())?;
        let public = key.public_key().as_ref().try_into().map_err(|_| "the public key has not 32 bytes".to_owned())?;
        let verifier = Verifier::new(name, public)?;
        let mut secret = Zeroizing::new(vec![ED]);
        secret.extend_from_slice(seed);
        let secret = Zeroizing::new(BASE64.encode(&*secret));
        let encoded = Zeroizing::new(format!("PRIVATE+KEY+{name}+{}+{}", hex::encode(verifier.id), *secret));
        Ok(Signer { key, verifier, encoded })
    }

    /// Reads a key as [`Signer::encoded`] wrote it.
    pub fn read(text: &str) -> Result<Signer, String> {
        let malformed = || "this is no key of a history".to_owned();
        let rest = text.trim_end().strip_prefix("PRIVATE+KEY+").ok_or_else(malformed)?;
        let mut parts = rest.splitn(3, '+');
        let (name, id, secret) = (parts.next(), parts.next(), parts.next());
        let secret = Zeroizing::new(BASE64.decode(secret.ok_or_else(malformed)?).map_err(|_| malformed())?);
        let (kind, seed) = secret.split_first().ok_or_else(malformed)?;
        let seed = Zeroizing::new(<[u8; 32]>::try_from(seed).map_err(|_| malformed())?);
        let signer = Signer::new(name.ok_or_else(malformed)?, &seed)?;
        let fits = *kind == ED && id == Some(hex::encode(signer.verifier.id).as_str());
        if fits { Ok(signer) } else { Err(malformed()) }
    }

    /// The key as text, in the form of `golang.org/x/mod/sumdb/note`.
    pub fn encoded(&self) -> &str {
        &self.encoded
    }

    /// What verifies its signatures.
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// The signed note of a checkpoint.
    pub fn sign(&self, size: u64, root: &Hash) -> String {
        let text = format!("{}\n{size}\n{}\n", self.verifier.name, BASE64.encode(root));
        let mut signature = self.verifier.id.to_vec();
        signature.extend_from_slice(self.key.sign(text.as_bytes()).as_ref());
        format!("{text}\n\u{2014} {} {}\n", self.verifier.name, BASE64.encode(signature))
    }
}

impl Verifier {
    fn new(name: &str, public: [u8; 32]) -> Result<Verifier, String> {
        if name.is_empty() || name.contains(|c: char| c == '+' || c.is_whitespace() || c.is_control()) {
            return Err(format!("`{name}` is no name of a key"));
        }
        let digest = sha256(&[name.as_bytes(), b"\n", &[ED], &public].concat());
        let mut id = [0u8; 4];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Ok(Verifier { name: name.to_owned(), id, public })
    }

    /// Reads a vkey: `<name>+<hex of the id>+<base64 of type and key>`.
    pub fn read(text: &str) -> Result<Verifier, String> {
        let malformed = || format!("`{}` is no vkey: it looks like <name>+<8 hex digits>+<base64>", text.trim_end());
        let mut parts = text.trim_end().splitn(3, '+');
        let (name, id, key) = (parts.next(), parts.next(), parts.next());
        let key = BASE64.decode(key.ok_or_else(malformed)?).map_err(|_| malformed())?;
        let (kind, public) = key.split_first().ok_or_else(malformed)?;
        let public = <[u8; 32]>::try_from(public).map_err(|_| malformed())?;
        let verifier = Verifier::new(name.ok_or_else(malformed)?, public)?;
        let fits = *kind == ED && id == Some(hex::encode(verifier.id).as_str());
        if fits { Ok(verifier) } else { Err(malformed()) }
    }

    /// The vkey.
    pub fn encoded(&self) -> String {
        let mut key = vec![ED];
        key.extend_from_slice(&self.public);
        format!("{}+{}+{}", self.name, hex::encode(self.id), BASE64.encode(key))
    }

    /// Verifies the signature of a checkpoint by this key, and returns its content. Signatures by other keys are skipped.
    pub fn open(&self, note: &str) -> Result<Checkpoint, String> {
        let (text, signatures) = split(note)?;
        let mut verified = false;
        for line in signatures.lines() {
            let (name, signature) = line
                .strip_prefix("\u{2014} ")
                .and_then(|rest| rest.split_once(' '))
                .ok_or("the checkpoint has a malformed signature line")?;
            let signature = BASE64.decode(signature).map_err(|_| "the checkpoint has a malformed signature".to_owned())?;
            let Some((id, signature)) = signature.split_at_checked(4) else {
                return Err("the checkpoint has a malformed signature".into());
            };
            if name == self.name && id == self.id {
                let key = UnparsedPublicKey::new(&ED25519, self.public);
                key.verify(text.as_bytes(), signature).map_err(|_| "the checkpoint's signature does not hold".to_owned())?;
                verified = true;
            }
        }
        if !verified {
            return Err(format!("the checkpoint is not signed by `{}`", self.name));
        }
        let checkpoint = Checkpoint::read(text)?;
        if checkpoint.origin == self.name { Ok(checkpoint) } else { Err(format!("the checkpoint is of `{}`", checkpoint.origin)) }
    }
}

/// The text of a note with its last line end, and its signature lines.
pub(super) fn split(note: &str) -> Result<(&str, &str), String> {
    let clean = !note.chars().any(|c| c.is_control() && c != '\n');
    let parts = note.rfind("\n\n").filter(|_| clean && note.ends_with('\n')).map(|at| (note.get(..=at), note.get(at + 2..)));
    match parts {
        Some((Some(text), Some(signatures))) if !signatures.is_empty() && signatures.lines().count() <= SIGNATURES => {
            Ok((text, signatures))
        }
        _ => Err("this is no signed note".into()),
    }
}

impl Checkpoint {
    fn read(text: &str) -> Result<Checkpoint, String> {
        let mut lines = text.lines();
        let (origin, size, root) = (lines.next(), lines.next(), lines.next());
        let malformed = || "the checkpoint is malformed".to_owned();
        let size = size.filter(|size| *size == "0" || !size.starts_with(['0', '+'])).and_then(|size| size.parse().ok());
        let root = root.and_then(|root| BASE64.decode(root).ok()).and_then(|root| Hash::try_from(root).ok());
        let origin = origin.filter(|origin| !origin.is_empty()).ok_or_else(malformed)?;
        Ok(Checkpoint { origin: origin.to_owned(), size: size.ok_or_else(malformed)?, root: root.ok_or_else(malformed)? })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_vector_of_the_standard_is_a_key_of_this_form() {
        let vkey = "example.com/foo+530d903a+AekyeRrm56hApGFkyQR4ZCbV54Id2LKaANYcrnKv3U2k";
        let verifier = Verifier::read(vkey).unwrap();
        assert_eq!(verifier.encoded(), vkey);
        let note = "This is an example message.\n\n\u{2014} example.com/foo Uw2QOkn8srV1yJGh2VYRlL1Tnagv1YEq6TfXppzi2ONncAlTgK7Ztg1ERYNZXsYjOBH3mFXmRKuwHjG1Yu72IneyaQM=\n";
        // The signature is valid, but the text is not a checkpoint.
        assert_eq!(verifier.open(note).unwrap_err(), "the checkpoint is malformed");
        let bad = note.replace("example message", "exemple message");
        assert_eq!(verifier.open(&bad).unwrap_err(), "the checkpoint's signature does not hold");
    }

    #[test]
    fn a_checkpoint_is_what_was_signed_and_nothing_else() {
        let signer = Signer::generate("prod.example.org/mayfly-history/0a1b2c3d").unwrap();
        let note = signer.sign(70_000, &[7; 32]);
        let opened = signer.verifier().open(&note).unwrap();
        assert_eq!((opened.size, opened.root), (70_000, [7; 32]));
        let again = Signer::read(signer.encoded()).unwrap();
        assert_eq!(again.sign(70_000, &[7; 32]), note);
        assert_eq!(Verifier::read(&signer.verifier().encoded()).unwrap(), *signer.verifier());
        // A flipped byte is refused, unless it is in a line that is ignored.
        let plain = note.as_bytes();
        for at in 0..plain.len() {
            let mut flipped = plain.to_vec();
            if let Some(byte) = flipped.get_mut(at) {
                *byte ^= 1;
            }
            let read = String::from_utf8(flipped).ok().and_then(|note| signer.verifier().open(&note).ok());
            assert!(read.is_none(), "byte {at}: {read:?}");
        }
        let other = Signer::generate("other").unwrap();
        assert!(other.verifier().open(&note).is_err());
        // A witness's line beside ours changes nothing.
        let cosigned = format!("{note}\u{2014} witness.example AAAAAAAA\n");
        assert_eq!(signer.verifier().open(&cosigned).unwrap().size, 70_000);
    }

    #[test]
    fn keys_and_names_that_are_malformed_are_refused() {
        assert!(Signer::generate("a b").is_err() && Signer::generate("a+b").is_err() && Signer::generate("").is_err());
        for text in ["", "x", "a+00000000+AA==", "PRIVATE+KEY+a+00000000+AA=="] {
            assert!(Verifier::read(text).is_err() && Signer::read(text).is_err(), "{text}");
        }
    }
}
