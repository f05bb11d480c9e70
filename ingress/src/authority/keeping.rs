//! How long an answer may be remembered and given to others, as whoever gave it says
//! (RFC 9111 5.2.2, as nginx reads it).

use std::time::{Duration, SystemTime};

use aws_lc_rs::digest::{Context, SHA256};
use http::{
    HeaderMap, HeaderName,
    header::{CACHE_CONTROL, EXPIRES, SET_COOKIE, VARY},
};

static X_ACCEL_EXPIRES: HeaderName = HeaderName::from_static("x-accel-expires");
/// Names of `Vary`; an answer with more is nobody else's.
const VARY_MAX: usize = 16;

/// Whose an answer is beside its first asker's, and for how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keeping {
    /// As long as it may be kept at most; `None`: nothing is said.
    pub(crate) longest: Option<Duration>,
    /// Fields of requests that it is different for.
    pub(crate) varies_by: Box<[HeaderName]>,
}

impl Keeping {
    /// Of an answer with these fields; `None`: it is for whoever asked alone.
    pub(crate) fn of(answer: &HeaderMap, now: SystemTime) -> Option<Self> {
        if answer.contains_key(SET_COOKIE) {
            return None;
        }
        let varies_by = varies_by(answer)?;
        let longest = longest(answer, now)?;
        (longest != Some(Duration::ZERO)).then_some(Self { longest, varies_by })
    }

    /// Whether the client's own fields are what the answer is different for: not those that are written here, `X-Original-URI`
    /// say, which who asks next does not have.
    pub(crate) fn is_by(&self, client: &HeaderMap, asked: &HeaderMap) -> bool {
        self.varies_by.iter().all(|name| client.get_all(name).iter().eq(asked.get_all(name)))
    }

    /// What a request has of those fields, as a hash: they may be long, and secret.
    pub(crate) fn mark(&self, request: &HeaderMap) -> Option<[u8; 32]> {
        let mut context = Context::new(&SHA256);
        for name in &self.varies_by {
            let values = request.get_all(name);
            context.update(&(values.iter().count() as u64).to_be_bytes());
            for value in values {
                context.update(&(value.len() as u64).to_be_bytes());
                context.update(value.as_bytes());
            }
        }
        context.finish().as_ref().try_into().ok()
    }
}

/// `None`: for nobody else.
fn varies_by(answer: &HeaderMap) -> Option<Box<[HeaderName]>> {
    let mut names = Vec::new();
    for value in answer.get_all(VARY) {
        for name in value.to_str().ok()?.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            // `*` is no name.
            names.push(HeaderName::from_bytes(name.as_bytes()).ok().filter(|_| name != "*")?);
        }
    }
    (names.len() <= VARY_MAX).then(|| names.into())
}

/// `None`: not at all; inside, `None`: nothing is said.
fn longest(answer: &HeaderMap, now: SystemTime) -> Option<Option<Duration>> {
    // nginx: it has the last word, be it a number or a time.
    if let Some(value) = answer.get(&X_ACCEL_EXPIRES) {
        return Some(Some(accel(value.to_str().ok()?.trim(), now)?));
    }
    let mut said = None;
    for value in answer.get_all(CACHE_CONTROL) {
        for directive in value.to_str().ok()?.split(',').map(str::trim) {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            match &*name.trim().to_ascii_lowercase() {
                // nginx: with a list of fields, too.
                "no-cache" | "no-store" | "private" => return None,
                age @ ("max-age" | "s-maxage") => {
                    let seconds: u64 = value.trim().trim_matches('"').parse().ok()?;
                    let is_shared = age == "s-maxage";
                    // RFC 9111 5.2.2.10: to who keeps it for many, s-maxage is what counts.
                    said = match said {
                        Some((true, known)) if !is_shared => Some((true, known)),
                        Some((false, _)) if is_shared => Some((true, seconds)),
                        Some((known_for, known)) => Some((known_for, seconds.min(known))),
                        None => Some((is_shared, seconds)),
                    };
                }
                _ => {}
            }
        }
    }
    if let Some((_, seconds)) = said {
        return Some(Some(Duration::from_secs(seconds)));
    }
    let Some(expires) = answer.get(EXPIRES) else { return Some(None) };
    // RFC 9111 5.3: what is no date is in the past.
    let expires = httpdate::parse_http_date(expires.to_str().ok()?).ok()?;
    Some(Some(expires.duration_since(now).ok()?))
}

