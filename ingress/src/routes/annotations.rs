//! `nginx.ingress.kubernetes.io/*`, each parsed to a type or refused with a reason.
//!
//! A value that cannot be read disturbs no other annotation. Where it would have kept somebody out,
//! everybody is: the Ingress's paths answer 503 until it is put right.

mod access;
mod auth;
mod balance;
mod buffering;
mod canary;
mod catalogue;
mod client_tls;
mod cors;
mod errors;
mod external;
mod headers;
mod limits;
mod mirror;
mod proxy;
mod redirect;
mod reply;
mod rewrite;
mod snippet;
mod template;
mod texts;
mod tracing;
mod value;

use std::{collections::BTreeMap, sync::Arc};

use fairlead_state::{
    Key, in_one_line,
    model::{ConfigMap, Ingress, Secret},
};
use rustls_pki_types::ServerName;

pub use self::catalogue::{ANNOTATIONS, Annotation, Support};
pub(crate) use self::{
    access::{Access, Verdict},
    auth::Door,
    balance::{Balance, SameSite, Sticky},
    buffering::Buffering,
    canary::Canary,
    client_tls::ClientTls,
    cors::Cors,
    errors::Errors,
    external::{Asking, Url},
    headers::NamedFields,
    limits::{Pace, Throttle},
    mirror::Copies,
    proxy::{Patience, Retries},
    redirect::{Elsewhere, Redirects},
    reply::Reply,
    rewrite::{Reach, Rewrite, Rewriting, Rewritten, pattern},
    snippet::{InForce, Returned, Snippet, Told},
    template::{Captured, Template, Variable, name as variable_name},
    tracing::Traced,
    value::{Read, Unread, bad, flag, networks, number, regex, regex_with_case, size},
};
use self::{
    auth::BasicAuth,
    balance::Balancing,
    buffering::Buffers,
    external::ExternalAuth,
    headers::{Fields, Named},
    mirror::Mirroring,
    proxy::Proxying,
    snippet::{Keeping, Snippets, keeping},
    tracing::Tracing,
    value::{own_object, switch},
};
use super::{finding::Severity, told, upstream::Protocol};
use crate::{
    authority::{Authority, Finder, Mirror},
    config::IngressConfig,
    host::HostPattern,
    limiter::Limiter,
    tls::TlsWish,
    traces::Sampling,
};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";
const SOURCE_RANGE: &str = "-source-range";

/// What an Ingress says beyond its rules. The defaults are ingress-nginx's.
#[derive(Clone, Debug, Default)]
pub(super) struct Annotations {
    /// `None`: the Service decides.
    pub(super) protocol: Option<Protocol>,
    /// For protocols with TLS.
    pub(super) tls: TlsWish,
    pub(super) redirects: Redirects,
    pub(super) rewriting: Rewriting,
    pub(super) errors: Errors,
    /// Other names of its hosts.
    pub(super) aliases: Vec<HostPattern>,
    pub(super) canary: Canary,
    balancing: Balancing,
    access: Access,
    basic: BasicAuth,
    external: ExternalAuth,
    headers: Named,
    snippets: Snippets,
    mirroring: Mirroring,
    pub(super) client_tls: ClientTls,
    cors: Cors,
    reply: Reply,
    throttle: Throttle,
    /// Services' own addresses are asked, and not their endpoints (service-upstream).
    pub(super) by_address: bool,
    /// TLS of its hosts is passed on (ssl-passthrough).
    pub(super) passes_tls: bool,
    /// Its requests are not logged (enable-access-log).
    is_silent: bool,
    /// Why nobody is let in.
    denied: Option<Arc<str>>,
    proxying: Proxying,
    buffers: Buffers,
    tracing: Tracing,
    /// Those that act, as `name=value`, or by name alone.
    pub(super) in_force: Vec<String>,
}

