//! The two servers.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use fairlead_dns::{
    DnsConfig, Running,
    corefile::{Corefile, PodsOf},
};
use fairlead_state::{
    Kind,
    source::kubernetes::{Kubernetes, KubernetesOptions},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    setups::{HOSTS_FILE, Setup},
    support::apiserver::ApiServer,
};

/// Where `tests/cluster/build coredns` puts it, unless `COREDNS` names another.
const COREDNS: &str = "/var/lib/fairlead-cluster/bin/coredns";

/// A CoreDNS process; it ends when this is dropped.
pub(crate) struct CoreDns {
    pub(crate) address: SocketAddr,
    process: Child,
    _files: tempfile::TempDir,
}

impl CoreDns {
    /// By the Corefile of `setup`, which forwards to `upstream`.
    pub(crate) fn start(server: &ApiServer, upstream: SocketAddr, setup: &Setup) -> Self {
        let program = std::env::var_os("COREDNS").map_or_else(|| COREDNS.into(), PathBuf::from);
        assert!(
            program.exists(),
            "no {}: tests/cluster/build coredns builds it",
            program.display()
        );
        let files = tempfile::tempdir().unwrap();
        let address = free();
        let more = format!("kubeconfig {} test", server.kubeconfig().display());
        let text = setup.corefile(address.port(), upstream, files.path(), &more);
        std::fs::write(files.path().join("Corefile"), text).unwrap();
        std::fs::write(files.path().join(HOSTS_FILE.0), HOSTS_FILE.1).unwrap();
        let log = std::fs::File::create(files.path().join("log")).unwrap();
        let process = Command::new(program)
            .arg("-conf")
            .arg(files.path().join("Corefile"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("CoreDNS starts");
        Self { address, process, _files: files }
    }
}

impl Drop for CoreDns {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self._files.path().join("log")).unwrap_or_default();
            let last: Vec<_> = log.lines().rev().take(10).collect();
            println!(
                "CoreDNS said last:\n{}",
                last.into_iter().rev().collect::<Vec<_>>().join("\n")
            );
        }
    }
}

/// Fairlead's DNS with its own source.
pub(crate) struct Fairlead {
    pub(crate) address: SocketAddr,
    _running: Running,
    _files: tempfile::TempDir,
    _stop: DropGuard,
}

impl Fairlead {
    /// As [`CoreDns::start`].
    pub(crate) async fn start(server: &ApiServer, upstream: SocketAddr, setup: &Setup) -> Self {
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join(HOSTS_FILE.0), HOSTS_FILE.1).unwrap();
        let text = setup.corefile(53, upstream, files.path(), "");
        let parsed = Corefile::parse(Path::new("Corefile"), &text, &|_| None).unwrap();
        let needs = parsed.needs();
        let options = KubernetesOptions {
            kubeconfig: Some(server.kubeconfig()),
            api_servers: vec![],
            state_dir: None,
            node_name: "node-1".into(),
            all_pods: needs.pods == PodsOf::Cluster,
            labels: needs.labels,
            always: BTreeSet::new(),
        };
        let stop = CancellationToken::new();
        let source = Kubernetes::new(options).await.unwrap();
        let mut kinds = vec![Kind::Service, Kind::EndpointSlice, Kind::Namespace];
        kinds.extend((needs.pods != PodsOf::Nobody).then_some(Kind::Pod));
        kinds.extend(needs.imports.then_some(Kind::ServiceImport));
        let followed = fairlead_state::start(source, kinds, stop.clone());
        let config = DnsConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            corefile: Some(Arc::new(parsed)),
            threads: Some(1),
            ..DnsConfig::default()
        };
        let running = fairlead_dns::start(&config, followed.snapshots, stop.clone()).unwrap();
        Self {
            address: running.addresses()[0],
            _running: running,
            _files: files,
            _stop: stop.drop_guard(),
        }
    }
}

/// An address whose port is free for UDP and TCP now, and everywhere: CoreDNS listens on all addresses.
pub(crate) fn free() -> SocketAddr {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        if std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            return (Ipv4Addr::LOCALHOST, port).into();
        }
    }
}
