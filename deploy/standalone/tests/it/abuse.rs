//! Clients of streams that do not read, do not stay, or say what they should not: each harms itself alone.

mod cursors;
mod input;
mod slots;
mod stuck;
