//! What both services of Parley use: the store and its journal, the bus, identity, HTTP manners, limits, gRPC, the lifecycle.

pub mod answers;
mod app_state;
pub mod auth;
pub mod bus;
pub mod config;
pub mod deletion;
pub mod emoji;
pub mod files;
pub mod grpc;
pub mod health;
pub mod http;
pub mod ids;
pub mod journal;
pub mod lifecycle;
pub mod limits;
pub mod metrics;
pub mod names;
pub mod parts;
pub mod sabotage;
pub mod secrets;
pub mod service_token;
pub mod store;
pub mod sweep;
pub mod telemetry;
pub mod time;
mod tls;
pub mod words;
