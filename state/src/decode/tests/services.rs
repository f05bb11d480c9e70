use std::net::IpAddr;

use serde_json::{Value, json};

use super::{decode, good, refused, set};
use crate::{
    decode::Decoded,
    model::{
        IpMode, Kind, LoadBalancing, Object, Protocol, Service, ServiceType, SessionAffinity,
        TargetPort, TrafficDistribution, TrafficPolicy,
    },
};

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "hello", "namespace": "shop", "uid": "9c3b",
            "creationTimestamp": "2026-01-31T12:00:00Z",
            "labels": {"app": "hello"},
        },
        "spec": {
            "type": "NodePort",
            "clusterIP": "10.96.0.7",
            "clusterIPs": ["10.96.0.7", "fd00::7"],
            "ports": [
                {"name": "web", "port": 80, "targetPort": 8080, "nodePort": 30080},
                {
                    "name": "dns", "protocol": "UDP", "port": 53, "targetPort": "dns",
                    "nodePort": 30053,
                },
            ],
            "selector": {"app": "hello"},
        },
        "status": {"loadBalancer": {}},
    })
}

fn taken(document: &Value) -> Service {
    let Object::Service(service) = good(Kind::Service, document) else { panic!() };
    (*service).clone()
}

#[test]
fn every_field_that_is_used_is_read() {
    let mut document = service();
    document["metadata"]["labels"] = json!({
        "service.kubernetes.io/service-proxy-name": "other",
        "service.kubernetes.io/headless": "",
    });
    for (field, value) in [
        ("type", json!("LoadBalancer")),
        ("externalIPs", json!(["192.0.2.1"])),
        ("loadBalancerSourceRanges", json!([" 198.51.100.7/24 "])),
        ("sessionAffinity", json!("ClientIP")),
        ("sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 60}})),
        ("internalTrafficPolicy", json!("Local")),
        ("externalTrafficPolicy", json!("Local")),
        ("healthCheckNodePort", json!(31000)),
        ("publishNotReadyAddresses", json!(true)),
        ("trafficDistribution", json!("PreferClose")),
    ] {
        document["spec"][field] = value;
    }
    document["status"]["loadBalancer"]["ingress"] = json!([
        {"ip": "203.0.113.1"}, {"hostname": "lb.example"}, {"ip": "203.0.113.2", "ipMode": "Proxy"},
    ]);
    let service = taken(&document);
    assert_eq!(service.key.to_string(), "shop/hello");
    assert_eq!(service.created_seconds, 1_769_860_800);
    assert_eq!(service.service_type, ServiceType::LoadBalancer);
    let ips: Vec<IpAddr> = vec!["10.96.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    assert_eq!(*service.cluster_ips, *ips);
    let [web, dns] = &*service.ports else { panic!() };
    assert_eq!(
        (&*web.name, web.protocol, web.port, web.node_port),
        ("web", Protocol::Tcp, 80, Some(30080))
    );
    assert_eq!(web.target_port, Some(TargetPort::Number(8080)));
    assert_eq!(
        (dns.protocol, &dns.target_port),
        (Protocol::Udp, &Some(TargetPort::Name("dns".into())))
    );
    assert_eq!(service.extras.external_ips[0].to_string(), "192.0.2.1");
    let modes: Vec<_> =
        service.extras.load_balancer_ips.iter().map(|ip| (ip.ip.to_string(), ip.mode)).collect();
    assert_eq!(
        modes,
        [("203.0.113.1".to_owned(), IpMode::Vip), ("203.0.113.2".to_owned(), IpMode::Proxy)]
    );
    assert_eq!(service.extras.load_balancer_name.as_deref(), Some("lb.example"));
    assert_eq!(service.extras.load_balancer_source_ranges[0].to_string(), "198.51.100.0/24");
    assert_eq!(service.extras.session_affinity, SessionAffinity::ClientIp { timeout_seconds: 60 });
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.external_traffic_policy, TrafficPolicy::Local);
    assert_eq!(service.extras.health_check_node_port, Some(31000));
    assert!(service.publish_not_ready_addresses && service.headless_label);
    assert_eq!(service.traffic_distribution, Some(TrafficDistribution::PreferSameZone));
    assert_eq!(service.extras.proxy_name.as_deref(), Some("other"));
}

#[test]
fn defaults_are_the_api_servers() {
    let service = taken(&json!({
        "metadata": {"name": "plain"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]},
    }));
    assert_eq!(service.key.to_string(), "default/plain");
    assert_eq!((service.service_type, service.headless), (ServiceType::ClusterIp, false));
    assert_eq!((&*service.ports[0].name, service.ports[0].protocol), ("", Protocol::Tcp));
    assert_eq!(service.extras.session_affinity, SessionAffinity::None);
    assert_eq!(service.internal_traffic_policy, TrafficPolicy::Cluster);
    assert_eq!((service.created_seconds, service.traffic_distribution), (0, None));
    let affinity = set(super::services::service(), "spec.sessionAffinity", json!("ClientIP"));
    assert_eq!(
        taken(&affinity).extras.session_affinity,
        SessionAffinity::ClientIp { timeout_seconds: 10_800 }
    );
}

