//! All parts together.

use anyhow::{Context, ensure};
use futures_util::future::{join_all, try_join, try_join_all};

use crate::{
    folder::{Folder, write_private},
    link::Link,
    nats::Nats,
    nginx::Nginx,
    options::Options,
    ports::Ports,
    postgres::Postgres,
    process::Process,
    service::{Kind, Links, Place, Service},
    skew,
};

/// A running cluster; when dropped, every part ends.
#[derive(Debug)]
pub struct Cluster {
    // Dropped in this order.
    nginx: Nginx,
    ingress: Vec<Service>,
    proc: Vec<Service>,
    nats: Nats,
    postgres: Postgres,
    folder: Folder,
}

impl Cluster {
    /// Starts every part and waits until all are ready.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        ensure!(options.ingress > 0 && options.proc > 0, "a cluster has one of each service");
        let folder = Folder::take(&options.folder, options.keep)?;
        let mut ports = Ports::from(options.first_port);
        let postgres = Postgres::plan(&folder, &mut ports)?;
        let nats = Nats::plan(&folder, &mut ports, options.nats_server.clone())?;
        let mut places = |kind, count| -> anyhow::Result<Vec<Place>> {
            (0..count).map(|number| Place::take(kind, number, &mut ports)).collect()
        };
        let ingress = places(Kind::Ingress, options.ingress)?;
        let proc = places(Kind::Proc, options.proc)?;
        let grpc = [
            ("INGRESS_GRPC_URL".to_owned(), grpc_urls(&ingress)),
            ("PROC_GRPC_URL".to_owned(), grpc_urls(&proc)),
        ];
        let mut environment = environment(&folder, &postgres)?;
        environment.extend(grpc);
        let services = |places: Vec<Place>| -> anyhow::Result<Vec<Service>> {
            let plan = |place| service(&options, &folder, (&postgres, &nats), &environment, place);
            places.into_iter().map(plan).collect()
        };
        let (ingress, proc) = (services(ingress)?, services(proc)?);
        let addrs = |services: &[Service]| services.iter().map(Service::addr).collect::<Vec<_>>();
        let nginx =
            Nginx::plan(&folder, &mut ports, options.listen, &addrs(&ingress), &addrs(&proc))?;
        environment.push(("NATS_URL".into(), nats.url_by(nats.addr())));
        write_environment(&folder, &environment)?;
        let cluster = Self { nginx, ingress, proc, nats, postgres, folder };
        cluster.start_parts(options.progress).await?;
        Ok(cluster)
    }

    async fn start_parts(&self, progress: fn(&str)) -> anyhow::Result<()> {
        progress("starting PostgreSQL and NATS");
        try_join(self.postgres.start(), self.nats.start()).await?;
        progress("starting ingress and proc");
        try_join_all(self.services().map(|service| service.start())).await?;
        progress("starting nginx");
        self.nginx.start().await
    }

    /// Stops every part in order and fails if one does not end well.
    pub async fn stop(self) -> anyhow::Result<()> {
        self.nginx.stop_if_running().await?;
        let ended = join_all(self.services().map(|service| service.stop_if_running())).await;
        // The others are stopped too, whatever one of them did.
        let rest = [self.nats.stop_if_running().await, self.postgres.stop_if_running().await];
        ended.into_iter().chain(rest).collect::<anyhow::Result<()>>()
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.ingress.iter().chain(&self.proc)
    }

    /// Returns every process, the way in first.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        let services = self.services().map(|service| &**service);
        let first: &Process = &self.nginx;
        let last: [&Process; 2] = [&self.nats, &self.postgres];
        std::iter::once(first).chain(services).chain(last)
    }

    /// Returns the origin that unites both services.
    #[must_use]
    pub fn base_url(&self) -> String {
        self.nginx.url()
    }

    /// Returns an ingress' own base URL.
    #[must_use]
    pub fn ingress_url(&self, number: usize) -> String {
        self.ingress[number].url()
    }

    /// Returns a proc's own base URL.
    #[must_use]
    pub fn proc_url(&self, number: usize) -> String {
        self.proc[number].url()
    }

    /// Returns how many ingress there are.
    #[must_use]
    pub fn ingress_count(&self) -> usize {
        self.ingress.len()
    }

    /// Returns how many proc there are.
    #[must_use]
    pub fn proc_count(&self) -> usize {
        self.proc.len()
    }

    /// Returns an ingress.
    #[must_use]
    pub fn ingress(&self, number: usize) -> &Service {
        &self.ingress[number]
    }

    /// Returns a proc.
    #[must_use]
    pub fn proc(&self, number: usize) -> &Service {
        &self.proc[number]
    }

    /// Returns the bus.
    #[must_use]
    pub fn nats(&self) -> &Nats {
        &self.nats
    }

    /// Returns the database.
    #[must_use]
    pub fn postgres(&self) -> &Postgres {
        &self.postgres
    }

    /// Returns the proxy.
    #[must_use]
    pub fn nginx(&self) -> &Nginx {
        &self.nginx
    }

    /// Returns the folder of data and logs.
    #[must_use]
    pub fn folder(&self) -> &Folder {
        &self.folder
    }
}

/// Returns what every service is told, whichever it is.
fn environment(folder: &Folder, postgres: &Postgres) -> anyhow::Result<Vec<(String, String)>> {
    let data = folder.make("parley")?;
    let data = data.to_str().context("the folder's name is not text")?.to_owned();
    // 43 characters of base64, of which the last has only four bits, are 32 bytes.
    let secrets_key = format!("{:.42}A=", folder.secret("secrets-key")?.repeat(2));
    let settings = [
        ("DATABASE_URL", postgres.url()),
        ("SERVICE_TOKEN", folder.secret("service-token")?),
        ("SECRETS_KEY", secrets_key),
        // Of uploads and artifacts, the same for every proc.
        ("DATA_DIR", data),
        // All connections are nginx's, which says for whom.
        ("TRUSTED_PROXIES", "127.0.0.1".into()),
        ("MAX_CONNECTIONS_PER_ADDRESS", "0".into()),
        // Enough for nginx to learn of it on the same machine.
        ("DRAIN_DELAY", "500ms".into()),
    ];
    Ok(settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

fn service(
    options: &Options,
    folder: &Folder,
    (postgres, nats): (&Postgres, &Nats),
    environment: &[(String, String)],
    place: Place,
) -> anyhow::Result<Service> {
    let links = Links {
        nats: options.nats_links.then(|| Link::open(nats.addr())).transpose()?,
        database: options.database_links.then(|| Link::open(postgres.addr())).transpose()?,
    };
    let bus = links.nats.as_ref().map_or(nats.addr(), Link::addr);
    let mut env = environment.to_vec();
    env.push(("NATS_URL".into(), nats.url_by(bus)));
    if let Some(link) = &links.database {
        env.push(("DATABASE_URL".into(), postgres.url_by(link.addr())));
    }
    if let Some(skew) = options.clock_skew.filter(|_| place.is_second()) {
        env.extend(skew::environment(skew)?);
    }
    env.extend(options.settings.iter().cloned());
    Service::plan(folder, &options.programs, &options.flags, place, env, links)
}

fn grpc_urls(places: &[Place]) -> String {
    places.iter().map(Place::grpc_url).collect::<Vec<_>>().join(",")
}

/// Leaves what the services are told for a shell to read, and for `psql "$DATABASE_URL"`.
fn write_environment(folder: &Folder, environment: &[(String, String)]) -> anyhow::Result<()> {
    let lines = environment.iter().map(|(name, value)| format!("{name}='{value}'\n"));
    write_private(&folder.file("env"), &lines.collect::<String>())
}
