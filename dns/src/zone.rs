//! The cluster's names at one revision: immutable, shared, cheap to derive the next one from.
//!
//! A name below `svc` is found by one hash lookup of its last two labels (Service and Namespace)
//! and a look at that Service, which the snapshot has anyway. So a change costs what that Service
//! costs, empty non-terminals follow from the structure, "no such name" is as cheap as an answer, and
//! names need hardly any memory beside the objects they are made of.

pub(crate) mod authority;
mod dashed;
pub(crate) mod endpoints;
mod imports;
pub(crate) mod lookup;
pub(crate) mod outside;
mod pods;
pub(crate) mod ports;
pub(crate) mod reverse;
pub(crate) mod service;
mod table;
mod update;

use std::{cmp::Reverse, net::IpAddr, sync::Arc};

use authority::Authority;
use imbl::HashMap;
use imports::{ImportNames, SetDomain};
use outside::Outside;
use pods::Pods;
use reverse::{Family, Pointer};
use service::ServiceNames;
use table::Table;

use crate::{
    corefile::{self, KubernetesOptions, Selector},
    error::DnsError,
    policy::Misses,
    wire::{
        name::{LowerName, WireName, push_label},
        record::{RrSet, SetBuilder},
        rtype,
    },
};

/// Version of the DNS schema we follow (kubernetes/dns docs/specification.md).
const SCHEMA_VERSION: &[u8] = b"\x051.1.0";
/// Its time to live, as CoreDNS'.
const SCHEMA_TTL_SECONDS: u32 = 28800;
/// Where no cluster domain is configured; no server block sends names here then.
const DEFAULT_DOMAIN: &str = "cluster.local";

/// What names are made with besides snapshots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    /// `cluster.local.`
    pub(crate) name: WireName,
    /// Labels of `name`.
    pub(crate) labels: usize,
    /// `svc.cluster.local.`
    pub(crate) services: WireName,
    /// `multicluster`.
    set: Option<SetDomain>,
    /// Reverse zones we answer in, the longest first: a name is in that one.
    pub(crate) reverse: Vec<ReverseZone>,
    pub(crate) ttl_seconds: u32,
    pub(crate) negative_ttl_seconds: u32,
    pub(crate) pods: corefile::Pods,
    pub(crate) endpoint_pod_names: bool,
    pub(crate) no_endpoints: bool,
    pub(crate) ignore_empty: bool,
    pub(crate) zonal: bool,
    /// Lower case; empty for all.
    namespaces: Vec<String>,
    namespace_labels: Option<Selector>,
    service_labels: Option<Selector>,
    /// Misses that are passed on.
    pub(crate) misses: Misses,
    version: RrSet,
}

/// A zone below in-addr.arpa or ip6.arpa.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ReverseZone {
    pub(crate) name: WireName,
    pub(crate) labels: usize,
    pub(crate) family: Family,
}

/// Why a Namespace's names exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Presence {
    /// The Namespace object exists.
    object: bool,
    /// Services with names in it.
    services: usize,
}

/// Where names come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// No snapshot yet.
    Nothing,
    /// One that was kept over a restart: nobody knows how old its names are.
    Kept,
    /// The snapshot of this revision.
    At(u64),
}

/// All names at one revision. Clones share structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    origin: Arc<Origin>,
    known: Known,
    /// By the wire form of `SERVICE.NAMESPACE`.
    services: Table<ServiceNames>,
    /// By the namespace's name.
    namespaces: HashMap<Arc<[u8]>, Presence>,
    /// By address.
    reverse: Table<Pointer>,
    /// Of Services that can be reached from outside, by the wire form of `SERVICE.NAMESPACE`.
    outside: HashMap<Arc<[u8]>, Arc<Outside>>,
    /// Of the cluster set, by the wire form of `SERVICE.NAMESPACE`.
    imports: HashMap<Arc<[u8]>, Arc<ImportNames>>,
    /// Pods whose names are verified, or whose search paths are walked; those that are followed.
    pods: Pods,
    /// NS records of the zone itself.
    name_servers: RrSet,
    /// SOA of the zone, of the cluster set's, of each reverse zone.
    authority: Authority,
    set_authority: Option<Authority>,
    reverse_authorities: Arc<[Authority]>,
}

impl Origin {
    /// Reads the names in the configuration; denials live `negative_ttl_seconds` at most.
    pub(crate) fn new(
        options: &KubernetesOptions,
        negative_ttl_seconds: u32,
    ) -> Result<Self, DnsError> {
        let text = options.domain.as_deref().unwrap_or(DEFAULT_DOMAIN);
        let name = domain(text)?;
        let services = name
            .below(b"\x03svc")
            .map_err(|source| DnsError::Domain { domain: format!("svc.{text}"), source })?;
        let reverse = options.reverse_zones.iter().map(|zone| reverse_zone(zone));
        let mut reverse = reverse.collect::<Result<Vec<_>, _>>()?;
        reverse.sort_by_key(|zone| Reverse(zone.labels));
        Ok(Self {
            labels: name.label_count(),
            name,
            services,
            set: options.multicluster.as_deref().map(SetDomain::new).transpose()?,
            reverse,
            ttl_seconds: options.ttl_seconds,
            negative_ttl_seconds: negative_ttl_seconds.min(options.ttl_seconds),
            pods: options.pods,
            endpoint_pod_names: options.endpoint_pod_names,
            no_endpoints: options.no_endpoints,
            ignore_empty: options.ignore_empty,
            zonal: options.zonal,
            namespaces: options.namespaces.clone(),
            namespace_labels: options.namespace_labels.clone(),
            service_labels: options.labels.clone(),
            misses: Misses::new(&options.fallthrough)?,
            version: RrSet::of_data(rtype::TXT, &[SCHEMA_VERSION], SCHEMA_TTL_SECONDS),
        })
    }

