//! The files of the console, and of the client library on which it is built, as the answers that they are.

use std::collections::HashMap;

use axum::response::{IntoResponse, Response};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use include_dir::{Dir, DirEntry, include_dir};
use sha2::{Digest, Sha256};

static PAGES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/console");
/// The very modules that the package has.
static CLIENT: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/../client/src");

/// Modules by the names that bundlers know them by, and where pages find them. They are imported from there: an import map
/// would be a script in the page, which the strictest policy does not let run.
const PACKAGES: [(&str, &str); 3] = [
    ("@parley/client", "/console/client/index.js"),
    ("@parley/client/ui", "/console/client/ui.js"),
    ("eventsource-parser", "/console/vendor/eventsource-parser/index.js"),
];

/// Everything that is served, by its path below `/console/`.
#[derive(Debug)]
pub(super) struct Files(HashMap<String, File>);

#[derive(Debug)]
pub(super) struct File {
    content_type: &'static str,
    etag: HeaderValue,
    bytes: Bytes,
}

impl Files {
    /// Returns what is built in.
    pub(super) fn embedded() -> Self {
        let mut files = HashMap::new();
        add(&mut files, "", &PAGES);
        add(&mut files, "client/", &CLIENT);
        Self(files)
    }

    pub(super) fn find(&self, path: &str) -> Option<&File> {
        self.0.get(path)
    }
}

fn add(files: &mut HashMap<String, File>, root: &str, dir: &Dir<'static>) {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(dir) => add(files, root, dir),
            DirEntry::File(file) => {
                let path = format!("{root}{}", file.path().display());
                let Some(content_type) = content_type(&path) else { continue };
                let is_module = content_type.starts_with("text/javascript");
                let bytes = match file.contents_utf8().filter(|_| is_module) {
                    Some(module) => found(module).into(),
                    None => Bytes::from_static(file.contents()),
                };
                files.insert(path, File::new(content_type, bytes));
            }
        }
    }
}

/// Returns a module that imports packages from where they are.
fn found(module: &str) -> String {
    PACKAGES.iter().fold(module.to_owned(), |module, (name, place)| {
        ["from", "import"].iter().fold(module, |module, word| {
            module.replace(&format!("{word} '{name}'"), &format!("{word} '{place}'"))
        })
    })
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
    fn new(content_type: &'static str, bytes: Bytes) -> Self {
        let digest = STANDARD.encode(&Sha256::digest(&bytes)[..18]);
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
        (about, [(header::CONTENT_TYPE, self.content_type)], self.bytes.clone()).into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_and_library_are_there_and_import_from_where_they_are_served() {
        let files = Files::embedded();
        for path in ["index.html", "main.js", "client/index.js", "client/ui.css"] {
            assert!(files.find(path).is_some(), "{path}");
        }
        let mut packages = 0;
        // What is for React is for bundlers; no page here has it.
        let modules = files.0.iter().filter(|(path, file)| {
            file.content_type.starts_with("text/javascript") && *path != "client/react.js"
        });
        for (path, file) in modules {
            let module = std::str::from_utf8(&file.bytes).unwrap();
            let code = module.lines().filter(|line| !line.trim_start().starts_with(['*', '/']));
            for line in code {
                let from = line.split_once(" from '").or_else(|| line.split_once("import '"));
                let Some((place, _)) = from.and_then(|(_, rest)| rest.split_once('\'')) else {
                    continue;
                };
                let place = place.strip_prefix("/console/").inspect(|_| packages += 1);
                assert!(place.is_none_or(|place| files.find(place).is_some()), "{path}: {line}");
                assert!(place.is_some() || line.contains("'."), "{path}: {line}");
            }
        }
        assert!(packages >= PACKAGES.len());
    }
}
