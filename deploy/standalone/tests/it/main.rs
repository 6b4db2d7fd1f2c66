//! Parley as its clients meet it: the real process, over the wire.

mod any_input;
mod apart;
mod archive;
mod archives;
mod auth;
mod bad_input;
mod chat;
mod drain;
mod durability;
mod grpc;
mod import;
mod job;
mod job_ends;
mod jobs;
mod listener;
mod messages;
mod polling;
mod project;
mod readme;
mod relay;
mod resume;
mod sse;
mod streams;
mod support;