#[test]
fn a_way_of_balancing_that_is_not_known_refuses_no_service() {
    for (text, expected) in [
        ("maglev", LoadBalancing::Maglev),
        ("random", LoadBalancing::Random),
        ("Maglev", LoadBalancing::Other("Maglev".into())),
        ("", LoadBalancing::Other("".into())),
    ] {
        let mut document = super::services::service();
        document["metadata"]["annotations"] = json!({"fairlead.io/load-balancing": text});
        assert_eq!(taken(&document).extras.load_balancing, expected, "{text:?}");
    }
    assert_eq!(taken(&service()).extras.load_balancing, LoadBalancing::Default);
}

/// A selector by `!service.kubernetes.io/service-proxy-name` asks whether the label is there, not what it says.
#[test]
fn a_proxys_name_that_is_empty_is_one() {
    for (labels, expected) in [
        (json!({}), None),
        (json!({"service.kubernetes.io/service-proxy-name": ""}), Some("")),
        (json!({"service.kubernetes.io/service-proxy-name": "edge"}), Some("edge")),
    ] {
        let document = set(service(), "metadata.labels", labels.clone());
        assert_eq!(taken(&document).extras.proxy_name.as_deref(), expected, "{labels}");
    }
}

#[test]
fn kinds_of_service() {
    let headless = taken(&json!({
        "metadata": {"name": "db"}, "spec": {"clusterIP": "None", "clusterIPs": ["None"]},
    }));
    assert!(headless.headless && headless.cluster_ips.is_empty() && headless.ports.is_empty());
    let alias = taken(&json!({
        "metadata": {"name": "alias"},
        "spec": {
            "type": "ExternalName", "externalName": "DB.Example.COM.", "clusterIP": "10.96.0.3",
        },
    }));
    assert_eq!(alias.extras.external_name.as_deref(), Some("db.example.com"));
    assert!(alias.cluster_ips.is_empty(), "a leftover address means nothing");
    let cluster_ip = set(service(), "spec.type", json!("ClusterIP"));
    assert_eq!(taken(&cluster_ip).ports[0].node_port, None, "the type has no node port");
    let unknown = set(service(), "spec.trafficDistribution", json!("PreferMoon"));
    assert_eq!(taken(&unknown).traffic_distribution, None, "unknown means default");
}

