//! Who may come, by address.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::value::{Read, Unread, bad, networks};

/// What an Ingress says about addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Access {
    denied: Box<[IpNetwork]>,
    allowed: Option<Box<[IpNetwork]>>,
    /// The older name of the same list, which the newer one overrides.
    whitelisted: Option<Box<[IpNetwork]>>,
    /// An address that is let in needs no password, and who has one no address.
    any: bool,
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
        !self.denied.is_empty() || self.allowed().is_some()
    }

    fn allowed(&self) -> Option<&[IpNetwork]> {
        self.allowed.as_deref().or(self.whitelisted.as_deref())
    }

    /// nginx: `deny` lines first, then `allow` lines and `deny all`.
    pub(crate) fn admits(&self, client: IpAddr) -> bool {
        let is_in = |list: &[IpNetwork]| list.iter().any(|network| network.contains(client));
        !is_in(&self.denied) && self.allowed().is_none_or(is_in)
    }

    /// Either the address or the authentication is enough.
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
    use super::*;

    #[test]
    fn lists_are_asked_in_nginxs_order() {
        let allow = ("allowlist-source-range", "10.0.0.0/8, 2001:db8::/32");
        let deny = ("denylist-source-range", "10.1.0.0/16");
        let old = ("whitelist-source-range", "192.0.2.1");
        for (annotations, address, admitted) in [
            (&[][..], "203.0.113.1", true),
            (&[allow], "10.0.0.1", true),
            (&[allow], "203.0.113.1", false),
            (&[allow], "2001:db8::7", true),
            (&[allow], "2001:db9::7", false),
            (&[allow, deny], "10.1.0.1", false),
            (&[allow, deny], "10.2.0.1", true),
            (&[deny], "10.1.0.1", false),
            (&[deny], "203.0.113.1", true),
            (&[old], "192.0.2.1", true),
            (&[old], "192.0.2.2", false),
            (&[old, allow], "192.0.2.1", false),
        ] {
            let mut access = Access::default();
            for (name, value) in annotations {
                access.set(name, value).unwrap().unwrap();
            }
            let address = address.parse().unwrap();
            assert_eq!(access.admits(address), admitted, "{address} {annotations:?}");
        }
    }
}
