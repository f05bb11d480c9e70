//! How endpoints are asked: how long they are waited for, who is asked next, what is told.

use std::ops::BitOr;

use http::StatusCode;

use super::{
    template::{Template, host},
    value::{Read, Unread, bad, number, seconds, size},
};
use crate::config::{Limits, Timeouts};

/// What an Ingress says about its endpoints; `None`: the role's setting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Proxying {
    body_bytes_max: Option<u64>,
    connect_ms: Option<u64>,
    send_ms: Option<u64>,
    read_ms: Option<u64>,
    next: Option<When>,
    /// Whatever the reasons say (ConfigMap: retry-non-idempotent).
    pub(super) retries_all: bool,
    tries: Option<usize>,
    tries_ms: Option<u64>,
    /// Host as endpoints see it.
    pub(super) vhost: Option<Template>,
    /// Connections to endpoints serve one request.
    pub(super) closes: bool,
}

/// How long an endpoint is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Patience {
    /// For a connection.
    pub(crate) connect_ms: u64,
    /// Between two parts of a request taken.
    pub(crate) send_ms: u64,
    /// Between two parts of a response.
    pub(crate) read_ms: u64,
}

/// When another endpoint is asked, and how often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Retries {
    when: When,
    /// Endpoints asked for one request.
    pub(crate) tries_max: usize,
    /// After this nobody else is asked; `None`: any time.
    pub(crate) within_ms: Option<u64>,
}

/// A set of reasons (nginx: proxy_next_upstream).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct When(u16);

impl When {
    const ERROR: Self = Self(1);
    const TIMEOUT: Self = Self(1 << 1);
    const INVALID_HEADER: Self = Self(1 << 2);
    const NON_IDEMPOTENT: Self = Self(1 << 3);
    const STATUSES: [(&'static str, u16, Self); 7] = [
        ("http_500", 500, Self(1 << 4)),
        ("http_502", 502, Self(1 << 5)),
        ("http_503", 503, Self(1 << 6)),
        ("http_504", 504, Self(1 << 7)),
        ("http_403", 403, Self(1 << 8)),
        ("http_404", 404, Self(1 << 9)),
        ("http_429", 429, Self(1 << 10)),
    ];

    fn has(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    fn parse(text: &str) -> Result<Self, Unread> {
        let mut when = Self::default();
        for word in text.split_ascii_whitespace() {
            let status = || Self::STATUSES.iter().find(|(name, ..)| *name == word);
            when = when
                | match word {
                    "error" => Self::ERROR,
                    "timeout" => Self::TIMEOUT,
                    "invalid_header" => Self::INVALID_HEADER,
                    "non_idempotent" => Self::NON_IDEMPOTENT,
                    "off" => return Ok(Self::default()),
                    _ => match status() {
                        Some((.., status)) => *status,
                        None => return bad(format!("has {word:?}, which is no reason of nginx's")),
                    },
                };
        }
        Ok(when)
    }
}

impl BitOr for When {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl Proxying {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "proxy-body-size" => size(value).map(|size| self.body_bytes_max = Some(size)),
            "proxy-connect-timeout" => wait(value).map(|ms| self.connect_ms = Some(ms)),
            "proxy-send-timeout" => wait(value).map(|ms| self.send_ms = Some(ms)),
            "proxy-read-timeout" => wait(value).map(|ms| self.read_ms = Some(ms)),
            "proxy-next-upstream" => When::parse(value).map(|when| self.next = Some(when)),
            "proxy-next-upstream-tries" => number(value).map(|tries| self.tries = Some(tries)),
            "proxy-next-upstream-timeout" => seconds(value).map(|ms| self.tries_ms = Some(ms)),
            "upstream-vhost" => host(value).map(|vhost| self.vhost = Some(vhost)),
            "connection-proxy-header" => connection(value).map(|closes| self.closes = closes),
            "proxy-http-version" => version(value),
            _ => return None,
        })
    }

    pub(crate) fn body_bytes_max(&self, limits: &Limits) -> u64 {
        self.body_bytes_max.unwrap_or(limits.body_bytes_max)
    }

    pub(crate) fn patience(&self, timeouts: &Timeouts) -> Patience {
        Patience {
            connect_ms: self.connect_ms.unwrap_or(timeouts.upstream_connect_ms),
            send_ms: self.send_ms.unwrap_or(timeouts.upstream_send_ms),
            read_ms: self.read_ms.unwrap_or(timeouts.upstream_read_ms),
        }
    }

