//! Connecting to whichever address of the API server answers.
//!
//! Connection attempts are staggered as in RFC 8305: the next address is tried when the one before
//! it has failed or is slow, and the first connection that stands, TLS included, is taken. So an
//! address that swallows packets (a Service's, before anything serves it) costs a moment and not a
//! timeout, and a server that hangs after accepting is passed over. Whatever address is dialled, the
//! server must show a certificate for the configured one, or for the one named on purpose.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use http::{
    Uri,
    uri::{Authority, Scheme},
};
use rand::seq::SliceRandom;
use tokio::time::{sleep, timeout};
use tower::{BoxError, Service, ServiceExt};

use super::addresses::Addresses;

/// Port of a configured address that names none.
const HTTPS_PORT: u16 = 443;
const HTTP_PORT: u16 = 80;

/// How long attempts take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// How long an attempt is given before the next one begins beside it.
    stagger: Duration,
    /// Longest wait for a connection, TLS included.
    attempt: Duration,
}

impl Pace {
    /// RFC 8305 §8 has 250 ms for the one; kernels' first SYN is repeated three times in the other.
    pub(super) const USUAL: Self =
        Self { stagger: Duration::from_millis(250), attempt: Duration::from_secs(8) };
}

/// A connector that tries one address after the other.
#[derive(Clone)]
pub(super) struct Dialler<C> {
    /// Verifies that the server is the configured one, whatever address is dialled.
    pub(super) as_configured: C,
    /// Verifies that the server is the one that is dialled.
    pub(super) by_address: C,
    /// Addresses to dial before the configured one, named by a person.
    pub(super) named: Arc<[Authority]>,
    /// Addresses the cluster itself has told of, dialled last.
    pub(super) known: Addresses,
    /// The last connection went to a remembered address.
    pub(super) detour: Arc<AtomicBool>,
    pub(super) pace: Pace,
}

/// Nothing answered.
#[derive(Clone, Debug, thiserror::Error)]
#[error("tried {}", .tried.join(", "))]
pub(super) struct Unreachable {
    /// Each address with its failure.
    tried: Vec<String>,
}

/// One way to a connection.
struct Attempt<C> {
    connector: C,
    uri: Uri,
    is_remembered: bool,
}

type Dialling<T> = Pin<Box<dyn Future<Output = Result<T, BoxError>> + Send>>;

impl<C> Dialler<C>
where
    C: Service<Uri> + Clone + Send + 'static,
    C::Response: Send,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    /// The first connection that stands, to whichever address.
    pub(super) async fn connect(&self, configured: &Uri) -> Result<C::Response, Unreachable> {
        let dialled = dial(self.attempts(configured), self.pace).await?;
        self.tell(configured, &dialled.uri, dialled.is_remembered);
        Ok(dialled.connection)
    }

    fn attempts(&self, configured: &Uri) -> Vec<Attempt<C>> {
        let to = |authority: &Authority, connector: &C, is_remembered| {
            let parts = configured.scheme().cloned().zip(Some(authority.clone()));
            let uri = at(parts?)?;
            Some(Attempt { connector: connector.clone(), uri, is_remembered })
        };
        let mut attempts = Vec::new();
        for named in &*self.named {
            // Its certificate may be for the name it was given, or for the cluster's own names only.
            attempts.extend(to(named, &self.by_address, false));
            attempts.extend(to(named, &self.as_configured, false));
        }
        let connector = self.as_configured.clone();
        attempts.push(Attempt { connector, uri: configured.clone(), is_remembered: false });
        let mut known = self.known.get();
        // Nodes that lose a server spread over the rest.
        known.shuffle(&mut rand::rng());
        for address in known {
            let authority = Authority::try_from(address.to_string()).ok();
            attempts.extend(authority.and_then(|at| to(&at, &self.as_configured, true)));
        }
        attempts
    }

    fn tell(&self, configured: &Uri, taken: &Uri, is_remembered: bool) {
        if self.detour.swap(is_remembered, Ordering::Relaxed) == is_remembered {
            return;
        }
        let (configured, taken) = (place(configured), place(taken));
        if is_remembered {
            tracing::info!(
                "the API server does not answer at {configured}; reading it at {taken}, \
                 which the cluster gave as its address"
            );
        } else {
            tracing::info!("the API server answers at {taken} again");
        }
    }
}

impl<C> Service<Uri> for Dialler<C>
where
    C: Service<Uri> + Clone + Send + Sync + 'static,
    C::Response: Send,
    C::Error: Into<BoxError>,
    C::Future: Send,
{
    type Response = C::Response;
    type Error = BoxError;
    type Future = Dialling<C::Response>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        // Each attempt waits for its own clone of the connector.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, configured: Uri) -> Self::Future {
        let dialler = self.clone();
        Box::pin(async move { Ok(dialler.connect(&configured).await?) })
    }
}

/// An attempt that came to something.
struct Dialled<T> {
    connection: T,
    uri: Uri,
    is_remembered: bool,
}

/// The first connection that stands.
async fn dial<C>(attempts: Vec<Attempt<C>>, pace: Pace) -> Result<Dialled<C::Response>, Unreachable>
where
    C: Service<Uri> + Send + 'static,
    C::Error: Into<BoxError>,
{
    let mut waiting = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    let mut tried = Vec::new();
    loop {
        match waiting.next() {
            Some(attempt) => running.push(attempt.make(pace.attempt)),
            None if running.is_empty() => return Err(Unreachable { tried }),
            None => {}
        }
        let is_last = waiting.len() == 0;
        tokio::select! {
            () = sleep(pace.stagger), if !is_last => {}
            Some(outcome) = running.next() => match outcome {
                Ok(dialled) => return Ok(dialled),
                Err(failure) if tried.contains(&failure) => {}
                Err(failure) => tried.push(failure),
            },
        }
    }
}

