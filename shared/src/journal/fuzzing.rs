//! Rows of packed entries, for the targets in `fuzz/`.

use super::pack;

/// The most bytes that a pack may have when it is unpacked.
pub const MAX_UNPACKED_BYTES: usize = pack::MAX_READ_BYTES;
/// The most entries of a row.
pub const MAX_ENTRIES: usize = pack::MAX_ENTRIES;

/// Type, data and tag of an entry.
pub type TaggedEntry = (String, String, u32);

/// The columns of a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRow {
    pub seq: i64,
    pub kind: String,
    pub data: String,
    pub packed: Option<Vec<u8>>,
    pub tags: Option<Vec<u8>>,
}

impl StoredRow {
    /// Returns the entries in order, `None` if the row is damaged.
    #[must_use]
    pub fn entries(&self) -> Option<Vec<TaggedEntry>> {
        let (kind, data) = (self.kind.clone(), self.data.clone());
        let row = pack::Row::of(kind, data, self.packed.as_deref(), self.tags.clone())?;
        Some(row.into_entries())
    }

    /// Returns the tag of the last entry, which is read without the others.
    #[must_use]
    pub fn last_tag(&self) -> u32 {
        pack::last_tag(&self.data, self.tags.as_deref())
    }

    fn of(packed: pack::Packed<'_>) -> Self {
        let pack::Packed { seq, kind, data, before, tags } = packed;
        let (kind, data) = (kind.to_owned(), data.to_owned());
        Self { seq, kind, data, packed: before, tags: Some(tags) }
    }
}

/// Encodes the entries of one row, `None` if they do not fit.
#[must_use]
pub fn encode(seq: i64, entries: &[TaggedEntry]) -> Option<StoredRow> {
    pack::encode(seq, entries).map(StoredRow::of)
}

/// Packs entries whose numbers begin with `first` into rows.
#[must_use]
pub fn pack(first: i64, entries: &[TaggedEntry]) -> Vec<StoredRow> {
    let plain: Vec<(&str, &str)> =
        entries.iter().map(|(kind, data, _)| (&**kind, &**data)).collect();
    let tags: Vec<u32> = entries.iter().map(|(.., tag)| *tag).collect();
    pack::pack(first, &plain, &tags).into_iter().map(StoredRow::of).collect()
}