    /// In nginx 0 means without limit, for tries and for their time.
    pub(crate) fn retries(&self, limits: &Limits) -> Retries {
        let tries = self.tries.unwrap_or(limits.upstream_tries_max);
        Retries {
            when: match (self.next.unwrap_or(When::ERROR | When::TIMEOUT), self.retries_all) {
                (when, true) => when | When::NON_IDEMPOTENT,
                (when, false) => when,
            },
            tries_max: if tries == 0 { usize::MAX } else { tries },
            within_ms: self.tries_ms.filter(|ms| *ms > 0),
        }
    }
}

impl Retries {
    /// The connection could not be made, or broke.
    fn on_error(&self) -> bool {
        self.when.has(When::ERROR)
    }

    /// What was answered is not believed.
    pub(crate) fn on_invalid_header(&self) -> bool {
        self.when.has(When::INVALID_HEADER)
    }

    /// There was no answer in time.
    fn on_timeout(&self) -> bool {
        self.when.has(When::TIMEOUT)
    }

    /// Whether another endpoint is asked after one that led to this status.
    pub(crate) fn may_follow(&self, status: StatusCode) -> bool {
        match status {
            StatusCode::GATEWAY_TIMEOUT => self.on_timeout(),
            _ => self.on_error(),
        }
    }

    /// Requests that may have been acted on are sent again, too.
    pub(crate) fn non_idempotent(&self) -> bool {
        self.when.has(When::NON_IDEMPOTENT)
    }

    /// An answer with this status is not passed on while somebody else can be asked.
    pub(crate) fn on_status(&self, status: StatusCode) -> bool {
        let mut statuses = When::STATUSES.iter();
        statuses.any(|(_, code, when)| *code == status.as_u16() && self.when.has(*when))
    }
}

/// At least a second: nginx refuses to wait for nothing.
fn wait(value: &str) -> Result<u64, Unread> {
    match seconds(value)? {
        0 => bad("is no time to wait"),
        ms => Ok(ms),
    }
}

fn connection(value: &str) -> Result<bool, Unread> {
    match value.trim() {
        "close" => Ok(true),
        "keep-alive" => Ok(false),
        _ => bad("is neither \"close\" nor \"keep-alive\""),
    }
}

fn version(value: &str) -> Read {
    match value.trim() {
        "1.1" => Ok(()),
        "1.0" => Err(Unread::NotServed("is not spoken to endpoints; HTTP/1.1 is".into())),
        _ => bad("is neither \"1.0\" nor \"1.1\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(when: &str, tries: &str) -> Option<Retries> {
        let mut proxying = Proxying::default();
        proxying.set("proxy-next-upstream", when).unwrap().ok()?;
        proxying.set("proxy-next-upstream-tries", tries).unwrap().ok()?;
        Some(proxying.retries(&Limits::default()))
    }

    #[test]
    fn reasons_to_ask_another_endpoint_are_nginxs() {
        for (when, error, timeout, non_idempotent, codes) in [
            ("error timeout", true, true, false, &[][..]),
            ("error  timeout non_idempotent", true, true, true, &[]),
            ("http_503 http_429", false, false, false, &[503, 429]),
            ("invalid_header", false, false, false, &[]),
            ("off", false, false, false, &[]),
            ("error off", false, false, false, &[]),
        ] {
            let retries = retries(when, "3").unwrap();
            let found = (retries.on_error(), retries.on_timeout(), retries.non_idempotent());
            assert_eq!(found, (error, timeout, non_idempotent), "{when}");
            assert_eq!(retries.on_invalid_header(), when == "invalid_header", "{when}");
            for code in [200, 403, 404, 429, 500, 502, 503, 504] {
                let status = StatusCode::from_u16(code).unwrap();
                assert_eq!(retries.on_status(status), codes.contains(&code), "{when}: {code}");
            }
        }
        assert!(retries("http_418", "3").is_none());
        assert!(retries("error; return 200", "3").is_none());
        assert_eq!(retries("error", "0").unwrap().tries_max, usize::MAX);
    }

    #[test]
    fn a_host_for_endpoints_is_one() {
        for (text, good) in [
            ("internal.example", true),
            ("internal.example:8080", true),
            ("a b", false),
            ("a\r\nX: y", false),
            ("a/b", false),
            ("$service_name.$namespace.svc", true),
            ("${host}:8080", true),
            ("$unknown", false),
            ("$host/x", false),
            ("$host\r\nX: y", false),
        ] {
            assert_eq!(host(text).is_ok(), good, "{text:?}");
        }
    }
}
