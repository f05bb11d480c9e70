use serde_json::{Value, json};

use super::{decode, good, refused, set};
use crate::{
    change::SaidClass,
    decode::{Decoded, Decoder},
    model::{IngressBackend, Kind, Name, Object, PathType, ServiceBackendPort},
    source::references,
};

#[test]
fn labels_are_kept_where_they_are_wanted() {
    let document = r#"{"metadata":{"name":"shop","labels":{"b":"2","a":"1","none":null}}}"#;
    for (wanted, labels) in [(true, vec![("a", "1"), ("b", "2")]), (false, vec![])] {
        let item = Decoder::new(wanted).json(Kind::Namespace, document, &"test".into()).unwrap();
        let Decoded::Object(Object::Namespace(namespace)) = item.decoded else { panic!() };
        let found = namespace.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        assert_eq!(found.collect::<Vec<_>>(), labels);
    }
}

#[test]
fn a_service_import_is_read() {
    let document = || {
        json!({
            "apiVersion": "multicluster.x-k8s.io/v1alpha1", "kind": "ServiceImport",
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "ClusterSetIP", "ips": ["10.42.0.1"],
                "ports": [{"name": "http", "protocol": "TCP", "port": 80}]},
        })
    };
    let good = good(Kind::ServiceImport, &document());
    let Object::ServiceImport(import) = good else { panic!() };
    assert_eq!((import.key.to_string().as_str(), import.headless), ("shop/web", false));
    assert_eq!(import.ips[0].to_string(), "10.42.0.1");
    assert_eq!((&*import.ports[0].name, import.ports[0].port), ("http", 80));
    let table = [
        (
            "spec.type",
            json!("ClusterIP"),
            "spec.type \"ClusterIP\" is not one of ClusterSetIP, Headless",
        ),
        ("spec.ips.0", json!("x"), "spec.ips[0] \"x\" is not an IP address"),
        ("spec.ports.0.port", json!(0), "spec.ports[0].port 0 is not a port (1-65535)"),
    ];
    refused(Kind::ServiceImport, &document(), &table);
}

fn ingress() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
        "metadata": {
            "name": "hello", "namespace": "shop",
            "annotations": {
                "nginx.ingress.kubernetes.io/ssl-redirect": "false",
                "kubectl.kubernetes.io/last-applied-configuration": "{...}",
            },
        },
        "spec": {
            "ingressClassName": "fairlead",
            "defaultBackend": {"service": {"name": "other", "port": {"name": "web"}}},
            "tls": [{"hosts": ["hello.example.com", "*.example.com"], "secretName": "cert"}, {}],
            "rules": [{
                "host": "hello.example.com",
                "http": {"paths": [
                    {"path": "/", "pathType": "Prefix",
                     "backend": {"service": {"name": "hello", "port": {"number": 80}}}},
                    {"pathType": "ImplementationSpecific",
                     "backend": {"resource": {"apiGroup": "x.io", "kind": "Bucket", "name": "b"}}},
                ]},
            }, {"host": "*.example.com"}],
        },
    })
}

#[test]
fn an_ingress_is_read_with_all_its_annotations_but_kubectls_copy() {
    let Object::Ingress(ingress) = good(Kind::Ingress, &ingress()) else { panic!() };
    assert_eq!(ingress.class_name.as_deref(), Some("fairlead"));
    let annotations: Vec<&str> = ingress.annotations.keys().map(|name| &**name).collect();
    assert_eq!(annotations, ["nginx.ingress.kubernetes.io/ssl-redirect"]);
    let [rule, bare] = &*ingress.rules else { panic!() };
    assert_eq!((bare.host.as_deref(), bare.paths.len()), (Some("*.example.com"), 0));
    let [first, second] = &*rule.paths else { panic!() };
    assert_eq!((&*first.path, first.path_type), ("/", PathType::Prefix));
    let port = ServiceBackendPort::Number(80);
    assert_eq!(first.backend, IngressBackend::Service { name: "hello".into(), port });
    assert_eq!(
        (&*second.path, &second.backend),
        ("", &IngressBackend::Resource("Bucket/b".into()))
    );
    let port = ServiceBackendPort::Name("web".into());
    assert_eq!(
        ingress.default_backend,
        Some(IngressBackend::Service { name: "other".into(), port })
    );
    assert_eq!(ingress.tls[1].secret_name, None);
}

