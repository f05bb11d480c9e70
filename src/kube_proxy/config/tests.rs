use super::*;

/// As `kubeadm init` writes it, with a pod network.
pub(crate) const KUBEADM: &str = r#"apiVersion: kubeproxy.config.k8s.io/v1alpha1
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16,fd00:10:244::/56
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
kind: KubeProxyConfiguration
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
"#;

fn read_fields(text: &str) -> Report {
    read(&format!("apiVersion: {API_VERSION}\nkind: {KIND}\n{text}\n")).unwrap()
}

fn flags(text: &str) -> Vec<String> {
    let report = read_fields(text);
    assert_eq!(report.refusal(), None, "{text}");
    report.flags().map(|(flag, value)| format!("--{flag}={value}")).collect()
}

#[test]
fn kubeadms_file_is_taken_as_it_is() {
    let report = read(KUBEADM).unwrap();
    assert_eq!(report.refusal(), None);
    let kubeconfig = ("kubeconfig", "/var/lib/kube-proxy/kubeconfig.conf");
    assert_eq!(report.flags().collect::<Vec<_>>(), [kubeconfig]);
    let warning = report.without_meaning().unwrap();
    assert!(warning.starts_with("clusterCIDR: \"10.244.0.0/16,"), "{warning}");
    assert!(!warning.contains("; "), "the only one: {warning}");
    for known in FIELDS {
        let inside = |field: &Field| {
            field.path == known.path || known.path.starts_with(&format!("{}.", field.path))
        };
        let is_optional = matches!(
            known.path,
            "featureGates"
                | "logging.format"
                | "logging.vmodule"
                | "resourceContainer"
                | "udpIdleTimeout"
                | "windowsRunAsService"
        );
        assert!(is_optional || report.fields.iter().any(inside), "{} is not judged", known.path);
    }
}

/// kube-proxy starts with both: sigs.k8s.io/yaml reads YAML 1.1, and what only its strict reading refuses is a
/// line in the log (cmd/kube-proxy/app/options.go). Here the agent ended with 64.
#[test]
fn bug_words_for_booleans_and_a_key_that_stands_twice_ended_the_start() {
    for (text, expected) in [
        ("iptables: {masqueradeAll: yes}", &["--masquerade-all=true"][..]),
        ("iptables: {masqueradeAll: On}", &["--masquerade-all=true"]),
        ("iptables: {masqueradeAll: no}", &[]),
        ("bindAddressHardFail: true\nbindAddressHardFail: false", &[]),
        ("iptables: {masqueradeAll: true}\niptables: {syncPeriod: 30s}", &[]),
        (
            "healthzBindAddress: '[::]:1'\nmode: ipvs\nhealthzBindAddress: '[::]:2'",
            &["--healthz-listen=[::]:2"],
        ),
    ] {
        assert_eq!(flags(text), expected, "{text}");
    }
    assert_eq!(read_fields("mode: ipvs").twice, None);
    let twice = read_fields("mode: ipvs\noomScoreAdj: -999\nmode: iptables").twice;
    assert_eq!(twice.unwrap(), "line 5: mode stands there twice: the last one counts");
}

