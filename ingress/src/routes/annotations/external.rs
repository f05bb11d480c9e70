//! Who may come, by asking somebody else.

use std::time::Duration;

use http::{HeaderName, Method};

use super::{
    headers::Fields,
    snippet::is_ours,
    template::Template,
    value::{Read, Unread, bad, flag},
};

const REDIRECT_PARAM: &str = "rd";
/// ingress-nginx's auth-cache-duration.
const CACHED_STATUSES: [u16; 3] = [200, 202, 401];
const CACHED: Duration = Duration::from_secs(300);
/// Names in one list; each is looked for in each answer.
const FIELDS_MAX: usize = 256;

/// What an Ingress says about it.
#[derive(Clone, Debug, Default)]
pub(crate) struct ExternalAuth {
    url: Option<Url>,
    method: Option<Method>,
    signin: Option<Box<str>>,
    redirect_param: Option<Box<str>>,
    fields: Vec<HeaderName>,
    request_redirect: Option<Template>,
    cache_key: Option<Template>,
    cached: Cached,
    always_set_cookie: bool,
}

/// How long answers are remembered, by status; `None` is any. The first that fits holds.
type Cached = Vec<(Option<u16>, Duration)>;

/// Whom to ask, and what becomes of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asking {
    pub(crate) url: Url,
    /// `None`: GET.
    pub(crate) method: Option<Method>,
    /// Where somebody who is not let in is sent.
    pub(crate) signin: Option<Template>,
    /// Fields of the answer that go on with the request, whatever the client sent as them.
    pub(crate) fields: Box<[HeaderName]>,
    /// Fields the question has beside the request's.
    pub(crate) question: Fields,
    /// `X-Auth-Request-Redirect`, if not the request's own path.
    pub(crate) request_redirect: Option<Template>,
    /// Answers are remembered under this.
    pub(crate) cache_key: Option<Template>,
    cached: Cached,
    pub(crate) always_set_cookie: bool,
}

/// Where to ask. Any part may hold variables but the scheme.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) tls: bool,
    pub(crate) authority: Template,
    pub(crate) target: Template,
}

impl ExternalAuth {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "auth-url" => url(value).map(|url| self.url = Some(url)),
            "auth-method" => method(value).map(|method| self.method = Some(method)),
            "auth-signin" => signin(value).map(|signin| self.signin = Some(signin)),
            "auth-signin-redirect-param" => {
                param(value).map(|param| self.redirect_param = Some(param))
            }
            "auth-response-headers" => fields(value).and_then(|(fields, ours)| {
                self.fields = fields;
                unheard(&ours)
            }),
            "auth-request-redirect" => {
                template(value).map(|template| self.request_redirect = Some(template))
            }
            "auth-cache-key" => template(value).map(|template| self.cache_key = Some(template)),
            "auth-cache-duration" => durations(value).map(|cached| self.cached = cached),
            "auth-always-set-cookie" => flag(value).map(|flag| self.always_set_cookie = flag),
            // Connections to whoever is asked are kept as those to endpoints are. ingress-nginx: what is
            // negative is a warning.
            "auth-keepalive" | "auth-keepalive-requests" | "auth-keepalive-timeout" => {
                value.parse::<i64>().map(drop).or_else(|_| bad("is no number"))
            }
            "auth-keepalive-share-vars" => flag(value).map(drop),
            "auth-snippet" => bad("is not served: nothing is executed"),
            _ => return None,
        })
    }

    /// `None`: nobody is asked. An error keeps everybody out.
    pub(super) fn asking(&self, question: Fields) -> Result<Option<Asking>, String> {
        let Some(url) = &self.url else { return Ok(None) };
        let param = self.redirect_param.as_deref().unwrap_or(REDIRECT_PARAM);
        let signin = self.signin.as_deref().map(|signin| with_redirect(signin, param));
        let cached = match &*self.cached {
            [] => CACHED_STATUSES.map(|status| (Some(status), CACHED)).into(),
            cached => cached.into(),
        };
        Ok(Some(Asking {
            url: url.clone(),
            method: self.method.clone(),
            signin: signin.map(|signin| Template::parse(&signin)).transpose()?,
            fields: self.fields.clone().into(),
            question,
            request_redirect: self.request_redirect.clone(),
            cache_key: self.cache_key.clone(),
            cached,
            always_set_cookie: self.always_set_cookie,
        }))
    }
}

