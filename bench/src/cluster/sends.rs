//! Acknowledged sends by way of nginx and one, two and three ingress, in turn with `pgbench`.

use std::time::Duration;

use super::{
    cpu::Cpu,
    pgbench,
    place::{INGRESS, Place},
    table::{median, spread},
};
use crate::{
    sends::{Load, load},
    users::{OWNER, token},
};

/// Connections on which one ingress writes.
const WRITERS: usize = 4;

/// What is measured in turn.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Case {
    /// The rows of a send, from so many connections to the database.
    Pgbench(usize),
    /// Sends by way of nginx and so many ingress.
    Parley(usize),
}

/// One case in one round.
#[derive(Copy, Clone, Debug)]
struct Sample {
    rate: f64,
    p50: Duration,
    p99: Duration,
    /// Of one send.
    cpu: Cpu,
    /// Cores in use.
    cores: f64,
}

/// How much is done.
pub(super) struct Plan {
    pub(super) clients: usize,
    pub(super) rounds: usize,
    pub(super) time: Duration,
}

impl Case {
    fn name(self) -> String {
        match self {
            Self::Pgbench(connections) => format!("`pgbench`, {connections} connections"),
            Self::Parley(ingress) => format!("**Parley**, {ingress} ingress"),
        }
    }

    async fn run(
        self,
        place: &Place,
        projects: &[String],
        clients: usize,
        time: Duration,
    ) -> anyhow::Result<Sample> {
        let before = Cpu::now(place)?;
        let (rate, sends, load) = match self {
            Self::Pgbench(connections) => {
                let rate = pgbench::run(place, connections, projects.len(), time).await?;
                (rate, rate * time.as_secs_f64(), None)
            }
            Self::Parley(ingress) => {
                let host = place.front(ingress).addr().to_string();
                let load = load(&host, &token(OWNER), projects, clients, time).await?;
                let sends = f64::from(u32::try_from(load.times.len())?);
                (sends / load.elapsed.as_secs_f64(), sends, Some(load))
            }
        };
        let cpu = Cpu::now(place)? - before;
        let sends = sends.max(1.0);
        let time = |quantile| {
            let micros = |load: &Load| load.times.value_at_quantile(quantile);
            Duration::from_micros(load.as_ref().map_or(0, micros))
        };
        let cores = cpu.sum().as_secs_f64() * rate / sends;
        Ok(Sample { rate, p50: time(0.5), p99: time(0.99), cpu: cpu / sends, cores })
    }
}

/// Measures sends into the projects, and prints a table.
pub(super) async fn run(place: &Place, projects: &[String], plan: &Plan) -> anyhow::Result<()> {
    let Plan { clients, rounds, time } = *plan;
    let pgbench = [clients, WRITERS * INGRESS].map(Case::Pgbench);
    let cases: Vec<Case> = pgbench.into_iter().chain((1..=INGRESS).map(Case::Parley)).collect();
    // The first second warms caches up, and is not counted.
    for case in &cases {
        case.run(place, projects, clients, Duration::from_secs(1)).await?;
    }
    let mut samples = vec![Vec::new(); cases.len()];
    for round in 1..=rounds {
        for (case, samples) in cases.iter().zip(&mut samples) {
            let sample = case.run(place, projects, clients, time).await?;
            eprintln!("round {round}: {} {:.0} a second", case.name(), sample.rate);
            samples.push(sample);
        }
    }
    let count = match projects.len() {
        1 => "one project".into(),
        count => format!("{count} projects"),
    };
    println!("\n{clients} clients, {count}\n");
    println!(
        "| | sends a second | × `pgbench` {clients} | × `pgbench` {} | × 1 ingress | p50 ms | p99 ms \
         | CPU µs a send: nginx | ingress | PostgreSQL | clients | cores in use |",
        WRITERS * INGRESS
    );
    println!("|{}", " --- |".repeat(12));
    for (case, own) in cases.iter().zip(&samples) {
        let against = |other: usize| {
            let ratios = own.iter().zip(&samples[other]).map(|(own, other)| own.rate / other.rate);
            spread(ratios.collect())
        };
        let over_one = match case {
            Case::Parley(_) => against(2),
            Case::Pgbench(_) => "–".into(),
        };
        println!(
            "| {} | {:.0} | {} | {} | {over_one} | {} | {} |",
            case.name(),
            median(own.iter().map(|sample| sample.rate).collect()),
            against(0),
            against(1),
            times(*case, own),
            parts(own),
        );
    }
    Ok(())
}

fn times(case: Case, samples: &[Sample]) -> String {
    match case {
        Case::Pgbench(_) => "– | –".into(),
        Case::Parley(_) => {
            let ms = |of: fn(&Sample) -> Duration| {
                median(samples.iter().map(|sample| of(sample).as_secs_f64() * 1e3).collect())
            };
            format!("{:.1} | {:.1}", ms(|sample| sample.p50), ms(|sample| sample.p99))
        }
    }
}

fn parts(samples: &[Sample]) -> String {
    let us = |of: fn(&Cpu) -> Duration| {
        median(samples.iter().map(|sample| of(&sample.cpu).as_secs_f64() * 1e6).collect())
    };
    let columns: [fn(&Cpu) -> Duration; 4] =
        [|cpu| cpu.nginx, |cpu| cpu.ingress, |cpu| cpu.postgres, |cpu| cpu.clients];
    let columns = columns.map(|of| format!("{:.0}", us(of))).join(" | ");
    let cores = median(samples.iter().map(|sample| sample.cores).collect());
    format!("{columns} | {cores:.2}")
}
