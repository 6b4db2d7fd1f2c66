//! Bundles: named sets of declared operations, and the routes that list them and call them.

mod chat;
mod demo;
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
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    error::ApiError,
    ingress::Role,
    jobs::{JobContext, JobError},
    state::AppState,
};

/// Something that a job can do. It must bear being run twice: a worker may be lost at any point.
#[async_trait]
pub(crate) trait Operation: Send + Sync + 'static {
    fn name(&self) -> &'static str;
    /// Says what it does, for people.
    fn description(&self) -> &'static str;
    /// Returns the role in the project that its caller needs.
    fn role(&self) -> Role;
    /// Returns how long an attempt may take.
    fn timeout(&self) -> Duration;
    /// Returns the JSON Schema of its input.
    fn schema(&self) -> Value;
    /// Does it, and returns the job's result.
    async fn run(&self, context: JobContext, input: Value) -> Result<Value, JobError>;
}

/// An operation with its schema made ready.
pub(crate) struct Declared {
    operation: Arc<dyn Operation>,
    schema: Value,
    validator: jsonschema::Validator,
}

impl Declared {
    pub(crate) fn operation(&self) -> Arc<dyn Operation> {
        self.operation.clone()
    }
}

/// Every bundle there is.
#[derive(Default)]
pub(crate) struct Registry {
    bundles: BTreeMap<&'static str, (&'static str, Vec<Declared>)>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.bundles.keys()).finish()
    }
}

impl Registry {
    /// Returns the bundles that are built in.
    pub(crate) fn built_in() -> anyhow::Result<Self> {
        Self::default()
            .with(
                "chat",
                "Brings chat into Parley and out of it.",
                vec![Arc::new(chat::Import), Arc::new(chat::Export)],
            )?
            .with("demo", "Something to look at while it runs.", vec![Arc::new(demo::Count)])
    }

    /// Adds a bundle.
    pub(crate) fn with(
        mut self,
        name: &'static str,
        description: &'static str,
        operations: Vec<Arc<dyn Operation>>,
    ) -> anyhow::Result<Self> {
        let declared = operations.into_iter().map(|operation| {
            let schema = operation.schema();
            let options = jsonschema::options().should_validate_formats(true);
            let validator = options.build(&schema).map_err(|error| anyhow::anyhow!("{error}"))?;
            Ok(Declared { operation, schema, validator })
        });
        self.bundles.insert(name, (description, declared.collect::<anyhow::Result<_>>()?));
        Ok(self)
    }

    pub(crate) fn find(&self, bundle: &str, operation: &str) -> Option<&Declared> {
        let (_, operations) = self.bundles.get(bundle)?;
        operations.iter().find(|declared| declared.operation.name() == operation)
    }

    fn show(&self, bundle: &str) -> Option<Bundle> {
        let (name, (description, operations)) = self.bundles.get_key_value(bundle)?;
        let operations =
            operations.iter().map(|Declared { operation, schema, .. }| OperationInfo {
                name: operation.name(),
                description: operation.description(),
                role: operation.role(),
                timeout_seconds: operation.timeout().as_secs(),
                input: schema.clone(),
            });
        Some(Bundle { name, description, operations: operations.collect() })
    }
}

/// Returns the JSON Schema of a type of input.
pub(crate) fn schema_of<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<T>().to_value()
}

/// Reads an input that its schema has let pass.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(input: Value) -> Result<T, JobError> {
    serde_json::from_value(input)
        .map_err(|error| JobError::permanent("invalid_input", error.to_string()))
}

/// A bundle as clients see it.
#[derive(Serialize, utoipa::ToSchema)]
struct Bundle {
    name: &'static str,
    description: &'static str,
    operations: Vec<OperationInfo>,
}

/// An operation as clients see it.
#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Operation)]
struct OperationInfo {
    name: &'static str,
    description: &'static str,
    /// The role in the project that a caller needs.
    role: Role,
    timeout_seconds: u64,
    /// JSON Schema of `data`.
    input: Value,
}

#[derive(Serialize, utoipa::ToSchema)]
struct Bundles {
    bundles: Vec<Bundle>,
    next: Option<String>,
}

pub(crate) fn routes() -> OpenApiRouter<AppState> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).merge(submit::routes())
}

/// Lists all bundles.
#[utoipa::path(get, path = "/bundles", tag = "bundles", responses((status = 200, body = Bundles)))]
async fn list(State(registry): State<Arc<Registry>>, _: User) -> Json<Bundles> {
    let bundles = registry.bundles.keys().filter_map(|name| registry.show(name)).collect();
    Json(Bundles { bundles, next: None })
}

/// Shows one bundle.
#[utoipa::path(get, path = "/bundles/{bundle}", tag = "bundles", params(("bundle" = String, Path)),
    responses((status = 200, body = Bundle), (status = 404)))]
async fn show(
    State(registry): State<Arc<Registry>>,
    _: User,
    Path(bundle): Path<String>,
) -> Result<Json<Bundle>, ApiError> {
    registry.show(&bundle).map(Json).ok_or(ApiError::NotFound("the bundle"))
}
