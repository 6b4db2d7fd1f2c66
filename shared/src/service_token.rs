//! How the two services know each other: one shared secret on every gRPC call.

use http::HeaderValue;
use rand::distr::SampleString as _;
use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;
use tonic::{Request, Status, metadata::MetadataValue};

/// The secret that ingress and proc share.
#[derive(Clone, Debug)]
pub struct ServiceToken(SecretString);

impl ServiceToken {
    /// Takes a configured secret.
    #[must_use]
    pub fn new(secret: SecretString) -> Self {
        Self(secret)
    }

    /// Makes a secret for services that live in one process.
    #[must_use]
    pub fn random() -> Self {
        let secret = rand::distr::Alphanumeric.sample_string(&mut rand::rng(), 43);
        Self(secret.into())
    }

    /// Adds the secret to an outgoing call.
    pub fn sign(&self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let value = HeaderValue::from_str(&format!("Bearer {}", self.0.expose_secret()))
            .map_err(|_| Status::internal("the service token is no header value"))?;
        let value = MetadataValue::try_from(value.as_bytes())
            .map_err(|_| Status::internal("the service token is no header value"))?;
        request.metadata_mut().insert("authorization", value);
        Ok(request)
    }

    /// Lets a call pass if it carries the secret.
    pub fn check(&self, request: Request<()>) -> Result<Request<()>, Status> {
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let given = given.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default();
        if bool::from(given.as_bytes().ct_eq(self.0.expose_secret().as_bytes())) {
            Ok(request)
        } else {
            Err(Status::unauthenticated("service identity is missing"))
        }
    }
}
