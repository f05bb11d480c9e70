//! Hosts as Kubernetes has them: two Ingresses each, one of them for gRPC, with Services of their own.

use std::net::SocketAddr;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};

use super::upstreams::LETTERS;
use crate::support::apiserver::authority::{self, Authority};

pub(super) const NAMESPACE: &str = "default";

/// What is changed of a host.
#[derive(Clone, Copy, Debug)]
pub(super) enum Lead {
    /// Where the endpoints of its Service are.
    Endpoints,
    /// Which Service its rule names.
    Rule,
    /// Where the endpoints for gRPC are.
    Calls,
}

/// Where all hosts lead.
pub(super) struct Table {
    upstreams: [SocketAddr; LETTERS.len()],
    hosts: Vec<Host>,
}

/// Places of upstreams.
#[derive(Clone, Copy, Default)]
struct Host {
    endpoints: usize,
    /// The Service its rule names instead of its own.
    rule: Option<usize>,
    calls: usize,
}

/// One for each host that is asked, all of one authority.
pub(super) struct Certificates {
    authority: Authority,
    newest: Vec<CertificateDer<'static>>,
    first: Vec<Value>,
}

/// Of everything that is a host's.
pub(super) fn name(host: usize) -> String {
    format!("web-{host}")
}

pub(super) fn host(host: usize) -> String {
    format!("h{host}.example.com")
}

fn of_calls(host: usize) -> String {
    format!("calls-{host}")
}

/// The Service that leads to the upstream of this place, whoever refers to it.
fn at(upstream: usize) -> String {
    format!("at-{upstream}")
}

impl Table {
    pub(super) fn new(hosts: usize, upstreams: [SocketAddr; LETTERS.len()]) -> Self {
        Self { upstreams, hosts: vec![Host::default(); hosts] }
    }

    pub(super) fn all(&self) -> Vec<Value> {
        let mut all = vec![json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass",
            "metadata": {"name": "fairlead"}, "spec": {"controller": "fairlead.io/ingress"},
        })];
        for (place, upstream) in self.upstreams.iter().enumerate() {
            all.extend([service(&at(place)), slice(&at(place), *upstream)]);
        }
        for host in 0..self.hosts.len() {
            let name = name(host);
            all.extend([service(&name), slice(&name, self.upstreams[0]), self.ingress(host)]);
            let name = of_calls(host);
            all.extend([service(&name), slice(&name, self.upstreams[0]), calls(host)]);
        }
        all
    }

    /// The object that leads a host elsewhere.
    pub(super) fn moved(&mut self, host: usize, what: Lead) -> Value {
        let state = &mut self.hosts[host];
        match what {
            Lead::Endpoints => {
                state.endpoints = 1 - state.endpoints;
                slice(&name(host), self.upstreams[state.endpoints])
            }
            Lead::Rule => {
                state.rule = match state.rule {
                    None => Some(1 - state.endpoints),
                    Some(_) => None,
                };
                self.ingress(host)
            }
            Lead::Calls => {
                state.calls = 1 - state.calls;
                slice(&of_calls(host), self.upstreams[state.calls])
            }
        }
    }

    /// The letter of the upstream that answers for a host.
    pub(super) fn leads(&self, host: usize) -> u8 {
        let Host { endpoints, rule, .. } = self.hosts[host];
        LETTERS[rule.unwrap_or(endpoints)]
    }

    /// The letter of the one that is called.
    pub(super) fn calls(&self, host: usize) -> u8 {
        LETTERS[self.hosts[host].calls]
    }

    /// As its rule is now.
    pub(super) fn ingress(&self, number: usize) -> Value {
        let service = self.hosts[number].rule.map_or_else(|| name(number), at);
        let annotations = json!({"nginx.ingress.kubernetes.io/ssl-redirect": "false"});
        let mut ingress = ingress(&name(number), number, ("/", &service), &annotations);
        ingress["spec"]["tls"] = json!([{"hosts": [host(number)], "secretName": name(number)}]);
        ingress
    }
}

impl Certificates {
    pub(super) fn new(count: usize) -> Self {
        let mut made =
            Self { authority: authority::authority(), newest: Vec::new(), first: Vec::new() };
        for host in 0..count {
            let (secret, certificate) = made.issue(host);
            made.first.push(secret);
            made.newest.push(certificate);
        }
        made
    }

    pub(super) fn authority(&self) -> &CertificateDer<'static> {
        self.authority.der()
    }

    pub(super) fn all(&self) -> Vec<Value> {
        self.first.clone()
    }

    /// The Secret with a new one.
    pub(super) fn renewed(&mut self, host: usize) -> Value {
        let (secret, certificate) = self.issue(host);
        self.newest[host] = certificate;
        secret
    }

    pub(super) fn newest(&self, host: usize) -> &CertificateDer<'static> {
        &self.newest[host]
    }

    fn issue(&self, number: usize) -> (Value, CertificateDer<'static>) {
        let made = authority::issue(&self.authority, &[&host(number)]);
        let encoded = |pem: String| STANDARD.encode(pem);
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": name(number), "namespace": NAMESPACE},
            "data": {
                "tls.crt": encoded(made.cert.pem()),
                "tls.key": encoded(made.signing_key.serialize_pem()),
            },
        });
        (secret, made.cert.der().clone())
    }
}

fn calls(number: usize) -> Value {
    let annotations = json!({
        "nginx.ingress.kubernetes.io/ssl-redirect": "false",
        "nginx.ingress.kubernetes.io/backend-protocol": "GRPC",
    });
    let service = of_calls(number);
    ingress(&service, number, ("/echo.Echo", &service), &annotations)
}

fn ingress(name: &str, number: usize, (path, service): (&str, &str), annotations: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": name, "namespace": NAMESPACE, "annotations": annotations,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "ingressClassName": "fairlead",
            "rules": [{"host": host(number), "http": {"paths": [{
                "path": path, "pathType": "Prefix",
                "backend": {"service": {"name": service, "port": {"number": 80}}},
            }]}}],
        },
    })
}

fn slice(service: &str, upstream: SocketAddr) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {
            "name": format!("{service}-1"), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": service},
        },
        "ports": [{"name": "http", "port": upstream.port(), "protocol": "TCP"}],
        "endpoints": [{
            "addresses": [upstream.ip().to_string()], "conditions": {"ready": true},
        }],
    })
}

fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "clusterIP": "None", "clusterIPs": ["None"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}
