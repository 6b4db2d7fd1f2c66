//! Which channels a stream carries.

use std::{collections::BTreeSet, str::FromStr};

use serde::Serialize;
use shared::ids::{ChannelName, Invalid};

use super::frame::Frame;

/// Channels that one stream may name at most.
pub(crate) const MAX_CHANNELS: usize = 200;

/// The channels of one stream. What is about no channel is carried always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ChannelFilter {
    Only(BTreeSet<ChannelName>),
    AllBut(BTreeSet<ChannelName>),
}

impl ChannelFilter {
    pub(crate) fn all() -> Self {
        Self::AllBut(BTreeSet::new())
    }

    pub(crate) fn is_all(&self) -> bool {
        matches!(self, Self::AllBut(none) if none.is_empty())
    }

    pub(crate) fn is_too_long(&self) -> bool {
        let (Self::Only(names) | Self::AllBut(names)) = self;
        names.len() > MAX_CHANNELS
    }

    /// Changes what is carried from now on; a name in both lists is carried.
    pub(crate) fn change(&mut self, add: &[ChannelName], remove: &[ChannelName]) {
        match self {
            Self::Only(carried) => {
                carried.retain(|name| !remove.contains(name));
                carried.extend(add.iter().cloned());
            }
            Self::AllBut(dropped) => {
                dropped.extend(remove.iter().cloned());
                dropped.retain(|name| !add.contains(name));
            }
        }
    }

    pub(super) fn carries(&self, frame: &Frame) -> bool {
        let Some(channel) = &frame.channel else { return true };
        match self {
            Self::Only(carried) => carried.contains(channel),
            Self::AllBut(dropped) => !dropped.contains(channel),
        }
    }
}

impl FromStr for ChannelFilter {
    type Err = Invalid;

    /// Reads `a,b`.
    fn from_str(text: &str) -> Result<Self, Invalid> {
        let names = text.split(',').filter(|name| !name.is_empty()).map(str::parse);
        names.collect::<Result<_, _>>().map(Self::Only)
    }
}
