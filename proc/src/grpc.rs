//! The services that ingress calls: `parley.v1.Jobs` and `parley.v1.Search`, beside that of answers.

use axum::Router;
use proto::{
    FindRequest, FindResponse, Hit, ListUnfinishedJobsRequest, ListUnfinishedJobsResponse,
    jobs_server::{self, JobsServer},
    search_server::{self, SearchServer},
};
use shared::{
    grpc::{self, MAX_MESSAGE_BYTES, Services},
    lifecycle::Lifecycle,
    service_token::{Service, ServiceToken},
    store::Store,
};
use tonic::{Request, Response, Status};

use crate::{
    answers::{self, Answers},
    jobs::{Filter, list},
    search::{Results, Search},
};

/// Jobs in a page of those that have not ended, and bytes after which a page takes no further one.
const MAX_PAGE_JOBS: u8 = 250;
const MAX_PAGE_BYTES: usize = 1024 * 1024;
/// Hits in an answer at most.
const MOST_HITS: u32 = 200;

/// Returns the internal listener's routes.
pub(crate) fn service(
    store: Store,
    answers: Answers,
    search: Search,
    token: ServiceToken,
    lifecycle: &Lifecycle,
) -> Router {
    let jobs = JobsServer::new(Jobs { store })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let search = SearchServer::new(Searching { search })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let services = Services::of(jobs).and(search).and(answers::service(answers));
    grpc::routes(Service::Proc, services, token, lifecycle)
}

struct Jobs {
    store: Store,
}

#[tonic::async_trait]
impl jobs_server::Jobs for Jobs {
    async fn list_unfinished_jobs(
        &self,
        request: Request<ListUnfinishedJobsRequest>,
    ) -> Result<Response<ListUnfinishedJobsResponse>, Status> {
        let ListUnfinishedJobsRequest { owner, before, trace_id: _ } = request.into_inner();
        let owner = owner.map(|owner| owner.parse()).transpose();
        let owner = owner.map_err(|_| Status::invalid_argument("owner is not valid"))?;
        let before = before.map(|before| before.parse()).transpose();
        let before = before.map_err(|_| Status::invalid_argument("before is not valid"))?;
        let filter = Filter { owner, before, unfinished: true, ..Filter::default() };
        let found =
            self.store.read(move |reader| list(reader, &filter, MAX_PAGE_JOBS.into())).await;
        let found = found.map_err(|error| internal(&error))?;
        let (mut jobs, mut bytes) = (Vec::with_capacity(found.len()), 0);
        for job in &found {
            let job = serde_json::to_string(job).map_err(|error| internal(&error))?;
            bytes += job.len();
            jobs.push(job);
            if bytes >= MAX_PAGE_BYTES {
                break;
            }
        }
        let is_last = jobs.len() == found.len() && jobs.len() < MAX_PAGE_JOBS.into();
        let next = jobs.len().checked_sub(1).filter(|_| !is_last);
        let next = next.map(|last| found[last].id.to_string());
        Ok(Response::new(ListUnfinishedJobsResponse { jobs, next }))
    }
}

struct Searching {
    search: Search,
}

#[tonic::async_trait]
impl search_server::Search for Searching {
    async fn find(&self, request: Request<FindRequest>) -> Result<Response<FindResponse>, Status> {
        let FindRequest { project_id, text, limit, channel, filter } = request.into_inner();
        let project =
            project_id.parse().map_err(|_| Status::invalid_argument("project_id is not valid"))?;
        let limit = usize::try_from(limit.clamp(1, MOST_HITS)).unwrap_or(1);
        let mut filter = filter.unwrap_or_default();
        if let Some(channel) = channel {
            // Both have to hold: a channel that is not among the others leaves nothing.
            let is_among = filter.channels.is_empty() || filter.channels.contains(&channel);
            if !is_among {
                return Ok(Response::new(FindResponse::default()));
            }
            filter.channels = vec![channel];
        }
        let found = self.search.find(project, &text, filter, limit).await;
        let Results { hits, words, .. } = found.map_err(|error| internal(&*error))?;
        let hits = hits.into_iter();
        let hits = hits.map(|hit| Hit { message_id: hit.message.to_string(), score: hit.score });
        Ok(Response::new(FindResponse { hits: hits.collect(), words }))
    }
}

fn internal(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a call by ingress failed");
    Status::internal("internal error")
}
