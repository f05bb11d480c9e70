//! The SOA record of a zone, ready to be put behind any question of that zone.

use crate::{
    wire::{
        CLASS_IN,
        name::{LowerName, WireName},
        reply::{Reply, pointer},
        rtype,
    },
    zone::Origin,
};

/// SOA timers, as CoreDNS'. Nobody transfers the zone; they only have to be sane.
const REFRESH_SECONDS: u32 = 7200;
const RETRY_SECONDS: u32 = 1800;
const EXPIRE_SECONDS: u32 = 86400;

/// Longest SOA record: fixed parts, two short labels with pointers, five numbers.
const SOA_BYTES_MAX: usize = 64;

/// A zone's SOA. Its three names end in the zone's name, which every question of the zone ends in,
/// so they are compression pointers set per reply; this also gives the zone's name back in the
/// letter case of the question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    zone_bytes: usize,
    record: Box<[u8]>,
    /// Where the pointers stand in `record`.
    pointers: [usize; 3],
}

impl Authority {
    /// The SOA of `zone`. The negative TTL is the lesser of the record's own and its last field
    /// (RFC 2308 §5); ours are equal.
    pub(crate) fn new(zone: &WireName, origin: &Origin, serial: u32) -> Self {
        let ttl = origin.negative_ttl_seconds;
        let mut record = vec![0; 2];
        record.extend_from_slice(&rtype::SOA.to_be_bytes());
        record.extend_from_slice(&CLASS_IN.to_be_bytes());
        record.extend_from_slice(&ttl.to_be_bytes());
        let length_at = record.len();
        record.extend_from_slice(&[0; 2]);
        record.extend_from_slice(b"\x02ns\x03dns");
        let server_at = record.len();
        record.extend_from_slice(&[0; 2]);
        record.extend_from_slice(b"\x0ahostmaster");
        let mailbox_at = record.len();
        record.extend_from_slice(&[0; 2]);
        for number in [serial, REFRESH_SECONDS, RETRY_SECONDS, EXPIRE_SECONDS, ttl] {
            record.extend_from_slice(&number.to_be_bytes());
        }
        let length = u16::try_from(record.len() - length_at - 2).unwrap_or(0).to_be_bytes();
        if let Some(place) = record.get_mut(length_at..length_at + 2) {
            place.copy_from_slice(&length);
        }
        Self {
            zone_bytes: zone.as_bytes().len(),
            record: record.into(),
            pointers: [0, server_at, mailbox_at],
        }
    }

    /// As the answer to a question for the zone's SOA.
    pub(crate) fn answer(&self, reply: &mut Reply<'_>, name: &LowerName) {
        self.with_record(name, |record| reply.answer(record));
    }

    /// In the authority section, which makes a reply "no such name" or "no such record" for a time
    /// (RFC 2308).
    pub(crate) fn deny(&self, reply: &mut Reply<'_>, name: &LowerName) {
        self.with_record(name, |record| reply.authority(record));
    }

    fn with_record(&self, name: &LowerName, put: impl FnOnce(&[u8])) {
        let mut bytes = [0; SOA_BYTES_MAX];
        let Some(record) = bytes.get_mut(..self.record.len()) else { return };
        record.copy_from_slice(&self.record);
        let zone_at = crate::wire::HEADER_BYTES + name.len().saturating_sub(self.zone_bytes);
        for at in self.pointers {
            if let Some(place) = record.get_mut(at..at + 2) {
                place.copy_from_slice(&pointer(zone_at));
            }
        }
        put(record);
    }
}
