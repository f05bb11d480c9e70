use std::path::Path;

use super::*;

fn words(words: &[&str]) -> CommandLine {
    CommandLine(words.iter().map(OsString::from).collect())
}

fn load(given: &[&str], text: &str) -> Result<Settings, String> {
    Settings::with_file(&words(given), Path::new("f.yaml"), text)
        .map_err(|BadConfiguration(reason)| reason)
}

#[test]
fn a_file_says_what_the_flags_would() {
    let cases: [(&str, &[&str]); 9] = [
        ("", &[]),
        ("{}\n", &[]),
        ("# nothing\n---\n", &[]),
        (
            "dns-ttl: 7\nupstream: [192.0.2.1, '192.0.2.2:54']\n",
            &["--dns-ttl=7", "--upstream=192.0.2.1,192.0.2.2:54"],
        ),
        (
            "upstream: 192.0.2.1\nhealthz-listen: ''\n",
            &["--upstream=192.0.2.1", "--healthz-listen="],
        ),
        ("dns: false\nno-proxy: true\nno-ingress: false\n", &["--no-dns", "--no-proxy"]),
        ("watch-ingress-without-class: true\n", &["--watch-ingress-without-class"]),
        ("log-level: info,fairlead_dns=debug\n", &["--log-level=info,fairlead_dns=debug"]),
        ("cluster-domain:\nnode-name: no\n", &["--node-name=no"]),
    ];
    for (text, flags) in cases {
        let by_file = load(&[], text).unwrap_or_else(|reason| panic!("{text:?}: {reason}"));
        let by_flags = Settings::load(&words(flags), None).unwrap();
        assert_eq!(by_file.values, by_flags.values, "{text:?}");
    }
}

#[test]
fn the_command_line_wins_over_the_file() {
    for (given, text, key, value) in [
        ("--dns-ttl=9", "dns-ttl: 7", "dns-ttl", Some("9")),
        ("--dns-ttl=30", "dns-ttl: 7", "dns-ttl", Some("30")),
        ("--upstream=192.0.2.9", "upstream: [192.0.2.1]", "upstream", Some("192.0.2.9")),
        ("--dns", "no-dns: true", "no-dns", None),
        ("--no-dns", "dns: true", "dns", None),
        ("--manifests=/m", "kubeconfig: /k", "kubeconfig", None),
        ("--kubeconfig=/k", "manifests: /m", "manifests", None),
        ("--publish-address=192.0.2.1", "publish-service: a/b", "publish-service", None),
        ("--publish-service=a/b", "publish-address: 192.0.2.1", "publish-address", None),
    ] {
        let settings = load(&[given], text).unwrap();
        assert_eq!(settings.values.get(key).map(String::as_str), value, "{given} {text}");
    }
}

#[test]
fn what_the_command_line_says_twice_is_what_it_says_last_and_lists_add_up() {
    let twice = [
        "--healthz-listen=127.0.0.1:1",
        "--healthz-listen=127.0.0.1:2",
        "--external-ips",
        "--external-ips",
        "--web-host=a",
        "--web-host=b",
    ];
    let args = load(&twice, "").unwrap().args;
    assert_eq!(args.admin.healthz_listen.0, Some("127.0.0.1:2".parse().unwrap()));
    assert!(args.proxy.external_ips);
    assert_eq!(args.admin.web_host, ["a", "b"]);
}

#[test]
fn a_wrong_file_is_refused_with_line_key_and_what_is_right() {
    for (text, parts) in [
        ("\ndns-tll: 7\n", ["f.yaml:2:", "\"dns-tll\"", "\"dns-ttl\""]),
        ("dns_ttl: 7\n", ["f.yaml:1:", "\"dns_ttl\"", "\"dns-ttl\""]),
        ("frobnicate: 7\n", ["f.yaml:1:", "\"frobnicate\"", "--help"]),
        ("dns-ttl: soon\n", ["f.yaml:1:", "dns-ttl: \"soon\"", "invalid digit"]),
        ("# c\ndns-ttl: [1, 2]\n", ["f.yaml:2:", "dns-ttl", "one value"]),
        ("dns-ttl: {a: 1}\n", ["f.yaml:1:", "dns-ttl", "not a structure"]),
        ("dns: maybe\n", ["f.yaml:1:", "dns", "true or false"]),
        ("upstream: [dns.example]\n", ["f.yaml:1:", "dns.example", "IP address"]),
        ("log-level: loud\n", ["f.yaml:1:", "loud", "debug"]),
        ("log-format: xml\n", ["f.yaml:1:", "xml", "text, json"]),
        ("config: other.yaml\n", ["f.yaml:1:", "config", "another"]),
        ("dns-ttl: 7\ndns-ttl: 8\n", ["f.yaml:2:", "duplicate", "dns-ttl"]),
        ("- dns-ttl\n", ["f.yaml:1:", "", ""]),
        ("dns-ttl: [\n", ["f.yaml:", "", ""]),
        ("manifests: /m\nkubeconfig: /k\n", ["f.yaml:", "--manifests", "--kubeconfig"]),
    ] {
        let reason = load(&[], text).expect_err(text);
        for part in parts {
            assert!(reason.contains(part), "{text:?}: {reason}");
        }
        assert!(!reason.contains('\n'), "{reason}");
    }
}

