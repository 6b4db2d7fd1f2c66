//! Cookies, which a browser adds whoever made the page: they count for pages of our own origin and of configured ones.

use std::time::Duration;

use serde_json::json;

use crate::support::{Answer, Parley};

const APP: &str = "https://app.example";

#[tokio::test]
async fn a_cookie_serves_pages_of_its_own_origin_and_of_configured_ones() {
    let parley = Parley::start_with(&["--cors-origin", APP]).await;
    let project = parley.as_user("ada").project().await;
    let stream = format!("/sse/stream?project_id={}", project.id);
    let projects = "/api/chat/projects".to_owned();
    let me = "/api/auth/me".to_owned();
    let jobs = "/api/integrations/bundles/demo/operations/count".to_owned();
    // Each service is an origin of its own here.
    let own = "own";
    let site = |site: &str| vec![("sec-fetch-site", site.to_owned())];
    let origin = |origin: &str| vec![("origin", origin.to_owned())];
    let both = |of: &str, at: &str| [origin(of), site(at)].concat();
    for (headers, may) in [
        (vec![], true),
        (site("same-origin"), true),
        (site("none"), true),
        (origin(own), true),
        (both(own, "same-origin"), true),
        (origin(APP), true),
        (both(APP, "cross-site"), true),
        (site("cross-site"), false),
        (site("same-site"), false),
        (origin("https://evil.example"), false),
        (origin("null"), false),
        (both("https://app.example.evil.example", "cross-site"), false),
        (both(own, "cross-site"), false),
    ] {
        for (method, path, good) in [
            ("GET", &stream, 200),
            ("HEAD", &stream, 200),
            ("POST", &projects, 201),
            ("POST", &jobs, 202),
            // Nothing happens, and who may read the answer is for CORS to say.
            ("GET", &me, 200),
            ("HEAD", &me, 200),
        ] {
            let is_read = path == &me;
            let body = if path == &jobs {
                json!({"project_id": project.id, "data": {"to": 1, "delay_ms": 0}})
            } else {
                json!({"name": "Test"})
            };
            let ask = |credential: (&str, &str)| {
                let mut request = parley.client().request(method, path).json(&body);
                for (name, value) in &headers {
                    let base = if path == &jobs { &parley.proc } else { &parley.ingress };
                    request = request.header(*name, if value == own { base } else { value });
                }
                request.header(credential.0, credential.1).timeout(Duration::from_secs(20))
            };
            let response = ask(("cookie", "__Secure-LATC=dev-ada")).send().await.unwrap();
            let status = if may || is_read { good } else { 403 };
            assert_eq!(response.status(), status, "{method} {path} {headers:?}");
            // Another page does not know the token, so who does may use it.
            let response = ask(("authorization", "Bearer dev-ada")).send().await.unwrap();
            assert_eq!(response.status(), good, "{method} {path} {headers:?}");
        }
    }
    let request = parley.client().request("POST", &projects).json(&json!({"name": "Test"}));
    let request = request.header("origin", "https://evil.example");
    let refused = Answer::to(request.header("cookie", "__Secure-LATC=dev-ada")).await;
    refused.refused(403, "forbidden");
}
