//! Users who sign in at a service behind nginx: their tokens reach the services, and never the browser.

use std::{fs, net::SocketAddr, path::Path};

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

use crate::support::{Origin, Parley, read_until};

/// A service that knows who has signed in: `session-<user>`.
struct Login {
    addr: SocketAddr,
    _running: JoinSet<()>,
}

impl Login {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                connections.spawn(answer(socket));
            }
        });
        Self { addr, _running: running }
    }
}

async fn answer(socket: TcpStream) {
    let mut lines = BufReader::new(socket);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if lines.read_line(&mut head).await.unwrap_or(0) == 0 {
            return;
        }
    }
    let user = ["ada", "grace"].into_iter().find(|user| head.contains(&format!("=session-{user}")));
    let answer = match (head.split(' ').nth(1), user) {
        (Some("/proxylogin/verify"), Some(user)) => format!(
            "204 No Content\r\nX-Access-Token: dev-{user}\r\nX-ID-Token: {}",
            "x".repeat(6_000)
        ),
        (Some("/proxylogin/verify"), None) => "401 Unauthorized\r\nContent-Length: 0".into(),
        _ => "200 OK\r\nSet-Cookie: session=session-ada; HttpOnly\r\nContent-Length: 0".into(),
    };
    let answer = format!("HTTP/1.1 {answer}\r\nConnection: close\r\n\r\n");
    let _ = lines.get_mut().write_all(answer.as_bytes()).await;
}

/// Starts nginx with the configuration that is shipped, and the service where the test has it.
async fn start(parley: &Parley, login: SocketAddr) -> Origin {
    Origin::with_files(&[parley.ingress], &[parley.proc], |home| {
        let shipped = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../nginx/proxylogin.conf"));
        let config = fs::read_to_string(shipped).expect("it is shipped");
        let here = config.replace("127.0.0.1:4180", &login.to_string());
        assert_ne!(here, config);
        fs::write(home.join("proxylogin.conf"), here).expect("it is ours");
        let server = home.join("site/server.conf");
        let text = fs::read_to_string(&server).expect("it is ours");
        fs::write(server, format!("{text}include proxylogin.conf;\n")).expect("it is ours");
    })
    .await
}

fn by(origin: &Origin, session: &str, method: Method, path: &str) -> RequestBuilder {
    origin.request(method, path).header("cookie", format!("theme=dark; session={session}"))
}

#[tokio::test]
async fn the_browser_has_a_session_and_the_services_have_the_tokens() {
    let parley = Parley::start(&["--cors-origin", "https://app.example"]).await;
    let login = Login::start().await;
    let origin = start(&parley, login.addr).await;
    // Signing in is the service's.
    let answer = origin.request(Method::GET, "/proxylogin/login").send().await.unwrap();
    let cookie = answer.headers()["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("session=session-ada;"), "{cookie}");
    for (session, path, status) in [
        ("session-ada", "/api/auth/me", 200),
        ("session-ada", "/api/integrations/bundles", 200),
        ("session-nobody", "/api/auth/me", 401),
        ("session-nobody", "/api/integrations/bundles", 401),
        ("session-nobody", "/health", 200),
        ("session-ada", "/proxylogin/verify", 404),
    ] {
        let answer = by(&origin, session, Method::GET, path).send().await.unwrap();
        assert_eq!(answer.status(), status, "{session} {path}");
        let head = format!("{:?}", answer.headers());
        let said = head + &answer.text().await.unwrap();
        assert!(!said.contains("dev-ada"), "{said}");
        assert_eq!(said.contains("\"unauthenticated\""), status == 401, "{said}");
    }
    // Tokens that a browser sends by itself are nothing here; those of a program are.
    let stolen = origin.request(Method::GET, "/api/auth/me");
    let answer = stolen.header("cookie", "__Secure-LATC=dev-admin").send().await.unwrap();
    assert_eq!(answer.status(), 401);
    let me = origin.by("grace", Method::GET, "/api/auth/me").send().await.unwrap();
    assert_eq!(me.json::<Value>().await.unwrap()["user"], "grace");
    // Whose page it is counts as with any cookie.
    let new = json!({"name": "Test"});
    let post = |site: &str| {
        let request = by(&origin, "session-ada", Method::POST, "/api/chat/projects");
        request.header("sec-fetch-site", site.to_owned()).json(&new).send()
    };
    assert_eq!(post("cross-site").await.unwrap().status(), 403);
    let made = post("same-origin").await.unwrap();
    assert_eq!(made.status(), 201);
    let project: Value = made.json().await.unwrap();
    let path = format!("/sse/stream?project_id={}", project["id"].as_str().unwrap());
    let open = |origin_header: &str| {
        let request = by(&origin, "session-ada", Method::GET, &path);
        request.header("origin", origin_header.to_owned()).send()
    };
    assert_eq!(open("https://evil.example").await.unwrap().status(), 403);
    for allowed in [origin.nginx.url(), "https://app.example".into()] {
        let mut stream = open(&allowed).await.unwrap();
        assert_eq!(stream.status(), 200, "{allowed}");
        read_until(&mut stream, "\"hello\"").await;
    }
    let logs = origin.stop_and_read_logs().await;
    assert!(!logs.contains("session-") && !logs.contains("dev-"), "{logs}");
}

#[tokio::test]
async fn without_the_login_service_nobody_is_let_in_and_all_is_said_in_one_shape() {
    let parley = Parley::start(&[]).await;
    let origin = start(&parley, "127.0.0.1:1".parse().unwrap()).await;
    let answer = by(&origin, "session-ada", Method::GET, "/api/auth/me").send().await.unwrap();
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json::<Value>().await.unwrap()["error"], "unavailable");
    let health = origin.request(Method::GET, "/health").send().await.unwrap();
    assert_eq!(health.status(), 200);
}
