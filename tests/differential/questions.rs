//! Questions: names that exist, near misses, odd cases, all types, with and without EDNS, UDP and TCP.

use std::{fmt, net::SocketAddr, time::Duration};

use hickory_proto::{
    op::{Edns, Message, Query},
    rr::{Name, RData, RecordType},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use crate::cluster::{Cluster, HOSTS, NAMESPACES, PORTS, Random, SERVICES, ZONES};

const PATIENCE: Duration = Duration::from_secs(10);
const TYPES: [RecordType; 13] = [
    RecordType::A,
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::NS,
    RecordType::SOA,
    RecordType::MX,
    RecordType::HTTPS,
    RecordType::ANY,
];

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) rtype: RecordType,
    /// The client's UDP size, if it speaks EDNS.
    edns: Option<u16>,
    /// It wants signatures, which nobody has.
    dnssec_ok: bool,
    tcp: bool,
}

/// What both said.
#[derive(Debug)]
pub(crate) struct Replies {
    pub(crate) theirs: Message,
    pub(crate) ours: Message,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rtype, edns, dnssec_ok, tcp } = self;
        write!(f, "{name} {rtype} edns {edns:?} do {dnssec_ok} tcp {tcp}")
    }
}

impl Question {
    pub(crate) fn any(_: &Cluster<'_>, random: &mut Random) -> Self {
        let mut name = any_name(random);
        if random.one_in(8) {
            name = name
                .chars()
                .map(|c| if random.one_in(2) { c.to_ascii_uppercase() } else { c })
                .collect();
        }
        let reverse = name.to_ascii_lowercase().ends_with("arpa.");
        let rtype = if reverse && !random.one_in(4) { RecordType::PTR } else { *random.of(&TYPES) };
        let edns = random.one_in(2).then(|| *random.of(&[512, 1232, 4096]));
        let dnssec_ok = edns.is_some() && random.one_in(4);
        Self { name, rtype, edns, dnssec_ok, tcp: random.one_in(8) }
    }

    /// Whether so many bytes are more than the client takes by UDP. By TCP there is room for all.
    pub(crate) fn lacks_room(&self, bytes: usize) -> bool {
        bytes > usize::from(self.edns.unwrap_or(0).clamp(512, 1232))
    }

    /// By UDP, without EDNS.
    pub(crate) fn plain(name: &str, rtype: RecordType) -> Self {
        Self { name: name.to_owned(), rtype, edns: None, dnssec_ok: false, tcp: false }
    }

    /// Asks both; a cut reply is fetched again over TCP.
    pub(crate) async fn ask(&self, theirs: SocketAddr, ours: SocketAddr) -> Replies {
        let (theirs, ours) = tokio::join!(self.ask_one(theirs), self.ask_one(ours));
        Replies { theirs, ours }
    }

    pub(crate) async fn ask_one(&self, server: SocketAddr) -> Message {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.queries.push(Query::query(Name::from_ascii(&self.name).unwrap(), self.rtype));
        if let Some(size) = self.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            edns.set_dnssec_ok(self.dnssec_ok);
            message.edns = Some(edns);
        }
        if self.tcp {
            return tcp(server, &message).await;
        }
        let reply = udp(server, &message).await;
        if reply.metadata.truncation { tcp(server, &message).await } else { reply }
    }
}

