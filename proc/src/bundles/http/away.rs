//! Bundles that could not be connected to, as this process knows them. While one is away its other jobs are put back without
//! a connection of their own: a connection that is not answered holds a worker for seconds.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use reqwest::Url;
use tokio::time::Instant;

/// Shortest and longest time until the next connection.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);

/// Bundles that are away; a clone is the same ones.
#[derive(Clone, Debug, Default)]
pub(super) struct Away(Arc<Mutex<HashMap<Url, Since>>>);

#[derive(Copy, Clone, Debug)]
struct Since {
    first: Instant,
    /// No connection is made until then.
    until: Instant,
}

impl Away {
    /// Returns whether no connection to the bundle is to be made yet.
    pub(super) fn is_left_alone(&self, url: &Url, now: Instant) -> bool {
        self.lock().get(url).is_some_and(|since| now < since.until)
    }

    /// Notes that the bundle could not be connected to. The next connection is made after half the time that it was away.
    pub(super) fn note(&self, url: &Url, now: Instant) {
        let mut away = self.lock();
        // A bundle of which no job is left is forgotten.
        away.retain(|_, since| now.duration_since(since.until) < LONGEST * 4);
        let first = away.get(url).map_or(now, |since| since.first);
        let wait = (now.duration_since(first) / 2).clamp(SHORTEST, LONGEST);
        away.insert(url.clone(), Since { first, until: now + wait });
    }

    /// Notes that the bundle is there.
    pub(super) fn forget(&self, url: &Url) {
        self.lock().remove(url);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Url, Since>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bundle_is_left_alone_for_longer_the_longer_it_is_away() {
        let (away, start) = (Away::default(), Instant::now());
        let [here, there] =
            ["https://a.example/", "https://b.example/"].map(|url| url.parse().unwrap());
        assert!(!away.is_left_alone(&here, start));
        let (mut now, instant) = (start, Duration::from_millis(1));
        for seconds in [1.0, 1.0, 1.0, 1.5, 2.25] {
            away.note(&here, now);
            now += Duration::from_secs_f64(seconds);
            assert!(away.is_left_alone(&here, now - instant), "tried again within {seconds} s");
            assert!(!away.is_left_alone(&here, now), "not tried again after {seconds} s");
        }
        now += Duration::from_mins(10);
        away.note(&there, now);
        away.note(&here, now);
        now += SHORTEST;
        assert!(!away.is_left_alone(&here, now), "it was long forgotten");
        away.note(&here, now);
        assert!(away.is_left_alone(&here, now));
        away.forget(&here);
        assert!(!away.is_left_alone(&here, now));
    }
}
