//! Secrets of webhooks and bundles as the database has them: sealed, each for its row.

use std::{cmp::Reverse, fmt};

use secrecy::zeroize::Zeroizing;
use shared::{
    secrets::{Place, SecretColumn, Secrets},
    store::{Error, Row},
    time::Timestamp,
};

use super::{Outgoing, Secret};

/// All columns that have secrets.
pub(crate) const SECRET_COLUMNS: &[SecretColumn] = &[
    WEBHOOK,
    OLD_WEBHOOK[0],
    OLD_WEBHOOK[1],
    OLD_WEBHOOK[2],
    BUNDLE,
    OLD_BUNDLE[0],
    OLD_BUNDLE[1],
    OLD_BUNDLE[2],
];
pub(crate) const WEBHOOK: SecretColumn =
    SecretColumn { table: "webhooks", key: "id", column: "secret" };
pub(crate) const OLD_WEBHOOK: [SecretColumn; MAX_OLD_SECRETS] = old_columns(WEBHOOK);
pub(crate) const BUNDLE: SecretColumn =
    SecretColumn { table: "http_bundles", key: "name", column: "secret" };
pub(crate) const OLD_BUNDLE: [SecretColumn; MAX_OLD_SECRETS] = old_columns(BUNDLE);

/// Replaced secrets of a row that can be good at once.
const MAX_OLD_SECRETS: usize = 3;
/// Columns of the times until which replaced secrets are good.
pub(crate) const OLD_UNTIL: [&str; MAX_OLD_SECRETS] = ["old_until", "old_until_2", "old_until_3"];

/// Returns the columns of the replaced secrets beside a secret.
const fn old_columns(current: SecretColumn) -> [SecretColumn; MAX_OLD_SECRETS] {
    [
        SecretColumn { column: "old_secret", ..current },
        SecretColumn { column: "old_secret_2", ..current },
        SecretColumn { column: "old_secret_3", ..current },
    ]
}

/// Replaced secrets of a row in the order of their columns, each with the time until which it is good.
#[derive(Debug)]
pub(crate) struct OldSecrets([Option<(Sealed, Timestamp)>; MAX_OLD_SECRETS]);

impl OldSecrets {
    /// Reads pairs of a secret and its time, the first of them at `first`.
    pub(crate) fn read(
        row: &Row<'_>,
        first: usize,
        columns: [SecretColumn; MAX_OLD_SECRETS],
        key: impl fmt::Display,
    ) -> Result<Self, Error> {
        let mut secrets = [const { None }; MAX_OLD_SECRETS];
        for (number, column) in columns.into_iter().enumerate() {
            let index = first + 2 * number;
            let text: Option<String> = row.get(index)?;
            let sealed = text.map(|text| Sealed::new(column, &key, text));
            secrets[number] = sealed.zip(row.get(index + 1)?);
        }
        Ok(Self(secrets))
    }

    /// Returns the secrets that are good, the one that was replaced last first.
    pub(crate) fn good(&self, now: Timestamp) -> impl Iterator<Item = &Sealed> {
        let mut good: Vec<_> = self.0.iter().flatten().filter(|(_, until)| *until > now).collect();
        good.sort_by_key(|(_, until)| Reverse(*until));
        good.into_iter().map(|(sealed, _)| sealed)
    }

    /// Returns the number of a column whose secret is not good any more. If there is none, returns the time of the first one.
    pub(crate) fn free(&self, now: Timestamp) -> Result<usize, Timestamp> {
        let is_free =
            |old: &Option<(Sealed, Timestamp)>| old.as_ref().is_none_or(|(_, until)| *until <= now);
        let first = self.0.iter().flatten().map(|(_, until)| *until).min();
        self.0.iter().position(is_free).ok_or(first.unwrap_or(now))
    }

    /// Returns the number of the column that has this secret.
    pub(crate) fn position(&self, outgoing: &Outgoing, secret: &Secret) -> Option<usize> {
        let is_same = |(sealed, _): &(Sealed, Timestamp)| outgoing.is(sealed, secret);
        self.0.iter().position(|old| old.as_ref().is_some_and(is_same))
    }

    /// Returns the time until which the secret is good that was replaced last.
    pub(crate) fn until(&self) -> Option<Timestamp> {
        self.0.iter().flatten().map(|(_, until)| *until).max()
    }
}

/// A secret as it was read, which [`Outgoing::open`] opens.
#[derive(Clone)]
pub(crate) struct Sealed {
    column: SecretColumn,
    row: String,
    text: String,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealed")
    }
}

impl Sealed {
    pub(crate) fn new(column: SecretColumn, row: impl fmt::Display, text: String) -> Self {
        Self { column, row: row.to_string(), text }
    }

    /// Seals a secret for a row.
    pub(crate) fn seal(
        secrets: &Secrets,
        column: SecretColumn,
        row: impl fmt::Display,
        secret: &str,
    ) -> anyhow::Result<Self> {
        let row = row.to_string();
        let text = secrets.seal(Place { column, row: &row }, secret)?;
        Ok(Self { column, row, text })
    }

    /// Returns the text for the database.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the secret in the clear, `None` if it cannot be opened, which is logged.
    fn open(&self, secrets: &Secrets) -> Option<Zeroizing<String>> {
        let Self { column: SecretColumn { table, column, .. }, row, text } = self;
        let place = Place { column: self.column, row };
        secrets
            .open(place, text)
            .inspect_err(
                |error| tracing::error!(%error, table, column, row, "failed to open a secret"),
            )
            .ok()
    }
}

impl Outgoing {
    /// Returns whether a sealed secret is this one.
    pub(crate) fn is(&self, sealed: &Sealed, secret: &Secret) -> bool {
        self.open(sealed).is_some_and(|opened| opened.text() == secret.text())
    }

    /// Opens a secret, `None` if no key opens it.
    pub(crate) fn open(&self, sealed: &Sealed) -> Option<Secret> {
        sealed.open(&self.secrets)?.parse().ok()
    }

    /// Seals a secret for a row.
    pub(crate) fn seal(
        &self,
        column: SecretColumn,
        row: impl fmt::Display,
        secret: &str,
    ) -> anyhow::Result<Sealed> {
        Sealed::seal(&self.secrets, column, row, secret)
    }

    /// Seals what is sealed in one column of a row for another column of it.
    pub(crate) fn reseal(&self, sealed: &Sealed, column: SecretColumn) -> Option<Sealed> {
        let secret = sealed.open(&self.secrets)?;
        Sealed::seal(&self.secrets, column, &sealed.row, &secret).ok()
    }
}
