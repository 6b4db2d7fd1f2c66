//! Secrets of webhooks and bundles as the database has them: sealed, each for its row.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use shared::secrets::{Place, SecretColumn, Secrets};

use super::{Outgoing, Secret};

/// All columns that have secrets.
pub(crate) const SECRET_COLUMNS: &[SecretColumn] = &[WEBHOOK, OLD_WEBHOOK, BUNDLE, OLD_BUNDLE];
pub(crate) const WEBHOOK: SecretColumn =
    SecretColumn { table: "webhooks", key: "id", column: "secret" };
pub(crate) const OLD_WEBHOOK: SecretColumn =
    SecretColumn { table: "webhooks", key: "id", column: "old_secret" };
pub(crate) const BUNDLE: SecretColumn =
    SecretColumn { table: "http_bundles", key: "name", column: "secret" };
pub(crate) const OLD_BUNDLE: SecretColumn =
    SecretColumn { table: "http_bundles", key: "name", column: "old_secret" };

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
