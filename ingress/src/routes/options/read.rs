//! Options, one by one, and what some of them mean together.

use std::{borrow::Cow, path::PathBuf, sync::Arc};

use http::{HeaderName, StatusCode};

use super::{
    super::{
        annotations::{Annotations, Read, Unread, bad, flag, guards, networks, number, size},
        finding::Severity,
    },
    catalogue,
    gzip::GzipWish,
    tracing::TracingWish,
};
use crate::{
    access_log::{AccessLog, LogFormat, LogTarget},
    config::{ForwardedHeaders, Hsts, IngressConfig, ProxyProtocol},
    matcher::{TextMatch, TextMatches},
    networks::Networks,
};

/// Expressions in one list, each of which is asked about a request.
const EXPRESSIONS_MAX: usize = 256;
/// ingress-nginx's image links its log to standard output.
const NGINX_LOG: &str = "/var/log/nginx/access.log";
/// A hundred years: nothing waits for longer.
const TIME_MAX_MS: u64 = 100 * 365 * 24 * 3600 * 1000;
/// ingress-nginx's; used once any option about it is set.
const HSTS_SECONDS: u64 = 31_536_000;
const BELIEVES_EVERYBODY: &str = "option use-forwarded-headers believes everybody: whoever connects passes \
     for any address, turns redirects to HTTPS off and says where redirects lead; name your balancers in \
     proxy-real-ip-cidr";

const BELIEVES_HEADERS_OF_EVERYBODY: &str = "option use-proxy-protocol believes everybody: whoever connects \
     says which address that is of, and passes for any; name your balancers in proxy-real-ip-cidr";

/// What has been read so far.
#[derive(Debug)]
pub(super) struct Reader {
    config: IngressConfig,
    defaults: Annotations,
    hsts: Option<HstsWish>,
    log: LogWish,
    gzip: GzipWish,
    tracing: TracingWish,
    proxy_protocol: Option<bool>,
    trusted: Option<Networks>,
}

#[derive(Debug)]
struct HstsWish {
    on: bool,
    subdomains: bool,
    preload: bool,
    seconds: u64,
}

#[derive(Debug, Default)]
struct LogWish {
    off: bool,
    target: Option<LogTarget>,
    format: Option<Box<str>>,
    json: bool,
    skip: Option<TextMatches>,
}

impl Reader {
    pub(super) fn new(base: &IngressConfig) -> Self {
        Self {
            config: base.clone(),
            defaults: Annotations::default(),
            hsts: None,
            log: LogWish::default(),
            gzip: GzipWish::default(),
            tracing: TracingWish::default(),
            proxy_protocol: None,
            trusted: None,
        }
    }