/// `SECONDS`, or `@` and seconds since 1970.
fn accel(text: &str, now: SystemTime) -> Option<Duration> {
    match text.strip_prefix('@') {
        None => text.parse().ok().map(Duration::from_secs),
        Some(time) => {
            let time =
                SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(time.parse().ok()?))?;
            time.duration_since(now).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    /// 1 January 1970, 01:00.
    const NOW: Duration = Duration::from_secs(3600);

    fn fields(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut fields = HeaderMap::new();
        for (name, value) in lines {
            fields.append(*name, HeaderValue::from_str(value).unwrap());
        }
        fields
    }

    #[test]
    fn attack_an_answer_that_is_one_client_s_is_not_kept_for_others() {
        let seconds = |seconds| Some(Some(Duration::from_secs(seconds)));
        for (lines, expected) in [
            (&[][..], Some(None)),
            (&[("set-cookie", "sid=1")], None),
            (&[("cache-control", "no-store")], None),
            (&[("cache-control", "max-age=9, Private")], None),
            (&[("cache-control", "private=\"x-user\"")], None),
            (&[("cache-control", "max-age=9"), ("cache-control", "no-cache")], None),
            (&[("cache-control", "public")], Some(None)),
            (&[("cache-control", "public, max-age=60")], seconds(60)),
            (&[("cache-control", "max-age=60, s-maxage=5")], seconds(5)),
            (&[("cache-control", "s-maxage=90, max-age=60")], seconds(90)),
            (&[("cache-control", "max-age=60, max-age=5")], seconds(5)),
            (&[("cache-control", "max-age=0")], None),
            (&[("cache-control", "max-age=-1")], None),
            (&[("cache-control", "max-age=")], None),
            (&[("expires", "Thu, 01 Jan 1970 01:00:30 GMT")], seconds(30)),
            (&[("expires", "Thu, 01 Jan 1970 00:59:59 GMT")], None),
            (&[("expires", "0")], None),
            (&[("expires", "0"), ("cache-control", "max-age=60")], seconds(60)),
            (&[("x-accel-expires", "7"), ("cache-control", "no-store")], seconds(7)),
            (&[("x-accel-expires", "0"), ("cache-control", "max-age=60")], None),
            (&[("x-accel-expires", "@3610")], seconds(10)),
            (&[("x-accel-expires", "@1")], None),
            (&[("x-accel-expires", "off")], None),
            (&[("vary", "*")], None),
            (&[("vary", "Origin, *")], None),
            (&[("vary", "a b")], None),
        ] {
            let now = SystemTime::UNIX_EPOCH + NOW;
            let keeping = Keeping::of(&fields(lines), now);
            assert_eq!(keeping.map(|keeping| keeping.longest), expected, "{lines:?}");
        }
    }

    #[test]
    fn attack_what_varies_is_for_those_alone_who_send_the_same() {
        let answer = fields(&[("vary", "Cookie, x-team"), ("vary", "origin")]);
        let keeping = Keeping::of(&answer, SystemTime::UNIX_EPOCH + NOW).unwrap();
        let mark = |lines| keeping.mark(&fields(lines)).unwrap();
        let one = mark(&[("cookie", "a"), ("x-team", "b")]);
        assert_eq!(one, mark(&[("x-team", "b"), ("cookie", "a"), ("accept", "x")]));
        for other in [
            &[][..],
            &[("cookie", "a")],
            &[("cookie", "b"), ("x-team", "a")],
            &[("cookie", "a"), ("x-team", "b"), ("x-team", "b")],
            &[("cookie", "ab"), ("x-team", "")],
        ] {
            assert_ne!(one, mark(other), "{other:?}");
        }
        let many = "a, ".repeat(VARY_MAX + 1);
        assert_eq!(Keeping::of(&fields(&[("vary", &many)]), SystemTime::now()), None);
    }
    #[test]
    fn attack_an_answer_about_one_address_is_not_given_about_another() {
        let client = fields(&[("cookie", "a"), ("x-team", "b")]);
        let asked = fields(&[("cookie", "a"), ("x-team", "b"), ("x-original-uri", "/public")]);
        for (vary, is_by) in [
            ("Cookie, X-Team", true),
            ("Accept-Language", true),
            ("X-Original-URI", false),
            ("Cookie, x-original-uri", false),
        ] {
            let answer = fields(&[("vary", vary)]);
            let keeping = Keeping::of(&answer, SystemTime::UNIX_EPOCH + NOW).unwrap();
            assert_eq!(keeping.is_by(&client, &asked), is_by, "{vary}");
        }
    }
}
