//! Seals what is in the database, at the start: values in the clear, and values that an older key has sealed.

use anyhow::{Context as _, bail};

use super::{PREFIX, Place, Secrets, split};
use crate::{
    config::Config,
    store::{Column, ColumnValue, Error, Reader, Store, Tx, Value},
};

/// Rows that one transaction seals.
const STEP_ROWS: i64 = 100;

/// Column of secrets.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct SecretColumn {
    pub table: &'static str,
    /// Column of the row's key, which is text or a UUID.
    pub key: &'static str,
    pub column: &'static str,
}

/// Opens the keys of this process and seals all secrets of `columns` with the first one. Afterwards the tables are
/// rewritten, so that no page of the database keeps a copy in the clear.
///
/// Fails if a value was sealed by a key that is not there; then no new key is made, and nothing is changed.
pub async fn seal_all(
    config: &Config,
    store: &Store,
    columns: &'static [SecretColumn],
) -> anyhow::Result<Secrets> {
    let secrets = match Secrets::configured(&config.secrets)? {
        Some(secrets) => Some(secrets),
        None if store.is_embedded() => Secrets::in_folder(&config.data_dir)?,
        None => bail!(
            "set SECRETS_KEY: the secrets of webhooks and bundles are sealed with it in the database; \
             `openssl rand -base64 32` makes one, the same for every proc"
        ),
    };
    let names = store.read(move |reader| key_names(reader, columns)).await?;
    let unknown = names.iter().find(|name| {
        secrets.as_ref().is_none_or(|secrets| secrets.keys.iter().all(|key| key.name != **name))
    });
    if let Some(name) = unknown {
        bail!(
            "the database has secrets that the key {name} has sealed, and it is not among the keys: put it into SECRETS_KEY, \
             or bring `secrets.key` back into {}. No new key was made",
            config.data_dir.display()
        );
    }
    let secrets = match secrets {
        Some(secrets) => secrets,
        None => Secrets::make_in(&config.data_dir)?,
    };
    let mut sealed = 0;
    for column in columns {
        sealed += seal_column(store, &secrets, *column).await?;
    }
    let is_clean = store.read(|reader| {
        let sql = "SELECT 1 FROM secret_rewrites";
        Ok::<_, Error>(reader.find(sql, &[], |_| Ok(()))?.is_some())
    });
    if !is_clean.await? {
        rewrite(store, columns, sealed).await?;
    }
    Ok(secrets)
}

/// Writes the tables anew, without the pages that had secrets in the clear. Fails only if the note of it does: a database
/// that has no room for a second copy is served all the same, and rewritten at the next start.
async fn rewrite(
    store: &Store,
    columns: &'static [SecretColumn],
    sealed: usize,
) -> anyhow::Result<()> {
    let mut tables: Vec<&'static str> = columns.iter().map(|column| column.table).collect();
    tables.dedup();
    if let Err(error) = store.rewrite(tables).await {
        tracing::error!(
            error = format!("{error:#}"),
            "failed to rewrite the tables of secrets: copies in the clear may be left in the database's files until the next start"
        );
        return Ok(());
    }
    tracing::info!(sealed, "secrets are sealed and their tables rewritten");
    let sql = "INSERT INTO secret_rewrites (done_at) VALUES ($1) ON CONFLICT (done_at) DO NOTHING";
    let note = store.write(move |tx| tx.execute(sql, &[tx.now().into()]));
    note.await.map(drop).context("failed to note that secrets are sealed")
}

/// Returns the names of the keys that have sealed anything.
fn key_names(reader: &Reader<'_>, columns: &[SecretColumn]) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    for SecretColumn { table, column, .. } in columns {
        let length = PREFIX.len() + super::NAME_CHARS + 1;
        let sql = format!(
            "SELECT DISTINCT SUBSTR({column}, 1, {length}) FROM {table} WHERE {column} LIKE '{PREFIX}%'"
        );
        let found: Vec<String> = reader.query(&sql, &[], |row| row.get(0))?;
        names.extend(found.iter().filter_map(|value| Some(split(value)?.0.to_owned())));
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

/// Seals the values of a column that the first key has not sealed, some rows at a time. Returns how many.
async fn seal_column(
    store: &Store,
    secrets: &Secrets,
    column: SecretColumn,
) -> anyhow::Result<usize> {
    let SecretColumn { table, key, column: name } = column;
    let current = format!("{PREFIX}{}.%", secrets.keys[0].name);
    let mut sealed = 0;
    loop {
        let (secrets, current) = (secrets.clone(), current.clone());
        let step = move |tx: &mut Tx<'_>| {
            let sql = format!(
                "SELECT {key}, {name} FROM {table} WHERE {name} IS NOT NULL AND {name} NOT LIKE $1 ORDER BY {key} LIMIT $2"
            );
            let rows = tx.query(&sql, &[(&current).into(), STEP_ROWS.into()], |row| {
                Ok((row.get::<RowKey>(0)?, row.get::<String>(1)?))
            })?;
            let sql = format!("UPDATE {table} SET {name} = $2 WHERE {key} = $1 AND {name} = $3");
            for (key, value) in &rows {
                let text = key.to_string();
                let place = Place { column, row: &text };
                let secret = match split(value) {
                    None => value.clone().into(),
                    Some(_) => secrets.open(place, value).map_err(anyhow::Error::from)?,
                };
                let sealed = secrets.seal(place, &secret)?;
                tx.execute(&sql, &[key.value(), (&sealed).into(), value.into()])?;
            }
            Ok::<_, SealError>(rows.len())
        };
        let done = store.write(step).await.with_context(|| format!("{table}.{name}"))?;
        sealed += done;
        if done == 0 {
            return Ok(sealed);
        }
    }
}

/// Why a step did not seal.
#[derive(Debug, thiserror::Error)]
enum SealError {
    #[error(transparent)]
    Store(#[from] Error),
    #[error(transparent)]
    Key(#[from] anyhow::Error),
}

/// Key of a row, as both kinds of columns have it.
#[derive(Clone, Debug)]
enum RowKey {
    Text(String),
    Uuid(uuid::Uuid),
}

impl Column for RowKey {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        match value {
            ColumnValue::Text(text) => Some(Self::Text(text.to_owned())),
            value => uuid::Uuid::from_value(value).map(Self::Uuid),
        }
    }
}

impl RowKey {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Text(text) => text.into(),
            Self::Uuid(id) => Value::Uuid(*id),
        }
    }
}

impl std::fmt::Display for RowKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => text.fmt(f),
            Self::Uuid(id) => id.fmt(f),
        }
    }
}
