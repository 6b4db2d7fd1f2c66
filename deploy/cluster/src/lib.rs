//! Every part of Parley beyond one machine, as child processes on one: `PostgreSQL`, NATS, several ingress and proc, nginx.
//!
//! Each part can be killed, stopped, frozen and started again where it was, so that tests can take away any of them.
//! Nothing outlives the process that started it.

mod cluster;
mod folder;
mod keeper;
mod link;
mod nats;
mod nginx;
mod options;
mod ports;
mod postgres;
mod probe;
mod process;
mod programs;
pub mod scratch;
mod service;
mod skew;
mod standalone;

pub use self::{
    cluster::Cluster,
    folder::Folder,
    link::{Link, Then, Trap},
    nats::Nats,
    nginx::Nginx,
    options::Options,
    ports::Ports,
    postgres::Postgres,
    process::Process,
    programs::build as build_programs,
    service::Service,
    standalone::Standalone,
};
