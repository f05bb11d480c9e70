use serde_json::{Value, json};

use super::{decode, good, refused, set};
use crate::{
    decode::Decoded,
    model::{EndpointSlice, Kind, Object},
};

fn slice() -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": "hello-x7k2p", "namespace": "shop", "generateName": "hello-",
            "annotations": {
                "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-31T12:00:00.25Z",
            },
            "labels": {
                "kubernetes.io/service-name": "hello",
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
            },
        },
        "addressType": "IPv4",
        "ports": [{"name": "web", "port": 8080, "protocol": "TCP", "appProtocol": "http"}],
        "endpoints": [{
            "addresses": ["10.244.1.5"],
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "hostname": "hello-0", "nodeName": "node-1", "zone": "z1",
            "hints": {"forZones": [{"name": "z1"}], "forNodes": [{"name": "node-1"}]},
            "targetRef": {"kind": "Pod", "name": "hello-0", "namespace": "shop", "uid": "1"},
        }],
    })
}

fn taken(document: &Value) -> EndpointSlice {
    let Object::EndpointSlice(slice) = good(Kind::EndpointSlice, document) else { panic!() };
    (*slice).clone()
}

#[test]
fn every_field_that_is_used_is_read() {
    let slice = taken(&slice());
    assert_eq!(slice.key.to_string(), "shop/hello-x7k2p");
    assert_eq!(slice.service.to_string(), "shop/hello");
    assert_eq!((slice.ipv6, slice.trigger_time_ms), (false, Some(1_769_860_800_250)));
    let [port] = &*slice.ports else { panic!() };
    assert_eq!((&*port.name, port.port, port.app_protocol.as_deref()), ("web", 8080, Some("http")));
    let [endpoint] = &*slice.endpoints else { panic!() };
    assert_eq!(endpoint.addresses[0].to_string(), "10.244.1.5");
    assert_eq!(endpoint.hostname.as_deref(), Some("hello-0"));
    assert_eq!(endpoint.node_name.as_deref(), Some("node-1"));
    assert_eq!((&*endpoint.hints.zones[0], &*endpoint.hints.nodes[0]), ("z1", "node-1"));
    assert_eq!((endpoint.zone.as_deref(), endpoint.pod.as_deref()), (Some("z1"), Some("hello-0")));
}

#[test]
fn a_slice_of_the_cluster_set_may_be_of_no_service_here() {
    let labels = |document: &mut Value, own: bool| {
        let labels = document["metadata"]["labels"].as_object_mut().unwrap();
        labels.insert("multicluster.kubernetes.io/service-name".to_owned(), json!("far"));
        labels.insert("multicluster.kubernetes.io/source-cluster".to_owned(), json!("c1"));
        if !own {
            labels.remove("kubernetes.io/service-name");
        }
    };
    for own in [true, false] {
        let mut document = slice();
        labels(&mut document, own);
        let slice = taken(&document);
        assert_eq!(slice.has_service(), own);
        assert_eq!(slice.import_key().unwrap().to_string(), "shop/far");
        assert_eq!(&*slice.import.unwrap().cluster, "c1");
    }
    assert_eq!(taken(&slice()).import, None);
}

#[test]
fn absent_conditions_mean_ready_serving_and_not_terminating() {
    for (conditions, expected) in [
        (json!(null), (true, true, false)),
        (json!({}), (true, true, false)),
        (json!({"ready": null}), (true, true, false)),
        (json!({"ready": false}), (false, true, false)),
        (json!({"ready": false, "terminating": true}), (false, true, true)),
        (json!({"ready": false, "serving": false}), (false, false, false)),
        (json!({"ready": false, "serving": true, "terminating": true}), (false, true, true)),
    ] {
        let slice = taken(&set(slice(), "endpoints.0.conditions", conditions.clone()));
        let endpoint = &slice.endpoints[0];
        let seen = (endpoint.ready, endpoint.serving, endpoint.terminating);
        assert_eq!(seen, expected, "{conditions}");
    }
}

