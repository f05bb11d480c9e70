//! The page: what the commands tell, in a browser. Read-only, made on the server, nothing of it from
//! elsewhere; nothing is computed while nobody looks.

mod asked;
mod events;
mod frame;
mod guard;
mod pages;
mod picture;
mod rates;
mod words;

use std::sync::Arc;

use hyper::{Request, Response, StatusCode, Uri, body::Incoming, header};
use tokio::sync::Semaphore;

use self::{asked::Page, guard::Guard, rates::Rates};
use crate::{
    agent::{Body, Reports, Site, response},
    report::{
        status::{Health, Status},
        traffic::Traffic,
    },
    view::View,
};

/// Pages that are followed at the same time, tabs of one browser counted one by one.
const STREAMS_MAX: usize = 16;

const STYLE: &str = include_str!("web/style.css");
const SCRIPT: &str = include_str!("web/page.js");
const ICON: &str = include_str!("web/icon.svg");

/// What the page is made from: an agent's own reports.
pub(crate) trait Facts: Clone + Send + Sync + 'static {
    /// Whether the agent is well.
    fn health(&self) -> Health;

    /// How it fares, at length.
    fn status(&self) -> Status;

    /// What passed and what did not.
    fn traffic(&self) -> Traffic;

    /// A report of this moment.
    ///
    /// # Errors
    /// Nothing is known of the cluster yet, or the report's own.
    fn look<T>(&self, report: impl FnOnce(&View<'_>) -> anyhow::Result<T>) -> anyhow::Result<T>;
}

/// The page's server.
#[derive(Clone)]
pub(crate) struct Web<F> {
    facts: F,
    guard: Arc<Guard>,
    streams: Arc<Semaphore>,
    reports: Reports,
}

impl<F: Facts> Web<F> {
    /// Shows `facts` to whoever asks by an address, by localhost or by one of `names`.
    pub(crate) fn new(facts: F, names: &[String]) -> Self {
        let streams = Arc::new(Semaphore::new(STREAMS_MAX));
        Self { facts, guard: Arc::new(Guard::new(names)), streams, reports: Reports::default() }
    }

    async fn page(&self, uri: &Uri) -> Response<Body> {
        let (path, query) = (uri.path(), uri.query().unwrap_or_default());
        match path {
            "/style.css" => asset("text/css; charset=utf-8", STYLE),
            "/page.js" => asset("text/javascript; charset=utf-8", SCRIPT),
            "/icon.svg" => asset("image/svg+xml", ICON),
            "/events" => match (asked::followed(query), self.streams.clone().try_acquire_owned()) {
                (None, _) => plain(StatusCode::NOT_FOUND, "no such page\n"),
                (_, Err(_)) => {
                    plain(StatusCode::SERVICE_UNAVAILABLE, "too many pages are followed\n")
                }
                (Some(page), Ok(permit)) => {
                    events::follow(self.facts.clone(), page, permit, events::LOOK_EVERY)
                }
            },
            "/part" => match asked::followed(query) {
                None => plain(StatusCode::NOT_FOUND, "no such page\n"),
                Some(page) => {
                    let part = move |facts: &F| {
                        events::part(facts, &page, &mut Rates::default()).to_string()
                    };
                    self.made(move |facts| (StatusCode::OK, part(facts)), "application/json").await
                }
            },
            _ => match Page::of(path, query) {
                None => plain(StatusCode::NOT_FOUND, "no such page\n"),
                Some(page) => {
                    self.made(move |facts| frame::whole(facts, &page), "text/html; charset=utf-8")
                        .await
                }
            },
        }
    }

    async fn made(
        &self,
        make: impl FnOnce(&F) -> (StatusCode, String) + Send + 'static,
        kind: &'static str,
    ) -> Response<Body> {
        let facts = self.facts.clone();
        match self.reports.make(move || make(&facts)).await {
            Some((status, text)) => typed(status, text, kind),
            None => plain(StatusCode::INTERNAL_SERVER_ERROR, "this broke down, see the log\n"),
        }
    }
}

impl<F: Facts> Site for Web<F> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let (asked, _) = request.into_parts();
        let mut response = match self.guard.admit(&asked.method, &asked.uri, &asked.headers) {
            Ok(()) => self.page(&asked.uri).await,
            Err((status, reason)) => plain(status, reason),
        };
        guard::harden(response.headers_mut());
        response
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    typed(status, text.to_owned(), "text/plain; charset=utf-8")
}

fn asset(kind: &'static str, text: &str) -> Response<Body> {
    typed(StatusCode::OK, text.to_owned(), kind)
}

fn typed(status: StatusCode, text: String, kind: &'static str) -> Response<Body> {
    let mut response = response(status, text);
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests;
