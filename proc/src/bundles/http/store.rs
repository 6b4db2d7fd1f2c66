//! Bundles behind a URL in the database.

use std::time::Duration;

use shared::{
    secrets::SecretColumn,
    store::{self, Reader, Row, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::manifest::Manifest;
use crate::outgoing::{BUNDLE, OLD_BUNDLE, OLD_UNTIL, OldSecrets, Outgoing, Sealed, Secret};

const COLUMNS: &str = "name, revision, url, secret, manifest, updated_at, deleted_at, old_secret, old_until, old_secret_2, old_until_2, \
     old_secret_3, old_until_3";

/// Time for which a secret that was replaced is good, and for which a bundle that was deleted is kept.
pub(super) const GRACE: Duration = Duration::from_hours(24);

/// A bundle as it was registered.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) name: String,
    /// New with every registration.
    pub(super) revision: Uuid,
    pub(super) url: reqwest::Url,
    secret: Sealed,
    /// Secrets before it that may still be good.
    old_secrets: OldSecrets,
    pub(super) manifest: Manifest,
    pub(super) updated_at: Timestamp,
    deleted_at: Option<Timestamp>,
}

impl Registered {
    /// Returns the secrets that are good now, the current one first.
    pub(super) fn secrets(&self, now: Timestamp) -> Vec<&Sealed> {
        if self.deleted_at.is_some_and(|deleted| deleted.after(GRACE) <= now) {
            return Vec::new();
        }
        std::iter::once(&self.secret).chain(self.old_secrets.good(now)).collect()
    }

    /// Returns until when the secret before is good, if there is one.
    pub(super) fn old_secret_until(&self) -> Option<Timestamp> {
        self.old_secrets.until()
    }
}

/// A registration that is to be written.
pub(super) struct NewBundle<'a> {
    pub(super) name: &'a str,
    pub(super) url: &'a str,
    pub(super) secret: Option<&'a Secret>,
    pub(super) manifest: &'a str,
}

/// Outcome of a registration.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Put {
    Created,
    Replaced,
    /// A new bundle came without a secret.
    NoSecret,
}

/// Why a registration was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum PutError {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Seal(#[from] anyhow::Error),
    /// As many replaced secrets as are kept are still good, the first one until this time.
    #[error("too many replaced secrets are still good")]
    TooManySecrets(Timestamp),
}

/// Registers a bundle, or another in its place. Each secret that is replaced by another stays good for a day, also that of a
/// bundle which was deleted meanwhile.
pub(super) fn put(
    tx: &mut Tx<'_>,
    outgoing: &Outgoing,
    new: &NewBundle<'_>,
) -> Result<Put, PutError> {
    let (name, now) = (new.name, tx.now());
    // A request that replaces a secret must see the replacement before.
    let lock = "UPDATE http_bundles SET updated_at = updated_at WHERE name = $1";
    tx.execute(lock, &[name.into()])?;
    let before = find_kept(tx, name)?;
    let put = match &before {
        Some(before) if before.deleted_at.is_none() => Put::Replaced,
        _ if new.secret.is_none() => return Ok(Put::NoSecret),
        _ => Put::Created,
    };
    let is_new = |secret: &&Secret| {
        before.as_ref().is_none_or(|before| !outgoing.is(&before.secret, secret))
    };
    let sealed =
        new.secret.filter(is_new).map(|secret| outgoing.seal(BUNDLE, name, &secret.text()));
    let sealed = sealed.transpose()?;
    let (mut number, mut replaced) = (0, None);
    if let (Some(before), Some(secret), true) = (&before, new.secret, sealed.is_some()) {
        // A secret that comes back makes room for the one that it replaces.
        number = match before.old_secrets.position(outgoing, secret) {
            Some(number) => number,
            None => before.old_secrets.free(now).map_err(PutError::TooManySecrets)?,
        };
        let until = before.deleted_at.unwrap_or(now).after(GRACE);
        replaced = outgoing.reseal(&before.secret, OLD_BUNDLE[number]).map(|old| (old, until));
    }
    let (old, until) = replaced.unzip();
    let (old, secret) = (old.as_ref().map(Sealed::as_str), sealed.as_ref().map(Sealed::as_str));
    let params = [
        name.into(),
        Value::Uuid(Uuid::now_v7()),
        new.url.into(),
        secret.into(),
        new.manifest.into(),
        now.into(),
        old.into(),
        until.into(),
    ];
    let (old, until) = (OLD_BUNDLE[number].column, OLD_UNTIL[number]);
    let sql = if before.is_some() {
        format!(
            "UPDATE http_bundles SET revision = $2, url = $3, secret = COALESCE($4, secret), manifest = $5, updated_at = $6, \
             {old} = COALESCE($7, {old}), {until} = COALESCE($8, {until}), deleted_at = NULL WHERE name = $1"
        )
    } else {
        format!(
            "INSERT INTO http_bundles (name, revision, url, secret, manifest, updated_at, {old}, {until}) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)"
        )
    };
    tx.execute(&sql, &params)?;
    Ok(put)
}

/// Deletes a bundle and returns whether there was one. Its row is kept for a day, for calls that are out.
pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> Result<bool, store::Error> {
    let sql = "UPDATE http_bundles SET deleted_at = $2, revision = $3 WHERE name = $1 AND deleted_at IS NULL";
    let revision = Value::Uuid(Uuid::now_v7());
    Ok(tx.execute(sql, &[name.into(), tx.now().into(), revision])? > 0)
}

