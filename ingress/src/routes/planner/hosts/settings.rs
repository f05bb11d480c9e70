//! What holds for a host as a whole, whoever's path is asked for: Ingresses of the namespace that has it
//! say (`Ruling::owner`). ingress-nginx takes the first of any namespace that says something, and with
//! it another tenant's clients.

use std::{collections::BTreeSet, sync::Arc};

use fairlead_state::{Key, Name};

use super::super::super::{
    ClientCertificates,
    annotations::{Extra, Policy},
    compile::{Compiled, HostRules},
    finding::{Finding, Severity},
};
use crate::host::HostPattern;

/// What one host's Ingresses say of it.
pub(super) struct Settings<'a> {
    pattern: &'a HostPattern,
    owner: &'a Key,
    pub(super) app_root: Option<&'a str>,
    pub(super) client_certificates: Option<ClientCertificates>,
    pub(super) expressions: Expressions,
    /// Those of other namespaces with expressions.
    guests: BTreeSet<&'a Key>,
    /// Whose TLS sections are for it.
    secured: BTreeSet<&'a Name>,
}

/// Whose paths are regular expressions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Expressions {
    None,
    /// Some of other namespaces': they are for themselves.
    OfGuests,
    /// All of them are, as some of the host's own namespace's are.
    OfHost,
}

impl<'a> Settings<'a> {
    /// `all`: oldest first. Who may not say something is told so.
    pub(super) fn of(
        pattern: &'a HostPattern,
        owner: &'a Key,
        all: &[&'a Compiled],
        findings: &mut Vec<Finding>,
    ) -> Self {
        let (own, guests): (Vec<&Compiled>, Vec<&Compiled>) =
            all.iter().copied().partition(|compiled| compiled.age.key.namespace == owner.namespace);
        let settings = Self {
            pattern,
            owner,
            app_root: own.iter().find_map(|own| app_root(own)),
            client_certificates: own.iter().find_map(|own| own.client_certificates.clone()),
            expressions: Expressions::None,
            guests: BTreeSet::new(),
            secured: BTreeSet::new(),
        };
        for guest in guests {
            if app_root(guest).is_some() {
                findings.push(settings.finding(guest, "app-root", "where its / leads"));
            }
            if settings.is_unguarded(guest) {
                let closed = "whose certificates it takes: this one's paths of it answer 503";
                findings.push(settings.finding(guest, "auth-tls-secret", closed));
            }
        }
        settings
    }

    /// Takes the TLS sections of all that have anything to do with it.
    pub(super) fn secure(&mut self, all: impl Iterator<Item = &'a Compiled>) {
        let claiming = all.filter(|compiled| compiled.claims(self.pattern));
        self.secured.extend(claiming.map(|compiled| &compiled.age.key.namespace));
    }

    /// A section of its own namespace is for the wildcard above it (lua_ingress: redirect_to_https asks for the
    /// certificate of the request's name, which may be a wildcard's).
    pub(super) fn secure_from_above(&mut self) {
        self.secured.insert(&self.owner.namespace);
    }

    pub(super) fn is_secured_by_any(&self) -> bool {
        !self.secured.is_empty()
    }

    /// Whether browsers may be told to stay with HTTPS: that is of the host, and of all below it, whoever's
    /// path says so (RFC 6797 8.2).
    pub(super) fn is_secured_by_owner(&self) -> bool {
        self.secured.contains(&self.owner.namespace)
    }

    /// Whether an Ingress's paths are to be asked for by HTTPS. A guest's section is for its own.
    pub(super) fn is_secured(&self, compiled: &Compiled) -> bool {
        let namespaces = [&self.owner.namespace, &compiled.age.key.namespace];
        namespaces.iter().any(|namespace| self.secured.contains(namespace))
    }

    /// Whether all of its paths are, as some of its own namespace's are.
    pub(super) fn are_expressions(&self, all: &[&Compiled], host: &HostPattern) -> bool {
        let mut own = all.iter().filter(|compiled| self.is_own(compiled));
        own.any(|own| own.hosts.get(host).is_some_and(HostRules::has_expression))
    }

    /// An Ingress has expressions that are served.
    pub(super) fn has_expression(&mut self, compiled: &'a Compiled) {
        if self.is_own(compiled) {
            self.expressions = Expressions::OfHost;
            return;
        }
        self.guests.insert(&compiled.age.key);
        if self.expressions == Expressions::None {
            self.expressions = Expressions::OfGuests;
        }
    }

    /// Tells guests that their expressions are their own.
    pub(super) fn tell_guests(&self, findings: &mut Vec<Finding>) {
        findings.extend(self.guests.iter().map(|guest| {
            let finding = Finding::beside(guest, self.owner, |who| {
                format!(
                    "use-regex, rewrite-target: host {} belongs to {who}, so that paths of other Ingresses \
                     are compared as their types say: this one's alone are regular expressions",
                    self.pattern
                )
            });
            Finding { severity: Severity::Differs, ..finding }
        }));
    }

    /// What is asked of requests for an Ingress's paths.
    pub(super) fn policy(&self, compiled: &Compiled) -> Arc<Policy> {
        if !self.is_unguarded(compiled) {
            return compiled.policy.clone();
        }
        let mut policy = Policy::clone(&compiled.policy);
        let reason = format!(
            "annotation auth-tls-secret: host {} belongs to another namespace, which asks for no \
             certificates of this Ingress's authorities",
            self.pattern
        );
        let extra: &mut Extra = policy.extra.get_or_insert_default();
        extra.denied.get_or_insert_with(|| reason.into());
        Arc::new(policy)
    }

    /// A guest's authorities are a Secret of its own namespace, and never the host's: whatever it makes of
    /// who shows no certificate of them, `ssl-client-*` would be the client's to write, or told of others.
    fn is_unguarded(&self, compiled: &Compiled) -> bool {
        !self.is_own(compiled) && compiled.client_certificates.is_some()
    }

    fn is_own(&self, compiled: &Compiled) -> bool {
        compiled.age.key.namespace == self.owner.namespace
    }

    fn finding(&self, guest: &Compiled, annotation: &str, what: &str) -> Finding {
        Finding::beside(&guest.age.key, self.owner, |who| {
            format!(
                "annotation {annotation}: host {} belongs to {who}, whose namespace alone says {what}",
                self.pattern
            )
        })
    }
}

fn app_root(compiled: &Compiled) -> Option<&str> {
    compiled.policy.redirects.app_root.as_deref()
}
