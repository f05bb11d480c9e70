//! The agent under measurement and the API server that feeds it.

use std::{
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{client, objects, support::apiserver::ApiServer, world::World};

/// An API server on the loopback of the routing namespace.
pub struct Api {
    kubeconfig: PathBuf,
    put: tokio::sync::mpsc::UnboundedSender<Value>,
}

impl Api {
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Changes an object.
    pub fn put(&self, object: Value) {
        self.put.send(object).unwrap();
    }
}

/// Starts an API server that holds these objects.
pub fn serve(world: &World, objects: Vec<Value>) -> Api {
    let (put, mut puts) = tokio::sync::mpsc::unbounded_channel::<Value>();
    let (ready, started) = mpsc::channel();
    let netns = std::fs::File::open(world.node_netns()).unwrap();
    std::thread::spawn(move || {
        nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            // client-go sends no token without TLS.
            let api = ApiServer::start_with_tls().await;
            for object in objects {
                api.put(object);
            }
            ready.send(api.kubeconfig()).unwrap();
            while let Some(object) = puts.recv().await {
                api.put(object);
            }
        });
    });
    Api { kubeconfig: started.recv().unwrap(), put }
}

pub struct Agent {
    child: Child,
    /// From the last object received to complete maps, by the agent's own log.
    pub programmed_ms: f64,
    /// From starting the process to the arrival of that log line.
    pub started_ms: f64,
}

impl Agent {
    /// Starts the proxy role and waits for complete maps, then for its programs to run.
    pub fn start(world: &World, api: &Api) -> Self {
        let mut command: Command = world.in_node(env!("CARGO_BIN_EXE_fairlead"));
        command
            .args(["agent", "--no-dns", "--no-ingress", "--node-name", "bench"])
            .args(["--log-format", "json", "--healthz-listen", "", "--metrics-listen", ""])
            .args(["--devices", &world.uplink()])
            .arg("--kubeconfig")
            .arg(&api.kubeconfig)
            .arg("--cgroup-root")
            .arg(world.node_cgroup())
            .arg("--bpffs")
            .arg(world.bpffs());
        let started = Instant::now();
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut seen = String::new();
        let programmed_ms = loop {
            let mut line = String::new();
            let n = log.read_line(&mut line).unwrap();
            assert!(n > 0, "the agent ended:\n{seen}");
            seen += &line;
            let entry: Value = serde_json::from_str(&line).unwrap_or_default();
            if entry["message"] == "services programmed" {
                break entry["since_received_ms"].as_f64().expect("since_received_ms");
            }
        };
        let started_ms = started.elapsed().as_secs_f64() * 1000.0;
        // Before, connections would go by packets.
        while !seen.contains("programs attached") {
            assert!(log.read_line(&mut seen).unwrap() > 0, "the agent ended:\n{seen}");
        }
        // The pipe must not fill up while the agent runs on.
        std::thread::spawn(move || log.lines().for_each(drop));
        Self { child, programmed_ms, started_ms }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Watches which endpoint of one Service new connections reach.
pub struct Follower {
    spin: client::Role,
    _server: client::Role,
}

impl Follower {
    /// The Service that is changed.
    pub const SERVICE: u64 = 711;

    pub fn start(world: &World) -> Self {
        let server = client::server(world);
        let target = format!("{}:80", objects::cluster_ip(Self::SERVICE));
        let cgroup = world.node_cgroup();
        let mut spin = client::start(world, "c", "spin", &[&target, cgroup.to_str().unwrap()]);
        assert!(spin.line().starts_with(&objects::PORT.to_string()));
        Self { spin, _server: server }
    }

    /// Leads the Service to another port; microseconds to the first connection that follows.
    pub fn change(&mut self, api: &Api, port: u16) -> f64 {
        let changed = client::monotonic_ns();
        api.put(objects::slice(Self::SERVICE, [port, port]));
        let line = self.spin.line();
        let (seen, at) = line.split_once(' ').expect("PORT NANOSECONDS");
        assert_eq!(seen, port.to_string(), "the change before this one came late");
        (at.parse::<u64>().unwrap() - changed) as f64 / 1000.0
    }
}

/// Changes one Service's endpoints `count` times; microseconds from each change to the first connection that follows it.
pub fn changes(world: &World, api: &Api, count: usize) -> Vec<f64> {
    let mut follower = Follower::start(world);
    let mut samples = vec![];
    for n in 0..count {
        let port = if n % 2 == 0 { client::OTHER_PORT } else { objects::PORT };
        std::thread::park_timeout(Duration::from_millis(20));
        samples.push(follower.change(api, port));
        if n % 50 == 49 {
            print!(".");
            std::io::stdout().flush().unwrap();
        }
    }
    println!();
    samples
}
