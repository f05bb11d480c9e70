//! Certificates: from Secrets, chosen by SNI, changed in memory.

mod certificates;
mod parse;
mod planner;
mod server;

pub use self::certificates::{Certificates, Fallback};
pub(crate) use self::{certificates::Resolver, planner::CertificatePlanner, server::server_config};
