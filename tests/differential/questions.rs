//! Questions: names that exist, near misses, odd cases, all types, classes and options, over UDP and TCP.

mod names;
mod ways;

use std::{fmt, net::SocketAddr, time::Duration};

use hickory_proto::{
    op::Message,
    rr::{Name, RData, RecordType},
    serialize::binary::BinEncodable,
};
use tokio::time::timeout;

use crate::{cluster::Touched, random::Random, setups::Setup};

/// Types that mean something here, some of them often, and some that nothing is known of.
const TYPES: [u16; 22] =
    [1, 1, 1, 28, 28, 33, 33, 33, 12, 5, 16, 2, 6, 15, 65, 255, 64, 13, 43, 257, 0, 65280];
/// As objects change now and then only.
const PIPELINED_ATTEMPTS_MAX: usize = 5;
const IN: u16 = 1;
const CHAOS: u16 = 3;
const HESIOD: u16 = 4;

/// What a client says by its OPT record (RFC 6891).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    pub(crate) size: u16,
    pub(crate) version: u8,
    pub(crate) dnssec_ok: bool,
    /// Codes and contents.
    pub(crate) options: Vec<(u16, Vec<u8>)>,
}

/// How a question comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Udp,
    Tcp,
    /// Several times on one connection, before any reply is read.
    Pipelined,
}

/// One question.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub(crate) name: String,
    pub(crate) rtype: RecordType,
    pub(crate) class: u16,
    pub(crate) opcode: u8,
    /// RD, AD and CD.
    pub(crate) flags: [bool; 3],
    pub(crate) edns: Option<Edns>,
    pub(crate) way: Way,
}

/// How a reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Of the whole reply.
    pub(crate) bytes: usize,
    /// Of the datagram before it, if that was cut.
    pub(crate) cut_bytes: Option<usize>,
}

/// What both said.
#[derive(Debug)]
pub(crate) struct Replies {
    pub(crate) theirs: Message,
    pub(crate) ours: Message,
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, rtype, class, opcode, flags: [rd, ad, cd], edns, way } = self;
        write!(f, "{name} {rtype} class {class} opcode {opcode} rd {rd} ad {ad} cd {cd} {way:?}")?;
        edns.iter().try_for_each(|edns| write!(f, " {edns:?}"))
    }
}

impl Question {
    pub(crate) fn any(setup: &Setup, random: &mut Random) -> Self {
        let name = names::any(setup, random);
        Self::about(name, random)
    }

    /// One that a change of this Service may answer otherwise.
    pub(crate) fn below((namespace, service): Touched, random: &mut Random) -> Self {
        let name = match random.below(6) {
            0 => names::reverse(random),
            _ => names::below(namespace, service, random),
        };
        let mut question = Self::about(name, random);
        (question.class, question.opcode) = (IN, 0);
        question
    }

    fn about(name: String, random: &mut Random) -> Self {
        let mut name = name;
        if random.one_in(8) {
            name = name
                .chars()
                .map(|c| if random.one_in(2) { c.to_ascii_uppercase() } else { c })
                .collect();
        }
        let reverse = name.to_ascii_lowercase().ends_with("arpa.");
        let rtype = if reverse && !random.one_in(4) { 12 } else { *random.of(&TYPES) };
        let class = match random.below(60) {
            0 => *random.of(&[CHAOS, HESIOD, 254, 255, 0]),
            _ => IN,
        };
        // NOTIFY, STATUS, UPDATE.
        let opcode = if random.one_in(200) { *random.of(&[4, 2, 5]) } else { 0 };
        let way = match random.below(24) {
            0 => Way::Tcp,
            1 => Way::Pipelined,
            _ => Way::Udp,
        };
        Self {
            name,
            rtype: rtype.into(),
            class,
            opcode,
            flags: [!random.one_in(40), random.one_in(6), random.one_in(20)],
            edns: random.one_in(2).then(|| Edns::any(random)),
            way,
        }
    }

    /// Whether so many bytes are more than the client takes by UDP. By TCP there is room for all.
    pub(crate) fn lacks_room(&self, bytes: usize, most: usize) -> bool {
        let size = self.edns.as_ref().map_or(0, |edns| usize::from(edns.size));
        bytes > size.clamp(512, most)
    }

    /// By UDP, without EDNS.
    pub(crate) fn plain(name: &str, rtype: RecordType) -> Self {
        Self {
            name: name.to_owned(),
            rtype,
            class: IN,
            opcode: 0,
            flags: [true, false, false],
            edns: None,
            way: Way::Udp,
        }
    }

