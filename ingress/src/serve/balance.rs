//! Which Service and which of its endpoints one request goes to, and the cookie that says so.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue};

use super::{forward::Errand, front::Front, scope::Scope};
use crate::{
    cookies,
    routes::{Balance, Pick, Route, SameSite, Sticky, Upstream, choice},
};

/// Between an endpoint's key and the mark of its Service.
const DELIMITER: char = '|';
/// Longer keys are nobody's of ours.
const KEY_BYTES_MAX: usize = 128;
/// Keys drawn to find one that leads to a given endpoint.
const DRAWS_MAX: usize = 64;
/// 31 December 9999, 23:59:59, since 1970 (RFC 9110 5.6.7: a year has four digits).
const LAST_DATE_SECONDS: u64 = 253_402_300_799;

/// Where a request goes.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) upstream: &'a Upstream,
    /// `None`: in rounds.
    pub(super) pick: Option<Pick>,
    /// The cookie decides or is to be set.
    stuck: Option<Stuck<'a>>,
}

#[derive(Debug)]
struct Stuck<'a> {
    sticky: &'a Sticky,
    /// What the cookie said, or a new key.
    key: String,
    is_new: bool,
}

impl<'a> Choice<'a> {
    /// `None`: there is no Service.
    pub(super) fn of(
        scope: &Scope<'_>,
        route: &'a Route,
        balance: Option<&'a Balance>,
    ) -> Option<Self> {
        let primary = route.upstream.as_deref()?;
        let sent = |sticky: &Sticky| sent(&scope.head.headers, sticky);
        let marked = |upstream: &Upstream| match balance {
            Some(Balance::Sticky(sticky)) => {
                sent(sticky).is_some_and(|(_, mark)| mark == mark_of(upstream))
            }
            _ => false,
        };
        // ingress-nginx has no balancer for a Service without endpoints: not even `always` leads there.
        let canary = route.canary.as_ref().filter(|trial| trial.upstream.has_endpoints());
        let Some(canary) = canary else { return Some(Self::at(scope, primary, balance)) };
        let takes = || {
            (!canary.is_legacy && marked(&canary.upstream))
                || canary.rule.takes(&scope.head.headers, |n| rand::random_range(1..=n.max(1)))
        };
        if marked(primary) || !takes() {
            return Some(Self::at(scope, primary, balance));
        }
        // The canary's cookie is the other Service's, with another mark, unless they are apart.
        let balance = match (canary.is_legacy, balance) {
            (false, Some(Balance::Sticky(_))) => balance,
            (is_legacy, _) => canary
                .balance
                .as_ref()
                .filter(|balance| is_legacy || !matches!(balance, Balance::Sticky(_))),
        };
        Some(Self::at(scope, &canary.upstream, balance))
    }

    fn at(scope: &Scope<'_>, upstream: &'a Upstream, balance: Option<&'a Balance>) -> Self {
        let turn = || scope.client.turn(upstream);
        let (pick, stuck) = match balance {
            None => (None, None),
            Some(Balance::Faster) => {
                (Some(Pick::Faster { a: rand::random::<u32>() as usize, b: turn() }), None)
            }
            Some(Balance::Idlest) => (Some(Pick::Idlest { turn: turn() }), None),
            Some(Balance::Hash { by, subset }) => {
                let key = choice::hash(scope.render(by).as_bytes());
                let pick = match *subset {
                    None => Pick::Rank(key),
                    Some(size) => Pick::Subset { key, size, turn: turn() },
                };
                (Some(pick), None)
            }
            Some(Balance::Sticky(sticky)) => {
                let sent = sent(&scope.head.headers, sticky).map(|(key, _)| key.to_owned());
                let is_new = sent.is_none();
                let key = sent.unwrap_or_else(new_key);
                let pick = match (sticky.persistent, u64::from_str_radix(&key, 16)) {
                    (false, _) => Pick::Rank(choice::hash(key.as_bytes())),
                    (true, Ok(identity)) if !is_new => Pick::Known { identity, turn: turn() },
                    (true, _) => Pick::Turn(turn()),
                };
                (Some(pick), Some(Stuck { sticky, key, is_new }))
            }
        };
        Self { upstream, pick, stuck }
    }

    /// The cookie that is to be set.
    pub(super) fn cookie(
        &self,
        front: &Front,
        route: &Route,
        agent: Option<&HeaderValue>,
        errand: &Errand<'_>,
    ) -> Option<HeaderValue> {
        let stuck = self.stuck.as_ref()?;
        let served = errand.served.get()?;
        let sticky = stuck.sticky;
        let identity = choice::identity(served);
        let key = if sticky.persistent {
            let key = format!("{identity:016x}");
            (key != stuck.key).then_some(key)
        } else if sticky.change_on_failure && !self.leads_to(&stuck.key, identity) {
            Some(self.key_for(identity))
        } else {
            stuck.is_new.then(|| stuck.key.clone())
        }?;
        let value = format!("{key}{DELIMITER}{}", mark_of(self.upstream));
        let is_secure = sticky.secure || front.scheme.is_https();
        HeaderValue::try_from(text(sticky, &value, route, is_secure, agent)).ok()
    }

