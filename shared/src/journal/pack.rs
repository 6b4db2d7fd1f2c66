//! Entries that were appended together, as rows: the last entry of a row is there as it is, and those before it are packed.
//!
//! A row costs much the same whatever is in it, and entries of one kind repeat each other. A pack is a line for each entry, its
//! type, a space and its data, compressed as an LZ4 block behind its length.

/// Entries of a row at most, and bytes of those before the last: for one of them all are unpacked.
const MOST: usize = 256;
const MOST_BYTES: usize = 256 * 1024;

/// A row of entries.
pub(super) struct Packed<'a> {
    /// The number, type and data of the last one.
    pub(super) seq: i64,
    pub(super) kind: &'a str,
    pub(super) data: &'a str,
    /// Those before it, if there are any.
    pub(super) before: Option<Vec<u8>>,
}

/// Packs entries whose numbers begin with `first`.
pub(super) fn pack<'a>(first: i64, entries: &[(&'a str, &'a str)]) -> Vec<Packed<'a>> {
    let (mut rows, mut lines, mut count) = (Vec::new(), String::new(), 0);
    for (number, (seq, (kind, data))) in (first..).zip(entries).enumerate() {
        let is_last = number + 1 == entries.len();
        let is_full = count + 1 == MOST || lines.len() + kind.len() + data.len() + 2 > MOST_BYTES;
        // What is no single line can only be the last of its row.
        if is_last || is_full || data.contains('\n') {
            let before = (count > 0).then(|| lz4_flex::compress_prepend_size(lines.as_bytes()));
            rows.push(Packed { seq, kind, data, before });
            (lines, count) = (String::new(), 0);
        } else {
            debug_assert!(!kind.contains([' ', '\n']), "a type is one word");
            lines.extend([*kind, " ", *data, "\n"]);
            count += 1;
        }
    }
    rows
}

/// Returns the lines of a pack, `None` if it is none.
pub(super) fn unpack(before: &[u8]) -> Option<String> {
    let (bytes, block) = lz4_flex::block::uncompressed_size(before).ok()?;
    // What says that it is longer was not packed here, and is not to take the memory for it.
    let lines = (bytes <= MOST_BYTES).then(|| lz4_flex::decompress(block, bytes))?;
    String::from_utf8(lines.ok()?).ok()
}

/// Returns the type and the data of each line, in order.
pub(super) fn entries(lines: &str) -> impl DoubleEndedIterator<Item = (&str, &str)> {
    lines.split_terminator('\n').map(|line| line.split_once(' ').unwrap_or((line, "")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> impl Strategy<Value = (&'static str, String)> {
        let kind = prop_oneof![Just("job.queued"), Just("job.started")];
        // The longest are such that a few fill a row.
        (kind, prop_oneof![60 => "(?s).{0,40}", 1 => "x{60000,90000}"])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn what_is_packed_comes_back(entries in prop::collection::vec(entry(), 0..600), first in 1..9i64) {
            let entries: Vec<_> = entries.iter().map(|(kind, data)| (*kind, data.as_str())).collect();
            let (mut next, mut back) = (first, Vec::new());
            for Packed { seq, kind, data, before } in pack(first, &entries) {
                let lines = before.map_or(String::new(), |before| unpack(&before).unwrap());
                prop_assert!(lines.len() <= MOST_BYTES);
                let row: Vec<_> = super::entries(&lines).chain([(kind, data)]).collect();
                prop_assert!(row.len() <= MOST);
                next += i64::try_from(row.len()).unwrap();
                prop_assert_eq!(seq, next - 1);
                back.extend(row.into_iter().map(|(kind, data)| (kind.to_owned(), data.to_owned())));
            }
            let entries: Vec<_> = entries.into_iter().map(|(kind, data)| (kind.to_owned(), data.to_owned())).collect();
            prop_assert_eq!(back, entries);
        }
    }

    #[test]
    fn what_is_no_pack_is_refused() {
        for junk in [&b""[..], b"xyz", b"\xff\xff\xff\x7fjunk"] {
            assert_eq!(unpack(junk), None);
        }
    }
}
