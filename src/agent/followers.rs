//! Whoever follows connections to Services live: `GET /v1/live` on the admin socket, a stream of
//! lines of JSON. The programs tell of new connections while somebody does, and only then.

mod who;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use bytes::Bytes;
use fairlead_proxy::{
    Kernel, ProxyStatus,
    live::{Client, Told, Wanted},
    namespaces,
};
use fairlead_state::{Name, store::Snapshots};
use futures::stream;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::{Frame, Incoming},
    header::{self, HeaderValue},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use super::{
    api,
    http::{self, Body, Site},
    pages::Pages,
};
use crate::report::trace::{
    Asker,
    live::{Followed, Followee, Line, followed},
};
use who::Who;

/// Where it is asked for.
const PATH: &str = "/v1/live";
/// The ring is read so often; it holds what comes meanwhile at 46,000 new connections a second.
const READ_EVERY: Duration = Duration::from_millis(50);
/// An empty line after so many looks: both sides learn that the other is still there.
const LOOKS_PER_BEAT: u32 = 100;
/// More would take connections from those who only ask.
const FOLLOWERS_MAX: usize = 8;
/// Of one follower who reads slowly; what comes then is counted.
const LINES_QUEUED_MAX: usize = 4096;
/// Who reads nothing for so long while lines are queued, because it is stopped, has its place taken.
const READ_MAX: Duration = Duration::from_secs(60);

/// Those who follow the programs of one kernel.
#[derive(Debug)]
pub(crate) struct Followers {
    kernel: Arc<Kernel>,
    node_name: Name,
    snapshots: Snapshots,
    status: watch::Receiver<ProxyStatus>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    followers: Vec<Follower>,
    /// There is a task that reads.
    is_read: bool,
    /// Told by the kernel so far.
    lost: u64,
    /// Nobody can begin any more.
    is_closed: bool,
}

#[derive(Debug)]
struct Follower {
    wanted: Wanted,
    lines: mpsc::Sender<Bytes>,
    /// What it has not been told.
    missed: u64,
    /// Since when there is no room for another line.
    full_since: Option<Instant>,
    /// Decisions that count towards the next it is told of.
    credit: u64,
}

impl Followers {
    pub(crate) fn new(
        kernel: Arc<Kernel>,
        node_name: Name,
        snapshots: Snapshots,
        status: watch::Receiver<ProxyStatus>,
    ) -> Arc<Self> {
        let state = Mutex::default();
        Arc::new(Self { kernel, node_name, snapshots, status, state })
    }

    /// Lines for one more, who ends by dropping the receiver.
    fn follow(self: &Arc<Self>, wanted: Wanted) -> anyhow::Result<mpsc::Receiver<Bytes>> {
        let mut state = self.state();
        state.drop_gone();
        anyhow::ensure!(!state.is_closed, "the proxy is ending");
        anyhow::ensure!(
            state.followers.len() < FOLLOWERS_MAX,
            "{FOLLOWERS_MAX} follow already: end one of them"
        );
        let live = self.kernel.live();
        if state.followers.is_empty() {
            // What was left unread is nobody's any more.
            drop(live.take());
            state.lost = live.lost()?;
        }
        let (lines, receiver) = mpsc::channel(LINES_QUEUED_MAX);
        let mut follower = Follower { wanted, lines, missed: 0, full_since: None, credit: 0 };
        live.tell(&state.wanted().map_or(wanted, |others| others.or(wanted)))?;
        // Who reads this line knows that nothing is missed from now on.
        follower.beat();
        state.followers.push(follower);
        if !mem::replace(&mut state.is_read, true) {
            tracing::info!("connections are followed: the programs tell of new ones");
            tokio::spawn(read(self.clone()));
        }
        Ok(receiver)
    }