impl<C> Attempt<C>
where
    C: Service<Uri>,
    C::Error: Into<BoxError>,
{
    async fn make(self, patience: Duration) -> Result<Dialled<C::Response>, String> {
        let Self { connector, uri, is_remembered } = self;
        let reason = match timeout(patience, connector.oneshot(uri.clone())).await {
            Ok(Ok(connection)) => return Ok(Dialled { connection, uri, is_remembered }),
            Ok(Err(error)) => innermost(error.into().as_ref()),
            Err(_) => format!("no answer in {patience:?}"),
        };
        let whence = if is_remembered { ", remembered" } else { "" };
        Err(format!("{} ({reason}{whence})", place(&uri)))
    }
}

impl<C> fmt::Debug for Dialler<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialler").field("named", &self.named).field("known", &self.known).finish()
    }
}

fn at((scheme, authority): (Scheme, Authority)) -> Option<Uri> {
    Uri::builder().scheme(scheme).authority(authority).path_and_query("/").build().ok()
}

/// `HOST:PORT`.
fn place(uri: &Uri) -> String {
    let default = if uri.scheme() == Some(&Scheme::HTTP) { HTTP_PORT } else { HTTPS_PORT };
    format!("{}:{}", uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(default))
}

/// What the operating system or TLS said, without the layers above it.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Mutex};

    use super::*;

    /// How an address behaves.
    #[derive(Clone, Copy)]
    enum Way {
        Connects,
        Refuses,
        SaysNothing,
    }

    /// A network in which each address behaves in its way, and who was dialled.
    #[derive(Clone)]
    struct Network {
        ways: Arc<BTreeMap<&'static str, Way>>,
        dialled: Arc<Mutex<Vec<String>>>,
        verifies: &'static str,
    }

    impl Service<Uri> for Network {
        type Response = String;
        type Error = BoxError;
        type Future = Dialling<String>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, uri: Uri) -> Self::Future {
            let name = format!("{} as {}", place(&uri), self.verifies);
            self.dialled.lock().unwrap().push(name.clone());
            let way = *self.ways.get(name.as_str()).unwrap_or(&Way::Refuses);
            Box::pin(async move {
                match way {
                    Way::Connects => Ok(name),
                    Way::Refuses => Err("refused".into()),
                    Way::SaysNothing => std::future::pending().await,
                }
            })
        }
    }

    const PACE: Pace =
        Pace { stagger: Duration::from_millis(100), attempt: Duration::from_millis(300) };
    const CONFIGURED: &str = "10.96.0.1:443 as configured";
    const REMEMBERED: &str = "192.0.2.5:6443 as configured";

    fn dialler(ways: &[(&'static str, Way)], named: &[&str], known: &[&str]) -> Dialler<Network> {
        let network = |verifies, dialled: &Arc<_>| Network {
            ways: Arc::new(ways.iter().copied().collect()),
            dialled: Arc::clone(dialled),
            verifies,
        };
        let dialled = Arc::default();
        let addresses = Addresses::default();
        addresses.set(known.iter().map(|address| address.parse().unwrap()).collect());
        Dialler {
            as_configured: network("configured", &dialled),
            by_address: network("itself", &dialled),
            named: named.iter().map(|name| name.parse().unwrap()).collect(),
            known: addresses,
            detour: Arc::default(),
            pace: PACE,
        }
    }

    async fn call(dialler: &mut Dialler<Network>) -> Result<String, String> {
        let configured = Uri::from_static("https://10.96.0.1");
        dialler.call(configured).await.map_err(|error| error.to_string())
    }

    #[tokio::test]
    async fn the_configured_address_comes_first_and_others_when_it_fails_or_is_slow() {
        use Way::{Connects, Refuses, SaysNothing};
        for (configured, taken, waits) in [
            (Connects, CONFIGURED, false),
            (Refuses, REMEMBERED, false),
            (SaysNothing, REMEMBERED, true),
        ] {
            let ways = [(CONFIGURED, configured), (REMEMBERED, Connects)];
            let mut dialler = dialler(&ways, &[], &["192.0.2.5:6443"]);
            let begun = tokio::time::Instant::now();
            assert_eq!(call(&mut dialler).await.as_deref(), Ok(taken));
            assert_eq!(begun.elapsed() >= PACE.stagger, waits, "{taken}");
        }
    }

    #[tokio::test]
    async fn a_named_address_comes_first_and_may_show_either_certificate() {
        let own = "cp.example:6443 as itself";
        let clusters = "cp.example:6443 as configured";
        for taken in [own, clusters, CONFIGURED] {
            let ways = [(taken, Way::Connects)];
            let mut dialler = dialler(&ways, &["cp.example:6443"], &[]);
            assert_eq!(call(&mut dialler).await.as_deref(), Ok(taken));
            assert_eq!(dialler.by_address.dialled.lock().unwrap()[0], own);
        }
    }

    #[tokio::test]
    async fn when_nothing_answers_every_address_is_named_once_with_its_failure() {
        let ways = [(CONFIGURED, Way::SaysNothing)];
        let known = ["192.0.2.5:6443", "[2001:db8::5]:6443"];
        let mut dialler = dialler(&ways, &["cp.example:6443"], &known);
        let text = call(&mut dialler).await.unwrap_err();
        for part in [
            "cp.example:6443 (refused)",
            "10.96.0.1:443 (no answer in 300ms)",
            "192.0.2.5:6443 (refused, remembered)",
            "[2001:db8::5]:6443 (refused, remembered)",
        ] {
            assert_eq!(text.matches(part).count(), 1, "{part}: {text}");
        }
    }
}
