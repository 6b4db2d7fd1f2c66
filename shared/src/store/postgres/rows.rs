//! Many rows in one statement, as arrays: whatever their number, it is planned once and sent once.

use postgres::types::ToSql;

use super::{
    super::{
        Error, Row, Value,
        value::{Home, update},
    },
    Postgres,
};

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
        let rows = self.unnest(&one)?;
        self.columns(&format!("{before} SELECT * FROM {rows} {after}"), width, values)
    }

    pub(in super::super) fn update_rows(
        &self,
        table: &str,
        columns: &[&str],
        values: &[Value<'_>],
    ) -> Result<(), Error> {
        let rows = self.unnest(&update(table, columns))?;
        let (key, rest) = columns.split_first().unwrap_or((&"", &[]));
        let set: Vec<String> = rest.iter().map(|name| format!("{name} = new.{name}")).collect();
        let sql = format!(
            "UPDATE {table} SET {} FROM {rows} AS new ({}) WHERE {table}.{key} = new.{key}",
            set.join(", "),
            columns.join(", "),
        );
        self.columns(&sql, columns.len(), values)
    }

    /// Returns what makes rows of arrays, of the types that the server takes for the one row of a statement.
    fn unnest(&self, one: &str) -> Result<String, Error> {
        let statement = self.prepare(one)?;
        let types = (1..).zip(statement.params());
        let arrays: Vec<String> =
            types.map(|(number, ty)| format!("${number}::{}[]", ty.name())).collect();
        Ok(format!("unnest({})", arrays.join(", ")))
    }

    fn columns(&self, sql: &str, width: usize, values: &[Value<'_>]) -> Result<(), Error> {
        let column = |first: usize| values.iter().skip(first).step_by(width).copied().collect();
        let columns: Vec<Vec<Value<'_>>> = (0..width).map(column).collect();
        let params: Vec<&(dyn ToSql + Sync)> =
            columns.iter().map(|column| column as &(dyn ToSql + Sync)).collect();
        let statement = self.prepare(sql)?;
        let outcome = self.client.borrow_mut().execute(&statement, &params);
        outcome.map(drop).map_err(|error| self.note(error))
    }
}
