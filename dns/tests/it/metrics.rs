//! What is counted, by server block, way in and who answered.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use fairlead_dns::{Counts, HistogramReport, Plugin, QTYPES, SiteCounts};
use fairlead_state::{
    Change,
    model::{EndpointSlice, Object},
};
use hickory_proto::{op::Edns, rr::RecordType};
use tokio::{net::UdpSocket, time::timeout};

use crate::{
    contract::objects,
    forward::{knows, upstream},
    world::{PATIENCE, World, query, slice, tcp, udp},
};

const WEB: &str = "web.demo.svc.cluster.local.";

fn site<'c>(counts: &'c Counts, zone: &str, view: &str) -> &'c SiteCounts {
    let fits = |site: &&SiteCounts| site.labels.zone == zone && site.labels.view == view;
    counts.sites.iter().find(fits).unwrap()
}

/// Questions of a way in (IPv4 and IPv6 by UDP, then by TCP) and type.
fn asked(site: &SiteCounts, way: usize, name: &str) -> u64 {
    let place = QTYPES.iter().position(|(_, known)| *known == name).unwrap_or(QTYPES.len());
    site.requests[way][place]
}

fn replied(site: &SiteCounts, by: Plugin, code: usize) -> u64 {
    site.replies[Plugin::ALL.iter().position(|known| *known == by).unwrap()][code]
}

fn total(report: &HistogramReport) -> u64 {
    report.counts.iter().sum()
}

#[tokio::test]
async fn every_answer_is_counted_once_wherever_it_was_made() {
    let corefile = format!(
        ".:53 {{\n view six {{\n expr incidr(client_ip(), '::1/128')\n }}\n kubernetes cluster.local\n}}\n\
         .:53 {{\n kubernetes cluster.local\n cache\n hosts {{\n 192.0.2.1 host.test\n fallthrough\n }}\n \
         acl secret.test {{\n block\n }}\n forward . {}\n}}\n",
        upstream(knows).await
    );
    let world = World::by(&corefile, objects()).await;
    let (v4, v6) = (world.v4(), world.v6());
    for server in [v4, v4, v6] {
        udp(server, &query(WEB, RecordType::A)).await;
    }
    tcp(v4, &query(WEB, RecordType::AAAA)).await;
    let mut signed = query("nope.demo.svc.cluster.local.", RecordType::HINFO);
    signed.edns = Some(Edns::new());
    signed.edns.as_mut().unwrap().set_dnssec_ok(true);
    udp(v4, &signed).await;
    for name in ["www.example.", "www.example.", "host.test.", "secret.test."] {
        world.ask(name, RecordType::A).await;
    }
    world.ask("any.example.", RecordType::ANY).await;
    let counts = world.running.counts();
    let all = site(&counts, ".", "");
    assert_eq!(all.labels.server, "dns://:53");
    assert_eq!((asked(all, 0, "A"), asked(all, 2, "AAAA"), asked(all, 0, "ANY")), (6, 1, 1));
    assert_eq!((asked(all, 0, "other"), all.dnssec_ok), (1, 1));
    let by = [
        (Plugin::Kubernetes, 0, 3),
        (Plugin::Kubernetes, 3, 1),
        (Plugin::Forward, 0, 1),
        (Plugin::Cache, 0, 1),
        (Plugin::Hosts, 0, 1),
        (Plugin::Acl, 5, 1),
        (Plugin::Any, 0, 1),
    ];
    for (plugin, code, wanted) in by {
        assert_eq!(replied(all, plugin, code), wanted, "{plugin:?} {code}");
    }
    assert_eq!(total(&all.durations), 9);
    assert!(all.durations.sum > 0);
    let [by_udp, by_tcp] = &all.request_bytes;
    assert_eq!((total(by_udp), total(by_tcp)), (8, 1));
    assert_eq!(by_tcp.sum, query(WEB, RecordType::A).to_vec().unwrap().len() as u64);
    assert_eq!(all.response_bytes.each_ref().map(total), [8, 1]);
    let six = site(&counts, ".", "six");
    assert_eq!((asked(six, 1, "A"), replied(six, Plugin::Kubernetes, 0)), (1, 1));
    assert_eq!(counts.replies.iter().sum::<u64>(), 10);
    let [cache] = &counts.caches[..] else { panic!("{:?}", counts.caches) };
    // Neither hosts nor ANY is looked for there.
    assert_eq!((cache.hits, cache.misses, cache.zones.as_str()), ([1, 0], 1, "."));
    let [forward] = &counts.forwards[..] else { panic!("{:?}", counts.forwards) };
    assert_eq!(
        forward.durations.iter().map(|(code, d)| (*code, total(d))).collect::<Vec<_>>(),
        [(0, 1)]
    );
    // A block that stays keeps what it has counted.
    world.running.renew(&world.config).unwrap();
    assert_eq!(site(&world.running.counts(), ".", "six"), six);
    world.end().await;
}