#[test]
fn impossible_fields_are_refused_with_a_reason_to_act_on() {
    refused(
        Kind::Service,
        &service(),
        &[
            (
                "spec.ports.0.nodePort",
                json!(99999),
                "spec.ports[0].nodePort 99999 is not a port (1-65535)",
            ),
            (
                "spec.ports.0.nodePort",
                json!(-1),
                "spec.ports[0].nodePort -1 is not a port (1-65535)",
            ),
            ("spec.ports.0.port", json!(0), "spec.ports[0].port 0 is not a port (1-65535)"),
            (
                "spec.ports.1.targetPort",
                json!(70000),
                "spec.ports[1].targetPort 70000 is not a port (1-65535)",
            ),
            (
                "spec.ports.0.protocol",
                json!("ICMP"),
                "spec.ports[0].protocol \"ICMP\" is not one of TCP, UDP, SCTP",
            ),
            (
                "spec.ports.0.protocol",
                json!("tcp"),
                "spec.ports[0].protocol \"tcp\" is not one of TCP, UDP, SCTP",
            ),
            (
                "spec.ports.1.name",
                Value::Null,
                "spec.ports[1].name is missing: with several ports each has one",
            ),
            ("spec.ports.1.name", json!("web"), "spec.ports[1].name \"web\" is there twice"),
            (
                "spec.ports.1.name",
                json!("a.b"),
                "spec.ports[1].name \"a.b\" is not a DNS label (1-63 lower-case letters, digits, \
                 and - inside)",
            ),
            (
                "spec.ports.1",
                json!({"name": "x", "port": 80, "nodePort": 30081}),
                "spec.ports[1] repeats tcp port 80",
            ),
            (
                "spec.ports.1",
                json!({"name": "x", "port": 81, "nodePort": 30080}),
                "spec.ports[1].nodePort 30080 is there twice for tcp",
            ),
            (
                "spec.ports.0.nodePort",
                Value::Null,
                "spec.ports[0].nodePort is missing: write one, usually of 30000-32767 (only an API \
                 server allocates one)",
            ),
            (
                "spec.ports",
                json!([]),
                "spec.ports is empty: a Service with an address needs a port",
            ),
            (
                "spec.type",
                json!("ClusterIp"),
                "spec.type \"ClusterIp\" is not one of ClusterIP, NodePort, LoadBalancer, \
                 ExternalName",
            ),
            (
                "spec.clusterIPs",
                json!(["10.96.0.7", "10.96.0.8"]),
                "spec.clusterIPs holds two addresses of one family, 10.96.0.7 and 10.96.0.8",
            ),
            (
                "spec.clusterIPs",
                json!(["10.96.0.7", "fd00::7", "fd00::8"]),
                "spec.clusterIPs holds 3 addresses; one of each family is the most",
            ),
            (
                "spec.clusterIP",
                json!("10.96.0.8"),
                "spec.clusterIP \"10.96.0.8\" differs from spec.clusterIPs[0] \"10.96.0.7\"",
            ),
            (
                "spec.clusterIPs",
                json!(["10.96.0.7", "10.96.0.300"]),
                "spec.clusterIPs \"10.96.0.300\" is not an IP address",
            ),
            (
                "spec.sessionAffinity",
                json!("Cookie"),
                "spec.sessionAffinity \"Cookie\" is not one of None, ClientIP",
            ),
            (
                "spec.externalTrafficPolicy",
                json!("local"),
                "spec.externalTrafficPolicy \"local\" is not one of Cluster, Local",
            ),
            (
                "spec.healthCheckNodePort",
                json!(65536),
                "spec.healthCheckNodePort 65536 is not a port (1-65535)",
            ),
            (
                "metadata.name",
                json!("Hello"),
                "metadata.name \"Hello\" is not a DNS label (1-63 lower-case letters, digits, and \
                 - inside)",
            ),
            (
                "metadata.namespace",
                json!("a/b"),
                "metadata.namespace \"a/b\" is not a DNS label (1-63 lower-case letters, digits, \
                 and - inside)",
            ),
            (
                "metadata.creationTimestamp",
                json!("yesterday"),
                "metadata.creationTimestamp \"yesterday\" is not a time such as \
                 2026-01-31T12:00:00Z",
            ),
        ],
    );
    let affinity = set(service(), "spec.sessionAffinity", json!("ClientIP"));
    refused(
        Kind::Service,
        &affinity,
        &[(
            "spec.sessionAffinityConfig",
            json!({"clientIP": {"timeoutSeconds": 86_401}}),
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds 86401 is not in 1-86400",
        )],
    );
}

