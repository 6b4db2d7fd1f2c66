//! Many rows in one statement, as arrays: whatever their number, it is planned once and sent once.

use std::collections::HashSet;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::{
    super::{
        Error, Row, Value,
        value::{Home, update},
    },
    Postgres,
};

/// From so many rows on, what is the same in all of them is sent once; which columns that are makes another statement, of
/// which there are then few.
const MANY: usize = 32;

impl Postgres {
    pub(in super::super) fn query_in<T>(
        &self,
        sql: &str,
        column: &str,
        values: &[Value<'_>],
        map: impl Fn(&Row<'_>) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let rows = self.run(&format!("{sql} {column} = ANY($1)"), &[&values])?;
        rows.iter().map(|row| map(&Row(Home::Postgres(row)))).collect()
    }

    pub(in super::super) fn execute_rows(
        &self,
        before: &str,
        after: &str,
        width: usize,
        values: &[Value<'_>],
    ) -> Result<(), Error> {
        let numbers: Vec<String> = (1..=width).map(|number| format!("${number}")).collect();
        let one = format!("{before} VALUES ({}) {after}", numbers.join(", "));
        if values.len() == width {
            return self.execute(&one, values).map(drop);
        }
        let rows = self.rows(&one, width, &[0], values)?;
        let each = (0..width).map(|column| rows.value(column)).collect::<Vec<_>>().join(", ");
        self.run(&format!("{before} SELECT {each} FROM {} {after}", rows.from()), &rows.params())
            .map(drop)
    }

    pub(in super::super) fn update_rows(
        &self,
        table: &str,
        columns: &[&str],
        values: &[Value<'_>],
    ) -> Result<(), Error> {
        let rows = self.rows(&update(table, columns), columns.len(), &[0], values)?;
        self.run(&rows.update(table, columns), &rows.params()).map(drop)
    }

    pub(in super::super) fn advance_rows(
        &self,
        table: &str,
        columns: &[&str],
        counter: &str,
        values: &[Value<'_>],
    ) -> Result<HashSet<Uuid>, Error> {
        let place = columns.iter().position(|column| *column == counter).unwrap_or_default();
        let rows = self.rows(&update(table, columns), columns.len(), &[0, place], values)?;
        let sql = format!(
            "{} AND {table}.{counter} = {} - 1 RETURNING {table}.{}",
            rows.update(table, columns),
            rows.value(place),
            columns.first().unwrap_or(&"")
        );
        let rows = self.run(&sql, &rows.params())?;
        rows.iter().map(|row| Row(Home::Postgres(row)).get(0)).collect()
    }

    /// Makes rows of values, of the types that the server takes for the one row of a statement. By the columns `by` rows are
    /// found: a single value to compare them with might seem a better way to the server than their key.
    fn rows<'a>(
        &self,
        one: &str,
        width: usize,
        by: &[usize],
        values: &'a [Value<'a>],
    ) -> Result<Rows<'a>, Error> {
        let statement = self.prepare(one)?;
        let types = statement.params().iter().map(|ty| ty.name().to_owned()).collect();
        let is_many = values.len() >= MANY * width;
        let columns = (0..width).map(|first| {
            let column = values.iter().skip(first).step_by(width);
            let mut others = column.clone();
            match others.next() {
                Some(one)
                    if is_many && !by.contains(&first) && others.all(|other| other == one) =>
                {
                    Column::Same(*one)
                }
                _ => Column::Each(column.copied().collect()),
            }
        });
        Ok(Rows { columns: columns.collect(), types })
    }
}

/// Rows as the parameters of a statement, one for each column.
struct Rows<'a> {
    columns: Vec<Column<'a>>,
    types: Vec<String>,
}

enum Column<'a> {
    Same(Value<'a>),
    Each(Vec<Value<'a>>),
}

impl Rows<'_> {
    fn params(&self) -> Vec<&(dyn ToSql + Sync)> {
        let param = self.columns.iter().map(|column| match column {
            Column::Same(value) => value as &(dyn ToSql + Sync),
            Column::Each(values) => values,
        });
        param.collect()
    }

    /// Returns what stands for a column's value.
    fn value(&self, column: usize) -> String {
        match self.columns[column] {
            Column::Same(_) => format!("${}::{}", column + 1, self.types[column]),
            Column::Each(_) => format!("new.c{column}"),
        }
    }

    /// Returns what the rows come from.
    fn from(&self) -> String {
        let columns = self.columns.iter().zip(&self.types).enumerate();
        let arrays = columns.filter(|(_, (column, _))| matches!(column, Column::Each(_)));
        let (arrays, names): (Vec<_>, Vec<_>) = arrays
            .map(|(column, (_, ty))| (format!("${}::{ty}[]", column + 1), format!("c{column}")))
            .unzip();
        format!("unnest({}) AS new ({})", arrays.join(", "), names.join(", "))
    }

    fn update(&self, table: &str, columns: &[&str]) -> String {
        let named = columns.iter().enumerate().skip(1);
        let set: Vec<String> =
            named.map(|(column, name)| format!("{name} = {}", self.value(column))).collect();
        let key = columns.first().unwrap_or(&"");
        let (set, from) = (set.join(", "), self.from());
        format!("UPDATE {table} SET {set} FROM {from} WHERE {table}.{key} = new.c0")
    }
}
