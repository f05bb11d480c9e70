//! A thousand changes of Ingresses, endpoints and certificates, ten a second, under five thousand requests a second, WebSockets
//! and gRPC streams.

mod clients;
mod objects;
mod seen;
mod streams;
mod upstreams;

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use self::{
    clients::Asking,
    objects::{Certificates, Lead, Table},
    seen::Seen,
    upstreams::Upstreams,
};
use crate::support::{
    cluster::Cluster,
    world::{PACE_MIN, World, comes_true},
};

const CHANGES: usize = 1000;
const CHANGES_PER_S: u32 = 10;
const HOSTS: usize = 1000;
/// Of those, hosts that are asked; each of them is changed forty times.
const ASKED: usize = 20;
const REQUESTS_PER_S: u32 = 5000;
const WEBSOCKETS: usize = 50;
const GRPC_STREAMS: usize = 20;
const HTTP: SocketAddr = SocketAddr::new(NODE, 80);
const HTTPS: SocketAddr = SocketAddr::new(NODE, 443);
const NODE: std::net::IpAddr = std::net::IpAddr::V4(std::net::Ipv4Addr::new(192, 168, 77, 2));
/// From a change to the first answer that follows it, where everything else goes on.
const FOLLOWED_WITHIN: Duration = Duration::from_secs(10);

/// Makes the changes, each when it is due; returns when the last is made.
#[expect(clippy::disallowed_methods, reason = "a thread of its own keeps the pace")]
fn change(cluster: &Cluster, table: &mut Table, certificates: &mut Certificates) {
    let begun = Instant::now();
    for n in 0..CHANGES {
        let due = begun + u32::try_from(n).expect("few") * Duration::from_secs(1) / CHANGES_PER_S;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        let asked = n / 5 % ASKED;
        // By fives: four of a host that is asked, and one of a host that comes and goes.
        let other = ASKED + n / 10 % (HOSTS - ASKED);
        let object = match (n % 5, n / 5 % 2) {
            (0, _) => table.moved(asked, Lead::Endpoints),
            (1, _) => table.moved((asked + ASKED / 2) % ASKED, Lead::Rule),
            (2, _) => certificates.renewed(asked),
            (3, _) => table.moved(asked, Lead::Calls),
            (_, 0) => {
                cluster.server.delete("Ingress", objects::NAMESPACE, &objects::name(other));
                continue;
            }
            _ => table.ingress(other),
        };
        cluster.server.put(object);
    }
    println!("{CHANGES} changes in {:.1?}", begun.elapsed());
}

/// As `fairlead agent` is run on a node, fed by an API server: nothing fails, nothing is reset, every
/// connection there was is still there, and all that was changed is followed.
#[test]
fn a_thousand_changes_under_requests_websockets_and_grpc_streams_fail_and_reset_nothing() {
    let world = World::with_pods(1);
    let (node, client) = (world.runtime("node"), world.runtime("client"));
    let upstreams = Upstreams::start(&node);
    let mut table = Table::new(HOSTS, upstreams.addresses);
    let mut certificates = Certificates::new(ASKED);
    let all = table.all().into_iter().chain(certificates.all());
    let cluster = Cluster::start(&world, all);
    let agent = cluster.agent(&world, &["--no-proxy", "--no-dns"]);
    agent.await_ready(&world);
    let trust = clients::trusting(certificates.authority());
    let seen = Seen::start();
    // Only the runtime's own threads are where clients are.
    let asking = client.spawn(Asking::new(trust.clone()).start(seen.clone()));
    client.block_on(asking).expect("no panic");
    seen.await_flowing();
    change(&cluster, &mut table, &mut certificates);
    for host in 0..ASKED {
        let expected = (table.leads(host), table.calls(host), certificates.newest(host).clone());
        let mut found = None;
        let is_followed = comes_true(FOLLOWED_WITHIN, || {
            let finding = client.spawn(clients::found(trust.clone(), host));
            found = client.block_on(finding).expect("no panic");
            found.as_ref() == Some(&expected)
        });
        let words = |(web, calls, _): &(u8, u8, _)| format!("{} {}", *web as char, *calls as char);
        assert!(
            is_followed,
            "host {host}: {:?} instead of {}, or not the newest certificate:\n{}",
            found.as_ref().map(words),
            words(&expected),
            agent.log()
        );
    }
    let requests_min = f64::from(REQUESTS_PER_S) * PACE_MIN;
    client.block_on(seen.end()).assert_flawless(requests_min);
    assert!(agent.lines_with(&["ERROR"]).is_empty(), "{}", agent.log());
}
