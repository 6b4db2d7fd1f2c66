//! Bundles: named sets of declared operations, and the routes that list them and call them.

pub(crate) mod chat;
mod demo;
mod http;
mod input;
mod submit;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::extract::State;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::Value;
use shared::{
    auth::User,
    http::{Json, Path},
    store,
};
use utoipa_axum::{router::OpenApiRouter, routes};

pub(crate) use self::http::{HttpBundles, Name};
pub(crate) use self::input::GivenInput;
pub(crate) use self::submit::no_data;
use crate::{
    error::ApiError,
    ingress::Role,
    jobs::{JobContext, JobError, Share, machine::Job},
    raw_json::RawJson,
    state::AppState,
};

/// Bundle and operation that write exports.
pub(crate) const EXPORT: (&str, &str) = ("chat", "export");

/// Something that a job can do. It must bear being run twice: a worker may be lost at any point.
#[async_trait]
pub(crate) trait Operation: Send + Sync + 'static {
    fn name(&self) -> &str;
    /// Says what it does, for people.
    fn description(&self) -> &str;
    /// Returns the role in the project that its caller needs.
    fn role(&self) -> Role;
    /// Returns how long an attempt may take.
    fn timeout(&self) -> Duration;
    /// Returns after how long an attempt is stopped, `None` where the operation bounds itself.
    fn limit(&self) -> Option<Duration> {
        Some(self.timeout())
    }
    /// Returns how many minutes its jobs go before others that became due with them.
    fn priority(&self) -> i64 {
        0
    }

    /// Returns what the job shares with others of which only some may run at once.
    fn share(&self, _job: &Job) -> Option<Share> {
        None
    }

    /// Returns what its owner has only one unfinished job for: submitted again meanwhile, it is the same one.
    fn unique_key(&self, _job: &Job) -> Option<String> {
        None
    }

    /// Returns the JSON Schema of its input.
    fn schema(&self) -> Value;

    /// Holds an input, which its schema lets pass, to rules that no schema can say.
    fn check(&self, _input: &Value) -> Result<(), Unfit> {
        Ok(())
    }

    /// Learns that an attempt was refused, since the job's owner may not call it any more.
    async fn refused(&self, _context: &JobContext) {}

    /// Does it, and returns the job's result.
    async fn run(&self, context: JobContext, input: Value) -> Result<RawJson, JobError>;
}

/// Field of an input that an operation cannot take, and why.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Unfit {
    pub(crate) field: &'static str,
    pub(crate) reason: &'static str,
}

/// An operation with its schema made ready.
pub(crate) struct Declared {
    operation: Arc<dyn Operation>,
    validator: jsonschema::Validator,
}

impl std::fmt::Debug for Declared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.operation.name())
    }
}

impl Declared {
    fn new(operation: Arc<dyn Operation>, validator: jsonschema::Validator) -> Self {
        Self { operation, validator }
    }

    pub(crate) fn operation(&self) -> Arc<dyn Operation> {
        self.operation.clone()
    }
}

/// A bundle: what may be called together.
#[derive(Debug)]
struct Offer {
    name: String,
    /// Which one it is of its name, for those that are not built in.
    version: Option<String>,
    description: String,
    operations: Vec<Arc<Declared>>,
}

impl Offer {
    /// Declares a bundle of ours.
    fn new(
        name: &str,
        description: &str,
        operations: Vec<Arc<dyn Operation>>,
    ) -> anyhow::Result<Self> {
        let declared = operations.into_iter().map(|operation| {
            let options = jsonschema::options().should_validate_formats(true);
            let validator = options.build(&operation.schema());
            let validator = validator.map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok(Arc::new(Declared::new(operation, validator)))
        });
        let operations = declared.collect::<anyhow::Result<_>>()?;
        Ok(Self { name: name.into(), version: None, description: description.into(), operations })
    }

    fn find(&self, operation: &str) -> Option<Arc<Declared>> {
        let is_it = |declared: &&Arc<Declared>| declared.operation.name() == operation;
        self.operations.iter().find(is_it).cloned()
    }
}

/// Every bundle there is.
#[derive(Default)]
pub(crate) struct Registry {
    built_in: BTreeMap<&'static str, Arc<Offer>>,
    /// What only Parley itself makes jobs of.
    hidden: BTreeMap<&'static str, Arc<Offer>>,
    registered: Option<HttpBundles>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.built_in.keys()).finish()
    }
}

impl Registry {
    /// Returns the bundles that are built in; that for demonstrations is one `with_demo`.
    pub(crate) fn built_in(with_demo: bool) -> anyhow::Result<Self> {
        let registry = Self::default().with(
            "chat",
            "Brings chat into Parley and out of it.",
            vec![Arc::new(chat::Import), Arc::new(chat::Export)],
        )?;
        if !with_demo {
            return Ok(registry);
        }
        registry.with("demo", "Something to look at while it runs.", vec![Arc::new(demo::Count)])
    }

