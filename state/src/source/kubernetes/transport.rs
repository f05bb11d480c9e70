//! From a kubeconfig or a service account to an HTTP client.
//!
//! kube's own stack, less its request logging (an outage is said once, by [`super::outage`]) and
//! its
//! retries ([`super::backoff`] has jitter and no end), plus TCP keep-alive.

use std::{path::PathBuf, sync::Arc, time::Duration};

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

use crate::source::SourceError;

/// Longest wait for a TCP connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Idle time after which the kernel begins to probe a connection, and the time between probes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// Unanswered probes after which a connection is dead.
const KEEPALIVE_PROBES: u32 = 3;

/// A client for the configured server, and the server's address.
pub(super) async fn connect(
    kubeconfig: Option<PathBuf>,
) -> Result<(Client, Arc<str>), SourceError> {
    let config = configuration(kubeconfig).await?;
    let server: Arc<str> = config.cluster_url.to_string().trim_end_matches('/').into();
    let client = client(&config).map_err(|error| SourceError::Credentials {
        server: server.clone(),
        reason: super::api::chain(&error),
    })?;
    Ok((client, server))
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

fn client(config: &Config) -> Result<Client, kube::Error> {
    // kube builds its TLS configuration with the process's provider. An error means there is one.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    let connector = config.rustls_https_connector_with_connector(tcp)?;
    let http = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, config.default_namespace.clone()))
}
