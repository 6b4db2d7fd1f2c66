//! The internal listeners as a stranger meets them: who is let in, what is too much, what health says.

use std::{sync::Arc, time::Duration};

use proto::{
    GetAccessRequest, ImportMessage, ImportMessagesRequest, ListUnfinishedJobsRequest,
    chat_client::ChatClient, jobs_client::JobsClient,
};
use secrecy::SecretString;
use shared::{
    service_token::{Call, Service, ServiceToken, ServiceTokenConfig},
    time::Timestamp,
};
use tokio::time::timeout;
use tonic::{
    Code, Request, Status,
    client::Grpc,
    codegen::http::uri::PathAndQuery,
    transport::{Channel, Endpoint},
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_prost::ProstCodec;

use crate::{
    job::follow,
    support::{Answer, PATIENCE, Parley},
};

const KEY: &str = "a key that is long enough, for tests alone";
const ACCESS: &str = "/parley.v1.Chat/GetAccess";
const LIST: &str = "/parley.v1.Jobs/ListUnfinishedJobs";

fn keys(key: &str) -> ServiceToken {
    let config = ServiceTokenConfig {
        service_token: Some(SecretString::from(key.to_owned())),
        service_token_previous: None,
    };
    ServiceToken::required(&config).expect("a long key")
}

async fn started() -> Parley {
    Parley::start_with(&["--service-token", KEY, "--log", "trace"]).await
}

async fn channel(parley: &Parley, service: &str) -> Channel {
    let endpoint = Endpoint::from_shared(parley.internal(service)).expect("a URL");
    endpoint.timeout(PATIENCE).connect().await.expect("it listens")
}

/// The body of a call whose message has nothing in it.
const EMPTY: &[u8] = &[0; 5];

/// Returns the id of the replica, as its answers name it.
async fn replica(channel: &Channel) -> String {
    let asked = HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await;
    let answer = asked.expect("an answer");
    let id = answer.metadata().get("parley-replica").expect("the replica's id");
    id.to_str().expect("text").to_owned()
}

/// Makes a request with an identity, or none.
fn with<T>(message: T, identity: Option<&str>) -> Request<T> {
    let mut request = Request::new(message);
    if let Some(identity) = identity {
        let bearer = format!("Bearer {identity}").parse().expect("a header value");
        request.metadata_mut().insert("authorization", bearer);
    }
    request
}

#[tokio::test]
async fn strangers_are_refused_and_not_told_why() {
    let parley = started().await;
    let (ours, now) = (keys(KEY), Timestamp::now());
    let mut chat = ChatClient::new(channel(&parley, "ingress").await);
    let proc = channel(&parley, "proc").await;
    let id = replica(&proc).await;
    let mut jobs = JobsClient::new(proc);
    let list_here = Call { replica: &id, path: LIST };
    let access_here = Call { replica: &id, path: ACCESS };
    let list_elsewhere = Call { replica: "another", path: LIST };
    let known = ours.sign(Service::Ingress, list_here, EMPTY, now);
    let list = ListUnfinishedJobsRequest::default();
    jobs.list_unfinished_jobs(with(list.clone(), Some(&known))).await.unwrap();

    let old = now.before(Duration::from_mins(2));
    let forged = keys(&KEY.to_uppercase());
    for identity in [
        None,
        Some(KEY.to_owned()),
        Some(forged.sign(Service::Ingress, list_here, EMPTY, now)),
        Some(ours.sign(Service::Ingress, list_here, EMPTY, old)),
        Some(ours.sign(Service::Ingress, access_here, EMPTY, now)),
        Some(ours.sign(Service::Ingress, list_elsewhere, EMPTY, now)),
        Some(ours.sign(Service::Ingress, list_here, b"another message", now)),
        Some(ours.sign(Service::Proc, list_here, EMPTY, now)),
        // The signature was used before.
        Some(known.clone()),
    ] {
        let refused = jobs.list_unfinished_jobs(with(list.clone(), identity.as_deref())).await;
        let refused = refused.expect_err("nobody");
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "unauthenticated"));
    }
    for identity in [None, Some(known.as_str())] {
        let refused = chat.get_access(with(GetAccessRequest::default(), identity)).await;
        assert_eq!(refused.expect_err("nobody").code(), Code::Unauthenticated);
    }
}

