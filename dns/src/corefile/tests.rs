//! Corefiles as people have them, and what is said about those that are wrong.

use std::time::Duration;

use super::*;

/// kubeadm's, word for word (cmd/kubeadm/app/phases/addons/dns/manifests.go).
const KUBEADM: &str = "\
.:53 {
    errors
    health {
       lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
       pods insecure
       fallthrough in-addr.arpa ip6.arpa
       ttl 30
    }
    prometheus :9153
    forward . /etc/resolv.conf {
       max_concurrent 1000
    }
    cache 30 {
       disable success cluster.local
       disable denial cluster.local
    }
    loop
    reload
    loadbalance
}
";

fn parse(text: &str) -> Result<Corefile, CorefileError> {
    let environment = |name: &str| (name == "UPSTREAM").then(|| "10.9.9.9".to_owned());
    Corefile::parse(Path::new("Corefile"), text, &environment)
}

#[test]
fn kubeadms_corefile_is_read_word_for_word() {
    let corefile = parse(KUBEADM).unwrap();
    let [block] = &corefile.blocks[..] else { panic!("{corefile:?}") };
    assert_eq!(block.zones, [ZoneAt { zone: ".".to_owned(), port: 53 }]);
    assert!(block.errors && block.detect_loops && block.rotate && block.logs.is_empty());
    let health = corefile.health().unwrap();
    assert_eq!(
        (health.address.to_string().as_str(), health.lameduck.as_secs()),
        ("0.0.0.0:8080", 5)
    );
    assert_eq!(corefile.ready().unwrap().to_string(), "0.0.0.0:8181");
    assert_eq!(corefile.prometheus().unwrap().to_string(), "0.0.0.0:9153");
    assert_eq!(corefile.reload(), Some(Duration::from_secs(30)));
    let kubernetes = corefile.kubernetes().unwrap();
    assert_eq!(kubernetes.domain.as_deref(), Some("cluster.local"));
    assert_eq!(kubernetes.reverse_zones, ["in-addr.arpa", "ip6.arpa"]);
    assert_eq!((kubernetes.pods, kubernetes.ttl_seconds), (Pods::Insecure, 30));
    let wanted = ["in-addr.arpa", "ip6.arpa"].map(str::to_owned).to_vec();
    assert_eq!(kubernetes.fallthrough, Fallthrough::In(wanted));
    let [forward] = &block.forwards[..] else { panic!("{block:?}") };
    assert_eq!(forward.to, [To::File("/etc/resolv.conf".into())]);
    assert_eq!((forward.from.as_str(), forward.max_concurrent), (".", Some(1000)));
    let cache = block.cache.as_ref().unwrap();
    assert_eq!((cache.success.max_ttl_seconds, cache.denial.max_ttl_seconds), (30, 30));
    assert_eq!(
        (&cache.no_success[..], &cache.no_denial[..]),
        (&["cluster.local".to_owned()][..], &["cluster.local".to_owned()][..])
    );
}

#[test]
fn words_quotes_comments_and_variables() {
    let text = "# my own\n(upstreams) {\n  forward . {$UPSTREAM} {%UPSTREAM%}:5353 # both\n}\n\
                .:53, example.org:5300 {\n  import upstreams\n  health { lameduck \"1m\" }\n}\n";
    let corefile = parse(text).unwrap();
    let block = &corefile.blocks[0];
    assert_eq!(block.zones.iter().map(|z| z.port).collect::<Vec<_>>(), [53, 5300]);
    let to = ["10.9.9.9:53", "10.9.9.9:5353"].map(|a| To::Server(a.parse().unwrap()));
    assert_eq!(block.forwards[0].to, to);
    assert_eq!(corefile.health().unwrap().lameduck, Duration::from_secs(60));
    // One block alone may do without braces.
    let bare = parse("example.org\nforward . 10.0.0.1\ncache\n").unwrap();
    assert!(bare.blocks[0].cache.is_some());
}