/// One 127.0.0.1, as `minikube tunnel` writes it, took the ClusterIP and the NodePort away, too.
#[test]
fn an_address_beside_the_cluster_ips_that_is_none_is_left_out_and_the_service_stays() {
    let ingress = "status.loadBalancer.ingress";
    for (field, value, usable, why) in [
        (ingress, json!([{"ip": "127.0.0.1"}]), "", "[0].ip \"127.0.0.1\" is a loopback address"),
        (
            ingress,
            json!([{"ip": "169.254.1.1"}, {"ip": "203.0.113.1"}]),
            "203.0.113.1",
            "[0].ip \"169.254.1.1\" is a link-local address",
        ),
        (
            ingress,
            json!([{"ip": "203.0.113.1"}, {"ip": "x"}]),
            "203.0.113.1",
            "[1].ip \"x\" is not",
        ),
        (
            ingress,
            json!([{"ip": "203.0.113.1", "ipMode": "DSR"}]),
            "",
            "[0].ipMode \"DSR\" is not one of VIP, Proxy",
        ),
        ("spec.externalIPs", json!(["127.0.0.1"]), "", "[0] \"127.0.0.1\" is a loopback address"),
        (
            "spec.externalIPs",
            json!(["192.0.2.1", "169.254.169.254"]),
            "192.0.2.1",
            "[1] \"169.254.169.254\" is a link-local address",
        ),
        ("spec.externalIPs", json!(["0.0.0.0"]), "", "[0] \"0.0.0.0\" is the unspecified address"),
        ("spec.externalIPs", json!(["fe80::1"]), "", "[0] \"fe80::1\" is a link-local address"),
        ("spec.externalIPs", json!(["224.0.0.1"]), "", "[0] \"224.0.0.1\" is a multicast address"),
    ] {
        let taken = taken(&set(service(), field, value.clone()));
        assert_eq!((taken.cluster_ips.len(), taken.ports.len()), (2, 2), "{value}");
        let external = taken.extras.external_ips.iter().copied();
        let of_balancers = taken.extras.load_balancer_ips.iter().map(|ip| ip.ip);
        let ips: Vec<String> = external.chain(of_balancers).map(|ip| ip.to_string()).collect();
        assert_eq!(ips.join(" "), usable, "{value}");
        let [said] = &*taken.extras.unusable_ips else { panic!("{value}") };
        assert!(said.starts_with(&format!("{field}{why}")), "{said}");
    }
    let of_cluster = set(service(), "spec.clusterIPs", json!(["127.0.0.1"]));
    let of_cluster = set(of_cluster, "spec.clusterIP", json!("127.0.0.1"));
    assert!(matches!(decode(Kind::Service, &of_cluster), Decoded::Refused(_)), "nothing is left");
}

