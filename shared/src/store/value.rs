//! What goes into a statement and comes out of a row: the few types that `SQLite` and `PostgreSQL` share.

use uuid::Uuid;

use super::Error;
use crate::time::Timestamp;

/// A parameter of a statement.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// SQL `NULL`.
    Null,
    /// `BIGINT`; also times, in milliseconds, and booleans.
    Int(i64),
    /// `TEXT`; also JSON.
    Text(&'a str),
    /// `UUID`.
    Uuid(Uuid),
    /// `BYTEA`.
    Bytes(&'a [u8]),
}

impl From<i64> for Value<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<bool> for Value<'_> {
    fn from(value: bool) -> Self {
        Self::Int(value.into())
    }
}

impl From<Timestamp> for Value<'_> {
    fn from(value: Timestamp) -> Self {
        Self::Int(value.as_ms())
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(value: &'a str) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a String> for Value<'a> {
    fn from(value: &'a String) -> Self {
        Self::Text(value)
    }
}

impl<'a> From<&'a [u8]> for Value<'a> {
    fn from(value: &'a [u8]) -> Self {
        Self::Bytes(value)
    }
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A column's value as the database gives it; a `UUID` is its bytes.
#[derive(Copy, Clone, Debug)]
pub enum ColumnValue<'a> {
    Null,
    Int(i64),
    Text(&'a str),
    Bytes(&'a [u8]),
}

/// A type that a column can be read as.
pub trait Column: Sized {
    /// Returns `None` if the value is not of this type.
    fn from_value(value: ColumnValue<'_>) -> Option<Self>;
}

impl Column for i64 {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        let ColumnValue::Int(value) = value else { return None };
        Some(value)
    }
}

impl Column for bool {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        i64::from_value(value).map(|value| value != 0)
    }
}

impl Column for Timestamp {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        i64::from_value(value).map(Self::from_ms)
    }
}

impl Column for String {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        let ColumnValue::Text(value) = value else { return None };
        Some(value.to_owned())
    }
}

impl Column for Uuid {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        let ColumnValue::Bytes(value) = value else { return None };
        Self::from_slice(value).ok()
    }
}

impl Column for Vec<u8> {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        let ColumnValue::Bytes(value) = value else { return None };
        Some(value.to_vec())
    }
}

impl<T: Column> Column for Option<T> {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        match value {
            ColumnValue::Null => Some(None),
            value => T::from_value(value).map(Some),
        }
    }
}

/// One row of an answer.
#[derive(Debug)]
pub struct Row<'a>(pub(super) Home<'a>);

/// Whose row it is.
#[derive(Debug)]
pub(super) enum Home<'a> {
    Sqlite(&'a rusqlite::Row<'a>),
    Postgres(&'a tokio_postgres::Row),
}

impl Row<'_> {
    fn value(&self, index: usize) -> Result<ColumnValue<'_>, Error> {
        match self.0 {
            Home::Sqlite(row) => super::sqlite::column(row, index),
            Home::Postgres(row) => super::postgres::column(row, index),
        }
    }

    /// Returns the column at `index`, counted from zero.
    pub fn get<T: Column>(&self, index: usize) -> Result<T, Error> {
        T::from_value(self.value(index)?).ok_or(Error::Column { column: index })
    }

    /// Returns the column at `index` parsed from its text.
    pub fn parse<T: std::str::FromStr>(&self, index: usize) -> Result<T, Error> {
        self.get::<String>(index)?.parse().map_err(|_| Error::Column { column: index })
    }

    /// Returns the column at `index` read as JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self, index: usize) -> Result<T, Error> {
        let ColumnValue::Text(text) = self.value(index)? else {
            return Err(Error::Column { column: index });
        };
        serde_json::from_str(text).map_err(|_| Error::Column { column: index })
    }
}

/// Returns the update of one row, whose key is the first of `columns`.
pub(super) fn update(table: &str, columns: &[&str]) -> String {
    let numbered = columns.iter().zip(1..).skip(1);
    let set: Vec<String> =
        numbered.map(|(column, number)| format!("{column} = ${number}")).collect();
    let key = columns.first().copied().unwrap_or_default();
    format!("UPDATE {table} SET {} WHERE {key} = $1", set.join(", "))
}
