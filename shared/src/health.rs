//! `/health*`: whether the process lives, and whether it wants traffic.

use axum::{Json, Router, extract::State, response::IntoResponse, routing::get};
use http::StatusCode;
use serde_json::json;

use crate::lifecycle::Lifecycle;

/// Serves `/health`, `/health/ready` and `/health/live`.
pub fn routes(lifecycle: Lifecycle) -> Router {
    Router::new()
        .route("/health", get(ready))
        .route("/health/ready", get(ready))
        .route("/health/live", get(live))
        .with_state(lifecycle)
}

async fn ready(State(lifecycle): State<Lifecycle>) -> impl IntoResponse {
    if lifecycle.is_draining() {
        (StatusCode::SERVICE_UNAVAILABLE, Json(json!({"status": "draining"})))
    } else {
        (StatusCode::OK, Json(json!({"status": "ok"})))
    }
}

async fn live() -> impl IntoResponse {
    Json(json!({"status": "ok"}))
}
