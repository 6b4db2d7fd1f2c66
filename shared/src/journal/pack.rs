//! Entries that were appended together, as rows: the last entry of a row is there as it is, and those before it are packed.
//!
//! A row costs much the same whatever is in it, and entries of one kind repeat each other. A pack is a line for each entry, its
//! type, a space and its data, compressed as an LZ4 block behind its length. The tags of all entries of the row stand beside it,
//! four bytes each; a row from before stored tags has none, and each of its tags is the CRC-32 of the entry's data.
//!
//! # Rewriting a row
//!
//! A redaction replaces the data of an entry and keeps its number, type, time and tag. In one transaction that holds the topic:
//!
//! 1. Find the row: the one with the lowest `seq` that is not below the entry's number.
//! 2. Read it with [`Row::of`] and take [`Row::into_entries`]. The last one has the row's `seq`, each before it one less.
//! 3. Change the data of entries. Where [`Row::has_stored_tags`] is false, give each changed entry a new random tag: its old tag
//!    is a checksum of the data that is to be forgotten.
//! 4. Encode all of them with [`encode`], and `UPDATE entries SET data = …, packed = …, tags = …` of that row.
//! 5. Where the tag of the topic's head changed, `UPDATE topics SET tag = NULL`: the head is then read from its row.

/// Entries of a row at most, and bytes of those before the last: for one of them all are unpacked.
pub(super) const MAX_ENTRIES: usize = 256;
const MAX_PACK_BYTES: usize = 256 * 1024;
/// Bytes of a pack that is read at most: a rewritten row may be longer than a new one.
pub(super) const MAX_READ_BYTES: usize = 2 * MAX_PACK_BYTES;
/// Bytes of a stored tag.
const TAG_BYTES: usize = 4;

/// A row of entries.
pub(super) struct Packed<'a> {
    /// The number, type and data of the last one.
    pub(super) seq: i64,
    pub(super) kind: &'a str,
    pub(super) data: &'a str,
    /// Those before it, if there are any.
    pub(super) before: Option<Vec<u8>>,
    /// The tags of all of them, in order.
    pub(super) tags: Vec<u8>,
}

/// Packs entries whose numbers begin with `first`, each with its tag.
pub(super) fn pack<'a>(
    first: i64,
    entries: &[(&'a str, &'a str)],
    all_tags: &[u32],
) -> Vec<Packed<'a>> {
    debug_assert_eq!(entries.len(), all_tags.len(), "each entry has a tag");
    let (mut rows, mut lines, mut tags) = (Vec::new(), String::new(), Vec::new());
    for (number, ((seq, (kind, data)), tag)) in (first..).zip(entries).zip(all_tags).enumerate() {
        let is_last = number + 1 == entries.len();
        let is_full = tags.len() + TAG_BYTES == MAX_ENTRIES * TAG_BYTES
            || lines.len() + kind.len() + data.len() + 2 > MAX_PACK_BYTES;
        tags.extend(tag.to_be_bytes());
        // What is no single line can only be the last of its row.
        if is_last || is_full || data.contains('\n') {
            rows.push(row(seq, kind, data, &lines, std::mem::take(&mut tags)));
            lines.clear();
        } else {
            push_line(&mut lines, kind, data);
        }
    }
    rows
}

/// Encodes the entries of one row, each a type, its data and its tag; the last has the number `seq`. Returns `None` if they
/// do not fit a row: there is none, one but the last is no single line, or they are too long.
pub(super) fn encode(seq: i64, entries: &[(String, String, u32)]) -> Option<Packed<'_>> {
    let ((kind, data, _), before) = entries.split_last()?;
    let mut lines = String::new();
    for (kind, data, _) in before {
        push_line(&mut lines, kind, data);
    }
    let fits =
        lines.len() <= MAX_READ_BYTES && before.iter().all(|(_, data, _)| !data.contains('\n'));
    let tags = entries.iter().flat_map(|(.., tag)| tag.to_be_bytes()).collect();
    fits.then(|| row(seq, kind, data, &lines, tags))
}

