//! `autopath`: a pod's search path is walked in one question, for pods of the own node alone.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fairlead_state::{
    Change,
    model::{Key, Object, Pod},
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, RecordType},
};

use crate::{
    contract::objects,
    forward::{knows, upstream},
    world::{World, ip, query, tcp, text, udp},
};

const A: RecordType = RecordType::A;
/// What a resolver in namespace `demo` makes of `www.example`.
const SEARCHED: &str = "www.example.demo.svc.cluster.local.";

pub fn pod(namespace: &str, name: &str, address: &str) -> Object {
    Object::Pod(Arc::new(Pod {
        key: Key::new(namespace, name),
        ips: [ip(address)].into(),
        node_name: None,
        host_network: false,
    }))
}

async fn corefile(more: &str) -> String {
    format!(
        ".:53 {{\n autopath @kubernetes\n {more}\n kubernetes cluster.local\n cache\n \
         forward . {}\n}}\n",
        upstream(knows).await
    )
}

fn is_found(reply: &Message, asked: &str) -> bool {
    let [alias, rest @ ..] = &reply.answers[..] else { return false };
    let RData::CNAME(target) = &alias.data else { return false };
    alias.name.to_ascii() == asked
        && rest.first().is_some_and(|next| next.name == target.0)
        && rest.iter().any(|record| record.record_type() == A)
}

#[tokio::test]
async fn a_pods_name_is_found_along_its_search_path() {
    let mut things = objects();
    things.push(pod("demo", "client", "127.0.0.1"));
    let world = World::by(&corefile("").await, things).await;
    for _ in 0..2 {
        let reply = world.ask(SEARCHED, A).await;
        assert!(is_found(&reply, SEARCHED), "{reply}");
        assert!(is_found(&tcp(world.v4(), &query(SEARCHED, A)).await, SEARCHED));
    }
    let cases = [
        // In the second domain, in the third, and in any letter case.
        ("kube-dns.kube-system.demo.svc.cluster.local.", "kube-dns.kube-system.svc.cluster.local."),
        (
            "kube-dns.kube-system.svc.demo.svc.cluster.local.",
            "kube-dns.kube-system.svc.cluster.local.",
        ),
        ("WEB.demo.Demo.SVC.cluster.local.", "WEB.demo.svc.cluster.local."),
    ];
    for (asked, found) in cases {
        let reply = world.ask(asked, A).await;
        let target = format!("{asked} CNAME {found}");
        assert!(text(&reply.answers).contains(&target), "{asked}: {reply}");
        assert!(is_found(&reply, asked), "{reply}");
    }
    // The first domain's own answer goes before, and nothing anywhere is the first one's denial.
    let web = world.ask("web.demo.svc.cluster.local.", A).await;
    assert_eq!(text(&web.answers), ["web.demo.svc.cluster.local. A 10.96.0.1"]);
    let none = world.ask("nope.example.demo.svc.cluster.local.", A).await;
    assert_eq!(none.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(none.authorities[0].name.to_ascii(), "cluster.local.");
    // ANY is answered for every name outside without being looked for: that would find anything anywhere.
    let any = world.ask("nope.example.demo.svc.cluster.local.", RecordType::ANY).await;
    let got = (any.metadata.response_code, any.answers.len());
    assert_eq!(got, (ResponseCode::NXDomain, 0), "{any}");
    // No such record is an answer: a resolver would not search on.
    let empty = world.ask("empty.example.demo.svc.cluster.local.", A).await;
    assert_eq!((empty.metadata.response_code, empty.answers.len()), (ResponseCode::NoError, 0));
    let walks: u64 = world.running.counts().sites.iter().map(|site| site.walks).sum();
    assert_eq!(walks, 8);
    world.end().await;
}

#[tokio::test]
async fn nobody_elses_search_path_is_guessed() {
    let elsewhere = pod("demo", "client", "127.0.0.2");
    let host = Object::Pod(Arc::new(Pod {
        host_network: true,
        key: Key::new("demo", "agent"),
        ips: [ip("127.0.0.1")].into(),
        node_name: None,
    }));
    // An address that two pods have, while one takes over from the other.
    let twice = [pod("demo", "old", "127.0.0.1"), pod("other", "new", "127.0.0.1")];
    let other = pod("other", "client", "127.0.0.1");
    for pods in [vec![elsewhere], vec![host], twice.to_vec(), vec![other], vec![]] {
        let world = World::by(&corefile("").await, [objects(), pods.clone()].concat()).await;
        let reply = world.ask(SEARCHED, A).await;
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{pods:?}");
        assert_eq!(world.running.counts().slow_queries, 0, "nothing to walk: {pods:?}");
        world.end().await;
    }
}

#[tokio::test]
async fn a_new_pod_is_known_and_a_gone_one_forgotten() {
    let mut world = World::by(&corefile("").await, objects()).await;
    assert!(!is_found(&world.ask(SEARCHED, A).await, SEARCHED));
    world.apply(vec![Change::Upsert(pod("demo", "client", "127.0.0.1"))]).await;
    assert!(is_found(&world.ask(SEARCHED, A).await, SEARCHED));
    let client = pod("demo", "client", "127.0.0.1");
    world.apply(vec![Change::Delete(client.reference())]).await;
    assert!(!is_found(&world.ask(SEARCHED, A).await, SEARCHED));
    world.end().await;
}

#[tokio::test]
async fn acl_sees_every_name_of_the_path_coredns_8290() {
    let mut things = objects();
    things.push(pod("demo", "client", "127.0.0.1"));
    let rule = "acl www.example {\n block\n }";
    let world = World::by(&corefile(rule).await, things).await;
    let reply = world.ask(SEARCHED, A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain, "{reply}");
    let direct = world.ask("www.example.", A).await;
    assert_eq!(direct.metadata.response_code, ResponseCode::Refused);
    world.end().await;
}

#[tokio::test]
async fn a_search_path_may_come_from_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 192.0.2.1\nsearch first.test Second.TEST.\n").unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let upstream = upstream(move |message| {
        counted.fetch_add(1, Ordering::SeqCst);
        knows(message)
    })
    .await;
    let corefile = format!(
        ".:53 {{\n autopath test {}\n forward . {upstream}\n hosts {{\n 192.0.2.7 a.second.test\n \
         fallthrough\n }}\n}}\n",
        file.display()
    );
    let world = World::by(&corefile, vec![]).await;
    let reply = udp(world.v6(), &query("a.first.test.", A)).await;
    let wanted = ["a.first.test. CNAME a.second.test.", "a.second.test. A 192.0.2.7"];
    assert_eq!(text(&reply.answers), wanted);
    assert_eq!(asked.load(Ordering::SeqCst), 1, "hosts knew the second");
    let reply = udp(world.v6(), &query("www.example.first.test.", A)).await;
    assert!(is_found(&reply, "www.example.first.test."), "{reply}");
    // Not a name the path begins with.
    let reply = world.ask("www.example.second.test.", A).await;
    assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    world.end().await;
}

