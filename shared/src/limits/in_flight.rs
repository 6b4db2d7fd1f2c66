//! How many requests are being answered at once: beyond a number, a quick refusal is worth more than a late answer.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use axum::extract::FromRequestParts;
use http::{Extensions, request::Parts};

/// The requests that the process is answering; a clone is the same ones.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    count: Arc<AtomicUsize>,
    max: usize,
}

impl InFlight {
    pub(super) fn new(max: usize) -> Self {
        Self { count: Arc::default(), max }
    }

    /// Counts a request until the place is dropped, `None` if there is no room.
    pub(super) fn enter(&self) -> Option<Place> {
        let room = |count: usize| (count < self.max).then_some(count + 1);
        self.count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room).ok()?;
        Some(Place { in_flight: self.clone() })
    }
}

/// A request that is counted.
#[derive(Debug)]
pub(super) struct Place {
    in_flight: InFlight,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.in_flight.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How a request waits for its client or for an event without being counted meanwhile.
#[derive(Clone, Debug, Default)]
pub struct Aside(Option<InFlight>);

impl Aside {
    pub(super) fn of(place: &Place) -> Self {
        Self(Some(place.in_flight.clone()))
    }

    /// Returns the way of the request that has these extensions; one that is not counted waits as it is.
    #[must_use]
    pub(crate) fn find(extensions: &Extensions) -> Self {
        extensions.get().cloned().unwrap_or_default()
    }

    /// Waits uncounted. The place is taken again afterwards even if there is none: work that was begun is finished.
    pub async fn wait<T>(&self, what: impl Future<Output = T>) -> T {
        let _away = self.0.as_ref().map(Away::leave);
        what.await
    }
}

/// Counts the request again when dropped, also when the client hangs up: its place is dropped after it.
struct Away<'a>(&'a InFlight);

impl<'a> Away<'a> {
    fn leave(in_flight: &'a InFlight) -> Self {
        in_flight.count.fetch_sub(1, Ordering::Relaxed);
        Self(in_flight)
    }
}

impl Drop for Away<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_add(1, Ordering::Relaxed);
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Aside {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::find(&parts.extensions))
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn there_is_room_for_so_many_and_then_again() {
        let in_flight = InFlight::new(2);
        let first = in_flight.enter().unwrap();
        let _second = in_flight.enter().unwrap();
        assert!(in_flight.enter().is_none());
        drop(first);
        let _third = in_flight.enter().unwrap();
        assert!(in_flight.enter().is_none());
    }

    #[test]
    fn who_waits_is_not_counted_and_then_is_whoever_came_meanwhile() {
        let in_flight = InFlight::new(1);
        let place = in_flight.enter().unwrap();
        let aside = Aside::of(&place);
        let mut waiting = Box::pin(aside.wait(std::future::pending::<()>()));
        assert!(waiting.as_mut().now_or_never().is_none());
        let other = in_flight.enter().unwrap();
        assert!(in_flight.enter().is_none());
        drop(waiting);
        drop(other);
        assert!(in_flight.enter().is_none());
        drop(place);
        assert!(in_flight.enter().is_some());
    }
}