/// What annotations ask of the requests of one Ingress.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub(crate) redirects: Redirects,
    /// A larger request body is answered 413.
    pub(crate) body_bytes_max: u64,
    pub(crate) patience: Patience,
    pub(crate) retries: Retries,
    pub(crate) buffering: Buffering,
    /// In the access log, if there is one.
    pub(crate) is_logged: bool,
    /// `None`: they are not traced.
    pub(crate) traced: Option<Arc<Traced>>,
    /// Some texts have what a route's expression captures.
    pub(crate) captures: bool,
    /// What most Ingresses have nothing of.
    pub(crate) extra: Option<Box<Extra>>,
}

/// See [`Policy::extra`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Extra {
    /// Nobody is let in: what guards the Ingress cannot be read.
    pub(crate) denied: Option<Arc<str>>,
    /// Who is let in by address.
    pub(crate) access: Option<Access>,
    /// Who is let in by password.
    pub(crate) gate: Option<Door>,
    /// Who is asked whom to let in.
    pub(crate) authority: Option<Arc<Authority>>,
    /// How much a client may ask for.
    pub(crate) limiter: Option<Arc<Limiter>>,
    /// How fast it is answered.
    pub(crate) pace: Option<Pace>,
    /// Which other sites' pages may ask.
    pub(crate) cors: Option<Cors>,
    /// What of an endpoint's answer is told otherwise.
    pub(crate) reply: Option<Reply>,
    /// Who is sent a copy.
    pub(crate) mirror: Option<Arc<Mirror>>,
    /// What snippets ask for.
    pub(crate) snippet: Option<Snippet>,
    /// Fields that answers get (custom-headers).
    pub(crate) told: Fields,
    /// Which endpoint is asked, if not simply the next one.
    pub(crate) balance: Option<Balance>,
    /// All requests are sent there.
    pub(crate) elsewhere: Option<Elsewhere>,
    /// Host as endpoints see it.
    pub(crate) vhost: Option<Template>,
    /// Connections to endpoints serve one request.
    pub(crate) closes: bool,
    pub(crate) errors: Option<Errors>,
}

impl Annotations {
    /// What holds for Ingresses that do not say otherwise; `None`: no annotation of theirs.
    pub(super) fn set_default(&mut self, name: &str, value: &str) -> Option<Read> {
        // Objects are of the Ingress's own namespace, and here is none.
        let nobody = Key::new("", "");
        match self.set(&nobody, name, value) {
            Err(Unread::Unknown) => None,
            read => Some(read),
        }
    }

    /// Requests that may have been acted on are sent again, too.
    pub(super) fn retry_all(&mut self, is_wished: bool) {
        self.proxying.retries_all = is_wished;
    }

    /// A snippet for all Ingresses; `None`: no such option.
    pub(super) fn set_snippet_for_all(&mut self, name: &str, value: &str) -> Option<Read> {
        self.snippets.set_for_all(name, value)
    }

    pub(super) fn allow_snippets(&mut self, is_allowed: bool) {
        self.snippets.forbidden = !is_allowed;
    }

    /// There is a collector of traces.
    pub(super) fn sample(&mut self, sampling: Sampling) {
        self.tracing.sample(sampling);
    }

    /// Requests are traced, and there is no collector.
    pub(super) fn is_unheard(&self) -> bool {
        self.tracing.is_unheard()
    }

    /// Nobody is let in, unless an Ingress says itself whom.
    pub(super) fn deny(&mut self, reason: &str) {
        self.denied = Some(reason.into());
    }

    fn set(&mut self, ingress: &Key, name: &str, value: &str) -> Read {
        None.or_else(|| self.speech(ingress, name, value))
            .or_else(|| self.redirects.set(name, value))
            .or_else(|| self.rewriting.set(name, value))
            .or_else(|| self.errors.set(name, value))
            .or_else(|| self.proxying.set(name, value))
            .or_else(|| self.buffers.set(name, value))
            .or_else(|| self.tracing.set(name, value))
            .or_else(|| self.access.set(name, value))
            .or_else(|| self.throttle.set(name, value))
            .or_else(|| self.cors.set(name, value))
            .or_else(|| self.reply.set(name, value))
            .or_else(|| self.canary.set(name, value))
            .or_else(|| self.basic.set(ingress, name, value))
            .or_else(|| self.headers.set(ingress, name, value))
            .or_else(|| self.external.set(name, value))
            .or_else(|| self.client_tls.set(ingress, name, value))
            .or_else(|| self.snippets.set(name, value))
            .or_else(|| self.mirroring.set(name, value))
            .or_else(|| self.balancing.set(name, value))
            .unwrap_or(Err(Unread::Unknown))
    }

