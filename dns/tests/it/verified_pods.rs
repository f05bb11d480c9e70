//! `pods verified`: names of addresses that pods of that namespace have.

use std::sync::Arc;

use fairlead_state::{
    Change,
    model::{Key, Kind, Object, ObjectRef, Pod},
};
use hickory_proto::rr::RecordType;

use crate::{
    autopath::pod,
    contract::{NO, Row, YES, check, objects},
    world::{World, ip},
};

#[tokio::test]
async fn verified_pods_are_those_there_are() {
    use RecordType::{A, AAAA};
    let both = [ip("10.1.2.3"), ip("fd00:2::3")];
    let host_network = Pod {
        key: Key::new("empty", "agent"),
        ips: [ip("192.0.2.1")].into(),
        node_name: None,
        host_network: true,
    };
    let dual = Pod { key: Key::new("demo", "dual"), ips: both.into(), ..host_network.clone() };
    let pods = [dual, host_network].map(|pod| Object::Pod(Arc::new(pod)));
    let corefile = ".:53 {\n kubernetes cluster.local {\n pods verified\n }\n}\n";
    let mut world = World::by(corefile, [objects(), pods.to_vec()].concat()).await;
    let rows: &[Row] = &[
        (
            "10-1-2-3.demo.pod.cluster.local.",
            A,
            YES,
            &["10-1-2-3.demo.pod.cluster.local. A 10.1.2.3"],
        ),
        ("10-1-2-3.demo.pod.cluster.local.", AAAA, YES, &[]),
        (
            "fd00-2--3.demo.pod.cluster.local.",
            AAAA,
            YES,
            &["fd00-2--3.demo.pod.cluster.local. AAAA fd00:2::3"],
        ),
        (
            "192-0-2-1.empty.pod.cluster.local.",
            A,
            YES,
            &["192-0-2-1.empty.pod.cluster.local. A 192.0.2.1"],
        ),
        ("10-1-2-4.demo.pod.cluster.local.", A, NO, &[]),
        ("10-1-2-3.empty.pod.cluster.local.", A, NO, &[]),
        ("10-1-2-3.nope.pod.cluster.local.", A, NO, &[]),
        ("demo.pod.cluster.local.", A, YES, &[]),
    ];
    check(&world, rows).await;
    // Another takes its address, in another namespace.
    let gone = ObjectRef { kind: Kind::Pod, key: Key::new("demo", "dual") };
    let next = pod("empty", "next", "10.1.2.3");
    world.apply(vec![Change::Delete(gone), Change::Upsert(next)]).await;
    let rows: &[Row] = &[
        ("10-1-2-3.demo.pod.cluster.local.", A, NO, &[]),
        ("fd00-2--3.demo.pod.cluster.local.", AAAA, NO, &[]),
        (
            "10-1-2-3.empty.pod.cluster.local.",
            A,
            YES,
            &["10-1-2-3.empty.pod.cluster.local. A 10.1.2.3"],
        ),
    ];
    check(&world, rows).await;
    world.end().await;
}