#[test]
fn what_has_a_meaning_is_the_value_of_a_flag() {
    for (text, expected) in [
        ("hostnameOverride: ' Node-1 '", &["--node-name=node-1"][..]),
        (
            "nodePortAddresses: [10.0.0.0/8, 'fd00::/8']",
            &["--nodeport-addresses=10.0.0.0/8,fd00::/8"],
        ),
        ("nodePortAddresses: [primary]", &["--nodeport-addresses=primary"]),
        (
            "nodePortAddresses: [primary, localhost, 10.0.0.0/8]",
            &["--nodeport-addresses=primary,localhost,10.0.0.0/8"],
        ),
        ("nodePortAddresses: []", &[]),
        ("mode: nftables", &["--nodeport-addresses=primary"]),
        ("mode: nftables\nnodePortAddresses: [all]", &["--nodeport-addresses=all"]),
        ("mode: ipvs", &[]),
        ("healthzBindAddress: 192.0.2.1", &["--healthz-listen=192.0.2.1:10256"]),
        ("healthzBindAddress: '[::]:1'", &["--healthz-listen=[::]:1"]),
        ("metricsBindAddress: 0.0.0.0:10249", &["--metrics-listen=0.0.0.0:10249"]),
        ("bindAddress: '::'", &["--healthz-listen=[::]:10256", "--metrics-listen=[::1]:10249"]),
        (
            "bindAddress: '::'\nmetricsBindAddress: '::'",
            &["--healthz-listen=[::]:10256", "--metrics-listen=[::]:10249"],
        ),
        ("bindAddressHardFail: true", &["--bind-address-hard-fail=true"]),
        ("featureGates: {AllowServiceExternalIPs: true, A: true}", &["--external-ips=true"]),
        ("featureGates: {AllowServiceExternalIPs: false}", &[]),
        ("iptables: {masqueradeAll: true}", &["--masquerade-all=true"]),
        ("mode: ipvs\niptables: {masqueradeAll: true}", &["--masquerade-all=true"]),
        ("mode: iptables\nnftables: {masqueradeAll: true}", &[]),
        ("oomScoreAdj: -999", &["--oom-score-adj=-999"]),
        ("oomScoreAdj: 0", &["--oom-score-adj=0"]),
        ("logging: {format: json, verbosity: 3}", &["--log-format=json"]),
        ("logging: {verbosity: 5}", &["--log-level=debug"]),
        ("logging: {verbosity: 9}", &["--log-level=trace"]),
        (
            "conntrack: {maxPerCore: 0, min: 7, tcpBeLiberal: true}",
            &["--conntrack-max-per-core=0", "--conntrack-min=7", "--conntrack-tcp-be-liberal=true"],
        ),
        (
            "conntrack: {tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 1h0m0s}",
            &[
                "--conntrack-tcp-timeout-close-wait=1h0m0s",
                "--conntrack-tcp-timeout-established=0s",
            ],
        ),
        (
            "conntrack: {udpTimeout: 30s, udpStreamTimeout: 3m}",
            &["--conntrack-udp-timeout-stream=3m", "--conntrack-udp-timeout=30s"],
        ),
    ] {
        assert_eq!(flags(text), expected, "{text}");
    }
}

#[test]
fn what_has_none_is_named_with_the_reason() {
    for (text, path, why) in [
        ("mode: iptables", "mode", "eBPF"),
        ("bindAddress: 192.0.2.1", "bindAddress", "rtnetlink"),
        ("featureGates: {A: true}", "featureGates", "kube-proxy's"),
        ("featureGates: {AllowServiceExternalIPs: false, A: true}", "featureGates", "kube-proxy's"),
        ("udpIdleTimeout: 1s", "udpIdleTimeout", "no longer"),
        ("resourceContainer: /kube-proxy", "resourceContainer", "no longer"),
        ("clientConnection: {qps: 5.5}", "clientConnection.qps", "watches"),
        ("ipvs: {scheduler: rr}", "ipvs.scheduler", "random"),
        ("ipvs: {excludeCIDRs: [10.0.0.0/8]}", "ipvs.excludeCIDRs", "no IPVS"),
        ("iptables: {localhostNodePorts: false}", "iptables.localhostNodePorts", "[primary]"),
        ("iptables: {masqueradeBit: 0}", "iptables.masqueradeBit", "not marked"),
        ("nftables: {syncPeriod: 1m}", "nftables.syncPeriod", "at once"),
        ("detectLocalMode: NodeCIDR", "detectLocalMode", "device"),
        ("detectLocal: {bridgeInterface: cni0}", "detectLocal.bridgeInterface", "device"),
        ("showHiddenMetricsForVersion: '1.36'", "showHiddenMetricsForVersion", "hidden"),
        ("mode: nftables\niptables: {masqueradeAll: true}", "iptables.masqueradeAll", "mode"),
        ("logging: {flushFrequency: 5s}", "logging.flushFrequency", "at once"),
        ("winkernel: {enableDSR: true}", "winkernel.enableDSR", "Windows"),
    ] {
        let report = read_fields(text);
        let warning = report.without_meaning().unwrap_or_default();
        assert!(warning.starts_with(&format!("{path}: ")) && warning.contains(why), "{warning}");
        assert_eq!(report.refusal(), None, "{text}");
    }
    // kube-proxy's own defaults say nothing.
    for text in [
        "iptables: {syncPeriod: 30s, masqueradeBit: 14}",
        "configSyncPeriod: 15m0s",
        // As older kubeadm wrote them.
        "udpIdleTimeout: 0s",
        "udpIdleTimeout: 250ms",
        "resourceContainer: ''",
        "featureGates: {AllowServiceExternalIPs: false}",
    ] {
        assert_eq!(read_fields(text).without_meaning(), None, "{text}");
    }
}