fn row<'a>(seq: i64, kind: &'a str, data: &'a str, lines: &str, tags: Vec<u8>) -> Packed<'a> {
    let before = (!lines.is_empty()).then(|| lz4_flex::compress_prepend_size(lines.as_bytes()));
    Packed { seq, kind, data, before, tags }
}

fn push_line(lines: &mut String, kind: &str, data: &str) {
    debug_assert!(!kind.contains([' ', '\n']), "a type is one word");
    lines.extend([kind, " ", data, "\n"]);
}

/// A row of entries that was read.
pub(super) struct Row {
    kind: String,
    data: String,
    lines: String,
    tags: Option<Vec<u8>>,
}

impl Row {
    /// Reads the columns `type`, `data`, `packed` and `tags` of a row. Returns `None` if they are damaged.
    pub(super) fn of(
        kind: String,
        data: String,
        packed: Option<&[u8]>,
        tags: Option<Vec<u8>>,
    ) -> Option<Self> {
        let lines = packed.map_or_else(|| Some(String::new()), unpack)?;
        let count = entries(&lines).count() + 1;
        let is_whole = tags.as_ref().is_none_or(|tags| tags.len() == count * TAG_BYTES);
        (count <= MAX_ENTRIES && is_whole).then_some(Self { kind, data, lines, tags })
    }

    /// Returns the type of the last entry.
    pub(super) fn kind(&self) -> &str {
        &self.kind
    }

    /// Returns whether the tags are random and stored, not checksums of the data.
    pub(super) fn has_stored_tags(&self) -> bool {
        self.tags.is_some()
    }

    /// Returns the type, the data and the tag of each entry, the last one first.
    pub(super) fn backwards(&self) -> impl Iterator<Item = (&str, &str, u32)> {
        let mut tags = self.tags.as_deref().map(|tags| tags.rchunks_exact(TAG_BYTES));
        entries(&self.lines).chain([(&*self.kind, &*self.data)]).rev().map(move |(kind, data)| {
            let stored = tags.as_mut().and_then(Iterator::next).and_then(|tag| tag.try_into().ok());
            (kind, data, stored.map_or_else(|| checksum(data), u32::from_be_bytes))
        })
    }

    /// Returns the type, the data and the tag of each entry in order, for [`encode`].
    pub(super) fn into_entries(self) -> Vec<(String, String, u32)> {
        let owned = |(kind, data, tag): (&str, &str, u32)| (kind.to_owned(), data.to_owned(), tag);
        let mut entries: Vec<_> = self.backwards().map(owned).collect();
        entries.reverse();
        entries
    }
}

/// Returns the tag of the last entry of a row.
pub(super) fn last_tag(data: &str, tags: Option<&[u8]>) -> u32 {
    let stored = tags.and_then(|tags| tags.last_chunk()).copied();
    stored.map_or_else(|| checksum(data), u32::from_be_bytes)
}

/// Returns the tag of an entry from before stored tags.
fn checksum(data: &str) -> u32 {
    crc32fast::hash(data.as_bytes())
}

/// Returns the lines of a pack, `None` if it is none.
fn unpack(before: &[u8]) -> Option<String> {
    let (bytes, block) = lz4_flex::block::uncompressed_size(before).ok()?;
    // What says that it is longer was not packed here, and is not to take the memory for it.
    let lines = (bytes <= MAX_READ_BYTES).then(|| lz4_flex::decompress(block, bytes))?;
    String::from_utf8(lines.ok()?).ok()
}

