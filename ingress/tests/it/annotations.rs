//! `nginx.ingress.kubernetes.io/*` over the real data path, one file a concern.

mod access;
mod ahead;
mod auth;
mod balance;
mod buffering;
mod canary;
mod captures;
mod client_tls;
mod cors;
mod documentation;
mod errors;
mod headers;
mod least;
mod limits;
mod mirror;
mod passwords;
mod redirects;
mod retries;
mod rewrite;
mod satisfy;
mod snippets;
mod upstream;

use fairlead_state::model::Ingress;

use crate::support::objects::{IngressExt, ingress};

/// The Ingress `NAME` for host `NAME.example`, everything to Service `web`, with annotations
/// without their prefix.
pub(crate) fn site(name: &str, annotations: &[(&str, &str)]) -> Ingress {
    annotated(ingress(name).host(&format!("{name}.example"), "web"), annotations)
}

pub(crate) fn annotated(ingress: Ingress, annotations: &[(&str, &str)]) -> Ingress {
    annotations.iter().fold(ingress, |ingress, (name, value)| {
        ingress.annotation(&format!("nginx.ingress.kubernetes.io/{name}"), value)
    })
}
