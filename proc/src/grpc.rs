//! The services that ingress calls, and `parley.v1.Jobs`: what it asks about jobs.

use axum::Router;
use proto::{
    ListUnfinishedJobsRequest, ListUnfinishedJobsResponse,
    jobs_server::{self, JobsServer},
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
    jobs::{Filter, Job, list},
};

/// Jobs in a snapshot at most.
const MOST: i64 = 1000;

/// Returns the internal listener's routes.
pub(crate) fn service(
    store: Store,
    answers: Answers,
    token: ServiceToken,
    lifecycle: &Lifecycle,
) -> Router {
    let jobs = JobsServer::new(Jobs { store })
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    let services = Services::of(jobs).and(answers::service(answers));
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
        let owner = request.into_inner().owner.map(|owner| owner.parse()).transpose();
        let owner = owner.map_err(|_| Status::invalid_argument("owner is not valid"))?;
        let filter = Filter { owner, unfinished: true, ..Filter::default() };
        let jobs = self.store.read(move |reader| list(reader, &filter, MOST)).await;
        let jobs = jobs.map_err(|error| internal(&error))?;
        let jobs = jobs.iter().map(|job| serde_json::to_string(&Job::from(job)));
        let jobs = jobs.collect::<Result<_, _>>().map_err(|error| internal(&error))?;
        Ok(Response::new(ListUnfinishedJobsResponse { jobs }))
    }
}

fn internal(error: &dyn std::error::Error) -> Status {
    tracing::error!(%error, "a call by ingress failed");
    Status::internal("internal error")
}