    /// What endpoints speak, under which names the hosts are known, and whether that is logged.
    fn speech(&mut self, ingress: &Key, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "backend-protocol" => protocol(value).map(|protocol| self.protocol = Some(protocol)),
            "proxy-ssl-verify" => switch(value).map(|on| self.tls.verify = on),
            "proxy-ssl-server-name" => switch(value).map(|on| self.tls.server_name = on),
            "proxy-ssl-name" => {
                // Taken in any case: by a name that is none nobody is trusted.
                self.tls.name = Some(value.into());
                ServerName::try_from(value).map(drop).or_else(|_| bad("is no name of a server"))
            }
            "proxy-ssl-secret" => {
                own_object(ingress, value, "Secret").map(|key| self.tls.secret = Some(key))
            }
            "enable-access-log" => flag(value).map(|flag| self.is_silent = !flag),
            "service-upstream" => flag(value).map(|flag| self.by_address = flag),
            "ssl-passthrough" => flag(value).map(|flag| self.passes_tls = flag),
            "enable-global-auth" => flag(value).map(drop),
            "server-alias" => {
                let (aliases, others) = aliases(value);
                self.aliases = aliases;
                others
            }
            _ => return None,
        })
    }

    /// A canary is drawn for each request, unless the other Service's cookie keeps it there.
    pub(super) fn is_legacy_canary(&self) -> bool {
        self.balancing.is_legacy_canary()
    }

    /// Secrets that are read for it.
    pub(super) fn secrets(&self) -> impl Iterator<Item = &Key> {
        self.basic.secret().into_iter().chain(self.client_tls.secret())
    }

    /// ConfigMaps that are read for it.
    pub(super) fn config_maps(&self) -> impl Iterator<Item = &Key> {
        self.headers.maps()
    }

    /// What those say, and why nothing is taken of it.
    pub(super) fn named_fields<'m>(
        &self,
        look: impl Fn(&Key) -> Option<&'m ConfigMap>,
    ) -> (NamedFields, Option<String>) {
        self.headers.read(look)
    }

    /// The Secret that has the passwords.
    pub(super) fn passwords(&self) -> Option<&Key> {
        self.basic.secret()
    }

    /// What is asked of requests; `known`: the same so far, of which goes on what a mere reading does not change (who was
    /// counted, what was said of whom); `secret`: the one of [`Annotations::passwords`]. An error: nobody can be let in.
    pub(super) fn policy(
        &self,
        config: &IngressConfig,
        known: Option<&Extra>,
        secret: Option<&Secret>,
        named: NamedFields,
        ingress: &Key,
    ) -> (Policy, Option<String>) {
        let authority = named.asked.and_then(|fields| self.external.asking(fields));
        let gate = self.basic.gate(secret);
        let error = gate.as_ref().err().or(authority.as_ref().err()).cloned();
        let counted = known.and_then(|known| known.limiter.clone());
        let counted = counted.filter(|limiter| *limiter.limits() == self.throttle);
        let asked = known.and_then(|known| known.authority.as_deref());
        let copied = known.and_then(|known| known.mirror.as_deref());
        let namespace = || ingress.namespace.clone();
        let new_limiter = || Arc::new(Limiter::new(self.throttle.clone(), namespace()));
        let finder = |annotation| Finder::new(config, ingress, annotation);
        let extra = Extra {
            denied: self.denied.clone().or_else(|| error.as_deref().map(Arc::from)),
            gate: gate.unwrap_or_default(),
            authority: authority
                .unwrap_or_default()
                .map(|asking| Arc::new(Authority::new(asking, finder("auth-url"), asked))),
            access: self.access.is_needed().then(|| self.access.clone()),
            limiter: self.throttle.counts().then(|| counted.unwrap_or_else(new_limiter)),
            pace: self.throttle.pace(),
            cors: self.cors.is_needed().then(|| self.cors.clone()),
            balance: self.balancing.balance(),
            snippet: self.snippets.snippet(),
            told: named.told,
            mirror: self
                .mirroring
                .copies()
                .map(|copies| Arc::new(Mirror::new(copies, finder("mirror-target"), copied))),
            reply: self.reply.is_needed().then(|| self.reply.clone()),
            elsewhere: self.redirects.elsewhere(),
            vhost: self.proxying.vhost.clone(),
            closes: self.proxying.closes,
            errors: self.errors.is_active().then(|| self.errors.clone()),
        };
        let traced = self.tracing.traced();
        let span = traced.as_deref().and_then(|traced| traced.name.as_ref());
        let policy = Policy {
            captures: extra.captures() || span.is_some_and(Template::captures),
            redirects: self.redirects.clone(),
            body_bytes_max: self.proxying.body_bytes_max(&config.limits),
            patience: self.proxying.patience(&config.timeouts),
            retries: self.proxying.retries(&config.limits),
            buffering: self.buffers.buffering(),
            is_logged: !self.is_silent,
            traced,
            extra: extra.is_needed().then(|| Box::new(extra)),
        };
        (policy, error)
    }
}