    /// Reads one option.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Read {
        let option = catalogue::find(name).ok_or(Unread::Unknown)?;
        None.or_else(|| self.connections(name, value))
            .or_else(|| self.answers(name, value))
            .or_else(|| self.hsts(name, value))
            .or_else(|| self.logging(name, value))
            .or_else(|| self.gzip.set(name, value))
            .or_else(|| self.tracing.set(name, value))
            .or_else(|| self.tls(name, value))
            .or_else(|| self.believing(name, value))
            .or_else(|| self.blocking(name, value))
            .or_else(|| self.ingresses(name, value))
            .unwrap_or(Err(Unread::NotServed(Cow::Borrowed(option.note))))
    }

    fn connections(&mut self, name: &str, value: &str) -> Option<Read> {
        let IngressConfig { limits, timeouts, .. } = &mut self.config;
        Some(match name {
            "client-header-timeout" => wait(value).map(|ms| timeouts.header_read_ms = ms),
            "client-body-timeout" => wait(value).map(|ms| timeouts.client_body_ms = ms),
            "keep-alive" => time(value).map(|ms| timeouts.keep_alive_idle_ms = ms),
            "keep-alive-requests" => {
                number::<u64>(value).map(|n| limits.requests_per_connection_max = n.max(1))
            }
            "large-client-header-buffers" => buffers(value).map(|(count, bytes)| {
                limits.head_bytes_max = count.saturating_mul(bytes);
                limits.uri_bytes_max = bytes;
            }),
            "http2-max-concurrent-streams" => {
                at_least_one(value).map(|n| limits.h2_streams_max = n)
            }
            "upstream-keepalive-connections" => {
                number(value).map(|n| limits.upstream_idle_per_endpoint_max = n)
            }
            "upstream-keepalive-timeout" => wait(value).map(|ms| timeouts.upstream_idle_ms = ms),
            "proxy-stream-timeout" => wait(value).map(|ms| timeouts.stream_idle_ms = ms),
            "proxy-protocol-header-timeout" => wait(value).map(|ms| timeouts.tls_handshake_ms = ms),
            _ => return None,
        })
    }

    fn answers(&mut self, name: &str, value: &str) -> Option<Read> {
        let config = &mut self.config;
        Some(match name {
            "hide-headers" => names(value).map(|names| config.hidden_headers = names),
            "enable-underscores-in-headers" => {
                flag(value).map(|flag| config.underscores_in_headers = flag)
            }
            "http-redirect-code" => status(value, |code| [301, 302, 307, 308].contains(&code))
                .map(|status| config.https_redirect_status = status),
            "limit-req-status-code" => status(value, |code| (400..600).contains(&code))
                .map(|status| config.request_rate_status = status),
            "limit-conn-status-code" => status(value, |code| (400..600).contains(&code))
                .map(|status| config.client_connections_status = status),
            _ => return None,
        })
    }

    fn hsts(&mut self, name: &str, value: &str) -> Option<Read> {
        if !name.starts_with("hsts") {
            return None;
        }
        let usual = HstsWish { on: true, subdomains: true, preload: false, seconds: HSTS_SECONDS };
        let is_set = self.hsts.is_some();
        let mut wish = self.hsts.take().unwrap_or(usual);
        let read = match name {
            "hsts" => flag(value).map(|flag| wish.on = flag),
            "hsts-include-subdomains" => flag(value).map(|flag| wish.subdomains = flag),
            "hsts-preload" => flag(value).map(|flag| wish.preload = flag),
            _ => number::<u32>(value).map(|seconds| wish.seconds = seconds.into()),
        };
        // What cannot be read turns nothing on.
        self.hsts = (is_set || read.is_ok()).then_some(wish);
        Some(read)
    }

    fn logging(&mut self, name: &str, value: &str) -> Option<Read> {
        let log = &mut self.log;
        Some(match name {
            "disable-access-log" | "disable-http-access-log" => {
                // Either turns it off, whatever the other one says.
                flag(value).map(|off| log.off |= off)
            }
            // Both name the log of HTTP; the longer name is the narrower one and read later.
            "access-log-path" | "http-access-log-path" if !value.is_empty() => {
                log.target = Some(target(value));
                Ok(())
            }
            "access-log-path" | "http-access-log-path" => Ok(()),
            "log-format-upstream" => {
                let read = LogFormat::text(value).map(|_| log.format = Some(value.into()));
                read.map_err(|reason| Unread::Bad(reason.into()))
            }
            "log-format-escape-json" => flag(value).map(|json| log.json = json),
            "skip-access-log-urls" => texts(value, |texts| log.skip = Some(texts)),
            _ => return None,
        })
    }

    fn tls(&mut self, name: &str, value: &str) -> Option<Read> {
        let tls = &mut self.config.tls;
        Some(match name {
            "ssl-protocols" => {
                let has =
                    |version: &str| value.split_ascii_whitespace().any(|word| word == version);
                match (has("TLSv1.2"), has("TLSv1.3")) {
                    (false, false) => bad("names neither TLSv1.2 nor TLSv1.3, which are spoken"),
                    (tls12, tls13) => {
                        (tls.tls12, tls.tls13) = (tls12, tls13);
                        match value
                            .split_ascii_whitespace()
                            .find(|w| !["TLSv1.2", "TLSv1.3"].contains(w))
                        {
                            Some(old) => {
                                Err(Unread::NotServed(format!("{old} is not spoken").into()))
                            }
                            None => Ok(()),
                        }
                    }
                }
            }
            "use-http2" => flag(value).map(|flag| tls.http2 = flag),
            "ssl-session-tickets" => flag(value).map(|flag| tls.tickets = flag),
            "ssl-reject-handshake" => flag(value).map(|flag| tls.rejects_unknown = flag),
            _ => return None,
        })
    }

    fn believing(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "use-forwarded-headers" => flag(value).map(|flag| {
                self.config.forwarded_headers =
                    if flag { ForwardedHeaders::Trust } else { ForwardedHeaders::Replace };
            }),
            "use-proxy-protocol" => flag(value).map(|flag| self.proxy_protocol = Some(flag)),
            "proxy-real-ip-cidr" if value.trim().is_empty() => Ok(()),
            "proxy-real-ip-cidr" => networks(value).map(|list| self.trusted = Some(list)),
            _ => return None,
        })
    }

    fn blocking(&mut self, name: &str, value: &str) -> Option<Read> {
        let blocked = &mut self.config.blocked;
        Some(match name {
            "block-cidrs" if value.trim().is_empty() => Ok(()),
            "block-cidrs" => networks(value).map(|list| blocked.addresses = list),
            "block-user-agents" => texts(value, |texts| blocked.agents = texts),
            "block-referers" => texts(value, |texts| blocked.referers = texts),
            _ => return None,
        })
    }

    /// What an Ingress may say otherwise.
    fn ingresses(&mut self, name: &str, value: &str) -> Option<Read> {
        let annotation = match name {
            "proxy-cookie-path"
            | "proxy-cookie-domain"
            | "proxy-redirect-from"
            | "proxy-redirect-to"
                if value == "off" =>
            {
                return Some(Ok(()));
            }
            "whitelist-source-range" | "denylist-source-range" | "custom-http-errors"
                if value.trim().is_empty() =>
            {
                return Some(Ok(()));
            }
            "retry-non-idempotent" => {
                return Some(flag(value).map(|flag| self.defaults.retry_all(flag)));
            }
            "allow-snippet-annotations" => {
                return Some(flag(value).map(|flag| self.defaults.allow_snippets(flag)));
            }
            "http-snippet" | "location-snippet" | "server-snippet" => {
                return self.defaults.set_snippet_for_all(name, value);
            }
            _ => match name.strip_prefix("global-") {
                None => name,
                Some(auth) if !auth.starts_with("auth-") => return None,
                Some(_) if value.is_empty() => return Some(Ok(())),
                Some(auth) => auth,
            },
        };
        self.defaults.set_default(annotation, value)
    }

    /// An option that cannot be read and never could: if it keeps somebody out, everybody is kept out.
    pub(super) fn distrust(&mut self, name: &str, reason: &str) -> bool {
        let guards = guards(name.strip_prefix("global-").unwrap_or(name))
            // Without the one nobody is blocked, without the other everybody is believed.
            || ["block-cidrs", "proxy-real-ip-cidr"].contains(&name)
            // Bad are those alone that keep somebody out.
            || ["http-snippet", "location-snippet", "server-snippet"].contains(&name);
        if guards {
            self.defaults.deny(reason);
        }
        guards
    }

    /// Puts together what belongs together.
    pub(super) fn finish(
        self,
        mut find: impl FnMut(Severity, String),
    ) -> (IngressConfig, Annotations) {
        let Self { mut config, mut defaults, hsts, log, gzip, .. } = self;
        let (tracing, proxy_protocol, trusted) = (self.tracing, self.proxy_protocol, self.trusted);
        config.compression = gzip.compression();
        // nginx: no connection is kept then, whatever keep-alive-requests says.
        if config.timeouts.keep_alive_idle_ms == 0 {
            config.limits.requests_per_connection_max = 1;
        }
        if let Some(wish) = hsts {
            config.hsts = wish.on.then(|| wish.value());
        }
        if let Some((traces, sampling)) = tracing.traces() {
            config.traces = Some(Arc::new(traces));
            defaults.sample(sampling);
        }
        if defaults.is_unheard() {
            let reason = "option enable-opentelemetry has no effect without otlp-collector-host";
            find(Severity::Refused, reason.to_owned());
        }
        match log.access_log(config.access_log.as_ref()) {
            Ok(log) => config.access_log = log,
            Err(reason) => {
                find(Severity::Refused, format!("option log-format-upstream: {reason}"));
            }
        }
        // Whom the agent was told to believe holds until another list says otherwise.
        let is_new = trusted.is_some() || config.proxy_protocol.is_none();
        match proxy_protocol {
            Some(true) if is_new => {
                // ingress-nginx believes everybody unless it is told whom.
                let trusted = trusted.clone().unwrap_or_default();
                config.proxy_protocol = Some(ProxyProtocol { trusted });
            }
            Some(false) => config.proxy_protocol = None,
            Some(true) | None => {}
        }
        // What a flag says is told at the start.
        let believing = config.proxy_protocol.as_ref().filter(|_| proxy_protocol == Some(true));
        if believing.is_some_and(ProxyProtocol::believes_everybody) {
            find(Severity::Differs, BELIEVES_HEADERS_OF_EVERYBODY.to_owned());
        }
        config.trusted_proxies = trusted.unwrap_or(config.trusted_proxies);
        if config.believes_everybody() {
            find(Severity::Differs, BELIEVES_EVERYBODY.to_owned());
        }
        (config, defaults)
    }
}

