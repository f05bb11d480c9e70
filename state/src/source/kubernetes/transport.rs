//! From a kubeconfig or a service account to an HTTP client.
//!
//! kube's own stack, less its request logging (an outage is said once, by [`super::outage`]) and
//! its retries ([`super::backoff`] has jitter and no end), plus TCP keep-alive, several addresses
//! ([`super::dial`]), and connections that are shared where a request says so ([`super::streams`]).

use std::{path::PathBuf, sync::Arc, time::Duration};

use http::{Request, uri::Authority};
use http_body_util::BodyExt;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector};
use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{Body, ConfigExt},
    config::{Cluster, KubeConfigOptions, Kubeconfig},
};
use rustls::{ClientConfig, pki_types::ServerName};
use tower::{BoxError, ServiceBuilder, service_fn};

use super::{
    addresses::Addresses,
    dial::{Dialler, Pace},
    identity::Identity,
    streams::{Answer, Connector, Sharing, Streams},
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
    let wrong = |source| SourceError::Kubeconfig { path: path.clone(), source: Box::new(source) };
    let file = Kubeconfig::read_from(&path).map_err(wrong)?;
    let cluster = current_cluster(&file).cloned().unwrap_or_default();
    if cluster.proxy_url.is_some_and(|url| !url.is_empty()) {
        return Err(SourceError::ProxyUrl { path: path.clone() });
    }
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await;
    let mut config = config.map_err(wrong)?;
    if cluster.certificate_authority_data.is_none() {
        // Read again now and then, as a service account's is.
        config.root_cert_file = cluster.certificate_authority.map(PathBuf::from);
    }
    Ok(config)
}

fn current_cluster(file: &Kubeconfig) -> Option<&Cluster> {
    let current = file.current_context.as_ref()?;
    let mut contexts = file.contexts.iter();
    let context = contexts.find(|context| context.name == *current)?.context.as_ref()?;
    let mut clusters = file.clusters.iter();
    clusters.find(|cluster| cluster.name == context.cluster)?.cluster.as_ref()
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
    let given = config.tls_server_name.as_deref().map(server_name).transpose()?;
    let host = config.cluster_url.host().unwrap_or_default();
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let configured = given.clone().map_or_else(|| server_name(host), Ok)?;
    let mut tls = config.rustls_client_config()?;
    if let Some(identity) = Identity::of(&config.auth_info) {
        identity.shown_by(&mut tls);
    }
    let mut offering_http2 = tls.clone();
    offering_http2.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let (tls, offering_http2) = (Arc::new(tls), Arc::new(offering_http2));
    let dialler = Dialler {
        as_configured: connector(&tcp, &tls, Some(&configured)),
        by_address: connector(&tcp, &tls, given.as_ref()),
        named,
        known,
        detour: Arc::default(),
        pace: Pace::USUAL,
    };
    let streams = Arc::new(Streams::new(Dialler {
        as_configured: connector(&tcp, &offering_http2, Some(&configured)),
        by_address: connector(&tcp, &offering_http2, given.as_ref()),
        ..dialler.clone()
    }));
    let alone = HttpClient::builder(TokioExecutor::new())
        // A watch's next connection goes to the best address and to any server behind it: one that
        // is kept would hold on to a detour, or to one server, for ever.
        .pool_max_idle_per_host(0)
        .build(dialler);
    let send = move |request: Request<Body>| {
        let (alone, streams) = (alone.clone(), streams.clone());
        async move {
            if request.extensions().get::<Sharing>().is_some() {
                return streams.send(request).await;
            }
            let answer: Answer = alone.request(request).await?.map(BodyExt::boxed_unsync);
            Ok::<_, BoxError>(answer)
        }
    };
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .service(service_fn(send));
    Ok(Client::new(service, config.default_namespace.clone()))
}

/// To a server that shows a certificate for `name`, or for the address that is dialled.
fn connector(
    tcp: &HttpConnector,
    tls: &Arc<ClientConfig>,
    name: Option<&ServerName<'static>>,
) -> Connector {
    let (tcp, tls) = (tcp.clone(), tls.clone());
    match name {
        Some(name) => {
            let fixed = Arc::new(FixedServerNameResolver::new(name.clone()));
            HttpsConnector::new(tcp, tls, false, fixed)
        }
        None => HttpsConnector::from((tcp, tls)),
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, kube::Error> {
    ServerName::try_from(text.to_owned()).map_err(|error| kube::Error::Service(error.into()))
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
