//! The parts of a cluster as processes, and what nginx makes of the services.

mod answers;
mod batches;
mod bundles;
mod clock_skew;
mod database;
mod deleted_text;
mod fixture;
mod imports;
mod link;
mod nginx;
mod origin;
mod outage;
mod parts;
mod proxylogin;
mod replicas;
mod retries;
mod rewind;
mod schedules;
mod search;
mod streams;
mod support;
mod webhooks;
mod whole;