impl HstsWish {
    fn value(&self) -> Hsts {
        let subdomains = if self.subdomains { "; includeSubDomains" } else { "" };
        let preload = if self.preload { "; preload" } else { "" };
        let text = format!("max-age={}{subdomains}{preload}", self.seconds);
        text.parse().unwrap_or_default()
    }
}

impl LogWish {
    fn access_log(self, base: Option<&AccessLog>) -> Result<Option<AccessLog>, String> {
        if self.off {
            return Ok(None);
        }
        let mut log = match (self.target, base) {
            (Some(target), Some(base)) => AccessLog { target, ..base.clone() },
            (Some(target), None) => AccessLog::to(target),
            (None, Some(base)) => base.clone(),
            // The agent was told to log nothing.
            (None, None) => return Ok(None),
        };
        if let Some(text) = self.format {
            let parse = if self.json { LogFormat::json } else { LogFormat::text };
            log.format = parse(&text)?;
        }
        log.skip = self.skip.unwrap_or(log.skip);
        Ok(Some(log))
    }
}

fn target(path: &str) -> LogTarget {
    match path {
        NGINX_LOG | "/dev/stdout" => LogTarget::Stdout,
        path => LogTarget::File(PathBuf::from(path)),
    }
}

/// nginx's times (`ngx_parse_time`) and Go's (`time.ParseDuration`): `90`, which are seconds, `500ms`, `10m`, `1h30m`,
/// `1d 12h`; in milliseconds.
fn time(value: &str) -> Result<u64, Unread> {
    let wrong = || Unread::Bad("is no time; give one such as 90s, 10m or 1h".into());
    let mut rest = value.trim();
    let mut sum_ms: u64 = 0;
    loop {
        let unit = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, behind) = rest.split_at_checked(unit).ok_or_else(wrong)?;
        let end = behind.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(behind.len());
        let (unit, behind) = behind.split_at_checked(end).ok_or_else(wrong)?;
        let unit_ms: u64 = match unit {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 24 * 3600 * 1000,
            "w" => 7 * 24 * 3600 * 1000,
            // Without a unit there is nothing behind it.
            "" if behind.is_empty() => 1000,
            _ => return Err(wrong()),
        };
        let ms = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_ms));
        let sum = ms.and_then(|ms| sum_ms.checked_add(ms)).filter(|sum| *sum <= TIME_MAX_MS);
        sum_ms = sum.ok_or_else(wrong)?;
        rest = behind.trim_start();
        if rest.is_empty() {
            return Ok(sum_ms);
        }
    }
}

