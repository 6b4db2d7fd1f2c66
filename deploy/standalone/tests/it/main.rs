//! Parley as its clients meet it: the real process, over the wire.

mod abuse;
mod any_input;
mod archive;
mod archives;
mod auth;
mod bad_input;
mod chat;
mod drain;
mod drain_many;
mod durability;
mod fault_proxy;
mod faults;
mod import;
mod job;
mod job_ends;
mod jobs;
mod listener;
mod messages;
mod polling;
mod project;
mod raw;
mod readme;
mod resume;
mod sse;
mod streams;
mod support;
