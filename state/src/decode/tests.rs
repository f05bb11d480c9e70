mod endpoints;
mod others;
mod services;

use std::sync::Arc;

use serde_json::{Value, json};

use super::{Decoded, Decoder, Served};
use crate::model::{Kind, Name, Object};

/// Sets `path` (`spec.ports.0.port`) in a document; `null` removes it.
fn set(mut document: Value, path: &str, value: Value) -> Value {
    let pointer = format!("/{}", path.replace('.', "/").replace('~', "."));
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    let parent = document.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent}"));
    match parent {
        Value::Object(map) if value.is_null() => drop(map.remove(field)),
        Value::Object(map) => drop(map.insert(field.to_owned(), value)),
        Value::Array(list) => {
            let index: usize = field.parse().unwrap();
            list.resize(list.len().max(index + 1), Value::Null);
            list[index] = value;
        }
        _ => panic!("{path} leads nowhere"),
    }
    document
}

fn decode(kind: Kind, document: &Value) -> Decoded {
    let origin: Arc<str> = "here".into();
    Decoder::default().json(kind, &document.to_string(), &origin).unwrap().decoded
}

fn good(kind: Kind, document: &Value) -> Object {
    match decode(kind, document) {
        Decoded::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

/// Each change of a good document is refused, for the reason given.
fn refused(kind: Kind, document: &Value, table: &[(&str, Value, &str)]) {
    good(kind, document);
    for (path, value, expected) in table {
        match decode(kind, &set(document.clone(), path, value.clone())) {
            Decoded::Refused(refusal) => {
                assert_eq!(&*refusal.reason, *expected, "{path} = {value}");
            }
            other => panic!("{path} = {value} was taken: {other:?}"),
        }
    }
}

#[test]
fn a_document_is_known_by_group_version_and_kind() {
    let version = |kind, wanted| Served::Version { kind, wanted };
    let table = [
        ("v1", "Service", Served::Kind(Kind::Service)),
        ("serving.knative.dev/v1", "Service", Served::Unknown),
        ("discovery.k8s.io/v1", "EndpointSlice", Served::Kind(Kind::EndpointSlice)),
        (
            "discovery.k8s.io/v1beta1",
            "EndpointSlice",
            version(Kind::EndpointSlice, "discovery.k8s.io/v1"),
        ),
        ("networking.k8s.io/v1", "Ingress", Served::Kind(Kind::Ingress)),
        ("networking.k8s.io/v1beta1", "Ingress", version(Kind::Ingress, "networking.k8s.io/v1")),
        ("extensions/v1beta1", "Ingress", version(Kind::Ingress, "networking.k8s.io/v1")),
        ("networking.internal.knative.dev/v1alpha1", "Ingress", Served::Unknown),
        ("v1", "Endpoints", Served::Unknown),
        ("apps/v1", "Deployment", Served::Unknown),
    ];
    for (api_version, kind, expected) in table {
        assert_eq!(Served::of(api_version, kind), expected, "{kind} {api_version}");
    }
}

#[test]
fn a_wrong_type_is_refused_with_the_path_to_it_and_the_objects_name() {
    let document = json!({
        "metadata": {"name": "hello", "namespace": "shop", "resourceVersion": "7"},
        "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": "eighty"}]},
    });
    let origin: Arc<str> = "here".into();
    let item = Decoder::default().json(Kind::Service, &document.to_string(), &origin).unwrap();
    assert_eq!(item.version.as_deref(), Some("7"));
    let Decoded::Refused(refusal) = item.decoded else { panic!("{item:?}") };
    assert_eq!(
        refusal.to_string(),
        "Service shop/hello refused: spec.ports[0].port: invalid type: string \"eighty\", \
         expected i64 (here)"
    );
}

#[test]
fn a_document_that_names_no_object_is_an_error_of_its_own() {
    let origin: Arc<str> = "here".into();
    for (document, expected) in [
        ("{}", "a Service without metadata.name"),
        (r#"{"metadata": {}}"#, "a Service without metadata.name"),
        (
            r#"{"metadata": {"name": 7}}"#,
            "metadata.name: invalid type: integer `7`, expected a string",
        ),
        ("{", "EOF while parsing an object"),
    ] {
        let result = Decoder::default().json(Kind::Service, document, &origin);
        assert_eq!(result.unwrap_err().0, expected, "{document}");
    }
}

#[test]
fn null_means_absent_wherever_the_api_server_writes_it() {
    let document = json!({
        "metadata": {
            "name": "s", "namespace": "d", "creationTimestamp": null,
            "labels": {"kubernetes.io/service-name": "s"}, "annotations": null,
        },
        "addressType": "IPv4", "ports": null, "endpoints": null,
    });
    let Object::EndpointSlice(slice) = good(Kind::EndpointSlice, &document) else { panic!() };
    assert!(slice.ports.is_empty() && slice.endpoints.is_empty());
    let document = json!({
        "metadata": {"name": "s", "namespace": "d", "labels": null},
        "spec": {
            "clusterIP": "None", "clusterIPs": null, "ports": null, "externalIPs": null,
            "sessionAffinityConfig": null, "loadBalancerSourceRanges": null,
        },
        "status": {"loadBalancer": null},
    });
    good(Kind::Service, &document);
}

#[test]
fn equal_names_are_stored_once() {
    let document = json!({
        "metadata": {
            "name": "s", "namespace": "d", "labels": {"kubernetes.io/service-name": "s"},
        },
        "addressType": "IPv4",
        "endpoints": [
            {"addresses": ["10.0.0.1"], "nodeName": "node-1"},
            {"addresses": ["10.0.0.2"], "nodeName": "node-1"},
        ],
    });
    let Object::EndpointSlice(slice) = good(Kind::EndpointSlice, &document) else { panic!() };
    let [a, b] = &*slice.endpoints else { panic!() };
    let (a, b) = (a.node_name.as_ref().unwrap(), b.node_name.as_ref().unwrap());
    assert!(Name::ptr_eq(a, b));
}

#[test]
fn names_nobody_holds_any_more_leave_the_pool() {
    let mut names = super::Names::default();
    let held = names.get("held");
    for i in 0..100_000 {
        names.get(&format!("name-{i}"));
    }
    assert!(names.len() < 10_000, "{} names", names.len());
    assert!(Name::ptr_eq(&held, &names.get("held")));
}