impl Asking {
    /// How long an answer is remembered.
    pub(crate) fn cached_for(&self, status: u16) -> Option<Duration> {
        let fits = |code: &Option<u16>| code.is_none_or(|code| code == status);
        self.cached.iter().find(|(code, _)| fits(code)).map(|(_, duration)| *duration)
    }
}

#[cfg(test)]
impl Asking {
    /// Somebody who is asked there, and whose answers are remembered under that.
    pub(crate) fn remembering(url: &str, key: &str) -> Self {
        let mut auth = ExternalAuth::default();
        for (name, value) in [("auth-url", url), ("auth-cache-key", key)] {
            assert!(matches!(auth.set(name, value), Some(Ok(()))), "{name} {value}");
        }
        auth.asking(Fields::default()).unwrap().unwrap()
    }
}

/// ingress-nginx: buildAuthSignURL.
fn with_redirect(signin: &str, param: &str) -> String {
    let back = "$pass_access_scheme://$http_host$escaped_request_uri";
    match signin.split_once('?') {
        None => format!("{signin}?{param}={back}"),
        Some((_, query)) => {
            let has_param = query.split('&').any(|pair| {
                pair.split_once('=').is_some_and(|(name, value)| name == param && !value.is_empty())
            });
            if has_param { signin.to_owned() } else { format!("{signin}&{param}={back}") }
        }
    }
}

fn is_url_text(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && !b"\"'<>\\;`".contains(&b))
}

fn template(value: &str) -> Result<Template, Unread> {
    if !is_url_text(value) {
        return bad("holds what no URL holds");
    }
    Template::parse(value).map_err(|reason| Unread::Bad(reason.into()))
}

pub(super) fn url(value: &str) -> Result<Url, Unread> {
    let (tls, rest) = match (value.strip_prefix("http://"), value.strip_prefix("https://")) {
        (Some(rest), _) => (false, rest),
        (_, Some(rest)) => (true, rest),
        _ => return bad("is no URL of http or https"),
    };
    // Variables that begin with the path's slash end the host, too.
    let paths = ["$request_uri", "${request_uri}", "$uri", "${uri}"].map(|name| rest.find(name));
    let ends = paths.into_iter().chain([rest.find(['/', '?'])]).flatten();
    let end = ends.min().unwrap_or(rest.len());
    let (authority, target) = rest.split_at_checked(end).unwrap_or((rest, ""));
    if authority.is_empty() || authority.contains('@') {
        return bad("names no host");
    }
    let target =
        if target.starts_with(['/', '$']) { target.to_owned() } else { format!("/{target}") };
    Ok(Url { tls, authority: template(authority)?, target: template(&target)? })
}

fn signin(value: &str) -> Result<Box<str>, Unread> {
    let is_url = value.starts_with("http://")
        || value.starts_with("https://")
        || value.starts_with('$')
        || (value.starts_with('/') && !value.starts_with("//"));
    template(value)?;
    if is_url { Ok(value.into()) } else { bad("is no URL of http or https") }
}

fn method(value: &str) -> Result<Method, Unread> {
    match value {
        "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE" | "OPTIONS" => {
            Method::from_bytes(value.as_bytes()).or_else(|_| bad("is no method"))
        }
        _ => bad("is no method that asks"),
    }
}

