//! Beside NodeLocal DNSCache, as docs/migrate.md says: a device of the node with its own address and that of
//! the Service kube-dns, rules that keep both from connection tracking, and a server at both.

use std::{
    io::ErrorKind,
    net::UdpSocket,
    time::{Duration, Instant},
};

use super::support::world::{PROBE, World};

const OWN: &str = "169.254.20.10";
const SERVICE: &str = "10.96.0.10";
/// Of kube-dns-upstream, by which node-local-dns asks whoever kube-dns selects.
const UPSTREAM: &str = "10.96.0.77";
const PATIENCE: Duration = Duration::from_secs(10);

/// What node-cache sets up on a node (`-setupinterface`, `-setupiptables`), but for its dummy device, which not
/// every kernel has.
const SET_UP: &str = "ip link add nodelocaldns arp off type veth peer name nodelocalend
ip link set nodelocalend up
ip link set nodelocaldns up
for ip in 169.254.20.10 10.96.0.10; do
  ip address add $ip/32 dev nodelocaldns
  for protocol in udp tcp; do
    iptables -t raw -A PREROUTING -d $ip/32 -p $protocol --dport 53 -j NOTRACK
    iptables -t raw -A OUTPUT -d $ip/32 -p $protocol --dport 53 -j NOTRACK
    iptables -t raw -A OUTPUT -s $ip/32 -p $protocol --sport 53 -j NOTRACK
    iptables -A INPUT -d $ip/32 -p $protocol --dport 53 -j ACCEPT
    iptables -A OUTPUT -s $ip/32 -p $protocol --sport 53 -j ACCEPT
  done
done";
/// And what it takes along at its end.
const TEAR_DOWN: &str = "iptables -t raw -F && iptables -F && ip link delete nodelocaldns";

/// Stands at the addresses and answers nobody: what matters is who is asked.
struct Cache {
    own: UdpSocket,
    service: UdpSocket,
    _runtime: tokio::runtime::Runtime,
}

fn on_node(world: &World, script: &str) {
    let output = world.command("node", "sh").args(["-euc", script]).output().expect("it starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

impl Cache {
    fn start(world: &World) -> Self {
        on_node(world, SET_UP);
        let runtime = world.runtime("node");
        let bind = |address: &'static str| {
            // Spawned: this thread is somewhere else.
            let bound = runtime.spawn(async move { UdpSocket::bind((address, 53)) });
            let socket = runtime.block_on(bound).expect("no panic").expect("free");
            socket.set_nonblocking(true).expect("a socket");
            socket
        };
        Self { own: bind(OWN), service: bind(SERVICE), _runtime: runtime }
    }
}

/// Questions that wait there.
fn asked(socket: &UdpSocket) -> usize {
    let mut count = 0;
    loop {
        match socket.recv(&mut [0; 512]) {
            Ok(_) => count += 1,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return count,
            Err(error) => panic!("{error}"),
        }
    }
}

fn question(server: &str) -> String {
    format!("dns://{server}/hello.default.svc.cluster.local")
}

/// Whether a place gets an answer of this server.
fn is_answered(world: &World, place: &str, server: &str) -> bool {
    world.load(place, &["--url", &question(server), "--count", "1"]).ok() == 1
}

fn upstream_service(world: &World) -> String {
    let kube_dns = std::fs::read_to_string(world.manifests().join("kube-dns.yaml"));
    let kube_dns = kube_dns.expect("a world has it");
    let ipv4 = kube_dns.split("---\n").filter(|document| !document.contains("IPv6\nendpoints"));
    let text = ipv4.collect::<Vec<_>>().join("---\n");
    text.replace("kube-dns", "kube-dns-upstream")
        .replace("k8s-app: kube-dns-upstream", "k8s-app: kube-dns")
        .replace("10.96.0.10", UPSTREAM)
        .replace("fd00:10:96::a", "fd00:10:96::77")
}

#[test]
fn questions_to_the_service_pass_it_by_and_those_to_its_own_address_are_left_alone() {
    let world = World::with_pods(1);
    let cache = Cache::start(&world);
    world.apply("kube-dns-upstream.yaml", &upstream_service(&world));
    for place in ["node", PROBE] {
        assert!(!is_answered(&world, place, SERVICE), "{place}: it is not answered by the cache");
        assert!(asked(&cache.service) > 0, "{place}: the cache is asked without Fairlead");
    }
    let agent = world.agent_with(&["--no-ingress", "--dns-listen", "192.168.77.2:53,[fd77::2]:53"]);
    agent.await_ready(&world);
    for place in ["node", PROBE] {
        assert!(is_answered(&world, place, SERVICE), "{place}: {}", agent.log());
        assert_eq!(asked(&cache.service), 0, "{place}: past the cache");
        assert!(!is_answered(&world, place, OWN), "{place}: nobody else answers for it");
        assert!(asked(&cache.own) > 0, "{place}: its own address is its own");
        // As the cache itself asks.
        assert!(is_answered(&world, place, UPSTREAM), "{place}: {}", agent.log());
    }
    drop(cache);
    on_node(&world, TEAR_DOWN);
    let deadline = Instant::now() + PATIENCE;
    for place in ["node", PROBE] {
        while !is_answered(&world, place, SERVICE) {
            assert!(Instant::now() < deadline, "{place}: without the cache: {}", agent.log());
        }
    }
}
