//! From a kubeconfig or a service account to an HTTP client.
//!
//! kube's own stack, less its request logging (an outage is said once, by [`super::outage`]) and
//! its retries ([`super::backoff`] has jitter and no end), plus TCP keep-alive and several addresses
//! ([`super::dial`]).

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::uri::Authority;

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::ConfigExt,
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::{BoxError, ServiceBuilder};

use super::{
    addresses::Addresses,
    dial::{Dialler, Pace},
};
use crate::source::SourceError;

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time after which the kernel begins to probe a connection, and the time between probes: a
/// watch leaves a server whose machine died after 30 s, about as soon as a Lease would tell.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Unanswered probes after which a connection is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// A client for the configured server, and the server's address.
pub(super) async fn connect(
    kubeconfig: Option<PathBuf>,
    named: &[String],
    known: Addresses,
) -> Result<(Client, Arc<str>), SourceError> {
    let named = named.iter().map(|text| authority(text)).collect::<Result<_, _>>()?;
    let config = configuration(kubeconfig).await?;
    let server: Arc<str> = config.cluster_url.to_string().trim_end_matches('/').into();
    let client = client(&config, named, known).map_err(|error| SourceError::Credentials {
        server: server.clone(),
        reason: super::api::chain(&error),
    })?;
    Ok((client, server))
}

/// `HOST:PORT`, an IPv6 address in brackets.
fn authority(text: &str) -> Result<Authority, SourceError> {
    let wrong = || SourceError::ApiServer { text: text.to_owned() };
    let authority: Authority = text.parse().map_err(|_| wrong())?;
    let is_plain = !text.contains('@') && !authority.host().is_empty();
    match authority.port_u16() {
        Some(1..) if is_plain => Ok(authority),
        _ => Err(wrong()),
    }
}

async fn configuration(kubeconfig: Option<PathBuf>) -> Result<Config, SourceError> {
    let Some(path) = kubeconfig else {
        return Config::incluster()
            .map_err(|source| SourceError::NotInCluster { source: Box::new(source) });
    };
    let config = match Kubeconfig::read_from(&path) {
        Ok(file) => Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await,
        Err(error) => Err(error),
    };
    config.map_err(|source| SourceError::Kubeconfig { path, source: Box::new(source) })
}

fn client(
    config: &Config,
    named: Arc<[Authority]>,
    known: Addresses,
) -> Result<Client, kube::Error> {
    // kube builds its TLS configuration with the process's provider. An error means there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    let by_address = config.rustls_https_connector_with_connector(tcp.clone())?;
    let mut fixed = config.clone();
    let host = config.cluster_url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    fixed.tls_server_name.get_or_insert_with(|| host.to_owned());
    let as_configured = fixed.rustls_https_connector_with_connector(tcp)?;
    let detour = Arc::default();
    let dialler = Dialler { as_configured, by_address, named, known, detour, pace: Pace::USUAL };
    let http = HttpClient::builder(TokioExecutor::new())
        // A watch's next connection goes to the best address and to any server behind it: one that
        // is kept would hold on to a detour, or to one server, for ever.
        .pool_max_idle_per_host(0)
        .build(dialler);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_api_server_is_named_by_host_and_port() {
        for (text, is_good) in [
            ("cp.example.com:6443", true),
            ("192.0.2.1:6443", true),
            ("[2001:db8::1]:6443", true),
            ("192.0.2.1", false),
            ("https://192.0.2.1:6443", false),
            ("2001:db8::1:6443", false),
            ("user@192.0.2.1:6443", false),
            ("192.0.2.1:0", false),
            (":6443", false),
            ("", false),
        ] {
            assert_eq!(authority(text).is_ok(), is_good, "{text:?}");
        }
    }
}
