//! Objects as the API server would give them, shortened.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use fairlead_state::{
    Key, Kind, Object, ObjectRef,
    model::{
        ConfigMap, Endpoint, EndpointPort, EndpointSlice, Ingress, IngressBackend, IngressClass,
        IngressPath, IngressRule, IngressTls, PathType, Protocol, Rare, Secret, Service,
        ServiceBackendPort, ServiceExtras, ServicePort, ServiceType,
    },
};
use rcgen::{
    CertificateParams, CertificateRevocationListParams, CertifiedIssuer, KeyIdMethod, KeyPair,
    RevokedCertParams, date_time_ymd,
};

pub(crate) fn class(name: &str, controller: &str) -> Object {
    let key = Key::new("", name);
    Object::IngressClass(Arc::new(IngressClass {
        key,
        controller: controller.into(),
        is_default: false,
        has_parameters: false,
    }))
}

/// `default/NAME`, port 80 named `http`.
pub(crate) fn service(name: &str) -> Object {
    Object::Service(Arc::new(bare_service(name)))
}

pub(crate) fn service_ref(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::Service, key: Key::new("default", name) }
}

/// As [`service`], with `appProtocol`.
pub(crate) fn service_speaking(name: &str, protocol: &str) -> Object {
    let mut service = bare_service(name);
    let mut ports = service.ports.to_vec();
    ports[0].app_protocol = Some(protocol.into());
    service.ports = ports.into();
    Object::Service(Arc::new(service))
}

pub(crate) fn external_name(name: &str) -> Object {
    let service = bare_service(name);
    Object::Service(Arc::new(Service {
        service_type: ServiceType::ExternalName,
        extras: ServiceExtras {
            external_name: Some("example.com".into()),
            ..ServiceExtras::default()
        }
        .into(),
        ..service
    }))
}

fn bare_service(name: &str) -> Service {
    Service {
        key: Key::new("default", name),
        created_seconds: 0,
        service_type: ServiceType::ClusterIp,
        cluster_ips: [[10, 96, 0, 1].into()].into(),
        headless: false,
        ports: [ServicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: None,
            target_port: None,
            app_protocol: None,
        }]
        .into(),
        extras: Rare::default(),
        internal_traffic_policy: Default::default(),
        external_traffic_policy: Default::default(),
        publish_not_ready_addresses: false,
        traffic_distribution: None,
        headless_label: false,
    }
}

/// One endpoint's state.
#[derive(Clone, Copy)]
pub(crate) enum Pod {
    Ready,
    Terminating,
    NotReady,
}

/// The slice `SERVICE-SUFFIX` with one endpoint.
pub(crate) fn slice(service: &str, suffix: &str, address: SocketAddr, pod: Pod) -> Object {
    let (ready, serving, terminating) = match pod {
        Pod::Ready => (true, true, false),
        Pod::Terminating => (false, true, true),
        Pod::NotReady => (false, false, false),
    };
    Object::EndpointSlice(Arc::new(EndpointSlice {
        key: slice_ref(service, suffix).key,
        service: Key::new("default", service),
        ipv6: address.is_ipv6(),
        ports: [EndpointPort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: address.port(),
            app_protocol: None,
        }]
        .into(),
        endpoints: [Endpoint {
            addresses: [address.ip()].into(),
            ready,
            serving,
            terminating,
            hostname: None,
            node_name: None,
            zone: None,
            hints: Rare::default(),
            pod: None,
        }]
        .into(),
        headless_label: false,
        trigger_time_ms: None,
        import: None,
        left_out: None,
    }))
}

pub(crate) fn slice_ref(service: &str, suffix: &str) -> ObjectRef {
    let key = Key::new("default", format!("{service}-{suffix}"));
    ObjectRef { kind: Kind::EndpointSlice, key }
}

/// A Service and its ready endpoints.
pub(crate) fn backend(name: &str, addresses: &[SocketAddr]) -> Vec<Object> {
    let slices = addresses.iter().enumerate();
    let slices = slices.map(|(i, address)| slice(name, &i.to_string(), *address, Pod::Ready));
    [service(name)].into_iter().chain(slices).collect()
}

/// `default/NAME` of class `fairlead`, without rules.
pub(crate) fn ingress(name: &str) -> Ingress {
    Ingress {
        key: Key::new("default", name),
        created_seconds: 1_000,
        class_name: Some("fairlead".into()),
        annotations: Arc::default(),
        default_backend: None,
        rules: [].into(),
        tls: [].into(),
    }
}

pub(crate) fn ingress_ref(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::Ingress, key: Key::new("default", name) }
}

pub(crate) fn to(service: &str) -> IngressBackend {
    IngressBackend::Service { name: service.into(), port: ServiceBackendPort::Number(80) }
}

