//! What handlers are given.

use std::{sync::Arc, time::Duration};

use axum::extract::FromRef;
use http::Uri;
use proto::{ListUnfinishedJobsRequest, jobs_client::JobsClient};
use serde_json::value::RawValue;
use shared::{
    auth::Auth,
    bus::Bus,
    http::TrustedProxies,
    ids::{TraceId, UserId},
    lifecycle::Lifecycle,
    service_token::ServiceToken,
    store::Store,
};
use tonic::transport::{Channel, Endpoint};

use crate::{
    StreamsConfig,
    error::ApiError,
    presence::Presence,
    replica::Replica,
    streams::{hub::Hub, reactor::Reactor, slots::Slots, stats::Stats},
};

/// Everything a handler may ask for, by its type.
#[derive(Clone, Debug, FromRef)]
pub(crate) struct AppState {
    pub(crate) auth: Auth,
    pub(crate) store: Store,
    pub(crate) bus: Bus,
    pub(crate) hub: Hub,
    pub(crate) presence: Presence,
    pub(crate) slots: Slots,
    pub(crate) trusted_proxies: TrustedProxies,
    pub(crate) jobs: Jobs,
    pub(crate) lifecycle: Lifecycle,
    pub(crate) streams: StreamsConfig,
    pub(crate) reactor: Reactor,
    pub(crate) stats: Arc<Stats>,
    pub(crate) replica: Replica,
}

/// Asks proc about jobs.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    channel: Channel,
    token: ServiceToken,
}

impl Jobs {
    pub(crate) fn new(proc: Uri, token: ServiceToken) -> Self {
        let endpoint = Endpoint::from(proc)
            .connect_timeout(Duration::from_secs(2))
            .timeout(Duration::from_secs(5));
        Self { channel: endpoint.connect_lazy(), token }
    }

    /// Returns the jobs that have not ended: one user's, or everybody's.
    pub(crate) async fn unfinished(
        &self,
        owner: Option<&UserId>,
        trace: &TraceId,
    ) -> Result<Vec<Box<RawValue>>, ApiError> {
        let token = self.token.clone();
        let mut client =
            JobsClient::with_interceptor(self.channel.clone(), move |request| token.sign(request));
        let request = ListUnfinishedJobsRequest {
            owner: owner.map(ToString::to_string),
            trace_id: trace.to_string(),
        };
        let answer = client.list_unfinished_jobs(request).await.map_err(|status| {
            tracing::warn!(code = ?status.code(), "proc did not list jobs");
            ApiError::Unavailable
        })?;
        let jobs = answer.into_inner().jobs.into_iter().map(RawValue::from_string);
        jobs.collect::<Result<_, _>>().map_err(|error| ApiError::Internal(error.into()))
    }
}
