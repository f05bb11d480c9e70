//! What the fast path answers, the slow path answers the same: which of them a question takes must not
//! matter to anyone.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Instant,
};

use arc_swap::ArcSwap;
use futures::FutureExt;
use hickory_proto::{
    op::{Edns, Message, OpCode, Query, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, CNAME, SOA, opt::EdnsOption},
    },
};
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::runtime::Runtime;
use tokio_util::task::TaskTracker;

use super::{Asked, SlowPath};
use crate::{
    answer::{Outcome, Plain, at_once, rotation},
    cache::{Entry, Flavour},
    corefile::Corefile,
    counters::{Counters, Ledgers, Plugin, Registry, Way},
    fuzzing::ZONE,
    policy::{Asking, Policy},
    wire::{
        name::{LowerName, WireName},
        question::{Question, Shape},
    },
};

const CASES: u32 = 4096;
const REPLY_BYTES_MAX: usize = u16::MAX as usize;

/// kubeadm's, but that nothing is asked of anybody, and kept answers are told as they were.
const KUBEADM: &str = ".:53 {
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 30
    }
    forward . 192.0.2.53
    cache 3600 {
        keepttl
    }
    loadbalance
}
";

/// What changes questions and replies on their way, or has them answered by another.
const PLUGINS: &str = ".:53 {
    acl demo.svc.cluster.local {
        block type MX
        filter type TXT
    }
    hosts HOSTS {
        192.0.2.8 host.example
        fallthrough
    }
    header {
        response set aa
        response clear ra
    }
    nsid this-server
    bufsize 600
    minimal
    any
    dns64
    rewrite name exact moved.example web.demo.svc.cluster.local
    template IN AAAA example {
        rcode NXDOMAIN
    }
    template IN HTTPS . {
        rcode NOERROR
    }
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
    }
    forward . 192.0.2.53
    cache 3600 {
        keepttl
    }
    loadbalance {
        prefer 10.1.0.4/32
    }
}
a.example:53 {
    view seldom {
        expr type() in ['A', 'MX']
    }
    forward . 192.0.2.53
    cache 3600 {
        keepttl
    }
}
";

/// Names there are, near misses, and others' names, of which some are kept.
const NAMES: [&str; 34] = [
    "web.demo.svc.cluster.local.",
    "_http._tcp.web.demo.svc.cluster.local.",
    "_dns._udp.web.demo.svc.cluster.local.",
    "_http._udp.web.demo.svc.cluster.local.",
    "_tcp.web.demo.svc.cluster.local.",
    "10-1-0-1.web.demo.svc.cluster.local.",
    "db.demo.svc.cluster.local.",
    "_pg._tcp.db.demo.svc.cluster.local.",
    "db-0.db.demo.svc.cluster.local.",
    "db-1.db.demo.svc.cluster.local.",
    "fd00-1--0.db.demo.svc.cluster.local.",
    "nope.demo.svc.cluster.local.",
    "demo.svc.cluster.local.",
    "nope.svc.cluster.local.",
    "svc.cluster.local.",
    "pod.cluster.local.",
    "10-9-8-7.demo.pod.cluster.local.",
    "fd00--7.demo.pod.cluster.local.",
    "nope.demo.pod.cluster.local.",
    "cluster.local.",
    "dns-version.cluster.local.",
    "ns.dns.cluster.local.",
    "foo.cluster.local.",
    "1.0.96.10.in-addr.arpa.",
    "2.0.1.10.in-addr.arpa.",
    "9.9.9.10.in-addr.arpa.",
    "1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.d.f.ip6.arpa.",
    "www.example.",
    "web.example.",
    "nope.example.",
    "moved.example.",
    "host.example.",
    "b.a.example.",
    ".",
];
const TYPES: [RecordType; 12] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::CNAME,
    RecordType::TXT,
    RecordType::NS,
    RecordType::SOA,
    RecordType::MX,
    RecordType::HTTPS,
    RecordType::ANY,
    RecordType::Unknown(4711),
];

