//! `zonal`: names of a headless Service's endpoints by their zones (coredns#8388, and its answers).

use std::sync::Arc;

use fairlead_state::model::{EndpointSlice, Object};
use hickory_proto::rr::RecordType;

use crate::{
    contract::{NO, Row, YES, check, objects},
    world::{World, service, slice, text},
};

/// Three endpoints of `hdls`, in the zones `us-west-2a` and, twice, `Corp.example.com`, and one in none.
fn things() -> Vec<Object> {
    let endpoints = [
        ("172.0.0.1", "", true),
        ("172.0.0.2", "two", true),
        ("172.0.0.3", "", true),
        ("172.0.0.4", "", true),
        ("172.0.0.5", "", false),
    ];
    let Object::EndpointSlice(all) = slice("demo", "hdls", "hdls-1", &[("http", 80)], &endpoints)
    else {
        panic!("a slice")
    };
    let zones =
        [Some("us-west-2a"), Some("Corp.example.com"), Some("corp.example.com"), None, Some("off")];
    let mut endpoints = all.endpoints.to_vec();
    for (endpoint, zone) in endpoints.iter_mut().zip(zones) {
        endpoint.zone = zone.map(Into::into);
    }
    let zoned = EndpointSlice { endpoints: endpoints.into(), ..(*all).clone() };
    let mut things = objects();
    things.push(service("demo", "hdls", &[], &[("http", 80)]));
    things.push(Object::EndpointSlice(Arc::new(zoned)));
    things
}

#[tokio::test]
async fn endpoints_of_a_zone_have_names_below_their_headless_service() {
    use RecordType::{A, AAAA, SRV, TXT};
    let corefile = ".:53 {\n kubernetes cluster.local {\n zonal\n }\n}\n";
    let world = World::by(corefile, things()).await;
    let rows: &[Row] = &[
        (
            "us-west-2a.pin._zone.hdls.demo.svc.cluster.local.",
            A,
            YES,
            &["us-west-2a.pin._zone.hdls.demo.svc.cluster.local. A 172.0.0.1"],
        ),
        ("us-west-2a.pin._zone.hdls.demo.svc.cluster.local.", AAAA, YES, &[]),
        ("us-west-2a.pin._zone.hdls.demo.svc.cluster.local.", TXT, YES, &[]),
        // Zones have dots, and no letter case.
        (
            "CORP.example.com.Prefer._zone.hdls.demo.svc.cluster.local.",
            A,
            YES,
            &[
                "CORP.example.com.Prefer._zone.hdls.demo.svc.cluster.local. A 172.0.0.2",
                "CORP.example.com.Prefer._zone.hdls.demo.svc.cluster.local. A 172.0.0.3",
            ],
        ),
        (
            "corp.example.com.pin._zone.hdls.demo.svc.cluster.local.",
            SRV,
            YES,
            &[
                "corp.example.com.pin._zone.hdls.demo.svc.cluster.local. SRV 0 50 80 \
                 172-0-0-3.hdls.demo.svc.cluster.local.",
                "corp.example.com.pin._zone.hdls.demo.svc.cluster.local. SRV 0 50 80 \
                 two.hdls.demo.svc.cluster.local.",
            ],
        ),
        // No ready endpoint: nothing, or all.
        ("off.pin._zone.hdls.demo.svc.cluster.local.", A, YES, &[]),
        ("example.com.pin._zone.hdls.demo.svc.cluster.local.", A, YES, &[]),
        (
            "off.prefer._zone.hdls.demo.svc.cluster.local.",
            A,
            YES,
            &[
                "off.prefer._zone.hdls.demo.svc.cluster.local. A 172.0.0.1",
                "off.prefer._zone.hdls.demo.svc.cluster.local. A 172.0.0.2",
                "off.prefer._zone.hdls.demo.svc.cluster.local. A 172.0.0.3",
                "off.prefer._zone.hdls.demo.svc.cluster.local. A 172.0.0.4",
            ],
        ),
        // Names have names below them (RFC 8020).
        ("_zone.hdls.demo.svc.cluster.local.", A, YES, &[]),
        ("pin._zone.hdls.demo.svc.cluster.local.", A, YES, &[]),
        ("prefer._zone.hdls.demo.svc.cluster.local.", A, YES, &[]),
        ("florp._zone.hdls.demo.svc.cluster.local.", A, NO, &[]),
        ("us-west-2a.florp._zone.hdls.demo.svc.cluster.local.", A, NO, &[]),
        ("us-west-2a.pin.zone.hdls.demo.svc.cluster.local.", A, NO, &[]),
        ("us-west-2a.pin._zone.ghost.demo.svc.cluster.local.", A, NO, &[]),
        // With an address of its own; an alias.
        ("us-west-2a.pin._zone.web.demo.svc.cluster.local.", A, NO, &[]),
        ("_zone.web.demo.svc.cluster.local.", A, NO, &[]),
        (
            "two.hdls.demo.svc.cluster.local.",
            A,
            YES,
            &["two.hdls.demo.svc.cluster.local. A 172.0.0.2"],
        ),
    ];
    check(&world, rows).await;
    let name = "us-west-2a.pin._zone.hdls.demo.svc.cluster.local.";
    let reply = world.ask(name, SRV).await;
    assert_eq!(text(&reply.additionals), ["172-0-0-1.hdls.demo.svc.cluster.local. A 172.0.0.1"]);
    world.end().await;
}

#[tokio::test]
async fn without_zonal_there_are_no_such_names() {
    let world = World::by(".:53 {\n kubernetes cluster.local\n}\n", things()).await;
    let rows: &[Row] = &[
        ("us-west-2a.pin._zone.hdls.demo.svc.cluster.local.", RecordType::A, NO, &[]),
        ("pin._zone.hdls.demo.svc.cluster.local.", RecordType::A, NO, &[]),
        ("_zone.hdls.demo.svc.cluster.local.", RecordType::A, NO, &[]),
    ];
    check(&world, rows).await;
    world.end().await;
}
