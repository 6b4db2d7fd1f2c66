//! Second readers: the targets compare their results with those of the services.

pub mod http1;
pub mod sse;
