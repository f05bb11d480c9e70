//! A small cluster and a client.

use std::{
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use fairlead_dns::{DnsConfig, Running, Upstreams, corefile::Corefile, start};
use fairlead_state::{
    Change, Snapshot, Store,
    model::{
        Endpoint, EndpointPort, EndpointSlice, Key, Kind, Namespace, Object, Protocol, Rare,
        Service, ServiceExtras, ServicePort, ServiceType, TrafficPolicy,
    },
    store::Snapshots,
};
use hickory_proto::{
    op::{Message, Query},
    rr::{Name, RData, Record, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Longest wait for anything that must happen.
pub const PATIENCE: Duration = Duration::from_secs(10);

pub struct World {
    pub config: DnsConfig,
    pub running: Running,
    pub store: Store,
    pub cancel: CancellationToken,
}

impl World {
    /// A server that has read `objects`.
    pub async fn with(objects: Vec<Object>, upstreams: Vec<SocketAddr>) -> Self {
        let world = Self::unsynced(&DnsConfig {
            listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
            upstreams: Upstreams::Addresses(upstreams),
            threads: Some(2),
            ..DnsConfig::default()
        });
        world.synced(objects).await
    }

    /// A server that waits for its first snapshot.
    pub fn unsynced(config: &DnsConfig) -> Self {
        let (store, snapshots): (Store, Snapshots) = Store::new([Kind::Service]);
        let cancel = CancellationToken::new();
        let running = start(config, snapshots, cancel.clone()).unwrap();
        Self { config: config.clone(), running, store, cancel }
    }

    /// A server by a Corefile that has read `objects`.
    pub async fn by(corefile: &str, objects: Vec<Object>) -> Self {
        Self::unsynced(&by(corefile)).synced(objects).await
    }

    pub async fn synced(mut self, objects: Vec<Object>) -> Self {
        let (services, others): (Vec<_>, Vec<_>) =
            objects.into_iter().partition(|object| object.kind() == Kind::Service);
        let replace = Change::Replace { kind: Kind::Service, objects: services, refused: vec![] };
        let others = others.into_iter().map(Change::Upsert);
        self.apply(others.chain([replace]).collect()).await;
        self
    }

    /// Applies changes and waits until the server answers by them.
    pub async fn apply(&mut self, changes: Vec<Change>) {
        let mut revisions = self.running.revisions();
        revisions.mark_unchanged();
        assert!(self.store.apply(changes), "nothing changed");
        let caught_up = timeout(PATIENCE, revisions.changed()).await;
        caught_up.expect("the zone follows the snapshot").unwrap();
    }

    /// Answers by what an earlier run kept, from when this returns.
    pub async fn standing_in(&self, kept: Arc<Snapshot>) {
        self.running.stand_in(kept);
        let stands_in = async {
            while !self.running.stands_in() {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, stands_in).await.expect("names stand in");
    }

    pub fn v4(&self) -> SocketAddr {
        self.running.addresses()[0]
    }

    pub fn v6(&self) -> SocketAddr {
        self.running.addresses()[1]
    }

    pub async fn ask(&self, name: &str, rtype: RecordType) -> Message {
        udp(self.v4(), &query(name, rtype)).await
    }

    pub async fn end(self) {
        self.cancel.cancel();
        timeout(PATIENCE, self.running.join()).await.expect("threads and tasks end");
    }
}

/// A Corefile's settings, on free ports.
pub fn by(corefile: &str) -> DnsConfig {
    let corefile = Corefile::parse(Path::new("Corefile"), corefile, &|_| None).unwrap();
    DnsConfig {
        listen: vec!["127.0.0.1:0".parse().unwrap(), "[::1]:0".parse().unwrap()],
        corefile: Some(Arc::new(corefile)),
        threads: Some(2),
        ..DnsConfig::default()
    }
}

/// A query that wants recursion, with a random id.
pub fn query(name: &str, rtype: RecordType) -> Message {
    let mut message = Message::query();
    message.metadata.recursion_desired = true;
    message.queries.push(Query::query(Name::from_ascii(name).unwrap(), rtype));
    message
}

pub async fn udp(server: SocketAddr, query: &Message) -> Message {
    let bytes = udp_bytes(server, &query.to_vec().unwrap()).await;
    let reply = Message::from_vec(&bytes).unwrap();
    assert_eq!(reply.metadata.id, query.metadata.id);
    assert_eq!(reply.queries, query.queries);
    reply
}

/// Sends a datagram and returns the reply; the socket is connected, so it must come from the
/// address asked.
pub async fn udp_bytes(server: SocketAddr, query: &[u8]) -> Vec<u8> {
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" });
    let socket = socket.await.unwrap();
    socket.connect(server).await.unwrap();
    socket.send(query).await.unwrap();
    let mut buffer = vec![0; 65535];
    let received = timeout(PATIENCE, socket.recv(&mut buffer)).await.expect("a reply").unwrap();
    buffer.truncate(received);
    buffer
}

pub async fn tcp(server: SocketAddr, query: &Message) -> Message {
    let mut stream = TcpStream::connect(server).await.unwrap();
    tcp_send(&mut stream, &query.to_vec().unwrap()).await;
    tcp_receive(&mut stream).await
}

pub async fn tcp_send(stream: &mut TcpStream, message: &[u8]) {
    let length = u16::try_from(message.len()).unwrap();
    stream.write_all(&[&length.to_be_bytes(), message].concat()).await.unwrap();
}

pub async fn tcp_receive(stream: &mut TcpStream) -> Message {
    let receive = async {
        let length = stream.read_u16().await.unwrap();
        let mut bytes = vec![0; length.into()];
        stream.read_exact(&mut bytes).await.unwrap();
        bytes
    };
    let bytes = timeout(PATIENCE, receive).await.expect("a reply");
    Message::from_vec(&bytes).unwrap()
}

/// Records as sorted text without TTL: `svc.ns.svc.cluster.local. A 10.0.0.1`.
pub fn text(records: &[Record]) -> Vec<String> {
    let line = |record: &Record| {
        format!("{} {} {}", record.name, record.record_type(), data(&record.data))
    };
    let mut lines: Vec<_> = records.iter().map(line).collect();
    lines.sort();
    lines
}

fn data(data: &RData) -> String {
    match data {
        RData::SOA(soa) => format!("{} {}", soa.mname, soa.rname),
        data => data.to_string(),
    }
}

pub fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn namespace(name: &str) -> Object {
    Object::Namespace(Arc::new(Namespace { key: Key::new("", name), labels: [].into() }))
}

/// A ClusterIP Service; headless without addresses.
pub fn service(namespace: &str, name: &str, ips: &[&str], ports: &[(&str, u16)]) -> Object {
    Object::Service(Arc::new(plain_service(namespace, name, ips, ports)))
}

pub fn external(namespace: &str, name: &str, target: &str) -> Object {
    let service = plain_service(namespace, name, &[], &[]);
    Object::Service(Arc::new(Service {
        service_type: ServiceType::ExternalName,
        headless: false,
        extras: ServiceExtras { external_name: Some(target.into()), ..ServiceExtras::default() }
            .into(),
        ..service
    }))
}

fn plain_service(namespace: &str, name: &str, ips: &[&str], ports: &[(&str, u16)]) -> Service {
    let port = |(name, port): &(&str, u16)| ServicePort {
        name: (*name).into(),
        protocol: Protocol::Tcp,
        port: *port,
        node_port: None,
        target_port: None,
        app_protocol: None,
    };
    Service {
        key: Key::new(namespace, name),
        created_seconds: 0,
        service_type: ServiceType::ClusterIp,
        cluster_ips: ips.iter().map(|address| ip(address)).collect(),
        headless: ips.is_empty(),
        ports: ports.iter().map(port).collect(),
        extras: Rare::default(),
        internal_traffic_policy: TrafficPolicy::Cluster,
        external_traffic_policy: TrafficPolicy::Cluster,
        publish_not_ready_addresses: false,
        traffic_distribution: None,
        headless_label: false,
    }
}

/// An EndpointSlice of `service`: address, hostname (may be empty), ready.
pub fn slice(
    namespace: &str,
    service: &str,
    name: &str,
    ports: &[(&str, u16)],
    endpoints: &[(&str, &str, bool)],
) -> Object {
    let port = |(name, port): &(&str, u16)| EndpointPort {
        name: (*name).into(),
        protocol: Protocol::Tcp,
        port: *port,
        app_protocol: None,
    };
    let endpoint = |(address, hostname, ready): &(&str, &str, bool)| Endpoint {
        addresses: [ip(address)].into(),
        ready: *ready,
        serving: *ready,
        terminating: false,
        hostname: (!hostname.is_empty()).then(|| (*hostname).into()),
        node_name: None,
        zone: None,
        hints: Rare::default(),
        pod: None,
    };
    Object::EndpointSlice(Arc::new(EndpointSlice {
        key: Key::new(namespace, name),
        service: Key::new(namespace, service),
        ipv6: endpoints.first().is_some_and(|(address, ..)| address.contains(':')),
        ports: ports.iter().map(port).collect(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        headless_label: false,
        trigger_time_ms: None,
        import: None,
        left_out: None,
    }))
}
