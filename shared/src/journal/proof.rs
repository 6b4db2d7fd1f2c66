//! Whether a log goes on at a place that a reader names: only if what is there is what the reader has seen.

use super::{Position, ResetReason};

/// What a log has to say about a place in it.
#[derive(Debug)]
pub(super) struct Evidence {
    pub(super) head: Position,
    /// The first entry that is kept.
    pub(super) floor: i64,
    /// The tag of the entry at the place, `None` if it is not there.
    pub(super) tag: Option<u32>,
    #[cfg(test)]
    pub(super) sabotage: Option<tests::Sabotage>,
}

impl Evidence {
    /// Returns the place if the log can prove that nothing is missing for who has everything up to it.
    pub(super) fn judge(&self, place: Position) -> Result<Position, ResetReason> {
        let (epoch, tag) = (self.head.epoch, self.tag);
        #[cfg(test)]
        let (epoch, tag) = self.sabotage.map_or((epoch, tag), |bug| bug.pretend(place, epoch, tag));
        if place.epoch != epoch {
            return Err(ResetReason::UnknownEpoch);
        }
        if place.seq > self.head.seq {
            return Err(ResetReason::Ahead);
        }
        match tag {
            // The beginning has no entry, hence the tag 0; it can be continued while nothing was dropped.
            _ if place.seq == 0 && place.tag != 0 => Err(ResetReason::UnknownEpoch),
            _ if place.seq == 0 && self.floor <= 1 => Ok(place),
            Some(tag) if tag == place.tag => Ok(place),
            // Another entry has this number: a tail was lost and its numbers used again.
            Some(_) => Err(ResetReason::UnknownEpoch),
            None => Err(ResetReason::Expired),
        }
    }
}

#[cfg(test)]
mod tests;
