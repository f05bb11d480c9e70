//! Corefiles to compare by.

use std::{fmt::Write as _, net::SocketAddr, path::Path};

/// A Corefile with one server block, and what is asked for besides the cluster's names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) name: &'static str,
    /// Zones of `kubernetes`.
    zones: &'static str,
    /// Lines of `kubernetes`.
    kubernetes: &'static str,
    /// Lines of the block; `FILES` is a directory, `UPSTREAM` who is forwarded to.
    block: &'static str,
    /// Names that this Corefile is about.
    pub(crate) names: &'static [&'static str],
}

/// What `hosts` reads.
pub(crate) const HOSTS_FILE: (&str, &str) = (
    "hosts",
    "192.0.2.10 one.hosts.example two.hosts.example\n192.0.2.11 one.hosts.example\n\
     2001:db8::10 one.hosts.example\n",
);
const REVERSE: &str = "cluster.local in-addr.arpa ip6.arpa";
const FORWARD: &str = "forward . UPSTREAM\nloadbalance";

pub(crate) const SETUPS: [Setup; 14] = [
    Setup {
        name: "kubeadm",
        zones: REVERSE,
        kubernetes: "pods insecure\nfallthrough in-addr.arpa ip6.arpa\nttl 30\nzonal",
        block: FORWARD,
        names: &[],
    },
    Setup {
        name: "pods-disabled",
        zones: REVERSE,
        kubernetes: "pods disabled\nfallthrough",
        block: FORWARD,
        names: &["turn.probe.pod.cluster.local.", "10-97-0-1.probe.pod.cluster.local."],
    },
    Setup {
        name: "pods-verified",
        zones: REVERSE,
        kubernetes: "pods verified\nttl 60",
        block: FORWARD,
        names: &[
            "10-1-0-1.demo.pod.cluster.local.",
            "10-1-0-9.prod.pod.cluster.local.",
            "fd00-1--9.prod.pod.cluster.local.",
            "127-0-0-1.demo.pod.cluster.local.",
        ],
    },
    Setup {
        name: "names-of-pods",
        zones: REVERSE,
        kubernetes: "pods insecure\nendpoint_pod_names\nfallthrough in-addr.arpa ip6.arpa",
        block: FORWARD,
        names: &[
            "pod-1.web.demo.svc.cluster.local.",
            "pod-17.db.prod.svc.cluster.local.",
            "pod-30.dual.demo.svc.cluster.local.",
        ],
    },
    Setup {
        name: "some-namespaces",
        zones: REVERSE,
        kubernetes: "pods insecure\nnamespaces demo kube-system probe\nignore empty_service",
        block: FORWARD,
        names: &[],
    },
    Setup {
        name: "without-endpoints",
        zones: "cluster.local",
        kubernetes: "pods insecure\nnoendpoints",
        block: FORWARD,
        names: &[],
    },
    Setup {
        name: "cluster-only",
        zones: "cluster.local",
        kubernetes: "",
        block: "",
        names: &["example.", "www.example."],
    },
    Setup {
        name: "cached",
        zones: REVERSE,
        kubernetes: "pods insecure\nfallthrough in-addr.arpa ip6.arpa\nttl 30",
        block: "forward . UPSTREAM\nloadbalance\ncache 30 {\n\
                disable success cluster.local in-addr.arpa ip6.arpa\n\
                disable denial cluster.local in-addr.arpa ip6.arpa\nprefetch 2\n}",
        names: &[],
    },
    Setup {
        name: "autopath",
        zones: "cluster.local",
        kubernetes: "pods verified",
        block: "autopath @kubernetes\nforward . UPSTREAM\nloadbalance",
        names: &[
            "www.example.demo.svc.cluster.local.",
            "WWW.example.DEMO.svc.cluster.local.",
            "alias.example.demo.svc.cluster.local.",
            "nope.example.demo.svc.cluster.local.",
            "fail.example.demo.svc.cluster.local.",
            "refused.example.demo.svc.cluster.local.",
            "web.demo.svc.demo.svc.cluster.local.",
            "db.prod.demo.svc.cluster.local.",
            "web.demo.svc.cluster.local.demo.svc.cluster.local.",
            "db-0.db.demo.svc.cluster.local.",
            "www.example.prod.svc.cluster.local.",
            "www.example.svc.cluster.local.",
        ],
    },
    Setup {
        name: "cluster-set",
        zones: "cluster.local clusterset.local",
        kubernetes: "pods insecure\nmulticluster clusterset.local",
        block: FORWARD,
        names: &[
            "clusterset.local.",
            "svc.clusterset.local.",
            "demo.svc.clusterset.local.",
            "nope.svc.clusterset.local.",
            "dns-version.clusterset.local.",
            "web.demo.svc.clusterset.local.",
            "WEB.demo.svc.clusterset.local.",
            "db.demo.svc.clusterset.local.",
            "dual.prod.svc.clusterset.local.",
            "web.prod.svc.clusterset.local.",
            "_http._tcp.web.demo.svc.clusterset.local.",
            "_http._tcp.db.demo.svc.clusterset.local.",
            "_dns._udp.dual.prod.svc.clusterset.local.",
            "db-0.c1.db.demo.svc.clusterset.local.",
            "db-0.c2.db.demo.svc.clusterset.local.",
            "web-0.c1.dual.prod.svc.clusterset.local.",
            "db-0.db.demo.svc.clusterset.local.",
            "c1.db.demo.svc.clusterset.local.",
            "10-1-0-1.demo.pod.clusterset.local.",
        ],
    },
    Setup {
        name: "outside",
        zones: "cluster.local",
        kubernetes: "pods insecure",
        block: "k8s_external example.org {\nttl 9\nheadless\n}\nforward . UPSTREAM\nloadbalance",
        names: &[
            "example.org.",
            "dns.example.org.",
            "ns1.dns.example.org.",
            "nope.dns.example.org.",
            "demo.example.org.",
            "nope.example.org.",
            "web.demo.example.org.",
            "WEB.demo.example.org.",
            "web.prod.example.org.",
            "db.demo.example.org.",
            "db.prod.example.org.",
            "dual.demo.example.org.",
            "odd.prod.example.org.",
            "cache.prod.example.org.",
            "alias.demo.example.org.",
            "_http._tcp.web.demo.example.org.",
            "_http._tcp.db.prod.example.org.",
            "_dns._udp.dual.demo.example.org.",
            "_tcp.web.demo.example.org.",
            "db-0.db.demo.example.org.",
            "web-0.odd.prod.example.org.",
            "a.b.c.web.demo.example.org.",
        ],
    },
    Setup {
        name: "small-plugins",
        zones: REVERSE,
        kubernetes: "pods insecure\nfallthrough in-addr.arpa ip6.arpa",
        block: "nsid fairlead\nany\nminimal\nbufsize 700\nloadbalance round_robin\n\
                forward . UPSTREAM",
        names: &[],
    },
    Setup {
        name: "changed",
        zones: REVERSE,
        kubernetes: "pods insecure\nfallthrough in-addr.arpa ip6.arpa",
        block: "rewrite name exact old.example www.example\n\
                rewrite name suffix .old.local .svc.cluster.local answer auto\n\
                rewrite name regex ^(.*)\\.short\\.$ {1}.demo.svc.cluster.local answer auto\n\
                rewrite ttl exact www.example 17\n\
                template IN A template.example {\nmatch ^ip-(?P<a>[0-9]+)\\.template\\.example\\.$\n\
                answer \"{{ .Name }} 60 IN A 10.7.0.{{ .Group.a }}\"\nfallthrough\n}\n\
                template IN AAAA ip6.template.example {\nrcode NXDOMAIN\n\
                authority \"template.example 60 IN SOA ns.template.example. a.template.example. 1 2 3 4 5\"\n}\n\
                hosts FILES/hosts hosts.example {\n192.0.2.12 three.hosts.example\nttl 77\nfallthrough\n}\n\
                dns64 64:ff9b::/96\nforward . UPSTREAM\nloadbalance",
        names: &[
            "old.example.",
            "OLD.example.",
            "web.demo.old.local.",
            "db.prod.old.local.",
            "nope.demo.old.local.",
            "web.short.",
            "db.short.",
            "nope.short.",
            "ip-7.template.example.",
            "IP-8.template.example.",
            "ip-x.template.example.",
            "x.ip6.template.example.",
            "one.hosts.example.",
            "ONE.hosts.example.",
            "two.hosts.example.",
            "three.hosts.example.",
            "four.hosts.example.",
            "10.2.0.192.in-addr.arpa.",
            "v4.example.",
        ],
    },
    Setup {
        name: "guarded",
        zones: REVERSE,
        kubernetes: "pods insecure\nfallthrough in-addr.arpa ip6.arpa",
        block: "acl prod.svc.cluster.local {\nblock type SRV net 127.0.0.0/8\n\
                filter type AAAA TXT net *\nblock net 10.0.0.0/8\nallow net *\n}\n\
                acl example {\nblock type MX net *\n}\n\
                forward example UPSTREAM {\nexcept v4.example\nnext NXDOMAIN\n}\n\
                forward example UPSTREAM\nforward . UPSTREAM\nloadbalance",
        names: &["db.prod.svc.cluster.local.", "_http._tcp.web.prod.svc.cluster.local."],
    },
];

