//! Where bundles call back: the signature says who it is, the fence what of.

use axum::{body::Body, extract::State};
use futures_util::TryStreamExt as _;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use shared::{
    http::{BodyError, MAX_BODY_BYTES, Path},
    ids::JobId,
    store::Reader,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    HttpBundles,
    answer::Line,
    calls::{self, Delivered},
    store::{self, Registered},
};
use crate::{error::ApiError, state::AppState};

/// One line of an answer, from later.
#[derive(Deserialize)]
struct Callback {
    /// The one of the call.
    fence: i64,
    #[serde(flatten)]
    line: Line,
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(callback))
}

/// Takes one line of the answer to a call that the bundle has accepted with 202. It is signed as calls are.
#[utoipa::path(post, path = "/callbacks/{job}", tag = "bundles", params(("job" = JobId, Path),
        ("webhook-id" = String, Header), ("webhook-timestamp" = String, Header), ("webhook-signature" = String, Header)),
    request_body(content_type = "application/json",
        description = "`{\"fence\"}` of the call, and one of `progress`, `log`, `result`, `error`"),
    responses((status = 204), (status = 401), (status = 409, description = "Nobody waits for it any more"),
        (status = 422), (status = 503)))]
async fn callback(
    State(http): State<HttpBundles>,
    Path(job): Path<JobId>,
    head: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let body = read(body).await?;
    let bundle = http.store.read(move |reader| of_job(reader, job)).await?;
    let signed = bundle.and_then(|bundle| bundle.secret.check(&head, &body, Timestamp::now()));
    let id = signed.ok_or(ApiError::Unauthenticated)?;
    let Callback { fence, line } = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("a callback is a fence and one line: {error}");
        ApiError::Body(BodyError::Invalid(message))
    })?;
    let delivered = http.store.write(move |tx| calls::deliver(tx, job, fence, &id, &line));
    match delivered.await? {
        Delivered::Yes => Ok(StatusCode::NO_CONTENT),
        Delivered::TooLate => Err(ApiError::Conflict("nobody waits for this any more".into())),
        Delivered::Full => Err(ApiError::Overloaded),
    }
}

/// Reads the bytes that are signed.
async fn read(body: Body) -> Result<Vec<u8>, ApiError> {
    let (mut bytes, mut parts) = (Vec::new(), body.into_data_stream());
    while let Some(part) = parts.try_next().await.map_err(BodyError::from)? {
        if bytes.len() + part.len() > MAX_BODY_BYTES {
            return Err(BodyError::TooLarge.into());
        }
        bytes.extend_from_slice(&part);
    }
    Ok(bytes)
}

fn of_job(reader: &Reader<'_>, job: JobId) -> Result<Option<Registered>, shared::store::Error> {
    let sql = "SELECT bundle FROM jobs WHERE id = $1";
    let bundle: Option<String> = reader.find(sql, &[job.into()], |row| row.get(0))?;
    bundle.map_or(Ok(None), |bundle| store::find(reader, &bundle))
}