fn param(value: &str) -> Result<Box<str>, Unread> {
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if !value.is_empty() && value.bytes().all(is_name) {
        Ok(value.into())
    } else {
        bad("is no name of a parameter")
    }
}

/// Those that go on with a request, and those that are never somebody else's to say. Only a name that
/// is none keeps everybody out: nobody knows whom it was to be taken from.
fn fields(value: &str) -> Result<(Vec<HeaderName>, Vec<HeaderName>), Unread> {
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let names: Result<Vec<HeaderName>, _> = texts.map(str::parse::<HeaderName>).collect();
    match names {
        Ok(names) if names.len() <= FIELDS_MAX => {
            Ok(names.into_iter().partition(|name| !is_ours(name)))
        }
        Ok(_) => bad(format!("names more than {FIELDS_MAX} fields")),
        Err(_) => bad("is no list of names of fields"),
    }
}

/// What nginx does with them in effect breaks every request: a length that is not its body's.
fn unheard(ours: &[HeaderName]) -> Read {
    if ours.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = ours.iter().map(HeaderName::as_str).collect();
    Err(Unread::NotServed(
        format!(
            "names {}: how long a request is and whose connection it is on is not for an answer \
             to say; the other names are passed on",
            names.join(", ")
        )
        .into(),
    ))
}

/// `200 202 401 5m, 404 1m, any 10s` (nginx: proxy_cache_valid).
fn durations(value: &str) -> Result<Cached, Unread> {
    let mut durations = Vec::new();
    for part in value.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let mut words: Vec<&str> = part.split_ascii_whitespace().collect();
        let duration = words.pop().and_then(duration);
        let Some(duration) = duration else { return bad(format!("has {part:?}, no duration")) };
        if words.is_empty() {
            // nginx: without codes those of success and redirects.
            words = vec!["200", "301", "302"];
        }
        for word in words {
            match (word, word.parse()) {
                ("any", _) => durations.push((None, duration)),
                (_, Ok(status @ 100..600)) => durations.push((Some(status), duration)),
                _ => return bad(format!("has {word:?}, which is no status")),
            }
        }
    }
    Ok(durations)
}

