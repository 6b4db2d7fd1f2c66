//! `/health*`: whether the process lives, and whether it wants traffic.

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use serde_json::json;

use crate::lifecycle::{Lifecycle, Readiness};

/// Serves `/health`, `/health/ready` and `/health/live`.
pub fn routes(lifecycle: Lifecycle) -> Router {
    Router::new()
        .route("/health", get(ready))
        .route("/health/ready", get(ready))
        .route("/health/live", get(live))
        .with_state(lifecycle)
}

async fn ready(State(lifecycle): State<Lifecycle>) -> impl IntoResponse {
    let (code, status) = match lifecycle.readiness() {
        Readiness::Ready => (StatusCode::OK, "ok"),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
        Readiness::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    (code, Json(json!({"status": status})))
}

async fn live() -> impl IntoResponse {
    Json(json!({"status": "ok"}))
}