/// AXFR was one, IXFR was none: hickory reads fewer names than it writes.
#[test]
fn types_have_every_name_that_coredns_knows() {
    let corefile = parse(".:53 {\n acl {\n block type AXFR IXFR loc TYPE65280 net *\n }\n}\n");
    let [block] = &corefile.unwrap().blocks[..] else { panic!("one block") };
    assert_eq!(block.acl[0].types, [252, 251, 29, 65280]);
}

/// CoreDNS's `*` stands for all types, or clients, whatever else is named; a rule that blocks all of them must not
/// be read as one for some.
#[test]
fn a_star_in_acl_is_everything_whatever_stands_beside_it() {
    let rows: [(&str, &[u16], &[&str]); 9] = [
        ("block", &[], &[]),
        ("block type * net *", &[], &[]),
        ("block type A * net * 10.0.0.0/8", &[], &[]),
        ("block net 10.0.0.0/8 * type * A", &[], &[]),
        ("block type * type A net 10.0.0.0/8 net *", &[], &[]),
        ("block type A * net 10.0.0.0/8", &[], &["10.0.0.0/8"]),
        ("block net 10.0.0.0/8 * type A AAAA", &[1, 28], &[]),
        ("block type A net 10.0.0.1 type AAAA net ::1", &[1, 28], &["10.0.0.1/32", "::1/128"]),
        // CoreDNS reads no further.
        ("block type * nope net * nope", &[], &[]),
    ];
    for (rule, types, sources) in rows {
        let corefile = parse(&format!(".:53 {{\n acl {{\n {rule}\n }}\n}}\n")).unwrap();
        let [read] = &corefile.blocks[0].acl[..] else { panic!("one rule") };
        let sources: Vec<_> = sources.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!((&read.types[..], &read.sources[..]), (types, &sources[..]), "{rule}");
    }
}

#[test]
fn what_changes_nothing_here_is_accepted() {
    let text =
        ".:53 {\n debug\n shed\n metadata\n multisocket 4\n cancel 5s\n forward . 10.0.0.1\n}\n";
    let [block] = &parse(text).unwrap().blocks[..] else { panic!("one block") };
    let plain = parse(".:53 {\n forward . 10.0.0.1\n}\n").unwrap();
    let plugins = block.plugins.clone();
    assert_eq!(plugins, ["metadata", "cancel", "forward"], "of those that could have a say");
    assert_eq!(*block, ServerBlock { plugins, ..plain.blocks[0].clone() });
    let options = [
        ("prometheus :9153", "runtime_metrics"),
        ("kubernetes cluster.local", "startup_timeout 5s"),
        ("kubernetes cluster.local", "apiserver_qps 5"),
        ("kubernetes cluster.local", "apiserver_burst 5"),
        ("kubernetes cluster.local", "apiserver_max_inflight 5"),
        ("forward . 10.0.0.1", "expire 10s"),
        ("forward . 10.0.0.1", "max_age 10s"),
        ("forward . 10.0.0.1", "max_idle_conns 5"),
        ("forward . 10.0.0.1", "max_connect_attempts 5"),
        ("forward . 10.0.0.1", "prefer_udp"),
        ("errors", "stacktrace"),
    ];
    for (plugin, option) in options {
        let with = parse(&format!(".:53 {{\n {plugin} {{\n  {option}\n }}\n}}\n"));
        assert_eq!(with, parse(&format!(".:53 {{\n {plugin}\n}}\n")), "{option}");
    }
}

