//! Which channels a stream carries.

use std::{collections::BTreeSet, str::FromStr};

use serde::{Deserialize, Serialize};
use shared::ids::{ChannelName, Invalid};

use super::frame::Frame;

/// Channels that one stream may name at most.
pub(crate) const MAX_CHANNELS: usize = 200;

/// A stream would name more than [`MAX_CHANNELS`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

/// The channels of one stream. What is about no channel is carried always.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Returns the filter as its slot keeps it; `None` carries every channel.
    pub(crate) fn to_json(&self) -> Option<String> {
        (!self.is_all()).then(|| serde_json::to_string(self).unwrap_or_default())
    }

    /// Reads what [`ChannelFilter::to_json`] wrote.
    pub(crate) fn from_json(json: Option<&str>) -> Result<Self, serde_json::Error> {
        json.map_or(Ok(Self::all()), serde_json::from_str)
    }

    /// Changes what is carried from now on, unless that would be too many names; a name in both lists is carried.
    pub(crate) fn change(
        &mut self,
        add: &[ChannelName],
        remove: &[ChannelName],
    ) -> Result<(), TooLong> {
        let mut changed = self.clone();
        changed.merge(add, remove);
        if changed.is_too_long() {
            return Err(TooLong);
        }
        *self = changed;
        Ok(())
    }

    fn merge(&mut self, add: &[ChannelName], remove: &[ChannelName]) {
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