impl Extra {
    fn is_needed(&self) -> bool {
        let Self { denied, access, limiter, pace, cors, reply, balance, .. } = self;
        let Self { elsewhere, vhost, closes, errors, .. } = self;
        let Self { gate, authority, snippet, mirror, told, .. } = self;
        let asks_who = gate.is_some() || authority.is_some();
        let guards = denied.is_some() || access.is_some() || limiter.is_some() || asks_who;
        let answers = pace.is_some() || elsewhere.is_some() || errors.is_some();
        let replies = cors.is_some() || reply.is_some() || !told.is_empty();
        let asks = mirror.is_some()
            || balance.is_some()
            || snippet.is_some()
            || vhost.is_some()
            || *closes;
        guards || answers || replies || asks
    }
}

/// Reads them; what is refused or has no effect goes to `find`.
pub(super) fn parse(
    ingress: &Ingress,
    defaults: &Annotations,
    mut find: impl FnMut(Severity, String),
) -> Annotations {
    let named = ingress.annotations.iter();
    let named =
        named.filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, trimmed(value))));
    let values: BTreeMap<&str, String> =
        named.filter(|(name, value)| !says_nothing(name, value)).collect();
    let said = |name: &str| values.get(name);
    let mut all = defaults.clone();
    // Who asks somebody of its own does not ask everybody's, too.
    let is_left_out = said("enable-global-auth").is_some_and(|value| flag(value) == Ok(false));
    if is_left_out || said("auth-url").is_some() {
        all.external = ExternalAuth::default();
    }
    for (&short, value) in &values {
        let name = format!("{PREFIX}{short}");
        let shown = told::value_of(short, value);
        match all.set(&ingress.key, short, value) {
            Ok(()) if told::is_private(short) => all.in_force.push(short.to_owned()),
            Ok(()) => all.in_force.push(format!("{short}={}", in_one_line(value))),
            Err(Unread::Unknown) => match catalogue::find(short) {
                Some(known) => find(Severity::Differs, known.not_served(&name, &shown)),
                None => find(Severity::Differs, format!("annotation {name} has no effect here")),
            },
            Err(Unread::NotServed(what)) => {
                find(Severity::Differs, format!("annotation {name}{shown} {what}"));
            }
            Err(Unread::Bad(what)) if guards(short) => {
                let reason = format!(
                    "annotation {name}{shown} {what}; its paths answer 503 until it is put right"
                );
                all.denied = Some(reason.as_str().into());
                find(Severity::Refused, reason);
            }
            Err(Unread::Bad(what)) => {
                let mut reason = format!("annotation {name}{shown} {what}");
                let is_forbidden = all.snippets.forbidden;
                if let Some(Keeping { directive, instead }) = keeping(short, value, is_forbidden) {
                    reason.push_str(&format!(
                        "; it would keep somebody out ({directive}), so its paths answer 503 until it \
                         is put right: say it by {instead}, or take it out"
                    ));
                    all.denied = Some(reason.as_str().into());
                }
                find(Severity::Refused, reason);
            }
        }
    }
    if all.basic.is_forgotten() {
        let reason = "annotation auth-secret asks nobody for a password without auth-type: basic";
        find(Severity::Refused, reason.to_owned());
    }
    if all.is_unheard() && said("enable-opentelemetry").is_some() {
        let reason = "annotation enable-opentelemetry has no effect without otlp-collector-host in \
                      the controller's ConfigMap";
        find(Severity::Differs, reason.to_owned());
    }
    if all.canary.is_forgotten() {
        let reason = "its canary-* annotations have no effect without canary: \"true\"";
        find(Severity::Refused, reason.to_owned());
    }
    if all.errors.is_unanswered() && said("custom-http-errors").is_some() {
        let reason = "annotation custom-http-errors has no effect without default-backend: there \
                      is no default backend for all Ingresses";
        find(Severity::Differs, reason.to_owned());
    }
    all
}

