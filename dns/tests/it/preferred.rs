//! What `loadbalance` is to put first is first however little of the answer the client takes.

use std::{fmt::Write as _, fs};

use fairlead_state::model::Object;
use hickory_proto::{op::ResponseCode, rr::RecordType};

use crate::{
    forward::{address, reply_to, upstream},
    world::{World, namespace, query, service, slice, tcp, udp},
};

/// More than half of them have no room in 512 bytes.
const ADDRESSES: u8 = 60;
const MANY: &str = "many.demo.svc.cluster.local.";

/// A headless Service.
fn many() -> Vec<Object> {
    let all: Vec<_> = (1..=ADDRESSES).map(|last| format!("10.1.0.{last}")).collect();
    let endpoints: Vec<_> = all.iter().map(|text| (&**text, "", true)).collect();
    vec![
        namespace("demo"),
        service("demo", "many", &[], &[("pg", 5432)]),
        slice("demo", "many", "many-1", &[("pg", 5432)], &endpoints),
    ]
}

async fn world(loadbalance: &str) -> World {
    let to = upstream(|asked| {
        let owner = asked.queries[0].name().to_ascii();
        let mut reply = reply_to(asked, ResponseCode::NoError);
        if asked.queries[0].query_type() == RecordType::A {
            reply.answers = (1..=ADDRESSES).map(|last| address(&owner, 60, last)).collect();
        }
        vec![reply]
    })
    .await;
    let corefile = format!(
        ".:53 {{\n loadbalance {loadbalance}\n rewrite name other.example www.example\n \
         dns64 {{\n allow_ipv4\n }}\n kubernetes cluster.local\n cache\n forward . {to}\n}}\n"
    );
    World::by(&corefile, many()).await
}

/// How many of 50 replies that were cut have this address in front.
async fn first(world: &World, name: &str, rtype: RecordType, wanted: &str) -> usize {
    let asked = query(name, rtype);
    let mut first = 0;
    for _ in 0..50 {
        let reply = udp(world.v4(), &asked).await;
        assert!(reply.metadata.truncation, "{name} {rtype}: {reply}");
        assert!((5..50).contains(&reply.answers.len()), "{name} {rtype}: {reply}");
        assert_eq!(reply.answers[0].record_type(), rtype, "{reply}");
        first += usize::from(reply.answers[0].data.to_string() == wanted);
    }
    let whole = tcp(world.v4(), &asked).await;
    assert_eq!(whole.answers.len(), usize::from(ADDRESSES), "{name} {rtype}");
    assert!(!whole.metadata.truncation, "{name} {rtype}");
    first
}

/// Of the cluster; of an upstream at first and then of the cache; by way of another name, and from IPv4 addresses.
fn cases() -> [(&'static str, RecordType, String); 4] {
    let mapped = format!("64:ff9b::c000:2{ADDRESSES:02x}");
    [
        (MANY, RecordType::A, format!("10.1.0.{ADDRESSES}")),
        ("www.example.", RecordType::A, format!("192.0.2.{ADDRESSES}")),
        ("other.example.", RecordType::A, format!("192.0.2.{ADDRESSES}")),
        ("six.example.", RecordType::AAAA, mapped),
    ]
}

#[tokio::test]
async fn what_is_preferred_is_first_in_a_cut_reply() {
    let prefer = format!("10.1.0.{ADDRESSES}/32 192.0.2.{ADDRESSES}/32");
    let world = world(&format!("round_robin {{\n prefer {prefer}\n }}")).await;
    for (name, rtype, wanted) in cases() {
        assert_eq!(first(&world, name, rtype, &wanted).await, 50, "{name} {rtype}");
    }
    world.end().await;
}

#[tokio::test]
async fn what_has_most_weight_is_mostly_first_in_a_cut_reply() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("weights");
    let mut text = String::new();
    for (name, net) in [
        ("many.demo.svc.cluster.local", "10.1.0"),
        ("www.example", "192.0.2"),
        // As it is called where weights are looked up: behind `rewrite`.
        ("other.example", "192.0.2"),
        ("six.example", "192.0.2"),
    ] {
        writeln!(text, "{name}\n{net}.{ADDRESSES} 255").unwrap();
    }
    fs::write(&file, text).unwrap();
    let world = world(&format!("weighted {}", file.display())).await;
    for (name, rtype, wanted) in cases() {
        // 255 of 314 times; 59 addresses share the others.
        let firsts = first(&world, name, rtype, &wanted).await;
        assert!(firsts > 20, "{name} {rtype}: {firsts} of 50");
    }
    // Servers are not addresses: their order stays.
    let asked = query(&format!("_pg._tcp.{MANY}"), RecordType::SRV);
    let servers = udp(world.v4(), &asked).await;
    assert!(servers.metadata.truncation && !servers.answers.is_empty(), "{servers}");
    world.end().await;
}
