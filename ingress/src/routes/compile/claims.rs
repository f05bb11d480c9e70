//! Names whose certificate an Ingress brings, by its TLS sections. It has a say about the hosts of its own
//! rules, as with ingress-nginx, which goes through those alone: whoever merely names another's host would
//! otherwise have it redirected to HTTPS, with a certificate of its own.

use std::collections::BTreeMap;

use fairlead_state::{Key, model::Ingress};

use super::{Derived, HostRules, TlsClaim};
use crate::host::HostPattern;

/// The claims, and what is refused of the sections.
pub(super) fn of(
    ingress: &Ingress,
    rules: &BTreeMap<HostPattern, HostRules>,
    derived: &[Derived],
) -> (Vec<TlsClaim>, Vec<String>) {
    let mut claims = Claims { rules, derived, exact: Vec::new(), covered: Vec::new() };
    let mut problems = Vec::new();
    for section in &*ingress.tls {
        let secret = section.secret_name.clone();
        let secret = secret.map(|name| Key::new(ingress.key.namespace.clone(), name));
        if section.hosts.is_empty() {
            claims.exact.extend(rules.keys().map(|host| claim(host, secret.as_ref(), true)));
        }
        for host in &*section.hosts {
            match HostPattern::parse(host) {
                Ok(host) if claims.take(&host, secret.as_ref()) => {}
                Ok(host) => problems.push(format!(
                    "tls host {host}: no rule of this Ingress is for it, so it has no effect"
                )),
                Err(reason) => problems.push(format!("tls {reason}")),
            }
        }
    }
    (claims.all(), problems)
}

struct Claims<'a> {
    rules: &'a BTreeMap<HostPattern, HostRules>,
    derived: &'a [Derived],
    /// Of hosts that a section names.
    exact: Vec<TlsClaim>,
    /// Of hosts that a section's wildcard covers.
    covered: Vec<TlsClaim>,
}

impl Claims<'_> {
    /// Whether the Ingress has anything to do with the host.
    fn take(&mut self, named: &HostPattern, secret: Option<&Key>) -> bool {
        let (rules, derived) = (self.rules, self.derived);
        let own = rules.keys().filter(|host| named.covers(host)).map(|host| (host, true));
        let stood_for = derived.iter().map(|derived| &derived.host);
        let stood_for = stood_for.filter(|host| named.covers(host)).map(|host| (host, false));
        let mut hosts: Vec<_> = own.chain(stood_for).collect();
        if hosts.is_empty()
            && rules.keys().any(|host| *host == HostPattern::Any || host.covers(named))
        {
            hosts.push((named, false));
        }
        for (host, is_own) in &hosts {
            let claims = if *host == named { &mut self.exact } else { &mut self.covered };
            claims.push(claim(host, secret, *is_own));
        }
        !hosts.is_empty()
    }

    fn all(self) -> Vec<TlsClaim> {
        let Self { mut exact, mut covered, .. } = self;
        covered.retain(|claim| !exact.iter().any(|named| named.host == claim.host));
        exact.append(&mut covered);
        exact
    }
}

fn claim(host: &HostPattern, secret: Option<&Key>, is_own: bool) -> TlsClaim {
    TlsClaim { host: host.clone(), secret: secret.cloned(), is_own }
}
