//! The files of the console, and of the client library on which it is built, as the answers that they are.

use std::collections::HashMap;

use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/console");
/// The very modules that the package has.
static CLIENT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../client/src");

const MAP_BEGIN: &str = "<script type=\"importmap\">";
const MAP_END: &str = "</script>";

/// Everything that is served, by its path below `/console/`.
#[derive(Debug)]
pub(super) struct Files {
    files: HashMap<String, File>,
    /// The source expression that lets the page's import map run.
    pub(super) import_map: String,
}

#[derive(Debug)]
pub(super) struct File {
    content_type: &'static str,
    etag: HeaderValue,
    bytes: &'static [u8],
}

impl Files {
    /// Returns what is built in.
    pub(super) fn embedded() -> Self {
        let mut files = HashMap::new();
        add(&mut files, "", &PAGES);
        add(&mut files, "client/", &CLIENT);
        let index =
            PAGES.get_file("index.html").and_then(|file| file.contents_utf8()).unwrap_or("");
        let map = index.split_once(MAP_BEGIN).and_then(|(_, rest)| rest.split_once(MAP_END));
        let map = map.map_or("", |(map, _)| map);
        let import_map = format!("'sha256-{}'", STANDARD.encode(Sha256::digest(map)));
        Self { files, import_map }
    }

    pub(super) fn find(&self, path: &str) -> Option<&File> {
        self.files.get(path)
    }
}

fn add(files: &mut HashMap<String, File>, root: &str, dir: &Dir<'static>) {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) => add(files, root, dir),
            DirEntry::File(file) => {
                let path = format!("{root}{}", file.path().display());
                let Some(content_type) = content_type(&path) else { continue };
                files.insert(path, File::new(content_type, file.contents()));
            }
        }
    }
}

/// Returns a file's type, `None` for what is not served.
fn content_type(path: &str) -> Option<&'static str> {
    let (_, ending) = path.rsplit_once('.')?;
    Some(match ending {
        "css" => "text/css; charset=utf-8",
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

impl File {
    fn new(content_type: &'static str, bytes: &'static [u8]) -> Self {
        let digest = STANDARD.encode(&Sha256::digest(bytes)[..18]);
        let etag = format!("\"{digest}\"").parse().unwrap_or(HeaderValue::from_static("\"\""));
        Self { content_type, etag, bytes }
    }

    pub(super) fn is_page(&self) -> bool {
        self.content_type.starts_with("text/html")
    }

    /// Returns the file, or that the caller has it already.
    pub(super) fn answer(&self, headers: &HeaderMap) -> Response {
        let known = headers.get_all(header::IF_NONE_MATCH).iter();
        let known = known.filter_map(|value| value.to_str().ok()).flat_map(|tags| tags.split(','));
        let own = self.etag.to_str().unwrap_or_default();
        let is_known = |tag: &str| [own, "*"].contains(&tag.trim().trim_start_matches("W/"));
        let about = [
            (header::ETAG, self.etag.clone()),
            (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        ];
        if known.into_iter().any(is_known) {
            return (StatusCode::NOT_MODIFIED, about).into_response();
        }
        (about, [(header::CONTENT_TYPE, self.content_type)], self.bytes).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_library_are_there_with_an_import_map_that_may_run() {
        let files = Files::embedded();
        for path in ["index.html", "main.js", "client/index.js", "client/ui.css"] {
            assert!(files.find(path).is_some(), "{path}");
        }
        let of_nothing = STANDARD.encode(Sha256::digest(""));
        assert!(!files.import_map.contains(&of_nothing));
    }
}
