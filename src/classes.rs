//! Which Ingresses are ours and how they are read: the flags of the agent and of whoever foretells
//! what it would do.

use fairlead_ingress::{IngressConfig, Matching, host::HostPattern};
use fairlead_state::{Key, Kind, ObjectRef};
use ipnetwork::IpNetwork;

use crate::agent::NamespacedName;

/// How paths are compared.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum MatchingArg {
    Compat,
    Strict,
}

/// Classes that are served.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ClassArgs {
    /// Class name that the legacy annotation kubernetes.io/ingress.class is compared with
    #[arg(long, value_name = "NAME", default_value = "fairlead", env = "FAIRLEAD_INGRESS_CLASS")]
    ingress_class: String,
    /// IngressClasses with this spec.controller are ours
    #[arg(
        long,
        value_name = "NAME",
        default_value = "fairlead.io/ingress",
        env = "FAIRLEAD_CONTROLLER"
    )]
    controller: String,
    /// Serve Ingresses that name no class, too
    #[arg(long, env = "FAIRLEAD_WATCH_INGRESS_WITHOUT_CLASS")]
    watch_ingress_without_class: bool,
    /// Serve Services of type ExternalName that lead to these names (api.example.com, *.example.com), which
    /// the agent looks up; those to other names are not served
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        value_parser = HostPattern::parse,
        env = "FAIRLEAD_EXTERNAL_NAMES"
    )]
    external_names: Vec<HostPattern>,
    /// Let auth-url and mirror-target lead to these networks, too, which are of the node itself, its links or a
    /// cloud's metadata (127.0.0.1/32), and kept from them otherwise, but for ports 80, 443 and those of Ingress
    /// at the node's own addresses: a NodePort, or another port of a balancer's address that the node has, needs it
    #[arg(
        long,
        value_name = "NETWORK,...",
        value_delimiter = ',',
        env = "FAIRLEAD_INSIDE_NETWORKS"
    )]
    inside_networks: Vec<IpNetwork>,
    /// Compare paths as ingress-nginx does, its surprises included (compat), or as their types say
    /// (strict)
    #[arg(long, value_enum, default_value = "compat", env = "FAIRLEAD_MATCHING")]
    matching: MatchingArg,
    /// Take settings of ingress-nginx's ConfigMap; it is followed
    #[arg(long, value_name = "NS/NAME", env = "FAIRLEAD_INGRESS_CONFIG")]
    ingress_config: Option<NamespacedName>,
    /// Serve TCP ports by this ConfigMap, whose entries are PORT: NAMESPACE/SERVICE:PORT
    #[arg(long, value_name = "NS/NAME", env = "FAIRLEAD_TCP_SERVICES_CONFIGMAP")]
    tcp_services_configmap: Option<NamespacedName>,
    /// Serve UDP ports by this ConfigMap
    #[arg(long, value_name = "NS/NAME", env = "FAIRLEAD_UDP_SERVICES_CONFIGMAP")]
    udp_services_configmap: Option<NamespacedName>,
}

fn key(name: Option<&NamespacedName>) -> Option<Key> {
    name.map(|name| name.0.clone())
}

impl ClassArgs {
    /// Objects that are read because a flag names them.
    pub(crate) fn named(&self) -> impl Iterator<Item = ObjectRef> {
        let maps =
            [&self.ingress_config, &self.tcp_services_configmap, &self.udp_services_configmap];
        let maps = maps.into_iter().flatten();
        maps.map(|map| ObjectRef { kind: Kind::ConfigMap, key: map.0.clone() })
    }

    /// Whether Services may lead outside.
    pub(crate) fn leads_outside(&self) -> bool {
        !self.external_names.is_empty()
    }

    /// The settings of an Ingress, for these classes and otherwise by default.
    pub(crate) fn config(&self) -> IngressConfig {
        IngressConfig {
            ingress_class: self.ingress_class.clone(),
            controller: self.controller.clone(),
            watch_ingress_without_class: self.watch_ingress_without_class,
            external_names: self.external_names.clone(),
            inside_allowed: self.inside_networks.clone(),
            matching: match self.matching {
                MatchingArg::Compat => Matching::Compat,
                MatchingArg::Strict => Matching::Strict,
            },
            tcp_services: key(self.tcp_services_configmap.as_ref()),
            udp_services: key(self.udp_services_configmap.as_ref()),
            config_map: key(self.ingress_config.as_ref()),
            ..IngressConfig::default()
        }
    }
}
