//! `networking.k8s.io/v1` Ingress and IngressClass.

use std::sync::Arc;

use serde::{Deserialize, de::IgnoredAny};

use super::{
    Input, Raw, fields,
    metadata::{AllAnnotations, Head, Metadata},
    names::Names,
    text::{Text, kept, nullable},
};
use crate::{
    change::SaidClass,
    model::{
        Ingress, IngressBackend, IngressClass, IngressPath, IngressRule, IngressTls, Key, Kind,
        Name, Object, PathType, ServiceBackendPort,
    },
};

/// kubectl's copy of the whole object: large, and nobody's setting.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

#[derive(Debug, Deserialize)]
pub(super) struct RawIngress<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a, AllAnnotations<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawSpec<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawSpec<'a> {
    #[serde(borrow)]
    ingress_class_name: Option<Text<'a>>,
    default_backend: Option<RawBackend<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    rules: Vec<RawRule<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    tls: Vec<RawTls<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawRule<'a> {
    #[serde(borrow)]
    host: Option<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    http: RawHttp<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawHttp<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    paths: Vec<RawPath<'a>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawPath<'a> {
    #[serde(borrow)]
    path: Option<Text<'a>>,
    path_type: Option<Text<'a>>,
    #[serde(default, deserialize_with = "nullable")]
    backend: RawBackend<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawBackend<'a> {
    #[serde(borrow)]
    service: Option<RawBackendService<'a>>,
    resource: Option<RawResource<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawBackendService<'a> {
    #[serde(borrow, default)]
    name: Text<'a>,
    #[serde(default, deserialize_with = "nullable")]
    port: RawBackendPort<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawBackendPort<'a> {
    #[serde(borrow)]
    name: Option<Text<'a>>,
    number: Option<i64>,
}

#[derive(Debug, Default, Deserialize)]
struct RawResource<'a> {
    #[serde(borrow, default)]
    kind: Text<'a>,
    #[serde(default)]
    name: Text<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawTls<'a> {
    #[serde(borrow, default, deserialize_with = "nullable")]
    hosts: Vec<Text<'a>>,
    secret_name: Option<Text<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RawIngressClass<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(default, deserialize_with = "nullable")]
    spec: RawClassSpec<'a>,
}

#[derive(Debug, Default, Deserialize)]
struct RawClassSpec<'a> {
    #[serde(borrow, default)]
    controller: Text<'a>,
    parameters: Option<IgnoredAny>,
}

/// The least that says whose it is. Each part is read by itself: the rest, or the other one, may be
/// what is wrong.
#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSaidName<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    spec: RawClassName<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct RawClassName<'a> {
    #[serde(borrow)]
    ingress_class_name: Option<Text<'a>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawSaidAnnotation<'a> {
    #[serde(borrow)]
    metadata: RawAnnotated<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawAnnotated<'a> {
    #[serde(borrow, deserialize_with = "nullable")]
    annotations: RawLegacyClass<'a>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RawLegacyClass<'a> {
    #[serde(borrow, rename = "kubernetes.io/ingress.class")]
    class: Option<Text<'a>>,
}

impl<'a> Raw<'a> for RawIngress<'a> {
    const KIND: Kind = Kind::Ingress;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        let RawIngress { metadata, spec } = self;
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        if spec.rules.is_empty() && spec.default_backend.is_none() {
            return Err("spec has neither rules nor defaultBackend".to_owned());
        }
        let default_backend = spec.default_backend.as_ref();
        let default_backend = default_backend.map(|raw| backend(raw, "spec.defaultBackend", names));
        let rules = spec.rules.iter().enumerate();
        let rules = rules.map(|(i, raw)| rule(i, raw, names)).collect::<Result<_, _>>()?;
        let tls = spec.tls.iter().enumerate();
        let tls = tls.map(|(i, raw)| tls_section(i, raw, names)).collect::<Result<_, _>>()?;
        let annotations = metadata.annotations.iter().filter(|(name, _)| &***name != LAST_APPLIED);
        let annotations = annotations.map(|(name, value)| (names.get(name), Name::from(&**value)));
        let annotations = Arc::new(annotations.collect());
        let created = metadata.creation_timestamp.as_deref();
        let ingress = Ingress {
            key,
            created_seconds: fields::seconds(created, format_args!("metadata.creationTimestamp"))?,
            class_name: names.get_some(spec.ingress_class_name.as_ref()),
            annotations,
            default_backend: default_backend.transpose()?,
            rules: kept(rules),
            tls: kept(tls),
        };
        Ok(Some(Object::Ingress(Arc::new(ingress))))
    }
}

impl<'a> Raw<'a> for RawIngressClass<'a> {
    const KIND: Kind = Kind::IngressClass;

    fn head(&self) -> Head<'_> {
        self.metadata.head()
    }

    fn check(self, key: Key, names: &mut Names) -> Result<Option<Object>, String> {
        fields::object_name(&key.name, format_args!("metadata.name"))?;
        let default = self.metadata.annotations.is_default_class.as_deref();
        let class = IngressClass {
            key,
            controller: names.get(&self.spec.controller),
            is_default: default == Some("true"),
            has_parameters: self.spec.parameters.is_some(),
        };
        Ok(Some(Object::IngressClass(Arc::new(class))))
    }
}