#[test]
fn upstreams_over_tls_have_a_port_and_a_name() {
    let text = ".:53 {\n forward . tls://9.9.9.9 tls://[2620:fe::fe]:8853%dns.quad9.net https://9.9.9.9 \
                https://[2620:fe::fe]:8443%dns.quad9.net 10.0.0.1 tls://9.9.9.10%dns.quad9.net:10853 \
                tls://[2620:fe::10%dns.quad9.net]:10853 tls://[2620:fe::11%dns.quad9.net] {\n \
                tls /cert /key /ca\n doh_method POST\n }\n}\n";
    let corefile = parse(text).unwrap();
    let forward = &corefile.blocks[0].forwards[0];
    let tls = |address: &str, name: Option<&str>, https| To::Tls {
        address: address.parse().unwrap(),
        name: name.map(str::to_owned),
        https,
    };
    assert_eq!(
        forward.to,
        [
            tls("9.9.9.9:853", None, false),
            tls("[2620:fe::fe]:8853", Some("dns.quad9.net"), false),
            tls("9.9.9.9:443", None, true),
            tls("[2620:fe::fe]:8443", Some("dns.quad9.net"), true),
            To::Server("10.0.0.1:53".parse().unwrap()),
            // As CoreDNS's README writes it.
            tls("9.9.9.10:10853", Some("dns.quad9.net"), false),
            tls("[2620:fe::10]:10853", Some("dns.quad9.net"), false),
            tls("[2620:fe::11]:853", Some("dns.quad9.net"), false),
        ]
    );
    assert_eq!(forward.tls.client, Some(("/cert".into(), "/key".into())));
    assert_eq!(forward.tls.authorities, Some("/ca".into()));
}

