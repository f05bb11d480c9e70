//! `bind ADDRESS|INTERFACE... { except ADDRESS|INTERFACE... }`.

use std::{io, net::IpAddr};

use nix::ifaddrs::getifaddrs;

use super::{CorefileError, blocks::Directive, tokens::Token};

/// Never empty: without addresses a block would listen on all.
pub(super) fn read(line: &Directive) -> Result<Vec<IpAddr>, CorefileError> {
    let mut except = vec![];
    for option in &line.body {
        option.no_body()?;
        if option.name.text != "except" {
            return Err(option.unknown("bind", "except"));
        }
        except.extend(addresses(option.expect(1, usize::MAX)?)?);
    }
    let mut wanted = addresses(line.expect(1, usize::MAX)?)?;
    wanted.retain(|address| !except.contains(address));
    if wanted.is_empty() {
        return Err(line.name.error("bind: except leaves no address to listen on: name another"));
    }
    Ok(wanted)
}

fn addresses(words: &[Token]) -> Result<Vec<IpAddr>, CorefileError> {
    let mut all = vec![];
    for word in words {
        if let Ok(address) = word.ip() {
            all.push(address);
            continue;
        }
        let name = &word.text;
        let found = of_interface(name).map_err(|error| {
            word.error(format!("bind: the interfaces of this machine cannot be read: {error}"))
        })?;
        if found.is_empty() {
            return Err(word.error(format!(
                "bind: {name:?} is neither an IP address nor an interface of this machine that has \
                 one: name another"
            )));
        }
        all.extend(found);
    }
    Ok(all)
}

/// Addresses of IPv4 may have a label of their own, `eth0:1`, and that is told as the interface's name.
fn is_of(label: &str, interface: &str) -> bool {
    label.strip_prefix(interface).is_some_and(|rest| rest.is_empty() || rest.starts_with(':'))
}

/// Those it has at the moment. Link-local ones of IPv6 are addresses only together with their interface.
fn of_interface(name: &str) -> io::Result<Vec<IpAddr>> {
    let its_own = getifaddrs()?.filter(|known| is_of(&known.interface_name, name));
    let addresses = its_own.filter_map(|known| {
        let address = known.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    });
    let is_plain = |ip: &IpAddr| !matches!(ip, IpAddr::V6(v6) if v6.is_unicast_link_local());
    Ok(addresses.filter(is_plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labelled_addresses_are_their_interface_s() {
        for (label, interface, wanted) in [
            ("eth0", "eth0", true),
            ("eth0:1", "eth0", true),
            ("eth0:1", "eth0:1", true),
            ("eth01", "eth0", false),
            ("eth0", "eth0:1", false),
        ] {
            assert_eq!(is_of(label, interface), wanted, "{label} {interface}");
        }
    }
}
