//! Marks in the events' texts: `@@`, the event's number, when it was sent, `@@`. Whatever a server wraps around a text,
//! the mark in it arrives.

use std::{sync::LazyLock, time::Instant};

use hdrhistogram::Histogram;

const NUMBER: usize = 7;
const TIME: usize = 16;
const MARK: usize = 2 + NUMBER + TIME + 2;
/// The longest beginning of a mark that is not yet a mark.
pub(crate) const CARRY: usize = MARK - 1;

static EPOCH: LazyLock<Instant> = LazyLock::new(Instant::now);

fn micros() -> u64 {
    u64::try_from(EPOCH.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Returns the text of an event that is sent now: 150 bytes.
pub(crate) fn text(number: u32) -> String {
    let filler = "about as long as what people say to each other in a chat like this one, which is to say a sentence or two, and no";
    format!("@@{number:0NUMBER$}{:0TIME$}@@ {filler:.<122}", micros())
}

/// Microseconds, up to a minute.
fn times() -> anyhow::Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// What has arrived.
pub(crate) struct Marks {
    /// Events before this one are not counted.
    first: usize,
    /// By event: how many streams it has reached, and after how many microseconds the last of them.
    events: Vec<(usize, u64)>,
    /// Microseconds from publish to arrival.
    pub(crate) times: Histogram<u64>,
}

impl Marks {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self { first: 0, events: Vec::new(), times: times()? })
    }

    /// Counts anew, the events from this number on.
    pub(crate) fn restart(&mut self, first: u32) {
        self.first = first as usize;
        self.events.clear();
        self.times.reset();
    }

    /// Returns the microseconds from publish to the arrival at the last stream, for the events that reached `streams`.
    pub(crate) fn last(&self, streams: usize) -> anyhow::Result<Histogram<u64>> {
        let mut last = times()?;
        for (_, time) in self.events.iter().filter(|(reached, _)| *reached >= streams) {
            last.saturating_record(*time);
        }
        Ok(last)
    }

    /// Counts the marks in what one stream has received. Returns the end, if a mark may have begun in it.
    pub(crate) fn scan<'a>(&mut self, mut bytes: &'a [u8]) -> &'a [u8] {
        let now = micros();
        while let Some(at) = memchr::memchr(b'@', bytes) {
            bytes = &bytes[at..];
            let Some((mark, rest)) = bytes.split_at_checked(MARK) else { return bytes };
            bytes = match parse(mark) {
                Some((number, sent)) => {
                    self.count(number, now.saturating_sub(sent));
                    rest
                }
                None => &bytes[1..],
            };
        }
        &[]
    }

    fn count(&mut self, number: usize, time: u64) {
        let Some(index) = number.checked_sub(self.first) else { return };
        if index >= self.events.len() {
            self.events.resize(index + 1, (0, 0));
        }
        let (reached, last) = &mut self.events[index];
        *reached += 1;
        *last = time.max(*last);
        self.times.saturating_record(time);
    }
}

fn parse(mark: &[u8]) -> Option<(usize, u64)> {
    let digits = mark.strip_prefix(b"@@")?.strip_suffix(b"@@")?;
    let digits = str::from_utf8(digits).ok()?;
    let (number, time) = digits.split_at_checked(NUMBER)?;
    Some((number.parse().ok()?, time.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_found_wherever_what_arrives_is_cut() {
        let sent =
            [0, 1, 2].map(|number| format!("9d\r\ndata: {}\n\n\r\n@", text(number))).concat();
        for size in 1..sent.len() {
            let mut marks = Marks::new().unwrap();
            let mut carry = Vec::new();
            for piece in sent.as_bytes().chunks(size) {
                carry.extend_from_slice(piece);
                carry = marks.scan(&carry).to_vec();
                assert!(carry.len() <= CARRY);
            }
            assert_eq!((marks.times.len(), marks.last(1).unwrap().len()), (3, 3), "{size}");
        }
    }

    #[test]
    fn a_text_is_150_bytes() {
        assert_eq!(text(9_999_999).len(), 150);
    }
}
