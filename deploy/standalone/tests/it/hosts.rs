//! Names that are answered to, and who may be a demo user.

use crate::{
    raw::Raw,
    support::{Answer, Parley},
};

async fn ask(base: &str, host: &str, path: &str) -> String {
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer dev-admin\r\nconnection: close\r\n\r\n"
    );
    Raw::sending(base, request).await.rest().await
}

#[tokio::test]
async fn a_page_whose_name_was_rebound_reads_nothing() {
    let parley = Parley::start_with(&["--internal-hosts=metrics.example"]).await;
    for host in ["rebound.evil.example:8010", "localhost.evil.example", "metrics.example"] {
        for (base, path) in [
            (&parley.ingress, "/console/config.json"),
            (&parley.ingress, "/api/auth/me"),
            (&parley.ingress, "/"),
            (&parley.proc, "/api/integrations/jobs"),
        ] {
            let answer = ask(base, host, path).await;
            assert!(answer.starts_with("HTTP/1.1 403"), "{host} {path}: {answer}");
            assert!(answer.contains("\"forbidden\"") && !answer.contains("dev-admin"), "{answer}");
        }
    }
    for service in ["ingress", "proc"] {
        let base = parley.internal(service);
        let port = base.rsplit_once(':').expect("a port").1.to_owned();
        for (host, status) in [
            (format!("127.0.0.1:{port}"), "200"),
            (format!("localhost:{port}"), "200"),
            ("[::1]".into(), "200"),
            ("metrics.example".into(), "200"),
            ("rebound.evil.example".into(), "403"),
        ] {
            let answer = ask(&base, &host, "/metrics").await;
            assert_eq!(answer.get(9..12), Some(status), "{service} {host}: {answer}");
        }
    }
    let debug = ask(&parley.internal("ingress"), "evil.example", "/v1/debug/streams").await;
    assert!(debug.starts_with("HTTP/1.1 403"), "{debug}");
}

#[tokio::test]
async fn demo_users_are_refused_once_a_client_of_another_machine_is_forwarded() {
    let parley = Parley::start().await;
    let ada = parley.as_user("ada");
    let from = async |address: &str| {
        let request = parley.client().request("GET", "/nothing");
        Answer::to(request.header("x-forwarded-for", address)).await
    };
    from("127.0.0.1, ::1").await.refused(404, "not_found");
    ada.get("/api/auth/me").await.is(200);
    from("203.0.113.9, 127.0.0.1").await.refused(404, "not_found");
    ada.get("/api/auth/me").await.refused(401, "unauthenticated");
    ada.get("/api/integrations/jobs").await.refused(401, "unauthenticated");
    parley.as_user("grace").get("/sse/stream").await.refused(401, "unauthenticated");
    assert!(parley.log().contains("set AUTH_USERS_FILE"), "{}", parley.log());
}

#[tokio::test]
async fn private_answers_are_kept_by_no_cache() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let session = "/api/auth/sessions";
    let messages = project.path("/messages");
    for path in ["/api/auth/me", "/api/chat/projects", session, &messages, "/api/integrations/jobs"]
    {
        let answer = project.client.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.header("cache-control"), "private, no-store", "{path}");
        let vary = answer.head.get_all("vary").iter();
        let vary: Vec<&str> = vary.filter_map(|value| value.to_str().ok()).collect();
        let vary = vary.join(",").to_lowercase();
        assert!(vary.contains("authorization") && vary.contains("cookie"), "{path}: {vary}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_binds_no_session() {
    let parley = Parley::start().await;
    let get = async |session: &str, site: &str| {
        let request = parley.client().request("GET", &format!("/api/auth/me?session={session}"));
        let request = request.header("cookie", "__Secure-LATC=dev-ada");
        Answer::to(request.header("sec-fetch-site", site)).await
    };
    get("chosen-by-a-page", "cross-site").await.refused(403, "forbidden");
    get("chosen-by-a-page", "same-site").await.refused(403, "forbidden");
    let sessions = parley.as_user("ada").get("/api/auth/sessions").await.is(200);
    assert!(!sessions.to_string().contains("chosen-by-a-page"), "{sessions}");
    get("her-own", "same-origin").await.is(200);
    // What is hers already changes nothing.
    get("her-own", "cross-site").await.is(200);
}

#[tokio::test]
async fn an_id_has_one_spelling() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let id = &project.id;
    project.client.get(&format!("/api/chat/projects/{id}")).await.is(200);
    for other in
        [id.to_uppercase(), id.replace('-', ""), format!("urn:uuid:{id}"), format!("{{{id}}}")]
    {
        let path = format!("/api/chat/projects/{other}");
        project.client.get(&path).await.refused(400, "invalid_request");
    }
}

#[tokio::test]
async fn json_is_nested_64_deep_at_most() {
    let parley = Parley::start().await;
    let project = parley.as_user("ada").project().await;
    let send = async |depth: usize| {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        let body = format!("{{\"text\":\"[[\",\"metadata\":{{\"a\":{open}{close}}}}}");
        let request = project.client.request("POST", &project.path("/messages"));
        Answer::to(request.header("content-type", "application/json").body(body)).await
    };
    send(62).await.is(201);
    for depth in [63, 64, 100, 126, 127, 10_000] {
        send(depth).await.refused(400, "invalid_request");
    }
}
