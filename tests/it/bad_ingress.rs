//! An Ingress, or what it names, that goes wrong while it is served: an Event of that Ingress, what
//! was good goes on, and so does everybody else.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    publish::{agent_of, await_addresses, class, keeping_status, pod},
    support::{
        agent::Agent,
        certificate::{Certificate, secret},
        cluster::Cluster,
        world::World,
    },
};

const PREFIX: &str = "nginx.ingress.kubernetes.io";
/// Where all of them are found.
const ADDRESS: &str = "192.0.2.9";
/// Somebody who does nothing wrong.
const OTHER: &str = "other";

/// Name, what is done to the Ingress, part of what is said of it, and a path that is served on.
type Case = (&'static str, fn(&mut Value), &'static str, &'static str);

const CASES: &[Case] = &[
    // Refused as a whole: its last good form is served, all of it.
    (
        "invalid",
        |ingress| ingress["spec"] = json!({"ingressClassName": "ours"}),
        "spec has neither rules nor defaultBackend",
        "/",
    ),
    (
        "path",
        |ingress| first_path(ingress)["path"] = json!("no-slash"),
        "does not begin with /",
        "/",
    ),
    (
        "host",
        |ingress| ingress["spec"]["rules"][0]["host"] = json!("host..example"),
        "spec.rules[0].host",
        "/",
    ),
    // A part is refused: the rest of it is served.
    (
        "spelling",
        |ingress| first_path(ingress)["path"] = json!("/a//b"),
        "is not in normal form",
        "/more",
    ),
    (
        "regex",
        |ingress| expression(ingress, "/(a"),
        "is no regular expression that is served",
        "/more",
    ),
    (
        "large-regex",
        |ingress| expression(ingress, "/(a{1000}){1000}"),
        "is too large a regular expression",
        "/more",
    ),
    ("annotation", |ingress| annotate(ingress, "proxy-body-size", "2x"), "is no size", "/"),
    (
        "foreign-map",
        |ingress| annotate(ingress, "custom-headers", "other/us"),
        "is of another namespace and never read",
        "/",
    ),
];

/// Of Secrets: each belongs to the Ingress of its name.
const CERTIFICATE: &str = "certificate";
const MISMATCH: &str = "mismatch";
const MISSING: &str = "missing";

fn first_path(ingress: &mut Value) -> &mut Value {
    &mut ingress["spec"]["rules"][0]["http"]["paths"][0]
}

fn annotate(ingress: &mut Value, name: &str, value: &str) {
    ingress["metadata"]["annotations"][format!("{PREFIX}/{name}")] = json!(value);
}

fn expression(ingress: &mut Value, path: &str) {
    annotate(ingress, "use-regex", "true");
    *first_path(ingress) = rule(path, "ImplementationSpecific");
}

fn rule(path: &str, path_type: &str) -> Value {
    let service = json!({"name": "web", "port": {"number": 80}});
    json!({"path": path, "pathType": path_type, "backend": {"service": service}})
}

/// Answers `NAME.example` by a redirect, for which no endpoint is needed.
fn ingress(name: &str) -> Value {
    let paths = [rule("/", "Prefix"), rule("/more", "Prefix")];
    let mut ingress = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}"),
                     "annotations": {}},
        "spec": {
            "ingressClassName": "ours",
            "rules": [{"host": format!("{name}.example"), "http": {"paths": paths}}],
        },
    });
    annotate(&mut ingress, "permanent-redirect", "https://moved.example/");
    ingress
}

/// The same, with a certificate of its name.
fn with_tls(name: &str) -> Value {
    let mut ingress = ingress(name);
    ingress["spec"]["tls"] = json!([{"hosts": [format!("{name}.example")], "secretName": name}]);
    ingress
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"type": "ClusterIP", "clusterIP": "10.96.0.50", "clusterIPs": ["10.96.0.50"],
                 "ports": [{"name": "http", "port": 80}]},
    })
}

/// A certificate for `NAME.example`, and the file by which clients trust it.
fn certificate(world: &World, name: &str) -> (Certificate, String) {
    let made = Certificate::of(&format!("{name}.example"));
    let file = world.root().join(format!("{name}.pem"));
    std::fs::write(&file, &made.chain).expect("writable");
    (made, file.display().to_string())
}

/// Whether a request is answered by the redirect.
fn is_served(world: &World, url: &str, more: &[&str]) -> bool {
    let to = if url.starts_with("https") { "127.0.0.1:443" } else { "127.0.0.1:80" };
    let usual = ["--url", url, "--to", to, "--expect", "301", "--count", "1"];
    world.load("node", &[&usual[..], more].concat()).ok() == 1
}

fn await_event(cluster: &Cluster, ingress: &str, part: &str) {
    let is_told = |event: &Value| {
        let note = event["note"].as_str().unwrap_or_default();
        event["regarding"]["kind"] == "Ingress"
            && event["regarding"]["name"] == ingress
            && note.contains(part)
    };
    cluster.await_all("events", |all| all.iter().any(is_told));
}

fn started(cluster: &Cluster, world: &World, more: &[&str]) -> Agent {
    let usual = ["--publish-address", ADDRESS];
    agent_of(cluster, world, "ingress-1", &[&usual[..], more].concat())
}

