//! `--corefile`: read, followed through a ConfigMap's mount, and a bad one never in force.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use super::support::world::World;

const UPSTREAM: &str = "192.168.77.100:53";

/// A directory as kubelet mounts a ConfigMap: files are links through `..data`, which is swapped.
struct Mount {
    folder: PathBuf,
    version: u32,
}

impl Mount {
    fn new(world: &World, corefile: &str) -> Self {
        let folder = world.root().join("config");
        fs::create_dir(&folder).unwrap();
        symlink("..data/Corefile", folder.join("Corefile")).unwrap();
        let mut mount = Self { folder, version: 0 };
        mount.write(corefile);
        mount
    }

    fn write(&mut self, corefile: &str) {
        self.version += 1;
        let version = format!("..{}", self.version);
        fs::create_dir(self.folder.join(&version)).unwrap();
        fs::write(self.folder.join(&version).join("Corefile"), corefile).unwrap();
        symlink(&version, self.folder.join("..data_tmp")).unwrap();
        fs::rename(self.folder.join("..data_tmp"), self.folder.join("..data")).unwrap();
    }

    fn flag(&self) -> String {
        format!("--corefile={}", self.folder.join("Corefile").display())
    }
}

/// kubeadm's, for this domain and port.
fn corefile(domain: &str, port: u16) -> String {
    format!(
        ".:{port} {{
    errors
    health {{
       lameduck 1s
    }}
    ready
    kubernetes {domain} in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . {UPSTREAM} {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success {domain}
       disable denial {domain}
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

fn answers(world: &World, url: &str) -> bool {
    let report = world.load("node", &["--url", url, "--wait-ms", "20000", "--count", "1"]);
    report.ok() == 1
}

#[test]
fn a_corefile_is_followed_and_a_bad_one_leaves_the_old_in_force() {
    let world = World::with_pods(1);
    let mut mount = Mount::new(&world, &corefile("cluster.local", 53));
    let agent = world.agent_with(&["--no-proxy", "--no-ingress", &mount.flag()]);
    for url in [
        "dns://127.0.0.1/hello.default.svc.cluster.local",
        "http://127.0.0.1:8080/health",
        "http://127.0.0.1:8181/ready",
        "http://127.0.0.1:9153/metrics",
    ] {
        assert!(answers(&world, url), "{url}:\n{}", agent.log());
    }
    // One scrape has what each alert on DNS asks for.
    let metrics = world.page(9153, "/metrics");
    for series in [
        "fairlead_dns_names_stale 0\n",
        "fairlead_role_ready{role=\"dns\"} ",
        "fairlead_snapshot_stale_seconds 0\n",
        "fairlead_objects_refused 0\n",
        "process_resident_memory_bytes ",
    ] {
        assert!(metrics.contains(&format!("\n{series}")), "{series}:\n{metrics}");
    }
    mount.write(&corefile("other.local", 53));
    let other = "dns://127.0.0.1/hello.default.svc.other.local";
    assert!(answers(&world, other), "{}", agent.log());

    mount.write(&corefile("third.local", 53).replace("forward", "forwrd"));
    let line = agent.await_line(&["Corefile:13:", "forwrd", "the old Corefile stays in force"]);
    assert!(line.contains("ERROR"), "{line}");
    assert!(answers(&world, other), "{}", agent.log());

    // Nobody reads all pods: names of theirs would all be denied.
    mount.write(&corefile("third.local", 53).replace("insecure", "verified"));
    let line = agent.await_line(&["pods verified", "restart it", "the old settings stay in force"]);
    assert!(line.contains("ERROR"), "{line}");
    assert!(answers(&world, other), "{}", agent.log());

    // What a Corefile names may be wrong as well, and mended without it.
    let weights = mount.folder.join("weights");
    fs::write(&weights, "hello.default.svc.third.local heavy\n").unwrap();
    let weighted = format!("loadbalance weighted {}", weights.display());
    mount.write(&corefile("third.local", 53).replace("loadbalance", &weighted));
    let line = agent.await_line(&["weights: line 1:", "the old settings stay in force"]);
    assert!(line.contains("ERROR"), "{line}");
    assert!(answers(&world, other), "{}", agent.log());
    fs::write(&weights, "hello.default.svc.third.local\n10.244.0.1 2\n").unwrap();
    let third = "dns://127.0.0.1/hello.default.svc.third.local";
    assert!(answers(&world, third), "{}", agent.log());

    // Another port: a successor answers there before the old one ends.
    mount.write(&corefile("cluster.local", 5300));
    let moved = "dns://127.0.0.1:5300/hello.default.svc.cluster.local";
    assert!(answers(&world, moved), "{}", agent.log());
    assert!(answers(&world, "http://127.0.0.1:8181/ready"), "{}", agent.log());
}

#[test]
fn a_corefile_that_is_bad_from_the_start_is_named_and_waited_for() {
    let world = World::with_pods(1);
    let mut mount = Mount::new(&world, ".:53 {\n    kubernetes cluster.local {\n        nope\n");
    // Another role keeps the agent going.
    let agent = world.agent_with(&["--no-proxy", &mount.flag()]);
    agent.await_line(&["Corefile:2: `{` without its `}`"]);
    mount.write(&corefile("cluster.local", 53));
    let url = "dns://127.0.0.1/hello.default.svc.cluster.local";
    assert!(answers(&world, url), "{}", agent.log());
}
