//! Compression that streams can share: raw deflate blocks without context, each compressed once.
//!
//! A gzip stream is a header, any number of deflate blocks, and a trailer. A block that was compressed from nothing
//! and ends on a byte needs nothing of what came before it, so the same bytes fit into every stream at any place, and
//! a reader can have each event the moment its block arrives. Only the trailer's checksum is a stream's own.

use bytes::Bytes;
use crc32fast::Hasher;
use flate2::{Compress, Compression, FlushCompress};

/// What a gzip stream begins with: no name, no time, unknown system.
pub(crate) const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];

/// The longest text of one stored block.
const STORED: usize = 65_535;

/// Some text as deflate blocks that end on a byte.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    bytes: Bytes,
}

impl Block {
    /// Compresses `text`, or stores it as it is where that is shorter.
    pub(crate) fn of(text: &[u8]) -> Self {
        let stored = text.len() + 5 * text.len().div_ceil(STORED).max(1);
        match deflate(text) {
            Some(bytes) if bytes.len() < stored => Self { bytes: bytes.into() },
            _ => Self::stored(text),
        }
    }

    /// Stores `text` as it is.
    pub(crate) fn stored(text: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(text.len() + 5);
        for part in text.chunks(STORED) {
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            bytes.push(0);
            bytes.extend_from_slice(&length.to_le_bytes());
            bytes.extend_from_slice(&(!length).to_le_bytes());
            bytes.extend_from_slice(part);
        }
        Self { bytes: bytes.into() }
    }

    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

/// Compresses from nothing and flushes to a byte; `None` if it grows.
fn deflate(text: &[u8]) -> Option<Vec<u8>> {
    let mut compress = Compress::new(Compression::new(6), false);
    let mut bytes = Vec::with_capacity(text.len() + 64);
    compress.compress_vec(text, &mut bytes, FlushCompress::Sync).ok()?;
    let whole = compress.total_in() == u64::try_from(text.len()).ok()?;
    // Room left says that the flush has come to its end.
    let flushed = bytes.len() < bytes.capacity() && bytes.ends_with(&[0, 0, 255, 255]);
    (whole && flushed).then_some(bytes)
}

/// The checksum of what a stream has carried so far.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Sum {
    crc: u32,
    /// Modulo 2³², as gzip counts.
    length: u32,
}

impl Sum {
    pub(crate) fn add(&mut self, text: &[u8]) {
        let mut hasher = Hasher::new_with_initial(self.crc);
        hasher.update(text);
        self.crc = hasher.finalize();
        self.length = self.length.wrapping_add(u32::try_from(text.len()).unwrap_or(u32::MAX));
    }

    /// Returns what ends the stream: an empty last block, checksum, length.
    pub(crate) fn trailer(self) -> [u8; 13] {
        let mut trailer = [1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0];
        trailer[5..9].copy_from_slice(&self.crc.to_le_bytes());
        trailer[9..].copy_from_slice(&self.length.to_le_bytes());
        trailer
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::{Decompress, FlushDecompress, read::GzDecoder};
    use proptest::prelude::*;

    use super::*;

    fn texts() -> impl Strategy<Value = Vec<String>> {
        let event = prop_oneof![
            ".{0,200}",
            "(data: \\{\"type\":\"message.created\",\"text\":\"[a-z ]{0,400}\"\\}\n\n){1,4}",
            (0..200_000usize).prop_map(|length| "long ".repeat(length / 5)),
        ];
        prop::collection::vec(event, 0..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn blocks_in_any_order_are_one_gzip_member(texts in texts()) {
            let mut stream = HEADER.to_vec();
            let mut sum = Sum::default();
            for text in &texts {
                stream.extend_from_slice(Block::of(text.as_bytes()).bytes());
                sum.add(text.as_bytes());
            }
            stream.extend_from_slice(&sum.trailer());
            let mut read = String::new();
            // Checks the trailer too.
            GzDecoder::new(&stream[..]).read_to_string(&mut read).unwrap();
            prop_assert_eq!(read, texts.concat());
        }

        #[test]
        fn each_text_can_be_read_as_soon_as_its_block_is_there(texts in texts()) {
            let mut inflate = Decompress::new(false);
            for text in &texts {
                let block = Block::of(text.as_bytes());
                let stored = text.len() + 5 * text.len().div_ceil(STORED).max(1);
                prop_assert!(block.bytes().len() <= stored);
                let mut read = Vec::with_capacity(text.len() + 1);
                inflate.decompress_vec(block.bytes(), &mut read, FlushDecompress::Sync).unwrap();
                prop_assert_eq!(&read, text.as_bytes());
            }
        }
    }
}
