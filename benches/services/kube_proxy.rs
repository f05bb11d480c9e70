//! The real kube-proxy in the routing namespace, fed by the same API server.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::{process, subject::Api, world::World};

/// In a namespace of its own, so that nobody else can have the port.
const METRICS: &str = "127.0.0.1:10249";
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// The first sync of 10,000 Services takes minutes where rules exist already.
const PATIENCE: Duration = Duration::from_secs(600);

/// How it writes its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Nftables,
    Iptables,
}

impl Mode {
    /// As rows name it.
    pub fn subject(self) -> &'static str {
        match self {
            Self::Nftables => "kube-proxy-nft",
            Self::Iptables => "kube-proxy-iptables",
        }
    }

    fn config(self) -> &'static str {
        match self {
            Self::Nftables => "nftables",
            Self::Iptables => "iptables",
        }
    }
}

/// It runs until it is dropped; its rules stay.
pub struct KubeProxy {
    child: Child,
    /// From starting the process to the end of its first sync, by its own metrics.
    pub started_ms: f64,
}

impl KubeProxy {
    pub fn start(world: &World, api: &Api, mode: Mode) -> Self {
        let config = configure(world, api, mode);
        let log = fs::File::create(world.dir().join("kube-proxy.log")).unwrap();
        let started = Instant::now();
        let mut command: Command = world.in_node(binary().to_str().unwrap());
        command.arg("--config").arg(config).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        world.within("n", || {
            while syncs() == 0.0 {
                let ended = child.try_wait().unwrap();
                let log = world.dir().join("kube-proxy.log");
                let log = || fs::read_to_string(&log).unwrap_or_default();
                assert!(ended.is_none(), "kube-proxy ended:\n{}", log());
                assert!(started.elapsed() < PATIENCE, "kube-proxy never syncs:\n{}", log());
                std::thread::park_timeout(LOOK_EVERY);
            }
        });
        Self { child, started_ms: started.elapsed().as_secs_f64() * 1000.0 }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time so far, that of nft and iptables-restore included.
    pub fn cpu_ms(&self) -> f64 {
        process::with_children_cpu_us(self.pid()) / 1000.0
    }
}

impl Drop for KubeProxy {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn binary() -> PathBuf {
    let path = std::env::var_os("KUBE_PROXY").map(PathBuf::from);
    path.expect("KUBE_PROXY names upstream's program: `make bench-services` builds it")
}

fn configure(world: &World, api: &Api, mode: Mode) -> PathBuf {
    let path = world.dir().join("kube-proxy.yaml");
    let text = format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n\
         mode: {}\nhostnameOverride: bench\n\
         clientConnection: {{kubeconfig: {}, contentType: application/json, acceptContentTypes: application/json}}\n\
         detectLocalMode: ClusterCIDR\nclusterCIDR: 10.2.0.0/16\nmetricsBindAddress: {METRICS}\n\
         conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}\n",
        mode.config(),
        api.kubeconfig().display()
    );
    fs::write(&path, text).unwrap();
    path
}

/// Finished syncs of IPv4 rules. It counts none before it has all objects.
fn syncs() -> f64 {
    const NAME: &str = "kubeproxy_sync_proxy_rules_duration_seconds_count";
    let ours = |line: &&str| line.starts_with(NAME) && !line.contains("IPv6");
    let value = |line: &str| line.rsplit(' ').next()?.parse::<f64>().ok();
    page().lines().filter(ours).filter_map(value).sum()
}

/// Empty while nobody listens.
fn page() -> String {
    let mut text = String::new();
    if let Ok(mut stream) = TcpStream::connect(METRICS) {
        drop(stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n"));
        drop(stream.read_to_string(&mut text));
    }
    text
}