    /// Whether a key is the endpoint's, be it reachable or not.
    fn leads_to(&self, key: &str, identity: u64) -> bool {
        let endpoints = self.upstream.endpoints();
        let first = choice::first(&endpoints.list, choice::hash(key.as_bytes()));
        first.is_some_and(|endpoint| choice::identity(endpoint.address()) == identity)
    }

    fn key_for(&self, identity: u64) -> String {
        let mut keys = (0..DRAWS_MAX).map(|_| new_key());
        keys.find(|key| self.leads_to(key, identity)).unwrap_or_else(new_key)
    }
}

/// The cookie's key and mark.
fn sent<'h>(headers: &'h HeaderMap, sticky: &Sticky) -> Option<(&'h str, &'h str)> {
    let value = cookies::find(headers, &sticky.name)?;
    let (key, mark) = value.split_once(DELIMITER).unwrap_or((value, ""));
    (!key.is_empty() && key.len() <= KEY_BYTES_MAX).then_some((key, mark))
}

/// Which Service a cookie is about, without its name.
fn mark_of(upstream: &Upstream) -> String {
    format!("{:016x}", choice::hash(upstream.key().to_string().as_bytes()))
}

fn new_key() -> String {
    format!("{:032x}", rand::random::<u128>())
}

/// When a cookie ends that is to live for so long. Whoever writes dates of HTTP panics before 1970 and from 10000 on.
fn expiry(now: SystemTime, seconds: i64) -> SystemTime {
    let age = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 {
        let end = now.checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
        return end.max(SystemTime::UNIX_EPOCH);
    }
    let last = SystemTime::UNIX_EPOCH + Duration::from_secs(LAST_DATE_SECONDS);
    now.checked_add(age).unwrap_or(last).min(last)
}

fn text(
    sticky: &Sticky,
    value: &str,
    route: &Route,
    is_secure: bool,
    agent: Option<&HeaderValue>,
) -> String {
    let mut text = format!("{}={value}", sticky.name);
    if let Some(seconds) = sticky.expires_seconds {
        let end = httpdate::fmt_http_date(expiry(SystemTime::now(), seconds));
        text.push_str(&format!("; Expires={end}"));
    }
    if let Some(seconds) = sticky.max_age_seconds {
        text.push_str(&format!("; Max-Age={seconds}"));
    }
    let rule = if route.path.is_empty() { "/" } else { &route.path };
    let path = sticky.path.as_ref().and_then(|path| path.to_str().ok()).unwrap_or(rule);
    text.push_str(&format!("; Path={path}"));
    if let Some(domain) = sticky.domain.as_ref().and_then(|domain| domain.to_str().ok()) {
        text.push_str(&format!("; Domain={domain}"));
    }
    if is_secure {
        text.push_str("; Secure");
    }
    text.push_str("; HttpOnly");
    let agent = agent.and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    let is_none = sticky.same_site == Some(SameSite::None);
    let is_left_out = is_none && sticky.conditional_none && misreads_none(agent);
    if let Some(same_site) = sticky.same_site.filter(|_| !is_left_out) {
        text.push_str(&format!("; SameSite={}", same_site.as_str()));
    }
    text
}

/// Browsers that take `SameSite=None` for Strict (chromium.org, "SameSite=None: Known Incompatible
/// Clients").
fn misreads_none(agent: &str) -> bool {
    let is_ios12 = agent.contains("(iP") && agent.contains("OS 12_");
    let is_safari = agent.contains("Version/") && agent.contains("Safari/");
    let is_embedded = agent.ends_with("(KHTML, like Gecko)");
    let is_mojave = agent.contains("Macintosh;") && agent.contains("Mac OS X 10_14");
    let chrome = agent.split_once("Chrome/").or_else(|| agent.split_once("Chromium/"));
    let major = chrome.and_then(|(_, version)| version.split('.').next()?.parse::<u32>().ok());
    is_ios12
        || (is_mojave && (is_embedded || (is_safari && major.is_none())))
        || (major.is_some_and(|major| (51..67).contains(&major)) && !agent.contains("UCBrowser/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_a_cookie_that_ends_before_time_began_breaks_no_thread() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        for (seconds, expected) in [
            (0, "Fri, 15 Jan 2027 08:00:00 GMT"),
            (60, "Fri, 15 Jan 2027 08:01:00 GMT"),
            (-60, "Fri, 15 Jan 2027 07:59:00 GMT"),
            (-2_000_000_000, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (i64::MIN, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (300_000_000_000, "Fri, 31 Dec 9999 23:59:59 GMT"),
            (i64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(httpdate::fmt_http_date(expiry(now, seconds)), expected, "{seconds}");
        }
    }

    #[test]
    fn browsers_that_misread_none_are_known() {
        for (agent, misreads) in [
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 12_4 like Mac OS X) Safari/604.1", true),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 13_0 like Mac OS X) Safari/604.1", false),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) Version/12.1 Safari/605.1.15", true),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) Chrome/79.0 Safari/537.36", false),
            ("Mozilla/5.0 (X11; Linux x86_64) Chrome/60.0.3112 Safari/537.36", true),
            ("Mozilla/5.0 (X11; Linux x86_64) Chrome/80.0.3987 Safari/537.36", false),
            ("", false),
        ] {
            assert_eq!(misreads_none(agent), misreads, "{agent}");
        }
    }
}
