//! Whatever is wrong gets one message that names the object or the cure, and everything else goes
//! on.

use std::collections::BTreeSet;

use super::support::{
    agent::{self, Agent},
    world::{FAIRLEAD, PROBE, World},
};

const HELLO: &str = "http://10.96.0.20";

/// Asserts that exactly one warning or error has all of `parts`.
fn said_once(agent: &Agent, parts: &[&str]) {
    agent.await_line(parts);
    let lines = agent.lines_with(parts);
    assert_eq!(lines.len(), 1, "said again and again:\n{}", lines.join("\n"));
}

/// Services still work.
fn services_go_on(world: &World, agent: &Agent) {
    let report = world.await_answer(PROBE, HELLO);
    assert_eq!(report.ok(), 1, "{}", agent.log());
}

/// The Ingress still answers, which needs neither rights nor BPF.
fn ingress_goes_on(world: &World, agent: &Agent) {
    let to = "192.168.77.2:80";
    let url = "http://nobody.example.com";
    let args = ["--url", url, "--to", to, "--expect", "404", "--wait-ms", "10000", "--count", "1"];
    assert_eq!(world.load("client", &args).ok(), 1, "{}", agent.log());
}

fn service(name: &str, address: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\n\
         spec: {{clusterIP: {address}, type: NodePort, ports: [{{port: 80{more}}}]}}\n"
    )
}

#[test]
fn a_bad_manifest_is_named_with_its_reason_and_stands_in_nobodys_way() {
    let bad = [
        // (file, content, what the message must name)
        ("broken.yaml", "kind: Service\n  spec: [".into(), ["broken.yaml", "WARN"]),
        (
            "gadget.yaml",
            "apiVersion: v9\nkind: Gadget\nmetadata: {name: g}\n".into(),
            ["gadget.yaml", "Gadget"],
        ),
        (
            "port.yaml",
            service("port", "10.96.0.41", ", nodePort: 99999"),
            ["Service default/port", "99999"],
        ),
        (
            "address.yaml",
            service("address", "10.96.0.300", ""),
            ["Service default/address", "10.96.0.300"],
        ),
        (
            "protocol.yaml",
            service("protocol", "10.96.0.42", ", protocol: QUIC"),
            ["Service default/protocol", "QUIC"],
        ),
        (
            "secret.yaml",
            "apiVersion: v1\nkind: Secret\nmetadata: {name: hello-tls, namespace: default}\n\
             type: kubernetes.io/tls\ndata: {tls.crt: '%%%', tls.key: '%%%'}\n"
                .into(),
            ["Secret default/hello-tls", "tls.crt"],
        ),
    ];
    // Once found at the start, once coming later.
    for at_start in [true, false] {
        let world = World::with_pods(1);
        std::fs::remove_file(world.manifests().join("hello-tls.json")).expect("it is there");
        let write = || bad.iter().for_each(|(file, text, _)| world.apply(file, text));
        if at_start {
            write();
        }
        let agent = world.agent();
        if !at_start {
            write();
        }
        for (_, _, parts) in &bad {
            said_once(&agent, parts);
        }
        services_go_on(&world, &agent);
        ingress_goes_on(&world, &agent);
    }
}

#[test]
fn a_manifest_that_breaks_later_keeps_its_last_good_content() {
    let world = World::with_pods(1);
    let agent = world.agent();
    services_go_on(&world, &agent);
    world.apply("hello.yaml", "apiVersion: v1\nkind: Service\nspec: {ports: [");
    said_once(&agent, &["hello.yaml", "stays in force"]);
    services_go_on(&world, &agent);
}

#[test]
fn a_certificate_that_is_none_is_named_and_services_and_http_go_on() {
    let world = World::with_pods(1);
    world.apply(
        "hello-tls.json",
        r#"{"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": {"name": "hello-tls", "namespace": "default"},
            "stringData": {"tls.crt": "no PEM", "tls.key": "no PEM"}}"#,
    );
    let agent = world.agent();
    said_once(&agent, &["WARN", "default/hello-tls"]);
    services_go_on(&world, &agent);
    ingress_goes_on(&world, &agent);
}

