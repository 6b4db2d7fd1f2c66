//! Clients that look around, and the owner who removes members.

use std::{sync::Arc, time::Duration};

use rand::{RngExt as _, rngs::StdRng};
use reqwest::Method;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    roster::{OWNER, User},
    world::World,
};

/// Requests every `pause` until `over`, without waiting for answers before the next.
pub(crate) async fn look(
    world: Arc<World>,
    pause: Duration,
    mut chance: StdRng,
    over: CancellationToken,
) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looking = tokio::task::JoinSet::new();
    while over.run_until_cancelled(ticks.tick()).await.is_some() {
        let project = chance.random_range(0..world.projects.len() - 1);
        let path = match chance.random_range(0..6) {
            0 => world.path(project, ""),
            1 => world.path(project, "/members"),
            2 => world.path(project, "/presence"),
            3 => "/api/integrations/bundles".to_owned(),
            4 => "/api/auth/me".to_owned(),
            _ => world.path(project, "/messages?limit=20"),
        };
        let (world, user) = (world.clone(), world.roster.member(project, 0));
        looking.spawn(async move {
            let request = world.request(user, Method::GET, &path);
            world.once(&format!("GET {path}"), request).await;
        });
        while looking.try_join_next().is_some() {}
    }
    looking.join_all().await;
}

/// Ends a membership after a while.
pub(crate) async fn remove(world: Arc<World>, project: usize, user: User, after: Duration) {
    sleep(after).await;
    let path = world.path(project, &format!("/members/{}", user.name()));
    // It may be done though nobody said so; then there is nobody to be removed.
    let is_over = async || {
        let request = world.request(OWNER, Method::DELETE, &path);
        match request.send().await {
            Ok(response) => response.status().is_success() || response.status().as_u16() == 404,
            Err(_) => false,
        }
    };
    while !is_over().await {
        sleep(Duration::from_millis(300)).await;
    }
}
