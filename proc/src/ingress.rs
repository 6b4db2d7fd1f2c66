//! Asks ingress about chat, whose rules live there.

use std::{fmt, str::FromStr, time::Duration};

use http::Uri;
use proto::{GetAccessRequest, Principal, chat_client::ChatClient};
use schemars::JsonSchema;
use serde::Serialize;
use shared::{
    ids::{ProjectId, TraceId, UserId},
    service_token::ServiceToken,
};
use tonic::{
    Code, Request, Status,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

/// What a member may do; each role may do what the ones before it may.
#[derive(
    Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema, utoipa::ToSchema,
)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Role {
    Viewer,
    Member,
    Owner,
}

impl FromStr for Role {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text {
            "viewer" => Ok(Self::Viewer),
            "member" => Ok(Self::Member),
            "owner" => Ok(Self::Owner),
            _ => Err(()),
        }
    }
}

/// A client of `parley.v1.Chat`; a clone shares the connection.
#[derive(Clone)]
pub(crate) struct Ingress {
    channel: Channel,
    token: ServiceToken,
}

/// The generated client with our identity on every call.
pub(crate) type Chat = ChatClient<InterceptedService<Channel, Sign>>;

/// Puts the service token on calls.
#[derive(Clone)]
pub(crate) struct Sign(ServiceToken);

impl Interceptor for Sign {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        self.0.sign(request)
    }
}

impl fmt::Debug for Ingress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ingress").finish_non_exhaustive()
    }
}

impl Ingress {
    /// Connects when the first call is made.
    pub(crate) fn new(uri: Uri, token: ServiceToken) -> Self {
        let endpoint = Endpoint::from(uri)
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(30));
        Self { channel: endpoint.connect_lazy(), token }
    }

    pub(crate) fn chat(&self) -> Chat {
        ChatClient::with_interceptor(self.channel.clone(), Sign(self.token.clone()))
    }

    /// Returns the user's role in the project, `None` for a stranger.
    pub(crate) async fn role(
        &self,
        user: &UserId,
        project: ProjectId,
        trace: &TraceId,
    ) -> Result<Option<Role>, Status> {
        let principal = Some(principal(user, project, trace));
        match self.chat().get_access(GetAccessRequest { principal }).await {
            Ok(answer) => {
                let role = answer.into_inner().role.parse();
                role.map(Some).map_err(|()| Status::internal("ingress names an unknown role"))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }
}

/// Returns who a call acts for.
pub(crate) fn principal(user: &UserId, project: ProjectId, trace: &TraceId) -> Principal {
    Principal {
        user: user.to_string(),
        project_id: project.to_string(),
        trace_id: trace.to_string(),
    }
}