/// Returns the type and the data of each line, in order.
fn entries(lines: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    lines.split_terminator('\n').map(|line| line.split_once(' ').unwrap_or((line, "")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = (&'static str, String, u32)> {
        let kind = prop_oneof![Just("job.queued"), Just("job.started")];
        // The longest are such that a few fill a row.
        (kind, prop_oneof![60 => "(?s).{0,40}", 1 => "x{60000,90000}"], any::<u32>())
    }

    fn read(row: &Packed<'_>, tags: Option<Vec<u8>>) -> Row {
        Row::of(row.kind.into(), row.data.into(), row.before.as_deref(), tags).expect("a row")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn packed_entries_come_back(entries in prop::collection::vec(entry(), 0..600), first in 1..9i64) {
            let plain: Vec<_> = entries.iter().map(|(kind, data, _)| (*kind, data.as_str())).collect();
            let tags: Vec<u32> = entries.iter().map(|(.., tag)| *tag).collect();
            let (mut next, mut back) = (first, Vec::new());
            for packed in pack(first, &plain, &tags) {
                let row = read(&packed, Some(packed.tags.clone()));
                prop_assert!(row.lines.len() <= MAX_PACK_BYTES);
                let row = row.into_entries();
                prop_assert!(row.len() <= MAX_ENTRIES);
                next += i64::try_from(row.len()).unwrap();
                prop_assert_eq!(packed.seq, next - 1);
                let again = encode(packed.seq, &row).expect("it fits");
                prop_assert_eq!((again.data, &again.before, &again.tags), (packed.data, &packed.before, &packed.tags));
                back.extend(row);
            }
            let entries: Vec<_> = entries.into_iter().map(|(kind, data, tag)| (kind.to_owned(), data, tag)).collect();
            prop_assert_eq!(back, entries);
        }
    }

    #[test]
    fn a_row_from_before_stored_tags_has_checksums_and_can_be_rewritten() {
        let packed = pack(1, &[("a", "one"), ("b", "two"), ("c", "three")], &[7, 8, 9]);
        let old = read(&packed[0], None);
        assert!(!old.has_stored_tags(), "the row has no tags");
        let mut entries = old.into_entries();
        let tags: Vec<u32> = entries.iter().map(|(.., tag)| *tag).collect();
        assert_eq!(tags, ["one", "two", "three"].map(|data| crc32fast::hash(data.as_bytes())));

        entries[1].1 = "redacted".into();
        entries[1].2 = 42;
        let rewritten = encode(packed[0].seq, &entries).expect("it fits");
        let row = read(&rewritten, Some(rewritten.tags.clone()));
        assert!(row.has_stored_tags(), "a rewritten row has tags");
        assert_eq!(row.into_entries(), entries, "only the redacted entry changed");
    }

    #[test]
    fn entries_that_do_not_fit_a_row_are_not_encoded() {
        let entry = |data: &str| ("a".to_owned(), data.to_owned(), 1);
        assert!(encode(1, &[]).is_none(), "no entry");
        assert!(
            encode(2, &[entry("two\nlines"), entry("x")]).is_none(),
            "two lines before the last"
        );
        assert!(encode(2, &[entry("x"), entry("two\nlines")]).is_some(), "two lines at the end");
        assert!(encode(2, &[entry(&"x".repeat(MAX_READ_BYTES)), entry("x")]).is_none(), "too long");
    }

    #[test]
    fn damaged_rows_are_refused() {
        for junk in [&b""[..], b"xyz", b"\xff\xff\xff\x7fjunk"] {
            assert!(Row::of("a".into(), "x".into(), Some(junk), None).is_none(), "{junk:?}");
        }
        // An entry takes far more memory than its line.
        for (lines, is_row) in [(MAX_ENTRIES - 1, true), (MAX_ENTRIES, false)] {
            let packed = lz4_flex::compress_prepend_size("\n".repeat(lines).as_bytes());
            let row = Row::of("a".into(), "x".into(), Some(&packed), None);
            assert_eq!(row.is_some(), is_row, "{lines} lines");
        }
        for tags in [vec![], vec![1, 2, 3], vec![0; 8]] {
            assert!(
                Row::of("a".into(), "x".into(), None, Some(tags.clone())).is_none(),
                "{tags:?}"
            );
        }
    }
}
