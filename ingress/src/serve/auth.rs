//! Who is at the other end: by password, or by asking somebody else
//! (nginx: auth_basic, auth_request).

use std::{fmt::Write, rc::Rc, time::SystemTime};

use base64::{Engine, engine::general_purpose::STANDARD};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri,
    header::{AUTHORIZATION, LOCATION, SET_COOKIE, TRAILER, WWW_AUTHENTICATE},
};
use http_body_util::BodyExt;

use super::{
    answer,
    body::{RequestBody, ResponseBody},
    client::Client,
    fields::{self, own},
    forward::{self, Errand},
    scope::Scope,
};
use crate::{
    authority::{Answer, Authority, Keeping, answer_key},
    counters::Refused,
    digest::{self, DigestGate},
    passwords::{Gate, NotIn},
    routes::{Door, Extra},
};

/// ingress-nginx: no-auth-locations.
const NO_AUTH_PREFIX: &str = "/.well-known/acme-challenge";
/// An answer's body is read to here, so that its connection can be used again.
const BODY_BYTES_MAX: usize = 16 << 10;

static X_AUTH_REQUEST_REDIRECT: HeaderName = HeaderName::from_static("x-auth-request-redirect");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_ORIGINAL_METHOD: HeaderName = HeaderName::from_static("x-original-method");
static X_ORIGINAL_URI: HeaderName = HeaderName::from_static("x-original-uri");
static X_ORIGINAL_URL: HeaderName = HeaderName::from_static("x-original-url");
static X_SENT_FROM: HeaderName = HeaderName::from_static("x-sent-from");

/// What goes on with a request that is let in, and with its answer.
#[derive(Debug, Default)]
pub(super) struct LetIn {
    /// Names whose values of the client's are taken off, and what they are instead.
    taken_off: Vec<HeaderName>,
    fields: HeaderMap,
    cookies: Vec<HeaderValue>,
    always_set_cookie: bool,
}

/// Whether anybody is asked.
pub(super) fn is_asked(extra: &Extra, path: &str) -> bool {
    let asks = extra.gate.is_some() || extra.authority.is_some();
    asks && !path.starts_with(NO_AUTH_PREFIX)
}

/// Why a password does not let in.
enum Kept {
    /// Too many are looked at.
    Busy,
    /// It is none, or a wrong one; how to tell a right one.
    Wrong(Option<HeaderValue>),
}

/// All that ask must let the request in, or, with `either`, one of them. nginx: auth_basic comes before
/// auth_request.
pub(super) async fn ask(
    client: &Rc<Client>,
    extra: &Extra,
    scope: &Scope<'_>,
    either: bool,
) -> Result<LetIn, Response<ResponseBody>> {
    let by_password = match &extra.gate {
        None => None,
        Some(door) => Some(at_door(door, scope).await),
    };
    let Some(authority) = &extra.authority else {
        return match by_password {
            Some(Err(kept)) => Err(kept.answer(client)),
            Some(Ok(())) | None => Ok(LetIn::unnamed(extra, true)),
        };
    };
    let kept = match by_password {
        Some(Ok(())) if either => return Ok(LetIn::unnamed(extra, true)),
        Some(Err(kept)) if !either => return Err(kept.answer(client)),
        Some(Err(kept)) => Some(kept),
        Some(Ok(())) | None => None,
    };
    let mut let_in = match by_authority(client, authority, scope).await {
        Ok(let_in) => let_in,
        Err(refusal) => return Err(kept_by_both(kept, refusal)),
    };
    let_in.taken_off = named(extra, true);
    Ok(let_in)
}

/// Nobody let it in: who may tell a password is told so, whatever else was said (nginx: 401 stays 401).
fn kept_by_both(kept: Option<Kept>, mut refusal: Response<ResponseBody>) -> Response<ResponseBody> {
    match kept {
        None => refusal,
        Some(Kept::Busy) => busy(),
        Some(Kept::Wrong(challenge)) => match refusal.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                *refusal.status_mut() = StatusCode::UNAUTHORIZED;
                if let Some(challenge) = challenge {
                    refusal.headers_mut().append(WWW_AUTHENTICATE, challenge);
                }
                refusal
            }
            _ => refusal,
        },
    }
}

/// What a client sends by these names is not believed; `passwords`: they are asked for here.
pub(super) fn named(extra: &Extra, passwords: bool) -> Vec<HeaderName> {
    let authority = extra.authority.iter().flat_map(|authority| &*authority.asking.fields).cloned();
    let password = (passwords && extra.gate.is_some()).then_some(AUTHORIZATION);
    authority.chain(password).collect()
}

