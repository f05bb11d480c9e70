//! What kube-proxy's IPVS mode leaves beside chains. Pure.

use std::net::{IpAddr, SocketAddr};

/// Its sets (pkg/proxy/ipvs/ipset.go); those of IPv6 begin with `KUBE-6-`.
const SETS: [&str; 17] = [
    "LOOP-BACK",
    "CLUSTER-IP",
    "EXTERNAL-IP",
    "EXTERNAL-IP-LOCAL",
    "LOAD-BALANCER",
    "LOAD-BALANCER-LOCAL",
    "LOAD-BALANCER-FW",
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-SOURCE-CIDR",
    "NODE-PORT-TCP",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-UDP",
    "NODE-PORT-LOCAL-UDP",
    "NODE-PORT-SCTP-HASH",
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "IPVS-IPS",
];
/// kube-apiserver's --service-node-port-range, unless it is told otherwise.
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

pub(super) fn is_set(name: &str) -> bool {
    let name = name.strip_prefix("KUBE-");
    name.is_some_and(|name| SETS.contains(&name.strip_prefix("6-").unwrap_or(name)))
}

/// Of `ipvsadm --save --numeric`: kind (`-t`, `-u`, `--sctp-service`) and address of the virtual
/// servers on addresses of kube-proxy's device (`ip -o address`) and on NodePorts. Others on the
/// node may have some of their own.
pub(super) fn servers(saved: &str, device: &str) -> Vec<(String, String)> {
    let addresses: Vec<IpAddr> = device
        .lines()
        .filter_map(|line| line.split_whitespace().nth(3)?.split('/').next()?.parse().ok())
        .collect();
    let servers = saved.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        if !matches!(words.next()?, "-A" | "--add-service") {
            return None;
        }
        let (kind, address) = (words.next()?, words.next()?);
        let at: SocketAddr = address.parse().ok()?;
        let is_ours = addresses.contains(&at.ip()) || NODE_PORTS.contains(&at.port());
        is_ours.then(|| (kind.to_owned(), address.to_owned()))
    });
    servers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_told_by_their_names() {
        for (name, expected) in [
            ("KUBE-CLUSTER-IP", true),
            ("KUBE-6-CLUSTER-IP", true),
            ("KUBE-SRC-ABC", false),
            ("KUBE-ROUTER-PODS", false),
            ("CLUSTER-IP", false),
        ] {
            assert_eq!(is_set(name), expected, "{name}");
        }
    }

    #[test]
    fn virtual_servers_of_others_stay() {
        let device = "7: kube-ipvs0    inet 10.96.0.1/32 scope global kube-ipvs0\\ valid_lft forever\n\
                      7: kube-ipvs0    inet6 fd00::1/128 scope global\n";
        let saved = "-A -t 10.96.0.1:443 -s rr\n-a -t 10.96.0.1:443 -r 10.0.0.1:6443 -m -w 1\n\
                     -A -u [fd00::1]:53 -s rr\n-A -t 192.0.2.1:30080 -s rr\n-A -t 192.0.2.9:80 -s wlc\n\
                     -A -f 7 -s rr\n";
        let found = servers(saved, device);
        let found: Vec<_> = found.iter().map(|(kind, at)| format!("{kind} {at}")).collect();
        assert_eq!(found, ["-t 10.96.0.1:443", "-u [fd00::1]:53", "-t 192.0.2.1:30080"]);
    }
}