#[tokio::test]
async fn what_plugins_did_is_counted() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("hosts");
    std::fs::write(&file, "192.0.2.1 one.test uno.test\n2001:db8::1 one.test\n").unwrap();
    let corefile = format!(
        ".:53 {{\n errors\n health\n kubernetes cluster.local\n dns64 {{\n allow_ipv4\n }}\n hosts {} {{\n \
         fallthrough\n }}\n acl {{\n filter type TXT\n drop type MX\n }}\n \
         template IN A made.test {{\n answer \"{{{{ .Name }}}} 60 IN A 192.0.2.7\"\n }}\n \
         template IN AAAA made.test {{\n rcode NXDOMAIN\n }}\n}}\n",
        file.display()
    );
    let world = World::by(&corefile, objects()).await;
    for (name, rtype) in [
        ("a.made.test.", RecordType::A),
        // On the fast path.
        ("a.made.test.", RecordType::AAAA),
        ("a.made.test.", RecordType::AAAA),
        (WEB, RecordType::TXT),
        // It has IPv4 addresses only.
        ("single.demo.svc.cluster.local.", RecordType::AAAA),
        (WEB, RecordType::AAAA),
    ] {
        world.ask(name, rtype).await;
    }
    let nobody_hears = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let asked = query(WEB, RecordType::MX).to_vec().unwrap();
    nobody_hears.send_to(&asked, world.v4()).await.unwrap();
    let dropped = async {
        while site(&world.running.counts(), ".", "").dropped == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, dropped).await.expect("dropped and counted");
    let counts = world.running.counts();
    let all = site(&counts, ".", "");
    let by_type =
        |name| all.templates[QTYPES.iter().position(|(_, known)| *known == name).unwrap()];
    assert_eq!((by_type("A"), by_type("AAAA")), (1, 2));
    assert_eq!((replied(all, Plugin::Acl, 0), replied(all, Plugin::Acl, 5)), (1, 0));
    assert_eq!((all.dropped, all.translated, asked_in_all(all)), (1, 1, 6));
    let [block] = &counts.enabled[..] else { panic!("{:?}", counts.enabled) };
    assert_eq!(block.labels, all.labels);
    assert_eq!(block.plugins, ["errors", "kubernetes", "dns64", "hosts", "acl", "template"]);
    let [hosts] = &counts.hosts[..] else { panic!("{:?}", counts.hosts) };
    // Three addresses of names, three names of addresses.
    assert_eq!((hosts.entries, hosts.modified.is_some()), (6, true));
    assert_eq!(hosts.file, file.display().to_string());
    world.end().await;
}

fn asked_in_all(site: &SiteCounts) -> u64 {
    site.requests.as_flattened().iter().sum()
}

#[tokio::test]
async fn questions_no_block_takes_are_counted_as_coredns_counts_them() {
    let world = World::by("cluster.local:53 {\n kubernetes\n}\n", objects()).await;
    world.ask("www.example.", RecordType::A).await;
    let counts = world.running.counts();
    let strays = site(&counts, "dropped", "");
    assert_eq!((asked(strays, 0, "A"), replied(strays, Plugin::None, 5)), (1, 1));
    world.end().await;
}

fn triggered(object: Object, at_ms: i64) -> Object {
    let Object::EndpointSlice(slice) = object else { return object };
    let trigger_time_ms = Some(at_ms);
    Object::EndpointSlice(Arc::new(EndpointSlice { trigger_time_ms, ..(*slice).clone() }))
}

#[tokio::test]
async fn how_late_names_are_is_counted_from_the_trigger_on_and_once() {
    let mut world = World::by(".:53 {\n kubernetes cluster.local\n}\n", objects()).await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let now = i64::try_from(now).unwrap();
    let db = |last: u8| {
        slice("demo", "db", "db-v4", &[("pg", 1)], &[(&format!("10.1.0.{last}"), "", true)])
    };
    let single = slice("demo", "single", "single-1", &[("", 1)], &[("10.1.0.9", "", true)]);
    // Two seconds ago; the same cause again; another.
    world.apply(vec![Change::Upsert(triggered(db(1), now - 2000))]).await;
    world.apply(vec![Change::Upsert(triggered(db(2), now - 2000))]).await;
    world.apply(vec![Change::Upsert(triggered(db(3), now - 1000))]).await;
    world.apply(vec![Change::Upsert(triggered(single, now - 3000))]).await;
    let late = world.running.counts().programming;
    assert_eq!((total(&late.headless), total(&late.cluster_ip)), (2, 1));
    let seconds = |report: &HistogramReport| report.sum / 1_000_000_000;
    assert!((3..13).contains(&seconds(&late.headless)), "{late:?}");
    assert!((3..13).contains(&seconds(&late.cluster_ip)), "{late:?}");
    world.end().await;
}
