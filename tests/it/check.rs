//! `check`, `doctor`, `completions`, `man`: they need no agent.

mod cluster;

use std::{path::Path, process::Command};

use serde_json::Value;

use super::support::{
    manifests::{kube_proxy_config, kube_proxy_config_map},
    world::FAIRLEAD,
};

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: good, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: outer, namespace: shop}
spec: {clusterIP: 10.96.0.10, externalIPs: [192.0.2.9], ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: allowed, namespace: shop}
spec: {type: ExternalName, externalName: api.example, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: elsewhere, namespace: shop}
spec: {type: ExternalName, externalName: other.example, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: broken, namespace: shop}
spec: {clusterIP: 10.96.0.11, ports: [{port: 70000}]}
---
apiVersion: v1
kind: Namespace
metadata: {name: istio-system}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
status: {addresses: [{type: InternalIP, address: 10.100.0.2}]}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: wide}
spec: {cidrs: [10.96.0.0/12, 'fd00:96::/112']}
---
apiVersion: networking.k8s.io/v1
kind: IngressClass
metadata: {name: fairlead}
spec: {controller: fairlead.io/ingress}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: differs
  namespace: shop
  annotations: {nginx.ingress.kubernetes.io/proxy-http-version: '1.0'}
spec:
  ingressClassName: fairlead
  rules: [{host: a.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: good, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: allowed, namespace: shop}
spec:
  ingressClassName: fairlead
  rules: [{host: c.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: allowed, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: elsewhere, namespace: shop}
spec:
  ingressClassName: fairlead
  rules: [{host: d.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: elsewhere, port: {number: 80}}}}]}}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: foreign, namespace: shop}
spec:
  ingressClassName: other
  rules: [{host: b.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: good, port: {number: 80}}}}]}}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
        kubernetes cluster.local
        forward . 192.0.2.53
    }
";

/// ingress-nginx's ConfigMap.
const OPTIONS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: options, namespace: shop}
data: {use-forwarded-headers: 'true', use-proxy-protocol: 'true'}
";

const INJECTOR: &str = "
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: linkerd-proxy-injector-webhook-config}
";

/// Those, and kube-proxy's configuration.
fn objects() -> String {
    let kube_proxy = kube_proxy_config_map("mode: iptables\nmetricsBindAddress: 0.0.0.0:10249\n");
    format!("{OBJECTS}---\n{kube_proxy}")
}

fn run(args: &[&str]) -> std::process::Output {
    Command::new(FAIRLEAD).args(args).output().expect("it starts")
}

fn json(output: &std::process::Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("no JSON: {error}"))
}

fn write(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("writable");
    path.display().to_string()
}

/// In a ConfigMap it was nothing that could be checked; by itself, under kube-proxy's own name, a Corefile.
#[test]
fn bug_a_configuration_of_kube_proxy_with_a_key_twice_was_not_judged() {
    let folder = tempfile::tempdir().expect("a directory");
    let fields = "mode: ipvs\nmode: iptables\niptables: {masqueradeAll: yes}\n";
    let in_map = write(folder.path(), "map.yaml", &kube_proxy_config_map(fields));
    let alone = write(folder.path(), "config.conf", &kube_proxy_config(fields));
    for file in [in_map, alone] {
        let output = run(&["check", "-f", &file, "-o", "json"]);
        assert_eq!(output.status.code(), Some(0), "{file}");
        let report = json(&output);
        let rows = report["checked"].as_array().expect("a list").iter();
        let rows: Vec<_> =
            rows.map(|row| (row["object"].as_str(), row["verdict"].as_str())).collect();
        let expected = [
            ("KubeProxyConfiguration", "differs"),
            ("KubeProxyConfiguration iptables.masqueradeAll", "works"),
            ("KubeProxyConfiguration mode", "works"),
        ];
        assert_eq!(rows, expected.map(|(object, verdict)| (Some(object), Some(verdict))), "{file}");
    }
}

