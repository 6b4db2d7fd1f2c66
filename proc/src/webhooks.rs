//! Webhooks: URLs that the owners of a project have subscribed to its events, and the routes that do so.

mod attempt;
mod deliver;
mod deliveries;
mod dispatch;
mod events;
mod page;
mod patience;
mod store;

use std::time::Duration;

use axum::extract::State;
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use shared::{
    http::{BodyError, Json, Query},
    ids::{ProjectId, UserId, WebhookId},
    journal::Topic,
    store::Tx,
    time::Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::{
    deliver::{BUNDLE, Deliver},
    dispatch::{TIDY_INTERVAL, dispatch, tidy},
    store::{Stored, delete_of_project, find, repair},
};
use self::{
    events::Events,
    store::{Change, New, State as WebhookState},
};
use crate::{
    access::{OfWebhook, Own},
    error::ApiError,
    ingress::Ingress,
    outgoing::{Address, Outgoing, Secret, WEBHOOK},
    state::AppState,
};

/// Subscriptions that a project may have.
const MOST: i64 = 10;
/// How long a secret is good after it was replaced.
const ROTATION: Duration = Duration::from_hours(24);

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(show, change, delete))
        .routes(routes!(rotate))
        .merge(deliveries::routes())
}

/// A subscription as owners of its project see it, without its secret.
#[derive(Serialize, utoipa::ToSchema)]
struct Webhook {
    id: WebhookId,
    project_id: ProjectId,
    /// Who made it, or last changed its URL or events, gave it a new secret or switched it on: it gets what they would see,
    /// for as long as they are an owner.
    owner: UserId,
    url: String,
    events: Events,
    state: WebhookState,
    /// Why it was disabled: `gone` (the URL answered 410), `failing` (nothing was taken for three days), `not_owner`.
    reason: Option<String>,
    /// How often in a row the next event was not taken.
    failures: i64,
    failing_since: Option<Timestamp>,
    /// When it is tried again, if it is failing.
    next_attempt_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<&Stored> for Webhook {
    fn from(stored: &Stored) -> Self {
        let is_failing = stored.failures > 0 && stored.state == WebhookState::Active;
        Self {
            id: stored.id,
            project_id: stored.project_id,
            owner: stored.owner.clone(),
            url: stored.url.to_string(),
            events: stored.events.clone(),
            state: stored.state,
            reason: stored.reason.clone(),
            failures: stored.failures,
            failing_since: stored.failing_since,
            next_attempt_at: is_failing.then_some(stored.next_at),
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
struct Webhooks {
    webhooks: Vec<Webhook>,
    next: Option<String>,
}

#[derive(Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
struct OfProject {
    project_id: ProjectId,
}

/// Lists a project's webhooks, for its owners.
#[utoipa::path(get, path = "/webhooks", tag = "webhooks", params(OfProject),
    responses((status = 200, body = Webhooks), (status = 403), (status = 404)))]
async fn list(
    State(ingress): State<Ingress>,
    own: Own,
    Query(OfProject { project_id }): Query<OfProject>,
) -> Result<Json<Webhooks>, ApiError> {
    let owner = own.owner_of(project_id, &ingress).await?;
    let webhooks = owner.read(move |reader| store::list(reader, project_id)).await?;
    Ok(Json(Webhooks { webhooks: webhooks.iter().map(Webhook::from).collect(), next: None }))
}

/// What is to be sent where.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
struct NewWebhook {
    project_id: ProjectId,
    /// `https://…`
    #[schema(value_type = String)]
    url: Address,
    events: Events,
}

/// A webhook with the secret that its calls are signed with.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = WebhookWithSecret)]
struct WithSecret {
    #[serde(flatten)]
    webhook: Webhook,
    /// `whsec_…`, shown this once.
    secret: String,
}

/// Subscribes a URL to what happens in a project from now on.
#[utoipa::path(post, path = "/webhooks", tag = "webhooks", request_body = NewWebhook,
    responses((status = 201, body = WithSecret), (status = 403), (status = 404),
        (status = 409, description = "The project has ten"), (status = 422)))]