fn any_name(random: &mut Random) -> String {
    let namespace = match random.below(8) {
        0 => "nope",
        1 => "kube-system",
        _ => random.of(&NAMESPACES),
    };
    let service = if random.one_in(8) { "nope" } else { random.of(&SERVICES) };
    let zone = "cluster.local.";
    let number = random.below(65);
    let proto = *random.of(&["_tcp", "_udp", "_sctp", "_nope"]);
    let port = *random.of(&PORTS);
    match random.below(25) {
        0..=4 => format!("{service}.{namespace}.svc.{zone}"),
        5..=7 => format!("_{port}.{proto}.{service}.{namespace}.svc.{zone}"),
        8 => format!("{}.{service}.{namespace}.svc.{zone}", random.of(&HOSTS)),
        9 => format!("10-1-0-{number}.{service}.{namespace}.svc.{zone}"),
        10 => format!("fd00-1--{number:x}.{service}.{namespace}.svc.{zone}"),
        11 => format!("1-2-3-{number}.{namespace}.pod.{zone}"),
        12 => format!("{number}.0.1.10.in-addr.arpa."),
        13 => format!("{}.0.96.10.in-addr.arpa.", random.below(200)),
        14 => {
            let low = format!("{:x}.{:x}", number % 16, number / 16);
            let middle = "0.".repeat(22);
            format!(
                "{low}.{middle}{}",
                random.of(&["1.0.0.0.0.0.d.f.ip6.arpa.", "6.9.0.0.0.0.d.f.ip6.arpa."])
            )
        }
        15 => format!("{namespace}.svc.{zone}"),
        16 => format!("{namespace}.pod.{zone}"),
        17 => (*random.of(&[
            zone,
            "svc.cluster.local.",
            "pod.cluster.local.",
            "dns-version.cluster.local.",
            "foo.cluster.local.",
            "a.b.foo.cluster.local.",
            "ns.dns.cluster.local.",
            "dns.cluster.local.",
            "fd00--1.demo.pod.cluster.local.",
            "1-2-3-256.demo.pod.cluster.local.",
            "*.demo.svc.cluster.local.",
            "_http._tcp.demo.svc.cluster.local.",
            "_tcp.web.demo.svc.cluster.local.",
            "_._tcp.web.demo.svc.cluster.local.",
        ]))
        .to_owned(),
        18 => (*random.of(&[
            "www.example.",
            "nope.example.",
            "example.",
            "xcluster.local.",
            "local.",
        ]))
        .to_owned(),
        19 => format!("x.{service}.{namespace}.svc.{zone}"),
        20 => format!("a.b.c.{service}.{namespace}.svc.{zone}"),
        21..=22 => {
            let topology = if random.one_in(4) { "two" } else { *random.of(&ZONES) };
            let directive = *random.of(&["pin", "pin", "prefer", "prefer", "near"]);
            format!("{topology}.{directive}._zone.{service}.{namespace}.svc.{zone}")
        }
        23 => {
            let front = *random.of(&["_zone", "pin._zone", "prefer._zone", "near._zone"]);
            format!("{front}.{service}.{namespace}.svc.{zone}")
        }
        _ => format!(
            "www.example.{}",
            random.of(&["demo.svc.cluster.local.", "svc.cluster.local.", zone])
        ),
    }
}

/// The first address a server gives.
pub(crate) async fn ask_a(server: SocketAddr, name: &str) -> Option<String> {
    let question = Question::plain(name, RecordType::A);
    // A server that has just been started may not answer at all.
    let reply = timeout(Duration::from_millis(500), question.ask_one(server)).await.ok()?;
    reply.answers.iter().find_map(|record| match &record.data {
        RData::A(address) => Some(address.to_string()),
        _ => None,
    })
}

async fn udp(server: SocketAddr, message: &Message) -> Message {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    socket.connect(server).await.unwrap();
    let mut buffer = [0; 4096];
    let exchange = async {
        loop {
            // Refused while a server starts.
            let _ = socket.send(&message.to_vec().unwrap()).await;
            if let Ok(received) = socket.recv(&mut buffer).await {
                return received;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let received = timeout(PATIENCE, exchange)
        .await
        .unwrap_or_else(|_| panic!("{server}: no reply to {message}"));
    Message::from_vec(&buffer[..received]).unwrap()
}

async fn tcp(server: SocketAddr, message: &Message) -> Message {
    let bytes = message.to_vec().unwrap();
    let mut stream = TcpStream::connect(server).await.unwrap();
    stream.write_u16(bytes.len().try_into().unwrap()).await.unwrap();
    stream.write_all(&bytes).await.unwrap();
    let length = timeout(PATIENCE, stream.read_u16()).await.expect("a reply").unwrap();
    let mut reply = vec![0; length.into()];
    stream.read_exact(&mut reply).await.unwrap();
    Message::from_vec(&reply).unwrap()
}
