//! Next times of schedules that a wrong clock has set.

use shared::{
    ids::ScheduleId,
    journal::Topic,
    store::{Error, Store, Tx},
    time::{CLOCK_TOLERANCE, Timestamp},
};

use super::{Schedule, store};
/// Schedules that are looked at in one go.
const PAGE: i64 = 500;

/// Looks at a page of active schedules behind `after`. A next time that is further away than the schedule's own next time from
/// `now` becomes that one. Returns the last schedule of the page, `None` behind the last page.
pub(crate) async fn repair(
    database: &Store,
    now: Timestamp,
    after: Option<ScheduleId>,
) -> Result<Option<ScheduleId>, Error> {
    let page = database.read(move |reader| store::active(reader, after, PAGE)).await?;
    for schedule in &page {
        let Some((wrong, right)) = repaired(schedule, now) else { continue };
        let id = schedule.id;
        let set = move |tx: &mut Tx<'_>| store::set_next(tx, id, wrong, right);
        if database.write_in(Topic::user(&schedule.owner), set).await? {
            tracing::warn!(
                schedule.id = %id, %wrong, %right,
                "a clock was wrong: the next time of a schedule was too far away"
            );
        }
    }
    let is_full = i64::try_from(page.len()).is_ok_and(|count| count >= PAGE);
    Ok(page.last().filter(|_| is_full).map(|schedule| schedule.id))
}

/// Returns the schedule's next time and the one it should have, if that is much sooner.
fn repaired(schedule: &Schedule, now: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let next = schedule.next_fire_at?;
    let times = schedule.times().ok()?;
    let is_wrong = times.next(now.after(CLOCK_TOLERANCE)).is_some_and(|latest| next > latest);
    is_wrong.then(|| times.next(now)).flatten().map(|right| (next, right))
}
