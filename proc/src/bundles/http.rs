//! Bundles behind a URL, in any language: registered by an admin, called over HTTP, signed both ways.

mod accepted;
mod admin;
mod answer;
mod away;
mod callback;
mod calls;
mod cancels;
mod client;
mod deleted;
mod limits;
mod manifest;
mod operation;
mod store;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use jsonschema::PatternOptions;
use shared::store::{Error, Store};
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use uuid::Uuid;

pub(crate) use self::manifest::Name;
use self::{
    away::Away,
    client::Caller,
    manifest::{Manifest, OperationManifest},
    operation::HttpOperation,
    store::Registered,
};
use super::{Declared, Offer};
use crate::{jobs::machine::RetryPolicy, outgoing::Outgoing, state::AppState};

/// The bundles that admins have registered; a clone is the same ones.
///
/// They are read from the database whenever one is asked for, so that no replica ever knows an old one.
#[derive(Clone, Debug)]
pub(crate) struct HttpBundles {
    store: Store,
    caller: Caller,
    callbacks: Arc<str>,
    retries: RetryPolicy,
    /// By name.
    ready: Arc<Mutex<HashMap<String, Ready>>>,
}

/// A bundle with its schemas made ready.
#[derive(Debug)]
struct Ready {
    revision: Uuid,
    offer: Arc<Offer>,
}

impl HttpBundles {
    /// Calls by `outgoing`; `base` is where bundles reach proc.
    pub(crate) fn new(store: Store, outgoing: Outgoing, base: &str, retries: RetryPolicy) -> Self {
        let callbacks = format!("{}/api/integrations/callbacks", base.trim_end_matches('/')).into();
        let caller = Caller { outgoing, clock: store.clock().clone(), away: Away::default() };
        Self { store, caller, callbacks, retries, ready: Arc::default() }
    }

    /// Writes down how many jobs of each operation run at once, which an earlier version did not.
    pub(crate) async fn put_limits(&self) -> Result<(), Error> {
        limits::put_all(&self.store).await
    }

    /// Ends accepted jobs whose time is over, until shutdown.
    pub(crate) async fn expire_accepted(self, shutdown: CancellationToken) {
        accepted::run(self.store, self.retries, shutdown).await;
    }

    /// Tells bundles of jobs that are not wanted any more, and ends jobs of bundles that were deleted, until shutdown.
    pub(crate) async fn tell_of_cancels(self, shutdown: CancellationToken) {
        tokio::join!(
            cancels::run(self.store.clone(), self.caller, shutdown.clone()),
            deleted::run(self.store, shutdown),
        );
    }

    pub(super) async fn find(&self, name: &str) -> Result<Option<Arc<Offer>>, Error> {
        // Nothing else was ever registered, and not every database would look for it.
        let Ok(name) = Name::try_from(name.to_owned()) else { return Ok(None) };
        let found = self.store.read(move |reader| store::find(reader, name.as_str())).await?;
        Ok(found.and_then(|bundle| self.offer(bundle)))
    }

    pub(super) async fn list(&self) -> Result<Vec<Arc<Offer>>, Error> {
        let found = self.store.read(store::list).await?;
        Ok(found.into_iter().filter_map(|bundle| self.offer(bundle)).collect())
    }

    /// Returns a bundle with its schemas made ready, which takes a while and is done once.
    fn offer(&self, bundle: Registered) -> Option<Arc<Offer>> {
        let (name, revision) = (bundle.name.clone(), bundle.revision);
        let ready = || self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = ready().get(&name).filter(|known| known.revision == revision) {
            return Some(known.offer.clone());
        }
        let bundle = Arc::new(bundle);
        let Manifest { version, description, operations } = bundle.manifest.clone();
        let operations = operations.into_iter().map(|manifest| {
            let (caller, callbacks) = (self.caller.clone(), self.callbacks.clone());
            let validator = validator(&manifest)?;
            let operation = HttpOperation { bundle: bundle.clone(), manifest, caller, callbacks };
            Ok(Arc::new(Declared::new(Arc::new(operation), validator)))
        });
        let operations: Result<_, String> = operations.collect();
        // Only what went through this was registered.
        let operations = operations
            .inspect_err(|error| tracing::error!(name, error, "a bundle cannot be read"))
            .ok()?;
        let version = Some(version);
        let offer = Arc::new(Offer { name: name.clone(), version, description, operations });
        ready().insert(name, Ready { revision, offer: offer.clone() });
        Some(offer)
    }
}

/// Makes a schema ready that somebody else wrote: it looks nothing up elsewhere, and its patterns take linear time.
fn validator(manifest: &OperationManifest) -> Result<jsonschema::Validator, String> {
    if manifest.input["type"] != "object" {
        return Err("the schema has `\"type\": \"object\"`".into());
    }
    jsonschema::options()
        .should_validate_formats(true)
        .with_pattern_options(PatternOptions::regex())
        .build(&manifest.input)
        .map_err(|error| error.to_string())
}

pub(super) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().merge(admin::routes()).merge(callback::routes())
}

#[cfg(test)]
mod tests;
