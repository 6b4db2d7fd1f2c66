//! `parley.v1.Chat`: what proc reads and writes of chat, by chat's own rules.

mod events;
mod export;
mod identity;
mod import;
mod read;

use std::pin::Pin;

use axum::Router;
use futures_util::Stream;
use proto::{
    ExportPage, ExportProjectRequest, GetAccessRequest, GetAccessResponse, GetEventsRequest,
    GetEventsResponse, GetMessagesRequest, GetMessagesResponse, ImportChannelsRequest,
    ImportMessagesRequest, ImportPeopleRequest, ImportResponse, ListAccessRequest,
    ListAccessResponse, Principal, ReadMessagesRequest, ReadMessagesResponse,
    chat_server::{self, ChatServer},
};
use shared::{
    grpc::{self, MAX_MESSAGE_BYTES, Services},
    ids::{MessageId, TraceId},
    lifecycle::Lifecycle,
    service_token::{Service, ServiceToken},
    store::Store,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    ChatConfig,
    access::{As, AtLeast, Caller, Owner, Role, Viewer},
    error::ApiError,
};

/// Users whose roles one call may ask for.
const MAX_ASKED: usize = 1_000;

/// Returns the internal listener's routes.
pub(crate) fn service(
    store: Store,
    token: ServiceToken,
    limits: ChatConfig,
    lifecycle: &Lifecycle,
) -> Router {
    let chat = Chat { store, limits, closing: lifecycle.closing() };
    let chat = ChatServer::new(chat)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    grpc::routes(Service::Ingress, Services::of(chat), token, lifecycle)
}

struct Chat {
    store: Store,
    limits: ChatConfig,
    closing: CancellationToken,
}

#[tonic::async_trait]
impl chat_server::Chat for Chat {
    async fn get_access(
        &self,
        request: Request<GetAccessRequest>,
    ) -> Result<Response<GetAccessResponse>, Status> {
        let viewer = self.caller::<Viewer>(request.into_inner().principal)?;
        let role = viewer.read(|_, caller| Ok(caller.role)).await.map_err(status)?;
        Ok(Response::new(GetAccessResponse { role: role.as_str().into() }))
    }

    async fn list_access(
        &self,
        request: Request<ListAccessRequest>,
    ) -> Result<Response<ListAccessResponse>, Status> {
        let principals = request.into_inner().principals;
        if principals.len() > MAX_ASKED {
            return Err(Status::invalid_argument("these are too many principals"));
        }
        let callers: Vec<Caller> = principals.iter().map(caller).collect::<Result<_, _>>()?;
        let read = self.store.read(move |reader| {
            callers.iter().map(|caller| Ok(caller.role(reader)?)).collect::<Result<Vec<_>, _>>()
        });
        let roles = read.await.map_err(status)?.into_iter();
        let roles = roles.map(|role| role.map_or("", Role::as_str).to_owned());
        Ok(Response::new(ListAccessResponse { roles: roles.collect() }))
    }

    async fn import_people(
        &self,
        request: Request<ImportPeopleRequest>,
    ) -> Result<Response<ImportResponse>, Status> {
        let ImportPeopleRequest { principal, import_id, people } = request.into_inner();
        let (owner, import) = (self.caller::<Owner>(principal)?, id(&import_id)?);
        let outcome =
            owner.write_bulk(move |tx, caller| import::people(tx, caller, import, &people)).await;
        outcome.map(Response::new).map_err(status)
    }

    async fn import_channels(
        &self,
        request: Request<ImportChannelsRequest>,
    ) -> Result<Response<ImportResponse>, Status> {
        let mut request = request.into_inner();
        let principal = request.principal.take();
        let (owner, import) = (self.caller::<Owner>(principal)?, id(&request.import_id)?);
        let limits = self.limits;
        let outcome = owner
            .write_bulk(move |tx, caller| import::channels(tx, caller, import, &request, limits))
            .await;
        outcome.map(Response::new).map_err(status)
    }

    async fn import_messages(
        &self,
        request: Request<ImportMessagesRequest>,
    ) -> Result<Response<ImportResponse>, Status> {
        let mut request = request.into_inner();
        let principal = request.principal.take();
        let (owner, import) = (self.caller::<Owner>(principal)?, id(&request.import_id)?);
        let outcome = owner
            .write_bulk(move |tx, caller| import::messages(tx, caller, import, &request))
            .await;
        outcome.map(Response::new).map_err(status)
    }

