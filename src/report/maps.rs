//! `fairlead plan` and `fairlead dump`: the maps as lines, and the same lines as data.

use serde::{Deserialize, Serialize};

/// What clients dial, and where that leads: one line of [`fairlead_proxy::text`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// `tcp 10.96.0.10:53`, `udp *:30053 (NodePort, IPv6)`, `other ports of 10.96.0.10`.
    pub(crate) frontend: String,
    /// Endpoints, or one of `REJECT (...)`, `DROP (...)`, `left to another proxy`.
    pub(crate) leads_to: Vec<String>,
    /// What else holds: `affinity 10800 s`, `only for 10.0.0.0/8`, `from outside -> ...`.
    pub(crate) besides: Vec<String>,
    /// `NAMESPACE/NAME:PORT`; `null`: maps know no names.
    pub(crate) service: Option<String>,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Maps {
    pub(crate) entries: Vec<Entry>,
}

impl Maps {
    pub(crate) fn of(text: &str) -> Self {
        Self { entries: text.lines().filter_map(entry).collect() }
    }
}

fn entry(line: &str) -> Option<Entry> {
    let (line, service) = match line.rsplit_once("  # ") {
        Some((line, service)) => (line, Some(service.to_owned())),
        None => (line, None),
    };
    let (frontend, rest) = line.split_once(" -> ")?;
    let mut parts = rest.split("; ");
    let leads_to = parts.next().unwrap_or_default().split(", ").map(str::to_owned).collect();
    let besides = parts.map(str::to_owned).collect();
    Some(Entry { frontend: frontend.to_owned(), leads_to, besides, service })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_an_entry_with_all_it_says() {
        let text = "tcp *:30080 (NodePort, IPv4) -> REJECT (no endpoints)\n\
                    udp 10.96.0.10:53 -> 10.244.1.5:53 local, 10.244.2.7:53; from outside -> 10.244.1.5:53 \
                    local; affinity 10800 s; only for 10.0.0.0/8, 192.0.2.0/24  # kube-system/dns:udp\n";
        let entry = |frontend: &str, leads_to: &[&str], besides: &[&str], service: Option<&str>| {
            let owned = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
            Entry {
                frontend: frontend.to_owned(),
                leads_to: owned(leads_to),
                besides: owned(besides),
                service: service.map(str::to_owned),
            }
        };
        let expected = [
            entry("tcp *:30080 (NodePort, IPv4)", &["REJECT (no endpoints)"], &[], None),
            entry(
                "udp 10.96.0.10:53",
                &["10.244.1.5:53 local", "10.244.2.7:53"],
                &[
                    "from outside -> 10.244.1.5:53 local",
                    "affinity 10800 s",
                    "only for 10.0.0.0/8, 192.0.2.0/24",
                ],
                Some("kube-system/dns:udp"),
            ),
        ];
        assert_eq!(Maps::of(text).entries, expected);
    }
}
