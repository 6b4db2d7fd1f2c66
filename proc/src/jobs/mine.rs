//! A job of the path, for who may see it.

use std::ops::Deref;

use axum::{
    extract::FromRequestParts,
    response::{IntoResponse, Response},
};
use http::request::Parts;
use serde::Deserialize;
use shared::{auth::User, http::Path, ids::JobId};

use super::{Error, machine::Job, store};
use crate::{error::ApiError, state::AppState};

/// A job as it was when its owner, or an admin, began to ask; another's job does not exist for them.
#[derive(Debug)]
pub(crate) struct Mine(Job);

impl Deref for Mine {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.0
    }
}

/// The part of every job's paths.
#[derive(Deserialize)]
struct OfJob {
    id: JobId,
}

impl FromRequestParts<AppState> for Mine {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, Response> {
        let user = User::from_request_parts(parts, state).await;
        let user = user.map_err(IntoResponse::into_response)?;
        let path = Path::from_request_parts(parts, state).await;
        let Path(OfJob { id }) = path.map_err(IntoResponse::into_response)?;
        let found = state.store.read(move |reader| store::find(reader, id)).await;
        let job = found.map_err(|error| ApiError::from(error).into_response())?;
        if job.owner == user.id || user.roles.admin {
            Ok(Self(job))
        } else {
            Err(ApiError::from(Error::NotFound).into_response())
        }
    }
}

#[cfg(test)]
impl From<Job> for Mine {
    fn from(job: Job) -> Self {
        Self(job)
    }
}
