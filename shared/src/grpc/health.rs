//! `grpc.health.v1`: whether the process wants calls, as the lifecycle has it.

use std::pin::Pin;

use futures_util::{Stream, StreamExt, stream};
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use super::MAX_MESSAGE_BYTES;
use crate::lifecycle::{Lifecycle, Readiness};

/// The health service; it needs no identity, as it says what `/health/ready` says to everybody.
pub(super) type Server = health_server::HealthServer<Health>;

pub(super) struct Health {
    lifecycle: Lifecycle,
    /// The gRPC services beside it, which may be asked about by their names.
    names: Vec<&'static str>,
}

/// Returns the health of the process that serves the gRPC services `names`.
pub(super) fn server(lifecycle: Lifecycle, names: Vec<&'static str>) -> Server {
    health_server::HealthServer::new(Health { lifecycle, names })
        .max_decoding_message_size(1024)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

impl Health {
    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.names.contains(&service)
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !self.knows(&request.get_ref().service) {
            return Err(Status::not_found("there is no such service here"));
        }
        let is_ready = self.lifecycle.readiness() == Readiness::Ready;
        let status = if is_ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        Ok(Response::new(answer(status)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let closing = self.lifecycle.closing().cancelled_owned();
        let first = match (self.knows(&request.get_ref().service), self.lifecycle.is_draining()) {
            (false, _) => ServingStatus::ServiceUnknown,
            (true, true) => ServingStatus::NotServing,
            (true, false) => ServingStatus::Serving,
        };
        let draining = self.lifecycle.draining();
        let change = stream::once(async move {
            if first != ServingStatus::Serving {
                return std::future::pending().await;
            }
            draining.cancelled().await;
            Ok(answer(ServingStatus::NotServing))
        });
        let statuses = stream::once(std::future::ready(Ok(answer(first)))).chain(change);
        // Ends with the process's work, or it would hold the process up.
        let statuses = statuses.chain(stream::pending()).take_until(closing);
        Ok(Response::new(Box::pin(statuses)))
    }
}