/// A question as bytes, and whether it comes by TCP.
fn questions() -> impl Strategy<Value = (Vec<u8>, bool)> {
    let name = (0..NAMES.len(), any::<u64>()).prop_map(|(at, loud)| {
        let letters = NAMES[at].chars().enumerate();
        let mixed = letters.map(|(at, letter)| match (loud >> (at % 64)) & 3 {
            3 => letter.to_ascii_uppercase(),
            _ => letter,
        });
        Name::from_ascii(mixed.collect::<String>()).unwrap()
    });
    let edns = proptest::option::of((0..5000_u16, any::<bool>(), any::<bool>()));
    let flags = (any::<bool>(), any::<bool>(), any::<bool>());
    (name, 0..TYPES.len(), any::<u16>(), edns, flags, any::<bool>()).prop_map(
        |(name, rtype, id, edns, (wants_recursion, wants_ad, unchecked), tcp)| {
            let mut message = Message::query();
            message.metadata.id = id;
            message.metadata.recursion_desired = wants_recursion;
            message.metadata.authentic_data = wants_ad;
            message.metadata.checking_disabled = unchecked;
            message.queries.push(Query::query(name, TYPES[rtype]));
            message.edns = edns.map(|(payload, dnssec_ok, wants_nsid)| {
                let mut edns = Edns::new();
                edns.set_max_payload(payload);
                edns.set_dnssec_ok(dnssec_ok);
                if wants_nsid {
                    edns.options_mut().insert(EdnsOption::Unknown(3, vec![]));
                }
                edns
            });
            (message.to_vec().unwrap(), tcp)
        },
    )
}

/// Both paths of one server.
struct Paths {
    runtime: Runtime,
    policy: Arc<ArcSwap<Policy>>,
    slow: SlowPath,
    counters: Arc<Counters>,
    /// How many questions were compared, by who answered them.
    compared: Mutex<BTreeMap<&'static str, u32>>,
}

impl Paths {
    fn of(corefile: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let context = runtime.enter();
        let corefile = Corefile::parse(Path::new("Corefile"), corefile, &|_| None).unwrap();
        let policy = Policy::new(&corefile, &[], &Ledgers::new([])).unwrap();
        keep_answers(&policy);
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let zone = Arc::new(ArcSwap::from_pointee(ZONE.clone()));
        let tasks = TaskTracker::new();
        let slow = SlowPath::new(runtime.handle().clone(), tasks, policy.clone(), zone);
        let counters = Registry::default().add(Way { tcp: false, ipv6: false }, None);
        drop(context);
        Self { runtime, policy, slow, counters, compared: Mutex::default() }
    }

    /// Whether the slow path agrees, if the fast path has an answer at all.
    fn agree(&self, query: &[u8], tcp: bool) -> Result<(), TestCaseError> {
        let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 5300));
        let mut question = Question::new();
        prop_assert_eq!(question.read(query), Shape::Plain);
        let policy = self.policy.load();
        let asking = Asking { question: &question, query, source, tcp };
        let Some(site) = policy.site(0, asking) else { return Ok(()) };
        let limit = match tcp {
            true => REPLY_BYTES_MAX,
            false => question.udp_reply_bytes_max().min(site.udp_bytes_max),
        };
        // As the slow path turns, which has no count of its own.
        let id = u16::from_be_bytes([query[0], query[1]]);
        let plain = Plain { asking, limit, rotation: rotation(id.into()), book: None };
        let mut buffer = vec![0; REPLY_BYTES_MAX];
        let Outcome::Reply(made) = at_once(site, &ZONE, plain, &mut buffer) else { return Ok(()) };
        let fast = &buffer[..made.bytes];
        let place = self.slow.place(source.ip(), &self.counters).expect("nobody else asks");
        let asked = Asked::new(query, source, tcp, 0);
        let slow = self.runtime.block_on(self.slow.reply(asked, &place, &self.counters));
        let slow = slow.expect("what is answered at once is not dropped");
        prop_assert_eq!(seen(&slow), seen(fast));
        prop_assert!(slow.len() <= limit, "{} of {limit} bytes", slow.len());
        *self.compared.lock().unwrap().entry(made.by.as_str()).or_default() += 1;
        Ok(())
    }
}

