//! How much one client may ask for.

use std::net::IpAddr;

use super::value::{Read, networks, number};
use crate::networks::Networks;

/// nginx's burst is this often the limit unless an annotation says otherwise.
const BURST: u32 = 5;

/// What an Ingress says about it. 0: no limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Throttle {
    pub(crate) per_second: u32,
    pub(crate) per_minute: u32,
    pub(crate) connections: u32,
    burst: u32,
    /// Who is not counted.
    exempt: Networks,
    exempt_by_old_name: Networks,
    rate_kib: u64,
    after_kib: u64,
}

/// How fast a response's body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pace {
    pub(crate) bytes_per_second: u64,
    /// As many go out at once.
    pub(crate) after_bytes: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self {
            per_second: 0,
            per_minute: 0,
            connections: 0,
            burst: BURST,
            exempt: Networks::default(),
            exempt_by_old_name: Networks::default(),
            rate_kib: 0,
            after_kib: 0,
        }
    }
}

impl Throttle {
    /// `None`: no annotation of this kind.
    pub(crate) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "limit-rps" => number(value).map(|limit| self.per_second = limit),
            "limit-rpm" => number(value).map(|limit| self.per_minute = limit),
            "limit-connections" => number(value).map(|limit| self.connections = limit),
            "limit-burst-multiplier" => number(value).map(|burst| self.burst = burst),
            "limit-allowlist" => networks(value).map(|list| self.exempt = list),
            "limit-whitelist" => networks(value).map(|list| self.exempt_by_old_name = list),
            "limit-rate" => number::<u32>(value).map(|kib| self.rate_kib = kib.into()),
            "limit-rate-after" => number::<u32>(value).map(|kib| self.after_kib = kib.into()),
            _ => return None,
        })
    }

    /// Whether requests are counted at all.
    pub(crate) fn counts(&self) -> bool {
        self.per_second > 0 || self.per_minute > 0 || self.connections > 0
    }

    /// Requests above a limit that are let through at once.
    pub(crate) fn burst(&self, limit: u32) -> u64 {
        u64::from(limit) * u64::from(self.burst)
    }

    pub(crate) fn exempts(&self, client: IpAddr) -> bool {
        let list = if self.exempt.is_empty() { &self.exempt_by_old_name } else { &self.exempt };
        list.contains(client)
    }

    pub(crate) fn pace(&self) -> Option<Pace> {
        (self.rate_kib > 0).then_some(Pace {
            bytes_per_second: self.rate_kib << 10,
            after_bytes: self.after_kib << 10,
        })
    }
}