#[test]
fn every_object_gets_one_verdict_with_its_reason() {
    let folder = tempfile::tempdir().expect("a directory");
    write(folder.path(), "all.yaml", &objects());
    write(folder.path(), "Corefile", ".:53 {\n    dnssec\n}\n");
    write(folder.path(), "options.yaml", OPTIONS);
    write(folder.path(), "mesh.yaml", INJECTOR);
    let at = folder.path().display().to_string();
    let flags = ["--external-names", "api.example", "--ingress-config", "shop/options"];
    let output = run(&[&["check", "-f", &at, "-o", "json"], &flags[..]].concat());
    assert_eq!(output.status.code(), Some(1), "something is refused");
    let report = json(&output);
    let checked = report["checked"].as_array().expect("a list");
    for (object, verdict, reason) in [
        ("Service shop/good", "works", ""),
        ("Service shop/outer", "refused", "--external-ips"),
        ("Service shop/broken", "refused", "70000"),
        ("Namespace istio-system", "differs", "--socket-programs node"),
        ("MutatingWebhookConfiguration linkerd-proxy-injector-webhook-config", "differs", "mesh"),
        ("ServiceCIDR wide", "differs", "10.96.0.0/12 holds 10.100.0.2, a node's address (n1)"),
        ("Ingress shop/differs", "differs", "is not spoken to endpoints"),
        // The agent looks it up; nothing is known against it here.
        ("Ingress shop/allowed", "works", "[]"),
        ("Ingress shop/elsewhere", "differs", "other.example is none of --external-names"),
        ("Ingress shop/foreign", "refused", "its IngressClass other does not exist"),
        ("ConfigMap shop/options", "differs", "use-forwarded-headers believes everybody"),
        ("ConfigMap shop/options", "differs", "use-proxy-protocol believes everybody"),
        ("Corefile of ConfigMap coredns", "works", ""),
        ("Corefile ", "refused", "line 2: CoreDNS's plugin dnssec is not served here"),
        ("KubeProxyConfiguration mode", "works", "eBPF"),
        ("KubeProxyConfiguration metricsBindAddress", "works", "--metrics-listen"),
    ] {
        let named = |row: &&Value| {
            let name = row["object"].as_str().unwrap_or_default();
            if object.ends_with(' ') {
                name.starts_with(object) && name.contains('/')
            } else {
                name == object
            }
        };
        let found: Vec<&Value> = checked.iter().filter(named).collect();
        assert_eq!(found.len(), 1, "{object}: {report:#}");
        let row = found[0];
        assert_eq!(row["verdict"], verdict, "{object}: {row}");
        assert!(row["reasons"].to_string().contains(reason), "{object}: {row}");
    }
    let good = write(
        folder.path(),
        "good.corefile",
        ".:53 {\n    kubernetes cluster.local\n    forward . 192.0.2.1\n}\n",
    );
    assert_eq!(run(&["check", "-f", &good]).status.code(), Some(0));
    let large =
        ".:53 {\n    kubernetes cluster.local\n    bufsize 4096\n    forward . 192.0.2.1\n}\n";
    let large = write(folder.path(), "large.corefile", large);
    let report = json(&run(&["check", "-f", &large, "-o", "json"]));
    let [row] = &report["checked"].as_array().expect("a list")[..] else { panic!("{report:#}") };
    assert_eq!(row["verdict"], "differs", "{row}");
    assert!(row["reasons"].to_string().contains("1232 bytes at most"), "{row}");
}

/// What `check` says of this object among these manifests, verdict and reasons, and its status.
fn said_of(object: &str, manifests: &str) -> (Option<(String, String)>, Option<i32>) {
    let folder = tempfile::tempdir().expect("a directory");
    let file = write(folder.path(), "all.yaml", manifests);
    let output = run(&["check", "-f", &file, "-o", "json"]);
    let report = json(&output);
    let rows = report["checked"].as_array().expect("a list");
    let row = rows.iter().find(|row| row["object"] == object);
    let said = row.map(|row| {
        let reasons = row["reasons"].as_array().expect("a list").iter();
        let reasons: Vec<&str> = reasons.filter_map(Value::as_str).collect();
        (row["verdict"].as_str().unwrap_or_default().to_owned(), reasons.join("\n"))
    });
    (said, output.status.code())
}

