//! The two servers, and the one both forward to.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
};

use fairlead_dns::{DnsConfig, Running, corefile::Corefile};
use fairlead_state::{
    Kind,
    source::kubernetes::{Kubernetes, KubernetesOptions},
};
use hickory_proto::{
    op::{Message, OpCode, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, SOA},
    },
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::apiserver::ApiServer;

/// Where `tests/cluster/build coredns` puts it, unless `COREDNS` names another.
const COREDNS: &str = "/var/lib/fairlead-cluster/bin/coredns";

fn corefile(port: u16, upstream: SocketAddr, more: &str, loadbalance: &str) -> String {
    format!(
        ".:{port} {{
    errors
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
        zonal
        {more}
    }}
    forward . {upstream}
    {loadbalance}
}}
"
    )
}

/// A CoreDNS process; it ends when this is dropped.
pub(crate) struct CoreDns {
    pub(crate) address: SocketAddr,
    process: Child,
    _files: tempfile::TempDir,
}

impl CoreDns {
    /// `loadbalance` is that line of the Corefile.
    pub(crate) fn start(server: &ApiServer, upstream: SocketAddr, loadbalance: &str) -> Self {
        let program = std::env::var_os("COREDNS").map_or_else(|| COREDNS.into(), PathBuf::from);
        assert!(
            program.exists(),
            "no {}: tests/cluster/build coredns builds it",
            program.display()
        );
        let files = tempfile::tempdir().unwrap();
        let address = free();
        let more = format!("kubeconfig {} test", server.kubeconfig().display());
        let text = corefile(address.port(), upstream, &more, loadbalance);
        std::fs::write(files.path().join("Corefile"), text).unwrap();
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
    _stop: DropGuard,
}

impl Fairlead {
    /// As [`CoreDns::start`].
    pub(crate) async fn start(server: &ApiServer, upstream: SocketAddr, loadbalance: &str) -> Self {
        let options = KubernetesOptions {
            kubeconfig: Some(server.kubeconfig()),
            api_servers: vec![],
            state_dir: None,
            node_name: "node-1".into(),
            all_pods: false,
            labels: false,
            always: BTreeSet::new(),
        };
        let stop = CancellationToken::new();
        let source = Kubernetes::new(options).await.unwrap();
        let kinds = [Kind::Service, Kind::EndpointSlice, Kind::Namespace];
        let followed = fairlead_state::start(source, kinds, stop.clone());
        let text = corefile(53, upstream, "", loadbalance);
        let parsed = Corefile::parse(Path::new("Corefile"), &text, &|_| None).unwrap();
        let config = DnsConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap()],
            corefile: Some(Arc::new(parsed)),
            threads: Some(1),
            ..DnsConfig::default()
        };
        let running = fairlead_dns::start(&config, followed.snapshots, stop.clone()).unwrap();
        Self { address: running.addresses()[0], _running: running, _stop: stop.drop_guard() }
    }
}

/// An address that is free for UDP and TCP now.
fn free() -> SocketAddr {
    loop {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        if std::net::UdpSocket::bind(address).is_ok() {
            return address;
        }
    }
}

/// Knows `www.example`; denies all else with its SOA.
pub(crate) async fn upstream() -> SocketAddr {
    let address = free();
    let socket = UdpSocket::bind(address).await.unwrap();
    let listener = tokio::net::TcpListener::bind(address).await.expect("free for TCP as well");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_stream(stream));
        }
    });
    tokio::spawn(async move {
        let mut buffer = [0; 4096];
        loop {
            let Ok((received, from)) = socket.recv_from(&mut buffer).await else { continue };
            let Ok(asked) = Message::from_vec(&buffer[..received]) else { continue };
            let _ = socket.send_to(&answer(&asked).to_vec().unwrap(), from).await;
        }
    });
    address
}

/// CoreDNS forwards by TCP what came by TCP.
async fn answer_stream(mut stream: TcpStream) {
    while let Ok(length) = stream.read_u16().await {
        let mut bytes = vec![0; length.into()];
        let Ok(_) = stream.read_exact(&mut bytes).await else { return };
        let Ok(asked) = Message::from_vec(&bytes) else { return };
        let reply = answer(&asked).to_vec().unwrap();
        let framed = [&u16::try_from(reply.len()).unwrap().to_be_bytes()[..], &reply].concat();
        let Ok(()) = stream.write_all(&framed).await else { return };
    }
}

fn answer(asked: &Message) -> Message {
    let question = &asked.queries[0];
    let mut reply = Message::response(asked.metadata.id, OpCode::Query);
    reply.metadata.recursion_available = true;
    reply.queries = asked.queries.clone();
    let exists = question.name().to_lowercase().to_ascii() == "www.example.";
    if exists && question.query_type() == RecordType::A {
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, 1)));
        reply.answers.push(Record::from_rdata(question.name().clone(), 60, data));
        return reply;
    }
    if !exists {
        reply.metadata.response_code = ResponseCode::NXDomain;
    }
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 2, 3, 4, 77);
    reply.authorities.push(Record::from_rdata(name("."), 77, RData::SOA(soa)));
    reply
}