/// Returns whether there are secrets or bundles that are kept for longer than a day.
pub(super) fn has_expired(reader: &Reader<'_>) -> Result<bool, store::Error> {
    let now = reader.now();
    let sql = "SELECT 1 FROM http_bundles WHERE old_until <= $1 OR old_until_2 <= $1 OR old_until_3 <= $1 \
               OR deleted_at <= $2 LIMIT 1";
    let params = [now.into(), now.before(GRACE).into()];
    Ok(reader.find(sql, &params, |_| Ok(()))?.is_some())
}

/// Forgets old secrets and deleted bundles after their day.
pub(super) fn expire(tx: &mut Tx<'_>) -> Result<(), store::Error> {
    let now = tx.now();
    for (SecretColumn { column, .. }, until) in OLD_BUNDLE.into_iter().zip(OLD_UNTIL) {
        let sql =
            format!("UPDATE http_bundles SET {column} = NULL, {until} = NULL WHERE {until} <= $1");
        tx.execute(&sql, &[now.into()])?;
    }
    let sql = "DELETE FROM http_bundles WHERE deleted_at <= $1";
    tx.execute(sql, &[now.before(GRACE).into()])?;
    Ok(())
}

/// Returns the names of the bundles that were deleted in the last day.
pub(super) fn deleted(reader: &Reader<'_>) -> Result<Vec<String>, store::Error> {
    let sql = "SELECT name FROM http_bundles WHERE deleted_at IS NOT NULL ORDER BY name";
    reader.query(sql, &[], |row| row.get(0))
}

pub(super) fn find(reader: &Reader<'_>, name: &str) -> Result<Option<Registered>, store::Error> {
    let found = find_kept(reader, name)?;
    Ok(found.filter(|bundle| bundle.deleted_at.is_none()))
}

/// Returns a bundle, also one that was deleted in the last day.
pub(super) fn find_kept(
    reader: &Reader<'_>,
    name: &str,
) -> Result<Option<Registered>, store::Error> {
    let sql = format!("SELECT {COLUMNS} FROM http_bundles WHERE name = $1");
    reader.find(&sql, &[name.into()], read)
}

/// Returns every bundle, by name.
pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Registered>, store::Error> {
    let sql = format!("SELECT {COLUMNS} FROM http_bundles WHERE deleted_at IS NULL ORDER BY name");
    reader.query(&sql, &[], read)
}

fn read(row: &Row<'_>) -> Result<Registered, store::Error> {
    let unexpected = |column| store::Error::Column { column };
    let name: String = row.get(0)?;
    Ok(Registered {
        revision: row.get(1)?,
        url: row.get::<String>(2)?.parse().map_err(|_| unexpected(2))?,
        secret: Sealed::new(BUNDLE, &name, row.get(3)?),
        manifest: row.json(4)?,
        updated_at: row.get(5)?,
        old_secrets: OldSecrets::read(row, 7, OLD_BUNDLE, &name)?,
        deleted_at: row.get(6)?,
        name,
    })
}

#[cfg(test)]
mod tests {
    use cluster::{on_both_stores, scratch::Home};
    use shared::{bus::Bus, store::Store};

    use super::*;

    on_both_stores!(old_secrets_and_deleted_bundles_are_kept_for_a_day_and_no_longer);

    async fn old_secrets_and_deleted_bundles_are_kept_for_a_day_and_no_longer(home: Home) {
        let (folder, bus) = (tempfile::tempdir().unwrap(), Bus::default());
        let store = match home.url() {
            Some(url) => Store::connect(&url, &bus, None).unwrap(),
            None => Store::open(folder.path(), &bus).unwrap(),
        };
        let now = store.now();
        let (soon, past) = (now.after(GRACE / 2), now.before(GRACE * 2));
        for (name, old_until, deleted_at) in [
            ("rotated", Some(soon), None),
            ("rotated_long_ago", Some(past), None),
            ("deleted", None, Some(now)),
            ("deleted_long_ago", None, Some(past)),
        ] {
            let insert = move |tx: &mut Tx<'_>| {
                let manifest = r#"{"version": "1", "description": "d", "operations": []}"#;
                let sql = "INSERT INTO http_bundles (name, revision, url, secret, manifest, updated_at, old_secret, \
                           old_until, deleted_at) VALUES ($1, $2, 'https://h/', 'new', $3, 0, $4, $5, $6)";
                let old = old_until.map(|_| "old");
                let revision = Value::Uuid(Uuid::now_v7());
                let params = [
                    name.into(),
                    revision,
                    manifest.into(),
                    old.into(),
                    old_until.into(),
                    deleted_at.into(),
                ];
                tx.execute(sql, &params)
            };
            assert_eq!(store.write(insert).await.unwrap(), 1);
        }
        let good = async |name: &'static str| {
            let found = store.read(move |reader| find_kept(reader, name)).await;
            let found: Option<Registered> = found.map_err(|error: store::Error| error).unwrap();
            found.map(|bundle| bundle.secrets(now).len())
        };
        // The clock decides, whether or not anything was tidied.
        assert_eq!(good("rotated_long_ago").await, Some(1), "an old secret is good for ever");
        assert_eq!(good("deleted_long_ago").await, Some(0), "a deleted bundle is known for ever");
        assert!(store.read(has_expired).await.unwrap());
        store.write(expire).await.unwrap();
        assert!(!store.read(has_expired).await.unwrap(), "it is tidied for ever");
        assert_eq!(good("rotated").await, Some(2));
        assert_eq!(good("rotated_long_ago").await, Some(1));
        assert_eq!(good("deleted").await, Some(1));
        assert_eq!(good("deleted_long_ago").await, None);
        let live: Vec<Registered> = store.read(list).await.unwrap();
        let live: Vec<&str> = live.iter().map(|bundle| &*bundle.name).collect();
        assert_eq!(live, ["rotated", "rotated_long_ago"]);
    }
}