impl Setup {
    /// Whether its Corefile has these words.
    pub(crate) fn has(&self, words: &str) -> bool {
        self.kubernetes.contains(words) || self.block.contains(words)
    }

    /// Whether names that are none of the zone's are asked of upstreams.
    pub(crate) fn passes_all_on(&self) -> bool {
        self.kubernetes.lines().any(|line| line == "fallthrough")
    }

    /// The largest reply by UDP, in bytes.
    pub(crate) fn reply_bytes_max(&self) -> usize {
        if self.has("bufsize 700") { 700 } else { 1232 }
    }

    /// The Corefile, with more lines for `kubernetes`.
    pub(crate) fn corefile(
        &self,
        port: u16,
        upstream: SocketAddr,
        files: &Path,
        more: &str,
    ) -> String {
        let Self { zones, kubernetes, block, .. } = self;
        let mut text =
            format!(".:{port} {{\nerrors\nkubernetes {zones} {{\n{kubernetes}\n{more}\n}}\n");
        let block = block.replace("UPSTREAM", &upstream.to_string());
        let _ = writeln!(text, "{}\n}}", block.replace("FILES", &files.display().to_string()));
        text
    }

    /// kubeadm's, with another line for `loadbalance`.
    pub(crate) fn balanced(line: &'static str) -> Self {
        Self { name: "balanced", block: line, ..SETUPS[0] }
    }
}
