//! `loadbalance weighted`: which address comes first is chance; how often, is not.

use std::{collections::BTreeMap, net::SocketAddr};

use hickory_proto::{op::Message, rr::RecordType};
use serde_json::json;

use crate::{
    cluster::{Cluster, headless, headless_slice},
    questions::Question,
    random::Random,
    servers::{CoreDns, Fairlead},
    setups::Setup,
    support::apiserver::ApiServer,
    upstream::upstream,
};

const NAME: &str = "weighted.probe.svc.cluster.local.";
/// Of 251 parts of `weighted`'s first places 200, 50 and, not being named, one.
const WEIGHTS: &str = "weighted.probe.svc.cluster.local
10.98.1.1 50
10.98.1.2 200
# Of additional records, too.
b.weighted.probe.svc.cluster.local.
10.98.1.2 255
";
const QUESTIONS: usize = 400;
/// Five standard deviations of how often one is first.
const SPREAD: usize = 40;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn weights_of_one_file_choose_the_first_address_as_often_as_coredns_does() {
    let server = ApiServer::start_with_tls().await;
    let mut random = Random(1);
    let mut cluster = Cluster::new(&server, &mut random);
    server.put(headless("weighted"));
    let endpoints = ["a", "b", "c"].iter().zip(1..).map(|(host, last)| {
        let address = format!("10.98.1.{last}");
        json!({"addresses": [address], "hostname": host, "conditions": {"ready": true}})
    });
    let endpoints: Vec<_> = endpoints.collect();
    server.put(headless_slice("weighted", &endpoints));
    let files = tempfile::tempdir().unwrap();
    let file = files.path().join("weights");
    std::fs::write(&file, WEIGHTS).unwrap();
    let line = format!("forward . UPSTREAM\nloadbalance weighted {}", file.display());
    let setup = Setup::balanced(line.leak());
    let upstream = upstream().await;
    let theirs = CoreDns::start(&server, upstream, &setup);
    let ours = Fairlead::start(&server, upstream, &setup).await;
    // What follows in the same stream is known by then.
    cluster.change(&mut random);
    let servers = [theirs.address, ours.address];
    cluster.await_sync(&setup, &servers).await;

    let [theirs, ours] = servers;
    for server in servers {
        let first = firsts(server, NAME, RecordType::A, |reply| &reply.answers).await;
        for (address, wanted) in
            [("10.98.1.2", QUESTIONS * 200 / 251), ("10.98.1.1", QUESTIONS * 50 / 251)]
        {
            let times = first.get(address).copied().unwrap_or(0);
            assert!(times.abs_diff(wanted) <= SPREAD, "{server} {address}: {first:?}");
        }
        let first = firsts(server, NAME, RecordType::SRV, |reply| &reply.additionals).await;
        let times = first.get("10.98.1.2").copied().unwrap_or(0);
        assert!(times > QUESTIONS - SPREAD, "{server}: {first:?}");
    }
    // Rule `loadbalance-policy`: names in the file are of no letter case.
    let loud = NAME.to_uppercase();
    for (server, wanted) in [(theirs, QUESTIONS / 3), (ours, QUESTIONS * 200 / 251)] {
        let first = firsts(server, &loud, RecordType::A, |reply| &reply.answers).await;
        let times = first.get("10.98.1.2").copied().unwrap_or(0);
        assert!(times.abs_diff(wanted) <= SPREAD + 10, "{server}: {first:?}");
    }
}

/// How often each was the first of three.
async fn firsts(
    server: SocketAddr,
    name: &str,
    rtype: RecordType,
    part: impl Fn(&Message) -> &[hickory_proto::rr::Record],
) -> BTreeMap<String, usize> {
    let mut firsts = BTreeMap::new();
    let question = Question::plain(name, rtype);
    for _ in 0..QUESTIONS {
        let reply = question.ask_one(server).await;
        let records = part(&reply);
        assert_eq!(records.len(), 3, "{server}: {reply}");
        *firsts.entry(records[0].data.to_string()).or_default() += 1;
    }
    firsts
}
