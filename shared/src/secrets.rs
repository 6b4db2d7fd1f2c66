//! Secrets at rest: sealed with a key that is not in the database.
//!
//! A sealed value is `sealed.v1.<key>.<base64>`, where `<key>` names the key and the rest is nonce, ciphertext and tag of
//! AES-256-GCM. The place of the value is authenticated with it: a value that is copied into another row does not open.

mod at_rest;

use std::{
    fmt,
    fs::{self, File},
    io::Write as _,
    path::Path,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rand::{TryRng as _, rngs::SysRng};
use secrecy::{
    ExposeSecret as _, SecretString,
    zeroize::{Zeroize as _, Zeroizing},
};
use sha2::{Digest as _, Sha256};

pub use self::at_rest::{SecretColumn, seal_all};

/// Prefix of every sealed value; no secret in the clear has it.
const PREFIX: &str = "sealed.v1.";
const KEY_BYTES: usize = 32;
/// Characters of a key's name.
const NAME_CHARS: usize = 8;
/// File of the key that is made at the first start, in the data folder.
const KEY_FILE: &str = "secrets.key";

/// Settings of secrets at rest.
#[derive(Clone, Debug, clap::Args)]
#[group(skip)]
pub struct SecretsConfig {
    /// Keys that the secrets of webhooks and bundles are sealed with in the database, each 32 bytes in base64, comma separated: the first seals, all open. Without it, a key in `secrets.key` of the data folder, made at the first start; on PostgreSQL it has to be set. `openssl rand -base64 32` makes one.
    #[arg(long, env = "SECRETS_KEY", hide_env_values = true)]
    pub secrets_key: Option<SecretString>,
}

/// Keys of secrets at rest; a clone has the same ones.
#[derive(Clone)]
pub struct Secrets {
    /// The first one seals.
    keys: Arc<[Key]>,
}

struct Key {
    name: String,
    key: RandomizedNonceKey,
}

/// Place of a secret in the database.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Table and column.
    pub column: SecretColumn,
    /// Key of the row.
    pub row: &'a str,
}

/// Why a value does not open.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotOpened {
    #[error("a secret in the database is not sealed")]
    InTheClear,
    #[error("no key of SECRETS_KEY has sealed it")]
    NoKey,
    #[error("it was changed, or belongs to another row")]
    Forged,
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.keys.iter().map(|key| &*key.name).collect();
        f.debug_struct("Secrets").field("keys", &names).finish()
    }
}

impl Secrets {
    /// Reads the keys of the setting.
    pub fn configured(config: &SecretsConfig) -> anyhow::Result<Option<Self>> {
        let keys = config.secrets_key.as_ref().map(|keys| Self::parse(keys.expose_secret()));
        keys.transpose().context("SECRETS_KEY")
    }

    /// Reads the key file of an embedded database's folder, `None` if there is none.
    pub fn in_folder(folder: &Path) -> anyhow::Result<Option<Self>> {
        let path = folder.join(KEY_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Self::parse(&text).map(Some).with_context(|| path.display().to_string())
    }

    /// Makes the key file of an embedded database's folder, which its owner alone may read.
    pub fn make_in(folder: &Path) -> anyhow::Result<Self> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        SysRng.try_fill_bytes(&mut *key).context("the system has no randomness")?;
        let text = Zeroizing::new(format!("{}\n", BASE64_STANDARD.encode(*key)));
        let (path, part) = (folder.join(KEY_FILE), folder.join(format!("{KEY_FILE}.part")));
        let write = || {
            let mut file = private(&part)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &path)?;
            File::open(folder)?.sync_all()
        };
        write().with_context(|| format!("failed to write {}", path.display()))?;
        tracing::info!(file = %path.display(), "made a key for secrets; keep it, and keep it out of backups of the database");
        Self::parse(&text)
    }

    /// Returns a key that nothing else has, for tests.
    pub fn random() -> anyhow::Result<Self> {
        Self::parse(&BASE64_STANDARD.encode(rand::random::<[u8; KEY_BYTES]>()))
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        let keys = text.split(',').map(str::trim).filter(|key| !key.is_empty());
        let keys = keys.map(Key::parse).collect::<anyhow::Result<Arc<[Key]>>>()?;
        ensure!(!keys.is_empty(), "names no key; `openssl rand -base64 32` makes one");
        Ok(Self { keys })
    }

    /// Seals a secret for its place.
    pub fn seal(&self, place: Place<'_>, secret: &str) -> anyhow::Result<String> {
        let key = &self.keys[0];
        let mut sealed = secret.as_bytes().to_vec();
        let nonce = key.key.seal_in_place_append_tag(place.aad(), &mut sealed);
        let Ok(nonce) = nonce else {
            sealed.zeroize();
            bail!("a secret could not be sealed");
        };
        let bytes = [nonce.as_ref().as_slice(), &sealed].concat();
        Ok(format!("{PREFIX}{}.{}", key.name, BASE64_STANDARD.encode(bytes)))
    }

    /// Opens the secret of a place.
    pub fn open(&self, place: Place<'_>, sealed: &str) -> Result<Zeroizing<String>, NotOpened> {
        let (name, text) = split(sealed).ok_or(NotOpened::InTheClear)?;
        let key = self.keys.iter().find(|key| key.name == name).ok_or(NotOpened::NoKey)?;
        let bytes = BASE64_STANDARD.decode(text).map_err(|_| NotOpened::Forged)?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>().ok_or(NotOpened::Forged)?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let opened = key.key.open_in_place(nonce, place.aad(), &mut bytes);
        let opened = opened.map_err(|_| NotOpened::Forged)?;
        let text = std::str::from_utf8(opened).map_err(|_| NotOpened::Forged)?;
        Ok(Zeroizing::new(text.to_owned()))
    }
}

