//! Which certificate a name gets.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use fairlead_state::{Key, Name};
use imbl::{HashMap, OrdMap};
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    error::IngressError,
    host::{HostPattern, wildcard_suffix},
    routes::Routes,
    tls::parse,
};

/// What names the self-signed certificate, for whoever meets it in a browser.
const FALLBACK_NAME: &str = "fairlead.invalid";
/// What ingress-nginx calls the server of names that no other has.
const DEFAULT_SERVER: &str = "_";

/// All certificates at one revision. Clones share structure.
#[derive(Clone)]
pub struct Certificates {
    exact: Names,
    wildcard: Names,
    default: Arc<CertifiedKey>,
    /// Of those that are from Secrets.
    ends: OrdMap<HostPattern, End>,
    default_end: Option<End>,
}

/// Names that TLS sections claim; `None`: with the default certificate.
type Names = HashMap<Name, Option<Arc<CertifiedKey>>>;

/// A certificate of a Secret, and when it ends.
#[derive(Clone, Debug)]
pub(super) struct End {
    pub(super) secret: Key,
    /// Seconds since the epoch.
    pub(super) seconds: i64,
}

/// When the certificate a name is shown ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expiry {
    /// As in the TLS section; `_` for names without a certificate of their own.
    pub host: String,
    /// Where it is from.
    pub secret: Key,
    /// Seconds since the epoch.
    pub expires_seconds: i64,
}

/// The self-signed certificate served where there is no other.
#[derive(Clone)]
pub struct Fallback(pub(super) Arc<CertifiedKey>);

/// Answers handshakes from the newest certificates.
#[derive(Debug)]
pub(crate) struct Resolver {
    current: ArcSwap<Certificates>,
    routes: Arc<ArcSwap<Routes>>,
}

/// The same, and no answer to names that nobody serves but by a rule for all of them: ingress-nginx has
/// ssl-reject-handshake in its server `_`.
#[derive(Debug)]
pub(super) struct OnlyKnown(pub(super) Arc<Resolver>);

impl Certificates {
    pub(super) fn new(default: Arc<CertifiedKey>) -> Self {
        let (exact, wildcard) = Default::default();
        Self { exact, wildcard, default, ends: OrdMap::new(), default_end: None }
    }

    /// By name, then by wildcard of one label, else the default one. As with ingress-nginx, a name that is to
    /// have the default one has it, whoever has a certificate for the wildcard.
    pub(super) fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let claimed = name.and_then(|name| self.claimed(name));
        claimed.and_then(Option::as_ref).unwrap_or(&self.default)
    }

    fn claimed(&self, name: &str) -> Option<&Option<Arc<CertifiedKey>>> {
        let wildcard = || self.wildcard.get(wildcard_suffix(name)?);
        self.exact.get(name).or_else(wildcard)
    }

    /// What the claim on a host leads to: a certificate, or the default one.
    pub(super) fn set(
        &mut self,
        host: &HostPattern,
        certificate: Option<Arc<CertifiedKey>>,
        end: Option<End>,
    ) {
        if let Some((map, name)) = self.place(host) {
            map.insert(name.clone(), certificate);
        }
        match end {
            Some(end) => self.ends.insert(host.clone(), end),
            None => self.ends.remove(host),
        };
    }

    /// No claim on a host counts.
    pub(super) fn unset(&mut self, host: &HostPattern) {
        if let Some((map, name)) = self.place(host) {
            map.remove(name);
        }
        self.ends.remove(host);
    }

    /// `None`: without a name there is nothing SNI could ask for.
    fn place<'a>(&mut self, host: &'a HostPattern) -> Option<(&mut Names, &'a Name)> {
        match host {
            HostPattern::Any => None,
            HostPattern::Exact(name) => Some((&mut self.exact, name)),
            HostPattern::Wildcard(suffix) => Some((&mut self.wildcard, suffix)),
        }
    }

    pub(super) fn set_default(&mut self, certificate: Arc<CertifiedKey>, end: Option<End>) {
        self.default = certificate;
        self.default_end = end;
    }

    /// When what names are shown ends: by name, the default one first; without the self-signed one.
    pub fn expiries(&self) -> Vec<Expiry> {
        let default = self.default_end.iter().map(|end| (DEFAULT_SERVER.to_owned(), end));
        let own = self.ends.iter().map(|(host, end)| (host.to_string(), end));
        let expiry = |(host, end): (String, &End)| {
            let (secret, expires_seconds) = (end.secret.clone(), end.seconds);
            Expiry { host, secret, expires_seconds }
        };
        default.chain(own).map(expiry).collect()
    }

    /// Names that have a certificate of their own. Costs a walk over all.
    pub fn len(&self) -> usize {
        self.exact.values().chain(self.wildcard.values()).flatten().count()
    }

    /// Whether no name has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Fallback {
    /// Makes a new one.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn generate() -> Result<Self, IngressError> {
        let made = rcgen::generate_simple_self_signed([FALLBACK_NAME.to_owned()])
            .map_err(|error| IngressError::Tls(format!("self-signed certificate: {error}")))?;
        let pem = (made.cert.pem(), made.signing_key.serialize_pem());
        let parsed = parse::certified_key(pem.0.as_bytes(), pem.1.as_bytes());
        parsed.map(Self).map_err(IngressError::Tls)
    }
}

impl Resolver {
    pub(crate) fn new(certificates: Certificates, routes: Arc<ArcSwap<Routes>>) -> Self {
        Self { current: ArcSwap::from_pointee(certificates), routes }
    }

    pub(crate) fn replace(&self, certificates: Certificates) {
        self.current.store(Arc::new(certificates));
    }

    pub(crate) fn expiries(&self) -> Vec<Expiry> {
        self.current.load_full().expiries()
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let current = self.current.load();
        match hello.server_name() {
            Some(name) if name.bytes().any(|b| b.is_ascii_uppercase()) => {
                Some(current.find(Some(&name.to_ascii_lowercase())).clone())
            }
            name => Some(current.find(name).clone()),
        }
    }
}

impl ResolvesServerCert for OnlyKnown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name()?.to_ascii_lowercase();
        let (current, routes) = (self.0.current.load(), self.0.routes.load());
        let is_ruled = || routes.host(&name).is_some_and(|host| host.pattern != HostPattern::Any);
        let is_known = current.claimed(&name).is_some() || is_ruled();
        is_known.then(|| current.find(Some(&name)).clone())
    }
}

impl fmt::Debug for Certificates {
    /// Names only: keys stay out of every log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates")
            .field("exact", &self.exact.keys().collect::<Vec<_>>())
            .field("wildcard", &self.wildcard.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Fallback")
    }
}
