//! No port is named by two settings: DNS and Ingress share theirs with a successor (SO_REUSEPORT), so
//! the kernel would let both listen and give each a part of the other's connections.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::super::args::Args;
use crate::exit::BadConfiguration;

/// An address, and the flag that says so.
type Named = (&'static str, SocketAddr);

/// # Errors
/// Names the two flags and the address.
pub(super) fn check(args: &Args) -> Result<(), BadConfiguration> {
    let named = named(args);
    for (i, (flag, address)) in named.iter().enumerate() {
        let others = named.iter().skip(i + 1);
        let clash = others.into_iter().find(|(_, other)| is_same_port(*address, *other));
        if let Some((other_flag, other)) = clash {
            return Err(BadConfiguration(format!(
                "--{flag} {address} and --{other_flag} {other} are one port: choose another for one \
                 of them"
            )));
        }
    }
    Ok(())
}

/// Ports of this agent that are not Ingress's.
pub(crate) fn besides_ingress(args: &Args) -> Vec<u16> {
    let others = named(args).into_iter();
    others
        .filter(|(flag, _)| !["http-listen", "https-listen"].contains(flag))
        .map(|(_, address)| address.port())
        .collect()
}

/// Of the roles that run.
fn named(args: &Args) -> Vec<Named> {
    let admin = &args.admin;
    let pages = [
        ("healthz-listen", admin.healthz_listen),
        ("metrics-listen", admin.metrics_listen),
        ("web-listen", admin.web_listen),
    ];
    let pages = pages.into_iter().filter_map(|(flag, listen)| Some((flag, listen.0?)));
    let mut named: Vec<Named> = pages.flat_map(of_page).collect();
    let mut add = |flag: &'static str, addresses: &[SocketAddr]| {
        named.extend(addresses.iter().map(|address| (flag, *address)));
    };
    if args.roles.dns() {
        add("dns-listen", &args.dns.dns_listen);
    }
    if args.roles.ingress() {
        add("http-listen", &args.ingress.http_listen);
        add("https-listen", &args.ingress.https_listen);
    }
    named
}

/// Pages at all addresses are at those of both families (`http::listen`).
fn of_page((flag, address): Named) -> impl Iterator<Item = Named> {
    let port = address.port();
    let all = [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
    let is_other = move |other: &SocketAddr| address.ip().is_unspecified() && *other != address;
    let others = all.into_iter().filter(is_other);
    std::iter::once(address).chain(others).map(move |address| (flag, address))
}

/// Port 0 is a free one.
fn is_same_port(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0
        && one.port() == other.port()
        && one.is_ipv4() == other.is_ipv4()
        && (any || one.ip() == other.ip())
}