/// Nodes outside of a range that holds others know nothing of these, unless they are the API server's.
#[test]
fn a_service_range_is_said_with_the_nodes_where_its_addresses_are_dropped() {
    const RANGE: &str = "
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: wide}
spec: {cidrs: [10.96.0.0/12]}
";
    let node = |(number, address): (usize, &&str)| {
        format!(
            "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{number}}}\n\
             status: {{addresses: [{{type: InternalIP, address: {address}}}]}}\n"
        )
    };
    let api_server = |address: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n\
             metadata: {{name: kubernetes, labels: {{kubernetes.io/service-name: kubernetes}}}}\n\
             addressType: IPv4\n\
             endpoints: [{{addresses: [{address}], conditions: {{ready: false}}}}]\n"
        )
    };
    let (inside, outside) = ("10.100.0.2", "192.168.0.3");
    for (nodes, api_at, holder, consequence) in [
        (vec![outside], outside, "", ""),
        (
            vec![inside],
            outside,
            "10.100.0.2, a node's address (n1)",
            "there its addresses that no Service has are routed like any other, not dropped;",
        ),
        (
            vec![inside, outside],
            outside,
            "10.100.0.2, a node's address (n1)",
            "there its addresses that no Service has are routed like any other, not dropped, and on nodes outside of \
             it (n2) they are dropped, unless one of them is the API server's;",
        ),
        (
            vec![inside, outside],
            inside,
            "10.100.0.2, a node's address (n1)",
            "on all nodes its addresses that no Service has are routed like any other, not dropped;",
        ),
        (
            vec![outside],
            inside,
            "the API server's address 10.100.0.2",
            "on all nodes its addresses that no Service has are routed like any other, not dropped;",
        ),
    ] {
        let all: String = (1..).zip(&nodes).map(node).collect();
        let (said, status) =
            said_of("ServiceCIDR wide", &format!("{RANGE}{all}{}", api_server(api_at)));
        let expected = (!holder.is_empty()).then(|| {
            let cure = "give Services a range of their own";
            let reason = format!("10.96.0.0/12 holds {holder}: {consequence} {cure}");
            ("differs".to_owned(), reason)
        });
        assert_eq!((said, status), (expected, Some(0)), "{nodes:?}, API server at {api_at}");
    }
}

/// It was one line of a log, which `check` has not: status 0, and not a word.
#[test]
fn bug_an_endpoint_that_cannot_be_read_was_no_finding() {
    const MANIFESTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.96.0.9, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.244.1.5]}, {addresses: ADDRESSES}, {addresses: ADDRESSES}]
";
    for (addresses, why) in [
        ("[10.244.1.006]", ""),
        ("['fd00::5']", "endpoints[1].addresses[0] fd00::5 is not of the slice's addressType IPv4"),
        ("[nope]", "endpoints[1].addresses[0] \"nope\" is not an IP address"),
        ("[]", "endpoints[1].addresses is empty"),
    ] {
        let manifests = MANIFESTS.replace("ADDRESSES", addresses);
        let of_slice = said_of("EndpointSlice shop/web-1", &manifests);
        let of_service = said_of("Service shop/web", &manifests);
        let refused = |reason: String| (Some(("refused".to_owned(), reason)), Some(1));
        let expected = if why.is_empty() {
            [(None, Some(0)), (Some(("works".to_owned(), String::new())), Some(0))]
        } else {
            let why = format!("{why} (and 1 more)");
            [
                refused(format!("{why}: left out, the rest is served")),
                refused(format!("EndpointSlice web-1: {why}: the Service is served without it")),
            ]
        };
        assert_eq!([of_slice, of_service], expected, "{addresses}");
    }
}

#[test]
fn what_cannot_be_read_is_one_line() {
    for command in ["check", "plan", "services", "routes", "names"] {
        let output = run(&[command, "-f", "/nonexistent/file.yaml"]);
        assert_eq!(output.status.code(), Some(1), "{command}");
        let error = String::from_utf8_lossy(&output.stderr);
        let expected = "fairlead: reading /nonexistent/file.yaml: No such file or directory";
        assert!(error.starts_with(expected) && error.lines().count() == 1, "{command}: {error}");
    }
}

/// A Service beside a Deployment, as people keep them.
const APP: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec: {clusterIP: 10.96.0.12, ports: [{port: 80}]}
";
const ROUTE: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: app}
";

