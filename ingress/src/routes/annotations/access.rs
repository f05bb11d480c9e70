//! Who may come, by address.

use std::net::IpAddr;

use super::value::{Read, Unread, bad, networks};
use crate::networks::Networks;

/// What an Ingress says about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    denied: Networks,
    allowed: Option<Networks>,
    /// The older name of the same list, which the newer one overrides.
    whitelisted: Option<Networks>,
    /// An address that is let in needs no password, and who has one no address.
    any: bool,
}

/// What the lists say of an address (nginx: FORBIDDEN, OK, DECLINED).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Denied,
    Allowed,
    /// Nothing. With `satisfy: any` that lets nobody in.
    Silent,
}

impl Access {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "allowlist-source-range" => networks(value).map(|list| self.allowed = Some(list)),
            "whitelist-source-range" => networks(value).map(|list| self.whitelisted = Some(list)),
            "denylist-source-range" => networks(value).map(|list| self.denied = list),
            "satisfy" => satisfy(value).map(|any| self.any = any),
            _ => return None,
        })
    }

    pub(super) fn is_needed(&self) -> bool {
        self.any || !self.denied.is_empty() || self.allowed().is_some()
    }

    fn allowed(&self) -> Option<&Networks> {
        self.allowed.as_ref().or(self.whitelisted.as_ref())
    }

    /// nginx: `deny` lines first, then `allow` lines and `deny all`.
    pub(crate) fn judge(&self, client: IpAddr) -> Verdict {
        match self.allowed() {
            _ if self.denied.contains(client) => Verdict::Denied,
            None => Verdict::Silent,
            Some(allowed) if allowed.contains(client) => Verdict::Allowed,
            Some(_) => Verdict::Denied,
        }
    }

    /// One of the address, the password and the word of whoever is asked is enough.
    pub(crate) fn is_either(&self) -> bool {
        self.any
    }
}

fn satisfy(value: &str) -> Result<bool, Unread> {
    match value.trim() {
        "any" => Ok(true),
        "all" => Ok(false),
        _ => bad("is neither \"any\" nor \"all\""),
    }
}

#[cfg(test)]
mod tests {
    use super::{Verdict::*, *};

    #[test]
    fn lists_are_asked_in_nginxs_order() {
        let allow = ("allowlist-source-range", "10.0.0.0/8, 2001:db8::/32");
        let deny = ("denylist-source-range", "10.1.0.0/16");
        let old = ("whitelist-source-range", "192.0.2.1");
        for (annotations, address, verdict) in [
            (&[][..], "203.0.113.1", Silent),
            (&[allow], "10.0.0.1", Allowed),
            (&[allow], "203.0.113.1", Denied),
            (&[allow], "2001:db8::7", Allowed),
            (&[allow], "2001:db9::7", Denied),
            (&[allow, deny], "10.1.0.1", Denied),
            (&[allow, deny], "10.2.0.1", Allowed),
            (&[deny], "10.1.0.1", Denied),
            (&[deny], "203.0.113.1", Silent),
            (&[old], "192.0.2.1", Allowed),
            (&[old], "192.0.2.2", Denied),
            (&[old, allow], "192.0.2.1", Denied),
        ] {
            let mut access = Access::default();
            for (name, value) in annotations {
                access.set(name, value).unwrap().unwrap();
            }
            let address = address.parse().unwrap();
            assert_eq!(access.judge(address), verdict, "{address} {annotations:?}");
        }
    }
}
