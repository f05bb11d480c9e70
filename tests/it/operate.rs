//! Commands that ask a running agent, over its admin socket and from its kernel maps.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream},
    path::PathBuf,
    process::Output,
};

use serde_json::Value;

use super::support::{
    agent::Agent,
    certificate::Certificate,
    world::{FAIRLEAD, PROBE, World},
};

fn socket(world: &World) -> PathBuf {
    world.root().join("admin.sock")
}

fn agent(world: &World, more: &[&str]) -> Agent {
    let flag = format!("--admin-socket={}", socket(world).display());
    let agent = world.agent_with(&[&[flag.as_str()], more].concat());
    agent.await_ready(world);
    agent
}

fn ask(world: &World, args: &[&str]) -> Output {
    let mut command = world.command("node", FAIRLEAD);
    command.args(args).arg("--admin-socket").arg(socket(world));
    command.output().expect("it starts")
}

fn report(world: &World, args: &[&str]) -> (Value, Option<i32>) {
    let output = ask(world, &[args, &["-o", "json"]].concat());
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    (report.unwrap_or_else(|_| panic!("{args:?}: no JSON: {error}")), output.status.code())
}

#[test]
fn status_tells_roles_revision_maps_programs_and_warnings() {
    let world = World::with_pods(2);
    let agent = agent(&world, &[]);
    world.apply(
        "bad.yaml",
        "{apiVersion: v1, kind: Service, metadata: {name: bad}, spec: {clusterIP: x}}",
    );
    agent.await_line(&["bad"]);
    // Devices get their programs after the sockets.
    agent.await_line(&["following the node"]);
    let (status, code) = report(&world, &["status"]);
    assert_eq!(code, Some(0), "{status:#}");
    assert_eq!(status["is_healthy"], true);
    let roles = status["roles"].as_array().expect("a list");
    let states: Vec<&str> = roles.iter().filter_map(|role| role["state"].as_str()).collect();
    assert_eq!(states, ["ready", "ready", "ready"]);
    assert!(status["snapshot"]["revision"].as_u64() > Some(0));
    assert!(status["proxy"]["frontends"].as_u64() > Some(0));
    assert_eq!(status["proxy"]["programs"]["connect4"], 1, "{status:#}");
    assert_eq!(status["proxy"]["programs"]["uplink_ingress"], 1, "{status:#}");
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("Service default/bad refused"), "{warnings}");
    let shown = String::from_utf8_lossy(&ask(&world, &["status"]).stdout).into_owned();
    for part in ["healthy", "proxy", "revision", "frontends", "programs", "1 warning\n"] {
        assert!(shown.contains(part), "{part}:\n{shown}");
    }
}

/// A Service, and an Ingress that leads to another.
const LATE: [(&str, &str); 2] = [
    (
        "Service default/late",
        "{apiVersion: v1, kind: Service, metadata: {name: late}, \
         spec: {clusterIP: 10.96.0.99, ports: [{port: 80}]}}",
    ),
    (
        "Ingress default/late",
        "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: late}, spec: \
         {ingressClassName: fairlead, rules: [{host: late.example, http: {paths: [{path: /, \
         pathType: Prefix, backend: {service: {name: hello, port: {number: 80}}}}]}}]}}",
    ),
];

#[test]
fn a_change_is_a_line_with_object_revision_and_duration_and_no_line_has_a_secret() {
    let world = World::with_pods(1);
    let certificate = Certificate::apply(&world);
    let agent = agent(&world, &["--log-format=json", "--log-level=debug"]);
    let told = [&["services written", "DNS: names in force"][..], &["Ingress: in force"]];
    for ((object, manifest), lines) in LATE.into_iter().zip(told) {
        world.apply(&format!("{}.yaml", object.replace(['/', ' '], "-")), manifest);
        let changed = format!("\"changed\":\"{object}\"");
        for message in lines {
            let parts = [&*changed, *message];
            let line: Value = serde_json::from_str(&agent.await_line(&parts)).expect("JSON");
            assert!(line["revision"].as_u64() > Some(1), "{line}");
            assert!(line["elapsed"].as_str().is_some_and(|span| span.ends_with('s')), "{line}");
            assert_eq!(agent.lines_with(&parts).len(), 1, "{}", agent.log());
        }
    }
    for line in agent.log().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "no JSON: {line}");
    }
    assert!(!certificate.is_betrayed_by(&agent.log()), "{}", agent.log());
}