/// `USER:PASSWORD` (RFC 7617).
fn words(headers: &HeaderMap) -> Option<Vec<u8>> {
    let (scheme, words) = headers.get(AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("basic").then(|| STANDARD.decode(words.trim()).ok())?
}

/// Who a client says it is.
pub(crate) fn user(headers: &HeaderMap) -> String {
    let words = words(headers).unwrap_or_default();
    let user = words.split(|b| *b == b':').next().unwrap_or_default();
    String::from_utf8_lossy(user).into_owned()
}

async fn at_door(door: &Door, scope: &Scope<'_>) -> Result<(), Kept> {
    match door {
        Door::Basic(gate) => by_password(gate, &scope.head.headers).await,
        Door::Digest(gate) => {
            by_digest(gate, scope).map_err(|why| Kept::Wrong(gate.challenge(why)))
        }
    }
}

async fn by_password(gate: &Gate, headers: &HeaderMap) -> Result<(), Kept> {
    let words = words(headers);
    let admitted = match &words {
        Some(words) => gate.admits(words).await,
        None => Err(NotIn::Wrong),
    };
    admitted.map_err(|why| match why {
        NotIn::Busy => Kept::Busy,
        NotIn::Wrong => Kept::Wrong(Some(gate.challenge.clone())),
    })
}

fn by_digest(gate: &DigestGate, scope: &Scope<'_>) -> Result<(), digest::NotIn> {
    let head = scope.head;
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    gate.admits(&head.method, target, &head.headers)
}

impl Kept {
    fn answer(self, client: &Client) -> Response<ResponseBody> {
        match self {
            Self::Busy => {
                client.worker.counters.refused(Refused::Authentication);
                busy()
            }
            Self::Wrong(challenge) => unauthorized(client, challenge.as_ref()),
        }
    }
}

fn busy() -> Response<ResponseBody> {
    answer::text(StatusCode::SERVICE_UNAVAILABLE, "Too many passwords at once.\n")
}

fn unauthorized(client: &Client, challenge: Option<&HeaderValue>) -> Response<ResponseBody> {
    client.worker.counters.refused(Refused::Authentication);
    let mut response = answer::text(StatusCode::UNAUTHORIZED, "Who are you?\n");
    if let Some(challenge) = challenge {
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge.clone());
    }
    response
}

async fn by_authority(
    client: &Rc<Client>,
    authority: &Authority,
    scope: &Scope<'_>,
) -> Result<LetIn, Response<ResponseBody>> {
    let asking = &authority.asking;
    // What was cut may be what tells clients apart, and so may a field that is no text: to a
    // template it is as good as none.
    let is_text = |value: &HeaderValue| value.to_str().is_ok();
    let text = asking.cache_key.as_ref().filter(|_| scope.head.headers.values().all(is_text));
    let text = text.and_then(|key| scope.render_whole(key));
    let key = text.and_then(|text| answer_key(&kept_under(scope, &text)));
    let remembered = key.as_ref().and_then(|key| authority.remembered(key, &scope.head.headers));
    let answer = match remembered {
        Some(answer) => answer,
        None => {
            let answer = asked(client, authority, scope).await;
            let (answer, keeping) = answer.ok_or_else(|| broken(client))?;
            if let (Some(key), Some(keeping)) = (key, keeping) {
                authority.remember(key, &scope.head.headers, &answer, keeping);
            }
            answer
        }
    };
    match answer.status {
        status if status.is_success() => Ok(LetIn {
            taken_off: Vec::new(),
            fields: answer.fields,
            cookies: answer.cookies,
            always_set_cookie: asking.always_set_cookie,
        }),
        StatusCode::UNAUTHORIZED => Err(match &asking.signin {
            Some(signin) => match scope.render_whole(signin) {
                Some(location) => sign_in(client, location, answer.cookies),
                None => broken(client),
            },
            None => unauthorized(client, answer.challenge.as_ref()),
        }),
        StatusCode::FORBIDDEN => {
            client.worker.counters.refused(Refused::Authentication);
            Err(answer::text(StatusCode::FORBIDDEN, "You are not let in.\n"))
        }
        // nginx: anything else is an error of whoever was asked.
        _ => Err(broken(client)),
    }
}

/// What is said of one certificate is said of no other, whatever the Ingress's own key says.
fn kept_under(scope: &Scope<'_>, text: &str) -> String {
    let mut key = format!("{}\0{}\0{text}", scope.host, scope.route.path);
    for (name, value) in scope.identity {
        let value = value.as_ref().map(HeaderValue::as_bytes).unwrap_or_default();
        // Writing to a String cannot fail.
        let _ = write!(key, "\0{name}\0{}", String::from_utf8_lossy(value));
    }
    key
}

fn broken(client: &Client) -> Response<ResponseBody> {
    client.worker.counters.refused(Refused::Authentication);
    let line = "Whoever is asked about this request gave no proper answer.\n";
    answer::text(StatusCode::INTERNAL_SERVER_ERROR, line)
}

fn sign_in(client: &Client, location: String, cookies: Vec<HeaderValue>) -> Response<ResponseBody> {
    client.worker.counters.refused(Refused::Authentication);
    let Ok(location) = HeaderValue::try_from(location) else { return broken(client) };
    let mut response = answer::text(StatusCode::FOUND, "Sign in first.\n");
    response.headers_mut().insert(LOCATION, location);
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    response
}

