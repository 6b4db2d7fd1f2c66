//! What is done twice and what is not, when replicas hang and break in the middle.

use tokio::time::timeout;
use tonic::Code;

use super::*;
use crate::http::with_trace;

#[tokio::test]
async fn a_call_that_may_be_repeated_is_when_its_replica_breaks() {
    let token = ServiceToken::random();
    let mut a = Replica::start("a", &token, true);
    let b = Replica::start("b", &token, false);
    let calls = unasked(&[a.address, b.address], &token).calls(PATIENCE).repeatable();
    let (answer, ()) = tokio::join!(ask(&calls), async {
        a.arrived.recv().await.unwrap();
        a.kill();
    });
    assert_eq!(answer.unwrap(), "b");
}

#[tokio::test]
async fn any_other_call_is_not_repeated_when_its_replica_breaks() {
    let token = ServiceToken::random();
    let mut a = Replica::start("a", &token, true);
    let b = Replica::start("b", &token, false);
    let calls = unasked(&[a.address, b.address], &token).calls(PATIENCE);
    let (answer, ()) = tokio::join!(ask(&calls), async {
        a.arrived.recv().await.unwrap();
        a.kill();
    });
    assert_eq!(answer.unwrap_err().code(), Code::Unavailable);
    assert_eq!(b.asked(), 0);
}

#[tokio::test]
async fn a_call_that_never_left_goes_elsewhere() {
    let token = ServiceToken::random();
    let b = Replica::start("b", &token, false);
    let calls = unasked(&[nowhere(), nowhere(), b.address], &token).calls(PATIENCE);
    assert_eq!(ask(&calls).await.unwrap(), "b");
}

#[tokio::test]
async fn a_replica_that_hangs_does_not_use_up_the_time_there_is() {
    let token = ServiceToken::random();
    let hangs = Replica::start("a", &token, true);
    let b = Replica::start("b", &token, false);
    // Takes connections and says nothing, as a stopped process does.
    let frozen = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [hangs.address, frozen.local_addr().unwrap(), b.address];
    let peer = unasked(&addresses, &token);
    let calls = peer.calls(Duration::from_secs(3)).repeatable();
    assert_eq!(ask(&calls).await.unwrap(), "b");
    assert_eq!(hangs.asked(), 1);
}

#[tokio::test]
async fn a_deadline_is_kept_by_the_caller() {
    let token = ServiceToken::random();
    let a = Replica::start("a", &token, true);
    for calls in [unasked(&[a.address], &token).calls(Duration::from_millis(50))] {
        for calls in [calls.clone(), calls.repeatable()] {
            let asked = timeout(PATIENCE, ask(&calls)).await.expect("it is kept");
            assert_eq!(asked.unwrap_err().code(), Code::DeadlineExceeded);
        }
    }
}

#[tokio::test]
async fn the_trace_goes_with_the_call() {
    let token = ServiceToken::random();
    let a = Replica::start("a", &token, false);
    let calls = unasked(&[a.address], &token).calls(PATIENCE);
    let trace = "trace-1".parse().unwrap();
    let asked = with_trace(trace, ask_about(&calls, Some("trace"))).await;
    assert_eq!(asked.unwrap(), "trace-1");
    // Without one, the callee makes it.
    assert_eq!(ask_about(&calls, Some("trace")).await.unwrap().len(), 32);
}

#[tokio::test]
async fn a_peer_with_another_key_is_refused_and_not_asked_again() {
    let token = ServiceToken::random();
    let a = Replica::start("a", &token, false);
    let calls = unasked(&[a.address], &ServiceToken::random()).calls(PATIENCE).repeatable();
    let refused = ask(&calls).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "unauthenticated"));
    assert_eq!(a.asked(), 0);
}
