//! One HTTP/1.1 connection, as lean as a client can be: it shares the machine with what it measures.

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// A connection that is kept alive, and opened anew when the server has had enough of it.
pub(crate) struct Client {
    sender: SendRequest<Full<Bytes>>,
    is_over: bool,
    host: String,
    authorization: String,
}

impl Client {
    pub(crate) async fn connect(host: &str, token: &str) -> anyhow::Result<Self> {
        let (sender, authorization) = (open(host).await?, format!("Bearer {token}"));
        Ok(Self { sender, is_over: false, host: host.into(), authorization })
    }

    /// Sends one request and reads the whole answer.
    pub(crate) async fn call(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        if self.is_over {
            self.sender = open(&self.host).await?;
        }
        self.sender.ready().await?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, &self.host)
            .header(header::AUTHORIZATION, &self.authorization)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body.into()))?;
        let response = self.sender.send_request(request).await?;
        let status = response.status();
        let connection = response.headers().get(header::CONNECTION);
        self.is_over = connection.is_some_and(|connection| connection == "close");
        Ok((status, response.into_body().collect().await?.to_bytes()))
    }

    /// Sends one request whose answer is JSON of a success.
    pub(crate) async fn json(
        &mut self,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> anyhow::Result<Value> {
        let (status, body) = self.call(method, path, body).await?;
        ensure!(
            status.is_success(),
            "{path} answered {status}: {}",
            String::from_utf8_lossy(&body)
        );
        serde_json::from_slice(&body).context("the answer is not JSON")
    }

    /// Makes a project and returns its id.
    pub(crate) async fn project(&mut self, name: &str) -> anyhow::Result<String> {
        let body = serde_json::json!({"name": name}).to_string();
        let project = self.json(Method::POST, "/api/chat/projects", body).await?;
        Ok(project["id"].as_str().context("a project has no id")?.into())
    }
}

async fn open(host: &str) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let socket = TcpStream::connect(host).await?;
    socket.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(socket)).await?;
    #[expect(clippy::disallowed_methods, reason = "ends with its connection")]
    tokio::spawn(connection);
    Ok(sender)
}
