//! What a connection to an upstream says: to which question, and whether it says anything.
//!
//! Of replies by TCP and TLS hickory looks at the id alone, and gives the id of a question that nobody waits
//! for any more to another one, which then got the late reply as its own.
//!
//! hickory asks by a connection until that is closed, or a question has waited on it to the end of its own time,
//! which ours do not: one that had died without a word was asked for ever.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt, future::ready};
use hickory_proto::op::{DnsRequest, DnsResponse};
use hickory_resolver::net::NetError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Silence of a connection after which it is no longer asked by: half of CoreDNS's read timeout, so that the
/// question can be asked anew before the next upstream is.
const SILENCE: Duration = Duration::from_secs(1);
/// The same for a question that is given up before, since something else has answered it.
const SILENCE_GIVEN_UP: Duration = Duration::from_millis(500);

/// What hickory says of a question.
pub(super) type Answer = Result<DnsResponse, NetError>;

/// One connection's replies.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    replies: Arc<AtomicU64>,
    silent: CancellationToken,
}

/// A question that waits.
#[derive(Debug)]
struct Waiting {
    watch: Watch,
    /// Replies that had come before it.
    before: u64,
    since: Instant,
}

/// Whether an answer is one to this request.
pub(super) fn to_it(request: &DnsRequest) -> impl Fn(&Answer) -> bool + Send + Sync + use<> {
    let asked = request.queries.clone();
    move |answer| answer.as_ref().map_or(true, |reply| reply.queries == asked)
}

impl Watch {
    pub(super) fn is_silent(&self) -> bool {
        self.silent.is_cancelled()
    }

    /// Ends when the connection is found silent.
    pub(super) fn silent(&self) -> impl Future<Output = ()> + use<> {
        self.silent.clone().cancelled_owned()
    }

    /// The first answer to a question, with an eye on the connection.
    pub(super) async fn first(
        self,
        answers: impl Stream<Item = Answer>,
        is_to_it: impl Fn(&Answer) -> bool,
    ) -> Option<Answer> {
        let waiting = self.wait();
        let mut answers = pin!(answers.filter(|answer| ready(is_to_it(answer))));
        let first = match timeout(SILENCE, answers.next()).await {
            Ok(first) => first,
            Err(_) => {
                waiting.look(SILENCE);
                answers.next().await
            }
        };
        // An error is hickory's word, such as that too many wait already, and none of the upstream's.
        if matches!(first, Some(Ok(_))) {
            self.replies.fetch_add(1, Relaxed);
        }
        first
    }

    fn wait(&self) -> Waiting {
        let before = self.replies.load(Relaxed);
        Waiting { watch: self.clone(), before, since: Instant::now() }
    }
}

impl Waiting {
    /// Says that the connection is silent, if nothing at all has come while this has waited for long.
    fn look(&self, waited: Duration) {
        if waited >= SILENCE_GIVEN_UP && self.watch.replies.load(Relaxed) == self.before {
            self.watch.silent.cancel();
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.look(self.since.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use futures::stream::once;

    use super::*;

    #[test]
    fn a_connection_is_silent_when_nothing_comes_while_a_question_waits_for_long() {
        for (waited_ms, comes, is_silent) in
            [(0, false, false), (499, false, false), (500, false, true), (1000, true, false)]
        {
            let watch = Watch::default();
            let waiting = watch.wait();
            if comes {
                watch.replies.fetch_add(1, Relaxed);
            }
            waiting.look(Duration::from_millis(waited_ms));
            assert_eq!(watch.silent.is_cancelled(), is_silent, "{waited_ms} ms, {comes}");
        }
    }

    #[tokio::test]
    async fn bug_a_question_for_which_there_is_no_room_is_no_sign_of_life() {
        let watch = Watch::default();
        let refused = watch.clone().first(once(ready(Err(NetError::Busy))), |_| true).await;
        assert!(matches!(refused, Some(Err(NetError::Busy))));
        assert_eq!(watch.replies.load(Relaxed), 0);
    }
}
