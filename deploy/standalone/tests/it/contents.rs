//! Contents of a database as a test reads them: every row of every table, and every entry of every topic, unpacked.

use std::{fmt::Write as _, path::Path};

use shared::{
    bus::Bus,
    journal::Topic,
    store::{Column, ColumnValue, Error, Reader, Store},
};

/// A value of any type, as text.
struct Any(String);

impl Column for Any {
    fn from_value(value: ColumnValue<'_>) -> Option<Self> {
        Some(Self(match value {
            ColumnValue::Null => "NULL".into(),
            ColumnValue::Int(number) => number.to_string(),
            ColumnValue::Text(text) => text.to_owned(),
            ColumnValue::Bytes(bytes) => {
                let mut hex = String::new();
                for byte in bytes {
                    let _ = write!(hex, "{byte:02x}");
                }
                format!("{hex} {}", String::from_utf8_lossy(bytes))
            }
        }))
    }
}

/// A database that no process uses any more.
pub(crate) struct Contents {
    /// Each row as the name of its table and the text of its columns.
    pub(crate) rows: Vec<(String, String)>,
}

impl Contents {
    /// Reads the database of a Parley that has ended.
    pub(crate) async fn read(folder: &Path) -> Self {
        let store = Store::open(folder, &Bus::default()).expect("nobody uses the database");
        let rows = store.read(read).await.expect("the database can be read");
        Self { rows }
    }

    /// Returns the rows that have a text.
    pub(crate) fn having(&self, text: &str) -> Vec<&(String, String)> {
        self.rows.iter().filter(|(_, row)| row.contains(text)).collect()
    }

    /// Returns how many rows a table has.
    pub(crate) fn count(&self, table: &str) -> usize {
        self.rows.iter().filter(|(name, _)| name == table).count()
    }
}

fn read(reader: &Reader<'_>) -> Result<Vec<(String, String)>, Error> {
    let mut rows = Vec::new();
    let tables = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
    for table in reader.query(tables, &[], |row| row.get::<String>(0))? {
        let columns = format!("SELECT name FROM pragma_table_info('{table}')");
        let columns = reader.query(&columns, &[], |row| row.get::<String>(0))?;
        let sql = format!("SELECT {} FROM {table}", columns.join(", "));
        rows.extend(reader.query(&sql, &[], |row| {
            let values: Result<Vec<String>, Error> =
                (0..columns.len()).map(|column| Ok(row.get::<Any>(column)?.0)).collect();
            Ok((table.clone(), values?.join(" | ")))
        })?);
    }
    let sql = "SELECT name FROM topics";
    let topics = reader.query(sql, &[], |row| row.get::<String>(0))?;
    for topic in topics {
        rows.extend(entries(reader, &topic)?);
    }
    Ok(rows)
}

/// Returns every entry of a topic, unpacked, as rows of `unpacked`.
fn entries(reader: &Reader<'_>, name: &str) -> Result<Vec<(String, String)>, Error> {
    let topic = match name.split_once('/') {
        Some(("project", id)) => Topic::project(id.parse().expect("an id")),
        Some(("user", id)) => Topic::user(&id.parse().expect("an id")),
        Some(("answer", id)) => Topic::answer(id.parse().expect("an id")),
        Some(("replica", id)) => Topic::replica(id.parse().expect("an id")),
        _ if name == "jobs" => Topic::jobs(),
        _ => return Ok(Vec::new()),
    };
    let entries = reader.entries(&topic, 0, 100_000)?;
    Ok(entries.iter().map(|entry| ("unpacked".to_owned(), entry.data.to_string())).collect())
}