    /// Whether a namespace's names are served.
    pub(crate) fn has_namespace(&self, namespace: &str) -> bool {
        let same = |name: &String| name.eq_ignore_ascii_case(namespace);
        self.namespaces.is_empty() || self.namespaces.iter().any(same)
    }
}

impl Zone {
    /// Before the first snapshot: only what needs none is answered, and nothing is denied.
    pub(crate) fn unsynced(origin: Arc<Origin>, serial: u32) -> Self {
        let authority = Authority::new(&origin.name, &origin, serial);
        let reverse = origin.reverse.iter().map(|zone| Authority::new(&zone.name, &origin, serial));
        let reverse_authorities = reverse.collect();
        let name_servers = name_servers(&origin, None);
        let set = origin.set.as_ref();
        let set_authority = set.map(|set| Authority::new(&set.name, &origin, serial));
        Self {
            origin,
            known: Known::Nothing,
            services: Table::new(),
            namespaces: HashMap::new(),
            reverse: Table::new(),
            outside: HashMap::new(),
            imports: HashMap::new(),
            pods: Pods::new(),
            name_servers,
            authority,
            set_authority,
            reverse_authorities,
        }
    }

    /// What these names were made with.
    pub(crate) fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// The revision of the snapshot these names come from; `None` for those of an earlier run.
    pub(crate) fn revision(&self) -> Option<u64> {
        match self.known {
            Known::At(revision) => Some(revision),
            Known::Nothing | Known::Kept => None,
        }
    }

    /// Whether these names stand in for ones that could not be read yet.
    pub(crate) fn is_stand_in(&self) -> bool {
        self.known == Known::Kept
    }

    /// Time to live of records, in seconds.
    pub(crate) fn ttl_seconds(&self) -> u32 {
        self.origin.ttl_seconds
    }

    /// The wire form of `svc.cluster.local.`
    pub(crate) fn services_name(&self) -> &[u8] {
        self.origin.services.as_bytes()
    }

    /// Whether a client is a pod that is known, and a name is below the domain it searches first.
    pub(crate) fn is_searched(&self, name: &LowerName, client: IpAddr) -> bool {
        let Some(namespace) = self.pods.namespace_of(client.to_canonical()) else { return false };
        let Some(below) = name.labels_below(&self.origin.name, self.origin.labels) else {
            return false;
        };
        below > 2
            && name.label(below - 1) == b"svc"
            && name.label(below - 2).eq_ignore_ascii_case(namespace.as_bytes())
    }

    /// The domains of the cluster that a pod searches; none for clients that are not known.
    pub(crate) fn search_path(&self, client: IpAddr) -> Vec<WireName> {
        let namespace = self.pods.namespace_of(client.to_canonical());
        let Some(namespace) = namespace.map(str::to_ascii_lowercase) else { return vec![] };
        let mut label = vec![];
        let own = push_label(&mut label, namespace.as_bytes())
            .and_then(|()| self.origin.services.below(&label));
        own.map_or_else(
            |_| vec![],
            |own| vec![own, self.origin.services.clone(), self.origin.name.clone()],
        )
    }

    /// How many Services have names.
    pub(crate) fn service_count(&self) -> usize {
        self.services.len()
    }
}

/// NS of the zone: the DNS Service when there is one, with its addresses, as CoreDNS has it.
fn name_servers(origin: &Origin, dns_service: Option<&ServiceNames>) -> RrSet {
    let mut set = SetBuilder::new(rtype::NS, origin.ttl_seconds);
    let labels: &[u8] = match dns_service {
        Some(_) => DNS_SERVICE,
        None => b"\x02ns\x03dns",
    };
    let parent = if dns_service.is_some() { &origin.services } else { &origin.name };
    if let Ok(name) = parent.below(labels) {
        set.answer(name.as_bytes());
        for address in dns_service.into_iter().flat_map(ServiceNames::cluster_ips) {
            set.additional_address(&name, address);
        }
    }
    set.finish()
}

/// The Service in front of cluster DNS in every distribution, kubelets' `--cluster-dns` included.
const DNS_SERVICE: &[u8] = b"\x08kube-dns\x0bkube-system";
const DNS_SERVICE_LABELS: (&[u8], &[u8]) = (b"kube-dns", b"kube-system");

/// The wire form of `SERVICE.NAMESPACE`; `None` when they are no labels.
fn service_key(service: &str, namespace: &str) -> Option<Arc<[u8]>> {
    let mut bytes = Vec::with_capacity(service.len() + namespace.len() + 2);
    push_label(&mut bytes, service.as_bytes()).ok()?;
    push_label(&mut bytes, namespace.as_bytes()).ok()?;
    Some(bytes.into())
}

fn domain(text: &str) -> Result<WireName, DnsError> {
    WireName::from_text(text).map_err(|source| DnsError::Domain { domain: text.to_owned(), source })
}

fn reverse_zone(text: &str) -> Result<ReverseZone, DnsError> {
    let name = domain(text)?;
    let family =
        Family::of(&name).ok_or_else(|| DnsError::ReverseZone { zone: text.to_owned() })?;
    Ok(ReverseZone { labels: name.label_count(), name, family })
}

#[cfg(test)]
mod tests;
