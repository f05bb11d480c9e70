//! A client's connection, as all that is served on it sees it: deadlines and draining end it.

use std::{
    cell::{Cell, OnceCell},
    future::Future,
    net::IpAddr,
    rc::Rc,
    sync::Arc,
};

use http::HeaderValue;
use hyper::rt::Executor;
use rustls::ProtocolVersion;
use tokio::task::spawn_local;

use super::{
    clock::Watch,
    fields::Origin,
    front::Scheme,
    identity::Shown,
    observed::Observer,
    preamble::Ends,
    worker::{Open, Worker},
};
use crate::{
    config::{ForwardedHeaders, IngressConfig},
    routes::Upstream,
};

/// A client's connection, as requests on it see it.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    /// `None`: what is done is nothing of the connection's.
    _open: Option<Open>,
    pub(crate) origin: Origin,
    /// TLS ends here.
    pub(crate) tls: bool,
    tls_protocol: Cell<&'static str>,
    /// By the options of its last request: a connection may be older than they are.
    forwarded: Cell<ForwardedHeaders>,
    /// The client, whatever stands in between.
    pub(crate) peer: IpAddr,
    /// Who connected, if a PROXY header names the client.
    pub(crate) balancer: Option<IpAddr>,
    /// The port the client connected to.
    pub(crate) port: u16,
    /// By which the outside knows that of HTTPS; `None` without TLS.
    pub(crate) outside_port: Option<u16>,
    /// Once it was asked for a certificate.
    pub(super) shown: OnceCell<Shown>,
    h2: Cell<bool>,
    /// Requests so far.
    begun: Cell<u64>,
    /// Requests in service.
    requests: Cell<usize>,
    live: Rc<Liveness>,
}

/// What bytes on the wire mean for the deadlines.
#[derive(Debug)]
pub(crate) struct Liveness {
    watch: Arc<Watch>,
    /// Between two requests: the next byte begins a head.
    idle: Cell<bool>,
    header_read_ms: u64,
    client_send_ms: u64,
}

/// A request for as long as it is served, its response's body included.
#[derive(Debug)]
pub(crate) struct Busy(Rc<Client>);

/// hyper's tasks stay on this thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Local;

