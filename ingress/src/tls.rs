//! Certificates: from Secrets, chosen by SNI, changed in memory.

mod authorities;
mod certificates;
mod client;
mod client_auth;
mod names;
mod parse;
mod planner;
mod revoked;
mod server;
mod signatures;
pub(crate) mod subject;
mod tickets;
mod verifiers;

pub(crate) use self::{
    certificates::Resolver,
    client::prepare,
    client_auth::{ClientAuth, Mode, Unverified, Wanted},
    names::names,
    planner::CertificatePlanner,
    server::Handshakes,
};
pub use self::{
    certificates::{Certificates, Expiry, Fallback},
    client::{TlsWish, UpstreamTls},
};