#[test]
fn a_full_map_is_named_with_its_cure_and_recovers_when_there_is_room() {
    let world = World::with_pods(1);
    // kube-dns, hello and empty need 16 entries.
    let agent = world.agent_with(&["--frontends-max", "8"]);
    let line = agent.await_line(&["frontends", "full"]);
    assert!(line.contains("8") && line.contains("--frontends-max"), "{line}");
    ingress_goes_on(&world, &agent);
    for file in ["empty.yaml", "kube-dns.yaml"] {
        std::fs::remove_file(world.manifests().join(file)).expect("it is there");
    }
    services_go_on(&world, &agent);
    // Said again only while it helps fewer or more of them.
    let lines = agent.lines_with(&["frontends", "full"]);
    let told = |line: &String| line.split_once("ERROR").map(|(_, told)| told.to_owned());
    let different: BTreeSet<_> = lines.iter().map(told).collect();
    assert_eq!(different.len(), lines.len(), "said again and again:\n{}", lines.join("\n"));
}

#[test]
fn without_a_bpf_file_system_the_cure_is_named_and_the_ingress_goes_on() {
    let world = World::with_pods(0);
    let agent = world.agent_with(&["--bpffs", "/proc/nowhere"]);
    said_once(&agent, &["ERROR", "/proc/nowhere", "--bpffs"]);
    ingress_goes_on(&world, &agent);
}

#[test]
fn without_cgroup2_the_cure_is_named_and_the_ingress_goes_on() {
    let world = World::with_pods(0);
    let directory = world.manifests().display().to_string();
    let agent = world.agent_with(&["--cgroup-root", &directory]);
    said_once(&agent, &["ERROR", &directory, "--cgroup-root"]);
    ingress_goes_on(&world, &agent);
}

#[test]
fn without_rights_the_missing_ones_are_named_and_the_ingress_goes_on() {
    let world = World::with_pods(0);
    let mut command = world.command("node", "setpriv");
    command.args(["--bounding-set=-all,+net_bind_service", "--inh-caps=-all", FAIRLEAD, "agent"]);
    command.args(["--node-name", "node1", "--upstream", "192.168.77.100:53"]);
    command.arg("--manifests").arg(world.manifests());
    command.arg("--cgroup-root").arg(world.cgroup()).arg("--bpffs").arg(world.bpffs());
    let agent = agent::spawn(&mut command);
    said_once(&agent, &["ERROR", "no rights", "CAP_BPF"]);
    ingress_goes_on(&world, &agent);
}

#[test]
fn an_unreachable_api_server_is_named_once_and_waited_for() {
    let world = World::with_pods(0);
    let file = world.root().join("kubeconfig");
    std::fs::write(
        &file,
        "apiVersion: v1\nkind: Config\ncurrent-context: c\n\
         contexts: [{name: c, context: {cluster: c, user: u}}]\n\
         clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}]\n\
         users: [{name: u, user: {}}]\n",
    )
    .expect("writable");
    let mut agent = world.agent_with(&["--kubeconfig", &file.display().to_string()]);
    said_once(&agent, &["WARN", "127.0.0.1:1"]);
    let live = world.await_answer("node", "http://127.0.0.1:10256/livez");
    assert_eq!(live.ok(), 1, "{}", agent.log());
    assert!(agent.is_running());
}

#[test]
fn a_configuration_that_only_its_author_can_cure_ends_with_64() {
    let world = World::with_pods(0);
    for (flags, named) in [
        (["--manifests", "/nowhere/at/all"], "/nowhere/at/all"),
        (["--kubeconfig", "/nowhere/at/all"], "/nowhere/at/all"),
    ] {
        let mut agent = world.agent_with(&flags);
        let status = agent.await_end();
        assert_eq!(status.code(), Some(64), "{}", agent.log());
        said_once(&agent, &[named]);
    }
}
