//! CoreDNS and Fairlead side by side: the same objects by the same API server, the same questions; each
//! difference in an answer is a named rule of docs/dns-differences.md, or a failure.
//!
//! `make test-differential` builds CoreDNS and runs this; `QUESTIONS` and `SEED` choose how much and what.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, in its helpers too"
)]

mod cluster;
mod compare;
mod questions;
mod servers;
mod weights;
#[path = "../it/support"]
mod support {
    #[allow(dead_code, reason = "other tests need more of it")]
    pub(crate) mod apiserver;
}

use std::{collections::BTreeMap, fmt::Write as _};

use self::{
    cluster::{Cluster, Random},
    compare::{Verdict, verdict},
    questions::Question,
    servers::{CoreDns, Fairlead, upstream},
    support::apiserver::ApiServer,
};

/// Questions between two changes of the cluster.
const QUESTIONS_PER_CHANGE: u64 = 500;
const QUESTIONS: u64 = 20_000;
/// Differences that are shown.
const SHOWN_MAX: usize = 20;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_difference_from_coredns_is_a_named_rule() {
    let seed = setting("SEED", 1);
    let total = setting("QUESTIONS", QUESTIONS);
    let mut random = Random(seed);
    let server = ApiServer::start_with_tls().await;
    let mut cluster = Cluster::new(&server, &mut random);
    let upstream = upstream().await;
    let theirs = CoreDns::start(&server, upstream, "loadbalance");
    let ours = Fairlead::start(&server, upstream, "loadbalance").await;

    let mut allowed: BTreeMap<&str, u64> = BTreeMap::new();
    let mut unexplained = String::new();
    let (mut asked, mut differences) = (0, 0);
    while asked < total {
        cluster.change(&mut random);
        cluster.await_sync(&[theirs.address, ours.address]).await;
        for _ in 0..QUESTIONS_PER_CHANGE {
            let question = Question::any(&cluster, &mut random);
            let replies = question.ask(theirs.address, ours.address).await;
            asked += 1;
            match verdict(&cluster, &question, &replies) {
                Verdict::Same => {}
                Verdict::Rule(rule) => *allowed.entry(rule).or_default() += 1,
                Verdict::Different(why) => {
                    differences += 1;
                    if differences <= SHOWN_MAX {
                        let _ = writeln!(unexplained, "{question}\n{why}");
                    }
                }
            }
        }
    }
    println!("seed {seed}: {asked} questions; differences by rule: {allowed:#?}");
    assert_eq!(differences, 0, "seed {seed}, of {asked} questions:\n{unexplained}");
}
