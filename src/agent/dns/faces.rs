//! What the Corefile's `health`, `ready` and `prometheus` serve.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use fairlead_dns::corefile::Corefile;
use hyper::StatusCode;
use tokio_util::sync::CancellationToken;

use super::{
    super::{http, pages::Metrics},
    Current,
    own_health::OwnHealth,
};

/// The servers beside DNS.
pub(super) struct Faces {
    current: Current,
    metrics: Arc<Metrics>,
    own_health: Arc<OwnHealth>,
    /// The agent is ending.
    ending: CancellationToken,
    serving: Mutex<Vec<(Face, CancellationToken)>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Page {
    Health,
    Ready,
    Metrics,
}

type Face = (Page, SocketAddr);

impl Faces {
    pub(super) fn new(
        current: Current,
        metrics: Arc<Metrics>,
        own_health: Arc<OwnHealth>,
        ending: CancellationToken,
    ) -> Self {
        Self { current, metrics, own_health, ending, serving: Mutex::default() }
    }

    /// Serves what this Corefile wants, and nothing else any more. A taken port is one error line:
    /// names are more important.
    pub(super) fn serve(&self, corefile: Option<Arc<Corefile>>) {
        let wanted: Vec<Face> = corefile.map_or_else(Vec::new, |corefile| {
            let faces = [
                corefile.health().map(|health| (Page::Health, health.address)),
                corefile.ready().map(|address| (Page::Ready, address)),
                corefile.prometheus().map(|address| (Page::Metrics, address)),
            ];
            faces.into_iter().flatten().collect()
        });
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        serving.retain(|(face, stop)| {
            let stays = wanted.contains(face);
            if !stays {
                stop.cancel();
            }
            stays
        });
        for face in wanted {
            if !serving.iter().any(|(known, _)| *known == face) {
                let stop = CancellationToken::new();
                self.start(face, stop.clone());
                serving.push((face, stop));
            }
        }
    }

    pub(super) fn end(&self) {
        for (_, stop) in self.serving.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            stop.cancel();
        }
    }

    fn start(&self, (page, address): Face, stop: CancellationToken) {
        let (current, metrics) = (self.current.clone(), self.metrics.clone());
        let ending = self.ending.clone();
        let pages = move |uri: &hyper::Uri| match (page, uri.path()) {
            (Page::Health, "/health") => Some((StatusCode::OK, "OK".to_owned())),
            (Page::Ready, "/ready") => Some(ready(&current, &ending)),
            (Page::Metrics, "/metrics") => {
                let mut text = String::new();
                metrics(&mut text);
                Some((StatusCode::OK, text))
            }
            _ => None,
        };
        let what = match page {
            Page::Health => "Corefile: health",
            Page::Ready => "Corefile: ready",
            Page::Metrics => "Corefile: prometheus",
        };
        let own_health = (page == Page::Health).then(|| self.own_health.clone());
        tokio::spawn(async move {
            match http::serve(what, address, http::Texts::new(pages), stop.clone()).await {
                Ok(bound) => {
                    tracing::info!(%bound, "{what}");
                    if let Some(own_health) = own_health {
                        stop.run_until_cancelled(own_health.follow(bound)).await;
                    }
                }
                Err(error) => tracing::error!("{}", crate::exit::one_line(&error)),
            }
        });
    }
}

/// As CoreDNS: OK, or the plugins that are not ready.
fn ready(current: &Current, ending: &CancellationToken) -> http::Page {
    let synced = current.load().as_ref().is_some_and(|running| running.revision().is_some());
    match (synced, ending.is_cancelled()) {
        (true, false) => (StatusCode::OK, "OK".to_owned()),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "kubernetes".to_owned()),
        (_, true) => (StatusCode::SERVICE_UNAVAILABLE, "ending".to_owned()),
    }
}
