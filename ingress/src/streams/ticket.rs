//! `POST /sse/ticket`: what opens one stream instead of a credential, for `EventSource`, which cannot send headers.

use axum::response::IntoResponse;
use http::header;
use serde::{Deserialize, Serialize};
use shared::{auth::Ticket, http::Json, ids::ProjectId};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access::{Caller, Own, Viewer},
    error::ApiError,
    state::AppState,
};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(issue))
}

/// What the ticket is for.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct TicketFields {
    /// The project whose stream it opens; without one, a stream of jobs.
    #[serde(default, alias = "projectId")]
    project_id: Option<ProjectId>,
}

/// A ticket, to be given as `?ticket=`.
#[derive(Serialize, utoipa::ToSchema)]
struct NewTicket {
    ticket: String,
    /// Seconds in which it can be spent, once.
    expires_in: u64,
}

#[utoipa::path(post, path = "/sse/ticket", request_body = TicketFields, responses((status = 200, body = NewTicket)))]
async fn issue(
    own: Own,
    Json(TicketFields { project_id }): Json<TicketFields>,
) -> Result<impl IntoResponse, ApiError> {
    let ticket = Ticket::mint()?;
    let body =
        NewTicket { ticket: ticket.secret().to_owned(), expires_in: ticket.lifetime().as_secs() };
    let user = own.user.clone();
    own.write(move |tx| {
        if let Some(project) = project_id {
            Caller::new(project, &user).granted::<Viewer>(tx)?;
        }
        Ok::<_, ApiError>(ticket.issue(tx, &user, project_id, tx.now())?)
    })
    .await?;
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(body)))
}
