//! Parley as its clients meet it: the real process, over the wire.

mod auth;
mod chat;
mod messages;
mod sse;
mod support;