#[test]
fn without_an_agent_there_is_one_line_with_the_cure_and_status_1() {
    let world = World::with_pods(1);
    for command in
        [&["status"][..], &["services"], &["routes"], &["names"], &["trace", "tcp", "a:1"]]
    {
        let output = ask(&world, command);
        assert_eq!(output.status.code(), Some(1), "{command:?}");
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.contains("no agent listens on") && error.contains("start `fairlead agent`"));
    }
    let usage = ask(&world, &["status", "--no-such-flag"]);
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn trace_from_kernel_maps_predicts_who_answers_and_who_is_refused() {
    let world = World::with_pods(3);
    let agent = agent(&world, &["--count-bytes"]);
    let (services, _) = report(&world, &["services"]);
    assert_eq!(services["source"], "kernel maps");
    let service = |name: &str| {
        let all = services["services"].as_array().expect("a list");
        all.iter().find(|service| service["name"] == name).expect("it is there").clone()
    };
    let ip = |name: &str| service(name)["addresses"][0].as_str().expect("an address").to_owned();

    let hello = format!("tcp {}:80", ip("hello"));
    let words: Vec<&str> = hello.split(' ').collect();
    let (trace, code) = report(&world, &[&["trace"], &words[..]].concat());
    assert_eq!((trace["source"].as_str(), code), (Some("kernel maps"), Some(0)), "{trace:#}");
    let candidates = trace["candidates"].as_array().expect("a list");
    let predicted: Vec<&str> = candidates.iter().filter_map(|c| c["pod"].as_str()).collect();
    let url = format!("http://{}", ip("hello"));
    let met = world.load("node", &["--url", &url, "--count", "60"]);
    assert_eq!(met.ok(), 60, "{}", met.failures());
    let mut answered = met.answered_by();
    answered.sort_unstable();
    let mut expected = predicted.clone();
    expected.sort_unstable();
    assert_eq!(answered, expected, "of 60 connections each of 3 pods gets some");
    let (one, _) = report(&world, &["services", "default/hello"]);
    let bytes = &one["services"][0]["bytes"]["sockets"];
    for way in ["to_service", "from_service"] {
        assert!(bytes[way].as_u64() > Some(60), "{way}: {one:#}");
    }

    let empty = ip("empty");
    let target = format!("{empty}:80");
    let (trace, code) = report(&world, &["trace", "tcp", &target]);
    assert_eq!((trace["outcome"]["verdict"].as_str(), code), (Some("reject"), Some(1)));
    let url = format!("http://{empty}");
    let refused = world.load("node", &["--url", &url, "--count", "1"]);
    assert_eq!(refused.kinds(), ["refused"], "{}", refused.failures());
    let (one, _) = report(&world, &["services", "default/empty"]);
    assert!(one["services"][0]["rejected"].as_u64() > Some(0), "live counters: {one:#}");

    // The same by name, as pods ask for it.
    let (named, code) = report(&world, &["trace", "tcp", "hello:80"]);
    assert_eq!((named["candidates"].as_array().map(Vec::len), code), (Some(3), Some(0)));
    let (lookup, code) = report(&world, &["names", "helo"]);
    assert_eq!(code, Some(1));
    assert!(lookup["lookup"]["why"].as_str().is_some_and(|why| why.contains("did you mean hello")));
    drop(agent);
}

#[test]
fn routes_show_certificates_by_name_and_nothing_secret_leaves_the_socket() {
    let world = World::with_pods(1);
    let certificate = Certificate::apply(&world);
    let _agent = agent(&world, &["--no-proxy"]);
    let (routes, code) = report(&world, &["routes", "hello.example.com"]);
    assert_eq!(code, Some(0));
    let row = &routes["routes"][0];
    assert_eq!(row["certificate"], "default/hello-tls", "{routes:#}");
    let (trace, _) = report(&world, &["trace", "https://hello.example.com/"]);
    assert_eq!(trace["outcome"]["verdict"], "served", "{trace:#}");
    let traced = "trace?target=https%3A%2F%2Fhello.example.com";
    for page in ["status", "traffic", "services", "routes", "names", traced] {
        let answer = raw(&world, &format!("GET /v1/{page} HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 200"), "{page}: {answer}");
        assert!(!certificate.is_betrayed_by(&answer), "{page}");
    }
}

#[test]
fn the_socket_is_read_only_bounded_and_not_everybodys() {
    let world = World::with_pods(1);
    let mut agent = agent(&world, &["--no-proxy", "--no-ingress"]);
    for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let answer = raw(&world, &format!("{method} /v1/status HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 405"), "{method}: {answer}");
    }
    for path in ["/v1/nothing", "/v1/../../etc/passwd", "/v1/", "//", "/v1/status/x"] {
        let answer = raw(&world, &format!("GET {path} HTTP/1.1"));
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
    }
    let long = format!("GET /v1/names?name={} HTTP/1.1", "a".repeat(64 << 10));
    let answer = raw(&world, &long);
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    let answer = raw(&world, "GET /v1/trace?target=tcp+%FF%00:80 HTTP/1.1");
    assert!(answer.starts_with("HTTP/1.1 422"), "{answer}");
    let metadata = std::fs::metadata(real(&world)).expect("it is there");
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
    agent.terminate();
    assert!(agent.await_end().success());
    assert!(!real(&world).exists(), "an agent that ends takes its socket away");
}

/// The questions of the chart's test pod (deploy/helm/fairlead/templates/tests/answers.yaml).
#[test]
fn what_helm_test_asks_from_a_pod_is_answered_and_what_is_not_so_is_denied() {
    let world = World::with_pods(2);
    let _agent = agent(&world, &[]);
    let hello = "hello.default.svc.cluster.local";
    for (words, status) in [
        (vec!["name", hello, "--within=10"], 0),
        (vec!["http", "http://hello.default.svc.cluster.local/", "--within=10"], 0),
        (vec!["connect", "10.96.0.20:80", "--within=10"], 0),
        (vec!["http", "http://192.168.77.2:80/", "--status=404", "--within=10"], 0),
        (vec!["name", "helo.default.svc.cluster.local"], 1),
        (vec!["connect", "10.96.0.30:80"], 1),
        (vec!["http", "http://192.168.77.2:80/"], 1),
    ] {
        let mut probe = world.command(PROBE, FAIRLEAD);
        let output = probe.arg("probe").args(&words).output().expect("it starts");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
    }
}

/// The socket as this process sees it.
fn real(world: &World) -> PathBuf {
    socket(world)
}

fn raw(world: &World, line: &str) -> String {
    let mut stream = UnixStream::connect(real(world)).expect("somebody listens");
    let request = format!("{line}\r\nHost: fairlead\r\nConnection: close\r\n\r\n");
    // A server that has seen enough may close while the rest is written.
    drop(stream.write_all(request.as_bytes()));
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}
