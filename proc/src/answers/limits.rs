//! How many answers one user may have.

/// Limits of a user, over all replicas.
#[derive(Copy, Clone, Debug)]
pub(super) struct Limits {
    /// Answers that are being written.
    pub(super) at_once: u32,
    /// Questions in any minute.
    pub(super) a_minute: u32,
}