/// kube-proxy reads 010.1.0.0/16 as 10.1.0.0/16; here it took the whole Service off the network. What nobody
/// can read opens nothing: a family that has no other range is closed.
#[test]
fn bug_a_source_range_with_a_leading_zero_took_the_service_away() {
    const CLOSED: [&str; 2] = ["0.0.0.0/32", "::/128"];
    let [closed_v4, closed_v6] = CLOSED;
    for (value, ranges, wrong) in [
        (json!(["010.1.0.0/16", "10.2.0.0/016"]), vec!["10.1.0.0/16", "10.2.0.0/16"], None),
        (json!(["000.000.0.00/0"]), vec!["0.0.0.0/0"], None),
        (
            json!(["10.1.0.0/16", "x"]),
            vec!["10.1.0.0/16", closed_v6],
            Some("[1] \"x\" is not a network"),
        ),
        (
            json!(["2001:db8::/32", "10.0.0.0/33"]),
            vec!["2001:db8::/32", closed_v4],
            Some("[1] \"10.0.0.0/33\" is not a network such as 10.0.0.0/8"),
        ),
        (json!(["10.0.0.0"]), CLOSED.to_vec(), Some("[0] \"10.0.0.0\" is not a network")),
        (json!(["10.0.0.0/+8"]), CLOSED.to_vec(), Some("[0] \"10.0.0.0/+8\" is not a network")),
        (json!(["0256.0.0.0/8"]), CLOSED.to_vec(), Some("[0] \"0256.0.0.0\" is not an IP address")),
        (json!(["10..0.0/8"]), CLOSED.to_vec(), Some("[0] \"10..0.0\" is not an IP address")),
        (json!(["0x0a.0.0.0/8"]), CLOSED.to_vec(), Some("[0] \"0x0a.0.0.0\" is not an IP address")),
    ] {
        let taken = taken(&set(service(), "spec.loadBalancerSourceRanges", value.clone()));
        assert_eq!(taken.cluster_ips.len(), 2, "{value}");
        let found = taken.extras.load_balancer_source_ranges.iter();
        assert_eq!(found.map(ToString::to_string).collect::<Vec<_>>(), ranges, "{value}");
        let said = &taken.extras.unusable_ips;
        assert_eq!(said.len(), usize::from(wrong.is_some()), "{value}: {said:?}");
        for (said, why) in said.iter().zip(wrong) {
            let expected = format!("spec.loadBalancerSourceRanges{why}");
            assert!(said.starts_with(&expected) && said.ends_with("; it lets nobody in"), "{said}");
        }
    }
}

#[test]
fn what_only_an_api_server_fills_in_is_named_with_its_cure() {
    let bare = json!({"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}});
    let alias = json!({"metadata": {"name": "a"}, "spec": {"type": "ExternalName"}});
    let headless_node_port = json!({
        "metadata": {"name": "a"},
        "spec": {"type": "NodePort", "clusterIP": "None", "ports": [{"port": 80}]},
    });
    for (document, expected) in [
        (
            bare,
            "spec.clusterIP is missing: write an address of the Service range, or None for a \
             headless Service (only an API server allocates one)",
        ),
        (alias, "spec.externalName is missing: type ExternalName is an alias for it"),
        (headless_node_port, "spec.clusterIP None (headless) goes with type ClusterIP only"),
    ] {
        let Decoded::Refused(refusal) = decode(Kind::Service, &document) else { panic!() };
        assert_eq!(&*refusal.reason, expected);
    }
}

/// 010.0.0.1 is 8.0.0.1 to inet_aton and 10.0.0.1 to all of Kubernetes: what is filtered must be what is used. Such an address
/// took the whole Service away.
#[test]
fn cve_2021_29923_leading_zeros_are_decimal() {
    for text in ["010.96.0.7", "10.096.0.7", "10.96.0.07", "0000010.96.000.7"] {
        let document = json!({
            "metadata": {"name": "a"}, "spec": {"clusterIP": text, "ports": [{"port": 80}]},
        });
        let Object::Service(service) = good(Kind::Service, &document) else { panic!("{text}") };
        assert_eq!(service.cluster_ips[..], ["10.96.0.7".parse::<IpAddr>().unwrap()], "{text}");
    }
    for text in ["10.96.0.7 ", "10.96.7", "0x0a.96.0.7", "10.96.0.0256", "10.96.0.+7", "10..0.7"] {
        let document = json!({
            "metadata": {"name": "a"}, "spec": {"clusterIP": text, "ports": [{"port": 80}]},
        });
        let Decoded::Refused(refusal) = decode(Kind::Service, &document) else { panic!("{text}") };
        assert_eq!(*refusal.reason, format!("spec.clusterIP {text:?} is not an IP address"));
    }
}

#[test]
fn an_ipv4_address_has_one_spelling() {
    let document = json!({
        "metadata": {"name": "a"},
        "spec": {"clusterIP": "::ffff:10.96.0.7", "ports": [{"port": 80}]},
    });
    let Decoded::Refused(refusal) = decode(Kind::Service, &document) else { panic!() };
    assert_eq!(
        &*refusal.reason,
        "spec.clusterIP \"::ffff:10.96.0.7\" is an IPv4-mapped IPv6 address; write 10.96.0.7"
    );
}
