//! Asks the issuer for its keys, by discovery.

use std::{net::IpAddr, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jsonwebtoken::Algorithm;
use serde::Deserialize;
use tokio::time::timeout;

use super::keys::KeySet;

/// The longest document in bytes.
const MAX_BYTES: usize = 64 * 1024;
/// How long a document may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Who makes the tokens.
#[derive(Debug)]
pub(super) struct Issuer {
    name: String,
    discovery: Uri,
    algorithms: Vec<Algorithm>,
    http: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

/// What discovery says that is of use.
#[derive(Deserialize)]
struct Discovered {
    issuer: String,
    jwks_uri: String,
}

impl Issuer {
    pub(super) fn new(name: &str, algorithms: &[Algorithm]) -> anyhow::Result<Self> {
        trusted(name).context("OIDC_ISSUER cannot be used")?;
        ensure!(!name.contains('?'), "OIDC_ISSUER has a query");
        let discovery = format!("{}/.well-known/openid-configuration", name.trim_end_matches('/'));
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(crate::tls::client_config())
            .https_or_http()
            .enable_http1()
            .build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        let (name, algorithms) = (name.to_owned(), algorithms.to_vec());
        Ok(Self { name, discovery: discovery.parse()?, algorithms, http })
    }

    /// Returns the keys of now.
    pub(super) async fn fetch(&self, before: Option<Arc<KeySet>>) -> anyhow::Result<KeySet> {
        let document = self.get(self.discovery.clone()).await.context("discovery failed")?;
        let Discovered { issuer, jwks_uri } =
            serde_json::from_slice(&document).context("discovery is not what it should be")?;
        // Else one issuer of a host could speak for another.
        ensure!(issuer == self.name, "discovery is of another issuer than OIDC_ISSUER");
        let jwks_uri = trusted(&jwks_uri).context("`jwks_uri` cannot be used")?;
        // The machine's own services are nobody's keys but those of an issuer on the machine.
        ensure!(
            jwks_uri.scheme_str() == Some("https") || self.discovery.scheme_str() == Some("http"),
            "`jwks_uri` is not https"
        );
        let jwks = self.get(jwks_uri).await.context("the JWKS could not be fetched")?;
        KeySet::parse(&jwks, &self.algorithms, before.as_deref())
    }

    /// Redirects are not followed: where keys come from is what was configured.
    async fn get(&self, uri: Uri) -> anyhow::Result<Bytes> {
        let request = Request::get(uri).header(header::ACCEPT, "application/json");
        let request = request.body(Empty::new())?;
        let fetching = async {
            let response = self.http.request(request).await?;
            ensure!(response.status() == StatusCode::OK, "the answer is {}", response.status());
            let body = Limited::new(response.into_body(), MAX_BYTES).collect().await;
            Ok(body.map_err(|error| anyhow::anyhow!(error))?.to_bytes())
        };
        timeout(TIMEOUT, fetching).await.context("it took too long")?
    }
}

/// Takes an https URL, or an http one of this machine.
fn trusted(url: &str) -> anyhow::Result<Uri> {
    ensure!(!url.contains(['#', '@']), "it has a fragment or credentials");
    let uri: Uri = url.parse().context("it is no URL")?;
    let host = uri.host().unwrap_or_default();
    match uri.scheme_str() {
        Some("https") if !host.is_empty() => Ok(uri),
        Some("http") if is_loopback(host) => Ok(uri),
        _ => bail!("it is not an https URL"),
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        for (url, is_trusted) in [
            ("https://tenant.auth.example/", true),
            ("https://auth.example/realms/chat", true),
            ("http://127.0.0.1:8080/realms/chat", true),
            ("http://[::1]:8080", true),
            ("http://localhost:8080", true),
            ("http://auth.example", false),
            ("http://127.0.0.1.evil.example", false),
            ("http://localhost.evil.example", false),
            ("http://2130706433", false),
            ("https://user:password@auth.example", false),
            ("http://127.0.0.1@evil.example", false),
            ("https://auth.example/#fragment", false),
            ("file:///etc/passwd", false),
            ("/jwks", false),
            ("auth.example", false),
            ("", false),
        ] {
            assert_eq!(trusted(url).is_ok(), is_trusted, "{url}");
        }
    }
}