/// The API server takes it: the whole Ingress was left out.
#[test]
fn bug_a_tls_host_that_is_an_address_is_kept_and_only_a_rules_host_is_refused() {
    let mut document = ingress();
    document["spec"]["tls"][0]["hosts"] = json!(["10.0.0.1", "hello.example.com"]);
    let Object::Ingress(ingress) = good(Kind::Ingress, &document) else { panic!() };
    let hosts: Vec<&str> = ingress.tls[0].hosts.iter().map(|host| &**host).collect();
    assert_eq!(hosts, ["10.0.0.1", "hello.example.com"]);
}

#[test]
fn an_ingress_refers_to_objects_of_its_own_namespace() {
    let Object::Ingress(ingress) = good(Kind::Ingress, &ingress()) else { panic!() };
    let names: Vec<String> = references(&ingress).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["Secret shop/cert"]);
    for (name, value, named) in [
        ("auth-secret", "users", "Secret shop/users"),
        ("auth-secret", "shop/users", "Secret shop/users"),
        ("auth-secret", " shop/users\n", "Secret shop/users"),
        ("auth-secret", "shop/ users", ""),
        ("auth-secret", "else/users", ""),
        ("custom-headers", "shop/fields", "ConfigMap shop/fields"),
        ("auth-proxy-set-headers", "else/fields", ""),
    ] {
        let mut annotations = (*ingress.annotations).clone();
        annotations.insert(format!("nginx.ingress.kubernetes.io/{name}").into(), value.into());
        let ingress = crate::model::Ingress {
            annotations: annotations.into(),
            tls: [].into(),
            ..(*ingress).clone()
        };
        let names: Vec<String> = references(&ingress).iter().map(ToString::to_string).collect();
        assert_eq!(names.join(" "), named, "{value}");
    }
}

#[test]
fn impossible_fields_refuse_the_ingress() {
    let backend = "spec.rules.0.http.paths.0.backend";
    let at = "spec.rules[0].http.paths[0]";
    refused(
        Kind::Ingress,
        &ingress(),
        &[
            (
                "spec.rules.0.http.paths.0.path",
                json!("api"),
                &format!("{at}.path \"api\" does not begin with /"),
            ),
            (
                "spec.rules.0.http.paths.0.path",
                Value::Null,
                &format!("{at}.path \"\" does not begin with /"),
            ),
            (
                "spec.rules.0.http.paths.0.path",
                json!("/a\r\nb"),
                &format!("{at}.path \"/a\\r\\nb\" holds the control character '\\r'"),
            ),
            (
                "spec.rules.0.http.paths.0.pathType",
                Value::Null,
                &format!("{at}.pathType is missing: write Exact, Prefix or ImplementationSpecific"),
            ),
            (
                "spec.rules.0.http.paths.0.pathType",
                json!("Regex"),
                &format!(
                    "{at}.pathType \"Regex\" is not one of Exact, Prefix, ImplementationSpecific"
                ),
            ),
            (backend, json!({}), &format!("{at}.backend names neither a service nor a resource")),
            (
                backend,
                json!({"service": {"name": "a", "port": {}}}),
                &format!("{at}.backend.service.port has neither number nor name"),
            ),
            (
                backend,
                json!({"service": {"name": "a", "port": {"number": 80, "name": "b"}}}),
                &format!("{at}.backend.service.port has both number and name"),
            ),
            (
                backend,
                json!({"service": {"name": "a", "port": {"number": 65536}}}),
                &format!("{at}.backend.service.port.number 65536 is not a port (1-65535)"),
            ),
            (
                backend,
                json!({"service": {"name": "../b", "port": {"number": 80}}}),
                &format!(
                    "{at}.backend.service.name \"../b\" is not a DNS label (1-63 lower-case \
                     letters, digits, and - inside)"
                ),
            ),
            (
                "spec.rules.0.host",
                json!("10.0.0.1"),
                "spec.rules[0].host \"10.0.0.1\" is an address; hosts are names",
            ),
            (
                "spec.rules.0.host",
                json!("a_b.example"),
                "spec.rules[0].host \"a_b.example\" is not a DNS name (lower-case letters, digits, \
                 - and . inside, up to 253)",
            ),
            (
                "spec.tls.0.secretName",
                json!("../x"),
                "spec.tls[0].secretName \"../x\" is no name of an object (lower-case letters, digits, \
                 - and . inside, up to 253)",
            ),
        ],
    );
    let empty = json!({"metadata": {"name": "a"}, "spec": {}});
    let Decoded::Refused(refusal) = decode(Kind::Ingress, &empty) else { panic!() };
    assert_eq!(&*refusal.reason, "spec has neither rules nor defaultBackend");
}

