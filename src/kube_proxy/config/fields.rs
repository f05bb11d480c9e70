//! Every field of `KubeProxyConfiguration` (k8s.io/kube-proxy v0.37 config/v1alpha1/types.go) and
//! what becomes of it.

use std::collections::BTreeMap;

use super::{Verdict, kind::Kind};

/// A field upstream knows.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) path: &'static str,
    pub(super) kind: Kind,
    pub(super) meaning: Meaning,
}

/// What a value comes to.
#[derive(Debug)]
pub(super) enum Meaning {
    /// It is the value of this flag.
    Flag(&'static str),
    /// Nothing; upstream's default is not worth a word.
    None { why: &'static str, default: &'static str },
    /// It depends on the value.
    By(fn(&str) -> Verdict),
}

const COUNT: Kind = Kind::Number(0, i32::MAX as i64);
const BIT: Kind = Kind::Number(0, 31);

const NO_LOCAL: &str = "where a packet comes from is known from its device, not from its address";
const NO_RULES: &str = "there are no rules to write: a change is in the kernel's maps at once";
const NO_MARK: &str = "packets are not marked: translation is not netfilter's";
const NO_IPVS: &str = "there is no IPVS";
const NO_WINDOWS: &str = "it is for Windows";
const ALWAYS_JSON: &str = "objects are read as JSON";
const NO_LIMIT: &str = "a few watches are all that is asked of the API server";
const NO_LONGER: &str =
    "kube-proxy has it no longer: it was of the userspace mode, or of its containers";
const NO_GATES: &str = "they are kube-proxy's";
const NO_BUFFER: &str = "log lines are written at once, to standard error";

const fn flag(path: &'static str, kind: Kind, flag: &'static str) -> Known {
    Known { path, kind, meaning: Meaning::Flag(flag) }
}

const fn none(path: &'static str, kind: Kind, why: &'static str) -> Known {
    Known { path, kind, meaning: Meaning::None { why, default: "" } }
}

/// Without meaning, and no word is lost about this value.
const fn unless(path: &'static str, kind: Kind, default: &'static str, why: &'static str) -> Known {
    Known { path, kind, meaning: Meaning::None { why, default } }
}

const fn by(path: &'static str, kind: Kind, decide: fn(&str) -> Verdict) -> Known {
    Known { path, kind, meaning: Meaning::By(decide) }
}

/// In the order of their sections.
pub(super) static FIELDS: &[Known] = &[
    unless(
        "bindAddress",
        Kind::Ip,
        "0.0.0.0",
        "the node's addresses are found by rtnetlink; it chooses the family of healthz and metrics \
         addresses that are not given",
    ),
    flag("bindAddressHardFail", Kind::Switch, "bind-address-hard-fail"),
    none("clientConnection.acceptContentTypes", Kind::Text, ALWAYS_JSON),
    unless("clientConnection.burst", COUNT, "0", NO_LIMIT),
    unless(
        "clientConnection.contentType",
        Kind::Text,
        "application/vnd.kubernetes.protobuf",
        ALWAYS_JSON,
    ),
    flag("clientConnection.kubeconfig", Kind::Text, "kubeconfig"),
    none("clientConnection.qps", Kind::Real, NO_LIMIT),
    none("clusterCIDR", Kind::NetworkPair, NO_LOCAL),
    unless("configSyncPeriod", Kind::Duration, "15m0s", "changes are watched, not asked for"),
    flag("conntrack.maxPerCore", COUNT, "conntrack-max-per-core"),
    flag("conntrack.min", COUNT, "conntrack-min"),
    flag("conntrack.tcpBeLiberal", Kind::Switch, "conntrack-tcp-be-liberal"),
    flag("conntrack.tcpCloseWaitTimeout", Kind::Timeout, "conntrack-tcp-timeout-close-wait"),
    flag("conntrack.tcpEstablishedTimeout", Kind::Timeout, "conntrack-tcp-timeout-established"),
    flag("conntrack.udpStreamTimeout", Kind::Duration, "conntrack-udp-timeout-stream"),
    flag("conntrack.udpTimeout", Kind::Duration, "conntrack-udp-timeout"),
    none("detectLocal.bridgeInterface", Kind::Text, NO_LOCAL),
    none("detectLocal.interfaceNamePrefix", Kind::Text, NO_LOCAL),
    none(
        "detectLocalMode",
        Kind::OneOf(&["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]),
        NO_LOCAL,
    ),
    none("enableProfiling", Kind::Switch, "Go's profiles are Go's; perf works on any process"),
    by("featureGates", Kind::Switches, gates),
    flag("healthzBindAddress", Kind::HostPort(10256), "healthz-listen"),
    by("hostnameOverride", Kind::Text, |name| {
        Verdict::Honoured(vec![("node-name", name.trim().to_lowercase())])
    }),
    by("iptables.localhostNodePorts", Kind::Choice, localhost),
    flag("iptables.masqueradeAll", Kind::Switch, "masquerade-all"),
    unless("iptables.masqueradeBit", BIT, "14", NO_MARK),
    unless("iptables.minSyncPeriod", Kind::Duration, "1s", NO_RULES),
    unless("iptables.syncPeriod", Kind::Duration, "30s", NO_RULES),
    none("ipvs.excludeCIDRs", Kind::Networks, NO_IPVS),
    none("ipvs.minSyncPeriod", Kind::Duration, NO_IPVS),
    none(
        "ipvs.scheduler",
        Kind::Text,
        "there is no IPVS: backends are chosen at random, or by session affinity",
    ),
    none("ipvs.strictARP", Kind::Switch, "no Service address is put on a device"),
    unless("ipvs.syncPeriod", Kind::Duration, "30s", NO_IPVS),
    none("ipvs.tcpFinTimeout", Kind::Duration, NO_IPVS),
    none("ipvs.tcpTimeout", Kind::Duration, NO_IPVS),
    none("ipvs.udpTimeout", Kind::Duration, NO_IPVS),
    none("logging.flushFrequency", Kind::DurationOrNanoseconds, NO_BUFFER),
    flag("logging.format", Kind::OneOf(&["text", "json"]), "log-format"),
    none("logging.options", Kind::Anything, NO_BUFFER),
    by("logging.verbosity", COUNT, verbosity),
    none("logging.vmodule", Kind::Anything, "they are kube-proxy's files"),
    flag("metricsBindAddress", Kind::HostPort(10249), "metrics-listen"),
    none(
        "mode",
        Kind::OneOf(&["iptables", "ipvs", "nftables"]),
        "Services are served by eBPF, whatever the mode",
    ),
    flag("nftables.masqueradeAll", Kind::Switch, "masquerade-all"),
    unless("nftables.masqueradeBit", BIT, "14", NO_MARK),
    unless("nftables.minSyncPeriod", Kind::Duration, "1s", NO_RULES),
    unless("nftables.syncPeriod", Kind::Duration, "30s", NO_RULES),
    flag("nodePortAddresses", Kind::Places, "nodeport-addresses"),
    flag("oomScoreAdj", Kind::Number(-1000, 1000), "oom-score-adj"),
    none("portRange", Kind::Text, "no port is opened for a Service"),
    none("resourceContainer", Kind::Text, NO_LONGER),
    none("showHiddenMetricsForVersion", Kind::Version, "no metric is hidden"),
    // Older kubeadm wrote it into every cluster's ConfigMap, and templates have it still.
    unless("udpIdleTimeout", Kind::Duration, "250ms", NO_LONGER),
    none("windowsRunAsService", Kind::Switch, NO_WINDOWS),
    none("winkernel.enableDSR", Kind::Switch, NO_WINDOWS),
    none("winkernel.forwardHealthCheckVip", Kind::Switch, NO_WINDOWS),
    none("winkernel.networkName", Kind::Text, NO_WINDOWS),
    none("winkernel.rootHnsEndpointName", Kind::Text, NO_WINDOWS),
    none("winkernel.sourceVip", Kind::Text, NO_WINDOWS),
];

fn localhost(choice: &str) -> Verdict {
    if choice == "true" {
        return Verdict::Default;
    }
    Verdict::NoMeaning(
        "a NodePort on loopback needs no route_localnet; to leave loopback out, give \
         nodePortAddresses: [primary]",
    )
}

/// Of kube-proxy's gates one decides about Services (KEP-5707): whether `spec.externalIPs` are served.
fn gates(gates: &str) -> Verdict {
    let gates: BTreeMap<String, bool> = serde_json::from_str(gates).unwrap_or_default();
    let is_served = gates.get("AllowServiceExternalIPs");
    match is_served {
        Some(true) => Verdict::Honoured(vec![("external-ips", "true".to_owned())]),
        Some(false) if gates.len() == 1 => Verdict::Default,
        _ => Verdict::NoMeaning(NO_GATES),
    }
}

/// klog's levels: from 4 on they are for debugging.
fn verbosity(level: &str) -> Verdict {
    let level = match level.parse::<u32>() {
        Ok(0..=3) => return Verdict::Default,
        Ok(4..=7) => "debug",
        _ => "trace",
    };
    Verdict::Honoured(vec![("log-level", level.to_owned())])
}
