//! `k8s_external [ZONES...] { ... }`.

use super::{CorefileError, blocks::Directive, kubernetes::Fallthrough, values};
use crate::wire::name::WireName;

const TTL_SECONDS: u32 = 5;
const TTL_SECONDS_MAX: u32 = 3600;
const APEX: &str = "dns";

/// `k8s_external`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalOptions {
    /// Zones Services are shown in by their addresses outside of the cluster; never empty.
    pub zones: Vec<String>,
    /// The label that the zones' own records are below.
    pub apex: String,
    /// In seconds.
    pub ttl_seconds: u32,
    /// `headless`: endpoints of Services without addresses outside are shown, too.
    pub headless: bool,
    /// `fallthrough`.
    pub fallthrough: Fallthrough,
}

pub(super) fn read(
    line: &Directive,
    block_zones: &[String],
) -> Result<ExternalOptions, CorefileError> {
    let named = values::zones(&line.args)?;
    let mut options = ExternalOptions {
        zones: if named.is_empty() { block_zones.to_vec() } else { named },
        apex: APEX.to_owned(),
        ttl_seconds: TTL_SECONDS,
        headless: false,
        fallthrough: Fallthrough::Never,
    };
    for option in &line.body {
        option.no_body()?;
        match option.name.text.as_str() {
            "ttl" => options.ttl_seconds = option.one()?.number(0, TTL_SECONDS_MAX)?,
            "apex" => {
                let apex = option.one()?;
                let label = WireName::from_text(&apex.text).ok().filter(|n| n.label_count() == 1);
                label.ok_or_else(|| apex.error("apex: give one label, such as dns"))?;
                options.apex = apex.text.trim_end_matches('.').to_ascii_lowercase();
            }
            "fallthrough" => options.fallthrough = Fallthrough::read(option)?,
            "headless" => options.headless = option.expect(0, 0)?.is_empty(),
            _ => return Err(option.unknown("k8s_external", "ttl, apex, headless, fallthrough")),
        }
    }
    Ok(options)
}