    /// Asks both, and says how our reply came; a cut reply is fetched again over TCP.
    pub(crate) async fn ask(&self, theirs: SocketAddr, ours: SocketAddr) -> (Replies, Arrival) {
        let (theirs, (ours, arrival)) = tokio::join!(self.ask_one(theirs), self.fetch(ours));
        (Replies { theirs, ours }, arrival)
    }

    pub(crate) async fn ask_one(&self, server: SocketAddr) -> Message {
        self.fetch(server).await.0
    }

    async fn fetch(&self, server: SocketAddr) -> (Message, Arrival) {
        let message = self.bytes(7);
        let mut cut_bytes = None;
        let (reply, bytes) = match self.way {
            Way::Udp => {
                let (reply, bytes) = ways::udp(server, &message).await;
                if reply.metadata.truncation {
                    cut_bytes = Some(bytes);
                    ways::tcp(server, &[message]).await.remove(0)
                } else {
                    (reply, bytes)
                }
            }
            Way::Tcp => ways::tcp(server, &[message]).await.remove(0),
            Way::Pipelined => self.ask_pipelined(server).await,
        };
        (reply, Arrival { bytes, cut_bytes })
    }

    /// The reply to three in a row, which are the same unless objects changed between them: then they are asked again.
    async fn ask_pipelined(&self, server: SocketAddr) -> (Message, usize) {
        let mut replies = vec![];
        for _ in 0..PIPELINED_ATTEMPTS_MAX {
            replies = ways::tcp(server, &[7, 8, 9].map(|id| self.bytes(id))).await;
            replies.sort_by_key(|(reply, _)| reply.metadata.id);
            let ids: Vec<_> = replies.iter().map(|(reply, _)| reply.metadata.id).collect();
            assert_eq!(ids, [7, 8, 9], "{server}: {self}");
            let count =
                |(reply, _): &(Message, usize)| (reply.metadata.response_code, reply.answers.len());
            if replies.iter().all(|reply| count(reply) == count(&replies[0])) {
                return replies.remove(0);
            }
        }
        panic!("{server}: {self}: {replies:#?}");
    }

    fn bytes(&self, id: u16) -> Vec<u8> {
        let [rd, ad, cd] = self.flags.map(u8::from);
        let mut bytes = id.to_be_bytes().to_vec();
        bytes.extend([self.opcode << 3 | rd, ad << 5 | cd << 4, 0, 1, 0, 0, 0, 0, 0]);
        bytes.push(u8::from(self.edns.is_some()));
        bytes.extend(Name::from_ascii(&self.name).unwrap().to_bytes().unwrap());
        bytes.extend(u16::from(self.rtype).to_be_bytes());
        bytes.extend(self.class.to_be_bytes());
        if let Some(edns) = &self.edns {
            edns.put(&mut bytes);
        }
        bytes
    }
}

impl Edns {
    fn any(random: &mut Random) -> Self {
        let mut options = vec![];
        for _ in 0..random.below(3) {
            options.push(
                random
                    .of(&[
                        // NSID, a cookie, padding, keep-alive, one of nobody's, 192.0.2.0/24.
                        (3, vec![]),
                        (10, vec![1, 2, 3, 4, 5, 6, 7, 8]),
                        (12, vec![0; 20]),
                        (11, vec![]),
                        (65001, b"anything".to_vec()),
                        (8, vec![0, 1, 24, 0, 192, 0, 2]),
                    ])
                    .clone(),
            );
        }
        options.sort();
        options.dedup();
        Self {
            size: *random.of(&[0, 512, 512, 700, 1232, 1232, 1400, 4096, 65535]),
            version: if random.one_in(30) { 1 } else { 0 },
            dnssec_ok: random.one_in(4),
            options,
        }
    }

    fn put(&self, bytes: &mut Vec<u8>) {
        let options = self.options.iter().flat_map(|(code, data)| {
            let length = u16::try_from(data.len()).unwrap();
            [&code.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
        });
        let options: Vec<u8> = options.collect();
        bytes.extend([0, 0, 41]);
        bytes.extend(self.size.to_be_bytes());
        bytes.extend([0, self.version, u8::from(self.dnssec_ok) << 7, 0]);
        bytes.extend(u16::try_from(options.len()).unwrap().to_be_bytes());
        bytes.extend(options);
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
