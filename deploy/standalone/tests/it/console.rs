//! The console's pages as ingress serves them; what they do is tested in a browser (`client/test/console`).

use serde_json::{Value, json};

use crate::support::{Answer, Client, Parley};

async fn with(client: &Client, path: &str, name: &str, value: &str) -> Answer {
    Answer::to(client.request("GET", path).header(name, value)).await
}

#[tokio::test]
async fn pages_come_with_type_and_tag_and_are_not_sent_twice() {
    let parley = Parley::start().await;
    let anyone = parley.client();
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/console/index.html", "text/html; charset=utf-8"),
        ("/console/main.js", "text/javascript; charset=utf-8"),
        ("/console/pages/chat.js", "text/javascript; charset=utf-8"),
        ("/console/style.css", "text/css; charset=utf-8"),
        ("/console/icon.svg", "image/svg+xml"),
        ("/console/client/index.js", "text/javascript; charset=utf-8"),
        ("/console/vendor/eventsource-parser/index.js", "text/javascript; charset=utf-8"),
    ] {
        let page = anyone.get(path).await;
        assert_eq!((page.status, page.header("content-type")), (200, content_type), "{path}");
        assert_eq!(page.header("x-content-type-options"), "nosniff");
        assert_eq!(page.header("cache-control"), "no-cache");
        let tag = page.header("etag").to_owned();
        assert!(tag.len() > 10 && tag.starts_with('"'), "{path}: {tag}");
        let head = Answer::to(anyone.request("HEAD", path)).await;
        for name in ["content-type", "content-length", "etag", "content-security-policy"] {
            assert_eq!(head.header(name), page.header(name), "{path}: {name}");
        }
        let weak = format!("\"other\", W/{tag}");
        for (known, status) in [(tag.as_str(), 304), (&weak, 304), ("*", 304), ("\"other\"", 200)] {
            let again = with(&anyone, path, "if-none-match", known).await;
            assert_eq!((again.status, again.header("etag")), (status, tag.as_str()), "{path}");
        }
    }
}

#[tokio::test]
async fn what_is_no_page_is_refused_as_everywhere() {
    let parley = Parley::start().await;
    let anyone = parley.client();
    for path in [
        "/console/",
        "/console/nothing.js",
        "/console/%2e%2e/src/console.rs",
        "/console/vendor/eventsource-parser/LICENSE",
        "/index.html",
    ] {
        anyone.get(path).await.refused(404, "not_found");
    }
    for path in ["/", "/console/main.js", "/console/config.json"] {
        anyone.delete(path).await.refused(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn the_page_may_reach_both_services_and_nothing_else() {
    let parley = Parley::start().await;
    let anyone = parley.client();
    let page = anyone.get("/").await;
    let policy = page.header("content-security-policy");
    let proc = &parley.proc;
    for rule in [
        "default-src 'self'; ",
        &format!("connect-src 'self' {proc}; "),
        "frame-ancestors 'none'; ",
        "require-trusted-types-for 'script'",
    ] {
        assert!(policy.contains(rule), "{rule} is not in {policy}");
    }
    for exception in ["script-src", "style-src", "unsafe", "sha256", "*"] {
        assert!(!policy.contains(exception), "{policy}");
    }
    // Behind a proxy, whatever its name is, both are where the page is.
    for host in ["chat.example", "127.0.0.1:1", "a';script-src", "a b", "*:8010"] {
        let page = with(&anyone, "/", "host", host).await;
        assert!(!page.header("content-security-policy").contains("connect-src"), "{host}");
    }
}

#[tokio::test]
async fn the_page_is_told_where_proc_is_and_whom_it_may_be() {
    let parley = Parley::start().await;
    let anyone = parley.client();
    let config = anyone.get("/console/config.json").await;
    assert_eq!(config.header("cache-control"), "no-store");
    let config = config.is(200);
    assert_eq!(
        (&config["auth_mode"], &config["proc_url"]),
        (&json!("simple"), &json!(parley.proc))
    );
    assert_eq!(config["demo_users"][0], json!({"user": "ada", "name": "Ada", "token": "dev-ada"}));
    let elsewhere = with(&anyone, "/console/config.json", "host", "127.0.0.1:1").await.is(200);
    assert_eq!(elsewhere["proc_url"], Value::Null);

    let port = parley.ingress.rsplit_once(':').expect("a port").1;
    let localhost = format!("http://localhost:{port}");
    for (origin, allowed) in [
        (parley.ingress.as_str(), parley.ingress.as_str()),
        (localhost.as_str(), localhost.as_str()),
        ("http://127.0.0.1:1", ""),
        ("https://chat.example", ""),
    ] {
        let ada = parley.as_user("ada");
        let bundles = with(&ada, "/api/integrations/bundles", "origin", origin);
        assert_eq!(bundles.await.header("access-control-allow-origin"), allowed);
    }
}

#[tokio::test]
async fn users_of_a_file_are_not_shown_and_the_console_can_be_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let users = folder.path().join("users.json");
    std::fs::write(&users, r#"[{"user":"eve","token":"sixteen-characters"}]"#).unwrap();
    let parley = Parley::start_with(&["--auth-users-file", users.to_str().unwrap()]).await;
    let config = parley.client().get("/console/config.json").await.is(200);
    assert_eq!(config["demo_users"], json!([]));

    let parley = Parley::start_with(&["--enable-console", "false"]).await;
    for path in ["/", "/console/main.js", "/console/config.json"] {
        parley.client().get(path).await.refused(404, "not_found");
    }
    let page = &parley.ingress;
    let bundles = with(&parley.as_user("ada"), "/api/integrations/bundles", "origin", page).await;
    assert_eq!(bundles.header("access-control-allow-origin"), "");
}