/// Returns the key's name and the rest of a sealed value, `None` of a value in the clear.
fn split(value: &str) -> Option<(&str, &str)> {
    value.strip_prefix(PREFIX)?.split_once('.')
}

impl Key {
    /// Reads a key. Errors never show it.
    fn parse(text: &str) -> anyhow::Result<Self> {
        let bytes = BASE64_STANDARD.decode(text).map(Zeroizing::new).ok();
        let bytes = bytes.filter(|bytes| bytes.len() == KEY_BYTES);
        let bytes =
            bytes.context("a key is 32 bytes in base64; `openssl rand -base64 32` makes one")?;
        let digest = Sha256::new().chain_update("parley secrets key name").chain_update(&*bytes);
        let digest = digest.finalize();
        let (start, _) = digest.split_at(NAME_CHARS / 2);
        let name = start.iter().fold(String::new(), |name, byte| name + &format!("{byte:02x}"));
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes);
        let key = key.map_err(|_| anyhow::anyhow!("the key cannot be used"))?;
        Ok(Self { name, key })
    }
}

impl Place<'_> {
    fn aad(self) -> Aad<Vec<u8>> {
        let SecretColumn { table, column, .. } = self.column;
        Aad::from(format!("parley secret\0{table}\0{column}\0{}", self.row).into_bytes())
    }
}

/// Makes a file, or empties it, that its owner alone may read.
fn private(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const COLUMN: SecretColumn = SecretColumn { table: "webhooks", key: "id", column: "secret" };
    const PLACE: Place<'_> = Place { column: COLUMN, row: "one" };

    #[test]
    fn a_secret_opens_in_its_place_with_its_key_and_nowhere_else() {
        let secrets = Secrets::random().unwrap();
        let sealed = secrets.seal(PLACE, "whsec_abc").unwrap();
        assert!(!sealed.contains("abc"), "{sealed}");
        assert_ne!(sealed, secrets.seal(PLACE, "whsec_abc").unwrap(), "nonces repeat");
        assert_eq!(*secrets.open(PLACE, &sealed).unwrap(), "whsec_abc");
        for other in [
            Place { row: "two", ..PLACE },
            Place { column: SecretColumn { column: "old_secret", ..COLUMN }, ..PLACE },
            Place { column: SecretColumn { table: "http_bundles", ..COLUMN }, ..PLACE },
        ] {
            assert_eq!(secrets.open(other, &sealed).unwrap_err(), NotOpened::Forged, "{other:?}");
        }
        let other = Secrets::random().unwrap();
        assert_eq!(other.open(PLACE, &sealed).unwrap_err(), NotOpened::NoKey);
        assert_eq!(secrets.open(PLACE, "whsec_abc").unwrap_err(), NotOpened::InTheClear);
        let (head, text) = sealed.rsplit_once('.').unwrap();
        let mut bytes = BASE64_STANDARD.decode(text).unwrap();
        for index in 0..bytes.len() {
            bytes[index] ^= 1;
            let forged = format!("{head}.{}", BASE64_STANDARD.encode(&bytes));
            assert_eq!(secrets.open(PLACE, &forged).unwrap_err(), NotOpened::Forged, "{index}");
            bytes[index] ^= 1;
        }
        assert_eq!(secrets.open(PLACE, &format!("{head}.")).unwrap_err(), NotOpened::Forged);
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let key = || BASE64_STANDARD.encode(rand::random::<[u8; KEY_BYTES]>());
        let (old, new) = (key(), key());
        let before = Secrets::parse(&old).unwrap();
        let both = Secrets::parse(&format!("{new}, {old}")).unwrap();
        let sealed = before.seal(PLACE, "x").unwrap();
        assert_eq!(*both.open(PLACE, &sealed).unwrap(), "x");
        let again = both.seal(PLACE, "x").unwrap();
        assert_eq!(before.open(PLACE, &again).unwrap_err(), NotOpened::NoKey);
    }

    #[test]
    fn a_bad_setting_is_refused_without_being_shown() {
        for text in ["", ",", "c2hvcnQ=", "not base64 at all, whatever it is", &"A".repeat(44)] {
            let refused = format!("{:#}", Secrets::parse(text).unwrap_err());
            assert!(refused.contains("openssl rand -base64 32"), "{refused}");
            assert!(text.len() < 3 || !refused.contains(text), "{refused}");
        }
    }

    #[test]
    fn the_key_of_a_folder_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Secrets::in_folder(folder.path()).unwrap().is_none());
        let sealed = Secrets::make_in(folder.path()).unwrap().seal(PLACE, "x").unwrap();
        let again = Secrets::in_folder(folder.path()).unwrap().unwrap();
        assert_eq!(*again.open(PLACE, &sealed).unwrap(), "x");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(folder.path().join(KEY_FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
