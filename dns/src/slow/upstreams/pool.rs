//! Who is asked, and who next: one upstream at a time, as in CoreDNS, whose reply is the answer whatever
//! another would have said. The next one is asked when that fails, or says nothing for long; what comes
//! first then counts.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use rand::seq::SliceRandom;
use tokio::time::timeout;

use super::{
    question::{Question, Reply},
    upstream::Upstream,
};
use crate::corefile::ForwardPolicy;

/// Silence after which the next upstream is asked, too: CoreDNS's read timeout.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// The same where there are many to ask: recursion for one name may take that long.
const SILENCE_MIN: Duration = Duration::from_secs(1);
/// An upstream that is silent for so long may be one that does not answer.
const SUSPICIOUS: Duration = Duration::from_millis(500);

/// The upstreams that are asked.
pub(super) struct Pool {
    upstreams: Vec<Upstream>,
    policy: ForwardPolicy,
    /// Whose turn it is.
    turn: AtomicUsize,
}

impl Pool {
    pub(super) fn new(upstreams: Vec<Upstream>, policy: ForwardPolicy) -> Self {
        Self { upstreams, policy, turn: AtomicUsize::new(0) }
    }

    /// The first reply; `None`: none of them gave one. `suspect` is told of failures and silence.
    pub(super) async fn ask(
        &self,
        question: &Question,
        most: Duration,
        suspect: impl Fn(),
    ) -> Option<Reply> {
        let order = self.order();
        let each = most / u32::try_from(order.len()).unwrap_or(u32::MAX).max(1);
        let silence = each.clamp(SILENCE_MIN, SILENCE_MAX);
        let mut order = order.into_iter();
        let mut asking = FuturesUnordered::new();
        loop {
            asking.extend(order.next().map(|upstream| upstream.ask(question)));
            if asking.is_empty() {
                return None;
            }
            let mut said = timeout(SUSPICIOUS, asking.next()).await;
            if said.is_err() {
                suspect();
                let rest = if order.len() > 0 { silence - SUSPICIOUS } else { most };
                said = timeout(rest, asking.next()).await;
            }
            match said {
                Ok(Some(Some(reply))) => return Some(reply),
                Ok(_) => suspect(),
                Err(_) => {}
            }
        }
    }

    /// In which they are asked.
    fn order(&self) -> Vec<&Upstream> {
        let mut all: Vec<_> = self.upstreams.iter().collect();
        match self.policy {
            ForwardPolicy::Random => all.shuffle(&mut rand::rng()),
            ForwardPolicy::RoundRobin => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % all.len().max(1);
                all.rotate_left(turn);
            }
            ForwardPolicy::Sequential => {}
        }
        all
    }
}
