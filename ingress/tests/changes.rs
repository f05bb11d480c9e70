//! What one change allocates among few hosts and among many, as the allocator counts it: exact, and
//! the same on every machine. One test, since all of a process are counted together.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

#[path = "it/support.rs"]
#[allow(dead_code, reason = "other tests need more of it")]
mod support;

use std::net::SocketAddr;

use fairlead_ingress::{Fallback, IngressConfig, routes::Planner};
use fairlead_state::{Change, Key, Object};
use peak_alloc::PeakAlloc;

use crate::support::{
    objects::{Authority, IngressExt, Pod, backend, class, ingress, secret, slice},
    store,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

const FEW: u16 = 200;
const MANY: u16 = 4_000;
/// Trees of many have a level more, whose node is copied. A pointer for each of many is 32,000 bytes.
const MORE_BYTES_MAX: usize = 8_000;

/// The most that each change took beyond what was there before it.
fn allocated(hosts: u16, pem: &(String, String)) -> Vec<(&'static str, usize)> {
    let address = |port| SocketAddr::from(([10, 0, 0, 1], port));
    let host = |i: u16| format!("h{i}.example");
    let shown = |i: u16| secret(Key::new("default", format!("t{i}")), &pem.0, &pem.1);
    let leads = |i: u16, service: &str| {
        let ingress = ingress(&format!("i{i}")).host(&host(i), service);
        ingress.tls(&[&host(i)], &format!("t{i}")).object()
    };
    let mut objects: Vec<Object> = vec![class("fairlead", "fairlead.io/ingress")];
    objects.extend(backend("other", &[address(1)]));
    for i in 0..hosts {
        let service = format!("s{i}");
        objects.extend(backend(&service, &[address(2)]));
        objects.extend([leads(i, &service), shown(i)]);
    }
    let (mut store, snapshots) = store(&objects);
    let config = IngressConfig::default();
    let mut planner = Planner::new(&config, Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    let changes = [
        ("an Ingress", leads(7, "other")),
        ("endpoints", slice("s8", "late", address(3), Pod::Ready)),
        ("a Secret", secret(Key::new("default", "t9"), &pem.0, &format!("{}\n", pem.1))),
    ];
    let measured = changes.map(|(what, object)| {
        // Who serves goes by the old ones meanwhile.
        let held = (planner.routes().clone(), planner.certificates().clone());
        ALLOCATOR.reset_peak_usage();
        let before = ALLOCATOR.current_usage();
        store.apply([Change::Upsert(object)]);
        let planned = planner.apply(snapshots.borrow().as_ref().unwrap());
        let bytes = ALLOCATOR.peak_usage().saturating_sub(before);
        assert_eq!(planned.certificates, what != "endpoints", "{what}");
        drop(held);
        (what, bytes)
    });
    measured.to_vec()
}

#[test]
fn a_change_among_many_hosts_allocates_hardly_more_than_among_few() {
    let pem = Authority::new().issue(&["*.example"]);
    let (few, many) = (allocated(FEW, &pem), allocated(MANY, &pem));
    for ((what, few), (_, many)) in few.into_iter().zip(many) {
        assert!(few > 0, "{what}: nothing is counted");
        assert!(
            many < few + MORE_BYTES_MAX,
            "{what}: {few} bytes among {FEW}, {many} among {MANY}"
        );
    }
}
