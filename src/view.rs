//! Everything a report is made from: an agent's own state, or what manifests would make of one.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use fairlead_dns::{DnsConfig, corefile::Corefile, explain::Explainer as Names};
use fairlead_ingress::{IngressConfig, explain::Explainer as Routes};
use fairlead_proxy::{
    KernelError, ProxyStatus,
    explain::{self, Client, Decision, LiveMaps, Lookup as _, PlannedMaps},
    plan::Rules,
};
use fairlead_state::{Key, Kind, Snapshot, model::Protocol, source::directory};
use ipnetwork::IpNetwork;

use crate::{classes::ClassArgs, exit::BadConfiguration};

/// The maps that are asked.
#[derive(Debug)]
pub(crate) enum Maps<'a> {
    /// Those in the kernel.
    Live(LiveMaps<'a>),
    /// What they would hold.
    Planned(PlannedMaps),
}

/// One moment of one agent, or of none.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) node_name: String,
    pub(crate) maps: Maps<'a>,
    pub(crate) proxy: ProxyStatus,
    /// Connections and refusals by counter id; empty where there is no kernel.
    pub(crate) counters: BTreeMap<u32, (u64, u64)>,
    pub(crate) names: Names,
    /// `None`: Ingresses are another agent's.
    pub(crate) routes: Option<Routes>,
    /// Where HTTP and HTTPS are served.
    pub(crate) http: Vec<SocketAddr>,
    pub(crate) https: Vec<SocketAddr>,
    /// Where its roles run, for whoever reads the report.
    pub(crate) origin: Origin,
}

/// What a view was made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Manifests.
    Files,
    /// An agent, and whether it has the DNS role.
    Agent { dns: bool },
}

/// Manifests instead of an agent, and the settings an agent would have.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "From files instead of an agent")]
pub(crate) struct Files {
    /// Read manifest files and directories instead of asking an agent
    #[arg(
        short,
        long = "filename",
        value_name = "FILE",
        env = "FAIRLEAD_FILENAME",
        value_delimiter = ','
    )]
    pub(crate) file: Vec<PathBuf>,
    /// As on this node (default: the only Node of the manifests, else none)
    #[arg(long, value_name = "NAME", env = "FAIRLEAD_NODE_NAME")]
    node_name: Option<String>,
    /// The API server's --service-cluster-ip-range
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', env = "FAIRLEAD_SERVICE_CIDR")]
    service_cidr: Vec<IpNetwork>,
    /// Serve spec.externalIPs
    #[arg(long, env = "FAIRLEAD_EXTERNAL_IPS")]
    external_ips: bool,
    /// Answer names by this Corefile
    #[arg(long, value_name = "FILE", env = "FAIRLEAD_COREFILE")]
    corefile: Option<PathBuf>,
    /// The cluster's domain
    #[arg(
        long,
        value_name = "DOMAIN",
        default_value = "cluster.local",
        env = "FAIRLEAD_CLUSTER_DOMAIN"
    )]
    cluster_domain: String,
    #[command(flatten)]
    classes: ClassArgs,
}

/// Read manifests, and what is wrong with them.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) view: View<'static>,
    pub(crate) problems: Vec<String>,
}

impl Files {
    /// Whether there are any.
    pub(crate) fn given(&self) -> bool {
        !self.file.is_empty()
    }

