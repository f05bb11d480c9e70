//! `kubernetes [ZONES...] { ... }`.

use super::{
    CorefileError,
    blocks::Directive,
    selector::{self, Selector},
    values,
};

/// Names of pods by address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pods {
    /// No such names: CoreDNS's default.
    #[default]
    Disabled,
    /// The address in the name is the answer if the namespace exists.
    Insecure,
    /// The address in the name is the answer if a pod of the namespace has it.
    Verified,
}

/// Which misses are passed on to the next plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Fallthrough {
    /// None.
    #[default]
    Never,
    /// All.
    Always,
    /// Those in these zones.
    In(Vec<String>),
}

impl Fallthrough {
    /// `fallthrough [ZONES...]`.
    pub(super) fn read(line: &Directive) -> Result<Self, CorefileError> {
        line.no_body()?;
        let zones = values::zones(&line.args)?;
        Ok(if zones.is_empty() { Self::Always } else { Self::In(zones) })
    }
}

/// Options of `kubernetes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubernetesOptions {
    /// The cluster's domain; `None` if this block has reverse zones only.
    pub domain: Option<String>,
    /// Zones below in-addr.arpa and ip6.arpa.
    pub reverse_zones: Vec<String>,
    /// `pods`.
    pub pods: Pods,
    /// `ttl`, in seconds.
    pub ttl_seconds: u32,
    /// `endpoint_pod_names`: pods' names name endpoints without a host name.
    pub endpoint_pod_names: bool,
    /// `noendpoints`: headless Services and endpoints have no names.
    pub no_endpoints: bool,
    /// `ignore empty_service`: a Service without ready endpoints has no name.
    pub ignore_empty: bool,
    /// `namespaces`: only these have names; empty for all.
    pub namespaces: Vec<String>,
    /// `namespace_labels`: only Namespaces with such labels have names.
    pub namespace_labels: Option<Selector>,
    /// `labels`: only Services with such labels have names.
    pub labels: Option<Selector>,
    /// `zonal`: endpoints of headless Services have names by their zones, too.
    pub zonal: bool,
    /// `fallthrough`.
    pub fallthrough: Fallthrough,
    /// `multicluster`: the cluster set's domain.
    pub multicluster: Option<String>,
}

/// CoreDNS's own.
const TTL_SECONDS: u32 = 5;
const TTL_SECONDS_MAX: u32 = 3600;
const KNOWN: &str = "pods, ttl, fallthrough, namespaces, endpoint_pod_names, noendpoints, \
                     ignore empty_service, labels, namespace_labels, zonal, multicluster";

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            domain: None,
            reverse_zones: vec![],
            pods: Pods::Disabled,
            ttl_seconds: TTL_SECONDS,
            endpoint_pod_names: false,
            no_endpoints: false,
            ignore_empty: false,
            namespaces: vec![],
            namespace_labels: None,
            labels: None,
            zonal: false,
            fallthrough: Fallthrough::Never,
            multicluster: None,
        }
    }
}

impl KubernetesOptions {
    /// Whether two plugins mean the same but for where.
    pub(super) fn same_but_zones(&self, other: &Self) -> bool {
        let zones = |o: &Self| Self {
            domain: None,
            reverse_zones: vec![],
            multicluster: None,
            ..o.clone()
        };
        zones(self) == zones(other)
    }
}

/// Reads the line; `block_zones` are meant when it names none.
pub(super) fn read(
    line: &Directive,
    block_zones: &[String],
) -> Result<KubernetesOptions, CorefileError> {
    let named = values::zones(&line.args)?;
    let zones = if named.is_empty() { block_zones.to_vec() } else { named };
    let is_reverse = |zone: &String| {
        ["in-addr.arpa", "ip6.arpa"].iter().any(|arpa| {
            zone == arpa || zone.strip_suffix(arpa).is_some_and(|rest| rest.ends_with('.'))
        })
    };
    let (reverse_zones, domains): (Vec<_>, Vec<_>) = zones.into_iter().partition(is_reverse);
    let mut options = KubernetesOptions { reverse_zones, ..KubernetesOptions::default() };
    for option in &line.body {
        read_option(option, &mut options)?;
    }
    if !options.namespaces.is_empty() && options.namespace_labels.is_some() {
        let reason = "kubernetes: namespaces and namespace_labels: keep one of them";
        return Err(line.name.error(reason));
    }
    if options.zonal && options.no_endpoints {
        let reason = "kubernetes: zonal needs endpoints: remove it, or noendpoints";
        return Err(line.name.error(reason));
    }
    let of_set = |domain: &String| Some(domain) == options.multicluster.as_ref();
    let (set, domains): (Vec<_>, Vec<_>) = domains.into_iter().partition(of_set);
    if let (Some(zone), []) = (&options.multicluster, &set[..]) {
        let reason = format!("multicluster: name {zone} among the zones of kubernetes, too");
        return Err(line.name.error(reason));
    }
    if let [_, second, ..] = &domains[..] {
        let reason = format!("kubernetes: one cluster domain is served: remove {second:?}");
        return Err(line.name.error(reason));
    }
    if domains.first().is_some_and(|domain| domain == ".") {
        let reason = "kubernetes: name the cluster's domain, such as cluster.local";
        return Err(line.name.error(reason));
    }
    options.domain = domains.into_iter().next();
    Ok(options)
}

fn read_option(line: &Directive, options: &mut KubernetesOptions) -> Result<(), CorefileError> {
    line.no_body()?;
    match line.name.text.as_str() {
        "pods" => {
            let mode = line.one()?;
            options.pods = match mode.text.as_str() {
                "disabled" => Pods::Disabled,
                "insecure" => Pods::Insecure,
                "verified" => Pods::Verified,
                _ => return Err(mode.error("pods: write disabled, insecure or verified")),
            };
        }
        "ttl" => options.ttl_seconds = line.one()?.number(0, TTL_SECONDS_MAX)?,
        "fallthrough" => options.fallthrough = Fallthrough::read(line)?,
        "namespaces" => {
            let names = line.expect(1, usize::MAX)?;
            options.namespaces.extend(names.iter().map(|name| name.text.to_ascii_lowercase()));
        }
        "endpoint_pod_names" => options.endpoint_pod_names = line.expect(0, 0)?.is_empty(),
        "noendpoints" => options.no_endpoints = line.expect(0, 0)?.is_empty(),
        "ignore" => {
            let what = line.one()?;
            if what.text != "empty_service" {
                return Err(what.error("ignore: only empty_service can be ignored"));
            }
            options.ignore_empty = true;
        }
        // How the API server is followed is not DNS's affair here, and these change no answer.
        "startup_timeout" | "apiserver_qps" | "apiserver_burst" | "apiserver_max_inflight" => {}
        "endpoint" | "tls" | "kubeconfig" => {
            return Err(line.name.error(
                "kubernetes: where objects come from is the agent's: remove this line and give \
                 --kubeconfig",
            ));
        }
        "multicluster" => {
            let [zone] = &line.one()?.zones()?[..] else {
                return Err(line.name.error("multicluster: one zone is served: name one"));
            };
            options.multicluster = Some(zone.clone());
        }
        "labels" => options.labels = Some(selector::read(line)?),
        "namespace_labels" => options.namespace_labels = Some(selector::read(line)?),
        "zonal" => options.zonal = line.expect(0, 0)?.is_empty(),
        "transfer" => {
            return Err(line.name.error(
                "kubernetes: transfer is CoreDNS's and not served here: remove this line, or keep \
                 CoreDNS for it",
            ));
        }
        _ => return Err(line.unknown("kubernetes", KNOWN)),
    }
    Ok(())
}
