//! Ports in use, and whether name servers answer.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    time::Duration,
};

use fairlead_proxy::node::{self, Occupant};
use ipnetwork::IpNetwork;

use super::{Finding, Health};
use crate::agent::{Transport, holder_of, is_own};

/// A server that needs longer than that is of no use to a resolver either.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A question for the root's name servers, recursion wished for: every resolver can answer it.
const ROOT_QUESTION: &[u8] =
    b"\x2a\x17\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01";

const PORTS: [(u16, Transport, &str, &str); 6] = [
    (53, Transport::Udp, "dns", "--dns-listen"),
    (53, Transport::Tcp, "dns", "--dns-listen"),
    (80, Transport::Tcp, "ingress", "--http-listen"),
    (443, Transport::Tcp, "ingress", "--https-listen"),
    (10256, Transport::Tcp, "", "--healthz-listen"),
    (10249, Transport::Tcp, "", "--metrics-listen"),
];

pub(super) fn ports() -> Vec<Finding> {
    let ports = PORTS.into_iter().map(|(port, transport, role, flag)| {
        let finding = self::port(port, transport, flag);
        if role.is_empty() { finding } else { finding.of(role) }
    });
    ports.collect()
}

fn port(port: u16, transport: Transport, flag: &str) -> Finding {
    let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    let (name, taken) = match transport {
        Transport::Udp => ("udp", UdpSocket::bind(any).err()),
        Transport::Tcp => ("tcp", TcpListener::bind(any).err()),
    };
    let check = format!("port {port}/{name}");
    let Some(error) = taken else { return Finding::ok(&check, "free") };
    let holder = holder_of(any, transport);
    // Of an agent that cannot start, and asks.
    let is_own = holder.is_none() && is_own(any, transport);
    if is_own || holder.as_deref().is_some_and(|holder| holder.starts_with("fairlead")) {
        return Finding::ok(&check, "an agent's");
    }
    let found = match (&holder, error.kind()) {
        (Some(holder), _) => format!("held by {holder}"),
        (None, std::io::ErrorKind::AddrInUse) => "in use".to_owned(),
        (None, _) => error.to_string(),
    };
    if error.kind() == std::io::ErrorKind::PermissionDenied {
        return Finding::not(&check, Health::Unknown, found);
    }
    Finding::not(&check, Health::Warning, found).means(
        "nothing of the agent's can listen there until it is free",
        format!("stop its holder, or choose another address with {flag}"),
    )
}

pub(super) fn devices() -> Finding {
    const CHECK: &str = "network devices";
    let unserved = match fairlead_proxy::node::unserved_devices() {
        Ok(unserved) => unserved,
        Err(error) => return Finding::not(CHECK, Health::Unknown, error.to_string()).of("proxy"),
    };
    if unserved.is_empty() {
        return Finding::ok(CHECK, "none that programs cannot read").of("proxy");
    }
    let found: Vec<_> = unserved.iter().map(|(name, why)| format!("{name}: {why}")).collect();
    Finding::not(CHECK, Health::Warning, found.join("; ")).of("proxy").means(
        "clients who come by them reach no NodePort, load balancer's or external address",
        "lead them to another device, or keep kube-proxy on this node",
    )
}

/// What is in it and no Service's is dropped, unless it holds the node itself.
pub(super) fn service_range(range: IpNetwork) -> Finding {
    match node::occupant_here(range) {
        Ok(found) => occupied(range, found),
        Err(error) => Finding::not(&check(range), Health::Unknown, error.to_string()).of("proxy"),
    }
}

fn check(range: IpNetwork) -> String {
    format!("Service range {range}")
}

fn occupied(range: IpNetwork, found: Option<Occupant>) -> Finding {
    let Some(by) = found else {
        return Finding::ok(&check(range), "no address of this node is in it").of("proxy");
    };
    Finding::not(&check(range), Health::Warning, format!("holds {by}")).of("proxy").means(
        "addresses in it that no Service has are routed like any other, instead of being dropped; Services may be \
         given addresses that others have",
        "give Services a range without nodes and pods: another ServiceCIDR, then delete this one",
    )
}

pub(super) fn name_servers() -> Vec<Finding> {
    let text = fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let servers: Vec<IpAddr> = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("nameserver"))
        .filter_map(|address| address.trim().parse().ok())
        .collect();
    if servers.is_empty() {
        let found = "no nameserver in /etc/resolv.conf";
        let finding = Finding::not("upstream DNS", Health::Warning, found).of("dns").means(
            "names outside the cluster are refused",
            "name servers by --upstream ADDR or in the Corefile",
        );
        return vec![finding];
    }
    servers.into_iter().map(|server| name_server(server).of("dns")).collect()
}

fn name_server(server: IpAddr) -> Finding {
    let check = format!("upstream DNS {server}");
    if server.is_loopback() {
        return Finding::not(&check, Health::Warning, "a loopback address").means(
            "a pod has another loopback: there nobody answers, or Fairlead asks itself",
            "name the real servers by --upstream, or point resolv.conf to \
             /run/systemd/resolve/resolv.conf",
        );
    }
    match ask(server) {
        Ok(()) => Finding::ok(&check, "answers"),
        Err(error) => Finding::not(&check, Health::Warning, format!("no answer: {error}")).means(
            "names outside the cluster cannot be looked up",
            "check the route and firewall to it, or name other servers by --upstream",
        ),
    }
}

fn ask(server: IpAddr) -> std::io::Result<()> {
    let own: IpAddr = match server {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((own, 0))?;
    socket.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    socket.connect((server, 53))?;
    socket.send(ROOT_QUESTION)?;
    let mut answer = [0; 512];
    let bytes = socket.recv(&mut answer)?;
    let is_ours = answer.get(..2) == ROOT_QUESTION.get(..2) && bytes >= 12;
    if is_ours { Ok(()) } else { Err(std::io::Error::other("what came back is no answer")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_range_that_holds_the_node_is_named_with_a_cure() {
        let range: IpNetwork = "10.96.0.0/12".parse().unwrap();
        assert_eq!(occupied(range, None).health, Health::Ok);
        let finding = occupied(range, Some(Occupant::Node([10, 100, 0, 2].into())));
        assert_eq!(finding.check, "Service range 10.96.0.0/12");
        assert_eq!(
            (finding.health, finding.found.as_str()),
            (Health::Warning, "holds 10.100.0.2, a node's address")
        );
        assert!(finding.meaning.is_some() && finding.cure.is_some());
    }
}
