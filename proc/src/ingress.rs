//! Asks ingress about chat, whose rules live there.

use std::{str::FromStr, time::Duration};

use proto::{
    GetAccessRequest, GetMessagesRequest, GetMessagesResponse, ListAccessRequest, Principal,
    ReadMessagesRequest, ReadMessagesResponse, chat_client::ChatClient,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use shared::{
    grpc::{Calls, MAX_MESSAGE_BYTES, Peer},
    ids::{ProjectId, TraceId, UserId},
};
use tonic::{Code, Response, Status};

/// How long ingress may take to answer somebody who waits for it: its absence is told within two seconds.
const ASKING: Duration = Duration::from_millis(1_800);
/// How long it may take to write a batch of an import, or to begin an export.
const WORKING: Duration = Duration::from_secs(30);

/// Users whose roles ingress is asked for in one call.
const MAX_ASKED: usize = 1_000;

/// What a member may do; each role may do what the ones before it may.
#[derive(
    Copy,
    Clone,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    utoipa::ToSchema,
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

/// Asks ingress; a clone asks the same replicas.
#[derive(Clone, Debug)]
pub(crate) struct Ingress {
    asking: Calls,
    working: Calls,
}

/// The generated client.
pub(crate) type Chat = ChatClient<Calls>;

impl Ingress {
    pub(crate) fn new(peer: &Peer) -> Self {
        // Everything that `parley.v1.Chat` does may be asked for twice.
        let calls = |deadline| peer.calls(deadline).repeatable();
        Self { asking: calls(ASKING), working: calls(WORKING) }
    }

    /// Returns a client for the work of jobs.
    pub(crate) fn chat(&self) -> Chat {
        client(self.working.clone())
    }

    /// Returns a client whose answers are streams of so long at most.
    pub(crate) fn streaming(&self, longest: Duration) -> Chat {
        client(self.working.clone().streaming(longest))
    }

    /// Returns the user's role in the project, `None` for a stranger.
    pub(crate) async fn role(
        &self,
        user: &UserId,
        project: ProjectId,
        trace: &TraceId,
    ) -> Result<Option<Role>, Status> {
        let principal = Some(principal(user, project, trace));
        match client(self.asking.clone()).get_access(GetAccessRequest { principal }).await {
            Ok(answer) => {
                let role = answer.into_inner().role.parse();
                role.map(Some).map_err(|()| Status::internal("ingress names an unknown role"))
            }
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Returns the role of each user in the project beside it, in this order; `None` for a stranger.
    pub(crate) async fn roles(
        &self,
        asked: &[(UserId, ProjectId)],
        trace: &TraceId,
    ) -> Result<Vec<Option<Role>>, Status> {
        let mut roles = Vec::with_capacity(asked.len());
        for some in asked.chunks(MAX_ASKED) {
            let principals = some.iter().map(|(user, project)| principal(user, *project, trace));
            let request = ListAccessRequest { principals: principals.collect() };
            let answer = client(self.asking.clone()).list_access(request).await?.into_inner();
            if answer.roles.len() != some.len() {
                return Err(Status::internal("ingress left out a role"));
            }
            for role in answer.roles {
                let unknown = |()| Status::internal("ingress names an unknown role");
                let role = Some(role).filter(|role| !role.is_empty());
                roles.push(role.map(|role| role.parse().map_err(unknown)).transpose()?);
            }
        }
        Ok(roles)
    }

    /// Returns whether ingress answers.
    pub(crate) async fn answers(&self) -> bool {
        client(self.asking.clone()).list_access(ListAccessRequest::default()).await.is_ok()
    }

    /// Returns messages as a user may read them now.
    pub(crate) async fn get_messages(
        &self,
        request: GetMessagesRequest,
    ) -> Result<GetMessagesResponse, Status> {
        let answer = client(self.asking.clone()).get_messages(request).await;
        answer.map(Response::into_inner)
    }

    /// Returns a page of a project's messages, for the index.
    pub(crate) async fn read_messages(
        &self,
        request: ReadMessagesRequest,
    ) -> Result<ReadMessagesResponse, Status> {
        let answer = client(self.asking.clone()).read_messages(request).await;
        answer.map(Response::into_inner)
    }
}

fn client(calls: Calls) -> Chat {
    ChatClient::new(calls)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES)
}

/// Returns who a call acts for.
pub(crate) fn principal(user: &UserId, project: ProjectId, trace: &TraceId) -> Principal {
    Principal {
        user: user.to_string(),
        project_id: project.to_string(),
        trace_id: trace.to_string(),
    }
}
