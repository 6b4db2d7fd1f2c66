//! Takes parts of a real cluster away while many clients send and follow, then counts what was lost, doubled, reordered,
//! made up or shown to the wrong people. The way is Jepsen's for queues: every message is unique, every client notes what
//! it saw, and a judge that knows nothing of sockets compares the notes.

mod faults;
mod follower;
pub mod history;
pub mod jobs;
pub mod judge;
mod latency;
mod log;
pub mod report;
mod roster;
pub mod run;
pub mod scenario;
mod sender;
mod visitor;
mod world;
