//! Lets faults happen, one after the other, when the scenario says so.

use std::time::Duration;

use cluster::Cluster;
use rand::{RngExt as _, rngs::StdRng};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Fault;
use crate::{
    history::Window,
    scenario::{Faults, Weighted},
};

/// Lets faults happen until `over`, then leaves the cluster whole. Tells `begun` of each; times are since `began`.
pub(crate) async fn drive(
    cluster: &Cluster,
    faults: &Faults,
    chance: &mut StdRng,
    began: Instant,
    over: &CancellationToken,
    told: impl Fn(Duration, &str),
) -> anyhow::Result<Vec<Window>> {
    let mut windows = Vec::new();
    for number in 0.. {
        let Some((at, fault)) = next(faults, number, chance) else { break };
        if over.run_until_cancelled(sleep_until(began + at)).await.is_none() {
            break;
        }
        let aimed = fault.aim(cluster, chance);
        let (what, from) = (aimed.to_string(), began.elapsed());
        told(from, &what);
        aimed.happen(cluster, over).await?;
        let to = began.elapsed();
        told(to, "all is there again");
        windows.push(Window {
            from,
            to,
            rewinds: aimed.rewinds(),
            holds_answers: fault.holds_answers(),
        });
    }
    over.cancelled().await;
    Ok(windows)
}

/// Returns the fault of that number and its time, `None` if there are no more.
fn next(faults: &Faults, number: usize, chance: &mut StdRng) -> Option<(Duration, Fault)> {
    match faults {
        Faults::Listed(steps) => {
            let step = steps.get(number)?;
            Some((step.at, step.fault.clone()))
        }
        Faults::Drawn { every, from } => {
            let at = *every * u32::try_from(number + 1).ok()?;
            draw(from, chance).map(|fault| (at, fault))
        }
    }
}

fn draw(from: &[Weighted], chance: &mut StdRng) -> Option<Fault> {
    let total: u32 = from.iter().map(|weighted| weighted.weight).sum();
    let mut drawn = chance.random_range(0..total);
    for Weighted { weight, fault } in from {
        match drawn.checked_sub(*weight) {
            Some(rest) => drawn = rest,
            None => return Some(fault.clone()),
        }
    }
    None
}