/// Only its own controller has anything to say of it.
#[test]
fn a_refused_ingress_still_says_whose_it_is() {
    const LEGACY: &str = "kubernetes.io/ingress.class";
    let said = |name: Option<&str>, annotation: Option<&str>| SaidClass {
        name: name.map(Name::from),
        annotation: annotation.map(Name::from),
    };
    for (annotations, spec, expected) in [
        (json!({}), json!({}), said(None, None)),
        (Value::Null, json!({"ingressClassName": "a"}), said(Some("a"), None)),
        (json!({LEGACY: "b"}), json!({"ingressClassName": "a"}), said(Some("a"), Some("b"))),
        // What cannot be read is elsewhere, or one of the two.
        (
            json!({LEGACY: "b"}),
            json!({"ingressClassName": "a", "rules": 7}),
            said(Some("a"), Some("b")),
        ),
        (json!({"x": 7}), json!({"ingressClassName": "a"}), said(Some("a"), None)),
        (json!({LEGACY: 7}), json!({"ingressClassName": "a"}), said(Some("a"), None)),
        (json!({LEGACY: "b"}), json!({"ingressClassName": 7}), said(None, Some("b"))),
    ] {
        let document = json!({"metadata": {"name": "a", "annotations": annotations}, "spec": spec});
        let Decoded::Refused(refusal) = decode(Kind::Ingress, &document) else { panic!() };
        assert_eq!(refusal.class, Some(expected), "{document}");
    }
    let service = json!({"metadata": {"name": "a"}, "spec": {"ports": 7}});
    let Decoded::Refused(refusal) = decode(Kind::Service, &service) else { panic!() };
    assert_eq!(refusal.class, None);
}

#[test]
fn a_class_is_the_default_by_annotation_only() {
    for (value, expected) in [("true", true), ("false", false), ("yes", false)] {
        let document = json!({
            "metadata": {
                "name": "fairlead", "namespace": "ignored",
                "annotations": {"ingressclass.kubernetes.io/is-default-class": value},
            },
            "spec": {"controller": "fairlead.io/ingress"},
        });
        let Object::IngressClass(class) = good(Kind::IngressClass, &document) else { panic!() };
        assert_eq!((class.is_default, class.key.to_string()), (expected, "fairlead".to_owned()));
    }
}

/// As the API server has them: without dots longer than any label of a DNS name.
#[test]
fn an_ingress_and_what_it_names_may_have_long_names() {
    for (length, good) in [(63, true), (64, true), (253, true), (254, false)] {
        let name = "a".repeat(length);
        let document = json!({
            "metadata": {"name": name},
            "spec": {
                "tls": [{"secretName": name}],
                "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
            },
        });
        let is_taken = matches!(decode(Kind::Ingress, &document), Decoded::Object(_));
        assert_eq!(is_taken, good, "{length}");
        let secret = json!({"metadata": {"name": name}, "type": "Opaque"});
        let is_taken = matches!(decode(Kind::Secret, &secret), Decoded::Object(_));
        assert_eq!(is_taken, good, "{length}");
    }
}

#[test]
fn a_class_may_name_parameters() {
    for (parameters, expected) in [
        (Value::Null, false),
        (
            json!({"kind": "ConfigMap", "name": "settings", "namespace": "a", "scope": "Namespace"}),
            true,
        ),
    ] {
        let document = json!({
            "metadata": {"name": "fairlead"},
            "spec": {"controller": "fairlead.io/ingress", "parameters": parameters},
        });
        let Object::IngressClass(class) = good(Kind::IngressClass, &document) else { panic!() };
        assert_eq!(class.has_parameters, expected, "{document}");
    }
}

#[test]
fn a_node_has_addresses_networks_and_taints() {
    let document = json!({
        "metadata": {
            "name": "node-1", "deletionTimestamp": "2026-01-31T12:00:00Z",
            "labels": {"topology.kubernetes.io/zone": "z1"},
        },
        "spec": {
            "podCIDR": "10.244.1.0/24", "podCIDRs": ["10.244.1.0/24", "fd01::/64"],
            "taints": [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}],
        },
        "status": {"addresses": [
            {"type": "ExternalIP", "address": "203.0.113.1"},
            {"type": "InternalIP", "address": "192.168.0.1"},
            {"type": "Hostname", "address": "node-1"},
            {"type": "InternalIP", "address": "node-1.example"},
            {"type": "ExternalIP", "address": "2001:db8::1"},
        ]},
    });
    let Object::Node(node) = good(Kind::Node, &document) else { panic!() };
    let addresses: Vec<String> = node.addresses.iter().map(ToString::to_string).collect();
    let expected = ["192.168.0.1", "203.0.113.1", "2001:db8::1"];
    assert_eq!(addresses, expected, "InternalIPs first, and names left out");
    assert_eq!((node.pod_cidrs.len(), node.deleting, node.zone.as_deref()), (2, true, Some("z1")));
    assert_eq!(&*node.taints[0], "ToBeDeletedByClusterAutoscaler");
}