    type ExportProjectStream = Pin<Box<dyn Stream<Item = Result<ExportPage, Status>> + Send>>;

    async fn export_project(
        &self,
        request: Request<ExportProjectRequest>,
    ) -> Result<Response<Self::ExportProjectStream>, Status> {
        let request = request.into_inner();
        let order = request.order();
        let viewer = self.caller::<Viewer>(request.principal)?;
        let pages = export::pages(viewer, order, self.closing.clone());
        Ok(Response::new(Box::pin(pages)))
    }

    async fn get_events(
        &self,
        request: Request<GetEventsRequest>,
    ) -> Result<Response<GetEventsResponse>, Status> {
        let GetEventsRequest { principal, after, limit } = request.into_inner();
        let owner = self.caller::<Owner>(principal)?;
        let page = owner.read(move |reader, caller| events::page(reader, caller, &after, limit));
        page.await.map(Response::new).map_err(status)
    }

    async fn get_messages(
        &self,
        request: Request<GetMessagesRequest>,
    ) -> Result<Response<GetMessagesResponse>, Status> {
        let GetMessagesRequest { principal, ids } = request.into_inner();
        let viewer = self.caller::<Viewer>(principal)?;
        if ids.len() > read::MOST {
            return Err(Status::invalid_argument("these are too many ids"));
        }
        let ids: Result<Vec<MessageId>, _> = ids.iter().map(|id| id.parse()).collect();
        let ids = ids.map_err(|_| Status::invalid_argument("an id is not valid"))?;
        let messages = viewer.read(move |reader, caller| read::some(reader, caller, &ids));
        messages.await.map(Response::new).map_err(status)
    }

    async fn read_messages(
        &self,
        request: Request<ReadMessagesRequest>,
    ) -> Result<Response<ReadMessagesResponse>, Status> {
        let wanted = read::Wanted::new(request.get_ref())
            .ok_or_else(|| Status::invalid_argument("the range is not valid"))?;
        let page = self.store.read(move |reader| wanted.page(reader));
        page.await.map(Response::new).map_err(status)
    }
}

impl Chat {
    /// Reads for whom proc calls; that it may say so is what its token shows.
    fn caller<R: AtLeast>(&self, principal: Option<Principal>) -> Result<As<R>, Status> {
        let principal =
            principal.ok_or_else(|| Status::invalid_argument("principal is missing"))?;
        Ok(As::new(self.store.clone(), caller(&principal)?))
    }
}

fn caller(principal: &Principal) -> Result<Caller, Status> {
    let invalid = |what: &str| Status::invalid_argument(format!("{what} is not valid"));
    Ok(Caller {
        project: principal.project_id.parse().map_err(|_| invalid("project_id"))?,
        user: principal.user.parse().map_err(|_| invalid("user"))?,
        trace: principal.trace_id.parse().unwrap_or_else(|_| TraceId::mint()),
    })
}

fn id(text: &str) -> Result<uuid::Uuid, Status> {
    text.parse().map_err(|_| Status::invalid_argument("import_id is not valid"))
}

fn status(error: ApiError) -> Status {
    let message = error.to_string();
    match error {
        ApiError::NotFound(_) => Status::not_found(message),
        ApiError::Forbidden(_) | ApiError::NotLetIn(_) => Status::permission_denied(message),
        ApiError::Conflict(_) | ApiError::IdempotencyConflict => {
            Status::failed_precondition(message)
        }
        ApiError::Field { .. } | ApiError::TooLarge { .. } | ApiError::Invalid(_) => {
            Status::invalid_argument(message)
        }
        ApiError::Unavailable
        | ApiError::Overloaded
        | ApiError::Full
        | ApiError::SseDisabled { .. } => Status::unavailable(message),
        ApiError::TooManyConnections { .. } | ApiError::TooManyQuestions { .. } => {
            Status::resource_exhausted(message)
        }
        ApiError::Internal(error) => {
            tracing::error!(?error, "a call by proc failed");
            Status::internal("internal error")
        }
    }
}