/// The name was answered by the server block of the pod's own search path, whatever the block said that has it.
#[tokio::test]
async fn attack_a_search_path_is_no_way_around_the_policy_of_another_server_block() {
    let upstream = upstream(knows).await;
    let blocks = |policy: &str| {
        format!(
            "cluster.local:53 {{\n autopath @kubernetes\n kubernetes cluster.local\n forward . \
             {upstream}\n}}\n\
             example:53 {{\n {policy}\n hosts {{\n 192.0.2.7 www.example\n }}\n}}\n"
        )
    };
    for (policy, answers) in [
        ("", &["www.example. A 192.0.2.7"][..]),
        ("acl {\n block\n }", &[]),
        ("acl {\n filter\n }", &[]),
        ("acl {\n drop\n }", &[]),
        ("view nobody {\n expr client_ip() == '192.0.2.1'\n }", &[]),
        ("rewrite name www.example none.example", &[]),
    ] {
        let mut things = objects();
        things.push(pod("demo", "client", "127.0.0.1"));
        let world = World::by(&blocks(policy), things).await;
        let reply = world.ask(SEARCHED, A).await;
        let expected = match answers {
            [] => ResponseCode::NXDomain,
            _ => ResponseCode::NoError,
        };
        assert_eq!(reply.metadata.response_code, expected, "{policy}: {reply}");
        let found: Vec<_> =
            reply.answers.iter().filter(|record| record.record_type() == A).cloned().collect();
        assert_eq!(text(&found), answers, "{policy}");
        world.end().await;
    }
}