    /// Ends all and lets nobody begin: the programs outlive this agent, and would go on telling.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        state.followers.clear();
        self.stop();
    }

    fn stop(&self) {
        if let Err(error) = self.kernel.live().stop() {
            tracing::warn!(error = &error as &dyn std::error::Error, "connections are still told");
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands out what was told; whether anybody is still there.
    fn hand_out(&self, told: &[Told], who: &Who, is_beat: bool) -> bool {
        let mut state = self.state();
        if state.drop_gone() && !state.followers.is_empty() {
            let wanted = state.wanted().unwrap_or_default();
            if let Err(error) = self.kernel.live().tell(&wanted) {
                tracing::warn!(error = &error as &dyn std::error::Error, "more is told than asked");
            }
        }
        if state.followers.is_empty() {
            state.is_read = false;
            self.stop();
            tracing::info!("nobody follows connections any more");
            return false;
        }
        let told_one_in = state.wanted().map_or(1, |wanted| wanted.one_in.max(1));
        for told in told {
            let mut line = None;
            for follower in &mut state.followers {
                if follower.wanted.holds(told) && follower.draws(told_one_in) {
                    let line = line.get_or_insert_with(|| text(&who.event(told)));
                    follower.send(line.clone());
                }
            }
        }
        // A counter that cannot be read is one that stands still.
        let lost = self.kernel.live().lost().unwrap_or(state.lost);
        let missed = lost.saturating_sub(mem::replace(&mut state.lost, lost));
        for follower in &mut state.followers {
            follower.missed += missed;
            follower.catch_up();
            if is_beat {
                follower.beat();
            }
        }
        true
    }
}

impl State {
    /// Forgets those who have gone, or read no more; whether there were any.
    fn drop_gone(&mut self) -> bool {
        let before = self.followers.len();
        let is_stuck = |since: Instant| since.elapsed() >= READ_MAX;
        self.followers.retain(|follower| {
            !follower.lines.is_closed() && !follower.full_since.is_some_and(is_stuck)
        });
        self.followers.len() != before
    }

    /// What all of them want.
    fn wanted(&self) -> Option<Wanted> {
        self.followers.iter().map(|follower| follower.wanted).reduce(Wanted::or)
    }
}

impl Follower {
    /// Whether this decision is one it is told of, where the programs tell of one in so many: they ask no
    /// more than the finest sample of all.
    fn draws(&mut self, told_one_in: u32) -> bool {
        self.credit += u64::from(told_one_in);
        let one_in = u64::from(self.wanted.one_in.max(1));
        let is_drawn = self.credit >= one_in;
        if is_drawn {
            self.credit -= one_in;
        }
        is_drawn
    }

    fn send(&mut self, line: Bytes) {
        self.catch_up();
        if self.missed > 0 || !self.put(line) {
            self.missed += 1;
        }
    }

    /// Says what was missed, if there is room again.
    fn catch_up(&mut self) {
        if self.missed > 0 && self.put(text(&Line::Lost { lost: self.missed })) {
            self.missed = 0;
        }
    }

    fn beat(&mut self) {
        // Without room there are lines to read, which do as well.
        self.put(Bytes::from_static(b"\n"));
    }

    /// Whether there was room.
    fn put(&mut self, line: Bytes) -> bool {
        let is_put = self.lines.try_send(line).is_ok();
        self.full_since =
            if is_put { None } else { self.full_since.or_else(|| Some(Instant::now())) };
        is_put
    }
}

fn text(line: &Line) -> Bytes {
    // Strings and numbers: nothing that JSON could not hold.
    let text = serde_json::to_string(line).unwrap_or_default();
    Bytes::from(text + "\n")
}

/// Reads as long as somebody follows.
async fn read(followers: Arc<Followers>) {
    let mut looks = interval(READ_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut who = Who::new(followers.node_name.clone(), followers.status.clone());
    let mut looked = 0;
    loop {
        looks.tick().await;
        let told = followers.kernel.live().take();
        if !told.is_empty() {
            let snapshot = followers.snapshots.borrow().clone();
            who.learn(snapshot, &told).await;
        }
        looked = (looked + 1) % LOOKS_PER_BEAT;
        if !followers.hand_out(&told, &who, looked == 0) {
            return;
        }
    }
}

/// The admin socket: texts, and this stream.
#[derive(Clone)]
pub(crate) struct Socket<S> {
    pub(crate) texts: S,
    pub(crate) pages: Pages,
}

impl<S: Site> Site for Socket<S> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        if request.uri().path() != PATH || request.method() != Method::GET {
            return self.texts.answer(request).await;
        }
        match begin(&self.pages, request.uri()).await {
            Ok(lines) => stream_of(lines),
            Err(error) => {
                let text = format!("{}\n", crate::exit::one_line(&error));
                http::response(StatusCode::UNPROCESSABLE_ENTITY, text)
            }
        }
    }
}

