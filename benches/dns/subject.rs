//! Servers under measurement, each on core 0: the agent, CoreDNS, hickory, the floor.

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    agent::{self, Running},
    support::apiserver::ApiServer,
};

/// Where `tests/cluster/build coredns` puts it, unless `COREDNS` names another.
const COREDNS: &str = "/var/lib/fairlead-cluster/bin/coredns";

/// kubeadm's Corefile without what would take ports or end the process (health, ready, loop, reload).
pub const KUBEADM: &str = "prometheus 127.0.0.1:0
    cache 30 {
        disable success cluster.local
        disable denial cluster.local
    }
    loadbalance";
/// What answers names, and nothing else.
pub const MINIMAL: &str = "loadbalance";

/// A server that answers.
pub struct Subject {
    pub name: &'static str,
    pub address: SocketAddr,
    pub process: Running,
    /// From its start to its first answer.
    pub first_answer: Duration,
}

impl Subject {
    fn start(
        name: &'static str,
        (address, asked): (SocketAddr, &str),
        command: &mut Command,
        log: &Path,
    ) -> Self {
        let begun = Instant::now();
        let process = Running::start(command, log);
        agent::wait(&format!("{name}'s first answer"), || is_answered(address, asked));
        Self { name, address, process, first_answer: begun.elapsed() }
    }

    /// The agent, by the Corefile of the same words.
    pub fn fairlead(dir: &Path, server: &ApiServer, upstream: SocketAddr, asked: &str) -> Self {
        Self::agent(dir, (server, upstream), asked, &["--no-ingress", "--metrics-listen", ""])
    }

    /// The same with Ingress beside it, and where it tells its metrics.
    pub fn with_ingress(
        dir: &Path,
        at: (&ApiServer, SocketAddr),
        asked: &str,
    ) -> (Self, SocketAddr) {
        let [plain, tls, metrics] = std::array::from_fn(|_| agent::free_address());
        let [http, https, told] = [plain, tls, metrics].map(|address| address.to_string());
        let more = ["--http-listen", &http, "--https-listen", &https, "--metrics-listen", &told];
        (Self::agent(dir, at, asked, &more), metrics)
    }

    fn agent(
        dir: &Path,
        (server, upstream): (&ApiServer, SocketAddr),
        asked: &str,
        more: &[&str],
    ) -> Self {
        let address = agent::free_address();
        let file = write(dir, "fairlead.Corefile", &corefile(53, upstream, "", KUBEADM));
        let mut command = agent::on_core(0, env!("CARGO_BIN_EXE_fairlead"));
        command.args(["agent", "--healthz-listen", "", "--no-proxy", "--node-name", "bench"]);
        command.arg("--kubeconfig").arg(server.kubeconfig()).arg("--corefile").arg(file);
        command.args(["--dns-listen", &address.to_string()]).args(more);
        Self::start("fairlead", (address, asked), &mut command, &dir.join("fairlead.log"))
    }

    /// CoreDNS with these plugins besides `kubernetes` and `forward`.
    pub fn coredns(
        name: &'static str,
        dir: &Path,
        (server, upstream): (&ApiServer, SocketAddr),
        plugins: &str,
        asked: &str,
    ) -> Self {
        let program = std::env::var_os("COREDNS").map_or_else(|| COREDNS.into(), PathBuf::from);
        assert!(program.exists(), "no {}: run tests/cluster/build coredns", program.display());
        let address = agent::free_address();
        let more = format!("kubeconfig {} test", server.kubeconfig().display());
        let text = corefile(address.port(), upstream, &more, plugins);
        let file = write(dir, &format!("{name}.Corefile"), &text);
        let mut command = agent::on_core(0, program.to_str().unwrap());
        command.arg("-conf").arg(file);
        Self::start(name, (address, asked), &mut command, &dir.join(format!("{name}.log")))
    }

    /// The floor; it answers every question.
    pub fn floor(name: &'static str, dir: &Path) -> Self {
        Self::example(name, dir, "floor", &[], "floor.example")
    }

    /// hickory's server with so many Services' names.
    pub fn hickory(dir: &Path, services: u64, asked: &str) -> Self {
        Self::example("hickory", dir, "hickory", &[&services.to_string()], asked)
    }

    fn example(name: &'static str, dir: &Path, program: &str, more: &[&str], asked: &str) -> Self {
        let address = agent::free_address();
        let examples = Path::new(env!("CARGO_BIN_EXE_fairlead")).with_file_name("examples");
        let mut command = agent::on_core(0, examples.join(program).to_str().unwrap());
        command.arg(address.to_string()).args(more);
        let log = dir.join(format!("{name}.log"));
        Self::start(name, (address, asked), &mut command, &log)
    }
}

fn corefile(port: u16, upstream: SocketAddr, kubernetes: &str, plugins: &str) -> String {
    format!(
        ".:{port} {{
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
        {kubernetes}
    }}
    forward . {upstream} {{
        max_concurrent 1000
    }}
    {plugins}
}}
"
    )
}

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, text).unwrap();
    path
}

/// Whether a name has an address there.
pub fn is_answered(address: SocketAddr, name: &str) -> bool {
    ask(address, name, Duration::from_millis(200))
        .is_some_and(|reply| reply[3] & 15 == 0 && reply[7] > 0)
}

/// The reply to a question for a name's addresses.
pub fn ask(address: SocketAddr, name: &str, patience: Duration) -> Option<Vec<u8>> {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(patience)).unwrap();
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(label.len() as u8);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let mut reply = [0; 4096];
    socket.send_to(&query, address).ok()?;
    let received = socket.recv(&mut reply).ok().filter(|received| *received > 12)?;
    Some(reply[..received].to_vec())
}