#[test]
fn slices_that_are_not_for_a_proxy_are_ignored_not_refused() {
    for (path, value) in [
        ("metadata.labels", json!({})),
        ("metadata.labels", json!({"kubernetes.io/service-name": ""})),
        ("addressType", json!("FQDN")),
    ] {
        let document = set(slice(), path, value);
        assert!(matches!(decode(Kind::EndpointSlice, &document), Decoded::Ignored(_)), "{path}");
    }
}

#[test]
fn a_port_without_a_number_selects_nothing_and_does_no_harm() {
    let none =
        json!([{"name": "all"}, {"name": "zero", "port": 0}, {"port": 53, "protocol": "UDP"}]);
    let document = set(slice(), "ports", none);
    let slice = taken(&document);
    let [port] = &*slice.ports else { panic!("{:?}", slice.ports) };
    assert_eq!((&*port.name, port.port), ("", 53));
}

/// One bad endpoint took all of its slice out of service.
#[test]
fn bug_an_endpoint_without_an_address_that_can_be_read_is_left_out_and_the_others_serve() {
    for (addresses, expected) in [
        (json!(["10.1.2.007"]), vec!["10.1.2.7", "10.244.1.5"]),
        (json!(["nope", "10.1.2.8"]), vec!["10.1.2.8", "10.244.1.5"]),
        (json!([]), vec!["10.244.1.5"]),
        (json!(["nope"]), vec!["10.244.1.5"]),
        (json!(["fd00:10::5"]), vec!["10.244.1.5"]),
        (json!(["0.0.0.0"]), vec!["10.244.1.5"]),
        (json!(["224.0.0.1"]), vec!["10.244.1.5"]),
    ] {
        let endpoints = json!([{ "addresses": addresses }, slice()["endpoints"][0]]);
        let slice = taken(&set(slice(), "endpoints", endpoints));
        let found = slice.endpoints.iter().flat_map(|endpoint| endpoint.addresses.iter());
        assert_eq!(found.map(ToString::to_string).collect::<Vec<_>>(), expected, "{addresses}");
    }
    // A name that is none is only for DNS.
    let slice = taken(&set(slice(), "endpoints.0.hostname", json!("a.b")));
    assert_eq!((slice.endpoints.len(), &slice.endpoints[0].hostname), (1, &None));
}

/// Only the log told of it: `fairlead check` has none, and found nothing.
#[test]
fn bug_what_is_left_out_of_a_slice_is_told_with_it() {
    for (path, value, expected) in [
        ("endpoints.0.addresses", json!(["10.1.2.007"]), None),
        ("endpoints.0.hostname", json!(""), None),
        ("endpoints.0.addresses", json!([]), Some("endpoints[0].addresses is empty")),
        (
            "endpoints.0.addresses",
            json!(["fd00:10::5"]),
            Some("endpoints[0].addresses[0] fd00:10::5 is not of the slice's addressType IPv4"),
        ),
        (
            "endpoints.0.addresses",
            json!(["10.1.2.8", "nope"]),
            Some("endpoints[0].addresses[1] \"nope\" is not an IP address"),
        ),
        (
            "endpoints",
            json!([{"addresses": ["nope"]}, {"addresses": ["0.0.0.0"]}, {"addresses": []}]),
            Some("endpoints[0].addresses[0] \"nope\" is not an IP address (and 2 more)"),
        ),
        (
            "endpoints.0.hostname",
            json!("a.b"),
            Some(
                "endpoints[0].hostname \"a.b\" is not a DNS label (1-63 lower-case letters, digits, and - \
                 inside)",
            ),
        ),
    ] {
        let slice = taken(&set(slice(), path, value.clone()));
        assert_eq!(slice.left_out.as_deref(), expected, "{path} = {value}");
    }
}

#[test]
fn impossible_fields_refuse_the_slice() {
    refused(
        Kind::EndpointSlice,
        &slice(),
        &[
            ("addressType", json!("IPv5"), "addressType \"IPv5\" is not one of IPv4, IPv6, FQDN"),
            ("ports.0.port", json!(-1), "ports[0].port -1 is not a port (1-65535)"),
            (
                "ports.0.protocol",
                json!("QUIC"),
                "ports[0].protocol \"QUIC\" is not one of TCP, UDP, SCTP",
            ),
        ],
    );
}
