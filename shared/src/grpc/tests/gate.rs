//! What the server lets in, without a network in between.

use axum::{Router, body::Body};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{StreamExt, stream::pending};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use tokio::{task::JoinSet, time::timeout};
use tonic::Code;
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tower::ServiceExt;

use super::*;
use crate::{
    config::DrainConfig,
    grpc::{MAX_MESSAGE_BYTES, deadline::Until},
    service_token,
    time::Timestamp,
};

const PATH: &str = "/parley.v1.Jobs/ListUnfinishedJobs";

struct Gate {
    routes: Router,
    token: ServiceToken,
    lifecycle: Lifecycle,
    arrived: mpsc::UnboundedReceiver<()>,
    /// Id of the replica, as its answers name it.
    replica: String,
}

impl Gate {
    async fn new(holds: bool) -> Self {
        let (jobs, arrived) = Jobs::new("a", holds);
        let (token, lifecycle) = (ServiceToken::random(), Lifecycle::default());
        let jobs = JobsServer::new(jobs).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let routes = routes(Service::Proc, Services::of(jobs), token.clone(), &lifecycle);
        let page = Request::get("/").body(Body::empty()).unwrap();
        let answer = routes.clone().oneshot(page).await.unwrap();
        let replica = answer.headers()["parley-replica"].to_str().unwrap().to_owned();
        Self { routes, token, lifecycle, arrived, replica }
    }

    fn signed(&self, path: &str) -> String {
        self.sign(&self.token, Service::Ingress, path, EMPTY, Timestamp::now())
    }

    fn sign(
        &self,
        token: &ServiceToken,
        from: Service,
        path: &str,
        body: &[u8],
        at: Timestamp,
    ) -> String {
        let call = service_token::Call { replica: &self.replica, path };
        format!("Bearer {}", token.sign(from, call, body, at))
    }
}

/// The body of a call with an empty message.
const EMPTY: &[u8] = &[0; 5];

/// A message that says it is this long, and is empty.
fn message(bytes: usize) -> Body {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(bytes.try_into().unwrap());
    Body::from(frame.freeze())
}

fn call(path: &str, identity: &str) -> Request<Body> {
    let request = Request::post(path).header(header::CONTENT_TYPE, "application/grpc");
    request.header(header::AUTHORIZATION, identity).body(message(0)).unwrap()
}

/// Returns the status of the answer, from its head or its end, with its message.
async fn status(answer: Response<Body>) -> (Code, String) {
    assert_eq!(answer.status(), 200);
    let mut said = Status::from_header_map(answer.headers());
    if said.is_none() {
        let end = answer.into_body().collect().await.unwrap();
        said = Status::from_header_map(end.trailers().expect("trailers"));
    }
    let said = said.expect("a status");
    (said.code(), said.message().to_owned())
}

async fn answered(gate: &Gate, request: Request<Body>) -> (Code, String) {
    status(gate.routes.clone().oneshot(request).await.unwrap()).await
}