async fn create(
    State(ingress): State<Ingress>,
    State(outgoing): State<Outgoing>,
    own: Own,
    body: Result<Json<NewWebhook>, BodyError>,
) -> Result<(StatusCode, [(header::HeaderName, String); 1], Json<WithSecret>), ApiError> {
    let Json(NewWebhook { project_id, url: Address(url), events }) = body?;
    let owner = own.owner_of(project_id, &ingress).await?;
    outgoing.guard().check_name(&url).await?;
    let (id, secret) = (WebhookId::mint(), Secret::random().text());
    let user = owner.id.clone();
    let sealed = outgoing.seal(WEBHOOK, id, &secret)?;
    let new = New { id, project_id, owner: user, url, secret: sealed, events };
    // Under the project's log: nothing is appended between the look at its end and the subscription from there on, and
    // nobody else counts the project's webhooks meanwhile.
    let created = owner.write(move |tx| {
        if store::count(tx, project_id)? >= MOST {
            return Err(ApiError::Conflict(
                "the project has ten webhooks, which is the most".into(),
            ));
        }
        let head = tx.head(&Topic::project(project_id))?;
        store::insert(tx, &new, head.ok_or(ApiError::NotFound("the project"))?)?;
        store::find(tx, id)?.ok_or(ApiError::NotFound("the webhook"))
    });
    let created = created.await?;
    tracing::info!(webhook.id = %id, project.id = %project_id, "webhook created");
    let location = [(header::LOCATION, format!("/api/integrations/webhooks/{id}"))];
    let body = WithSecret { webhook: Webhook::from(&created), secret: secret.to_string() };
    Ok((StatusCode::CREATED, location, Json(body)))
}

/// Shows a webhook.
#[utoipa::path(get, path = "/webhooks/{id}", tag = "webhooks", params(("id" = WebhookId, Path)),
    responses((status = 200, body = Webhook), (status = 403), (status = 404)))]
async fn show(webhook: OfWebhook) -> Json<Webhook> {
    Json(Webhook::from(&*webhook))
}

/// What is to be otherwise.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookChange)]
struct ChangeWebhook {
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    url: Option<Address>,
    #[serde(default)]
    events: Option<Events>,
    /// `false` pauses it; `true` goes on where it was, as the caller's.
    #[serde(default)]
    active: Option<bool>,
}

/// Changes a webhook, pauses it, or switches it on again. What waits is tried at once. Who changes its URL or events, or
/// switches it on, is its owner from then on.
#[utoipa::path(patch, path = "/webhooks/{id}", tag = "webhooks", params(("id" = WebhookId, Path)),
    request_body = ChangeWebhook,
    responses((status = 200, body = Webhook), (status = 403), (status = 404), (status = 422)))]
async fn change(
    State(outgoing): State<Outgoing>,
    webhook: OfWebhook,
    body: Result<Json<ChangeWebhook>, BodyError>,
) -> Result<Json<Webhook>, ApiError> {
    let Json(ChangeWebhook { url, events, active }) = body?;
    let url = url.map(|Address(url)| url);
    if let Some(url) = &url {
        outgoing.guard().check_name(url).await?;
    }
    let change = Change { url, events, active, by: webhook.owner.id.clone() };
    let id = webhook.id;
    let changed = webhook.owner.write(move |tx| store::change(tx, id, &change)).await?;
    let changed = changed.ok_or(ApiError::NotFound("the webhook"))?;
    Ok(Json(Webhook::from(&changed)))
}

/// Gives a webhook a new secret and makes the caller its owner. For a day calls are signed with the secret before as well,
/// however often the secret is replaced meanwhile, which is three times a day at most.
#[utoipa::path(post, path = "/webhooks/{id}/rotate", tag = "webhooks", params(("id" = WebhookId, Path)),
    responses((status = 200, body = WithSecret), (status = 403), (status = 404),
        (status = 409, description = "Three secrets that were replaced are still good")))]
async fn rotate(
    State(outgoing): State<Outgoing>,
    webhook: OfWebhook,
) -> Result<Json<WithSecret>, ApiError> {
    let (id, secret) = (webhook.id, Secret::random().text());
    let (new, by) = (outgoing.seal(WEBHOOK, id, &secret)?, webhook.owner.id.clone());
    let rotate = move |tx: &mut Tx<'_>| {
        let before = store::find_locked(tx, id)?.ok_or(ApiError::NotFound("the webhook"))?;
        let now = tx.now();
        let number = before.old_secrets.free(now).map_err(|until| {
            let message =
                "the secret was replaced three times within a day, and each of them is still good";
            ApiError::Conflict(format!("{message}; rotate again after {until}"))
        })?;
        let old = (number, now.after(ROTATION));
        Ok::<_, ApiError>(store::rotate(tx, &before, &new, &outgoing, old, &by)?)
    };
    let rotated = webhook.owner.write(rotate).await?;
    let rotated = rotated.ok_or(ApiError::NotFound("the webhook"))?;
    Ok(Json(WithSecret { webhook: Webhook::from(&rotated), secret: secret.to_string() }))
}

/// Ends a subscription, and forgets what it has delivered.
#[utoipa::path(delete, path = "/webhooks/{id}", tag = "webhooks", params(("id" = WebhookId, Path)),
    responses((status = 204), (status = 403), (status = 404)))]
async fn delete(webhook: OfWebhook) -> Result<StatusCode, ApiError> {
    let id = webhook.id;
    webhook.owner.write(move |tx| store::delete(tx, id)).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[cfg(test)]
mod tests;
