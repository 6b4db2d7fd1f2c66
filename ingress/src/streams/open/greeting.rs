//! What a stream begins with.

use serde::Serialize;
use serde_json::value::RawValue;
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
        frame::{self, Control, MAX_DATA_BYTES, one_line},
        job_view::JobView,
    },
    Begins, Owners, Pace,
};
use crate::{error::ApiError, state::AppState};

/// Returns the first bytes of a stream: when to come back, who and where it is, and a reset if there is one. The last event
/// that the stream begins with has the `id:`, so that a client that is cut off before has all of them again.
pub(super) fn greeting(
    pace: Pace,
    about: &About,
    name: &str,
    begins: &Begins,
    logs: &[Topic],
    resumed: bool,
    ends_with_snapshot: bool,
) -> String {
    let cursor = begins.cursor(logs);
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
    let id = (!ends_with_snapshot).then_some(&cursor);
    let Some(reason) = begins.reset else { return frame::hello(retry_ms(), &hello, id) };
    // A client that goes on from here has not had the snapshot yet, so its cursor says nothing of jobs.
    let shown = match logs {
        [before @ .., _] if ends_with_snapshot && !before.is_empty() => {
            Cursor::of(before.iter().zip(begins.positions.iter().copied())).to_string()
        }
        _ => shown,
    };
    let reset = frame::control(Control::Reset, &Reset { reason, cursor: &shown }, id);
    frame::hello(retry_ms(), &hello, None) + &reset
}

/// An event with jobs that have not ended, and whether another one follows it.
#[derive(Serialize)]
struct Snapshot<'a> {
    r#type: &'static str,
    at: Timestamp,
    actor: &'a UserId,
    trace_id: &'a TraceId,
    jobs: &'a [Box<RawValue>],
    more: bool,
}

/// Returns the events with all jobs that have not ended, as the stream shows them, in as many parts as it takes. The last one has the `id:`.
pub(super) async fn snapshot(
    state: &AppState,
    owners: &Owners,
    view: &JobView,
    actor: &UserId,
    cursor: &Cursor,
) -> Result<Vec<String>, ApiError> {
    let trace = current_trace().unwrap_or_else(TraceId::mint);
    let owner = match owners {
        Owners::All => None,
        Owners::One(owner) => Some(owner),
    };
    let jobs = state.jobs.unfinished(owner, &trace).await?;
    let shown = jobs.iter().filter_map(|job| view.job(job.get()));
    let jobs = shown.map(|job| RawValue::from_string(job.to_string()));
    let jobs: Vec<_> = jobs.collect::<Result<_, _>>()?;
    parts(
        &jobs,
        &Snapshot {
            r#type: "job.snapshot",
            at: state.store.now(),
            actor,
            trace_id: &trace,
            jobs: &[],
            more: true,
        },
        cursor,
    )
}

fn parts(
    jobs: &[Box<RawValue>],
    empty: &Snapshot<'_>,
    cursor: &Cursor,
) -> Result<Vec<String>, ApiError> {
    let room = MAX_DATA_BYTES - serde_json::to_string(empty)?.len();
    let (mut parts, mut rest) = (Vec::new(), jobs);
    loop {
        let mut bytes = 0;
        let fits = rest.iter().take_while(|job| {
            bytes += one_line(job.get()).len() + 1;
            bytes <= room
        });
        // A job that does not fit at all is shortened.
        let count = fits.count().max(1).min(rest.len());
        let (jobs, after) = rest.split_at(count);
        rest = after;
        let more = !rest.is_empty();
        let event = serde_json::to_string(&Snapshot { jobs, more, ..*empty })?;
        parts.push(frame::event(&event, (!more).then_some(cursor)));
        if !more {
            return Ok(parts);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::streams::{control::final_cursor, frame::MAX_FRAME_BYTES};

    proptest! {
        #[test]
        fn the_parts_of_a_snapshot_fit_and_none_is_left_out(
            lengths in prop::collection::vec(prop_oneof![0..200usize, 0..70_000usize], 0..60),
        ) {
            let job = |(id, length): (usize, &usize)| json!({"id": id, "result": "\u{2028}".repeat(*length)});
            let jobs: Vec<Value> = lengths.iter().enumerate().map(job).collect();
            let raw: Vec<_> = jobs.iter().map(|job| RawValue::from_string(job.to_string()).unwrap()).collect();
            let (actor, trace) = ("ada".parse().unwrap(), TraceId::mint());
            let at = Timestamp::from_ms(0);
            let empty = Snapshot { r#type: "job.snapshot", at, actor: &actor, trace_id: &trace, jobs: &[], more: true };
            let parts = parts(&raw, &empty, &final_cursor()).unwrap();
            let mut ids = Vec::new();
            for (number, part) in (1..).zip(&parts) {
                prop_assert!(part.len() <= MAX_FRAME_BYTES, "{}", part.len());
                let is_last = number == parts.len();
                prop_assert_eq!(part.contains("\nid: "), is_last);
                let event: Value = serde_json::from_str(part["data: ".len()..].lines().next().unwrap()).unwrap();
                prop_assert_eq!(&event["more"], &json!(!is_last));
                ids.extend(event["jobs"].as_array().unwrap().iter().map(|job| job["id"].clone()));
            }
            prop_assert_eq!(ids, (0..jobs.len()).map(Value::from).collect::<Vec<_>>());
        }
    }
}