/// Upstreams have said something of these.
fn keep_answers(policy: &Policy) {
    let name = |text: &str| Name::from_ascii(text).unwrap();
    let address = |text: &str, last| {
        let data = RData::A(A(Ipv4Addr::new(192, 0, 2, last)));
        Record::from_rdata(name(text), 300, data)
    };
    let alias =
        Record::from_rdata(name("www.example."), 60, RData::CNAME(CNAME(name("web.example."))));
    let soa = SOA::new(name("ns.example."), name("admin.example."), 1, 2, 3, 4, 77);
    let soa = Record::from_rdata(name("example."), 77, RData::SOA(soa));
    let addresses = (1..4).map(|last| address("web.example.", last));
    let web: Vec<_> = addresses.collect();
    let kept = [
        ("www.example.", RecordType::A, [vec![alias], web.clone()].concat(), vec![]),
        ("web.example.", RecordType::A, web, vec![]),
        ("b.a.example.", RecordType::A, vec![address("b.a.example.", 9)], vec![]),
        ("www.example.", RecordType::MX, vec![], vec![soa.clone()]),
        ("nope.example.", RecordType::A, vec![], vec![soa]),
    ];
    for (text, rtype, answers, authorities) in kept {
        let mut lower = LowerName::new();
        lower.read(WireName::from_text(text).unwrap().as_bytes()).unwrap();
        let mut reply = Message::response(1, OpCode::Query);
        if text.starts_with("nope") {
            reply.metadata.response_code = ResponseCode::NXDomain;
        }
        reply.queries.push(Query::query(name(text), rtype));
        (reply.answers, reply.authorities) = (answers, authorities);
        for (dnssec_ok, checking_disabled) in
            [(false, false), (false, true), (true, false), (true, true)]
        {
            let flavour = Flavour { dnssec_ok, checking_disabled, subnet: None };
            let entry = || Entry::new(&lower, rtype.into(), flavour, &reply, Instant::now());
            for cache in policy.sites().filter_map(|site| site.cache.as_ref()) {
                cache.insert(&lower, entry().expect("it may be kept"));
            }
        }
    }
}

/// All that a client sees of a reply, letter case included.
fn seen(reply: &[u8]) -> String {
    let message = Message::from_vec(reply).unwrap();
    let records =
        |records: &[Record]| -> Vec<String> { records.iter().map(Record::to_string).collect() };
    let question = message.queries.iter().map(|query| query.name().to_ascii());
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        message.metadata,
        question.collect::<Vec<_>>(),
        records(&message.answers),
        records(&message.authorities),
        records(&message.additionals),
        message.edns,
    )
}

fn paths_agree(corefile: &str, answering: &[Plugin]) {
    let paths = Paths::of(corefile);
    let mut runner = TestRunner::new(ProptestConfig::with_cases(CASES));
    runner.run(&questions(), |(query, tcp)| paths.agree(&query, tcp)).unwrap();
    let compared = paths.compared.lock().unwrap();
    for plugin in answering {
        let count = compared.get(plugin.as_str()).copied().unwrap_or(0);
        assert!(count > 0, "{count} answers of {}: {compared:?}", plugin.as_str());
    }
}

/// Only those of UDP threads were counted, and nobody was answered.
#[test]
fn a_question_that_makes_its_task_panic_is_counted_and_answered_with_a_failure() {
    let paths = Paths::of(KUBEADM);
    let mut asked = Message::query();
    asked.queries.push(Query::query(Name::from_ascii("wWw.nobody.").unwrap(), RecordType::A));
    let (query, source) = (asked.to_vec().unwrap(), SocketAddr::from((Ipv4Addr::LOCALHOST, 5300)));
    let place = paths.slow.place(source.ip(), &paths.counters).expect("nobody else asks");
    let replying = paths.slow.reply(Asked::new(&query, source, false, 0), &place, &paths.counters);
    // Outside of a runtime nobody can wait for an upstream.
    let reply = replying.now_or_never().flatten().expect("a reply");
    let reply = Message::from_vec(&reply).unwrap();
    assert_eq!(reply.metadata.response_code, ResponseCode::ServFail, "{reply}");
    assert_eq!((reply.metadata.id, reply.queries), (asked.metadata.id, asked.queries));
    assert_eq!(paths.counters.panics.load(Ordering::Relaxed), 1);
}

#[test]
fn both_paths_answer_alike_by_kubeadms_corefile() {
    paths_agree(KUBEADM, &[Plugin::Kubernetes, Plugin::Cache]);
}

#[test]
fn both_paths_answer_alike_with_plugins_that_change_answers() {
    let hosts = tempfile::NamedTempFile::new().unwrap();
    let corefile = PLUGINS.replace("HOSTS", &hosts.path().display().to_string());
    paths_agree(&corefile, &[Plugin::Kubernetes, Plugin::Cache, Plugin::Template]);
}