impl Client {
    pub(super) fn new(open: Open, ends: Ends, tls: bool) -> Rc<Self> {
        let worker = open.worker().clone();
        let config = worker.config();
        let timeouts = &config.timeouts;
        let live = Rc::new(Liveness {
            watch: worker.clock.watch(),
            idle: Cell::new(false),
            header_read_ms: timeouts.header_read_ms,
            client_send_ms: timeouts.client_send_ms,
        });
        live.watch.arm(timeouts.header_read_ms);
        let text = |text: String| {
            HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("unknown"))
        };
        // ingress-nginx: pass_port, of its own port of HTTPS alone.
        let https = worker.shared.https.filter(|_| tls);
        let outside_port = https.map(|https| match ends.balancer {
            None if ends.port != https.listen => ends.port,
            _ => https.outside,
        });
        let origin = Origin {
            client: text(ends.client.ip().to_canonical().to_string()),
            port: HeaderValue::from(match ends.balancer {
                None => outside_port.unwrap_or(ends.port),
                Some(_) => ends.port,
            }),
        };
        Rc::new(Self {
            worker,
            _open: Some(open),
            origin,
            tls,
            tls_protocol: Cell::new(""),
            forwarded: Cell::default(),
            peer: ends.client.ip().to_canonical(),
            balancer: ends.balancer,
            port: ends.port,
            outside_port,
            shown: OnceCell::new(),
            h2: Cell::new(false),
            begun: Cell::new(0),
            requests: Cell::new(0),
            live,
        })
    }

    /// The same client, for what is done on its own and outlives the connection.
    pub(super) fn aside(&self) -> Rc<Self> {
        Rc::new(Self {
            worker: self.worker.clone(),
            _open: None,
            origin: self.origin.clone(),
            tls: self.tls,
            tls_protocol: self.tls_protocol.clone(),
            forwarded: self.forwarded.clone(),
            peer: self.peer,
            balancer: self.balancer,
            port: self.port,
            outside_port: self.outside_port,
            shown: OnceCell::new(),
            h2: self.h2.clone(),
            begun: self.begun.clone(),
            requests: Cell::new(0),
            live: self.live.clone(),
        })
    }

    pub(super) fn live(&self) -> &Rc<Liveness> {
        &self.live
    }

    pub(super) fn watch(&self) -> &Watch {
        &self.live.watch
    }

    /// As nginx names it; empty without TLS.
    pub(crate) fn tls_protocol(&self) -> &'static str {
        self.tls_protocol.get()
    }

    pub(super) fn speaks(&self, version: Option<ProtocolVersion>) {
        self.tls_protocol.set(match version {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "",
        });
    }

    /// A balancer that is believed had it at HTTPS's port (ingress-nginx: use_proxy_protocol).
    pub(super) fn is_proxied_https(&self) -> bool {
        self.balancer.is_some() && self.port == Scheme::Https.port()
    }

    /// The handshake is over.
    pub(super) fn connected(&self, h2: bool) {
        self.h2.set(h2);
        self.live.watch.arm(self.live.header_read_ms);
    }

    pub(crate) fn is_h2(&self) -> bool {
        self.h2.get()
    }

    /// There was a request.
    pub(super) fn has_begun(&self) -> bool {
        self.begun.get() > 0
    }

    /// A request's head is there.
    pub(crate) fn begin(self: &Rc<Self>) -> Busy {
        self.begun.set(self.begun.get() + 1);
        self.forwarded.set(self.forwarded_by(&self.worker.config()));
        self.hold()
    }

    /// ingress-nginx: real_ip_header proxy_protocol. Whom a PROXY header names is a client, unless it
    /// is a balancer that is named.
    fn forwarded_by(&self, config: &IngressConfig) -> ForwardedHeaders {
        match self.balancer {
            Some(_) if !config.is_balancer(self.peer) => ForwardedHeaders::Replace,
            _ => config.forwarded_by(self.peer),
        }
    }

    /// What is done with fields of its requests that say who asked, and how.
    pub(crate) fn forwarded(&self) -> ForwardedHeaders {
        self.forwarded.get()
    }

    /// Something is in service.
    pub(crate) fn hold(self: &Rc<Self>) -> Busy {
        self.requests.set(self.requests.get() + 1);
        self.live.idle.set(false);
        self.live.watch.stay();
        self.live.watch.disarm();
        Busy(self.clone())
    }

    /// A number that grows by one with each request to the upstream.
    pub(crate) fn turn(&self, upstream: &Upstream) -> usize {
        self.worker.pool.turn(upstream, self.worker.clock.now_ms())
    }

    /// Requests so far, the one that began last included.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.get()
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let client = &self.0;
        client.requests.set(client.requests.get() - 1);
        if client.requests.get() == 0 {
            // In HTTP/2 bytes may be frames of no stream: they do not begin a request.
            client.live.idle.set(!client.is_h2());
            client.live.watch.rest_soon();
            client.live.watch.arm(client.worker.config().timeouts.keep_alive_idle_ms);
        }
    }
}

impl Liveness {
    /// A head has begun, and is waited for as long as heads are: the first call counts.
    pub(super) fn head_begins(&self) {
        if self.idle.replace(false) {
            self.watch.stay();
            self.watch.arm(self.header_read_ms);
        }
    }
}

impl Observer for Rc<Liveness> {
    fn read(&mut self, _: &[u8]) {
        self.head_begins();
    }

    fn written(&self) {
        self.watch.written();
    }

    fn blocked(&self) {
        self.watch.write_blocked(self.client_send_ms);
    }
}

impl<F> Executor<F> for Local
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, task: F) {
        spawn_local(task);
    }
}