#[test]
fn every_live_key_is_a_flag() {
    let command = command();
    for key in LIVE {
        assert!(keys(&command).any(|arg| arg.get_long() == Some(key)), "{key}");
    }
}

#[test]
fn the_summary_has_defaults_and_what_was_set() {
    let summary = load(&[], "dns-ttl: 7").unwrap().summary();
    for part in ["dns-ttl=7", "cluster-domain=cluster.local", "dns-listen=0.0.0.0:53,[::]:53"] {
        assert!(summary.contains(part), "{summary}");
    }
}

const KUBE_PROXY: &str =
    "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

fn load_drop_in(given: &[&str], text: &str) -> Result<Settings, String> {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("config.conf");
    fs::write(&file, format!("{KUBE_PROXY}{text}\n")).unwrap();
    let flag = format!("--kube-proxy-config={}", file.display());
    let given: Vec<&str> = given.iter().copied().chain([flag.as_str()]).collect();
    Settings::load(&words(&given), None).map_err(|BadConfiguration(reason)| reason)
}

#[test]
fn kube_proxys_file_gives_way_to_flags_and_to_the_own_file() {
    for (given, text, key, value) in [
        (None, "iptables: {masqueradeAll: true}", "masquerade-all", Some("true")),
        (
            None,
            "nodePortAddresses: [10.0.0.0/8, localhost]",
            "nodeport-addresses",
            Some("10.0.0.0/8,localhost"),
        ),
        (None, "oomScoreAdj: -999", "oom-score-adj", Some("-999")),
        (None, "conntrack: {udpTimeout: 1m}", "conntrack-udp-timeout", Some("1m")),
        (None, "hostnameOverride: a", "node-name", Some("a")),
        (Some("--node-name=b"), "hostnameOverride: a", "node-name", Some("b")),
        (Some("--manifests=/m"), "clientConnection: {kubeconfig: /k}", "kubeconfig", None),
        (Some("--healthz-listen="), "healthzBindAddress: 192.0.2.1", "healthz-listen", Some("")),
    ] {
        let given: Vec<&str> = given.into_iter().collect();
        let settings = load_drop_in(&given, text).unwrap_or_else(|reason| panic!("{reason}"));
        assert_eq!(settings.values.get(key).map(String::as_str), value, "{given:?} {text}");
    }
}

#[test]
fn a_wrong_field_of_kube_proxys_file_is_refused_naming_file_field_and_cure() {
    let reason = load_drop_in(&[], "oomScoreAdj: 5000").unwrap_err();
    for part in ["config.conf: oomScoreAdj: 5000:", "from -1000 to 1000"] {
        assert!(reason.contains(part), "{reason}");
    }
    let missing = Settings::load(&words(&["--kube-proxy-config=/nonexistent"]), None).unwrap_err();
    assert!(missing.0.contains("--kube-proxy-config /nonexistent: No such file"), "{missing}");
}

#[test]
fn two_settings_that_name_one_port_are_refused() {
    for (flags, expected) in [
        (&["--http-listen=0.0.0.0:80", "--https-listen=0.0.0.0:80"][..], Some("0.0.0.0:80")),
        (&["--http-listen=127.0.0.1:443"], Some("127.0.0.1:443 and --https-listen 0.0.0.0:443")),
        (&["--http-listen=127.0.0.1:53"], Some("--dns-listen 0.0.0.0:53 and --http-listen")),
        (&["--http-listen=[::1]:8080,[::1]:8080"], Some("[::1]:8080")),
        (&["--metrics-listen=127.0.0.1:10256"], Some("--healthz-listen 0.0.0.0:10256 and")),
        (&["--http-listen=[::1]:10256"], Some("--healthz-listen [::]:10256 and --http-listen")),
        (
            &["--web-listen=[::]:80", "--http-listen=0.0.0.0:80"],
            Some("--web-listen 0.0.0.0:80 and --http-listen"),
        ),
        (&["--http-listen=127.0.0.1:53", "--no-dns"], None),
        (&["--http-listen=127.0.0.1:53", "--no-ingress"], None),
        (&["--http-listen=127.0.0.1:0", "--https-listen=127.0.0.1:0"], None),
        (&["--http-listen=127.0.0.1:8080", "--https-listen=127.0.0.2:8080"], None),
        (&["--http-listen=0.0.0.0:8080,[::]:8080"], None),
        (&[], None),
    ] {
        let seen = Settings::load(&words(flags), None).map_err(|BadConfiguration(why)| why);
        match (&seen, expected) {
            (Ok(_), None) => {}
            (Err(why), Some(part)) => {
                assert!(why.contains(part) && why.contains("are one port"), "{flags:?}: {why}");
            }
            (seen, _) => panic!("{flags:?}: {:?}", seen.as_ref().err()),
        }
    }
}