    /// Adds a bundle.
    pub(crate) fn with(
        mut self,
        name: &'static str,
        description: &'static str,
        operations: Vec<Arc<dyn Operation>>,
    ) -> anyhow::Result<Self> {
        self.built_in.insert(name, Offer::new(name, description, operations)?.into());
        Ok(self)
    }

    /// Adds a bundle that nobody sees and nobody can call; its jobs are run like any other.
    pub(crate) fn with_hidden(
        mut self,
        name: &'static str,
        operations: Vec<Arc<dyn Operation>>,
    ) -> anyhow::Result<Self> {
        self.hidden.insert(name, Offer::new(name, "", operations)?.into());
        Ok(self)
    }

    /// Adds the bundles that admins register.
    pub(crate) fn with_registered(self, registered: HttpBundles) -> Self {
        Self { registered: Some(registered), ..self }
    }

    fn is_built_in(&self, bundle: &str) -> bool {
        self.built_in.contains_key(bundle) || self.hidden.contains_key(bundle)
    }

    async fn offer(&self, bundle: &str) -> Result<Option<Arc<Offer>>, store::Error> {
        match (self.built_in.get(bundle), &self.registered) {
            (Some(offer), _) => Ok(Some(offer.clone())),
            (None, Some(registered)) => registered.find(bundle).await,
            (None, None) => Ok(None),
        }
    }

    /// Returns an operation that jobs may be of.
    pub(crate) async fn find(
        &self,
        bundle: &str,
        operation: &str,
    ) -> Result<Option<Arc<Declared>>, store::Error> {
        match self.hidden.get(bundle) {
            Some(offer) => Ok(offer.find(operation)),
            None => self.find_callable(bundle, operation).await,
        }
    }

    /// Returns an operation that may be asked for.
    pub(crate) async fn find_callable(
        &self,
        bundle: &str,
        operation: &str,
    ) -> Result<Option<Arc<Declared>>, store::Error> {
        Ok(self.offer(bundle).await?.and_then(|offer| offer.find(operation)))
    }

    async fn all(&self) -> Result<Vec<Arc<Offer>>, store::Error> {
        let mut all: Vec<_> = self.built_in.values().cloned().collect();
        if let Some(registered) = &self.registered {
            all.extend(registered.list().await?);
        }
        Ok(all)
    }
}

/// Returns the JSON Schema of a type of input.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

/// Reads an input that its schema has let pass. To a schema `1.0` is an integer, so it is one here.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(mut input: Value) -> Result<T, JobError> {
    input::make_whole_numbers(&mut input);
    serde_json::from_value(input)
        .map_err(|error| JobError::permanent("invalid_input", error.to_string()))
}

/// A bundle as clients see it.
#[derive(Serialize, utoipa::ToSchema)]
struct Bundle {
    name: String,
    /// Which one it is of its name; the built-in ones are of Parley's version.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    description: String,
    operations: Vec<OperationInfo>,
}

/// An operation as clients see it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Operation)]
struct OperationInfo {
    name: String,
    description: String,
    /// The role in the project that a caller needs.
    role: Role,
    timeout_seconds: u64,
    /// JSON Schema of `data`.
    input: Value,
}

impl From<&Offer> for Bundle {
    fn from(offer: &Offer) -> Self {
        let operations = offer.operations.iter().map(|declared| {
            let operation = &declared.operation;
            OperationInfo {
                name: operation.name().to_owned(),
                description: operation.description().to_owned(),
                role: operation.role(),
                timeout_seconds: operation.timeout().as_secs(),
                input: operation.schema(),
            }
        });
        Self {
            name: offer.name.clone(),
            version: offer.version.clone(),
            description: offer.description.clone(),
            operations: operations.collect(),
        }
    }
}

#[derive(Serialize, utoipa::ToSchema)]
struct Bundles {
    bundles: Vec<Bundle>,
    next: Option<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .merge(submit::routes())
        .merge(http::routes())
}

/// Lists all bundles.
#[utoipa::path(get, path = "/bundles", tag = "bundles", responses((status = 200, body = Bundles)))]
async fn list(State(registry): State<Arc<Registry>>, _: User) -> Result<Json<Bundles>, ApiError> {
    let bundles = registry.all().await?.iter().map(|offer| Bundle::from(&**offer)).collect();
    Ok(Json(Bundles { bundles, next: None }))
}

/// Shows one bundle.
#[utoipa::path(get, path = "/bundles/{bundle}", tag = "bundles", params(("bundle" = String, Path)),
    responses((status = 200, body = Bundle), (status = 404)))]
async fn show(
    State(registry): State<Arc<Registry>>,
    _: User,
    Path(bundle): Path<String>,
) -> Result<Json<Bundle>, ApiError> {
    let offer = registry.offer(&bundle).await?.ok_or(ApiError::NotFound("the bundle"))?;
    Ok(Json(Bundle::from(&*offer)))
}
