//! Ports that lead to a Service without HTTP: ingress-nginx's ConfigMaps of TCP and UDP services.

use std::{collections::BTreeMap, sync::Arc};

use fairlead_state::{
    Key,
    model::{ConfigMap, ServiceBackendPort},
};

use super::upstream::{Upstream, UpstreamKey};

/// A port that is listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct StreamPort {
    pub(crate) udp: bool,
    pub(crate) number: u16,
}

/// Where it leads.
#[derive(Clone, Debug)]
pub(crate) struct Stream {
    pub(crate) upstream: Arc<Upstream>,
    pub(crate) proxy: ProxyHeaders,
}

/// Who says by PROXY header who connects.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct ProxyHeaders {
    /// Whoever connects.
    pub(crate) comes: bool,
    /// We, to the endpoint.
    pub(crate) goes: bool,
}

/// All of them.
pub(crate) type Streams = BTreeMap<StreamPort, Stream>;

/// One entry of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) key: UpstreamKey,
    pub(super) proxy: ProxyHeaders,
}

/// Ports that are listened on already.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// TCP.
    pub(super) http: Vec<u16>,
    /// TCP and UDP.
    pub(super) others: Vec<u16>,
}

/// The entries, each read or refused with a reason.
pub(super) fn read(
    map: &ConfigMap,
    udp: bool,
    taken: &Taken,
) -> Vec<Result<(StreamPort, Wish), String>> {
    let one = |(port, value): (&fairlead_state::Name, &fairlead_state::Name)| {
        let number = port.parse::<u16>().ok().filter(|number| *number > 0);
        let number = number.ok_or_else(|| format!("entry {port:?} is no port"))?;
        if !udp && taken.http.contains(&number) {
            return Err(format!("entry {port}: HTTP or HTTPS is served on this port"));
        }
        // The kernel would let both listen (SO_REUSEPORT) and give each a part.
        if taken.others.contains(&number) {
            return Err(format!(
                "entry {port}: this agent listens on this port for something else"
            ));
        }
        let wish = wish(value, udp).map_err(|reason| format!("entry {port} {value:?} {reason}"))?;
        Ok((StreamPort { udp, number }, wish))
    };
    map.data.iter().map(one).collect()
}

/// `NAMESPACE/SERVICE:PORT[:[PROXY][:PROXY]]`: from whoever connects, to the endpoint.
fn wish(value: &str, udp: bool) -> Result<Wish, String> {
    const WRONG: &str = "is not NAMESPACE/SERVICE:PORT, perhaps with :PROXY or ::PROXY";
    let mut parts = value.split(':');
    let (service, port) = parts.next().zip(parts.next()).ok_or(WRONG)?;
    let (namespace, name) = service.split_once('/').ok_or(WRONG)?;
    let is_empty = namespace.is_empty() || name.is_empty() || name.contains('/') || port.is_empty();
    let mut header = || match parts.next() {
        None | Some("") => Ok(false),
        Some(word) if word.eq_ignore_ascii_case("proxy") => Ok(true),
        Some(_) => Err(WRONG),
    };
    let proxy = ProxyHeaders { comes: header()?, goes: header()? };
    if is_empty || parts.next().is_some() {
        return Err(WRONG.to_owned());
    }
    if udp && proxy != ProxyHeaders::default() {
        return Err("asks for PROXY headers, which UDP has none of".to_owned());
    }
    let port = match port.parse() {
        Ok(number) => ServiceBackendPort::Number(number),
        Err(_) => ServiceBackendPort::Name(port.into()),
    };
    let service = Key::new(namespace, name);
    let (port, by_address) = (Some(port), false);
    let key = UpstreamKey { service, port, protocol: None, tls: None, udp, by_address };
    Ok(Wish { key, proxy })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_ingress_nginxs() {
        let headers = |comes, goes| Some(ProxyHeaders { comes, goes });
        for (value, expected) in [
            ("default/db:5432", headers(false, false)),
            ("default/db:pg", headers(false, false)),
            ("default/db:5432:PROXY", headers(true, false)),
            ("default/db:5432::PROXY", headers(false, true)),
            ("default/db:5432:PROXY:PROXY", headers(true, true)),
            ("default/db", None),
            ("db:5432", None),
            ("/db:5432", None),
            ("default/:5432", None),
            ("a/b/c:1", None),
            ("default/db:", None),
            ("default/db:5432:TLS", None),
            ("default/db:5432:PROXY:PROXY:PROXY", None),
            ("", None),
        ] {
            assert_eq!(wish(value, false).ok().map(|wish| wish.proxy), expected, "{value:?}");
        }
        assert!(wish("default/dns:53::PROXY", true).is_err());
    }

    #[test]
    fn ports_that_are_listened_on_are_not_given_away() {
        let data =
            [("80", "a/b:1"), ("0", "a/b:1"), ("x", "a/b:1"), ("70000", "a/b:1"), ("5", "a/b:1")];
        let data = data.map(|(port, value)| (port.into(), value.into()));
        let map = ConfigMap { key: Key::new("a", "b"), data: data.into() };
        for (http, others, expected) in
            [(vec![], vec![], (2, 2)), (vec![80], vec![], (1, 2)), (vec![], vec![80], (1, 1))]
        {
            let taken = Taken { http, others };
            let good = |udp| read(&map, udp, &taken).into_iter().filter_map(Result::ok).count();
            assert_eq!((good(false), good(true)), expected, "{taken:?}");
        }
    }
}