pub(crate) trait IngressExt: Sized {
    /// Adds a rule of one host (`*` for none): (type, path, service).
    fn rule(self, host: &str, paths: &[(PathType, &str, &str)]) -> Self;
    /// Adds a rule that sends everything under a host to a service.
    fn host(self, host: &str, service: &str) -> Self {
        self.rule(host, &[(PathType::Prefix, "/", service)])
    }
    fn tls(self, hosts: &[&str], secret: &str) -> Self;
    fn annotation(self, name: &str, value: &str) -> Self;
    fn object(self) -> Object;
}

impl IngressExt for Ingress {
    fn rule(mut self, host: &str, paths: &[(PathType, &str, &str)]) -> Self {
        let paths = paths.iter().map(|(path_type, path, service)| IngressPath {
            path: (*path).into(),
            path_type: *path_type,
            backend: to(service),
        });
        let host = (host != "*").then(|| host.into());
        let rule = IngressRule { host, paths: paths.collect() };
        self.rules = self.rules.iter().cloned().chain([rule]).collect();
        self
    }

    fn tls(mut self, hosts: &[&str], secret: &str) -> Self {
        let hosts = hosts.iter().map(|host| (*host).into()).collect();
        let secret_name = (!secret.is_empty()).then(|| secret.into());
        let section = IngressTls { hosts, secret_name };
        self.tls = self.tls.iter().cloned().chain([section]).collect();
        self
    }

    fn annotation(mut self, name: &str, value: &str) -> Self {
        let mut annotations = (*self.annotations).clone();
        annotations.insert(name.into(), value.into());
        self.annotations = Arc::new(annotations);
        self
    }

    fn object(self) -> Object {
        Object::Ingress(Arc::new(self))
    }
}

/// A certificate authority of the test's own.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self::by(CertificateParams::new(Vec::<String>::new()).unwrap())
    }

    /// As others are told apart: by its name.
    pub(crate) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        Self::by(params)
    }

    /// Whatever else it is.
    pub(crate) fn by(mut params: CertificateParams) -> Self {
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        Self { issuer: CertifiedIssuer::self_signed(params, key).unwrap() }
    }

    pub(crate) fn der(&self) -> rustls_pki_types::CertificateDer<'static> {
        self.issuer.der().clone()
    }

    /// Certificate and key for these names, in PEM.
    pub(crate) fn issue(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        self.sign(&CertificateParams::new(names).unwrap())
    }

    /// Certificate and key of a client, by the number that a list of [`Authority::revoke`] may have.
    pub(crate) fn issue_numbered(&self, number: u64) -> (String, String) {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.serial_number = Some(number.into());
        self.sign(&params)
    }

    /// Certificate and key of whatever kind.
    pub(crate) fn sign(&self, params: &CertificateParams) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    /// What it signs by.
    pub(crate) fn key(&self) -> &KeyPair {
        self.issuer.key()
    }

    /// A list of those that are taken back, in PEM; it is the newest one until the end of that year.
    pub(crate) fn revoke(&self, numbers: &[u64], until_year: i32) -> String {
        let revoked = |number: &u64| RevokedCertParams {
            serial_number: (*number).into(),
            revocation_time: date_time_ymd(2020, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2020, 1, 1),
            next_update: date_time_ymd(until_year, 12, 31),
            crl_number: 1.into(),
            issuing_distribution_point: None,
            revoked_certs: numbers.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).unwrap().pem().unwrap()
    }

    /// The Secret `default/NAME` with a certificate for these names.
    pub(crate) fn secret(&self, name: &str, names: &[&str]) -> Object {
        let (certificate, key) = self.issue(names);
        secret(Key::new("default", name), &certificate, &key)
    }
}

pub(crate) fn secret(key: Key, certificate: &str, private: &str) -> Object {
    let data = BTreeMap::from([
        ("tls.crt".into(), certificate.as_bytes().into()),
        ("tls.key".into(), private.as_bytes().into()),
    ]);
    Object::Secret(Arc::new(Secret { key, secret_type: "kubernetes.io/tls".into(), data }))
}

/// The Secret `default/NAME` of no type of its own.
pub(crate) fn opaque(name: &str, entries: &[(&str, &str)]) -> Object {
    opaque_in("default", name, entries)
}

pub(crate) fn opaque_in(namespace: &str, name: &str, entries: &[(&str, &str)]) -> Object {
    let data = entries.iter().map(|(name, text)| ((*name).into(), text.as_bytes().into()));
    let (key, data) = (Key::new(namespace, name), data.collect());
    Object::Secret(Arc::new(Secret { key, secret_type: "Opaque".into(), data }))
}

/// The ConfigMap `default/NAME`.
pub(crate) fn config_map(name: &str, data: &[(&str, &str)]) -> Object {
    let data = data.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    Object::ConfigMap(Arc::new(ConfigMap { key: Key::new("default", name), data }))
}

pub(crate) fn secret_ref(name: &str) -> ObjectRef {
    ObjectRef { kind: Kind::Secret, key: Key::new("default", name) }
}
