//! Where bundles call back: the signature says who it is, the fence what of.

use std::fmt;

use axum::extract::State;
use http::StatusCode;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use shared::{
    http::{BodyBytes, BodyError, Path, check_json_depth},
    ids::{JobId, UserId},
    journal::Topic,
    store::{Reader, Tx},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    HttpBundles,
    answer::{Line, count, readable},
    calls::{self, Delivered},
    store::{self, Registered},
};
use crate::{error::ApiError, outgoing::SignedHead, state::AppState};

/// One line of an answer, from later.
struct Callback {
    /// The one of the call.
    fence: i64,
    line: Line,
}

/// The line is read as it stands: through `flatten`, a result's numbers would lose digits.
impl<'de> Deserialize<'de> for Callback {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(CallbackVisitor)
    }
}

struct CallbackVisitor;

impl<'de> Visitor<'de> for CallbackVisitor {
    type Value = Callback;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a fence and one line")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Callback, M::Error> {
        let (mut fence, mut line) = (None, None);
        while let Some(key) = map.next_key::<String>()? {
            let next = match &*key {
                "fence" => {
                    fence = map.next_value::<Fence>()?.0;
                    continue;
                }
                "progress" => Line::Progress(map.next_value()?),
                "log" => Line::Log(map.next_value()?),
                "result" => Line::Result(map.next_value()?),
                "error" => Line::Error(map.next_value()?),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if line.replace(next).is_some() {
                return Err(Error::custom("there is more than one line"));
            }
        }
        let fence = fence.ok_or_else(|| Error::missing_field("fence"))?;
        let missing = "one of `progress`, `log`, `result` and `error` is missing";
        Ok(Callback { fence, line: line.ok_or_else(|| Error::custom(missing))? })
    }
}

/// Number of a call, as any JSON writer has it.
#[derive(Deserialize)]
struct Fence(#[serde(deserialize_with = "fence")] Option<i64>);

fn fence<'de, D: Deserializer<'de>>(from: D) -> Result<Option<i64>, D::Error> {
    Ok(count(from)?.and_then(|count| i64::try_from(count).ok()))
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
    head: SignedHead,
    body: Result<BodyBytes, BodyError>,
) -> Result<StatusCode, ApiError> {
    let BodyBytes(body) = body?;
    let (bundle, owner) = http
        .store
        .read(move |reader| of_job(reader, job))
        .await?
        .ok_or(ApiError::Unauthenticated)?;
    let outgoing = &http.caller.outgoing;
    let mut secrets =
        bundle.secrets(http.store.now()).into_iter().filter_map(|secret| outgoing.open(secret));
    let signed = secrets.find_map(|secret| secret.check(&head, &body));
    let id = signed.ok_or(ApiError::Unauthenticated)?;
    check_json_depth(&body)?;
    let Callback { fence, line } = serde_json::from_slice(&readable(&body)).map_err(|error| {
        let message = format!("a callback is a fence and one line: {error}");
        ApiError::Body(BodyError::Invalid(message))
    })?;
    let too_late = || ApiError::Conflict("nobody waits for this any more".into());
    let (owner, retries) = (owner.ok_or_else(too_late)?, http.retries);
    let deliver = move |tx: &mut Tx<'_>| calls::deliver(tx, job, fence, &id, line.clone(), retries);
    let delivered = http.store.write_in(Topic::user(&owner), deliver);
    match delivered.await? {
        Delivered::Yes => Ok(StatusCode::NO_CONTENT),
        Delivered::TooLate => Err(too_late()),
        Delivered::Full => Err(ApiError::Overloaded),
    }
}

/// Returns the bundle that a job calls, also one that was deleted in the last day, and also if the job is gone while a call
/// of it is out; and the job's owner.
fn of_job(
    reader: &Reader<'_>,
    job: JobId,
) -> Result<Option<(Registered, Option<UserId>)>, shared::store::Error> {
    let of_job = "SELECT bundle, owner FROM jobs WHERE id = $1";
    let found = reader.find(of_job, &[job.into()], |row| {
        Ok((row.get::<String>(0)?, Some(row.get::<UserId>(1)?)))
    })?;
    let of_call = "SELECT bundle FROM http_calls WHERE job_id = $1 LIMIT 1";
    let found = if found.is_some() {
        found
    } else {
        reader.find(of_call, &[job.into()], |row| Ok((row.get::<String>(0)?, None)))?
    };
    let Some((bundle, owner)) = found else { return Ok(None) };
    Ok(store::find_kept(reader, &bundle)?.map(|bundle| (bundle, owner)))
}
