//! What a request was answered.

use reqwest::{RequestBuilder, header::HeaderMap};
use serde_json::Value;

/// What a request was answered.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: HeaderMap,
    /// The body, null if it is not JSON.
    pub(crate) body: Value,
}

impl Answer {
    pub(crate) async fn to(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        let (status, head) = (response.status().as_u16(), response.headers().clone());
        let body = response.bytes().await.expect("a whole body");
        Self { status, head, body: serde_json::from_slice(&body).unwrap_or_default() }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.head.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// Returns the body of an answer that is to have this status.
    #[track_caller]
    pub(crate) fn is(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// Returns the body of a refusal, after holding it to the contract's shape.
    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Value {
        assert_eq!((self.status, self.body["error"].as_str()), (status, Some(code)), "{self:?}");
        self.is_well_formed_refusal();
        self.body
    }

    #[track_caller]
    pub(crate) fn is_well_formed_refusal(&self) {
        assert!(self.header("content-type").starts_with("application/json"), "{self:?}");
        assert_eq!(self.header("cache-control"), "no-store", "{self:?}");
        assert!(self.body["error"].is_string() && self.body["message"].is_string(), "{self:?}");
        assert!(!self.header("x-trace-id").is_empty(), "{self:?}");
        assert_eq!(self.body["trace_id"], self.header("x-trace-id"), "{self:?}");
    }
}
