//! Many rows at once.

use super::*;

pub(super) async fn many_rows_are_written_changed_and_found_at_once(home: Home) {
    const ROWS: i64 = 150;
    // More than a few, of which something is the same in all.
    const SOME: i64 = 40;
    type Thing = (Uuid, i64, Option<String>);
    let folder = tempfile::tempdir().unwrap();
    let store = open(home, &folder, &Bus::default()).await;
    let id = |n: i64| Value::Uuid(Uuid::from_u128(n.unsigned_abs().into()));
    let write = store.write(move |tx| {
        let bytes = [0, 255];
        let rows: Vec<_> =
            (0..ROWS).flat_map(|n| [id(n), n.into(), Value::Null, Value::Bytes(&bytes)]).collect();
        tx.execute_rows("INSERT INTO things (id, count, name, bytes)", "", 4, &rows)?;
        // One that is there, one that is not, and nothing but nulls in a column.
        let new = [id(1), "one".into(), Value::Null, id(ROWS), "none".into(), Value::Null];
        tx.update_rows("things", &["id", "name", "bytes"], &new)?;
        tx.update_rows("things", &["id", "name"], &[])?;
        tx.execute_rows("INSERT INTO things (id, count, name, bytes)", "", 4, &[])
    });
    write.await.unwrap();
    assert_eq!(counts(&store).await, (0..ROWS).collect::<Vec<_>>());
    let write = store.write(move |tx| {
        let next = (0..SOME).flat_map(|n| [id(n), (n + i64::from(n != 7)).into(), "next".into()]);
        let next: Vec<_> = next.collect();
        tx.advance_rows("things", &["id", "count", "name"], "count", &next)
    });
    let advanced = write.await.unwrap();
    assert_eq!(advanced.len() + 1, usize::try_from(SOME).unwrap());
    assert!(!advanced.contains(&Uuid::from_u128(7)));
    let back = store.write(move |tx| {
        let one_less = (0..SOME).flat_map(|n| [id(n), n.into(), Value::Null]).collect::<Vec<_>>();
        tx.update_rows("things", &["id", "count", "name"], &one_less)?;
        tx.update_rows("things", &["id", "name"], &[id(1), "one".into()])
    });
    back.await.unwrap();
    let find = store.read(move |reader| {
        let wanted: Vec<_> = (0..100).chain([ROWS]).map(id).collect();
        let sql = "SELECT id, count, name FROM things WHERE";
        let found = reader
            .query_in(sql, "id", &wanted, |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let sql = "SELECT COUNT(*) FROM things WHERE bytes IS NULL";
        let cleared: Option<i64> = reader.find(sql, &[], |row| row.get(0))?;
        Ok::<_, Error>((found, cleared))
    });
    let (found, cleared): (Vec<Thing>, _) = find.await.unwrap();
    assert_eq!((found.len(), cleared), (100, Some(1)));
    for (id, count, name) in found {
        assert_eq!(id.as_u128(), u128::from(count.unsigned_abs()));
        assert_eq!(name.as_deref(), (count == 1).then_some("one"));
    }
}
