//! Which certificate a name gets.

use std::{fmt, sync::Arc};

use arc_swap::ArcSwap;
use fairlead_state::Name;
use imbl::HashMap;
use rustls::{
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use crate::{
    error::IngressError,
    host::{HostPattern, wildcard_suffix},
    tls::parse,
};

/// What names the self-signed certificate, for whoever meets it in a browser.
const FALLBACK_NAME: &str = "fairlead.invalid";

/// All certificates at one revision. Clones share structure.
#[derive(Clone)]
pub struct Certificates {
    exact: HashMap<Name, Arc<CertifiedKey>>,
    wildcard: HashMap<Name, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

/// The self-signed certificate served where there is no other.
#[derive(Clone)]
pub struct Fallback(pub(super) Arc<CertifiedKey>);

/// Answers handshakes from the newest certificates.
#[derive(Debug)]
pub(crate) struct Resolver {
    current: ArcSwap<Certificates>,
}

/// The same, and no answer to names without a certificate of their own (ssl-reject-handshake).
#[derive(Debug)]
pub(super) struct OnlyKnown(pub(super) Arc<Resolver>);

impl Certificates {
    pub(super) fn new(default: Arc<CertifiedKey>) -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), default }
    }

    /// By name, then by wildcard of one label, else the default one.
    pub(super) fn find(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        name.and_then(|name| self.known(name)).unwrap_or(&self.default)
    }

    fn known(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let wildcard = || self.wildcard.get(wildcard_suffix(name)?);
        self.exact.get(name).or_else(wildcard)
    }

    pub(super) fn set(&mut self, host: &HostPattern, certificate: Option<Arc<CertifiedKey>>) {
        let (map, name) = match host {
            // Without a name there is nothing SNI could ask for.
            HostPattern::Any => return,
            HostPattern::Exact(name) => (&mut self.exact, name),
            HostPattern::Wildcard(suffix) => (&mut self.wildcard, suffix),
        };
        match certificate {
            Some(certificate) => map.insert(name.clone(), certificate),
            None => map.remove(name),
        };
    }

    pub(super) fn set_default(&mut self, certificate: Arc<CertifiedKey>) {
        self.default = certificate;
    }

    /// Names that have a certificate of their own.
    pub fn len(&self) -> usize {
        self.exact.len() + self.wildcard.len()
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
    pub(crate) fn new(certificates: Certificates) -> Self {
        Self { current: ArcSwap::from_pointee(certificates) }
    }

    pub(crate) fn replace(&self, certificates: Certificates) {
        self.current.store(Arc::new(certificates));
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
        let current = self.0.current.load();
        current.known(&hello.server_name()?.to_ascii_lowercase()).cloned()
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
