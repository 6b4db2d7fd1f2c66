//! What a stream costs: Parley beside a loop of bare writes and other servers, in the same scenarios.

pub(crate) mod floor;
pub(crate) mod marks;
mod measure;
pub(crate) mod parley;
mod peers;
pub(crate) mod reader;
pub(crate) mod target;

use std::{str::FromStr, time::Duration};

use anyhow::Context;
use clap::{Args, ValueEnum};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use self::{
    measure::{Figures, Scenario, Times},
    target::Target,
};

#[derive(Args)]
pub(crate) struct Options {
    /// Only bare writes and Parley, for 300 streams and a few seconds.
    #[arg(long)]
    quick: bool,
    /// Only these servers.
    #[arg(long, value_enum, value_delimiter = ',')]
    only: Vec<Kind>,
    /// Only these scenarios: streams and events a second, such as `5000x10`.
    #[arg(long, value_delimiter = ',')]
    scenario: Vec<Scenario>,
}

#[derive(Copy, Clone, PartialEq, Eq, ValueEnum)]
enum Kind {
    Floor,
    Parley,
    Nchan,
    Express,
    DurableStreams,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { streams: 1_000, rate: 200 },
    Scenario { streams: 5_000, rate: 10 },
    Scenario { streams: 15_000, rate: 2 },
    LAST,
];
/// Where the last of many streams is what counts, and how fast they open.
const LAST: Scenario = Scenario { streams: 8_000, rate: 2 };

const TIMES: Times = Times {
    sends: Duration::from_secs(4),
    quiet: Duration::from_secs(5),
    warm_up: Duration::from_secs(1),
    events: Duration::from_secs(10),
};
const QUICK: Times = Times {
    sends: Duration::from_millis(500),
    quiet: Duration::from_millis(500),
    warm_up: Duration::from_millis(300),
    events: Duration::from_secs(3),
};

impl FromStr for Scenario {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (streams, rate) = text.split_once('x').context("such as 5000x10")?;
        Ok(Self { streams: streams.parse()?, rate: rate.parse()? })
    }
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Floor => "bare `write(2)`",
            Self::Parley => "Parley",
            Self::Nchan => "nchan",
            Self::Express => "Express",
            Self::DurableStreams => "durable-streams",
        }
    }

    /// Starts the server; `None` if it is not installed.
    fn start(self, scenario: Scenario) -> anyhow::Result<Option<Target>> {
        match self {
            Self::Floor => floor::start().map(Some),
            Self::Parley => parley::start(scenario.streams).map(Some),
            Self::Nchan => peers::nchan(),
            Self::Express => peers::express(),
            Self::DurableStreams => peers::durable_streams(),
        }
    }
}

pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    raise_descriptors()?;
    let quick = [Scenario { streams: 300, rate: 20 }];
    let (scenarios, kinds, times) = if options.quick {
        (&quick[..], &[Kind::Floor, Kind::Parley][..], QUICK)
    } else {
        (&SCENARIOS[..], Kind::value_variants(), TIMES)
    };
    let scenarios =
        if options.scenario.is_empty() { scenarios } else { options.scenario.as_slice() };
    let kinds = if options.only.is_empty() { kinds } else { options.only.as_slice() };
    for &scenario in scenarios {
        head(scenario);
        let mut floor = None;
        for kind in kinds {
            let Some(target) = kind.start(scenario)? else {
                println!("| {} | not installed: bench/peers/setup |", kind.name());
                continue;
            };
            let figures = match measure::run(target, scenario, times) {
                Ok(figures) => figures,
                // Somebody else's server may end a connection at will; the others are measured all the same.
                Err(error) if !matches!(kind, Kind::Floor | Kind::Parley) => {
                    println!("| {} | failed: {error} |", kind.name());
                    continue;
                }
                Err(error) => return Err(error.context(format!("{} failed", kind.name()))),
            };
            if *kind == Kind::Floor {
                floor = Some((figures.cpu, figures.cpu_without_sends));
            }
            row(kind.name(), &figures, floor);
            if *kind == Kind::Parley {
                reach(scenario, &figures, floor);
            }
        }
    }
    Ok(())
}

/// Streams are many; what the system allows is taken.
pub(crate) fn raise_descriptors() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

fn head(Scenario { streams, rate }: Scenario) {
    println!("\n{streams} streams, {rate} events a second each\n");
    println!(
        "| | rate kept | bytes | CPU µs a delivery | × bare | without the sends | × bare | KiB a quiet stream \
         | p50 ms | p99 ms | last stream p50 ms | max ms | opens a second | CPU µs an open |"
    );
    println!("|{}", " --- |".repeat(14));
}

fn row(name: &str, figures: &Figures, floor: Option<(f64, f64)>) {
    let times = |cpu: f64, floor: Option<f64>| {
        floor.map_or_else(|| "–".into(), |floor| format!("{:.2}", cpu / floor))
    };
    let lost = match figures.lost {
        0 => String::new(),
        lost => format!(", {lost} streams lost"),
    };
    let slowest = figures
        .last
        .map_or_else(|| "– | –".into(), |(p50, max)| format!("{:.1} | {:.1}", ms(p50), ms(max)));
    println!(
        "| {name} | {:.0} %{lost} | {:.0} | {:.2} | {} | {:.2} | {} | {:.2} | {:.2} | {:.2} | {slowest} | {:.0} | {:.0} |",
        figures.kept * 100.0,
        figures.bytes,
        figures.cpu,
        times(figures.cpu, floor.map(|(cpu, _)| cpu)),
        figures.cpu_without_sends,
        times(figures.cpu_without_sends, floor.map(|(_, cpu)| cpu)),
        figures.kib_a_stream,
        ms(figures.p50),
        ms(figures.p99),
        figures.opens_a_second,
        figures.cpu_an_open,
    );
}

/// Says on standard error, beside the table, how far Parley is from what it is to reach.
fn reach(scenario: Scenario, figures: &Figures, floor: Option<(f64, f64)>) {
    let mut reaches = vec![format!("≤ 1 KiB a quiet stream ({:.2})", figures.kib_a_stream)];
    if let Some((_, floor)) = floor {
        let ratio = figures.cpu_without_sends / floor;
        reaches.push(format!("≤ 1.15 × bare, without the sends ({ratio:.2})"));
    }
    if scenario == LAST {
        let last = figures.last.map_or(f64::INFINITY, |(p50, _)| ms(p50));
        reaches.push(format!("the last of 8,000 within 60 ms ({last:.1})"));
        reaches.push(format!("5,000 opens a second ({:.0})", figures.opens_a_second));
    }
    eprintln!("reach of Parley: {}", reaches.join(", "));
}

fn ms(us: u64) -> f64 {
    Duration::from_micros(us).as_secs_f64() * 1e3
}
