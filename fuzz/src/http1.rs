//! Reader of HTTP/1.1 requests by RFC 9112, independent of the services' reader.

/// A request; the body is `None` where it did not come to its end.
#[derive(Debug)]
pub struct Head {
    pub method: String,
    pub target: String,
    /// Names in small letters.
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Option<Vec<u8>>,
}

/// Returns the requests of a connection, up to the first that this reader does not understand or that did not come whole.
#[must_use]
pub fn requests(mut bytes: &[u8]) -> Vec<Head> {
    let mut requests = Vec::new();
    while let Some((mut head, rest)) = head(bytes) {
        let body = body(&head, rest);
        let next = body.as_ref().map(|(_, rest)| *rest);
        head.body = body.map(|(body, _)| body);
        requests.push(head);
        match next {
            Some(rest) => bytes = rest,
            None => break,
        }
    }
    requests
}

/// Splits off a line, which CRLF or, as RFC 9112 (2.2) lets a reader do, LF alone ends.
fn line(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == b'\n')?;
    let line = &bytes[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[end + 1..]))
}

fn head(mut bytes: &[u8]) -> Option<(Head, &[u8])> {
    let (mut first, mut rest) = line(bytes)?;
    // Empty lines before a request are ignored.
    while first.is_empty() {
        bytes = rest;
        (first, rest) = line(bytes)?;
    }
    let first = std::str::from_utf8(first).ok()?;
    let [method, target, "HTTP/1.1" | "HTTP/1.0"] = first.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let mut headers = Vec::new();
    loop {
        let (field, after) = line(rest)?;
        rest = after;
        if field.is_empty() {
            break;
        }
        let colon = field.iter().position(|byte| *byte == b':')?;
        let name = std::str::from_utf8(&field[..colon]).ok()?.to_ascii_lowercase();
        headers.push((name, field[colon + 1..].trim_ascii().to_vec()));
    }
    let (method, target) = (method.to_owned(), target.to_owned());
    Some((Head { method, target, headers, body: None }, rest))
}

fn body<'a>(head: &Head, bytes: &'a [u8]) -> Option<(Vec<u8>, &'a [u8])> {
    let find = |name: &str| head.headers.iter().find(|(header, _)| header == name);
    if find("transfer-encoding").is_some() {
        return chunked(bytes);
    }
    let Some((_, length)) = find("content-length") else { return Some((Vec::new(), bytes)) };
    let length: usize = std::str::from_utf8(length).ok()?.parse().ok()?;
    let (body, rest) = bytes.split_at_checked(length)?;
    Some((body.to_vec(), rest))
}

fn chunked(mut bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut body = Vec::new();
    loop {
        let (size, rest) = line(bytes)?;
        let size = size.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
        let size = usize::from_str_radix(std::str::from_utf8(size).ok()?, 16).ok()?;
        if size == 0 {
            bytes = rest;
            break;
        }
        let (chunk, rest) = rest.split_at_checked(size)?;
        body.extend_from_slice(chunk);
        bytes = rest.strip_prefix(b"\r\n")?;
    }
    loop {
        let (trailer, rest) = line(bytes)?;
        bytes = rest;
        if trailer.is_empty() {
            return Some((body, bytes));
        }
    }
}