    /// What an agent with these manifests would do.
    ///
    /// # Errors
    /// A path cannot be read, or a setting is bad.
    pub(crate) fn view(&self) -> anyhow::Result<Loaded> {
        let loaded = directory::load(&self.file, None, std::collections::BTreeSet::new())?;
        let snapshot = loaded.snapshot;
        let node_name = self.node_name.clone().unwrap_or_else(|| only_node(&snapshot));
        let corefile = self.corefile.as_ref().map(|path| Corefile::read(path)).transpose();
        let corefile = corefile.map_err(|error| BadConfiguration(error.to_string()))?;
        let dns = DnsConfig {
            cluster_domain: self.cluster_domain.clone(),
            corefile: corefile.map(Arc::new),
            ..DnsConfig::default()
        };
        let ingress = self.ingress();
        let rules = Rules { external_ips: self.external_ips, ..Rules::default() };
        let (maps, proxy) = PlannedMaps::plan(&snapshot, &node_name, rules, &self.service_cidr)?;
        let refused = snapshot.refused().values().map(ToString::to_string);
        let problems = loaded.problems.iter().cloned().chain(refused).collect();
        let view = View {
            node_name,
            maps: Maps::Planned(maps),
            proxy,
            counters: BTreeMap::new(),
            names: Names::new(&dns, Some(&snapshot))
                .map_err(|error| BadConfiguration(error.to_string()))?,
            routes: Some(Routes::new(&ingress, &snapshot)?),
            http: ingress.http_listen,
            https: ingress.https_listen,
            origin: Origin::Files,
            snapshot,
        };
        Ok(Loaded { view, problems })
    }

    fn ingress(&self) -> IngressConfig {
        let any = |port| {
            let v6 = std::net::Ipv6Addr::UNSPECIFIED;
            vec![SocketAddr::from(([0; 4], port)), SocketAddr::from((v6, port))]
        };
        IngressConfig { http_listen: any(80), https_listen: any(443), ..self.classes.config() }
    }
}

fn only_node(snapshot: &Snapshot) -> String {
    let mut nodes = snapshot.nodes().keys();
    match (nodes.next(), nodes.next()) {
        (Some(only), None) => only.name.to_string(),
        _ => String::new(),
    }
}

impl View<'_> {
    /// What becomes of a connection.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(crate) fn decide(
        &self,
        client: Client,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Result<Decision, KernelError> {
        match &self.maps {
            Maps::Live(maps) => explain::decide(maps, client, protocol, to),
            Maps::Planned(maps) => explain::decide(maps, client, protocol, to),
        }
    }

    pub(crate) fn is_node_address(&self, address: std::net::IpAddr) -> bool {
        match &self.maps {
            Maps::Live(maps) => maps.is_node_address(address),
            Maps::Planned(maps) => maps.is_node_address(address),
        }
    }

    /// Where decisions about addresses come from, in words.
    pub(crate) fn source(&self) -> &'static str {
        match (&self.maps, self.origin) {
            (Maps::Live(_), _) => "kernel maps",
            (_, Origin::Files) => "plan of the manifests",
            _ => {
                "plan of this agent's objects (it has no proxy role: the maps are the node agent's)"
            }
        }
    }

    /// The Service behind a counter.
    pub(crate) fn owner(&self, counter_id: u32) -> Option<&Key> {
        self.proxy.counter_owners.get(&counter_id)
    }

    /// Connections and refusals by Service; `None` without a kernel.
    pub(crate) fn counted(&self) -> Option<HashMap<&Key, (u64, u64)>> {
        if !matches!(self.maps, Maps::Live(_)) {
            return None;
        }
        let owners = self.proxy.counter_owners.iter();
        let counted = owners.filter_map(|(id, key)| Some((key, *self.counters.get(id)?)));
        Some(counted.collect())
    }
}

/// How many objects of a kind a snapshot holds.
pub(crate) fn count(snapshot: &Snapshot, kind: Kind) -> usize {
    match kind {
        Kind::Service => snapshot.services().len(),
        Kind::EndpointSlice => snapshot.endpoint_slices().len(),
        Kind::Node => snapshot.nodes().len(),
        Kind::Namespace => snapshot.namespaces().len(),
        Kind::Pod => snapshot.pods().len(),
        Kind::Ingress => snapshot.ingresses().len(),
        Kind::IngressClass => snapshot.ingress_classes().len(),
        Kind::Secret => snapshot.secrets().len(),
        Kind::ConfigMap => snapshot.config_maps().len(),
        Kind::ServiceCidr => snapshot.service_cidrs().len(),
    }
}