/// One number with a unit of nginx's, whose months have 30 days and whose years have 365.
fn duration(text: &str) -> Option<Duration> {
    const DAY: u64 = 86_400;
    let end = text.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(end)?;
    let number: u32 = digits.parse().ok()?;
    let seconds = match unit {
        "ms" => return Some(Duration::from_millis(number.into())),
        "" | "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => DAY,
        "w" => 7 * DAY,
        "M" => 30 * DAY,
        "y" => 365 * DAY,
        _ => return None,
    };
    Some(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signin_leads_back_where_the_request_came_from() {
        let back = "$pass_access_scheme://$http_host$escaped_request_uri";
        for (signin, param, expected) in [
            ("https://a/s", "rd", format!("https://a/s?rd={back}")),
            ("https://a/s?x=1", "rd", format!("https://a/s?x=1&rd={back}")),
            ("https://a/s?rd=/home", "rd", "https://a/s?rd=/home".to_owned()),
            ("https://a/s?rd=/home", "back", format!("https://a/s?rd=/home&back={back}")),
        ] {
            assert_eq!(with_redirect(signin, param), expected);
        }
    }

    #[test]
    fn attack_smuggling_whoever_is_asked_does_not_say_how_long_a_request_is() {
        for (text, passed_on, named) in [
            ("X-User, X-Groups", &["x-user", "x-groups"][..], None),
            ("X-User, Content-Length", &["x-user"], Some("names content-length: ")),
            ("transfer-encoding", &[], Some("names transfer-encoding: ")),
            (
                "Connection, X-User, Keep-Alive, TE, Upgrade",
                &["x-user"],
                Some("names connection, keep-alive, te, upgrade: "),
            ),
        ] {
            let mut auth = ExternalAuth::default();
            let said = match auth.set("auth-response-headers", text) {
                Some(Ok(())) => None,
                Some(Err(Unread::NotServed(what))) => Some(what),
                other => panic!("{text}: {other:?}"),
            };
            assert_eq!(auth.fields, passed_on, "{text}");
            assert_eq!(said.is_some(), named.is_some(), "{text}: {said:?}");
            if let (Some(said), Some(named)) = (said, named) {
                assert!(said.starts_with(named), "{text}: {said}");
            }
        }
    }

    #[test]
    fn a_name_that_is_none_is_no_name_of_a_field() {
        let many = vec!["x-user"; FIELDS_MAX + 1].join(",");
        for text in ["X User", "X-User, \u{e9}", "X-User: ann", &many] {
            assert!(matches!(fields(text), Err(Unread::Bad(_))), "{text}");
        }
    }

    #[test]
    fn durations_are_nginxs() {
        let minutes = |n: u64| Duration::from_secs(60 * n);
        let days = |n: u64| minutes(24 * 60 * n);
        for (text, expected) in [
            ("200 202 401 5m", Some(vec![(200, minutes(5)), (202, minutes(5)), (401, minutes(5))])),
            ("200 1m, 401 30s", Some(vec![(200, minutes(1)), (401, Duration::from_secs(30))])),
            ("1h", Some([200, 301, 302].map(|s| (s, minutes(60))).into())),
            ("200 500ms", Some(vec![(200, Duration::from_millis(500))])),
            ("200 2d", Some(vec![(200, days(2))])),
            ("200 1w", Some(vec![(200, days(7))])),
            ("200 1M", Some(vec![(200, days(30))])),
            ("200 1y", Some(vec![(200, days(365))])),
            ("200 4294967295y", Some(vec![(200, days(365 * u64::from(u32::MAX)))])),
            ("200 5x", None),
            ("200 5 ms", None),
            ("200 1D", None),
            ("99 5m", None),
            ("all 5m", None),
        ] {
            let named = |(status, duration)| (Some(status), duration);
            let expected = expected.map(|all| all.into_iter().map(named).collect::<Cached>());
            assert_eq!(durations(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn bug_any_is_every_status_that_is_not_named_before_it() {
        let mut auth = ExternalAuth::default();
        for (name, value) in [("auth-url", "http://a/"), ("auth-cache-duration", "200 1m, any 2m")]
        {
            assert_eq!(auth.set(name, value), Some(Ok(())), "{name}");
        }
        let asking = auth.asking(Fields::default()).unwrap().unwrap();
        for (status, minutes) in [(200, 1), (401, 2), (500, 2)] {
            assert_eq!(
                asking.cached_for(status),
                Some(Duration::from_secs(60 * minutes)),
                "{status}"
            );
        }
    }

    /// They closed the path.
    #[test]
    fn bug_a_number_of_connections_below_zero_is_none() {
        for name in ["auth-keepalive", "auth-keepalive-requests", "auth-keepalive-timeout"] {
            for (value, good) in [("-1", true), ("0", true), ("+4", true), ("4s", false)] {
                let set = ExternalAuth::default().set(name, value).unwrap();
                assert_eq!(set.is_ok(), good, "{name} {value}");
            }
        }
    }

    #[test]
    fn cve_2025_24514_a_url_is_one_and_nothing_else() {
        for good in ["http://a.b.svc:8080/verify?x=$request_uri", "https://$host/oauth2/auth"] {
            assert!(url(good).is_ok(), "{good}");
        }
        for bad in [
            "http://a/#;\n}\nssl_engine x",
            "http://a/\"; return 200",
            "ftp://a",
            "http://",
            "http:///x",
            "http://user@a/",
            "http://a/$unknown",
        ] {
            assert!(url(bad).is_err(), "{bad:?}");
        }
        for bad in ["javascript:alert(1)", "//evil", "https://a/\r\nX: y"] {
            assert!(signin(bad).is_err(), "{bad:?}");
        }
    }
}
