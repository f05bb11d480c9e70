//! Everything a report is made from: an agent's own state, or what manifests would make of one.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
};

use anyhow::anyhow;
use fairlead_dns::{DnsConfig, corefile::Corefile, explain::Explainer as Names};
use fairlead_ingress::{IngressConfig, explain::Explainer as Routes};
use fairlead_proxy::{
    ProxyStatus, ServiceBytes,
    explain::{self, Client, Decision, LiveMaps, Lookup as _, PlannedMaps},
    maps::ServiceCounts,
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

/// Made when it is first asked for: planning a large cluster takes its time.
pub(crate) type Later<'a, T> =
    LazyCell<anyhow::Result<T>, Box<dyn FnOnce() -> anyhow::Result<T> + 'a>>;

/// Made by `make`, when it is first asked for.
pub(crate) fn later<'a, T>(make: impl FnOnce() -> anyhow::Result<T> + 'a) -> Later<'a, T> {
    LazyCell::new(Box::new(make))
}

/// What is asked where a connection goes.
#[derive(Debug)]
pub(crate) struct Proxy<'a> {
    pub(crate) maps: Maps<'a>,
    pub(crate) status: ProxyStatus,
    /// `None`: there is no kernel that counts.
    pub(crate) counters: Option<Counters<'a>>,
}

/// What the kernel has counted of Services.
#[derive(Debug)]
pub(crate) struct Counters<'a> {
    /// By counter id; none of Services to which nothing has happened.
    pub(crate) read: Later<'a, BTreeMap<u32, ServiceCounts>>,
    /// Ids below this one have bytes counted, too.
    pub(crate) bytes_end: u32,
}

/// What came of a Service on this node.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    pub(crate) connections: u64,
    pub(crate) rejected: u64,
    /// `None`: its bytes are not counted.
    pub(crate) bytes: Option<ServiceBytes>,
}

/// One moment of one agent, or of none.
#[derive(Debug)]
pub(crate) struct View<'a> {
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) node_name: String,
    pub(crate) proxy: Later<'a, Proxy<'a>>,
    pub(crate) names: Later<'a, Names>,
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
    /// An agent, and which roles it has.
    Agent { proxy: bool, dns: bool },
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
    /// What is not read or not served, one line each.
    pub(crate) problems: Vec<String>,
    /// Every file could be read.
    pub(crate) is_whole: bool,
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
        let loaded = directory::load(&self.file, None, self.classes.named().collect())?;
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
        let (maps, status) = PlannedMaps::plan(&snapshot, &node_name, rules, &self.service_cidr);
        let refused = snapshot.refused().values().map(ToString::to_string);
        let is_whole = loaded.problems.is_empty();
        let unread = loaded.problems.iter().chain(&loaded.foreign).cloned();
        let problems = unread.chain(refused).collect();
        let names = Names::new(&dns, Some(&snapshot))
            .map_err(|error| BadConfiguration(error.to_string()))?;
        let proxy = Proxy { maps: Maps::Planned(maps), status, counters: None };
        let view = View {
            node_name,
            proxy: later(|| Ok(proxy)),
            names: later(|| Ok(names)),
            routes: Some(Routes::new(&ingress, &snapshot)?),
            http: ingress.http_listen,
            https: ingress.https_listen,
            origin: Origin::Files,
            snapshot,
        };
        Ok(Loaded { view, problems, is_whole })
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

impl<'a> View<'a> {
    fn proxy(&self) -> anyhow::Result<&Proxy<'a>> {
        self.proxy.as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// What DNS would answer.
    ///
    /// # Errors
    /// The settings name something that is no domain.
    pub(crate) fn names(&self) -> anyhow::Result<&Names> {
        self.names.as_ref().map_err(|error| anyhow!("{error:#}"))
    }

    /// What becomes of a connection.
    ///
    /// # Errors
    /// The maps cannot be read.
    pub(crate) fn decide(
        &self,
        client: Client,
        protocol: Protocol,
        to: SocketAddr,
    ) -> anyhow::Result<Decision> {
        Ok(match &self.proxy()?.maps {
            Maps::Live(maps) => explain::decide(maps, client, protocol, to)?,
            Maps::Planned(maps) => explain::decide(maps, client, protocol, to)?,
        })
    }

    pub(crate) fn is_node_address(&self, address: std::net::IpAddr) -> bool {
        match self.proxy().map(|proxy| &proxy.maps) {
            Ok(Maps::Live(maps)) => maps.is_node_address(address),
            Ok(Maps::Planned(maps)) => maps.is_node_address(address),
            Err(_) => false,
        }
    }

    /// Where decisions about addresses come from, in words.
    pub(crate) fn source(&self) -> &'static str {
        match self.origin {
            Origin::Agent { proxy: true, .. } => "kernel maps",
            Origin::Agent { proxy: false, .. } => {
                "plan of this agent's objects (it has no proxy role: the maps are the node agent's)"
            }
            Origin::Files => "plan of the manifests",
        }
    }

    /// Whether Services are this one's: then it knows what of them cannot be served.
    fn has_services(&self) -> bool {
        !matches!(self.origin, Origin::Agent { proxy: false, .. })
    }

    /// What of a Service is not served as it asks.
    pub(crate) fn problems(&self, service: &Key) -> Vec<String> {
        let Some(Ok(proxy)) = self.has_services().then(|| self.proxy()) else { return Vec::new() };
        let all = proxy.status.warnings.first.iter().filter(|w| w.service == *service);
        all.map(|warning| warning.problem.to_string()).collect()
    }

    /// The Service behind a counter.
    pub(crate) fn owner(&self, counter_id: u32) -> Option<&Key> {
        self.proxy().ok()?.status.counter_owners.get(&counter_id)
    }

    /// What came of each Service of which anything is counted; `None` without a kernel that counts.
    pub(crate) fn counted(&self) -> Option<HashMap<&Key, Counted>> {
        // Where there is none, a whole cluster would be planned only to find that out.
        if !matches!(self.origin, Origin::Agent { proxy: true, .. }) {
            return None;
        }
        let Proxy { status, counters, .. } = self.proxy().ok()?;
        let Counters { read, bytes_end } = counters.as_ref()?;
        let read = LazyCell::force(read).as_ref().ok()?;
        let nothing = ServiceCounts::default();
        let counted = |id: &u32| {
            let counts = read.get(id).unwrap_or(&nothing);
            Counted {
                connections: counts.selected,
                rejected: counts.rejected(),
                bytes: (id < bytes_end).then_some(counts.bytes),
            }
        };
        // Whoever is not here has nothing counted: many Services are not gone through each time.
        let owners = &status.counter_owners;
        let rest = owners.range(..*bytes_end).filter(|(id, _)| !read.contains_key(id));
        let met = read.keys().filter_map(|id| Some((id, owners.get(id)?)));
        Some(met.chain(rest).map(|(id, key)| (key, counted(id))).collect())
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
        Kind::ServiceImport => snapshot.service_imports().len(),
    }
}
