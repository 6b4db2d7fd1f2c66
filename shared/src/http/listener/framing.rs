//! Lengths that the heads of requests state, read from the bytes of a connection as they come.
//!
//! Hyper takes the `Content-Length` out of a head that has a `Transfer-Encoding` too. Such a request is to be refused, as another
//! reader of the same bytes may find another end of its body.

use std::collections::VecDeque;

/// Bytes of a line that are kept; the lines that matter are shorter.
const MAX_LINE_BYTES: usize = 128;
/// Bytes of the line end behind a chunk.
const CHUNK_END_BYTES: u64 = 2;

/// Follows the requests of a connection from head to head.
#[derive(Debug, Default)]
pub(super) struct Framing {
    place: Place,
    /// The current line, as far as it came and is kept.
    line: Vec<u8>,
    /// Length of the current line in bytes.
    line_bytes: usize,
    head: Lengths,
    /// Flag for each complete head that was not taken yet: true if the head states two lengths.
    heads: VecDeque<bool>,
}

#[derive(Debug, Default)]
enum Place {
    /// Before a head.
    #[default]
    Start,
    Head,
    /// So many bytes before the end of a body.
    Body(u64),
    ChunkSize,
    /// So many bytes before the next chunk.
    Chunk(u64),
    Trailers,
    /// Behind a length that cannot be read, which hyper most likely refuses.
    Lost,
}

/// Lengths of one body.
#[derive(Debug, Default)]
struct Lengths {
    is_chunked: bool,
    content: Option<u64>,
    is_invalid: bool,
}

impl Framing {
    /// Follows the next bytes of the connection.
    pub(super) fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.place {
                Place::Lost => return,
                Place::Body(left) => {
                    let rest = skip(&mut bytes, left);
                    self.place = if rest == 0 { Place::Start } else { Place::Body(rest) };
                }
                Place::Chunk(left) => {
                    let rest = skip(&mut bytes, left);
                    self.place = if rest == 0 { Place::ChunkSize } else { Place::Chunk(rest) };
                }
                Place::Start | Place::Head | Place::ChunkSize | Place::Trailers => {
                    let end = bytes.iter().position(|byte| *byte == b'\n');
                    let (part, rest) = bytes.split_at(end.map_or(bytes.len(), |end| end + 1));
                    let room = MAX_LINE_BYTES - self.line.len();
                    self.line.extend_from_slice(&part[..part.len().min(room)]);
                    self.line_bytes += part.len();
                    bytes = rest;
                    if end.is_some() {
                        self.end_line();
                    }
                }
            }
        }
    }

    /// Returns whether the next head states two lengths. A head that was not understood does.
    pub(super) fn take_head(&mut self) -> bool {
        self.heads.pop_front().unwrap_or(true)
    }

    fn end_line(&mut self) {
        let mut line = std::mem::take(&mut self.line);
        let is_cut = std::mem::take(&mut self.line_bytes) > line.len();
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let is_crlf = line.ends_with(b"\r\n");
        match self.place {
            // LF alone ends only the lines of a head, and a line that was cut has lost its end.
            Place::ChunkSize | Place::Trailers if !is_crlf => self.place = Place::Lost,
            Place::Start if !text.is_empty() => {
                (self.place, self.head) = (Place::Head, Lengths::default());
            }
            Place::Head if text.is_empty() && !is_cut => self.end_head(),
            Place::Head => self.head.read(text, is_cut),
            Place::ChunkSize => {
                self.place = match chunk_size(text) {
                    Some(0) => Place::Trailers,
                    Some(size) => Place::Chunk(size.saturating_add(CHUNK_END_BYTES)),
                    None => Place::Lost,
                };
            }
            Place::Trailers if text.is_empty() => self.place = Place::Start,
            _ => {}
        }
        line.clear();
        self.line = line;
    }

    fn end_head(&mut self) {
        let Lengths { is_chunked, content, is_invalid } = self.head;
        self.heads.push_back(is_chunked && content.is_some());
        self.place = match content {
            _ if is_invalid => Place::Lost,
            _ if is_chunked => Place::ChunkSize,
            Some(1..) => Place::Body(content.unwrap_or_default()),
            _ => Place::Start,
        };
    }
}

impl Lengths {
    /// Reads a line of a head.
    fn read(&mut self, line: &[u8], is_cut: bool) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { return };
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let value = std::str::from_utf8(value.trim_ascii()).ok();
            let length = value.and_then(|value| value.parse().ok());
            self.is_invalid |= is_cut || length.is_none();
            self.content = Some(length.unwrap_or_default());
        }
    }
}

/// Skips at most `count` bytes; returns how many of them are left to skip.
fn skip(bytes: &mut &[u8], count: u64) -> u64 {
    let skipped = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
    *bytes = &bytes[skipped..];
    count - skipped as u64
}

/// Returns the size in a chunk's first line, which extensions may follow.
fn chunk_size(line: &[u8]) -> Option<u64> {
    let size = line.split(|byte| *byte == b';').next()?;
    u64::from_str_radix(std::str::from_utf8(size.trim_ascii()).ok()?, 16).ok()
}