/// The same, and not at once.
fn wait(value: &str) -> Result<u64, Unread> {
    match time(value)? {
        0 => bad("is no time to wait"),
        ms => Ok(ms),
    }
}

fn at_least_one(value: &str) -> Result<u32, Unread> {
    match number(value)? {
        0 => bad("is none"),
        n => Ok(n),
    }
}

/// `4 8k`.
fn buffers(value: &str) -> Result<(usize, usize), Unread> {
    let words: Vec<&str> = value.split_ascii_whitespace().collect();
    let [count, bytes] = *words else { return bad("is no number and size (4 8k)") };
    match (number::<usize>(count)?, usize::try_from(size(bytes)?)) {
        (count @ 1..=64, Ok(bytes @ 1024..=1_048_576)) => Ok((count, bytes)),
        _ => bad("is no number from 1 to 64 and size from 1k to 1m"),
    }
}

fn status(value: &str, is_one: impl Fn(u16) -> bool) -> Result<StatusCode, Unread> {
    let code = number::<u16>(value)?;
    match StatusCode::from_u16(code).ok().filter(|_| is_one(code)) {
        Some(status) => Ok(status),
        None => bad("is no status that can be answered here"),
    }
}

fn words(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|word| !word.is_empty())
}

fn names(value: &str) -> Result<Box<[HeaderName]>, Unread> {
    let names: Result<Box<[HeaderName]>, _> = words(value).map(str::parse).collect();
    names.or_else(|_| bad("is no list of names of fields"))
}

/// Takes what can be read, and tells the rest: whom a list keeps out it goes on to keep out.
fn texts(value: &str, take: impl FnOnce(TextMatches)) -> Read {
    let (mut good, mut expressions, mut bad) = (Vec::new(), 0, None);
    for text in words(value) {
        match TextMatch::parse(text) {
            Ok(TextMatch::Matches(_)) if expressions == EXPRESSIONS_MAX => {
                bad.get_or_insert_with(|| {
                    format!("{text:?} is one more than {EXPRESSIONS_MAX} regular expressions")
                });
            }
            Ok(text) => {
                expressions += usize::from(matches!(text, TextMatch::Matches(_)));
                good.push(text);
            }
            Err(reason) => _ = bad.get_or_insert(reason),
        }
    }
    take(good.into_iter().collect());
    match bad {
        None => Ok(()),
        Some(reason) => Err(Unread::NotServed(format!("{reason}; what can be read holds").into())),
    }
}
