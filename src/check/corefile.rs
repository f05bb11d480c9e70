//! A Corefile, by the server's own parser.

use std::path::Path;

use fairlead_dns::{UDP_REPLY_BYTES_MAX, corefile::Corefile};

use super::{Checked, Verdict};

/// The first thing that is not served, or what is different in what is.
pub(super) fn check(name: &str, path: &Path, text: &str) -> Checked {
    let object = if name.starts_with("ConfigMap") {
        format!("Corefile of {name}")
    } else {
        format!("Corefile {name}")
    };
    let findings = match Corefile::parse(path, text, &|name| std::env::var(name).ok()) {
        Err(error) => {
            let reason = match error.line {
                0 => error.reason,
                line => format!("line {line}: {}", error.reason),
            };
            vec![(Verdict::Refused, reason)]
        }
        Ok(corefile) => differences(&corefile),
    };
    Checked::of(object, findings)
}

fn differences(corefile: &Corefile) -> Vec<(Verdict, String)> {
    let mut findings = Vec::new();
    if corefile.kubernetes().is_none() {
        findings.push((
            Verdict::Differs,
            "no `kubernetes` plugin: the cluster's names are not answered".to_owned(),
        ));
    }
    let named = |block: &fairlead_dns::corefile::ServerBlock| {
        block.zones.iter().map(|zone| zone.zone.clone()).collect::<Vec<_>>().join(" ")
    };
    for block in corefile.blocks.iter().filter(|block| block.forwards.is_empty()) {
        if block.zones.iter().any(|zone| zone.zone == ".") {
            let reason = format!(
                "server block {:?} has no `forward`: names outside the cluster are refused",
                named(block)
            );
            findings.push((Verdict::Differs, reason));
        }
    }
    for block in &corefile.blocks {
        if let Some(bytes) =
            block.buffer_bytes.filter(|bytes| usize::from(*bytes) > UDP_REPLY_BYTES_MAX)
        {
            let reason = format!(
                "server block {:?}: bufsize {bytes}: replies by UDP have {UDP_REPLY_BYTES_MAX} bytes at \
                 most, longer ones go by TCP",
                named(block)
            );
            findings.push((Verdict::Differs, reason));
        }
    }
    findings
}