#[tokio::test]
async fn only_the_other_service_is_let_in_and_nobody_is_told_why() {
    let gate = Gate::new(false).await;
    assert_eq!(answered(&gate, call(PATH, &gate.signed(PATH))).await.0, Code::Ok);
    let now = Timestamp::now();
    let sign = |token: &ServiceToken, from, at| gate.sign(token, from, PATH, EMPTY, at);
    let elsewhere = service_token::Call { replica: "another", path: PATH };
    let elsewhere = gate.token.sign(Service::Ingress, elsewhere, EMPTY, now);
    let used = gate.signed(PATH);
    assert_eq!(answered(&gate, call(PATH, &used)).await.0, Code::Ok);
    let old = Timestamp::now().before(Duration::from_secs(70));
    let refused = [
        String::new(),
        "Bearer".into(),
        "Bearer v2".into(),
        sign(&ServiceToken::random(), Service::Ingress, now),
        sign(&gate.token, Service::Ingress, old),
        sign(&gate.token, Service::Proc, now),
        gate.sign(&gate.token, Service::Ingress, PATH, b"another message", now),
        format!("Bearer {elsewhere}"),
        used,
        gate.signed("/parley.v1.Jobs/Other"),
        gate.signed(PATH).replace("Bearer", "Basic"),
    ];
    let expected = (Code::Unauthenticated, "unauthenticated".to_owned());
    for identity in refused {
        assert_eq!(answered(&gate, call(PATH, &identity)).await, expected, "{identity}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_told_to_those_who_may_know() {
    let gate = Gate::new(false).await;
    let other = "/parley.v1.Jobs/Other";
    assert_eq!(answered(&gate, call(other, &gate.signed(other))).await.0, Code::Unimplemented);
    assert_eq!(answered(&gate, call(other, "")).await.0, Code::Unauthenticated);
    let service = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    assert_eq!(answered(&gate, call(service, "")).await.0, Code::Unimplemented);
    let page = Request::get("/").body(Body::empty()).unwrap();
    assert_eq!(gate.routes.clone().oneshot(page).await.unwrap().status(), 404);
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_before_it_is_read() {
    let gate = Gate::new(false).await;
    let long = message(MAX_MESSAGE_BYTES + 1).collect().await.unwrap().to_bytes();
    let now = Timestamp::now();
    let signed = gate.sign(&gate.token, Service::Ingress, PATH, &long, now);
    let mut request = call(PATH, &signed);
    *request.body_mut() = Body::from(long);
    assert_eq!(answered(&gate, request).await.0, Code::ResourceExhausted);
    let mut request = call(PATH, &gate.signed(PATH));
    *request.body_mut() = Body::from(vec![0; MAX_MESSAGE_BYTES + 6]);
    assert_eq!(answered(&gate, request).await.0, Code::ResourceExhausted);
}

#[tokio::test]
async fn a_deadline_is_kept_by_the_callee() {
    let gate = Gate::new(true).await;
    let mut request = call(PATH, &gate.signed(PATH));
    request.headers_mut().insert("grpc-timeout", "20m".parse().unwrap());
    assert_eq!(answered(&gate, request).await.0, Code::DeadlineExceeded);
}

#[tokio::test]
async fn a_full_replica_sends_calls_elsewhere() {
    let mut gate = Gate::new(true).await;
    let mut running = JoinSet::new();
    for _ in 0..512 {
        running.spawn(gate.routes.clone().oneshot(call(PATH, &gate.signed(PATH))));
        gate.arrived.recv().await.unwrap();
    }
    assert_eq!(answered(&gate, call(PATH, &gate.signed(PATH))).await.0, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn a_stream_ends_at_its_deadline_and_says_so() {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(5);
    let first = futures_util::stream::iter([Ok::<_, io::Error>(Bytes::from_static(b"page"))]);
    let body = Until::new(Body::from_stream(first.chain(pending())), deadline);
    let all = body.collect().await.unwrap();
    let said = Status::from_header_map(all.trailers().unwrap()).unwrap();
    assert_eq!((said.code(), &all.to_bytes()[..]), (Code::DeadlineExceeded, &b"page"[..]));
}

#[tokio::test]
async fn health_follows_the_lifecycle() {
    let gate = Gate::new(false).await;
    let mut health = HealthClient::new(gate.routes.clone());
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "parley.v1.Jobs"] {
        let status = health.check(ask(service)).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::Serving);
    }
    let unknown = health.check(ask("parley.v1.Chat")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let mut watched = health.watch(ask("")).await.unwrap().into_inner();
    let mut nobody = health.watch(ask("other")).await.unwrap().into_inner();
    let serving = watched.message().await.unwrap().unwrap().status();
    let unknown = nobody.message().await.unwrap().unwrap().status();
    assert_eq!((serving, unknown), (ServingStatus::Serving, ServingStatus::ServiceUnknown));

    let delay = Duration::from_millis(500);
    let drain = DrainConfig { drain_delay: delay, drain_spread: delay, drain_timeout: PATIENCE };
    let seen = async {
        let status = watched.message().await.unwrap().unwrap().status();
        assert_eq!(status, ServingStatus::NotServing);
        let status = health.check(ask("")).await.unwrap().into_inner().status();
        assert_eq!(status, ServingStatus::NotServing);
        // They end, or they would hold the process.
        assert!(watched.message().await.unwrap().is_none());
        assert!(nobody.message().await.unwrap().is_none());
    };
    let ran = async { tokio::join!(gate.lifecycle.run(async {}, &drain), seen).0 };
    timeout(PATIENCE, ran).await.expect("it ends").unwrap();
}
