//! What a service is made of besides itself: in one process both services are given the same.

use anyhow::{bail, ensure};
use secrecy::ExposeSecret;

use crate::{
    bus::Bus,
    config::Config,
    http::{Connections, DemoAccess},
    lifecycle::Lifecycle,
    limits::Limits,
    sabotage::Sabotage,
    service_token::ServiceToken,
    store::Store,
};

/// The parts that services share; a clone is the same parts.
#[derive(Clone, Debug)]
pub struct Parts {
    /// The database.
    pub store: Store,
    /// The hints between replicas.
    pub bus: Bus,
    /// The owner of all tasks.
    pub lifecycle: Lifecycle,
    /// The connections of the public listeners.
    pub connections: Connections,
    /// How often and how much may be asked of the public listeners.
    pub limits: Limits,
    /// True if demo users may sign in.
    pub demo_access: DemoAccess,
    /// How the services know each other.
    pub service_token: ServiceToken,
    /// The deliberate bug to have.
    pub sabotage: Option<Sabotage>,
}

impl Parts {
    /// Opens the embedded default: a SQLite file and a bus inside the process, for both services together.
    pub fn embedded(config: &Config) -> anyhow::Result<Self> {
        ensure!(
            config.database_url.is_none() && config.nats.nats_url.is_none(),
            "DATABASE_URL and NATS_URL are for `ingress` and `proc` as processes of their own; `parley` keeps its data in {}",
            config.data_dir.display()
        );
        let bus = Bus::default();
        let store = Store::open_with(&config.data_dir, &bus, config.sabotage())?;
        let lifecycle = Lifecycle::default();
        let database = store.health();
        lifecycle.need(move || database.is_sound());
        Ok(Self {
            store,
            bus,
            connections: Connections::new(&config.listen),
            limits: limits(config, &lifecycle),
            demo_access: DemoAccess::default(),
            lifecycle,
            service_token: ServiceToken::configured(&config.service_token)?
                .unwrap_or_else(ServiceToken::random),
            sabotage: config.sabotage(),
        })
    }

    /// Opens what a service alone needs: a PostgreSQL that all share, and NATS.
    pub async fn clustered(config: &Config) -> anyhow::Result<Self> {
        let postgres = config.database_url.as_ref().map(ExposeSecret::expose_secret);
        let is_postgres =
            |url: &&str| url.starts_with("postgres://") || url.starts_with("postgresql://");
        let (Some(url), Some(_)) = (postgres.filter(is_postgres), &config.nats.nats_url) else {
            bail!(
                "a service of its own needs DATABASE_URL=postgres://… and NATS_URL; \
                 start `parley` (cargo run) for both services in one process on an embedded database"
            )
        };
        let service_token = ServiceToken::required(&config.service_token)?;
        let lifecycle = Lifecycle::default();
        let bus = Bus::join(&config.nats, &lifecycle).await?;
        let store = Store::connect(url, &bus, config.sabotage())?;
        let database = store.health();
        lifecycle.need(move || database.is_sound());
        Ok(Self {
            store,
            bus,
            connections: Connections::new(&config.listen),
            limits: limits(config, &lifecycle),
            demo_access: DemoAccess::default(),
            lifecycle,
            service_token,
            sabotage: config.sabotage(),
        })
    }
}

fn limits(config: &Config, lifecycle: &Lifecycle) -> Limits {
    let limits = Limits::new(&config.limits);
    lifecycle.spawn("limits", limits.clone().sweep(lifecycle.shutdown()));
    limits
}
