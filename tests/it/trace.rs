//! "Why does it not work?", answered in one command: what stands between a client and an answer is
//! named, and so is the cure. From manifests alone, as in front of a pull request; live: `operate`.

use std::process::Command;

use serde_json::Value;

use super::support::world::FAIRLEAD;

/// A shop that works. Cases change one thing in it.
const SHOP: &str = "
apiVersion: v1
kind: Node
metadata: {name: node1, labels: {topology.kubernetes.io/zone: a}}
spec: {podCIDRs: [10.244.1.0/24]}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.9
  internalTrafficPolicy: Cluster
  externalTrafficPolicy: Cluster
  loadBalancerSourceRanges: [198.51.100.0/24]
  ports: [{name: http, port: 80, targetPort: web, nodePort: 30080}]
status: {loadBalancer: {ingress: [{ip: 203.0.113.9}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
- addresses: [10.244.1.5]
  conditions: {ready: true}
  nodeName: node1
  zone: a
  targetRef: {kind: Pod, name: web-a}
- addresses: [10.244.2.5]
  conditions: {ready: true}
  nodeName: node2
  zone: b
  targetRef: {kind: Pod, name: web-b}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: fairlead}
spec: {controller: fairlead.io/ingress}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: nginx}
spec: {controller: k8s.io/ingress-nginx}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web, namespace: shop}
spec:
  ingressClassName: fairlead
  rules:
  - host: shop.example
    http: {paths: [{path: /cart, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}
";

/// One thing is wrong; a person asks; this is what they are told.
struct Case {
    name: &'static str,
    /// Replaced in the shop, from and to.
    change: (&'static str, &'static str),
    ask: &'static [&'static str],
    verdict: &'static str,
    /// What the client sees.
    text: &'static str,
    /// Why, and what to do.
    cure: &'static str,
}

const TLS: (&str, &str) = (
    "  ingressClassName: fairlead",
    "  ingressClassName: fairlead\n  tls: [{hosts: [shop.example], secretName: shop-tls}]",
);
const UNCHANGED: (&str, &str) = ("metadata", "metadata");

const CASES: [Case; 23] = [
    Case {
        name: "no pod matches the selector",
        change: ("kubernetes.io/service-name: web", "kubernetes.io/service-name: other"),
        ask: &["tcp", "web.shop:80"],
        verdict: "reject",
        text: "refused at once: the Service has no endpoints for this port",
        cure: "no pod matches Service shop/web: compare its selector with the pods' labels \
               (kubectl -n shop get pods --show-labels; kubectl -n shop describe service web)",
    },
    Case {
        name: "pods are there and none is ready",
        change: ("ready: true", "ready: false"),
        ask: &["tcp", "web.shop:80"],
        verdict: "reject",
        text: "refused at once: the Service has no endpoints for this port",
        cure: "2 endpoints, none ready (web-a, web-b): see why readiness probes fail \
               (kubectl -n shop describe pod ...)",
    },
    Case {
        name: "targetPort names a port the pods do not have",
        change: ("ports: [{name: http, port: 8080, protocol: TCP}]", "ports: []"),
        ask: &["tcp", "web.shop:80"],
        verdict: "reject",
        text: "refused at once: the Service has no endpoints for this port",
        cure: "2 endpoints, none with port http (80/tcp); offered is no port at all: its targetPort \
               \"web\" is the name of no container port of those pods: correct targetPort, or name \
               the pods' port so",
    },
    Case {
        name: "the wrong port is dialled",
        change: UNCHANGED,
        ask: &["tcp", "web.shop:8080"],
        verdict: "reject",
        text: "refused at once: the Service has no such port",
        cure: "Service shop/web has no port 8080/tcp; it has http (80/tcp)",
    },
    Case {
        name: "a misspelt name",
        change: UNCHANGED,
        ask: &["tcp", "wbe.shop.svc.cluster.local:80"],
        verdict: "no name",
        text: "wbe.shop.svc.cluster.local has no address: the client says \"unknown host\" or the \
               like",
        cure: "Service shop/wbe does not exist; did you mean web.shop.svc.cluster.local?",
    },
    Case {
        name: "a short name from the wrong namespace",
        change: UNCHANGED,
        ask: &["-n", "default", "tcp", "web:80"],
        verdict: "no name",
        text: "web has no address: the client says \"unknown host\" or the like",
        cure: "Service default/web does not exist, nor does anything in namespace default; did you \
               mean web.shop.svc.cluster.local?",
    },
    Case {
        name: "a client outside of the source ranges",
        change: UNCHANGED,
        ask: &["--from", "192.0.2.77", "tcp", "203.0.113.9:80"],
        verdict: "drop",
        text: "dropped in silence: the client waits: the client is in none of the Service's source \
               ranges",
        cure: "192.0.2.77 is in none of loadBalancerSourceRanges of Service shop/web \
               (198.51.100.0/24): add it there, or use the ClusterIP from inside",
    },
    Case {
        name: "a client outside of the source ranges of its family, with all of the other let in",
        change: ("[198.51.100.0/24]", "[198.51.100.0/24, \"::/0\"]"),
        ask: &["--from", "192.0.2.77", "tcp", "203.0.113.9:80"],
        verdict: "drop",
        text: "dropped in silence: the client waits: the client is in none of the Service's source \
               ranges",
        cure: "192.0.2.77 is in none of loadBalancerSourceRanges of Service shop/web \
               (198.51.100.0/24, ::/0): add it there, or use the ClusterIP from inside",
    },
    Case {
        name: "a process of the node outside of the source ranges",
        change: UNCHANGED,
        ask: &["tcp", "203.0.113.9:80"],
        verdict: "drop",
        text: "no route to host (EHOSTUNREACH): the client is in none of the Service's source ranges",
        cure: "the node's address is in none of loadBalancerSourceRanges of Service shop/web \
               (198.51.100.0/24): add it there, or use the ClusterIP from inside",
    },
    Case {
        name: "a pod outside of the source ranges, whose call is decided on as packets",
        change: UNCHANGED,
        ask: &["--from", "shop/web-a", "tcp", "203.0.113.9:80"],
        verdict: "drop",
        text: "dropped in silence: the client waits: the client is in none of the Service's source \
               ranges",
        cure: "10.244.1.5 is in none of loadBalancerSourceRanges of Service shop/web \
               (198.51.100.0/24): add it there, or use the ClusterIP from inside",
    },
    Case {
        name: "external policy Local and no endpoint on this node",
        change: ("externalTrafficPolicy: Cluster", "externalTrafficPolicy: Local"),
        ask: &["--node-name", "node3", "--from", "198.51.100.7", "tcp", "203.0.113.9:80"],
        verdict: "drop",
        text: "dropped in silence: the client waits: the Service has endpoints, but none on this \
               node",
        cure: "Service shop/web has externalTrafficPolicy: Local and its endpoints are on other \
               nodes: ask a node that has one, run a pod here, or set externalTrafficPolicy: Cluster",
    },
    Case {
        name: "an address that no Service has any more",
        change: UNCHANGED,
        ask: &["--service-cidr", "10.96.0.0/16", "tcp", "10.96.7.7:80"],
        verdict: "reject",
        text: "refused at once: no Service has this address",
        cure: "the Service has been deleted or has another address: look its name up again",
    },
    Case {
        name: "an Ingress of another class",
        change: ("ingressClassName: fairlead", "ingressClassName: nginx"),
        ask: &["http://shop.example/cart"],
        verdict: "404",
        text: "404: nothing is served under this host",
        cure: "Ingress shop/web has this host and is not served: its IngressClass nginx belongs to \
               controller k8s.io/ingress-nginx, and fairlead.io/ingress is served here: name one of \
               this controller's classes in spec.ingressClassName",
    },
    Case {
        name: "a path no rule has",
        change: UNCHANGED,
        ask: &["http://shop.example/checkout"],
        verdict: "404",
        text: "404: the host is served, the path /checkout is not",
        cure: "the host's paths are /cart: add /checkout, or a path / of type Prefix",
    },
    Case {
        name: "an Ingress names a port the Service does not have",
        change: ("port: {name: http}", "port: {number: 8080}"),
        ask: &["http://shop.example/cart"],
        verdict: "503",
        text: "503: Service shop/web has no TCP port 8080, but http (80/tcp)",
        cure: "correct the backend's port in Ingress shop/web, or add it to the Service",
    },
    Case {
        name: "an Ingress names a Service that does not exist",
        change: ("service: {name: web,", "service: {name: webb,"),
        ask: &["http://shop.example/cart"],
        verdict: "503",
        text: "503: Service shop/webb does not exist",
        cure: "create Service shop/webb, or correct the backend's service name in Ingress shop/web",
    },
    Case {
        name: "a Service that is there and cannot be served",
        change: ("port: 80, targetPort", "port: 70000, targetPort"),
        ask: &["tcp", "web.shop:80"],
        verdict: "no name",
        text: "web.shop has no address: the client says \"unknown host\" or the like",
        cure: "Service shop/web is there and not served: spec.ports[0].port 70000 is not a port \
               (1-65535): put it right",
    },
    Case {
        name: "pods that all end",
        change: ("{ready: true}", "{ready: false, serving: false, terminating: true}"),
        ask: &["tcp", "web.shop:80"],
        verdict: "reject",
        text: "refused at once: the Service has no endpoints for this port",
        cure: "2 endpoints, all terminating: wait for successors, or see why there are none (kubectl \
               -n shop get pods)",
    },
    Case {
        name: "UDP to a port that is TCP's",
        change: UNCHANGED,
        ask: &["udp", "web.shop:80"],
        verdict: "reject",
        text: "refused at once: the Service has no such port",
        cure: "Service shop/web has no port 80/udp; it has http (80/tcp)",
    },
    Case {
        name: "an Ingress without a class",
        change: ("  ingressClassName: fairlead\n", ""),
        ask: &["http://shop.example/cart"],
        verdict: "404",
        text: "404: nothing is served under this host",
        cure: "Ingress shop/web has this host and is not served: it names no class and no \
               IngressClass of fairlead.io/ingress is the default: set spec.ingressClassName, or \
               start with --watch-ingress-without-class",
    },
    Case {
        name: "a misspelt class",
        change: ("ingressClassName: fairlead", "ingressClassName: fairled"),
        ask: &["http://shop.example/cart"],
        verdict: "404",
        text: "404: nothing is served under this host",
        cure: "Ingress shop/web has this host and is not served: its IngressClass fairled does not \
               exist: create it with spec.controller fairlead.io/ingress, or name another in \
               spec.ingressClassName",
    },
    Case {
        name: "an annotation that guards and cannot be read",
        change: (
            "kind: Ingress\nmetadata: {name: web, namespace: shop}",
            "kind: Ingress\nmetadata: {name: web, namespace: shop, annotations: \
             {nginx.ingress.kubernetes.io/whitelist-source-range: 10.0.0.0/99}}",
        ),
        ask: &["http://shop.example/cart"],
        verdict: "503",
        text: "503: nobody is let in, as what guards the path cannot be read",
        cure: "annotation nginx.ingress.kubernetes.io/whitelist-source-range \"10.0.0.0/99\" is no \
               list of addresses and networks (10.0.0.0/8, 2001:db8::1); its paths answer 503 until \
               it is put right",
    },
    Case {
        name: "a certificate's Secret is missing",
        change: TLS,
        ask: &["https://shop.example/cart"],
        verdict: "bad certificate",
        text: "clients that verify it refuse the self-signed certificate",
        cure: "Secret shop/shop-tls does not exist; the default certificate is served: put the Secret \
               right (kubectl create secret tls), or its name in spec.tls of the Ingress",
    },
];

fn run(manifests: &str, args: &[&str]) -> std::process::Output {
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("shop.yaml");
    std::fs::write(&file, manifests).expect("writable");
    let mut command = Command::new(FAIRLEAD);
    command.arg("trace").arg("-f").arg(&file).args(args).env_remove("FAIRLEAD_OUTPUT");
    command.output().expect("it starts")
}

fn json(output: &std::process::Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {error}"))
}

#[test]
fn what_is_wrong_is_named_with_its_cure_in_one_command() {
    for Case { name, change: (from, to), ask, verdict, text, cure } in CASES {
        let manifests = SHOP.replace(from, to);
        assert!(from == to || manifests != SHOP, "{name}: nothing was changed");
        let output = run(&manifests, &[ask, &["-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(1), "{name}");
        let outcome = &json(&output)["outcome"];
        let told = |part: &str| outcome[part].as_str().unwrap_or_default().to_owned();
        assert_eq!(told("verdict"), verdict, "{name}: {outcome:#}");
        assert_eq!(told("text"), text, "{name}");
        assert_eq!(told("cure"), cure, "{name}");
        // People are told the same.
        let shown = run(&manifests, ask);
        let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
        assert!(shown.contains(text) && shown.contains(cure), "{name}:\n{shown}");
    }
}

#[test]
fn an_alias_of_others_leads_on_and_says_where() {
    let alias = "---\napiVersion: v1\nkind: Service\nmetadata: {name: old, namespace: shop}\n\
                 spec: {type: ExternalName, externalName: db.example}\n";
    let output = run(&format!("{SHOP}{alias}"), &["tcp", "old.shop:5432", "-o", "json"]);
    assert_eq!(output.status.code(), Some(0));
    let outcome = &json(&output)["outcome"];
    assert_eq!(outcome["verdict"], "passed on", "{outcome:#}");
    let text = "old.shop is an alias of db.example: where that leads is not known here";
    assert_eq!(outcome["text"], text);
    assert_eq!(outcome["cure"], "Service shop/old is of type ExternalName: an alias of db.example");
}

#[test]
fn ingress_nginxs_config_map_counts_where_a_flag_names_it() {
    let options = "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: nginx, namespace: shop}\n\
                   data: {force-ssl-redirect: \"true\"}\n";
    let manifests = format!("{SHOP}{options}");
    let named = ["--ingress-config", "shop/nginx", "http://shop.example/cart", "-o", "json"];
    for (ask, verdict) in [(&named[..], "308"), (&named[2..], "served")] {
        let outcome = &json(&run(&manifests, ask))["outcome"];
        assert_eq!(outcome["verdict"], verdict, "{ask:?}: {outcome:#}");
    }
}

#[test]
fn what_works_shows_the_way_with_chances() {
    for (ask, endpoints) in [
        (&["tcp", "web.shop:80"][..], 2),
        (&["-n", "shop", "tcp", "web:80"], 2),
        (&["tcp", "10.96.0.9:80"], 2),
        (&["tcp", "192.0.2.1:30080"], 2),
        (&["tcp", "127.0.0.1:30080"], 2),
        (&["--from", "198.51.100.7", "tcp", "203.0.113.9:80"], 2),
        (&["--from", "shop/web-a", "tcp", "web:80"], 2),
        (&["http://shop.example/cart/1"], 2),
    ] {
        let output = run(SHOP, &[ask, &["-o", "json"]].concat());
        let trace = json(&output);
        assert_eq!(output.status.code(), Some(0), "{ask:?}: {trace:#}");
        assert_eq!(trace["outcome"]["verdict"], "served", "{ask:?}");
        let candidates = trace["candidates"].as_array().expect("a list");
        assert_eq!(candidates.len(), endpoints, "{ask:?}");
        let sum: f64 = candidates.iter().filter_map(|c| c["probability"].as_f64()).sum();
        assert!((sum - 1.0).abs() < 1e-9, "{ask:?}: {sum}");
        let pods = candidates.iter().filter(|c| c["pod"].is_string()).count();
        assert_eq!(pods, endpoints, "{ask:?}: {trace:#}");
    }
}

#[test]
fn a_question_that_makes_no_sense_is_one_line() {
    for (ask, status) in [
        (&["tcp", "web"][..], 2),
        (&["icmp", "a:1"], 2),
        (&["ftp://a"], 2),
        // It may be a pod of tomorrow.
        (&["--from", "ghost", "tcp", "a:1"], 1),
    ] {
        let output = run(SHOP, ask);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{ask:?}");
        assert!(error.starts_with("fairlead: ") && error.lines().count() == 1, "{ask:?}: {error}");
    }
}
