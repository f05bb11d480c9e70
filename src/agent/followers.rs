//! Whoever follows connections to Services live: `GET /v1/live` on the admin socket, a stream of
//! lines of JSON. The programs tell of new connections while somebody does, and only then.

mod who;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
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
    live::{Followed, Line, followed},
};
use who::Who;

/// Where it is asked for.
const PATH: &str = "/v1/live";
/// The ring is read so often; it holds what comes meanwhile at 45,000 new connections a second.
const READ_EVERY: Duration = Duration::from_millis(50);
/// An empty line after so many looks: both sides learn that the other is still there.
const LOOKS_PER_BEAT: u32 = 100;
/// More would take connections from those who only ask.
const FOLLOWERS_MAX: usize = 8;
/// Of one follower who reads slowly; what comes then is counted.
const LINES_QUEUED_MAX: usize = 4096;

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
        let follower = Follower { wanted, lines, missed: 0 };
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
        // A counter that cannot be read is one that stands still.
        let lost = self.kernel.live().lost().unwrap_or(state.lost);
        let missed = lost.saturating_sub(mem::replace(&mut state.lost, lost));
        for follower in &mut state.followers {
            follower.missed += missed;
        }
        for told in told {
            let mut line = None;
            let wants = |follower: &&mut Follower| follower.wanted.holds(told);
            for follower in state.followers.iter_mut().filter(wants) {
                let line = line.get_or_insert_with(|| text(&who.event(told)));
                follower.send(line.clone());
            }
        }
        for follower in &mut state.followers {
            follower.catch_up();
            if is_beat {
                follower.beat();
            }
        }
        true
    }
}

impl State {
    /// Forgets those who have gone; whether there were any.
    fn drop_gone(&mut self) -> bool {
        let before = self.followers.len();
        self.followers.retain(|follower| !follower.lines.is_closed());
        self.followers.len() != before
    }

    /// What all of them want.
    fn wanted(&self) -> Option<Wanted> {
        self.followers.iter().map(|follower| follower.wanted).reduce(Wanted::or)
    }
}

impl Follower {
    fn send(&mut self, line: Bytes) {
        self.catch_up();
        if self.missed > 0 || self.lines.try_send(line).is_err() {
            self.missed += 1;
        }
    }

    /// Says what was missed, if there is room again.
    fn catch_up(&mut self) {
        if self.missed > 0 && self.lines.try_send(text(&Line::Lost { lost: self.missed })).is_ok() {
            self.missed = 0;
        }
    }

    fn beat(&self) {
        // Without room there are lines to read, which do as well.
        drop(self.lines.try_send(Bytes::from_static(b"\n")));
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
    let client = client.map(|address| {
        let mut all = namespaces::read().into_iter();
        let own = all.find(|namespace| namespace.addresses.contains(&address));
        Client { address, netns_cookie: own.map(|namespace| namespace.cookie) }
    });
    Ok(Wanted { one_in: one_in.unwrap_or(1), client, target })
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
