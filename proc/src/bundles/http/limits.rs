//! Limits on how many jobs of an operation run at once, where claims read them: as their bundle is registered now.

use shared::store::{Error, Store, Tx};

use super::{
    manifest::{Manifest, OperationManifest},
    store,
};

/// Returns the name under which an operation's jobs share their places.
pub(super) fn share_name(bundle: &str, operation: &str) -> String {
    format!("{bundle}.{operation}")
}

/// Writes the limits of a bundle's operations, in place of those that it had.
pub(super) fn put(
    tx: &mut Tx<'_>,
    bundle: &str,
    operations: &[OperationManifest],
) -> Result<(), Error> {
    delete(tx, bundle)?;
    for operation in operations {
        let name = share_name(bundle, operation.name.as_str());
        let most = i64::from(operation.at_once());
        let sql = "INSERT INTO share_limits (name, bundle, most) VALUES ($1, $2, $3) \
                   ON CONFLICT (name) DO UPDATE SET most = excluded.most";
        tx.execute(sql, &[(&name).into(), bundle.into(), most.into()])?;
    }
    Ok(())
}

/// Forgets the limits of a bundle's operations.
pub(super) fn delete(tx: &mut Tx<'_>, bundle: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM share_limits WHERE bundle = $1", &[bundle.into()]).map(drop)
}

/// Writes the limits of all bundles, some of which an earlier version may have registered.
pub(super) async fn put_all(database: &Store) -> Result<(), Error> {
    let write = |tx: &mut Tx<'_>| {
        for bundle in store::list(tx)? {
            let Manifest { operations, .. } = &bundle.manifest;
            put(tx, &bundle.name, operations)?;
        }
        Ok(())
    };
    database.write(write).await
}
