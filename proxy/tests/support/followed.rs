//! A node that is followed as the agent does it, and who asks and answers there.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use fairlead_ebpf::abi::{TCP, UDP};
use fairlead_proxy::{
    Devices, Kernel, KernelOptions,
    node::{self, Known},
};
use fairlead_state::{
    Change, Key, Object, Store,
    model::{Node, ServiceCidr},
};
use tokio_util::sync::CancellationToken;

use super::{
    services::unspecified,
    world::{Pod, World},
};

/// More than one segment, and more than one frame of generic segmentation.
const LARGE: usize = 1 << 20;
pub(crate) const DEADLINE: Duration = Duration::from_secs(10);

/// The agent's part that follows the node, in a thread, until dropped.
#[derive(Debug)]
pub(crate) struct Follower {
    pub(crate) kernel: Arc<Kernel>,
    store: Mutex<Store>,
    cancel: CancellationToken,
}

impl Follower {
    pub(crate) fn start(world: &World, devices: &[String]) -> Self {
        Self::start_on(world, devices, vec![])
    }

    /// `own` are the addresses of the Node object.
    pub(crate) fn start_on(world: &World, devices: &[String], own: Vec<IpAddr>) -> Self {
        let options = KernelOptions { devices: Devices::List(devices.to_vec()), ..world.options() };
        Self::start_with(&options, own, &[])
    }

    /// With options of the test's own. `pod_cidrs` are those of the Node object.
    pub(crate) fn start_with(
        options: &KernelOptions,
        own: Vec<IpAddr>,
        pod_cidrs: &[&str],
    ) -> Self {
        let kernel = Arc::new(Kernel::open(options).unwrap());
        let cancel = CancellationToken::new();
        let (follower, token) = (kernel.clone(), cancel.clone());
        let (mut store, snapshots) = Store::new([]);
        let node = Node {
            key: Key::new("", "node"),
            addresses: own.into(),
            zone: None,
            pod_cidrs: pod_cidrs.iter().map(|range| range.parse().unwrap()).collect(),
            deleting: false,
            taints: Arc::new([]),
        };
        let cidrs = service_cidr("kubernetes", &["10.96.0.0/16", "fd00:96::/112"]);
        store.apply([Change::Upsert(Object::Node(Arc::new(node))), cidrs]);
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime
                .unwrap()
                .block_on(node::follow(follower, snapshots, "node", Known::default(), token))
                .unwrap();
        });
        Self { kernel, store: Mutex::new(store), cancel }
    }

    /// What the cluster says from now on.
    pub(crate) fn change(&self, change: Change) {
        self.store.lock().unwrap().apply([change]);
    }

    /// Waits until the programs run on so many devices.
    pub(crate) fn wait_for(&self, world: &World, devices: usize) {
        let begun = Instant::now();
        loop {
            let links = Kernel::attachments(&world.bpffs).unwrap();
            if links.iter().filter(|link| !link.is_orphan).count() == devices * 2 {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "attached: {links:#?}");
            thread::yield_now();
        }
    }

    /// Whatever was sent has been served.
    pub(crate) fn assert_nothing_dropped(&self) {
        let drops = self.kernel.drops().unwrap();
        assert!(drops.values().all(|count| *count == 0), "{drops:?}");
    }
}

pub(crate) fn service_cidr(name: &str, ranges: &[&str]) -> Change {
    let ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    Change::Upsert(Object::ServiceCidr(Arc::new(ServiceCidr { key: Key::new("", name), ranges })))
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Servers of both protocols in a pod.
pub(crate) fn echo(pod: &Pod, is_ipv4: bool) -> [(u8, SocketAddr); 2] {
    let ip = pod.own_address(is_ipv4);
    pod.inside(|| [(TCP, echo_tcp(ip)), (UDP, echo_udp(ip))])
}

/// Answers with the client's address as it sees it, then with everything the client sends.
pub(crate) fn echo_tcp(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let client = stream.peer_addr().unwrap().ip().to_string();
                writeln!(stream, "{client}").unwrap();
                let mut writer = stream.try_clone().unwrap();
                let _ = std::io::copy(&mut stream, &mut writer);
                let _ = writer.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    at
}

pub(crate) fn echo_udp(ip: IpAddr) -> SocketAddr {
    let socket = UdpSocket::bind((ip, 0)).unwrap();
    let at = socket.local_addr().unwrap();
    thread::spawn(move || {
        let mut buffer = [0; 16];
        while let Ok((_, client)) = socket.recv_from(&mut buffer) {
            socket.send_to(client.ip().to_string().as_bytes(), client).unwrap();
        }
    });
    at
}

/// The client's address as the backend sees it, after a large transfer both ways.
pub(crate) fn ask_tcp(to: SocketAddr) -> IpAddr {
    let mut stream = TcpStream::connect_timeout(&to, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let sent: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
    let (mut writer, copy) = (stream.try_clone().unwrap(), sent.clone());
    let sender = thread::spawn(move || {
        writer.write_all(&copy).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    sender.join().unwrap();
    let end = answer.iter().position(|byte| *byte == b'\n').unwrap();
    assert!(answer[end + 1..] == sent, "what came back is not what was sent");
    String::from_utf8_lossy(&answer[..end]).parse().unwrap()
}

pub(crate) fn ask_udp(to: SocketAddr) -> IpAddr {
    let socket = UdpSocket::bind((unspecified(to.ip()), 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    // Connected: an answer from anywhere but `to` would not be received.
    socket.connect(to).unwrap();
    socket.send(b"?").unwrap();
    let mut buffer = [0; 64];
    let len = socket.recv(&mut buffer).unwrap();
    String::from_utf8_lossy(&buffer[..len]).parse().unwrap()
}

/// Of a connection that is not to be.
pub(crate) fn refused_tcp(to: SocketAddr) -> ErrorKind {
    TcpStream::connect_timeout(&to, DEADLINE).unwrap_err().kind()
}

/// What a connected socket is told when it listens after it has sent.
pub(crate) fn refused_udp(to: SocketAddr) -> ErrorKind {
    let socket = UdpSocket::bind((unspecified(to.ip()), 0)).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.connect(to).unwrap();
    socket.send(b"?").unwrap();
    socket.recv(&mut [0; 16]).unwrap_err().kind()
}
