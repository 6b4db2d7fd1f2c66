//! A schedule and what becomes of it when it is changed.

use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use shared::{
    ids::{JobId, ProjectId, ScheduleId, UserId},
    time::Timestamp,
};

use super::times::{Invalid, Times};
use crate::bundles::GivenInput;

/// What becomes of times at which no proc was there.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Missed {
    /// Nothing: it goes on with the next one.
    #[default]
    Skip,
    /// They are made up for by one job.
    Once,
}

/// Rule for a time at which an earlier job of the schedule has not ended.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Overlap {
    /// No job is made for the time.
    #[default]
    Skip,
    /// A job is made beside the others.
    Queue,
    /// The others are cancelled, and a job is made.
    CancelRunning,
}

/// Whether a schedule fires.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = ScheduleState)]
pub(super) enum Status {
    Active,
    /// Somebody has stopped it.
    Paused,
    /// It could not go on; `reason` says why.
    Disabled,
}

impl Missed {
    const ALL: [Self; 2] = [Self::Skip, Self::Once];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Once => "once",
        }
    }
}

impl FromStr for Missed {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|missed| missed.as_str() == text).ok_or(())
    }
}

impl Overlap {
    const ALL: [Self; 3] = [Self::Skip, Self::Queue, Self::CancelRunning];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Skip => "skip",
            Self::Queue => "queue",
            Self::CancelRunning => "cancel_running",
        }
    }
}

impl FromStr for Overlap {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|overlap| overlap.as_str() == text).ok_or(())
    }
}

impl Status {
    const ALL: [Self; 3] = [Self::Active, Self::Paused, Self::Disabled];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

impl FromStr for Status {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|status| status.as_str() == text).ok_or(())
    }
}

/// An operation that is called again and again, in the name of who made the schedule.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
pub(crate) struct Schedule {
    pub(super) id: ScheduleId,
    pub(crate) project_id: ProjectId,
    /// Who made it, and whose jobs it makes.
    pub(crate) owner: UserId,
    pub(super) bundle: String,
    pub(super) operation: String,
    /// The operation's input; `null` to an admin who is no member of the project.
    pub(super) data: Value,
    /// Minute, hour, day of the month, month, day of the week; perhaps a second before them.
    pub(super) cron: String,
    /// The zone whose clocks it goes by.
    pub(super) time_zone: String,
    pub(super) missed: Missed,
    pub(super) overlap: Overlap,
    pub(super) state: Status,
    /// Why it was disabled.
    pub(super) reason: Option<String>,
    /// When it fires next; `null` unless it is active.
    pub(super) next_fire_at: Option<Timestamp>,
    /// The time for which it fired last.
    pub(super) last_fire_at: Option<Timestamp>,
    pub(super) last_job_id: Option<JobId>,
    /// The last time for which it made no job, as an earlier one had not ended.
    pub(super) last_skipped_at: Option<Timestamp>,
    pub(super) created_at: Timestamp,
    pub(super) updated_at: Timestamp,
}

/// What is to become of a schedule; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ScheduleChange)]
pub(super) struct Change {
    pub(super) cron: Option<String>,
    pub(super) time_zone: Option<String>,
    #[schema(value_type = Option<Value>)]
    pub(super) data: Option<GivenInput>,
    pub(super) missed: Option<Missed>,
    pub(super) overlap: Option<Overlap>,
    /// `false` stops it, `true` lets it go on, also after it was disabled.
    pub(super) active: Option<bool>,
}

impl Schedule {
    /// Returns the schedule as an admin sees it who is no member of the project.
    pub(crate) fn without_content(self) -> Self {
        Self { data: Value::Null, ..self }
    }

    pub(super) fn times(&self) -> Result<Times, Invalid> {
        Times::parse(&self.cron, &self.time_zone)
    }

    /// Returns what the change makes of it.
    pub(super) fn changed(self, change: Change, now: Timestamp) -> Result<Self, Invalid> {
        let is_timed = change.cron.is_some() || change.time_zone.is_some();
        let was_active = self.state == Status::Active;
        let mut changed = Self {
            cron: change.cron.unwrap_or(self.cron),
            time_zone: change.time_zone.unwrap_or(self.time_zone),
            data: change.data.map_or(self.data, GivenInput::into_value),
            missed: change.missed.unwrap_or(self.missed),
            overlap: change.overlap.unwrap_or(self.overlap),
            updated_at: now,
            ..self
        };
        if let Some(active) = change.active {
            changed.state = if active { Status::Active } else { Status::Paused };
            changed.reason = None;
        }
        let is_active = changed.state == Status::Active;
        if is_timed || is_active && !was_active {
            let times = changed.times()?;
            times.zone().clone_into(&mut changed.time_zone);
            changed.next_fire_at = Some(times.first(now)?);
        }
        changed.next_fire_at = changed.next_fire_at.filter(|_| is_active);
        Ok(changed)
    }
}
