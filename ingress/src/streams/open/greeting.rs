//! What a stream begins with.

use shared::{
    http::current_trace,
    ids::{TraceId, UserId},
    journal::{Cursor, Topic},
    time::Timestamp,
};

use super::{
    super::{
        about::About,
        control::{Hello, Reset, retry_ms},
        frame::{self, Control},
        job_view::JobView,
    },
    Begins, Owners, Pace,
};
use crate::{error::ApiError, state::AppState};

/// Returns the first bytes of a stream: when to come back, who and where it is, and a reset if there is one.
pub(super) fn greeting(
    pace: Pace,
    about: &About,
    name: &str,
    begins: &Begins,
    logs: &[Topic],
    resumed: bool,
) -> String {
    let cursor = Cursor::of(logs.iter().zip(begins.positions.iter().copied()));
    let shown = cursor.to_string();
    let hello = Hello {
        r#type: "hello",
        connection_id: about.connection,
        stream_id: name,
        session_id: &about.session,
        user: &about.user,
        cursor: &shown,
        heartbeat_seconds: pace.heartbeat.as_secs(),
        silence_seconds: pace.silence().as_secs(),
        resumed,
    };
    let hello = serde_json::to_string(&hello).unwrap_or_default();
    let mut greeting = frame::hello(retry_ms(), &cursor, &hello);
    if let Some(reason) = begins.reset {
        greeting.push_str(&frame::control(Control::Reset, &Reset { reason, cursor: &shown }));
    }
    greeting
}

/// Returns the event with all jobs that have not ended, as the stream shows them.
pub(super) async fn snapshot(
    state: &AppState,
    owners: &Owners,
    view: &JobView,
    actor: &UserId,
) -> Result<String, ApiError> {
    let trace = current_trace().unwrap_or_else(TraceId::mint);
    let owner = match owners {
        Owners::All => None,
        Owners::One(owner) => Some(owner),
    };
    let jobs = state.jobs.unfinished(owner, &trace).await?;
    let jobs: Vec<_> = jobs.iter().filter_map(|job| view.job(job.get())).collect();
    let event = serde_json::to_string(&serde_json::json!({
        "type": "job.snapshot", "at": Timestamp::now(), "actor": actor, "trace_id": trace, "jobs": jobs,
    }))?;
    Ok(frame::event(&event))
}
