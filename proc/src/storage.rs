//! What a user may store: uploads and artifacts, exports among them. The files that are there count, each to whoever owns it,
//! and so do the bytes that this process is receiving.

use std::{
    collections::HashMap,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use shared::{
    ids::{JobId, UserId},
    journal::Topic,
    store::{self, Reader, Tx},
};

/// Bytes after which a file that comes in asks anew what is stored.
const REREAD_BYTES: u64 = 64 << 20;

/// Bytes that each user may store.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum StorageLimit {
    Off,
    Bytes(u64),
}

impl FromStr for StorageLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "off" {
            return Ok(Self::Off);
        }
        let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(at);
        let shift = match unit.trim() {
            "" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => return Err("write bytes, such as 10GiB or 500000000, or off".into()),
        };
        let number: u64 = number.parse().map_err(|_| "write bytes, such as 10GiB, or off")?;
        let bytes = number.checked_mul(1 << shift).filter(|bytes| i64::try_from(*bytes).is_ok());
        bytes.map(Self::Bytes).ok_or_else(|| "these are too many bytes".into())
    }
}

/// More than a user may store.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("you store {used} of the {max} bytes that you may, which leaves no room for this")]
pub(crate) struct Exceeded {
    pub(crate) max: u64,
    pub(crate) used: u64,
}

/// The limit, and what is on its way; a clone shares both.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    limit: StorageLimit,
    /// Bytes that this process receives and has not stored yet, by owner.
    incoming: Arc<Mutex<HashMap<UserId, u64>>>,
}

impl Quota {
    pub(crate) fn new(limit: StorageLimit) -> Self {
        Self { limit, incoming: Arc::default() }
    }

    /// Begins to count a file that comes in.
    pub(crate) fn receive(&self, owner: UserId) -> Incoming {
        Incoming { quota: self.clone(), owner, bytes: 0, stored: 0, reread_at: 0 }
    }

    /// Refuses a file of so many bytes that does not fit beside what is stored. Who asks holds the owner's log with
    /// [`hold`], so that no two files have the same room.
    pub(crate) fn admit(
        &self,
        reader: &Reader<'_>,
        owner: &UserId,
        replaced: Option<(JobId, &str)>,
        bytes: u64,
    ) -> Result<Result<(), Exceeded>, store::Error> {
        let StorageLimit::Bytes(max) = self.limit else { return Ok(Ok(())) };
        let used = used(reader, owner, replaced)?;
        let fits = used.saturating_add(bytes) <= max;
        Ok(if fits { Ok(()) } else { Err(Exceeded { max, used }) })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UserId, u64>> {
        self.incoming.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes sure that the owner's log is there, so that a write under it keeps others of the same owner waiting.
pub(crate) fn hold(tx: &mut Tx<'_>, owner: &UserId) -> Result<(), store::Error> {
    let log = Topic::user(owner);
    if tx.head(&log)?.is_none() {
        tx.ensure(&log)?;
    }
    Ok(())
}

/// Returns the bytes that a user stores, but for an artifact that is about to be replaced.
pub(crate) fn used(
    reader: &Reader<'_>,
    owner: &UserId,
    replaced: Option<(JobId, &str)>,
) -> Result<u64, store::Error> {
    let sum = |sql: &str, params: &[store::Value<'_>]| {
        reader.find(sql, params, |row| row.get::<i64>(0)).map(|sum| sum.unwrap_or(0))
    };
    // PostgreSQL's sum of BIGINT is a number of any size.
    let owned = [owner.into()];
    let uploads = sum(
        "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM uploads WHERE owner = $1",
        &owned,
    )?;
    let artifacts = sum(
        "SELECT CAST(COALESCE(SUM(bytes), 0) AS BIGINT) FROM artifacts WHERE owner = $1",
        &owned,
    )?;
    let replaced = match replaced {
        None => 0,
        Some((job, name)) => sum(
            "SELECT bytes FROM artifacts WHERE job_id = $1 AND name = $2",
            &[job.into(), name.into()],
        )?,
    };
    Ok(u64::try_from(uploads + artifacts - replaced).unwrap_or(0))
}

/// A file that comes in, whose bytes count until it is dropped.
#[derive(Debug)]
pub(crate) struct Incoming {
    quota: Quota,
    owner: UserId,
    bytes: u64,
    /// What was stored when it was last read, and the byte at which it is read again.
    stored: u64,
    reread_at: u64,
}

impl Incoming {
    /// Returns whether what is stored is to be read again, to be given to [`Incoming::know`].
    pub(crate) fn wants_reading(&self) -> bool {
        self.quota.limit != StorageLimit::Off && self.bytes >= self.reread_at
    }

    /// Notes what is stored.
    pub(crate) fn know(&mut self, stored: u64) {
        self.stored = stored;
        self.reread_at = self.bytes + REREAD_BYTES;
    }

    /// Counts more bytes, unless they do not fit beside what is stored and what else comes in.
    pub(crate) fn add(&mut self, bytes: u64) -> Result<(), Exceeded> {
        let StorageLimit::Bytes(max) = self.quota.limit else { return Ok(()) };
        let mut incoming = self.quota.lock();
        let all = incoming.entry(self.owner.clone()).or_default();
        if self.stored.saturating_add(*all).saturating_add(bytes) > max {
            return Err(Exceeded { max, used: self.stored });
        }
        *all += bytes;
        self.bytes += bytes;
        Ok(())
    }

    /// Refuses a file that says itself to be so large that it cannot fit.
    pub(crate) fn announce(&self, bytes: u64) -> Result<(), Exceeded> {
        let StorageLimit::Bytes(max) = self.quota.limit else { return Ok(()) };
        let fits = self.stored.saturating_add(bytes) <= max;
        if fits { Ok(()) } else { Err(Exceeded { max, used: self.stored }) }
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let mut incoming = self.quota.lock();
        if let Some(all) = incoming.get_mut(&self.owner) {
            *all = all.saturating_sub(self.bytes);
            if *all == 0 {
                incoming.remove(&self.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_bytes_with_a_unit_or_off() {
        let parse = |text: &str| text.parse::<StorageLimit>().ok();
        assert_eq!(parse("10GiB"), Some(StorageLimit::Bytes(10 << 30)));
        assert_eq!(parse("500"), Some(StorageLimit::Bytes(500)));
        assert_eq!(parse("2 MiB"), Some(StorageLimit::Bytes(2 << 20)));
        assert_eq!(parse("off"), Some(StorageLimit::Off));
        for wrong in ["", "10GB", "-1", "GiB", "99999999999TiB", "1.5GiB"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn files_that_come_in_at_once_share_the_room() {
        let quota = Quota::new(StorageLimit::Bytes(10));
        let (ada, grace) = ("ada".parse().unwrap(), "grace".parse().unwrap());
        let mut one = quota.receive(ada);
        let mut other = quota.receive("ada".parse().unwrap());
        one.know(2);
        other.know(2);
        one.add(5).unwrap();
        assert_eq!(other.add(4), Err(Exceeded { max: 10, used: 2 }));
        other.add(3).unwrap();
        quota.receive(grace).add(10).unwrap();
        drop(one);
        other.add(5).unwrap();
        drop(other);
        assert!(quota.lock().is_empty());
    }
}