/// ingress-nginx: parser.normalizeString. (Blanks around a flag or a number it refuses with the whole Ingress.)
fn trimmed(value: &str) -> String {
    let lines: Vec<&str> = value.trim().split('\n').map(str::trim).collect();
    lines.join("\n")
}

/// Whether it is as if the annotation were not there (ingress-nginx: parser.parseString, whose error for an
/// empty text ends in the default). Empty source ranges are refused there, too (ipallowlist, ipdenylist).
fn says_nothing(name: &str, value: &str) -> bool {
    value.is_empty() && !name.ends_with(SOURCE_RANGE)
}

/// Keeps somebody out, or is whom endpoints know us by: if it cannot be read, everybody is kept out
/// (ingress-nginx: LocationDenied).
pub(super) fn guards(name: &str) -> bool {
    let is_one = ["enable-global-auth", "proxy-ssl-secret"].contains(&name);
    is_one || name.ends_with(SOURCE_RANGE) || name.starts_with("auth-")
}

/// ingress-nginx compares without case.
fn protocol(value: &str) -> Result<Protocol, Unread> {
    match value.to_ascii_uppercase().as_str() {
        "HTTP" => Ok(Protocol::Http1),
        "GRPC" => Ok(Protocol::H2c),
        "HTTPS" => Ok(Protocol::Https),
        "GRPCS" => Ok(Protocol::Grpcs),
        "AUTO_HTTP" | "FCGI" => Err(Unread::NotServed("is not served yet; HTTP is spoken".into())),
        _ => bad("is none of HTTP, HTTPS, GRPC, GRPCS; HTTP is spoken"),
    }
}

/// Names and `*.` names, and what is to be said of the others. nginx's `*.` spans labels, and its regular
/// expressions have no equal here.
fn aliases(value: &str) -> (Vec<HostPattern>, Read) {
    let texts = value.split(',').map(str::trim).filter(|text| !text.is_empty());
    let (mut aliases, mut refused) = (Vec::new(), Vec::new());
    for text in texts {
        match HostPattern::parse(text) {
            Ok(alias) => aliases.push(alias),
            Err(reason) => refused.push(reason),
        }
    }
    let said = match (aliases.is_empty(), refused.is_empty()) {
        (true, true) => bad("names no host"),
        (false, true) => Ok(()),
        (true, false) => bad(format!("is refused: {}", refused.join("; "))),
        (false, false) => bad(format!("is refused in part: {}", refused.join("; "))),
    };
    (aliases, said)
}

#[cfg(test)]
mod tests;
