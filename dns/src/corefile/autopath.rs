//! `autopath [ZONES...] RESOLV-CONF|@kubernetes`.

use std::path::Path;

use super::{CorefileError, blocks::Directive, values};
use crate::files::text_of;

/// Where a pod's search path ends as its node's does (kubelet's `--resolv-conf`).
const OWN_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Larger files are no resolv.conf.
const FILE_BYTES_MAX: u64 = 1 << 16;
/// Search domains, as glibc's.
const DOMAINS_MAX: usize = 32;

/// `autopath`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AutopathOptions {
    /// Zones it is for; empty for the block's.
    pub zones: Vec<String>,
    /// The path.
    pub search: Search,
}

/// What clients search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Search {
    /// What pods of the own node do: their namespace, the cluster, and these domains of the node.
    Pods(Vec<String>),
    /// These domains.
    Domains(Vec<String>),
}

pub(super) fn read(line: &Directive) -> Result<AutopathOptions, CorefileError> {
    line.no_body()?;
    let words = line.expect(1, usize::MAX)?;
    let [zones @ .., source] = words else { return Err(line.name.error("autopath: which?")) };
    let zones = values::zones(zones)?;
    let search = match source.text.strip_prefix('@') {
        // Without the file there is nothing of the node's to search.
        Some("kubernetes") => Search::Pods(domains(OWN_RESOLV_CONF.as_ref()).unwrap_or_default()),
        Some(other) => {
            let reason = format!("autopath: @{other} is not served here, only @kubernetes is");
            return Err(source.error(reason));
        }
        None => {
            let found = domains(source.text.as_ref());
            let found = found.map_err(|reason| source.error(format!("autopath: {reason}")))?;
            Search::Domains(found)
        }
    };
    Ok(AutopathOptions { zones, search })
}

/// The last `search` (or `domain`) line of a file (resolv.conf(5)); what is no domain is left out.
fn domains(file: &Path) -> Result<Vec<String>, String> {
    let text = text_of(file, FILE_BYTES_MAX)
        .map_err(|error| format!("{}: cannot be read: {error}", file.display()))?;
    let mut domains: Vec<String> = vec![];
    for line in text.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            domains = words.map(|word| word.trim_end_matches('.').to_ascii_lowercase()).collect();
        }
    }
    domains.retain(|domain| crate::wire::name::WireName::from_text(domain).is_ok());
    domains.truncate(DOMAINS_MAX);
    Ok(domains)
}
