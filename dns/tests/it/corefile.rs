//! Corefiles at work: what CoreDNS would answer by the same file.

use std::{net::SocketAddr, sync::Arc};

use fairlead_dns::{DnsError, DropReason};
use fairlead_state::{
    Change,
    model::{Endpoint, EndpointSlice, Labels, Namespace, Object, Service, ServiceExtras},
};
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::time::timeout;

use crate::{
    contract::objects,
    forward::{address, knows, reply_to, upstream},
    world::{PATIENCE, World, by, external, namespace, query, service, text, udp},
};

const YES: ResponseCode = ResponseCode::NoError;
const NO: ResponseCode = ResponseCode::NXDomain;
const WEB: &str = "web.demo.svc.cluster.local.";

/// kubeadm's, with another upstream.
fn kubeadm(upstream: SocketAddr) -> String {
    format!(
        ".:53 {{
    errors
    health {{
       lameduck 5s
    }}
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {{
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }}
    prometheus :9153
    forward . {upstream} {{
       max_concurrent 1000
    }}
    cache 30 {{
       disable success cluster.local
       disable denial cluster.local
    }}
    loop
    reload
    loadbalance
}}
"
    )
}

/// An upstream that answers every A question with one address.
pub async fn always(last: u8) -> SocketAddr {
    upstream(move |asked| {
        let name = asked.queries[0].name().to_ascii();
        let mut reply = reply_to(asked, YES);
        reply.answers = vec![address(&name, 60, last)];
        vec![reply]
    })
    .await
}

async fn code(world: &World, name: &str, rtype: RecordType) -> ResponseCode {
    world.ask(name, rtype).await.metadata.response_code
}

fn first(reply: &Message) -> String {
    text(&reply.answers).first().cloned().unwrap_or_default()
}

