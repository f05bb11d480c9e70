//! `autopath`: a client's search path, walked here in one question instead of there in five.

use std::net::IpAddr;

use crate::{
    corefile::{AutopathOptions, Search},
    error::DnsError,
    policy::{ZoneName, zone_names},
    wire::name::{LowerName, WireName},
    zone::Zone,
};

/// One server block's.
#[derive(Debug)]
pub(crate) struct Autopath {
    /// Empty: the block's.
    zones: Box<[ZoneName]>,
    /// The path begins with what a pod's namespace searches.
    of_pods: bool,
    /// What is searched then, without the name as it was meant, which comes last.
    domains: Vec<WireName>,
}

impl Autopath {
    pub(crate) fn new(options: &AutopathOptions) -> Result<Self, DnsError> {
        let (of_pods, domains) = match &options.search {
            Search::Pods(domains) => (true, domains),
            Search::Domains(domains) => (false, domains),
        };
        let names = zone_names(domains)?.into_iter().map(|zone| zone.name).collect();
        Ok(Self { zones: zone_names(&options.zones)?, of_pods, domains: names })
    }

    /// Whether a name is one that a client's resolver has made with its first search domain.
    pub(crate) fn is_for(&self, zone: &Zone, name: &LowerName, source: IpAddr) -> bool {
        let in_zones = self.zones.is_empty() || self.zones.iter().any(|zone| zone.holds(name));
        in_zones
            && match self.of_pods {
                true => zone.is_searched(name, source),
                false => self.domains.first().is_some_and(|first| {
                    name.labels_below(first, first.label_count()).is_some_and(|below| below > 0)
                }),
            }
    }

    /// All domains of the path in their order; the name is below the first. [`Self::is_for`] has
    /// said yes.
    pub(crate) fn path(&self, zone: &Zone, source: IpAddr) -> Vec<WireName> {
        let of_pod = self.of_pods.then(|| zone.search_path(source));
        let domains = of_pod.into_iter().flatten().chain(self.domains.iter().cloned());
        domains.chain([WireName::root()]).collect()
    }
}
