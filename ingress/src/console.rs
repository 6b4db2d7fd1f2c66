//! The console: pages at `/` for who has no client of their own, out of the files that are built into the program.

mod files;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
    routing::get,
};
use http::{HeaderMap, HeaderValue, Uri, header, uri::Authority};
use serde::Serialize;
use shared::{
    auth::{Auth, ConsoleSignIn, DemoUser},
    http::Failure,
};

use self::files::Files;

/// The ports of both services where one process has them: proc is where the page is, at its own port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beside {
    pub(crate) ingress: u16,
    pub(crate) proc: u16,
}

#[derive(Debug)]
struct Console {
    files: Files,
    beside: Option<Beside>,
    auth_mode: &'static str,
    demo_users: &'static [DemoUser],
    oidc: Option<ConsoleSignIn>,
}

/// What the page has to know of the services. Never a secret: tokens of demo users are good on loopback alone.
#[derive(Serialize)]
struct PageConfig<'a> {
    auth_mode: &'static str,
    /// Where proc is, if it is not where the page is.
    proc_url: Option<String>,
    demo_users: &'static [DemoUser],
    /// Sign-in with the issuer, in `oidc` mode.
    oidc: Option<&'a ConsoleSignIn>,
}

/// Returns the routes of the pages, which everybody may read.
pub(crate) fn routes(auth: &Auth, beside: Option<Beside>) -> Router {
    let console = Arc::new(Console {
        files: Files::embedded(),
        beside,
        auth_mode: auth.mode(),
        demo_users: auth.demo_users(),
        oidc: auth.console_sign_in().cloned(),
    });
    let redirect_path = console.oidc.as_ref().map(|oidc| oidc.redirect_path.clone());
    let pages = match redirect_path.filter(|path| path != "/") {
        Some(path) => Router::new().route(&path, get(index)),
        None => Router::new(),
    };
    pages
        .route("/", get(index))
        .route("/console/config.json", get(config))
        .route("/console/{*path}", get(file))
        .with_state(console)
}

async fn index(State(console): State<Arc<Console>>, request: Request) -> Response {
    console.file("index.html", request.headers())
}

async fn file(
    State(console): State<Arc<Console>>,
    Path(path): Path<String>,
    request: Request,
) -> Response {
    console.file(&path, request.headers())
}

async fn config(State(console): State<Arc<Console>>, headers: HeaderMap) -> Response {
    let Console { auth_mode, demo_users, .. } = *console;
    let (proc_url, oidc) = (console.proc_url(&headers), console.oidc.as_ref());
    let config = PageConfig { auth_mode, proc_url, demo_users, oidc };
    ([(header::CACHE_CONTROL, "no-store")], Json(config)).into_response()
}

impl Console {
    fn file(&self, path: &str, headers: &HeaderMap) -> Response {
        let Some(file) = self.files.find(path) else {
            return Failure::new(http::StatusCode::NOT_FOUND, "not_found", "there is no such page")
                .into_response();
        };
        let mut response = file.answer(headers);
        // A page alone has rights; on its parts the header would only be long.
        if file.is_page() {
            response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, self.policy(headers));
        }
        response
    }

    /// Returns where proc is for a page that was asked of ingress itself. Any other host is a proxy's, who has both.
    fn proc_url(&self, headers: &HeaderMap) -> Option<String> {
        let beside = self.beside?;
        let host: Authority = headers.get(header::HOST)?.to_str().ok()?.parse().ok()?;
        let (name, port) = (host.host(), host.port_u16().unwrap_or(80));
        let is_host =
            name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte));
        let url = format!("http://{name}:{}", beside.proc);
        (port == beside.ingress && is_host && url.parse::<Uri>().is_ok()).then_some(url)
    }

    /// Returns the rights of the page: its own files, both services and the issuer.
    fn policy(&self, headers: &HeaderMap) -> HeaderValue {
        let issuer = self.oidc.as_ref().map(|oidc| oidc.origin.clone());
        let others: Vec<_> = self.proc_url(headers).into_iter().chain(issuer).collect();
        let connect = match others.as_slice() {
            [] => String::new(),
            others => format!("connect-src 'self' {}; ", others.join(" ")),
        };
        let policy = format!(
            "default-src 'self'; {connect}base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
             require-trusted-types-for 'script'; trusted-types 'none'"
        );
        // All of them are of characters that a header may have.
        HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
    }
}
