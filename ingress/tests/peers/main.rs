//! Programs of others against the role, and the role in front of them: `make test-peers` installs
//! and builds what this needs.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, in its helpers too"
)]

mod backends;
mod h2spec;
mod paths;
mod slow;
mod smuggling;
mod strictness;
#[path = "../it/support.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod support;
mod tls;

use std::{path::PathBuf, process::Command};

use fairlead_state::Object;

use crate::support::{
    World,
    objects::{Authority, IngressExt, backend, ingress},
};

/// A host for everything, with TLS.
const HOST: &str = "a.example";

async fn world(addresses: &[std::net::SocketAddr]) -> World {
    let mut objects = backend("web", addresses);
    objects.extend(tls_host(&Authority::new()));
    World::single(objects).await
}

fn tls_host(authority: &Authority) -> [Object; 2] {
    let ingress = ingress("web").host(HOST, "web").host("*", "web").tls(&[HOST], "cert");
    let ingress = ingress.annotation("nginx.ingress.kubernetes.io/ssl-redirect", "false");
    [authority.secret("cert", &[HOST]), ingress.object()]
}

/// What a program printed, and whether it succeeded.
async fn run(program: PathBuf, args: Vec<String>) -> (String, bool) {
    let running = tokio::task::spawn_blocking(move || {
        let output = Command::new(&program).args(&args).output();
        let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8_lossy(&text).into_owned(), output.status.success())
    });
    running.await.unwrap()
}