/// Whose a refused Ingress says it is.
pub(super) fn said_class<'a>(input: impl Input<'a>) -> SaidClass {
    let named: RawSaidName<'_> = input.read().unwrap_or_default();
    let annotated: RawSaidAnnotation<'_> = input.read().unwrap_or_default();
    let name = |text: Option<Text<'_>>| text.map(|text| Name::from(&*text));
    SaidClass {
        name: name(named.spec.ingress_class_name),
        annotation: name(annotated.metadata.annotations.class),
    }
}

fn rule(i: usize, raw: &RawRule<'_>, names: &mut Names) -> Result<IngressRule, String> {
    let host = raw.host.as_deref().filter(|host| !host.is_empty());
    if let Some(host) = host {
        host_name(host, format_args!("spec.rules[{i}].host"))?;
    }
    let paths = raw.http.paths.iter().enumerate();
    let paths = paths.map(|(j, raw)| path(&format!("spec.rules[{i}].http.paths[{j}]"), raw, names));
    let paths = kept(paths.collect::<Result<_, _>>()?);
    Ok(IngressRule { host: host.map(|host| names.get(host)), paths })
}

fn path(at: &str, raw: &RawPath<'_>, names: &mut Names) -> Result<IngressPath, String> {
    let text = raw.path.as_deref().unwrap_or_default();
    let path_type = match raw.path_type.as_deref() {
        Some("Exact") => PathType::Exact,
        Some("Prefix") => PathType::Prefix,
        Some("ImplementationSpecific") => PathType::ImplementationSpecific,
        None | Some("") => {
            return Err(format!(
                "{at}.pathType is missing: write Exact, Prefix or ImplementationSpecific"
            ));
        }
        Some(other) => {
            return Err(format!(
                "{at}.pathType {other:?} is not one of Exact, Prefix, ImplementationSpecific"
            ));
        }
    };
    let open = path_type == PathType::ImplementationSpecific && text.is_empty();
    if !open && !text.starts_with('/') {
        return Err(format!("{at}.path {text:?} does not begin with /"));
    }
    if let Some(bad) = text.chars().find(|c| c.is_control()) {
        return Err(format!("{at}.path {text:?} holds the control character {bad:?}"));
    }
    let backend = backend(&raw.backend, &format!("{at}.backend"), names)?;
    Ok(IngressPath { path: names.get(text), path_type, backend })
}

fn backend(raw: &RawBackend<'_>, at: &str, names: &mut Names) -> Result<IngressBackend, String> {
    let service = match (&raw.service, &raw.resource) {
        (Some(service), None) => service,
        (None, Some(resource)) => {
            let resource = format!("{}/{}", resource.kind, resource.name);
            return Ok(IngressBackend::Resource(resource.into()));
        }
        (None, None) => return Err(format!("{at} names neither a service nor a resource")),
        (Some(_), Some(_)) => return Err(format!("{at} names both a service and a resource")),
    };
    fields::label(&service.name, format_args!("{at}.service.name"))?;
    let name = service.port.name.as_deref().filter(|name| !name.is_empty());
    let port = match (service.port.number.filter(|number| *number != 0), name) {
        (Some(number), None) => ServiceBackendPort::Number(fields::port(
            number,
            format_args!("{at}.service.port.number"),
        )?),
        (None, Some(name)) => ServiceBackendPort::Name(names.get(name)),
        (None, None) => return Err(format!("{at}.service.port has neither number nor name")),
        (Some(_), Some(_)) => return Err(format!("{at}.service.port has both number and name")),
    };
    Ok(IngressBackend::Service { name: names.get(&service.name), port })
}

fn tls_section(i: usize, raw: &RawTls<'_>, names: &mut Names) -> Result<IngressTls, String> {
    for (j, host) in raw.hosts.iter().enumerate() {
        // The API takes what looks like an IPv4 address (validateIngressTLS: IsDNS1123Subdomain); no
        // rule is for it, so it has no effect.
        dns_name(host, format_args!("spec.tls[{i}].hosts[{j}]"))?;
    }
    if let Some(secret) = raw.secret_name.as_deref().filter(|name| !name.is_empty()) {
        fields::object_name(secret, format_args!("spec.tls[{i}].secretName"))?;
    }
    Ok(IngressTls {
        hosts: kept(raw.hosts.iter().map(|host| names.get(host)).collect()),
        secret_name: names.get_some(raw.secret_name.as_ref()),
    })
}

/// The host of a rule.
fn host_name(text: &str, field: std::fmt::Arguments<'_>) -> Result<(), String> {
    if text.parse::<std::net::IpAddr>().is_ok() {
        return Err(format!("{field} {text:?} is an address; hosts are names"));
    }
    dns_name(text, field)
}

/// A name, or `*.` and a name.
fn dns_name(text: &str, field: std::fmt::Arguments<'_>) -> Result<(), String> {
    fields::dns_name(text.strip_prefix("*.").unwrap_or(text), field)
}
