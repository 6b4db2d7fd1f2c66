//! What a request takes from its caller's budget besides itself, once it is known how much it asks for.

use std::{convert::Infallible, time::Duration};

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::{Class, Limits, buckets::Who};
use crate::{auth::Roles, http::Failure};

/// The budget that the request was taken from; without limits there is none.
#[derive(Clone, Debug, Default)]
pub struct More(Option<Taken>);

#[derive(Clone, Debug)]
struct Taken {
    limits: Limits,
    class: Class,
    roles: Roles,
    who: Who,
}

/// Why no more can be taken.
#[derive(Debug)]
pub enum TooMuch {
    /// Not now: the answer says when to come again.
    Yet(Box<Failure>),
    /// Never at once; so many are, with the request itself.
    Ever { most: u32 },
}

impl More {
    pub(super) fn of(limits: &Limits, class: Class, roles: Roles, who: Who) -> Self {
        Self(Some(Taken { limits: limits.clone(), class, roles, who }))
    }

    /// Takes as many requests more.
    pub fn take(&self, more: usize) -> Result<(), TooMuch> {
        let Some(Taken { limits, class, roles, who }) = &self.0 else { return Ok(()) };
        let Some(budget) = limits.inner.classes[*class as usize].of(*roles) else { return Ok(()) };
        let yet = |wait: Duration| TooMuch::Yet(super::refusal(*class, wait).into());
        match budget.take_more(who.clone(), more) {
            Some(taken) => taken.map_err(yet),
            None => Err(TooMuch::Ever { most: budget.burst() }),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for More {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_default())
    }
}