#[test]
fn a_finished_pod_has_given_its_addresses_back() {
    for (phase, expected) in [("Running", 2), ("Succeeded", 0), ("Failed", 0)] {
        let document = json!({
            "metadata": {"name": "p", "namespace": "d"},
            "spec": {"nodeName": "node-1", "hostNetwork": true},
            "status": {
                "phase": phase, "podIP": "10.244.1.5",
                "podIPs": [{"ip": "10.244.1.5"}, {"ip": "fd01::5"}],
            },
        });
        let Object::Pod(pod) = good(Kind::Pod, &document) else { panic!() };
        assert_eq!((pod.ips.len(), pod.host_network), (expected, true), "{phase}");
        assert_eq!(pod.node_name.as_deref(), Some("node-1"));
    }
}

#[test]
fn secret_data_is_decoded_and_plain_text_wins() {
    let document = json!({
        "metadata": {"name": "cert", "namespace": "shop"}, "type": "kubernetes.io/tls",
        "data": {"tls.crt": "Y2VydA==", "tls.key": "a2V\n5", "empty": null},
        "stringData": {"tls.crt": "plain"},
    });
    let Object::Secret(secret) = good(Kind::Secret, &document) else { panic!() };
    assert_eq!(&*secret.secret_type, "kubernetes.io/tls");
    let entries: Vec<(&str, &[u8])> = secret.data.iter().map(|(k, v)| (&**k, &**v)).collect();
    let expected: [(&str, &[u8]); 3] = [("empty", b""), ("tls.crt", b"plain"), ("tls.key", b"key")];
    assert_eq!(entries, expected);
}

#[test]
fn what_a_secret_holds_is_in_no_message() {
    let document = json!({
        "metadata": {"name": "cert", "namespace": "shop"}, "data": {"tls.key": "hunter2!"},
    });
    let decoded = decode(Kind::Secret, &document);
    let Decoded::Refused(refusal) = &decoded else { panic!() };
    assert_eq!(&*refusal.reason, "data[\"tls.key\"] is not base64; stringData takes plain text");
    assert!(!format!("{decoded:?}").contains("hunter2"));
    let secret = good(Kind::Secret, &set(document, "data", json!({"tls.key": "aHVudGVyMg=="})));
    assert!(!format!("{secret:?}").contains("hunter2"));
    let typed = json!({"metadata": {"name": "cert"}, "data": {"tls.key": ["hunter2"]}});
    assert!(!format!("{:?}", decode(Kind::Secret, &typed)).contains("hunter2"));
    let typed = json!({"metadata": {"name": "cert"}, "data": "hunter2"});
    assert!(!format!("{:?}", decode(Kind::Secret, &typed)).contains("hunter2"));
}

#[test]
fn a_config_map_is_its_text() {
    let document =
        json!({"metadata": {"name": "c"}, "data": {"a": "1"}, "binaryData": {"b": "AA=="}});
    let Object::ConfigMap(map) = good(Kind::ConfigMap, &document) else { panic!() };
    assert_eq!(map.data.len(), 1);
}

#[test]
fn a_service_cidr_has_one_range_or_one_of_each_family() {
    let document = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes", "deletionTimestamp": "2026-01-31T12:00:00Z"},
        "spec": {"cidrs": ["10.96.0.0/16", "fd00:10:96::/112"]},
    });
    let Object::ServiceCidr(cidr) = good(Kind::ServiceCidr, &document) else { panic!() };
    let ranges: Vec<String> = cidr.ranges.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["10.96.0.0/16", "fd00:10:96::/112"], "deleted or not: addresses are out");
    refused(
        Kind::ServiceCidr,
        &document,
        &[
            ("spec.cidrs", json!([]), "spec.cidrs is empty: name one range, or one of each family"),
            (
                "spec.cidrs.1",
                json!("fd00::/129"),
                "spec.cidrs[1] \"fd00::/129\" is not a network such as 10.0.0.0/8",
            ),
        ],
    );
}

#[test]
fn a_key_with_a_line_break_is_refused_in_one_line() {
    let document = json!({"metadata": {"name": "cert"}, "data": {"a\nb": 1}});
    let Decoded::Refused(refusal) = decode(Kind::Secret, &document) else { panic!() };
    assert!(refusal.reason.contains("a\\nb") && !refusal.reason.contains('\n'), "{refusal}");
}
