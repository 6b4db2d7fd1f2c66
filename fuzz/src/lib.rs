//! Readers of their own, which the targets hold against those of the services.

pub mod http1;
pub mod sse;
