//! What a socket has not taken yet; a stream has one only while its socket is full.

use std::{
    collections::VecDeque,
    io::{self, IoSlice, Write},
};

use bytes::{Buf, Bytes};

use super::super::gzip::Sum;

/// Buffers handed to the system in one call.
const BATCH: usize = 32;

/// Bytes that wait, in order.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pieces: VecDeque<Piece>,
    bytes: usize,
    /// Part of the first piece is written, so it must go out whole.
    torn: bool,
    /// When the socket last took anything.
    pub(super) moved_at_ms: u64,
}

#[derive(Debug)]
struct Piece {
    bytes: Bytes,
    /// The stream's checksum without this piece and all after it.
    before: Option<Sum>,
}

impl Outbox {
    pub(super) fn new(now_ms: u64) -> Self {
        Self { moved_at_ms: now_ms, ..Self::default() }
    }

    /// Holds the rest of a piece of a stream without a checksum, of which the socket has taken a part if it is `torn`.
    pub(super) fn of(rest: Bytes, torn: bool, now_ms: u64) -> Self {
        let mut outbox = Self { torn, ..Self::new(now_ms) };
        outbox.push(rest, None);
        outbox
    }

    pub(super) fn push(&mut self, bytes: Bytes, before: Option<Sum>) {
        if !bytes.is_empty() {
            self.bytes += bytes.len();
            self.pieces.push_back(Piece { bytes, before });
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Drops all that may be dropped: what is left ends where an event ends. Returns the stream's checksum without it,
    /// `None` if nothing was dropped or there is none.
    pub(super) fn cut(&mut self) -> Option<Sum> {
        let keep = usize::from(self.torn);
        let sum = self.pieces.get(keep).and_then(|dropped| dropped.before);
        self.pieces.truncate(keep);
        self.bytes = self.pieces.front().map_or(0, |piece| piece.bytes.len());
        sum
    }

    /// Writes as much as the socket takes; says whether that was all.
    pub(super) fn flush(&mut self, mut socket: impl Write, now_ms: u64) -> io::Result<bool> {
        while !self.pieces.is_empty() {
            let mut slices = [IoSlice::new(&[]); BATCH];
            let count = self.pieces.len().min(BATCH);
            for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
                *slice = IoSlice::new(&piece.bytes);
            }
            match socket.write_vectored(&slices[..count]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.advance(written);
                    self.moved_at_ms = now_ms;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn advance(&mut self, mut written: usize) {
        self.bytes = self.bytes.saturating_sub(written);
        while let Some(first) = self.pieces.front_mut() {
            if written < first.bytes.len() {
                first.bytes.advance(written);
                self.torn |= written > 0;
                return;
            }
            written -= first.bytes.len();
            self.pieces.pop_front();
            self.torn = false;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A socket that takes so many bytes at a time and then none.
    struct Narrow<'a> {
        takes: &'a mut dyn Iterator<Item = usize>,
        taken: &'a mut Vec<u8>,
    }

    impl Write for Narrow<'_> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.takes.next() {
                None | Some(0) => Err(io::ErrorKind::WouldBlock.into()),
                Some(takes) => {
                    let count = takes.min(bytes.len());
                    self.taken.extend_from_slice(&bytes[..count]);
                    Ok(count)
                }
            }
        }

        fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
            self.write(&slices.iter().flat_map(|slice| slice.to_vec()).collect::<Vec<_>>())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out_in_order_and_a_cut_leaves_whole_pieces(
            pieces in prop::collection::vec("[a-z]{1,9};", 1..60),
            takes in prop::collection::vec(0..40usize, 0..60),
            cut in any::<bool>(),
        ) {
            let (mut outbox, mut taken) = (Outbox::default(), Vec::new());
            let mut takes = takes.into_iter();
            let mut sum = Sum::default();
            for piece in &pieces {
                outbox.push(piece.clone().into(), Some(sum));
                sum.add(piece.as_bytes());
                outbox.flush(Narrow { takes: &mut takes, taken: &mut taken }, 0).unwrap();
            }
            if cut && let Some(without) = outbox.cut() {
                sum = without;
            }
            let left = outbox.pieces.iter().map(|piece| piece.bytes.len()).sum::<usize>();
            prop_assert_eq!(outbox.bytes(), left);
            let mut rest = std::iter::repeat(7);
            let socket = Narrow { takes: &mut rest, taken: &mut taken };
            let flushed = outbox.flush(socket, 0).unwrap();
            prop_assert!(flushed);
            let (taken, all) = (String::from_utf8(taken).unwrap(), pieces.concat());
            let whole = taken.is_empty() || taken.ends_with(';');
            prop_assert!(whole && all.starts_with(&taken));
            prop_assert!(cut || taken == all);
            let mut of_taken = Sum::default();
            of_taken.add(taken.as_bytes());
            prop_assert_eq!(sum.trailer(), of_taken.trailer());
        }
    }
}
