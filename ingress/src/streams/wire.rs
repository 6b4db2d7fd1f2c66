//! The form of one stream's bytes: chunked or not, compressed or not.

use bytes::Bytes;
use http::Version;
use shared::journal::Cursor;

use super::{
    frame::{Frame, chunk_head, end},
    gzip::{self, Block, Sum},
};

/// Encodes what one stream carries, and remembers what its end needs.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    /// HTTP/1.1 frames a body of unknown length in chunks; with HTTP/1.0 its end is the end of the connection.
    chunked: bool,
    /// `None` if the stream is not compressed.
    sum: Option<Sum>,
}

impl Wire {
    pub(crate) fn new(version: Version, compressed: bool) -> Self {
        Self { chunked: version >= Version::HTTP_11, sum: compressed.then(Sum::default) }
    }

    /// Returns the stream's first bytes, which HTTP itself puts into a chunk.
    pub(crate) fn first(&mut self, text: &str) -> Bytes {
        let Some(sum) = &mut self.sum else { return text.to_owned().into() };
        sum.add(text.as_bytes());
        let mut bytes = gzip::HEADER.to_vec();
        bytes.extend_from_slice(Block::of(text.as_bytes()).bytes());
        bytes.into()
    }

    /// Returns a shared event's bytes, the same ones for every stream of this form.
    pub(crate) fn frame(&mut self, frame: &Frame) -> Bytes {
        match (&mut self.sum, self.chunked) {
            (None, true) => frame.chunk().clone(),
            (None, false) => frame.plain(),
            (Some(sum), chunked) => {
                sum.add(frame.text());
                if chunked { frame.zipped_chunk().clone() } else { frame.zipped_plain() }
            }
        }
    }

    /// Returns a shared event's bytes with a cursor of this stream's own.
    pub(crate) fn frame_at(&mut self, frame: &Frame, cursor: &Cursor) -> Bytes {
        let end = end(Some(cursor));
        let Some(sum) = &mut self.sum else {
            return self.wrap(&[frame.data(), end.as_bytes()]);
        };
        sum.add(frame.data());
        sum.add(end.as_bytes());
        let end = Block::stored(end.as_bytes());
        self.wrap(&[frame.zipped_data().bytes(), end.bytes()])
    }

    /// Returns the bytes of an event that only this stream has.
    pub(crate) fn text(&mut self, text: &str) -> Bytes {
        match &mut self.sum {
            None => self.wrap(&[text.as_bytes()]),
            Some(sum) => {
                sum.add(text.as_bytes());
                self.wrap(&[Block::of(text.as_bytes()).bytes()])
            }
        }
    }

    /// Returns the checksum of what was encoded so far.
    pub(crate) fn sum(&self) -> Option<Sum> {
        self.sum
    }

    /// Takes back what was encoded since the checksum was this one.
    pub(crate) fn rewind(&mut self, sum: Sum) {
        self.sum = Some(sum);
    }

    /// Returns what ends the stream.
    pub(crate) fn end(&self) -> Bytes {
        let mut bytes = Vec::new();
        if let Some(sum) = &self.sum {
            bytes.extend_from_slice(&self.wrap(&[&sum.trailer()]));
        }
        if self.chunked {
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        bytes.into()
    }

    /// Says whether a frame's chunk is what this stream carries, as it is.
    pub(crate) fn is_simple(&self) -> bool {
        self.chunked && self.sum.is_none()
    }

    fn wrap(&self, parts: &[&[u8]]) -> Bytes {
        let length = parts.iter().map(|part| part.len()).sum();
        let mut bytes = Vec::with_capacity(length + 12);
        if self.chunked {
            chunk_head(&mut bytes, length);
        }
        for part in parts {
            bytes.extend_from_slice(part);
        }
        if self.chunked {
            bytes.extend_from_slice(b"\r\n");
        }
        bytes.into()
    }
}
