//! The installation that is measured: a cluster, and an nginx before the first of its ingress, before the first two, and so
//! on, so that all of these can be asked in turn.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ::cluster::{Cluster, Folder, Nginx, Options, Ports};
use anyhow::Context;
use clap::Args;
use http::Method;
use tempfile::TempDir;

use crate::{
    client::Client,
    process,
    users::{self, OWNER, token, user},
};

/// How many ingress there are at most.
pub(super) const INGRESS: usize = 3;

/// Where everything is; when dropped, it ends and its data goes.
pub(super) struct Place {
    // Dropped in this order.
    fronts: Vec<Nginx>,
    pub(super) cluster: Cluster,
    _folders: Vec<Folder>,
    folder: TempDir,
}

/// Where the programs are, and where the data may lie.
#[derive(Args)]
pub(crate) struct Parts {
    /// Folder of the programs `ingress` and `proc`; by default where `bench` is.
    #[arg(long)]
    programs: Option<PathBuf>,
    /// Program of NATS, 2.9 or later; by default the installed `nats-server`.
    #[arg(long)]
    nats_server: Option<PathBuf>,
    /// Where the data lies during the run, on a real disk; by default where `bench` is.
    #[arg(long)]
    data: Option<PathBuf>,
}

impl Place {
    /// Starts everything, with so many users and their owner.
    pub(super) async fn start(parts: Parts, users: usize) -> anyhow::Result<Self> {
        let folder = process::open_folder(parts.data.as_deref())?;
        let file = folder.path().join("users.json");
        users::write(&file, users)?;
        let options = Options::new(folder.path().join("cluster"))
            .set("AUTH_USERS_FILE", file.to_str().context("the folder's name is not text")?)
            // A user's streams of the turn before may still have their places.
            .set("MAX_CONNECTIONS_PER_USER", "50")
            // Streams come and go in turns, and nobody is to be told of it meanwhile.
            .set("PRESENCE_GRACE", "1h")
            .without_rate_limits()
            .set("LOG", "warn");
        let options = Options {
            ingress: INGRESS,
            programs: parts.programs.unwrap_or_else(|| options.programs.clone()),
            nats_server: parts.nats_server,
            progress: |step| eprintln!("{step}"),
            ..options
        };
        let cluster = Cluster::start(options).await?;
        let ingress: Vec<SocketAddr> =
            (0..INGRESS).map(|number| cluster.ingress(number).addr()).collect();
        let proc: Vec<SocketAddr> =
            (0..cluster.proc_count()).map(|number| cluster.proc(number).addr()).collect();
        let (mut fronts, mut folders, mut ports) = (Vec::new(), Vec::new(), Ports::default());
        for count in 1..INGRESS {
            let home = Folder::take(&folder.path().join(format!("front-{count}")), false)?;
            let front = Nginx::plan(&home, &mut ports, None, &ingress[..count], &proc)?;
            front.start().await?;
            fronts.push(front);
            folders.push(home);
        }
        Ok(Self { fronts, cluster, _folders: folders, folder })
    }

    /// Returns the nginx before so many ingress.
    pub(super) fn front(&self, ingress: usize) -> &Nginx {
        self.fronts.get(ingress - 1).unwrap_or_else(|| self.cluster.nginx())
    }

    pub(super) fn fronts(&self) -> impl Iterator<Item = &Nginx> {
        self.fronts.iter().chain([self.cluster.nginx()])
    }

    pub(super) fn ingress_addrs(&self) -> Vec<SocketAddr> {
        (0..INGRESS).map(|number| self.cluster.ingress(number).addr()).collect()
    }

    /// Returns a folder for what a run needs besides.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Makes projects of the owner with so many other members each, who are in no second one. Returns their ids.
    pub(super) async fn projects(
        &self,
        count: usize,
        members: usize,
    ) -> anyhow::Result<Vec<String>> {
        let host = self.cluster.nginx().addr().to_string();
        let mut owner = Client::connect(&host, &token(OWNER)).await?;
        let mut ids = Vec::new();
        for number in 0..count {
            let id = owner.project(&format!("project {number}")).await?;
            for member in number * members..(number + 1) * members {
                let path = format!("/api/chat/projects/{id}/members/{}", user(member));
                owner.json(Method::PUT, &path, r#"{"role":"viewer"}"#).await?;
            }
            ids.push(id);
        }
        Ok(ids)
    }

    /// Stops everything, and fails if a part does not end well.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        for front in &self.fronts {
            front.stop().await?;
        }
        self.cluster.stop().await
    }
}