#[test]
fn what_goes_wrong_is_an_event_of_its_ingress_and_what_was_good_is_served_on() {
    let wait = ["--wait-ms", "20000"];
    let world = World::with_pods(0);
    let mut objects = vec![class(), pod("ingress-1"), service(), ingress(OTHER)];
    objects.extend(CASES.iter().map(|(name, ..)| ingress(name)));
    let secrets = [CERTIFICATE, MISMATCH, MISSING];
    let certificates = secrets.map(|name| certificate(&world, name));
    for (name, (made, _)) in secrets.iter().zip(&certificates) {
        objects.extend([with_tls(name), secret("shop", name, &made.chain, &made.key)]);
    }
    let cluster = Cluster::start(&world, objects);
    let agent = started(&cluster, &world, &[]);
    for (name, _, _, _) in CASES {
        let url = format!("http://{name}.example/");
        assert!(is_served(&world, &url, &wait), "{name}: {}", agent.log());
    }
    for (name, (_, ca)) in secrets.iter().zip(&certificates) {
        let url = format!("https://{name}.example/");
        assert!(is_served(&world, &url, &[&["--ca", ca][..], &wait].concat()), "{name}");
    }

    let all = || CASES.iter().map(|(name, ..)| *name).chain(secrets).chain([OTHER]);
    for name in all() {
        await_addresses(&cluster, name, &[ADDRESS]);
    }

    for (name, breaks, _, _) in CASES {
        let mut broken = ingress(name);
        breaks(&mut broken);
        cluster.server.put(keeping_status(&cluster.server, broken));
    }
    let [(first, _), (second, _), _] = &certificates;
    cluster.server.put(secret("shop", CERTIFICATE, "no PEM", &first.key));
    cluster.server.put(secret("shop", MISMATCH, &second.chain, &first.key));
    cluster.server.delete("Secret", "shop", MISSING);

    for (name, _, said, _) in CASES {
        await_event(&cluster, name, said);
    }
    for (name, said) in [
        (CERTIFICATE, "tls.crt holds no certificate; its last good certificate is served"),
        (MISMATCH, "tls.key is not the key of tls.crt; its last good certificate is served"),
        (MISSING, "Secret shop/missing does not exist; the default certificate is served"),
    ] {
        await_event(&cluster, name, said);
    }
    for (name, _, _, path) in CASES {
        let url = format!("http://{name}.example{path}");
        assert!(is_served(&world, &url, &[]), "{url}: {}", agent.log());
    }
    for (name, (_, ca)) in secrets.iter().zip(&certificates) {
        let url = format!("https://{name}.example/");
        // Whoever deletes a Secret means to take its certificate away; its paths are served.
        let is_verified = is_served(&world, &url, &["--ca", ca]);
        assert_eq!(is_verified, *name != MISSING, "{url}: {}", agent.log());
        assert!(is_served(&world, &format!("http://{name}.example/"), &[]), "{name}");
    }
    assert!(is_served(&world, &format!("http://{OTHER}.example/"), &[]), "{}", agent.log());
    // All that is served is found where it was, and of nobody else is anything said.
    for name in all() {
        await_addresses(&cluster, name, &[ADDRESS]);
    }
    let events = cluster.await_all("events", |_| true);
    let of_other = events.iter().filter(|event| event["regarding"]["name"] == OTHER);
    assert_eq!(of_other.count(), 0, "{}", json!(events));
}

#[test]
fn keys_and_passwords_reach_neither_log_nor_events() {
    const WORD: &str = "s3cret-word";
    let wait = ["--wait-ms", "20000"];
    let world = World::with_pods(0);
    let names = ["good", MISMATCH, "swapped", "damaged"];
    let certificates = names.map(|name| certificate(&world, name));
    let [(good, ca), (mismatch, _), (swapped, _), (damaged, _)] = &certificates;
    let damaged_key = damaged.key.replacen('\n', "\n!", 2);
    let mut objects = vec![class(), pod("ingress-1"), service()];
    objects.extend(names.map(with_tls));
    objects.extend([
        secret("shop", "good", &good.chain, &good.key),
        secret("shop", MISMATCH, &mismatch.chain, &good.key),
        secret("shop", "swapped", &swapped.key, &swapped.chain),
        secret("shop", "damaged", &damaged.chain, &damaged_key),
    ]);
    // Users that cannot be read, and their passwords.
    let mut guarded = ingress("guarded");
    for (name, value) in
        [("auth-type", "digest"), ("auth-secret", "users"), ("auth-realm", "The shop")]
    {
        annotate(&mut guarded, name, value);
    }
    let users = format!("ann:{{PLAIN}}{WORD}\n{WORD}\n");
    objects.extend([
        guarded,
        json!({
            "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
            "metadata": {"name": "users", "namespace": "shop"},
            "data": {"auth": STANDARD.encode(users)},
        }),
    ]);
    let cluster = Cluster::start(&world, objects);
    let agent = started(&cluster, &world, &["--log-level", "trace"]);
    for (name, said) in [
        (MISMATCH, "tls.key is not the key of tls.crt"),
        ("swapped", "Secret shop/swapped"),
        ("damaged", "Secret shop/damaged"),
        ("guarded", "Secret shop/users has no user of the realm"),
    ] {
        await_event(&cluster, name, said);
    }
    let args = [&["--ca", ca][..], &wait].concat();
    assert!(is_served(&world, "https://good.example/", &args), "{}", agent.log());
    let events = cluster.await_all("events", |_| true);
    let said = format!("{}\n{}", agent.log(), json!(events));
    for (name, (made, _)) in names.iter().zip(&certificates) {
        assert!(!made.is_shown_by(&said), "{name}");
    }
    assert!(!said.contains(WORD), "a password is told");
}
