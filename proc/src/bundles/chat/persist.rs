//! Calls of ingress that outlast its absence.

use std::time::Duration;

use tonic::{Response, Status};

use super::{failed, is_transient};
use crate::jobs::{JobContext, JobError};

/// The pause after a first failure; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Makes a call that may be repeated, again and again while ingress does not answer. The job's timeout, its cancel or a
/// drain ends this.
pub(super) async fn persist<R, T, F>(
    context: &JobContext,
    request: R,
    call: impl Fn(R) -> F,
) -> Result<T, JobError>
where
    R: Clone,
    F: Future<Output = Result<Response<T>, Status>>,
{
    let (mut pause, mut failures) = (FIRST_PAUSE, 0_u32);
    loop {
        match call(request.clone()).await {
            Ok(answer) => {
                if failures > 1 {
                    context.log("info", "chat answers again".into());
                }
                return Ok(answer.into_inner());
            }
            Err(status) if is_transient(status.code()) => {
                failures += 1;
                tracing::debug!(code = ?status.code(), failures, "ingress did not answer, trying again");
                if failures == 2 {
                    context.log("warn", "chat does not answer, waiting for it".into());
                }
                // Not all jobs at once.
                tokio::time::sleep(pause.mul_f64(0.5 + rand::random::<f64>() / 2.0)).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
            Err(status) => return Err(failed(&status)),
        }
    }
}
