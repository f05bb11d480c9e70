//! Certificates: from Secrets, chosen by SNI, changed in memory.

mod certificates;
mod client;
mod parse;
mod planner;
mod server;

pub(crate) use self::{
    certificates::Resolver, client::prepare, planner::CertificatePlanner, server::server_config,
};
pub use self::{
    certificates::{Certificates, Fallback},
    client::{TlsWish, UpstreamTls},
};