async fn begin(pages: &Pages, uri: &Uri) -> anyhow::Result<mpsc::Receiver<Bytes>> {
    let proxy = pages.shared.live.proxy.load_full().context(
        "this agent balances no Services (--no-proxy, or it is not ready): ask the one of the node \
         that does",
    )?;
    let query: BTreeMap<String, String> = uri
        .query()
        .map(|query| form_urlencoded::parse(query.as_bytes()).into_owned().collect())
        .unwrap_or_default();
    let pages = pages.clone();
    let wanted = tokio::task::spawn_blocking(move || wanted(&pages, &query));
    proxy.followers.follow(wanted.await.context("reading what is to be followed")??)
}

fn wanted(pages: &Pages, query: &BTreeMap<String, String>) -> anyhow::Result<Wanted> {
    let query = |name: &str| query.get(name).map(String::as_str);
    let target = query("target").map(str::parse).transpose()?;
    let one_in = query("sample").map(str::parse).transpose().context("sample")?;
    let from = Asker { client: query("from"), namespace: query("namespace") };
    let Followed { target, client } =
        api::look(pages, |view| followed(view, target.as_ref(), from))?;
    Ok(Wanted { one_in: one_in.unwrap_or(1), client: client.map(known).transpose()?, target })
}

/// A client by its sockets, too, if it has any here.
fn known(Followee { address, is_here }: Followee) -> anyhow::Result<Client> {
    let mut all = namespaces::read().into_iter();
    let own = all.find(|namespace| namespace.addresses.contains(&address));
    // Its packets alone would be none, as a rule, and silence an answer.
    anyhow::ensure!(
        own.is_some() || !is_here,
        "{address} is on this node, but in no network namespace that the agent can look into: that \
         takes CAP_SYS_ADMIN, and the namespaces in /run/netns (in a cluster, the chart's \
         proxy.podNamespaces=true)"
    );
    Ok(Client { address, netns_cookie: own.map(|namespace| namespace.cookie) })
}

fn stream_of(lines: mpsc::Receiver<Bytes>) -> Response<Body> {
    let lines = stream::unfold(lines, |mut lines| async {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(Frame::data(line)), lines))
    });
    let mut response = Response::new(StreamBody::new(lines).boxed_unsync());
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(one_in: u32, room: usize) -> (Follower, mpsc::Receiver<Bytes>) {
        let (lines, receiver) = mpsc::channel(room);
        let wanted = Wanted { one_in, ..Wanted::default() };
        (Follower { wanted, lines, missed: 0, full_since: None, credit: 0 }, receiver)
    }

    #[test]
    fn each_is_told_of_one_in_as_many_as_it_asked_for_however_fine_others_ask() {
        for (one_in, told_one_in, expected) in
            [(1, 1, 1000), (0, 1, 1000), (10, 10, 1000), (10, 1, 100), (10, 4, 400), (3, 2, 666)]
        {
            let mut follower = follower(one_in, 1).0;
            let drawn = (0..1000).filter(|_| follower.draws(told_one_in)).count();
            assert_eq!(drawn, expected, "one in {one_in} of one in {told_one_in}");
        }
    }

    #[test]
    fn who_reads_slowly_is_told_how_much_was_missed_and_who_reads_nothing_is_forgotten() {
        let (mut slow, mut lines) = follower(1, 2);
        for _ in 0..5 {
            slow.send(Bytes::from_static(b"x\n"));
        }
        assert_eq!((slow.missed, slow.full_since.is_some()), (3, true));
        lines.try_recv().expect("one");
        lines.try_recv().expect("two");
        slow.send(Bytes::from_static(b"y\n"));
        assert_eq!(lines.try_recv().expect("what was missed"), "{\"lost\":3}\n");
        assert_eq!(lines.try_recv().expect("and then on"), "y\n");
        assert_eq!((slow.missed, slow.full_since), (0, None));

        let (mut stuck, _lines) = follower(1, 1);
        stuck.full_since = Instant::now().checked_sub(READ_MAX);
        let mut state = State { followers: vec![slow, stuck], ..State::default() };
        assert!(state.drop_gone());
        assert_eq!(state.followers.len(), 1);
        drop(lines);
        assert!(state.drop_gone() && state.followers.is_empty(), "gone");
    }
}
