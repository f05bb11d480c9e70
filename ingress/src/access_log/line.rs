//! A request as a line of the access log.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use http::{HeaderValue, header::HOST, request::Parts};

use super::{
    AccessLog,
    format::{Early, Late, Part},
    lines::Now,
    text::{Escape, push_address, push_ip, push_number, push_seconds},
};
use crate::{
    cookies, host, path,
    record::{Attempt, Record, protocol, target},
    routes::Upstream,
    serve::{
        Client, argument, forwarded_for,
        front::{Front, Scheme},
        hex_digits, sent_request_id, user,
    },
};

/// What only the head knows, written down while it is there.
#[derive(Debug, Default)]
pub(crate) struct Written {
    /// The early parts, each ending where `ends` says.
    text: Vec<u8>,
    ends: Vec<usize>,
    sent_id: Option<HeaderValue>,
    /// The client, if a balancer in front names it.
    forwarded_for: Option<IpAddr>,
}

impl Written {
    /// `buffers`: of an earlier request, and empty.
    pub(crate) fn of(
        client: &Client,
        head: &Parts,
        front: &Front,
        log: &AccessLog,
        buffers: (Vec<u8>, Vec<usize>),
    ) -> Self {
        let (mut text, mut ends) = buffers;
        for part in &*log.format.parts {
            if let Part::Early(early) = part {
                early.push(head, front, log.format.escape, &mut text);
                ends.push(text.len());
            }
        }
        let sent_id = sent_request_id(&head.headers).cloned();
        Self { text, ends, sent_id, forwarded_for: forwarded_for(client, &head.headers) }
    }
}

impl Record {
    /// Adds the line, if there is to be one.
    pub(crate) fn log(&mut self, now: Instant) {
        let Some(written) = self.written.take() else { return };
        let worker = self.client.worker.clone();
        let is_logged = self.route.get().is_none_or(|route| route.policy.is_logged);
        if let Some(log) = self.config.access_log.as_ref().filter(|_| is_logged) {
            worker.lines.add(&self.config, &worker.counters, now, |now, out| {
                self.push(&written, log, now, out);
            });
        }
        worker.lines.give_back(written.text, written.ends);
    }