/// One question, and whether its answer is for others, too; `None`: no answer.
async fn asked(
    client: &Rc<Client>,
    authority: &Authority,
    scope: &Scope<'_>,
) -> Option<(Answer, Option<Keeping>)> {
    let asking = &authority.asking;
    let host = scope.render_whole(&asking.url.authority)?;
    let place = authority.places.place(&host, &client.worker.shared.timer).await?;
    let mut request = Request::new(RequestBody::Empty);
    *request.method_mut() = asking.method.clone().unwrap_or(Method::GET);
    *request.uri_mut() = Uri::try_from(scope.render_whole(&asking.url.target)?).ok()?;
    let question = question(authority, scope, &HeaderValue::try_from(host).ok()?)?;
    let kept = asking.cache_key.is_some().then(|| question.clone());
    *request.headers_mut() = question;
    let errand = Errand::to(&place.upstream, &scope.route.policy).unhidden();
    let response = Box::pin(forward::forward(client, &errand, Box::new(request), None)).await;
    if response.body().is_ours() {
        return None;
    }
    let (head, mut body) = response.into_parts();
    let mut left = BODY_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, bytes::Bytes::len));
        if left == 0 {
            break;
        }
    }
    let mut fields = HeaderMap::new();
    for name in &asking.fields {
        for value in head.headers.get_all(name) {
            fields.append(name, own(value));
        }
    }
    let answer = Answer {
        status: head.status,
        fields,
        cookies: head.headers.get_all(SET_COOKIE).iter().map(own).collect(),
        challenge: head.headers.get(WWW_AUTHENTICATE).map(own),
    };
    let keeping = Keeping::of(&head.headers, SystemTime::now());
    let keeping = keeping
        .filter(|keeping| kept.is_some_and(|asked| keeping.is_by(&scope.head.headers, &asked)));
    Some((answer, keeping))
}

/// The client's fields, without those of its body, and what it asked for.
fn question(authority: &Authority, scope: &Scope<'_>, host: &HeaderValue) -> Option<HeaderMap> {
    let own_host = HeaderValue::try_from(scope.http_host).ok()?;
    let mut headers = scope.fields_beside(&own_host, Some(host), None);
    fields::overrule(&mut headers, scope.identity);
    headers.remove(&X_FORWARDED_PROTO);
    let uri = scope.request_uri();
    let url = format!("{}://{}{uri}", scope.front.scheme.as_str(), scope.http_host);
    headers.insert(&X_ORIGINAL_URL, HeaderValue::try_from(url).ok()?);
    let method = HeaderValue::from_str(scope.method().as_str()).ok()?;
    headers.insert(&X_ORIGINAL_METHOD, method);
    headers.insert(&X_SENT_FROM, HeaderValue::from_static("nginx-ingress-controller"));
    let redirect = authority.asking.request_redirect.as_ref();
    let redirect = match redirect {
        Some(template) => scope.render_whole(template)?,
        None => uri.clone(),
    };
    headers.insert(&X_AUTH_REQUEST_REDIRECT, HeaderValue::try_from(redirect).ok()?);
    headers.insert(&X_ORIGINAL_URI, HeaderValue::try_from(uri).ok()?);
    headers.extend(authority.asking.question.iter().filter_map(|field| scope.field(field)));
    Some(headers)
}

impl LetIn {
    /// Of whom nobody said who it is, or nobody was asked (`asked`): what a client says of itself is
    /// believed as little (nginx: fields of auth_request that did not run are empty, and Authorization
    /// is where auth_basic is, but in locations without authentication).
    pub(super) fn unnamed(extra: &Extra, asked: bool) -> Self {
        Self { taken_off: named(extra, asked), ..Self::default() }
    }

    /// What a client sends by these names is no longer its request's.
    pub(super) fn taken_off(&self) -> &[HeaderName] {
        &self.taken_off
    }

    /// What a client sends as a field of whoever was asked is never believed. `told`: what an endpoint
    /// is to see whatever the client's own fields are, such as a Connection that names them.
    pub(super) fn tell_upstream(
        &mut self,
        headers: &mut HeaderMap,
        told: &mut Vec<(HeaderName, Option<HeaderValue>)>,
    ) {
        for name in &self.taken_off {
            headers.remove(name);
        }
        if !self.taken_off.is_empty() {
            // What is not announced is not sent: it would come in by the back door (CVE-2013-5704).
            headers.remove(TRAILER);
        }
        let fields = std::mem::take(&mut self.fields);
        // In front: a snippet has the last word.
        told.splice(0..0, fields.keys().map(|name| (name.clone(), fields::joined(&fields, name))));
        headers.extend(fields);
    }

    /// nginx: add_header, with or without always.
    pub(super) fn tell_client(self, response: &mut Response<ResponseBody>) {
        const STATUSES: [u16; 10] = [200, 201, 204, 206, 301, 302, 303, 304, 307, 308];
        if self.always_set_cookie || STATUSES.contains(&response.status().as_u16()) {
            for cookie in self.cookies {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
        }
    }
}
