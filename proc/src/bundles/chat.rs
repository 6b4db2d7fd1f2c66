//! Chat into Parley and out of it.

mod export;
mod import;
mod names;
mod parts;
mod persist;
#[expect(
    unreachable_pub,
    clippy::struct_field_names,
    reason = "a reader of its own, which knows nothing of bundles"
)]
pub(crate) mod slack;

use tonic::{Code, Status};

pub(crate) use self::{export::Export, import::Import};
use crate::jobs::JobError;

/// Says whether ingress may well answer the same call in a moment.
fn is_transient(code: Code) -> bool {
    // A timeout of the client is `Cancelled`, a broken connection `Unknown`.
    matches!(
        code,
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Cancelled
            | Code::Unknown
            | Code::Aborted
    )
}

/// Says what a call's failure means to the job.
fn failed(status: &Status) -> JobError {
    match status.code() {
        code if is_transient(code) => {
            JobError::transient("unavailable", "chat did not answer for some time")
        }
        Code::Unauthenticated => {
            tracing::error!("ingress does not know us: SERVICE_TOKEN or the clock is not its");
            JobError::transient("unavailable", "chat did not answer")
        }
        Code::NotFound => JobError::permanent("not_found", status.message()),
        Code::PermissionDenied => JobError::permanent("forbidden", status.message()),
        code => {
            tracing::error!(?code, message = status.message(), "ingress refused a job's call");
            JobError::permanent("internal", "chat refused what the job asked of it")
        }
    }
}
