//! Services of type ExternalName: where their names lead, if those are allowed.
//!
//! Whoever may write a Service could lead requests anywhere this node reaches, and a name's owner may
//! point it somewhere else at any time. So only names that whoever runs the agent allows are looked up,
//! and of what is found nothing counts that is the node itself or only its links.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use fairlead_state::{
    Name, Snapshot,
    model::{Service, ServiceType},
};

use super::upstream::UpstreamKey;
use crate::host::{HostPattern, wildcard_suffix};

/// Its addresses are the node's own in any case: allowing it means that.
const LOCALHOST: &str = "localhost";
const NOT_YET: &str = "it is being looked up";
const ONLY_INSIDE: &str = "it has only addresses of this node or its links, where nobody is led";

/// Addresses of a name, sorted, or why there are none.
pub(crate) type Looked = Result<Vec<IpAddr>, Arc<str>>;

/// Names that are allowed, and those that Services lead to now.
#[derive(Debug, Default)]
pub(super) struct ExternalNames {
    allowed: Vec<HostPattern>,
    names: BTreeMap<Name, Followed>,
    /// Which of them an upstream leads to.
    of: BTreeMap<UpstreamKey, Name>,
}

#[derive(Debug, Default)]
struct Followed {
    users: BTreeSet<UpstreamKey>,
    /// `None` until it was looked up.
    looked: Option<Looked>,
}

impl ExternalNames {
    pub(super) fn new(allowed: &[HostPattern]) -> Self {
        Self { allowed: allowed.to_vec(), ..Self::default() }
    }

    pub(super) fn allows(&self, name: &str) -> bool {
        let lower = name.to_ascii_lowercase();
        self.allowed.iter().any(|pattern| match pattern {
            HostPattern::Any => true,
            HostPattern::Exact(allowed) => **allowed == *lower,
            HostPattern::Wildcard(suffix) => wildcard_suffix(&lower) == Some(&**suffix),
        })
    }

    /// What an upstream leads to from now on; a name nobody leads to is forgotten.
    pub(super) fn follow(&mut self, snapshot: &Snapshot, key: &UpstreamKey) {
        if self.allowed.is_empty() {
            return;
        }
        let service = snapshot.services().get(&key.service);
        let name = service.and_then(|service| external_name(service));
        let name = name.filter(|name| self.allows(name)).cloned();
        if self.of.get(key) == name.as_ref() {
            return;
        }
        self.leave(key);
        if let Some(name) = name {
            self.names.entry(name.clone()).or_default().users.insert(key.clone());
            self.of.insert(key.clone(), name);
        }
    }

    /// An upstream is gone.
    pub(super) fn leave(&mut self, key: &UpstreamKey) {
        let Some(name) = self.of.remove(key) else { return };
        if let Some(followed) = self.names.get_mut(&name) {
            followed.users.remove(key);
            if followed.users.is_empty() {
                self.names.remove(&name);
            }
        }
    }

    /// Those to look up.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &Name> {
        self.names.keys()
    }

    /// Takes what was found; returns the upstreams it changes. What was found before is better than an
    /// error.
    pub(super) fn learn(&mut self, name: &Name, looked: Looked) -> Vec<UpstreamKey> {
        let Some(followed) = self.names.get_mut(name) else { return Vec::new() };
        let looked = looked.and_then(|addresses| outside(name, addresses));
        let is_worse = looked.is_err() && matches!(followed.looked, Some(Ok(_)));
        if is_worse || followed.looked.as_ref() == Some(&looked) {
            return Vec::new();
        }
        followed.looked = Some(looked);
        followed.users.iter().cloned().collect()
    }

    /// Where an allowed name leads.
    pub(super) fn addresses(&self, name: &Name, port: u16) -> Result<Vec<SocketAddr>, Arc<str>> {
        match self.names.get(name).and_then(|followed| followed.looked.as_ref()) {
            None => Err(NOT_YET.into()),
            Some(Err(reason)) => Err(reason.clone()),
            Some(Ok(ips)) => Ok(ips.iter().map(|ip| SocketAddr::new(*ip, port)).collect()),
        }
    }
}

/// Where a Service leads, if it is of that type.
pub(super) fn external_name(service: &Service) -> Option<&Name> {
    let is_external = service.service_type == ServiceType::ExternalName;
    service.extras.external_name.as_ref().filter(|_| is_external)
}

fn outside(name: &str, mut addresses: Vec<IpAddr>) -> Looked {
    addresses.retain(|ip| is_outside(ip.to_canonical(), name == LOCALHOST));
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() { Err(ONLY_INSIDE.into()) } else { Ok(addresses) }
}

/// Clouds tell a machine its secrets at 169.254.169.254.
fn is_outside(ip: IpAddr, is_localhost: bool) -> bool {
    if ip.is_loopback() {
        return is_localhost;
    }
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local() || ip.is_broadcast(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !(is_link_local || ip.is_unspecified() || ip.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_allowed_one_by_one_or_by_their_last_labels() {
        let patterns =
            ["api.example", "*.shop.example"].map(|text| HostPattern::parse(text).unwrap());
        let names = ExternalNames::new(&patterns);
        for (name, allowed) in [
            ("api.example", true),
            ("API.example", true),
            ("x.api.example", false),
            ("a.shop.example", true),
            ("a.b.shop.example", false),
            ("shop.example", false),
            ("api.example.evil", false),
            ("localhost", false),
            ("", false),
        ] {
            assert_eq!(names.allows(name), allowed, "{name}");
        }
        assert!(!ExternalNames::default().allows("api.example"), "none is allowed by default");
    }

    /// Whoever owns an allowed name may let it point anywhere (DNS rebinding).
    #[test]
    fn attack_a_name_that_points_at_the_node_leads_nowhere() {
        for (name, found, kept) in [
            (
                "a.example",
                &["192.0.2.2", "192.0.2.1", "192.0.2.2"][..],
                &["192.0.2.1", "192.0.2.2"][..],
            ),
            ("a.example", &["2001:db8::1", "10.0.0.1"], &["10.0.0.1", "2001:db8::1"]),
            ("a.example", &["127.0.0.1", "192.0.2.1"], &["192.0.2.1"]),
            ("a.example", &["127.0.0.2"], &[]),
            ("a.example", &["::1"], &[]),
            ("a.example", &["::ffff:127.0.0.1"], &[]),
            ("a.example", &["169.254.169.254"], &[]),
            ("a.example", &["::ffff:169.254.169.254"], &[]),
            ("a.example", &["fe80::1"], &[]),
            ("a.example", &["0.0.0.0"], &[]),
            ("a.example", &["::"], &[]),
            ("a.example", &["224.0.0.1"], &[]),
            ("a.example", &["255.255.255.255"], &[]),
            ("localhost", &["127.0.0.1", "::1"], &["127.0.0.1", "::1"]),
            ("localhost", &["169.254.169.254"], &[]),
        ] {
            let ips =
                |texts: &[&str]| texts.iter().map(|ip| ip.parse().unwrap()).collect::<Vec<_>>();
            let looked = outside(name, ips(found));
            assert_eq!(looked.ok().unwrap_or_default(), ips(kept), "{name} {found:?}");
        }
    }
}