/// A newer kubeadm's file ended the start of every node.
#[test]
fn bug_a_field_that_is_not_known_is_passed_over_with_what_it_may_mean() {
    for (text, parts) in [
        ("modes: iptables", ["modes: passed over", "is no field"]),
        ("nodeportaddresses: []", ["nodeportaddresses:", "did you mean nodePortAddresses?"]),
        ("conntrack: {max: 1}", ["conntrack.max:", "maxPerCore, min"]),
        ("masqueradeAll: true", ["masqueradeAll:", "iptables.masqueradeAll?"]),
        ("\"line\\nbreak\": 1", ["line\\nbreak:", "no field"]),
    ] {
        let report = read_fields(text);
        assert_eq!((report.refusal(), report.flags().count()), (None, 0), "{text}");
        let warning = report.without_meaning().unwrap_or_default();
        assert!(parts.iter().all(|part| warning.contains(part)), "{text}: {warning}");
        assert!(!warning.contains('\n'), "{warning}");
    }
}

#[test]
fn a_wrong_field_is_refused_with_what_is_right() {
    for (text, parts) in [
        ("conntrack: 1", ["conntrack:", "is a section"]),
        ("mode: userspace", ["mode:", "iptables, ipvs, nftables"]),
        ("bindAddress: eth0", ["bindAddress:", "IP address"]),
        ("bindAddressHardFail: maybe", ["bindAddressHardFail:", "true or false"]),
        ("healthzBindAddress: ':10256'", ["healthzBindAddress:", "IP:PORT"]),
        ("healthzBindAddress: '0.0.0.0:0'", ["healthzBindAddress:", "IP:PORT"]),
        ("metricsBindAddress: 10249", ["metricsBindAddress:", "IP:PORT"]),
        ("nodePortAddresses: [10.0.0.1]", ["nodePortAddresses:", "address ranges"]),
        ("nodePortAddresses: 10.0.0.0/8", ["nodePortAddresses:", "list"]),
        ("clusterCIDR: 10.0.0.0/8,x", ["clusterCIDR:", "address range"]),
        ("oomScoreAdj: 2000", ["oomScoreAdj:", "from -1000 to 1000"]),
        ("oomScoreAdj: '1'", ["oomScoreAdj:", "whole number"]),
        ("conntrack: {min: -1}", ["conntrack.min:", "at least 0"]),
        ("conntrack: {udpTimeout: 30}", ["conntrack.udpTimeout:", "24h"]),
        ("conntrack: {udpTimeout: soon}", ["conntrack.udpTimeout:", "24h"]),
        ("iptables: {masqueradeBit: 32}", ["iptables.masqueradeBit:", "from 0 to 31"]),
        ("iptables: {localhostNodePorts: 1}", ["iptables.localhostNodePorts:", "true or false"]),
        ("detectLocalMode: Cluster", ["detectLocalMode:", "ClusterCIDR, NodeCIDR"]),
        ("featureGates: {A: 1}", ["featureGates:", "true or false"]),
        ("logging: {format: xml}", ["logging.format:", "text, json"]),
        ("showHiddenMetricsForVersion: latest", ["showHiddenMetricsForVersion:", "1.36"]),
        ("ipvs: {excludeCIDRs: [a]}", ["ipvs.excludeCIDRs:", "10.0.0.0/8"]),
        ("hostnameOverride: \"a\\nb\"", ["hostnameOverride:", "one line"]),
    ] {
        let reason = read_fields(text).refusal().unwrap_or_else(|| panic!("{text} is taken"));
        assert!(parts.iter().all(|part| reason.contains(part)), "{text}: {reason}");
        assert!(!reason.contains('\n'), "{reason}");
    }
}

#[test]
fn another_kind_of_file_is_refused_as_a_whole() {
    for (text, part) in [
        ("", "no mapping"),
        ("[]", "no mapping"),
        ("a: [", ""),
        ("apiVersion: v1\nkind: ConfigMap\ndata: {config.conf: ''}", "config.conf"),
        ("apiVersion: kubeproxy.config.k8s.io/v1beta1\nkind: KubeProxyConfiguration", "v1alpha1"),
        ("kind: KubeletConfiguration", "KubeletConfiguration"),
    ] {
        let reason = read(text).expect_err(text);
        assert!(reason.contains(part) && !reason.contains('\n'), "{text}: {reason}");
    }
}

#[test]
fn the_documentation_has_a_row_for_every_field_and_the_flag_it_becomes() {
    let documentation = include_str!("../../../docs/kube-proxy.md");
    for field in FIELDS {
        let named = format!("`{}`", field.path);
        let is_its_row = |line: &&str| line.split('|').nth(1).is_some_and(|c| c.contains(&named));
        let row = documentation.lines().find(is_its_row);
        let row = row.unwrap_or_else(|| panic!("docs/kube-proxy.md: no row for {}", field.path));
        if let Meaning::Flag(flag) = field.meaning {
            assert!(row.contains(&format!("`--{flag}`")), "{row}");
        }
    }
}
