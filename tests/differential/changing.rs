//! Objects change while questions are asked: each answer is CoreDNS's by the state before the change or by
//! the one after it, and once the new state has been seen the old one is not seen any more.

use std::{collections::BTreeMap, fmt::Write as _, net::SocketAddr, pin::pin};

use futures::{future::join_all, poll};
use hickory_proto::op::Message;

use crate::{
    SHOWN_MAX,
    cluster::{Cluster, Known},
    compare::{Verdict, verdict},
    questions::{Question, Replies},
    random::Random,
    servers::{CoreDns, Fairlead},
    setting,
    setups::SETUPS,
    support::apiserver::ApiServer,
    upstream::upstream,
};

/// Changes, one object each.
const CHANGES: u64 = 100;
/// Questions about what a change touches.
const QUESTIONS_EACH: usize = 24;

/// By which states an answer is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fits {
    Both,
    Before,
    After,
    Neither,
}

/// What there is, and how CoreDNS answers by it.
struct State {
    known: Known,
    answers: Vec<Message>,
}

impl State {
    async fn of(cluster: &Cluster<'_>, server: SocketAddr, questions: &[Question]) -> Self {
        let asked = questions.iter().map(|question| question.ask_one(server));
        Self { known: cluster.known.clone(), answers: join_all(asked).await }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_while_objects_change_are_of_the_old_state_or_of_the_new_and_never_go_back() {
    let seed = setting("SEED", 1);
    let mut random = Random(seed);
    let server = ApiServer::start_with_tls().await;
    let mut cluster = Cluster::new(&server, &mut random);
    let upstream = upstream().await;
    let setup = &SETUPS[0];
    let theirs = CoreDns::start(&server, upstream, setup);
    let ours = Fairlead::start(&server, upstream, setup).await;
    let servers = [theirs.address, ours.address];
    cluster.mark();
    cluster.await_sync(setup, &servers).await;

    let mut seen: BTreeMap<Fits, u64> = BTreeMap::new();
    let (mut wrong, mut shown) = (0, String::new());
    for _ in 0..setting("CHANGES", CHANGES) {
        let touched = Cluster::pick(&mut random);
        let questions: Vec<_> =
            (0..QUESTIONS_EACH).map(|_| Question::below(touched, &mut random)).collect();
        let before = State::of(&cluster, theirs.address, &questions).await;
        cluster.change_of(touched, &mut random);
        cluster.mark();
        let mut answers = vec![];
        let mut synced = pin!(cluster.await_sync(setup, &servers));
        let mut is_synced = false;
        loop {
            let is_after = is_synced;
            for (number, question) in questions.iter().enumerate() {
                answers.push((number, is_after, question.ask_one(ours.address).await));
                if !is_synced {
                    is_synced = poll!(&mut synced).is_ready();
                }
            }
            if is_after {
                break;
            }
        }
        let after = State::of(&cluster, theirs.address, &questions).await;
        let mut new_is_out = false;
        for (number, is_after, answer) in &answers {
            let (number, question) = (*number, &questions[*number]);
            let is_right = |state: &State| {
                let theirs = state.answers[number].clone();
                let replies = Replies { theirs, ours: answer.clone() };
                !matches!(verdict(setup, &state.known, question, &replies), Verdict::Different(_))
            };
            let fits = match (is_right(&before), is_right(&after)) {
                (true, true) => Fits::Both,
                (true, false) => Fits::Before,
                (false, true) => Fits::After,
                (false, false) => Fits::Neither,
            };
            let is_wrong = match fits {
                Fits::Neither => true,
                // Both know of the change, or we have shown that we do.
                Fits::Before => *is_after || new_is_out,
                Fits::Both | Fits::After => false,
            };
            new_is_out |= fits == Fits::After;
            *seen.entry(fits).or_default() += 1;
            wrong += usize::from(is_wrong);
            if is_wrong && wrong <= SHOWN_MAX {
                let _ = writeln!(shown, "{touched:?} {fits:?}: {question}\n{answer}");
            }
        }
    }
    let told = |fits: Fits| seen.get(&fits).copied().unwrap_or(0);
    assert!(told(Fits::Before) > 0 && told(Fits::After) > 0, "nothing has changed: {seen:?}");
    println!("seed {seed}: answers while objects change fit {seen:?}");
    assert_eq!(wrong, 0, "seed {seed}:\n{shown}");
}