#[tokio::test]
async fn too_much_and_the_unknown_are_answered_as_grpc_has_it() {
    let parley = started().await;
    let channel = channel(&parley, "ingress").await;
    let id = replica(&channel).await;
    let sign = |path: &str| {
        let call = Call { replica: &id, path };
        keys(KEY).sign(Service::Proc, call, EMPTY, Timestamp::now())
    };
    let messages = vec![ImportMessage { text: "x".repeat(9 << 20), ..ImportMessage::default() }];
    let oversize = ImportMessagesRequest { messages, ..ImportMessagesRequest::default() };
    let identity = sign("/parley.v1.Chat/ImportMessages");
    let refused = ChatClient::new(channel.clone())
        .import_messages(with(oversize, Some(&identity)))
        .await
        .expect_err("too long");
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");

    for path in ["/parley.v1.Chat/Other", "/parley.v1.Other/GetAccess"] {
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.unwrap();
        let request = with(GetAccessRequest::default(), Some(&sign(path)));
        let codec = ProstCodec::<GetAccessRequest, GetAccessRequest>::default();
        let path = PathAndQuery::from_static(path);
        let refused: Status = grpc.unary(request, path, codec).await.expect_err("not there");
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
    }

    // Who a call acts for is said in its message and nowhere else.
    let mut request = with(GetAccessRequest::default(), Some(&sign(ACCESS)));
    for name in ["x-user", "x-user-id", "x-forwarded-user"] {
        request.metadata_mut().insert(name, "ada".parse().unwrap());
    }
    let refused = ChatClient::new(channel).get_access(request).await.expect_err("nobody");
    assert_eq!(refused.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn a_trace_goes_through_and_no_secret_is_logged() {
    let parley = started().await;
    let ada = parley.as_user("ada");
    let refused = ada.request("GET", "/api/jobs/stream").header("x-trace-id", "trace-42");
    let stream = refused.send().await.unwrap();
    assert_eq!(stream.status(), 200);
    let log = parley.log();
    let call = format!("call{{trace.id=trace-42 path={LIST:?}}}");
    assert!(log.contains(&call), "{call} is missing");
    assert!(!log.contains(KEY) && !log.contains("v2.ingress.") && !log.contains("v2.proc."));
}

#[tokio::test]
async fn health_is_told_until_the_end_and_does_not_hold_it_up() {
    let flags = ["--drain-delay", "1s", "--drain-spread", "0s"];
    let mut parley = Parley::start_with(&flags).await;
    let mut watching = Vec::new();
    for (service, name) in [("ingress", "parley.v1.Chat"), ("proc", "parley.v1.Jobs")] {
        let mut health = HealthClient::new(channel(&parley, service).await);
        for name in ["", name] {
            let asked = HealthCheckRequest { service: name.into() };
            let answer = health.check(asked.clone()).await.unwrap().into_inner();
            assert_eq!(answer.status(), ServingStatus::Serving);
            let mut watch = health.watch(asked).await.unwrap().into_inner();
            let first = watch.message().await.unwrap().unwrap();
            assert_eq!(first.status(), ServingStatus::Serving);
            watching.push((health.clone(), watch));
        }
    }
    parley.signal();
    for (health, watch) in &mut watching {
        let change = timeout(PATIENCE, watch.message()).await.expect("it is told");
        assert_eq!(change.unwrap().unwrap().status(), ServingStatus::NotServing);
        let answer = health.check(HealthCheckRequest::default()).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::NotServing);
    }
    // Calls are still answered, as requests are.
    follow(&parley.as_user("ada")).await;
    assert!(parley.ended().await.success());
}

#[tokio::test]
async fn the_public_listeners_have_no_grpc() {
    let parley = Parley::start().await;
    let http = parley.client();
    for path in [ACCESS, LIST, "/grpc.health.v1.Health/Check"] {
        let request = http.request("POST", path).header("content-type", "application/grpc");
        Answer::to(request).await.refused(404, "not_found");
    }
}

#[tokio::test]
async fn a_short_key_is_refused_at_the_start_and_not_shown() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let said = Parley::refusal(&dir, &["--service-token", "s3cret"]).await;
    assert!(said.contains("SERVICE_TOKEN needs at least 32 characters"), "{said}");
    assert!(!said.contains("s3cret"), "{said}");
}