#[tokio::test]
async fn kubeadms_corefile_answers_what_coredns_would() {
    let world = World::by(&kubeadm(upstream(knows).await), objects()).await;
    let reply = world.ask(WEB, RecordType::A).await;
    assert_eq!(
        (first(&reply).as_str(), reply.answers[0].ttl),
        (&*format!("{WEB} A 10.96.0.1"), 30)
    );
    assert_eq!(code(&world, "nope.demo.svc.cluster.local.", RecordType::A).await, NO);
    let pod = world.ask("1-2-3-4.demo.pod.cluster.local.", RecordType::A).await;
    assert_eq!(pod.answers.len(), 1);
    // Not an address of the cluster: fallthrough to the upstream.
    let reverse = world.ask("1.2.0.192.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(first(&reverse), "1.2.0.192.in-addr.arpa. PTR www.example.");
    // `cache 30` caps what is told.
    let www = world.ask("www.example.", RecordType::A).await;
    assert_eq!(www.answers.len(), 2, "{www}");
    assert!(www.answers.iter().all(|record| record.ttl <= 30), "{www}");
    assert_eq!(code(&world, "nope.example.", RecordType::A).await, NO);
    world.end().await;
}

#[tokio::test]
async fn the_longest_zone_of_a_stub_domain_answers_cve_2026_33489() {
    let (all, corp, deep) = (always(1).await, always(2).await, always(3).await);
    let corefile = format!(
        "a.corp.example:53 {{\n forward . {deep}\n}}\n\
         .:53 {{\n kubernetes cluster.local\n forward . {all}\n}}\n\
         corp.example {{\n forward . {corp}\n cache\n}}\n"
    );
    let mut things = objects();
    things.push(external("demo", "stub", "host.corp.example"));
    let world = World::by(&corefile, things).await;
    let cases = [
        ("www.example.", "192.0.2.1"),
        ("corp.example.", "192.0.2.2"),
        ("x.corp.example.", "192.0.2.2"),
        // Compared by labels, not by letters.
        ("notcorp.example.", "192.0.2.1"),
        ("x.a.corp.example.", "192.0.2.3"),
        ("A.CORP.example.", "192.0.2.3"),
    ];
    for (name, ip) in cases {
        let reply = world.ask(name, RecordType::A).await;
        assert_eq!(first(&reply), format!("{name} A {ip}"));
    }
    // An alias out of the zone goes where its target's name is answered.
    let alias = world.ask("stub.demo.svc.cluster.local.", RecordType::A).await;
    assert_eq!(text(&alias.answers)[0], "host.corp.example. A 192.0.2.2");
    world.end().await;
}

#[tokio::test]
async fn forward_leaves_out_exceptions_and_names_outside_its_zone() {
    let all = always(1).await;
    let corefile = format!(
        ".:53 {{\n forward example {all} {{\n  except secret.example\n  policy sequential\n }}\n}}\n"
    );
    let world = World::by(&corefile, vec![]).await;
    assert_eq!(code(&world, "www.example.", RecordType::A).await, YES);
    for name in ["secret.example.", "x.secret.example.", "other.test."] {
        assert_eq!(code(&world, name, RecordType::A).await, ResponseCode::Refused, "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn names_no_server_block_is_for_are_refused() {
    let corefile = "cluster.local:53 {\n kubernetes\n}\n";
    let world = World::by(corefile, objects()).await;
    assert_eq!(code(&world, WEB, RecordType::A).await, YES);
    assert_eq!(code(&world, "www.example.", RecordType::A).await, ResponseCode::Refused);
    assert_eq!(
        code(&world, "1.0.96.10.in-addr.arpa.", RecordType::PTR).await,
        ResponseCode::Refused
    );
    world.end().await;
}

#[tokio::test]
async fn without_fallthrough_the_zones_end_what_they_do_not_know() {
    let all = always(1).await;
    let corefile = format!(
        ".:53 {{\n kubernetes cluster.local 10.0.0.0/8 in-addr.arpa {{\n pods disabled\n }}\n forward . {all}\n}}\n"
    );
    let world = World::by(&corefile, objects()).await;
    let known = world.ask("1.0.96.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(first(&known), "1.0.96.10.in-addr.arpa. PTR web.demo.svc.cluster.local.");
    let unknown = world.ask("9.9.96.10.in-addr.arpa.", RecordType::PTR).await;
    assert_eq!(unknown.metadata.response_code, NO);
    assert_eq!(unknown.authorities[0].name.to_ascii(), "10.in-addr.arpa.");
    // CoreDNS's default: no names for pods, and 5 s for what there is.
    assert_eq!(code(&world, "1-2-3-4.demo.pod.cluster.local.", RecordType::A).await, NO);
    assert_eq!(code(&world, "demo.pod.cluster.local.", RecordType::A).await, NO);
    assert_eq!(code(&world, "pod.cluster.local.", RecordType::A).await, YES);
    assert_eq!(world.ask(WEB, RecordType::A).await.answers[0].ttl, 5);
    world.end().await;
}

/// It was denied, or asked of upstreams: nobody believes a denial whose SOA is of a name that is not there.
#[tokio::test]
async fn a_reverse_zones_own_name_is_there_whether_or_not_others_are_passed_on() {
    for fallthrough in ["", "fallthrough"] {
        let corefile = format!(
            ".:53 {{\n kubernetes cluster.local in-addr.arpa 10.0.0.0/8 10.96.0.1/32 10.96.0.77/32 ip6.arpa {{\n \
             {fallthrough}\n }}\n forward . {}\n}}\n",
            always(1).await
        );
        let world = World::by(&corefile, objects()).await;
        let zones = ["in-addr.arpa.", "10.in-addr.arpa.", "ip6.arpa."];
        // An address' name beside: the zone of a network with this address alone.
        let addresses = ["1.0.96.10.in-addr.arpa.", "77.0.96.10.in-addr.arpa."];
        for zone in zones.into_iter().chain(addresses) {
            let soa = world.ask(zone, RecordType::SOA).await;
            let wanted = format!("{zone} SOA ns.dns.{zone} hostmaster.{zone}");
            assert_eq!(text(&soa.answers), [wanted], "{fallthrough} {soa}");
            let servers = world.ask(zone, RecordType::NS).await;
            let wanted = format!("{zone} NS kube-dns.kube-system.svc.cluster.local.");
            assert_eq!(text(&servers.answers), [wanted], "{fallthrough} {servers}");
        }
        for (zone, rtype) in
            zones.into_iter().flat_map(|zone| [RecordType::A, RecordType::PTR].map(|t| (zone, t)))
        {
            let reply = world.ask(zone, rtype).await;
            let what = format!("{fallthrough} {rtype} {reply}");
            assert_eq!((reply.metadata.response_code, reply.answers.len()), (YES, 0), "{what}");
            assert_eq!(reply.authorities[0].name.to_ascii(), zone, "{what}");
        }
        let pointer = world.ask(addresses[0], RecordType::PTR).await;
        assert_eq!(first(&pointer), format!("{} PTR {WEB}", addresses[0]));
        world.end().await;
    }
}

#[tokio::test]
async fn fallthrough_of_the_clusters_zone_asks_the_next() {
    let all = always(7).await;
    let corefile =
        format!(".:53 {{\n kubernetes cluster.local {{\n fallthrough\n }}\n forward . {all}\n}}\n");
    let world = World::by(&corefile, objects()).await;
    let reply = world.ask("legacy.cluster.local.", RecordType::A).await;
    assert_eq!(first(&reply), "legacy.cluster.local. A 192.0.2.7");
    // A name that exists is not passed on for another type.
    let reply = world.ask(WEB, RecordType::MX).await;
    assert_eq!((reply.metadata.response_code, reply.answers.len()), (YES, 0));
    world.end().await;
}

fn with_pod(object: Object) -> Object {
    let Object::EndpointSlice(slice) = object else { return object };
    let named = |endpoint: &Endpoint| Endpoint {
        pod: Some(
            format!("pod-{}", endpoint.addresses[0].to_string().replace(['.', ':'], "-")).into(),
        ),
        ..endpoint.clone()
    };
    let endpoints = slice.endpoints.iter().map(named).collect();
    Object::EndpointSlice(Arc::new(EndpointSlice { endpoints, ..(*slice).clone() }))
}

#[tokio::test]
async fn options_of_kubernetes() {
    let things: Vec<_> = objects().into_iter().map(with_pod).collect();
    let cases: [(&str, &[(&str, ResponseCode)]); 4] = [
        (
            "endpoint_pod_names",
            &[
                ("pod-10-1-0-9.single.demo.svc.cluster.local.", YES),
                ("10-1-0-9.single.demo.svc.cluster.local.", NO),
                // A host name goes before.
                ("db-0.db.demo.svc.cluster.local.", YES),
            ],
        ),
        (
            "noendpoints",
            &[
                (WEB, YES),
                ("db.demo.svc.cluster.local.", NO),
                ("10-1-0-9.single.demo.svc.cluster.local.", NO),
            ],
        ),
        ("ignore empty_service", &[(WEB, NO), ("single.demo.svc.cluster.local.", YES)]),
        (
            "namespaces kube-system",
            &[
                ("kube-dns.kube-system.svc.cluster.local.", YES),
                (WEB, NO),
                ("demo.svc.cluster.local.", NO),
            ],
        ),
    ];
    for (option, rows) in cases {
        let corefile = format!(".:53 {{\n kubernetes cluster.local {{\n {option}\n }}\n}}\n");
        let world = World::by(&corefile, things.clone()).await;
        for (name, wanted) in rows {
            assert_eq!(code(&world, name, RecordType::A).await, *wanted, "{option}: {name}");
        }
        world.end().await;
    }
}

#[tokio::test]
async fn acl_comes_before_everything_wherever_it_is_written_cve_2026_26017_coredns_8289() {
    // It stood behind rewrite, and behind the cache.
    let all = always(1).await;
    let corefile = format!(
        ".:53 {{\n cache\n hosts {{\n 192.0.2.9 blocked.example\n fallthrough\n }}\n \
         kubernetes cluster.local\n forward . {all}\n \
         acl example {{\n allow type AAAA\n block net 127.0.0.0/8\n }}\n \
         acl cluster.local {{\n filter type SRV\n drop type TXT net 127.0.0.0/8\n }}\n}}\n"
    );
    let world = World::by(&corefile, objects()).await;
    let asked = query("blocked.example.", RecordType::A);
    let over_v6 = udp(world.v6(), &asked).await;
    assert_eq!(first(&over_v6), "blocked.example. A 192.0.2.9");
    assert_eq!(code(&world, "blocked.example.", RecordType::A).await, ResponseCode::Refused);
    // What another client put into the cache is not for everyone.
    assert_eq!(udp(world.v6(), &query("www.example.", RecordType::A)).await.answers.len(), 1);
    assert_eq!(udp(world.v6(), &query("www.example.", RecordType::A)).await.answers.len(), 1);
    assert_eq!(code(&world, "www.example.", RecordType::A).await, ResponseCode::Refused);
    assert_eq!(code(&world, "www.example.", RecordType::AAAA).await, YES);
    // Filtered: nothing, not even an authority; other types as ever.
    let filtered = world.ask(WEB, RecordType::SRV).await;
    assert_eq!((filtered.metadata.response_code, filtered.answers.len()), (YES, 0));
    assert_eq!(world.ask(WEB, RecordType::A).await.answers.len(), 1);
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client.send_to(&query(WEB, RecordType::TXT).to_vec().unwrap(), world.v4()).unwrap();
    let place = DropReason::ALL.iter().position(|r| *r == DropReason::Policy).unwrap();
    let counted = async {
        while world.running.counts().dropped[place] == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, counted).await.expect("dropped and counted");
    world.end().await;
}

#[tokio::test]
async fn hosts_answer_before_the_upstreams() {
    let all = always(1).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts");
    std::fs::write(&file, "10.1.1.1 a.example A2.example # both\n\n::1 a.example\nnonsense\n")
        .unwrap();
    let hosts = format!("hosts {} example {{\n 10.2.2.2 inline.example\n ttl 60", file.display());
    let open = format!(".:53 {{\n {hosts}\n fallthrough\n }}\n forward . {all}\n}}\n");
    let world = World::by(&open, vec![]).await;
    let cases = [
        ("a.example.", RecordType::A, "a.example. A 10.1.1.1"),
        ("a.example.", RecordType::AAAA, "a.example. AAAA ::1"),
        ("a2.EXAMPLE.", RecordType::A, "a2.EXAMPLE. A 10.1.1.1"),
        ("inline.example.", RecordType::A, "inline.example. A 10.2.2.2"),
        ("a.example.", RecordType::MX, ""),
        ("other.example.", RecordType::A, "other.example. A 192.0.2.1"),
    ];
    for (name, rtype, wanted) in cases {
        let reply = world.ask(name, rtype).await;
        assert_eq!((reply.metadata.response_code, first(&reply).as_str()), (YES, wanted), "{name}");
    }
    assert_eq!(world.ask("a.example.", RecordType::A).await.answers[0].ttl, 60);
    world.end().await;

    let closed = format!(".:53 {{\n {hosts}\n }}\n forward . {all}\n}}\n");
    let world = World::by(&closed, vec![]).await;
    assert_eq!(code(&world, "other.example.", RecordType::A).await, NO);
    assert_eq!(code(&world, "other.test.", RecordType::A).await, YES);
    world.end().await;
}

#[tokio::test]
async fn other_settings_come_into_force_without_a_lost_question() {
    let corefile = |to, ttl| {
        format!(".:53 {{\n kubernetes cluster.local {{\n ttl {ttl}\n }}\n forward . {to}\n}}\n")
    };
    let (one, two) = (always(1).await, always(2).await);
    let world = World::by(&corefile(one, 30), objects()).await;
    let server = world.v4();
    let stop = tokio_util::sync::CancellationToken::new();
    let asking = tokio::spawn(stop.clone().run_until_cancelled_owned(async move {
        loop {
            let reply = udp(server, &query(WEB, RecordType::A)).await;
            assert_eq!(reply.answers.len(), 1);
            assert!([30, 7].contains(&reply.answers[0].ttl));
            tokio::task::yield_now().await;
        }
    }));
    assert_eq!(first(&world.ask("x.example.", RecordType::A).await), "x.example. A 192.0.2.1");
    world.running.renew(&by(&corefile(two, 7))).unwrap();
    let renewed = async {
        while first(&world.ask("x.example.", RecordType::A).await) != "x.example. A 192.0.2.2"
            || world.ask(WEB, RecordType::A).await.answers[0].ttl != 7
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, renewed).await.expect("new settings");
    stop.cancel();
    assert!(asking.await.unwrap().is_none(), "every question was answered");
    let elsewhere = by(".:5353 {\n kubernetes cluster.local\n}\n");
    assert!(matches!(world.running.renew(&elsewhere), Err(DnsError::Restart)));
    world.end().await;
}

#[tokio::test]
async fn logged_questions_are_answered_like_others() {
    let all = always(1).await;
    let corefile = format!(
        ".:53 {{\n log . {{\n class denial error\n }}\n errors\n kubernetes cluster.local\n forward . {all}\n cache\n}}\n"
    );
    let world = World::by(&corefile, objects()).await;
    for _ in 0..2 {
        assert_eq!(world.ask(WEB, RecordType::A).await.answers.len(), 1);
        assert_eq!(code(&world, "nope.demo.svc.cluster.local.", RecordType::A).await, NO);
        assert_eq!(code(&world, "www.example.", RecordType::A).await, YES);
    }
    assert_eq!(world.running.counts().forwarded, 1, "the cache is asked all the same");
    assert_eq!(world.running.counts().slow_queries, 6);
    world.end().await;
}

/// The same with a label `app`.
fn labelled(object: Object, app: &str) -> Object {
    let labels: Labels = [("app".into(), app.into())].into();
    match object {
        Object::Namespace(old) => {
            Object::Namespace(Arc::new(Namespace { labels, ..(*old).clone() }))
        }
        Object::Service(old) => {
            let extras = ServiceExtras { labels, ..(*old.extras).clone() };
            Object::Service(Arc::new(Service { extras: extras.into(), ..(*old).clone() }))
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn labels_choose_the_services_and_namespaces_that_have_names() {
    let corefile = ".:53 {\n kubernetes cluster.local in-addr.arpa {\n pods insecure\n \
                    namespace_labels app=shown\n labels app in (shown, too)\n }\n}\n";
    let objects = vec![
        labelled(namespace("yes"), "shown"),
        labelled(namespace("no"), "hidden"),
        namespace("bare"),
        labelled(service("yes", "web", &["10.96.0.1"], &[]), "too"),
        service("yes", "bare", &["10.96.0.2"], &[]),
        labelled(service("no", "web", &["10.96.0.3"], &[]), "shown"),
        labelled(service("bare", "web", &["10.96.0.4"], &[]), "shown"),
    ];
    let mut world = World::by(corefile, objects).await;
    let before = [
        ("web.yes.svc", YES),
        ("bare.yes.svc", NO),
        ("web.no.svc", NO),
        ("web.bare.svc", NO),
        ("yes.svc", YES),
        ("no.svc", NO),
        ("10-1-0-1.yes.pod", YES),
        ("10-1-0-1.no.pod", NO),
    ];
    let after = [
        ("web.yes.svc", NO),
        ("web.no.svc", YES),
        ("web.bare.svc", NO),
        ("yes.svc", NO),
        ("10-1-0-1.no.pod", YES),
    ];
    for (cases, shown, hidden) in [(&before[..], 1, 3), (&after[..], 3, 1)] {
        for (name, code) in cases {
            let reply = world.ask(&format!("{name}.cluster.local."), RecordType::A).await;
            assert_eq!(reply.metadata.response_code, *code, "{name}");
        }
        let pointer = |last: u8| format!("{last}.0.96.10.in-addr.arpa.");
        for (last, code) in [(shown, YES), (hidden, NO)] {
            let reply = world.ask(&pointer(last), RecordType::PTR).await;
            assert_eq!(reply.metadata.response_code, code, "10.96.0.{last}");
        }
        // Only the namespaces' labels change.
        let swapped = [labelled(namespace("yes"), "hidden"), labelled(namespace("no"), "shown")];
        if shown == 1 {
            world.apply(swapped.into_iter().map(Change::Upsert).collect()).await;
        }
    }
    world.end().await;
}
