//! Which part used how much CPU time.

use std::{
    collections::HashMap,
    fs,
    ops::{Div, Sub},
    time::Duration,
};

use anyhow::Context;

use super::place::Place;
use crate::process::Stat;

/// CPU time by part.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Cpu {
    pub(super) nginx: Duration,
    pub(super) ingress: Duration,
    pub(super) postgres: Duration,
    pub(super) nats: Duration,
    /// Whoever sends and reads: this process and each `pgbench` that has ended.
    pub(super) clients: Duration,
}

impl Cpu {
    /// Returns what each part of the place has used so far.
    pub(super) fn now(place: &Place) -> anyhow::Result<Self> {
        let all = Processes::look()?;
        let own = Stat::of(std::process::id())?;
        let (cluster, mut cpu) = (&place.cluster, Self::default());
        for front in place.fronts() {
            cpu.nginx += all.below(front)?;
        }
        for number in 0..cluster.ingress_count() {
            cpu.ingress += all.below(cluster.ingress(number))?;
        }
        cpu.postgres = all.below(cluster.postgres())?;
        cpu.nats = all.below(cluster.nats())?;
        cpu.clients = own.own + own.ended;
        Ok(cpu)
    }

    /// Returns all of it together.
    pub(super) fn sum(&self) -> Duration {
        let Self { nginx, ingress, postgres, nats, clients } = *self;
        nginx + ingress + postgres + nats + clients
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            nginx: self.nginx.saturating_sub(before.nginx),
            ingress: self.ingress.saturating_sub(before.ingress),
            postgres: self.postgres.saturating_sub(before.postgres),
            nats: self.nats.saturating_sub(before.nats),
            clients: self.clients.saturating_sub(before.clients),
        }
    }
}

impl Div<f64> for Cpu {
    type Output = Self;

    fn div(self, by: f64) -> Self {
        Self {
            nginx: self.nginx.div_f64(by),
            ingress: self.ingress.div_f64(by),
            postgres: self.postgres.div_f64(by),
            nats: self.nats.div_f64(by),
            clients: self.clients.div_f64(by),
        }
    }
}

/// Returns what a process and all below it have used so far.
pub(crate) fn below(process: &::cluster::Process) -> anyhow::Result<Duration> {
    Processes::look()?.below(process)
}

/// Every process of the machine.
struct Processes(HashMap<u32, Stat>);

impl Processes {
    fn look() -> anyhow::Result<Self> {
        let ids = fs::read_dir("/proc")?.flatten();
        let ids = ids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        // One that has ended meanwhile is counted by its parent.
        Ok(Self(ids.filter_map(|id| Some((id, Stat::of(id).ok()?))).collect()))
    }

    /// Returns what a process, all that it has started and all that these have started have used, ended or not.
    fn below(&self, process: &::cluster::Process) -> anyhow::Result<Duration> {
        let root = process.pid().with_context(|| format!("{process} does not run"))?;
        let is_below = |mut id: u32| {
            while id != root {
                match self.0.get(&id) {
                    Some(stat) => id = stat.parent,
                    None => return false,
                }
            }
            true
        };
        let below = self.0.iter().filter(|(id, _)| is_below(**id));
        Ok(below.map(|(_, stat)| stat.own + stat.ended).sum())
    }
}
