//! A run as data: how much of everything there is, and what is taken away when.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use anyhow::{Context, ensure};
use serde::{Deserialize, Deserializer};

use crate::faults::Fault;

/// What runs and what happens to it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is for, in a sentence.
    pub about: String,
    /// How many replicas of ingress.
    #[serde(default = "three")]
    pub ingress: usize,
    /// How many replicas of proc.
    #[serde(default = "two")]
    pub proc: usize,
    pub projects: usize,
    /// Members of each project.
    pub members: usize,
    /// Members' streams, spread over all projects.
    pub streams: usize,
    /// Clients that send, each waiting for its answer before the next send.
    pub senders: usize,
    /// Sends a second, all together.
    pub sends_a_second: f64,
    /// Other requests a second, to both services.
    #[serde(default)]
    pub reads_a_second: f64,
    /// Members who are removed meanwhile, each with a stream open.
    #[serde(default)]
    pub removals: usize,
    /// Whether a request may fail at first; what was not acknowledged is sent again in any case.
    #[serde(default = "yes")]
    pub requests_may_fail: bool,
    /// How long it is sent.
    #[serde(deserialize_with = "duration")]
    pub lasts: Duration,
    /// How long streams may take to have everything after the last send.
    #[serde(default = "twenty_seconds", deserialize_with = "duration")]
    pub settle: Duration,
    /// Further settings of the services.
    #[serde(default)]
    pub settings: BTreeMap<String, String>,
    /// The deliberate bug that the services have.
    pub sabotage: Option<String>,
    /// How far the clocks of every second ingress and proc are ahead.
    #[serde(default, deserialize_with = "some_duration")]
    pub clock_skew: Option<Duration>,
    pub faults: Faults,
}

/// What is taken away, and when.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
pub enum Faults {
    /// One of these at a time, by chance; the next begins a while after the one before has begun, or when it is over.
    Drawn {
        #[serde(deserialize_with = "duration")]
        every: Duration,
        from: Vec<Weighted>,
    },
    /// Each of these at its time, or when the one before is over.
    Listed(Vec<Step>),
}

/// A fault that is drawn so much more often than one of weight 1.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weighted {
    pub weight: u32,
    pub fault: Fault,
}

/// A fault at a time.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    #[serde(deserialize_with = "duration")]
    pub at: Duration,
    pub fault: Fault,
}

impl Scenario {
    /// Reads one from its file.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let text = fs::read(file).with_context(|| format!("failed to read {}", file.display()))?;
        let scenario: Self =
            serde_json::from_slice(&text).with_context(|| file.display().to_string())?;
        ensure!(scenario.projects > 0 && scenario.members > 0, "nobody could send anything");
        ensure!(scenario.senders > 0 && scenario.sends_a_second > 0.0, "nothing would be sent");
        if let Faults::Drawn { from, .. } = &scenario.faults {
            ensure!(from.iter().any(|weighted| weighted.weight > 0), "there is nothing to draw");
        }
        Ok(scenario)
    }
}

/// Reads a duration with its unit, such as `3s`.
pub(crate) fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    humantime::parse_duration(&text).map_err(serde::de::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
    duration(from).map(Some)
}

fn two() -> usize {
    2
}

fn three() -> usize {
    3
}

fn yes() -> bool {
    true
}

fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}