    fn push(&self, written: &Written, log: &AccessLog, now: &Now<'_>, out: &mut Vec<u8>) {
        let (mut start, mut ends) = (0, written.ends.iter());
        for part in &*log.format.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text),
                Part::Early(_) => {
                    let end = ends.next().copied().unwrap_or(start);
                    out.extend_from_slice(written.text.get(start..end).unwrap_or_default());
                    start = end;
                }
                Part::Late(late) => self.push_late(*late, written, log.format.escape, now, out),
            }
        }
        out.push(b'\n');
    }

    fn push_late(
        &self,
        late: Late,
        written: &Written,
        escape: Escape,
        now: &Now<'_>,
        out: &mut Vec<u8>,
    ) {
        let client = &self.client;
        match late {
            Late::RemoteAddr => match written.forwarded_for {
                Some(address) => push_ip(address, out),
                None => out.extend_from_slice(client.origin.client.as_bytes()),
            },
            Late::ConnectedAddr => push_ip(client.balancer.unwrap_or(client.peer), out),
            Late::ProxiedAddr => match client.balancer {
                Some(_) => push_ip(client.peer, out),
                None => escape.push_nothing(out),
            },
            Late::ServerPort => push_number(client.port.into(), out),
            Late::Scheme => out.extend_from_slice(Scheme::of(client.tls).as_str().as_bytes()),
            Late::PassAccessScheme => out.extend_from_slice(self.front.scheme.as_str().as_bytes()),
            Late::TlsProtocol => escape.push(client.tls_protocol().as_bytes(), out),
            Late::TimeLocal => out.extend_from_slice(now.local.as_bytes()),
            Late::TimeIso8601 => out.extend_from_slice(now.iso8601.as_bytes()),
            Late::Msec => push_seconds(now.since_epoch, out),
            Late::Status => push_number(self.status().into(), out),
            Late::BodyBytesSent => push_number(self.body_bytes_sent.get(), out),
            Late::BytesSent => {
                push_number(self.sent_bytes(), out);
            }
            Late::RequestLength => {
                push_number(self.received_bytes(), out);
            }
            Late::RequestTime => push_seconds(now.instant - self.begun, out),
            Late::RequestId => match &written.sent_id {
                Some(id) => escape.push(id.as_bytes(), out),
                None => out.extend_from_slice(&hex_digits(self.own_id)),
            },
            Late::UpstreamName => self.push_upstream(escape, out, |upstream, out| {
                escape.push(upstream.name().as_bytes(), out);
            }),
            // nginx: a variable that is set to nothing is nothing.
            Late::AlternativeName => {
                let canary = self.route.get().and_then(|route| route.canary.as_ref());
                if let Some(canary) = canary.filter(|_| self.is_canary.get()) {
                    escape.push(canary.upstream.name().as_bytes(), out);
                }
            }
            Late::Namespace | Late::IngressName | Late::LocationPath => {
                let text = self.route.get().map(|route| match late {
                    Late::Namespace => &*route.ingress.namespace,
                    Late::IngressName => &*route.ingress.name,
                    _ => &*route.path,
                });
                escape.push(text.unwrap_or_default().as_bytes(), out);
            }
            Late::ServiceName => self.push_upstream(escape, out, |upstream, out| {
                escape.push(upstream.key().service.name.as_bytes(), out);
            }),
            Late::ServicePort => self.push_upstream(escape, out, |upstream, out| {
                escape.push(upstream.key().port_text().as_bytes(), out);
            }),
            Late::UpstreamAddr => self.push_attempts(escape, out, |attempt, _, out| {
                push_address(attempt.address, out);
            }),
            Late::UpstreamStatus => {
                self.push_attempts(escape, out, |attempt, _, out| match attempt.status {
                    // nginx: its client left, say.
                    0 => escape.push_nothing(out),
                    status => push_number(status.into(), out),
                });
            }
            Late::UpstreamConnectTime => self.push_attempts(escape, out, |attempt, _, out| {
                // nginx: a connection used before took no time.
                let reused = attempt.header.map(|_| Duration::ZERO);
                push_time(attempt.connect.or(reused), escape, out);
            }),
            Late::UpstreamHeaderTime => self.push_attempts(escape, out, |attempt, _, out| {
                push_time(attempt.header, escape, out);
            }),
            Late::UpstreamResponseTime => self.push_attempts(escape, out, |attempt, _, out| {
                push_seconds(attempt.took.unwrap_or_else(|| now.instant - attempt.begun), out);
            }),
            Late::UpstreamResponseLength => {
                self.push_attempts(escape, out, |attempt, is_last, out| {
                    // What is said in place of an answer is ours.
                    let is_its = is_last && attempt.header.is_some();
                    push_number(if is_its { self.body_bytes_sent.get() } else { 0 }, out);
                });
            }
        }
    }

    /// One after the other, in the order they were asked.
    fn push_attempts(
        &self,
        escape: Escape,
        out: &mut Vec<u8>,
        push: impl Fn(&Attempt, bool, &mut Vec<u8>),
    ) {
        let attempts = self.attempts.borrow();
        if attempts.is_empty() {
            return escape.push_nothing(out);
        }
        for (i, attempt) in attempts.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b", ");
            }
            push(attempt, i + 1 == attempts.len(), out);
        }
    }

    /// Of the Service the rule names.
    fn push_upstream(
        &self,
        escape: Escape,
        out: &mut Vec<u8>,
        push: impl FnOnce(&Upstream, &mut Vec<u8>),
    ) {
        match self.route.get().and_then(|route| route.upstream.as_deref()) {
            Some(upstream) => push(upstream, out),
            None => escape.push_nothing(out),
        }
    }
}

fn push_time(time: Option<Duration>, escape: Escape, out: &mut Vec<u8>) {
    match time {
        Some(time) => push_seconds(time, out),
        None => escape.push_nothing(out),
    }
}

impl Early {
    fn push(&self, head: &Parts, front: &Front, escape: Escape, out: &mut Vec<u8>) {
        let text = |text: &str, out: &mut Vec<u8>| escape.push(text.as_bytes(), out);
        match self {
            Self::Request => {
                text(head.method.as_str(), out);
                out.push(b' ');
                text(target(head), out);
                out.push(b' ');
                text(protocol(head.version), out);
            }
            Self::RequestUri => text(target(head), out),
            Self::Uri => {
                let path = head.uri.path();
                text(&path::normalise(path).unwrap_or_else(|_| path.into()), out);
            }
            Self::Args => text(head.uri.query().unwrap_or_default(), out),
            Self::IsArgs => {
                if head.uri.query().is_some() {
                    out.push(b'?');
                }
            }
            Self::Method => text(head.method.as_str(), out),
            Self::Protocol => text(protocol(head.version), out),
            Self::Host => {
                let sent = http_host(head);
                text(&host::normalise(sent).unwrap_or_else(|| sent.into()), out);
            }
            Self::HttpHost => text(http_host(head), out),
            Self::BestHttpHost => text(front.best_host(http_host(head)), out),
            Self::RemoteUser => text(&user(&head.headers), out),
            Self::Header(name) => {
                let value = head.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
                escape.push(value, out);
            }
            Self::Cookie(name) => {
                text(cookies::find(&head.headers, name).unwrap_or_default(), out);
            }
            Self::Arg(name) => text(argument(head.uri.query(), name).unwrap_or_default(), out),
        }
    }
}

fn http_host(head: &Parts) -> &str {
    let field = head.headers.get(HOST).and_then(|host| host.to_str().ok());
    field.or_else(|| head.uri.authority().map(http::uri::Authority::as_str)).unwrap_or_default()
}