/// Read by caddyfile/lexer.go.
#[test]
fn words_are_split_as_caddy_splits_them() {
    let rows: [(&str, &[&str]); 10] = [
        ("a # b", &["a"]),
        ("a#b c\nd", &["a", "c", "d"]),
        ("a# b", &["a", "b"]),
        ("\"a#b\" c", &["a#b", "c"]),
        ("a\"b c", &["a\"b", "c"]),
        ("\"a\"b", &["a", "b"]),
        (r#""a \" b" c"#, &[r#"a " b"#, "c"]),
        (r#""a\\" b"#, &[r"a\\", "b"]),
        (r#""a\\\" b" c"#, &[r#"a\\" b"#, "c"]),
        (r#""\d" \""#, &[r"\d", r#"\""#]),
    ];
    for (text, wanted) in rows {
        let words = tokens::tokens(&"Corefile".into(), text, &|_| None).unwrap();
        let words: Vec<_> = words.iter().map(|word| word.text.as_str()).collect();
        assert_eq!(words, wanted, "{text}");
    }
}

#[test]
fn serve_stale_is_read_as_coredns_reads_it() {
    let seconds = Duration::from_secs;
    let none = Duration::ZERO;
    for (words, period, verify, verify_timeout, ttl_seconds, failure_recheck) in [
        ("", 3600, false, none, 0, none),
        ("2h", 7200, false, none, 0, none),
        ("1h immediate", 3600, false, none, 0, none),
        ("1h immediate 30s 20s", 3600, false, none, 30, seconds(20)),
        ("verify", 3600, true, none, 0, seconds(30)),
        ("1h verify 100ms", 3600, true, Duration::from_millis(100), 0, seconds(30)),
        ("1h verify 0 30s", 3600, true, none, 30, seconds(30)),
        ("1h verify 0 30s 0", 3600, true, none, 30, none),
    ] {
        let corefile = parse(&format!(".:53 {{\n cache {{\n serve_stale {words}\n }}\n}}\n"));
        let wanted =
            Stale { period: seconds(period), verify, verify_timeout, ttl_seconds, failure_recheck };
        assert_eq!(
            corefile.unwrap().blocks[0].cache.as_ref().unwrap().stale,
            Some(wanted),
            "{words}"
        );
    }
}

#[test]
fn bind_takes_addresses_and_those_of_interfaces_each_once() {
    let bound = |lines: &str| {
        let corefile = parse(&format!(".:53 {{\n{lines}\n}}\n")).unwrap();
        corefile.blocks[0].bind.clone()
    };
    let [v4, v6] = ["127.0.0.1", "::1"].map(|text| text.parse::<IpAddr>().unwrap());
    assert_eq!(bound("bind 127.0.0.1\nbind ::1 127.0.0.1"), [v4, v6]);
    let all = bound("bind lo 127.0.0.1");
    assert_eq!(all.iter().filter(|address| **address == v4).count(), 1, "{all:?}");
    let without = bound("bind lo ::1 {\n except ::1\n}");
    assert!(without.contains(&v4) && !without.contains(&v6), "{without:?}");
}

#[test]
fn loadbalance_is_read_as_coredns_reads_it() {
    let weighted = |reload| {
        let reload = Some(Duration::from_secs(reload)).filter(|reload| !reload.is_zero());
        Some(WeightOptions { file: "/run/weights".into(), reload })
    };
    for (line, rotate, weights) in [
        ("errors", false, None),
        ("loadbalance", true, None),
        ("loadbalance round_robin", true, None),
        ("loadbalance weighted /run/weights", false, weighted(30)),
        ("loadbalance weighted /run/weights {\n reload 10s\n}", false, weighted(10)),
        ("loadbalance weighted /run/weights {\n reload 0s\n}", false, weighted(0)),
    ] {
        let corefile = parse(&format!(".:53 {{\n {line}\n}}\n")).unwrap();
        let block = &corefile.blocks[0];
        assert_eq!((block.rotate, &block.weights), (rotate, &weights), "{line}");
    }
}

#[test]
fn hosts_reads_the_machine_s_file_beside_its_own_lines_unless_another_is_named() {
    for (line, file) in [
        ("hosts", "/etc/hosts"),
        ("hosts {\n 192.0.2.1 a.test\n }", "/etc/hosts"),
        ("hosts /run/hosts {\n 192.0.2.1 a.test\n }", "/run/hosts"),
    ] {
        let corefile = parse(&format!(".:53 {{\n {line}\n}}\n")).unwrap();
        let hosts = corefile.blocks[0].hosts.as_ref().unwrap();
        assert_eq!(hosts.file, Path::new(file), "{line}");
    }
}

#[test]
fn what_is_wrong_is_said_with_its_line_and_cure() {
    let block = |lines: &str| format!(".:53 {{\n{lines}\n}}\n");
    let cases = [
        (String::new(), 0, "no server block"),
        (block("nosuch"), 2, "no plugin \"nosuch\""),
        (block("shed 1024"), 2, "too much"),
        (block("shed {\n depth 1\n}"), 3, "takes no option"),
        (block("dynupdate"), 2, "dynupdate is not served here"),
        (block("errors\ndnssec"), 3, "dnssec is not served here"),
        (block("forward ."), 2, "a value is missing"),
        (block("forward . example.org"), 2, "neither an IP address nor a file"),
        (block("forward . quic://9.9.9.9"), 2, "quic upstreams are not served"),
        (block("forward . https://9.9.9.9/dns-query"), 2, "has no path"),
        (block("forward . https://[2620:fe::fe]"), 2, "needs tls_servername"),
        (block("forward . https://9.9.9.9 {\n doh_method GET\n}"), 3, "only POST"),
        (block("forward . tls://dns.example"), 2, "neither an IP address"),
        (block("forward . tls://9.9.9.9 {\n tls a b c d\n}"), 3, "too much"),
        (block("forward . tls://9.9.9.9 {\n tls_servername a..b\n}"), 3, "no server's name"),
        (block("forward . tls://9.9.9.9%a.b {\n tls_servername a.b\n}"), 2, "keep one"),
        (block("forward . tls://9.9.9.9:443 https://9.9.9.9"), 2, "asked in two ways"),
        (block("forward . 10.0.0.1 {\n next\n}"), 3, "a value is missing"),
        (block("forward . 10.0.0.1 {\n next NOSUCHCODE\n}"), 3, "give NOERROR"),
        (block("forward . 10.0.0.1 {\n next_on_nodata all\n}"), 3, "too much"),
        (block("forward . 10.0.0.1 {\n failover SERVFAIL\n}"), 3, "not served here"),
        (block("dnstap /run/dnstap.sock full"), 2, "plugin dnstap is not served here: remove"),
        (block("kubernetes a.local b.local"), 2, "one cluster domain"),
        (block("kubernetes"), 2, "name the cluster's domain"),
        (block("kubernetes a.local {\n pods certain\n}"), 3, "insecure or verified"),
        (block("kubernetes a.local {\n kubeconfig /x\n}"), 3, "--kubeconfig"),
        (block("kubernetes a.local {\n ttl 4000\n}"), 3, "0 to 3600"),
        (block("kubernetes a.local {\n multicluster set.local\n}"), 2, "name set.local among"),
        (block("kubernetes a.local {\n multicluster\n}"), 3, "a value is missing"),
        (block("kubernetes a.local {\n nope\n}"), 3, "known are pods"),
        (block("kubernetes a.local {\n labels a in b\n}"), 3, "no label selector"),
        (block("kubernetes a.local {\n namespace_labels\n}"), 3, "a value is missing"),
        (block("kubernetes a.local {\n zonal all\n}"), 3, "too much"),
        (block("kubernetes a.local {\n zonal\n noendpoints\n}"), 2, "zonal needs endpoints"),
        (block("kubernetes a.local {\n namespaces a\n namespace_labels b\n}"), 2, "keep one"),
        (block("cache 30 {\n disable all\n}"), 3, "success or denial"),
        (block("cache {\n serve_stale 1h later\n}"), 3, "immediate or verify"),
        (block("cache {\n serve_stale 1h immediate 1500ms\n}"), 3, "whole seconds"),
        (block("cache {\n serve_stale 1h verify 0 1s 6m\n}"), 3, "5m at most"),
        (block("cache {\n serve_stale 1h immediate 1s 1s 1s\n}"), 3, "too much"),
        (block("cache\ncache"), 3, "twice in one server block"),
        (block("health {\n lameduck x\n}"), 3, "no duration"),
        (block("prometheus {\n tls /web.yml\n}"), 3, "remove this line"),
        (block("prometheus {\n nope\n}"), 3, "known are runtime_metrics"),
        (block("prometheus {\n runtime_metrics all\n}"), 3, "too much"),
        (block("reload 1s"), 2, "at least 2s"),
        (block("loadbalance random"), 2, "round_robin or weighted FILE"),
        (block("loadbalance round_robin all"), 2, "round_robin or weighted FILE"),
        (block("loadbalance weighted"), 2, "weighted FILE"),
        (block("loadbalance weighted a b"), 2, "too much"),
        (block("loadbalance weighted a {\n reload\n}"), 3, "a value is missing"),
        (block("loadbalance weighted a {\n reload soon\n}"), 3, "no duration"),
        // As in CoreDNS.
        (block("loadbalance weighted a {\n prefer 10.0.0.0/8\n}"), 3, "known are reload"),
        (block("loadbalance {\n reload 10s\n}"), 3, "known are prefer"),
        // Longer than any interface's name can be.
        (block("bind nosuchinterface0"), 2, "neither an IP address nor an interface"),
        (block("bind 127.0.0.1 {\n except nosuchinterface0\n}"), 3, "neither an IP address"),
        (block("bind 127.0.0.1 {\n except lo\n}"), 2, "leaves no address"),
        (block("bind lo {\n only ::1\n}"), 3, "known are except"),
        (block("log . {\n class noerror\n}"), 3, "success, denial, error or all"),
        (block("log . \"{remote} {/a/b}\""), 2, "{/a/b} is not known here"),
        (block("errors {\n nonsense\n}"), 3, "errors has no option"),
        (block("errors {\n consolidate 5m (\n}"), 3, "no regular expression"),
        (block("acl {\n block net nope\n}"), 3, "ADDRESS/LENGTH"),
        (block("acl {\n block *\n}"), 3, "write `ACTION [type"),
        (block("acl {\n block type\n}"), 3, "missing behind type"),
        (block("acl {\n block type net 10.0.0.0/8\n}"), 3, "missing behind type"),
        (block("acl {\n block type * net\n}"), 3, "missing behind net"),
        (block("forward . 10.0.0.1 {\n health_check 1ms\n}"), 3, "at least 10ms"),
        (block("forward . 10.0.0.1 {\n health_check 1s domain\n}"), 3, "[domain NAME]"),
        (block("rewrite"), 2, "rewrite what?"),
        (block("rewrite nope a b"), 2, "known are name, type"),
        (block("rewrite name a"), 2, "[exact, prefix"),
        (block("rewrite name fuzzy a b"), 2, "[exact, prefix"),
        (block("rewrite name regex ( b"), 2, "no regular expression"),
        (block("rewrite name regex a {1}.b"), 2, "uses 1 groups"),
        (block("rewrite name suffix a b answer"), 2, "answer auto"),
        (block("rewrite name suffix a b c d"), 2, "answer auto"),
        (block("rewrite name suffix a b answer auto answer name c d"), 2, "keep one"),
        (block("rewrite {\n name exact a b\n answer nope x y\n}"), 4, "answer auto"),
        (block("rewrite ttl a -"), 2, "30-300"),
        (block("rewrite ttl a 9-3"), 2, "30-300"),
        (block("rewrite rcode a NXDOMAIN nope"), 2, "give NOERROR"),
        (block("rewrite rcode a 3 16"), 2, "a number from 0 to 15"),
        (block("rewrite type A NOPE"), 2, "no record type"),
        (block("rewrite edns0 local set 0xffee abc"), 2, "not passed on"),
        (block("rewrite edns0 subnet set 33 56"), 2, "0 to 32"),
        (block("rewrite edns0 subnet set 24"), 2, "rewrite edns0: write"),
        (block("rewrite class IN CH"), 2, "class FROM IN"),
        (block("rewrite class XX IN"), 2, "give IN, CH"),
        (block("rewrite cname a"), 2, "rewrite cname: write"),
        (block("rewrite cname fuzzy a b"), 2, "rewrite cname: write"),
        (block("header"), 2, "query|response"),
        (block("header {\n response set ad\n}"), 3, "flags aa, ra and rd"),
        (block("header {\n reply set aa\n}"), 3, "query|response"),
        (block("header {\n query aa\n}"), 3, "a value is missing"),
        (block("dns64 10.0.0.0/8"), 2, "IPv6 prefix"),
        (block("dns64 {\n prefix 64:ff9b::/95\n}"), 3, "IPv6 prefix"),
        (block("dns64 64:ff9b::/72"), 2, "of 32, 40, 48, 56, 64 or 96 bits"),
        (block("dns64 {\n nope\n}"), 3, "known are prefix"),
        (block("k8s_external a.b {\n headless all\n}"), 3, "too much"),
        (block("k8s_external a.b {\n apex a.b\n}"), 3, "one label"),
        (block("k8s_external a.b {\n ttl 4000\n}"), 3, "0 to 3600"),
        (block("multisocket many"), 2, "1 to 1024"),
        (block("cancel soon"), 2, "no duration"),
        (block("debug all"), 2, "too much"),
        (block("whoami now"), 2, "too much"),
        (block("view"), 2, "a value is missing"),
        (block("view a {\n expr\n}"), 3, "a value is missing"),
        (block("view a {\n expr name()\n}"), 3, "compared with nothing"),
        (block("view a {\n expr name() == 1\n}"), 3, "not understood"),
        (block("view a {\n expr name() =~ 'x'\n}"), 3, "not understood"),
        (block("view a {\n expr metadata('a/b') == 'c'\n}"), 3, "metadata is not understood"),
        (block("view a {\n expr incidr(client_ip(), '10.0.0.1')\n}"), 3, "ADDRESS/LENGTH"),
        (block("view a {\n expr name() matches '('\n}"), 3, "no regular expression"),
        (block("view a {\n expr name() == 'a\n}"), 3, "without its end"),
        (block("view a {\n expr (do()\n}"), 3, "\")\" is missing"),
        (block("view a {\n expr not type() in ['A']\n}"), 3, "use parentheses"),
        (block("template IN"), 2, "a value is missing"),
        (block("template CH ANY"), 2, "only the classes"),
        (block("template IN NOPE"), 2, "no record type"),
        (block("template IN A {\n match [\n}"), 3, "no regular expression"),
        (block("template IN A {\n answer \"{{ .Name\"\n}"), 3, "close it"),
        (block("template IN A {\n answer \"{{ if .Name }}\"\n}"), 3, "{{ if .Name }} is not"),
        (block("template IN A {\n answer \"{{ parseInt .Name 99 8 }}\"\n}"), 3, "parseInt TERM"),
        (block("template IN A {\n rcode WHAT\n}"), 3, "give NOERROR"),
        (block("template IN A {\n ederror 21\n}"), 3, "ederror is CoreDNS's"),
        (block("template IN A {\n nope\n}"), 3, "known are match"),
        (block("errors \"x"), 2, "closing"),
        (".:53 {\n errors\n".to_owned(), 1, "without its `}`"),
        ("}\n".to_owned(), 1, "without its `{`"),
        (".:53 {\n import x\n}\n".to_owned(), 2, "no snippet (x)"),
        ("https://. {\n errors\n}\n".to_owned(), 1, "only dns://"),
        (".:0 {\n errors\n}\n".to_owned(), 1, "1 to 65535"),
        (".:53 {\n errors\n}\n.:53 {\n errors\n}\n".to_owned(), 4, "served twice"),
        (".:53 {\n errors\n}\n.:53 {\n errors\n}\n".to_owned(), 4, "(the other is Corefile:1)"),
        ("a.b A.b:53 {\n errors\n}\n".to_owned(), 1, "a.b:53 is served twice by this"),
        ("10.in-addr.arpa 10.0.0.0/8 {\n errors\n}\n".to_owned(), 1, "served twice by this"),
        // Two groups of sockets at one address: each client would meet one of them.
        (
            ".:53 {\n bind 127.0.0.1 ::1\n}\na.b:53 {\n bind 127.0.0.1\n}\n".to_owned(),
            4,
            "127.0.0.1 is listened on",
        ),
        // The second would never be reached.
        (
            ".:53 {\n errors\n}\n.:53 {\n view a {\n expr true\n }\n}\n".to_owned(),
            4,
            "with a `view` first",
        ),
        (".:53 {\n kubernetes a.local\n}\nb:53 {\n kubernetes b\n}\n".to_owned(), 5, "two cluster"),
        (
            ".:53 {\n kubernetes a.local\n}\nb:53 {\n errors\n kubernetes a.local {\n ttl 9\n }\n}\n"
                .to_owned(),
            6,
            "make their options the same (the other is Corefile:2)",
        ),
        (block("cache -1"), 2, "give a number from 1"),
        (block("cache -1 example.nl"), 2, "give a number from 1"),
        (block("cache 99999999999"), 2, "give a number from 1"),
    ];
    for (text, line, reason) in cases {
        let error = parse(&text).expect_err(&text);
        assert!(error.reason.contains(reason), "{text}\n{error}");
        assert_eq!(error.line, line, "{text}\n{error}");
    }
}

#[test]
fn expressions_of_views_are_read_as_expr_lang_reads_them() {
    let yes = |of, text: &str| Condition::Text(of, TextTest::OneOf(vec![text.to_owned()]));
    let not = |condition: Condition| Condition::Not(condition.into());
    let kinds = TextTest::OneOf(vec!["A".to_owned(), "AAAA".to_owned()]);
    let a = || yes(TextOf::Type, "A");
    let from = || Condition::From("10.0.0.0/8".parse().unwrap());
    let cases = [
        ("type() == 'A'", a()),
        ("'A' == type()", a()),
        ("type() != 'A'", not(a())),
        ("type() in ['A', 'AAAA']", Condition::Text(TextOf::Type, kinds.clone())),
        ("type() not in ['A', 'AAAA',]", not(Condition::Text(TextOf::Type, kinds))),
        ("incidr(client_ip(), '10.0.0.0/8')", from()),
        ("!incidr(client_ip(), '10.0.0.0/8')", not(from())),
        (
            "type() == 'A' && do() || incidr(client_ip(),'10.0.0.0/8')",
            Condition::Any(vec![Condition::All(vec![a(), Condition::DnssecOk]), from()]),
        ),
        (
            "type() == 'A' and (do() or incidr(client_ip(),'10.0.0.0/8'))",
            Condition::All(vec![a(), Condition::Any(vec![Condition::DnssecOk, from()])]),
        ),
        (
            "name() endsWith `.corp.`",
            Condition::Text(TextOf::Name, TextTest::EndsWith(".corp.".to_owned())),
        ),
        (
            "bufsize() >= 1232",
            not(Condition::Number(NumberOf::BufferBytes, NumberTest::Less(1232))),
        ),
        ("512 < size()", Condition::Number(NumberOf::Bytes, NumberTest::More(512))),
        ("do() == false", not(Condition::DnssecOk)),
        ("not (true)", not(Condition::Always(true))),
    ];
    for (expression, wanted) in cases {
        let text = format!(".:53 {{\n view a {{\n  expr {expression}\n }}\n}}\n");
        let corefile = parse(&text).unwrap_or_else(|error| panic!("{text}{error}"));
        assert_eq!(corefile.blocks[0].view.as_ref().unwrap().conditions, [wanted], "{expression}");
    }
    // The README's: a backslash within quotes is written twice.
    let text =
        ".:53 {\n view a {\n expr name() matches '^abc\\\\..*\\\\.example\\\\.com\\\\.$'\n }\n}\n";
    let corefile = parse(text).unwrap();
    let conditions = &corefile.blocks[0].view.as_ref().unwrap().conditions;
    let [Condition::Text(TextOf::Name, TextTest::Matches(pattern))] = &conditions[..] else {
        panic!("{conditions:?}");
    };
    assert_eq!(pattern.as_str(), r"^abc\..*\.example\.com\.$");
}

mod hostile {
    use proptest::prelude::*;

    proptest! {
        /// Whatever a ConfigMap holds, it is read or refused.
        #[test]
        fn any_text_is_read_or_refused(words in proptest::collection::vec(
            prop_oneof![
                Just("{"), Just("}"), Just("\n"), Just(" "), Just("\""), Just("#"), Just("."),
                Just("import"), Just("(a)"), Just("a"), Just("forward"), Just("cache"),
                Just("kubernetes"), Just("30"), Just("{$UPSTREAM}"), Just("10.0.0.0/7"),
                Just("rewrite"), Just("name"), Just("answer"), Just("template"), Just("match"),
                Just("IN"), Just("ANY"), Just("{{"), Just("}}"), Just("index"), Just(".Match"),
                Just("view"), Just("expr"), Just("name()"), Just("'"), Just("=="), Just("("),
                Just("hosts"), Just("acl"), Just("block"), Just("net"), Just(","),
            ], 0..60)
        ) {
            let _ = super::parse(&words.concat());
            let _ = super::parse(&words.join(" "));
        }
    }
}

#[test]
fn an_error_that_repeats_a_line_break_is_one_line() {
    let error = parse("import \"\n\"\n").unwrap_err();
    assert!(error.reason.contains("\\n") && !error.to_string().contains('\n'), "{error:?}");
}
