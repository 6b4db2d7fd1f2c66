//! Bundles behind a URL in the database.

use shared::{
    store::{self, Reader, Row, Tx, Value},
    time::Timestamp,
};
use uuid::Uuid;

use super::manifest::Manifest;
use crate::outgoing::{BUNDLE, Sealed};

const COLUMNS: &str = "name, revision, url, secret, manifest, updated_at";

/// A bundle as it was registered.
#[derive(Debug)]
pub(super) struct Registered {
    pub(super) name: String,
    /// New with every registration.
    pub(super) revision: Uuid,
    pub(super) url: reqwest::Url,
    pub(super) secret: Sealed,
    pub(super) manifest: Manifest,
    pub(super) updated_at: Timestamp,
}

/// Registers a bundle, or another in its place. Says whether there was one, `None` if neither has a secret.
pub(super) fn put(
    tx: &mut Tx<'_>,
    name: &str,
    url: &str,
    secret: Option<&Sealed>,
    manifest: &str,
) -> Result<Option<bool>, store::Error> {
    let revision = Value::Uuid(Uuid::now_v7());
    let now = tx.now();
    let secret = secret.map(Sealed::as_str);
    let replaced = tx.execute(
        "UPDATE http_bundles SET revision = $2, url = $3, secret = COALESCE($4, secret), manifest = $5, updated_at = $6 WHERE name = $1",
        &[name.into(), revision, url.into(), secret.into(), manifest.into(), now.into()],
    )?;
    if replaced > 0 {
        return Ok(Some(true));
    }
    let Some(secret) = secret else { return Ok(None) };
    tx.execute(
        "INSERT INTO http_bundles (name, revision, url, secret, manifest, updated_at) VALUES ($1, $2, $3, $4, $5, $6)",
        &[name.into(), revision, url.into(), secret.into(), manifest.into(), now.into()],
    )?;
    Ok(Some(false))
}

/// Forgets a bundle and says whether there was one.
pub(super) fn delete(tx: &mut Tx<'_>, name: &str) -> Result<bool, store::Error> {
    Ok(tx.execute("DELETE FROM http_bundles WHERE name = $1", &[name.into()])? > 0)
}

pub(super) fn find(reader: &Reader<'_>, name: &str) -> Result<Option<Registered>, store::Error> {
    let sql = format!("SELECT {COLUMNS} FROM http_bundles WHERE name = $1");
    reader.find(&sql, &[name.into()], read)
}

/// Returns every bundle, by name.
pub(super) fn list(reader: &Reader<'_>) -> Result<Vec<Registered>, store::Error> {
    reader.query(&format!("SELECT {COLUMNS} FROM http_bundles ORDER BY name"), &[], read)
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
        name,
    })
}