#[test]
fn the_status_tells_wrong_words_from_what_is_not_there() {
    let folder = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| write(folder.path(), name, text);
    let [all, app, route, broken] = [
        file("all.yaml", OBJECTS),
        file("app.yaml", APP),
        file("route.yaml", ROUTE),
        file("broken.yaml", "kind: ["),
    ];
    let deployment = "app.yaml: Deployment (apps/v1) is no kind Fairlead reads; ignored";
    for (words, file, status, said) in [
        ("trace web.shop", &all, 2, "give tcp, udp or sctp and HOST:PORT"),
        ("trace tcp good.shop:http", &all, 2, "\"good.shop:http\" is no HOST:PORT"),
        ("trace ftp://good.shop", &all, 2, "only http:// and https:// URLs are traced"),
        ("trace tcp good.shop:80", &all, 1, ""),
        ("routes a.example", &all, 0, ""),
        ("routes e.example", &all, 1, "`fairlead trace http://e.example/` says why"),
        ("services shop/none", &all, 1, "Service shop/none does not exist"),
        ("names good.shop --type a", &all, 0, ""),
        ("names good.shop --type FOO", &all, 1, "\"FOO\" is no type of records"),
        ("services", &app, 0, deployment),
        ("check", &app, 0, ""),
        ("plan", &app, 0, deployment),
        ("check", &route, 1, ""),
        ("services", &broken, 1, "broken.yaml:1: "),
        ("routes", &broken, 1, "broken.yaml:1: "),
        ("names", &broken, 1, "broken.yaml:1: "),
        ("plan", &broken, 1, "broken.yaml:1: "),
        ("check", &broken, 1, ""),
    ] {
        let mut args: Vec<&str> = words.split(' ').collect();
        args.extend(["-f", file.as_str()]);
        let output = run(&args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words}: {error}");
        assert!(error.contains(said), "{words}: {error}");
    }
}

#[test]
fn the_doctor_gives_each_trouble_a_meaning_and_a_cure() {
    let flags = ["--bpffs", "/nonexistent/bpf", "--service-cidr", "198.51.100.0/24"];
    let report = json(&run(&[&["doctor", "-o", "json"], &flags[..]].concat()));
    let findings = report["findings"].as_array().expect("a list");
    let named = |name: &str| findings.iter().find(|finding| finding["check"] == name);
    for check in [
        "kernel version",
        "kernel options",
        "BTF",
        "cgroup2",
        "BPF file system",
        "rights to eBPF",
        "open files",
        "clock",
        "kube-proxy's rules",
        "firewall FORWARD",
        "network plugin",
        "network devices",
        "Service range 198.51.100.0/24",
        "service mesh",
        "other eBPF programs",
        "other data planes",
        "port 53/udp",
    ] {
        assert!(named(check).is_some(), "{check}: {report:#}");
    }
    let missing = named("BPF file system").expect("it is there");
    assert_eq!(missing["health"], "warning");
    for finding in findings.iter().filter(|f| f["health"] == "bad" || f["health"] == "warning") {
        assert!(finding["meaning"].is_string() && finding["cure"].is_string(), "{finding:#}");
    }
}

#[test]
fn the_version_is_told_in_each_form() {
    let text = run(&["version"]);
    let report = json(&run(&["version", "-o", "json"]));
    let [version, commit] = ["version", "commit"].map(|field| report[field].as_str());
    let (version, commit) = (version.expect("text"), commit.expect("text"));
    let line = format!("fairlead {version} ({commit})\n");
    assert_eq!(String::from_utf8_lossy(&text.stdout), line);
    let yaml = run(&["version", "-o", "yaml"]);
    let yaml: Value = serde_saphyr::from_str(&String::from_utf8_lossy(&yaml.stdout)).expect("YAML");
    assert_eq!(yaml, report);
}

/// Those people are told of.
const COMMANDS: [&str; 16] = [
    "agent",
    "demo",
    "status",
    "traffic",
    "services",
    "routes",
    "names",
    "trace",
    "plan",
    "dump",
    "check",
    "doctor",
    "completions",
    "man",
    "cleanup",
    "version",
];

#[test]
fn completions_and_manual_pages_know_every_command() {
    let folder = tempfile::tempdir().expect("a directory");
    let at = folder.path().display().to_string();
    assert_eq!(run(&["man", &at]).status.code(), Some(0));
    for command in COMMANDS {
        assert!(folder.path().join(format!("fairlead-{command}.1")).exists(), "{command}");
        for shell in ["bash", "zsh", "fish"] {
            let script = run(&["completions", shell]);
            assert!(String::from_utf8_lossy(&script.stdout).contains(command), "{shell} {command}");
        }
    }
}
