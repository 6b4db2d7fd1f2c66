//! Parley as its clients meet it: the real process, over the wire.

mod any_input;
mod archive;
mod archives;
mod auth;
mod bad_input;
mod channels_filter;
mod chat;
mod drain;
mod durability;
mod ends;
mod import;
mod job;
mod job_ends;
mod jobs;
mod listener;
mod messages;
mod multi;
mod polling;
mod project;
mod readme;
mod resume;
mod slots;
mod slots_jobs;
mod sse;
mod streams;
mod support;
