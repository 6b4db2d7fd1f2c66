//! What handlers are given.

use std::{sync::Arc, time::Duration};

use proto::{ListUnfinishedJobsRequest, jobs_client::JobsClient};
use serde_json::value::RawValue;
use shared::{
    auth::Auth,
    bus::Bus,
    grpc::{Calls, MAX_MESSAGE_BYTES, Peer},
    http::TrustedProxies,
    ids::{TraceId, UserId},
    lifecycle::Lifecycle,
};
use tonic::{Code, Status};

use crate::{
    ChatConfig, StreamsConfig,
    access::Guarded,
    answers::Answers,
    error::ApiError,
    presence::Presence,
    replica::Replica,
    search::Finder,
    streams::{hub::Hub, reactor::Reactor, slots::Slots, stats::Stats},
};

shared::app_state! {
    auth: Auth,
    store: Guarded,
    bus: Bus,
    hub: Hub,
    presence: Presence,
    slots: Slots,
    trusted_proxies: TrustedProxies,
    jobs: Jobs,
    answers: Answers,
    finder: Finder,
    lifecycle: Lifecycle,
    chat: ChatConfig,
    streams: StreamsConfig,
    reactor: Reactor,
    stats: Arc<Stats>,
    replica: Replica,
}

/// How long proc may take to answer: its absence is told within two seconds.
pub(crate) const DEADLINE: Duration = Duration::from_millis(1_800);

/// Asks proc about jobs.
#[derive(Clone, Debug)]
pub(crate) struct Jobs {
    calls: Calls,
}

impl Jobs {
    pub(crate) fn new(proc: &Peer) -> Self {
        Self { calls: proc.calls(DEADLINE) }
    }

    /// Returns the jobs that have not ended, newest first: one user's, or everybody's.
    pub(crate) async fn unfinished(
        &self,
        owner: Option<&UserId>,
        trace: &TraceId,
    ) -> Result<Vec<Box<RawValue>>, ApiError> {
        let mut client = JobsClient::new(self.calls.clone().repeatable())
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES);
        let (mut jobs, mut before) = (Vec::new(), None);
        loop {
            let request = ListUnfinishedJobsRequest {
                owner: owner.map(ToString::to_string),
                trace_id: trace.to_string(),
                before,
            };
            let page = client.list_unfinished_jobs(request).await;
            let page = page.map_err(|status| unanswered(&status))?.into_inner();
            for job in page.jobs {
                let job = RawValue::from_string(job);
                jobs.push(job.map_err(|error| ApiError::Internal(error.into()))?);
            }
            before = page.next;
            if before.is_none() {
                return Ok(jobs);
            }
        }
    }
}

/// Says to the caller, and to operators, that proc did not do its part.
pub(crate) fn unanswered(status: &Status) -> ApiError {
    if status.code() == Code::Unauthenticated {
        tracing::error!("proc does not know us: SERVICE_TOKEN or the clock is not its");
    } else {
        tracing::warn!(code = ?status.code(), message = status.message(), "proc did not answer");
    }
    ApiError::Unavailable
}
