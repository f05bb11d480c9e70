//! CoreDNS and Fairlead side by side: the same objects by the same API server, the same questions; each part in
//! which answers differ is a named rule of docs/dns-differences.md, or a failure.
//!
//! `make test-differential` builds CoreDNS and runs this. `QUESTIONS` says how many in all, `SETUP` by which
//! Corefile of `setups.rs` (each has its share), `CHANGES` how many objects change while questions are asked, and
//! `SEED` which ones.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test ends at the first surprise, in its helpers too"
)]

mod changing;
mod cluster;
mod compare;
mod questions;
mod random;
mod servers;
mod setups;
mod upstream;
mod weights;
#[path = "../it/support"]
mod support {
    #[allow(dead_code, reason = "other tests need more of it")]
    pub(crate) mod apiserver;
}

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr};

use futures::{StreamExt, stream};

use self::{
    cluster::Cluster,
    compare::{Verdict, broken, verdict},
    questions::Question,
    random::Random,
    servers::{CoreDns, Fairlead},
    setups::{SETUPS, Setup},
    support::apiserver::ApiServer,
    upstream::upstream,
};

/// Questions between two changes of the cluster.
const QUESTIONS_PER_CHANGE: usize = 500;
const QUESTIONS: u64 = 42_000;
/// Questions under way at one time.
const AT_ONCE: usize = 8;
/// Differences that are shown, of each Corefile.
const SHOWN_MAX: usize = 20;

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().map_or(usual, |text| text.parse().expect("a number"))
}

/// What comparing has come to.
#[derive(Default)]
struct Tally {
    asked: u64,
    allowed: BTreeMap<String, u64>,
    differences: usize,
    shown: String,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_difference_from_coredns_is_a_named_rule() {
    let seed = setting("SEED", 1);
    let only = std::env::var("SETUP").ok();
    let chosen = |setup: &&Setup| only.as_ref().is_none_or(|only| only == setup.name);
    let setups: Vec<_> = SETUPS.iter().filter(chosen).collect();
    let mut random = Random(seed);
    let server = ApiServer::start_with_tls().await;
    let mut cluster = Cluster::new(&server, &mut random);
    let upstream = upstream().await;
    let each = setting("QUESTIONS", QUESTIONS) / setups.len() as u64;
    let (mut asked, mut differences, mut unexplained) = (0, 0, String::new());
    for setup in setups {
        let theirs = CoreDns::start(&server, upstream, setup);
        let ours = Fairlead::start(&server, upstream, setup).await;
        let servers = [theirs.address, ours.address];
        let mut tally = Tally::default();
        while tally.asked < each {
            cluster.change(&mut random);
            cluster.await_sync(setup, &servers).await;
            tally.compare(setup, &cluster, servers, &mut random).await;
        }
        let Tally { allowed, shown, .. } = &tally;
        println!("{}: {} questions; differences by rule: {allowed:?}", setup.name, tally.asked);
        asked += tally.asked;
        differences += tally.differences;
        if tally.differences > 0 {
            let _ = writeln!(unexplained, "{}, {} in all:\n{shown}", setup.name, tally.differences);
        }
    }
    println!("seed {seed}: {asked} questions");
    assert_eq!(differences, 0, "seed {seed}, of {asked} questions:\n{unexplained}");
}

impl Tally {
    /// Asks both servers, while nothing changes.
    async fn compare(
        &mut self,
        setup: &Setup,
        cluster: &Cluster<'_>,
        [theirs, ours]: [SocketAddr; 2],
        random: &mut Random,
    ) {
        let mut questions: Vec<_> =
            (0..QUESTIONS_PER_CHANGE).map(|_| Question::any(setup, random)).collect();
        if setup.has("cache") {
            // What has been asked is kept now.
            questions.extend_from_within(..);
        }
        let replies: Vec<_> = stream::iter(&questions)
            .map(|question| question.ask(theirs, ours))
            .buffered(AT_ONCE)
            .collect()
            .await;
        for (question, (replies, arrival)) in questions.iter().zip(&replies) {
            self.asked += 1;
            let verdict = match broken(setup, question, &replies.ours, *arrival) {
                Some(why) => Verdict::Different(why),
                None => verdict(setup, &cluster.known, question, replies),
            };
            match verdict {
                Verdict::Same => {}
                Verdict::Rules(rules) => *self.allowed.entry(rules.join(" + ")).or_default() += 1,
                Verdict::Different(why) => {
                    self.differences += 1;
                    if self.differences <= SHOWN_MAX {
                        let _ = writeln!(self.shown, "{question}\n{why}");
                    }
                }
            }
        }
    }
}
