//! What single plugins tell of themselves.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use fairlead_dns::{Counts, EnabledReport, HostsReport, Labels, Plugin, SiteCounts};

use super::{labels, samples, type_names};
use crate::agent::pages::escaped;

pub(super) fn enabled(text: &mut String, blocks: &[EnabledReport]) {
    let rows = blocks.iter().flat_map(|block| {
        let names = block.plugins.iter();
        names.map(move |name| (format!("{},name=\"{name}\"", labels(&block.labels)), 1))
    });
    samples(text, "coredns_plugin_enabled", rows);
}

/// What `acl` said, of blocks that have it.
pub(super) fn acl(text: &mut String, counts: &Counts) {
    let has_acl = |block: &&EnabledReport| block.plugins.iter().any(|name| name == "acl");
    let blocks = counts.enabled.iter().filter(has_acl);
    let sites = blocks.filter_map(|block| counts.sites.iter().find(|s| s.labels == block.labels));
    let sites: Vec<&SiteCounts> = sites.collect();
    let [filtered, blocked] = [0, 5].map(|code| {
        move |site: &SiteCounts| {
            let replies = site.replies.get(Plugin::Acl as usize).and_then(|all| all.get(code));
            replies.copied().unwrap_or(0)
        }
    });
    let asked = |site: &SiteCounts| site.requests.as_flattened().iter().sum::<u64>();
    let mut allowed = BTreeMap::new();
    for site in sites.iter().copied() {
        let Labels { server, view, .. } = &site.labels;
        let labels = format!("server=\"{server}\",view=\"{}\"", escaped(view));
        let others = filtered(site) + blocked(site);
        *allowed.entry(labels).or_default() += asked(site).saturating_sub(others);
    }
    samples(text, "coredns_acl_allowed_requests_total", allowed);
    let dropped = |site: &SiteCounts| site.dropped;
    let rows = |of: &dyn Fn(&SiteCounts) -> u64| -> Vec<(String, u64)> {
        sites.iter().map(|site| (labels(&site.labels), of(site))).collect()
    };
    samples(text, "coredns_acl_blocked_requests_total", rows(&blocked));
    samples(text, "coredns_acl_filtered_requests_total", rows(&filtered));
    samples(text, "coredns_acl_dropped_requests_total", rows(&dropped));
}

pub(super) fn templates(text: &mut String, sites: &[&SiteCounts]) {
    let rows = sites.iter().flat_map(|site| {
        type_names().zip(site.templates).map(move |(name, value)| {
            (format!("{},class=\"IN\",type=\"{name}\"", labels(&site.labels)), value)
        })
    });
    samples(text, "coredns_template_matches_total", rows.filter(|(_, value)| *value > 0));
}

/// Of those with a file that could be read.
pub(super) fn hosts(text: &mut String, all: &[HostsReport]) {
    let with_file = all.iter().filter_map(|hosts| Some((hosts, hosts.modified?)));
    let row =
        |hosts: &HostsReport| (format!("hostsfile=\"{}\"", escaped(&hosts.file)), hosts.entries);
    let rows = with_file.clone().map(|(hosts, _)| row(hosts));
    samples(text, "coredns_hosts_entries", rows);
    let seconds =
        |modified: SystemTime| modified.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let newest = with_file.map(|(_, modified)| seconds(modified)).max();
    let row = newest.map(|seconds| (String::new(), seconds));
    samples(text, "coredns_hosts_reload_timestamp_seconds", row);
}
