//! What admins see of streams: figures, who is connected, and closing one.

use std::iter;

use axum::{Router, extract::State};
use http::StatusCode;
use serde::Serialize;
use shared::{
    http::{Json, Path},
    ids::{ConnectionId, ProjectId, ReplicaId, UserId},
    store::{Reader, Store},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    about::Connection,
    command::{Order, What},
    slots::{Slots, inspect::Open as Slot},
    stats::{Metrics, Sums},
};
use crate::{access::Admin, error::ApiError, replica::Replica, state::AppState};

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(stats)).routes(routes!(connections)).routes(routes!(close))
}

/// Serves the same to operators on the internal listener, without a credential.
pub(crate) fn internal(state: AppState, figures: shared::metrics::Metrics) -> Router {
    Router::new()
        .route("/metrics", axum::routing::get(async move || figures.show()))
        .route("/v1/debug/sse-connections/{user}/{project}", axum::routing::get(all_connections))
        .with_state(state)
}

/// This replica's figures, with the sums over all replicas.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Document {
    active_connections: u64,
    unique_ips: u64,
    unique_sessions: u64,
    metrics: Metrics,
    connections: Vec<Connection>,
    cluster: Cluster,
    #[serde(rename = "limits_rejected")]
    limits_rejected: u64,
    reconnects: u64,
}

/// The same figures over all replicas.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct Cluster {
    replicas: u64,
    active_connections: u64,
    metrics: Metrics,
    #[serde(rename = "limits_rejected")]
    limits_rejected: u64,
    reconnects: u64,
    /// What each has open, the one that answers first.
    per_replica: Vec<ReplicaStreams>,
}

/// How many streams a replica has open.
#[derive(Serialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReplicaStreams {
    id: ReplicaId,
    active_connections: u64,
}

/// A user's streams of a project.
#[derive(Serialize, utoipa::ToSchema)]
struct Connections {
    connections: Vec<Connection>,
    count: usize,
}

#[utoipa::path(get, path = "/api/jobs/stream/stats", responses((status = 200, body = Document)))]
async fn stats(
    State(state): State<AppState>,
    Admin { store }: Admin,
) -> Result<Json<Document>, ApiError> {
    let replica = state.replica.clone();
    let others = move |reader: &Reader<'_>| replica.others(reader, replica.oldest(reader.now()));
    let others = store.read(others).await?;
    let parse = |(id, stats): &(ReplicaId, String)| -> (ReplicaId, Sums) {
        (*id, serde_json::from_str(stats).unwrap_or_default())
    };
    let others: Vec<(ReplicaId, Sums)> = others.iter().map(parse).collect();
    let open = state.reactor.connections().await;
    let (own, uptime) = (state.stats.sums(), state.stats.uptime());
    let all = others.iter().fold(own, |all, (_, other)| all + *other);
    let replicas = iter::once((state.replica.id(), own)).chain(others);
    let per_replica: Vec<ReplicaStreams> =
        replicas.map(|(id, sums)| ReplicaStreams { id, active_connections: sums.open }).collect();
    let unique = |mut keys: Vec<String>| {
        keys.sort_unstable();
        keys.dedup();
        keys.len() as u64
    };
    Ok(Json(Document {
        active_connections: own.open,
        unique_ips: unique(open.iter().map(|(_, open)| open.ip.to_string()).collect()),
        unique_sessions: unique(open.iter().map(|(session, _)| session.to_string()).collect()),
        metrics: own.metrics(uptime),
        connections: open.into_iter().map(|(_, open)| open).collect(),
        cluster: Cluster {
            replicas: per_replica.len() as u64,
            active_connections: all.open,
            metrics: all.metrics(uptime),
            limits_rejected: all.limits_rejected,
            reconnects: all.reconnects,
            per_replica,
        },
        limits_rejected: own.limits_rejected,
        reconnects: own.reconnects,
    }))
}

#[utoipa::path(get, path = "/api/debug/sse-connections/{user}/{project}", responses((status = 200, body = Connections)))]
async fn connections(
    State(state): State<AppState>,
    Admin { store }: Admin,
    Path(of): Path<(UserId, ProjectId)>,
) -> Result<Json<Connections>, ApiError> {
    list(&state, &store, of).await.map(Json)
}

async fn all_connections(
    State(state): State<AppState>,
    Path(of): Path<(UserId, ProjectId)>,
) -> Result<Json<Connections>, ApiError> {
    list(&state, state.store.for_operators(), of).await.map(Json)
}

/// What streams of other replicas have sent is known there alone.
async fn list(
    state: &AppState,
    store: &Store,
    (user, project): (UserId, ProjectId),
) -> Result<Connections, ApiError> {
    let (slots, replica) = (state.slots.clone(), state.replica.clone());
    let of = move |reader: &Reader<'_>| {
        slots.of_user_project(reader, &user, project, replica.oldest(reader.now()))
    };
    let rows = store.read(of).await?;
    let (here, now) = (state.reactor.connections().await, store.now());
    let describe = |row: &Slot| {
        let live = here.iter().find(|(_, open)| open.id == row.connection);
        live.map(|(_, open)| open.clone())
            .or_else(|| Connection::from_json(row.connection, &row.about, now))
    };
    let connections: Vec<Connection> = rows.iter().filter_map(describe).collect();
    Ok(Connections { count: connections.len(), connections })
}

#[utoipa::path(delete, path = "/api/debug/sse-connections/{connection_id}", responses((status = 204)))]
async fn close(
    State(slots): State<Slots>,
    State(replica): State<Replica>,
    Admin { store }: Admin,
    Path(connection): Path<ConnectionId>,
) -> Result<StatusCode, ApiError> {
    store
        .write(move |tx| {
            let replica = slots.find(tx, connection, replica.oldest(tx.now()))?;
            let replica = replica.ok_or(ApiError::NotFound("the connection"))?;
            Order { connection, what: What::ClosedByAdmin }.give(tx, replica)?;
            Ok(StatusCode::NO_CONTENT)
        })
        .await
}
