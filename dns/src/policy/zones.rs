//! Zones by name, and which misses in them go on to the next plugin.

use crate::{
    corefile::Fallthrough,
    error::DnsError,
    wire::name::{LowerName, WireName},
};

/// A zone's name with what comparing needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ZoneName {
    pub(crate) name: WireName,
    pub(crate) labels: usize,
}

impl ZoneName {
    /// `.`, or a name with or without its final dot.
    pub(crate) fn new(text: &str) -> Result<Self, DnsError> {
        if text == "." {
            return Ok(Self { name: WireName::root(), labels: 0 });
        }
        let name = WireName::from_text(text)
            .map_err(|source| DnsError::Domain { domain: text.to_owned(), source })?;
        Ok(Self { labels: name.label_count(), name })
    }

    /// Whether a name is this zone's or below it. Compared by labels: CVE-2026-33489 was a
    /// comparison by letters.
    pub(crate) fn holds(&self, name: &LowerName) -> bool {
        name.labels_below(&self.name, self.labels).is_some()
    }
}

/// Several zones.
pub(crate) fn zone_names(texts: &[String]) -> Result<Box<[ZoneName]>, DnsError> {
    texts.iter().map(|text| ZoneName::new(text)).collect()
}

/// Which misses go on to the next plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Misses {
    End,
    PassOn,
    PassOnIn(Box<[ZoneName]>),
}

impl Misses {
    pub(crate) fn new(fallthrough: &Fallthrough) -> Result<Self, DnsError> {
        Ok(match fallthrough {
            Fallthrough::Never => Self::End,
            Fallthrough::Always => Self::PassOn,
            Fallthrough::In(zones) => Self::PassOnIn(zone_names(zones)?),
        })
    }

    pub(crate) fn pass_on(&self, name: &LowerName) -> bool {
        match self {
            Self::End => false,
            Self::PassOn => true,
            Self::PassOnIn(zones) => zones.iter().any(|zone| zone.holds(name)),
        }
    }
}

/// A zone as labels have it.
pub(crate) fn with_dot(zone: &str) -> String {
    if zone == "." { zone.to_owned() } else { format!("{zone}.") }
}
