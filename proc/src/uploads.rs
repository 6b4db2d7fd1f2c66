//! Uploads: files that jobs will read, streamed to the blobs as they come.

use std::time::Duration;

use axum::{body::Body, extract::State};
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use shared::{
    http::{BodyError, Json},
    ids::{UploadId, UserId},
    limits::Aside,
    store::{self, Reader, Store, Tx},
    sweep,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    UploadsConfig,
    access::Own,
    blobs::Blobs,
    error::ApiError,
    state::AppState,
    storage::{self, Incoming, Quota},
};

const FOLDER: &str = "uploads";

/// A file that was uploaded.
#[derive(Serialize, utoipa::ToSchema)]
struct Upload {
    #[serde(rename = "upload_id")]
    id: UploadId,
    bytes: u64,
    /// In hexadecimal.
    sha256: String,
}

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(create))
}

/// Uploads a file: the body is its bytes.
#[utoipa::path(post, path = "/uploads", tag = "uploads", request_body(content_type = "application/octet-stream"),
    responses((status = 201, body = Upload), (status = 408), (status = 413), (status = 415)))]
async fn create(
    State(blobs): State<Blobs>,
    State(config): State<UploadsConfig>,
    State(quota): State<Quota>,
    aside: Aside,
    own: Own,
    headers: HeaderMap,
    // Not an extractor that collects, so the limit of JSON bodies is not its.
    body: Body,
) -> Result<(StatusCode, Json<Upload>), ApiError> {
    check_form(&headers)?;
    let max_bytes = config.proc_max_upload_bytes;
    let stated = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    let stated: u64 = stated.and_then(|length| length.parse().ok()).unwrap_or(0);
    if stated > max_bytes {
        return Err(ApiError::TooLarge { max_bytes });
    }
    let mut incoming = quota.receive(own.user.id.clone());
    reread(&own, &mut incoming).await?;
    incoming.announce(stated)?;
    let id = UploadId::mint();
    let mut writer = blobs.writer(&path(id));
    let mut parts = body.into_data_stream();
    let mut bytes = 0;
    while let Some(part) = aside.wait(parts.try_next()).await.map_err(BodyError::from)? {
        bytes += part.len() as u64;
        if bytes > max_bytes {
            return Err(ApiError::TooLarge { max_bytes });
        }
        reread(&own, &mut incoming).await?;
        incoming.add(part.len() as u64)?;
        writer.write(part).await?;
    }
    if bytes == 0 {
        return Err(ApiError::Invalid("the body is empty"));
    }
    let written = writer.finish().await.map_err(anyhow::Error::from)?;
    let sha256 = written.sha256.clone();
    let owner = own.user.id.clone();
    let insert = own.write_log(move |tx| {
        storage::hold(tx, &owner)?;
        quota.admit(tx, &owner, None, written.bytes)??;
        let bytes = i64::try_from(written.bytes).unwrap_or(i64::MAX);
        let sql = "INSERT INTO uploads (id, owner, bytes, sha256, created_at) VALUES ($1, $2, $3, $4, $5)";
        let params = [id.into(), (&owner).into(), bytes.into(), (&written.sha256).into()];
        tx.execute(sql, &[&params[..], &[tx.now().into()]].concat())?;
        Ok::<_, ApiError>(())
    });
    if let Err(error) = insert.await {
        // The sweep finds what stays behind, counted or not.
        if let Err(error) = blobs.delete(&path(id)).await {
            tracing::debug!(upload.id = %id, %error, "an upload that was refused stays until it is swept");
        }
        return Err(error);
    }
    Ok((StatusCode::CREATED, Json(Upload { id, bytes, sha256 })))
}

/// Refuses a body that is a file in a wrapping: it would be kept with the wrapping, and no import could read it.
fn check_form(headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_form =
        text(header::CONTENT_TYPE).trim_start().to_ascii_lowercase().starts_with("multipart/");
    if is_form {
        let message = "send the file itself as the body (curl --data-binary @FILE), not as a form";
        return Err(ApiError::MediaType(message));
    }
    let coding = text(header::CONTENT_ENCODING).trim();
    if !coding.is_empty() && !coding.eq_ignore_ascii_case("identity") {
        return Err(ApiError::MediaType("send the file without Content-Encoding"));
    }
    Ok(())
}

/// Reads what the caller stores, if enough has come since the last time.
async fn reread(own: &Own, incoming: &mut Incoming) -> Result<(), ApiError> {
    if incoming.wants_reading() {
        let owner = own.user.id.clone();
        let used = own.read(move |reader| storage::used(reader, &owner, None)).await;
        incoming.know(used.map_err(|error: store::Error| error)?);
    }
    Ok(())
}

/// Returns where an upload's blob is.
pub(crate) fn path(id: UploadId) -> String {
    format!("{FOLDER}/{id}")
}

/// Says whether there is such an upload of this user.
pub(crate) fn exists(
    reader: &Reader<'_>,
    id: UploadId,
    owner: &UserId,
) -> Result<bool, store::Error> {
    let sql = "SELECT 1 FROM uploads WHERE id = $1 AND owner = $2";
    Ok(reader.find(sql, &[id.into(), owner.into()], |_| Ok(()))?.is_some())
}

/// Interval at which old uploads are deleted.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_mins(10);

/// Deletes uploads that are older than `age` at `now`. Returns how many.
pub(crate) async fn sweep(
    store: &Store,
    blobs: &Blobs,
    age: Duration,
    now: Timestamp,
) -> anyhow::Result<usize> {
    let oldest = now.before(age);
    let step = move |tx: &mut Tx<'_>| {
        sweep::delete_some(tx, "uploads", "id", "created_at < $1", &[oldest.into()])
    };
    let deleted = sweep::delete_all::<store::Error>(store, step).await?;
    // By what is there and not by the rows, so blobs whose row was never written go too.
    blobs.sweep(FOLDER, oldest).await?;
    Ok(deleted)
}
