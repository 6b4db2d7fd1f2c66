//! A part in a topic that is followed: what streams and pollers hold of the hub.

use std::sync::{Arc, atomic::Ordering};

use shared::journal::{Position, Topic};
use tokio::sync::watch;

use super::{
    super::{frame::Frame, reactor::Waker, ring::Behind},
    Active, Listener,
};

/// Keeps a topic followed.
#[derive(Debug)]
pub(crate) struct Follower {
    active: Arc<Active>,
    /// The index of the first frame that it has heard.
    heard: u64,
}

/// Why a follower cannot go on from where it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Cut {
    /// What it needs is in the journal alone.
    Behind,
    /// The log is another one now.
    Replaced,
}

impl From<Behind> for Cut {
    fn from(_: Behind) -> Self {
        Self::Behind
    }
}

impl Follower {
    pub(super) fn new(active: &Arc<Active>) -> Self {
        active.followers.fetch_add(1, Ordering::Relaxed);
        Self { active: active.clone(), heard: active.lock().ring.end() }
    }

    /// Hears from now on. What has no place in the log and came before is not for it.
    pub(in super::super) fn hearing_from_now(self) -> Self {
        Self::new(&self.active)
    }

    /// Returns which life of the topic it follows.
    pub(in super::super) fn life(&self) -> u64 {
        self.active.life
    }

    /// Returns whether the topic has to be followed anew.
    pub(in super::super) fn is_over(&self) -> bool {
        self.active.lock().over
    }

    pub(crate) fn topic(&self) -> &Topic {
        &self.active.topic
    }

    /// Says whether both follow the same life of a log.
    pub(in super::super) fn is_of(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.active, &other.active)
    }

    /// Returns a receiver that sees the number of the last entry change.
    pub(crate) fn growth(&self) -> watch::Receiver<i64> {
        self.active.grown.subscribe()
    }

    /// Wakes `waker` from now on when there is something new, once until it has pulled. Returns where to pull from.
    pub(in super::super) fn listen(&self, waker: Waker) -> u64 {
        let mut state = self.active.lock();
        state.listeners.push(Listener { waker, told: false });
        state.ring.end()
    }

    /// Ends [`Follower::listen`].
    pub(in super::super) fn unlisten(&self, waker: &Waker) {
        self.active.lock().listeners.retain(|listener| listener.waker != *waker);
    }

    /// Returns at most `limit` frames from `at` on and moves it behind them, with whether there are more. `waker` will be
    /// woken again only after a pull has returned the last one.
    pub(in super::super) fn pull(
        &self,
        waker: &Waker,
        at: &mut u64,
        limit: usize,
    ) -> Result<(Vec<Arc<Frame>>, bool), Cut> {
        let mut state = self.active.lock();
        if state.over {
            return Err(Cut::Replaced);
        }
        let frames = state.ring.from(*at, limit)?;
        *at += frames.len() as u64;
        let more = *at < state.ring.end();
        if !more && let Some(listener) = state.listeners.iter_mut().find(|l| l.waker == *waker) {
            listener.told = false;
        }
        Ok((frames, more))
    }

    /// Returns what a stream at `place` needs before the frames from `at` on.
    pub(in super::super) fn join(&self, place: Position, at: u64) -> Result<Vec<Arc<Frame>>, Cut> {
        let state = self.active.lock();
        if state.over {
            return Err(Cut::Replaced);
        }
        if state.log.contradicts(place) {
            // One of the two has not seen yet that a tail was lost.
            drop(state);
            self.active.doubt();
            return Err(Cut::Behind);
        }
        Ok(state.ring.since(place, self.heard, state.log.last(), at)?)
    }
}

impl Clone for Follower {
    fn clone(&self) -> Self {
        let mut clone = Self::new(&self.active);
        clone.heard = self.heard;
        clone
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.active.followers.fetch_sub(1, Ordering::Relaxed);
    }
}
