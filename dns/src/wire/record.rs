//! Record sets as they go onto the wire, made once when the zone changes.

use std::{net::IpAddr, sync::Arc};

use super::{CLASS_IN, name::WireName, rtype};

/// Owner "the name in the question", which stands at offset 12 of every message.
pub(crate) const OWNER_IS_QUESTION: [u8; 2] = [0xc0, 0x0c];

/// Bytes of an address record.
const A_BYTES: u16 = 16;
const AAAA_BYTES: u16 = 28;

/// All records of one type at one name, and the addresses that go with them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RrSet {
    /// The type.
    pub(crate) rtype: u16,
    /// Bytes of each answer if they are of one size and may be rotated (A, AAAA), else 0.
    pub(crate) slot_bytes: u16,
    /// Answers; each owner is [`OWNER_IS_QUESTION`].
    pub(crate) answers: Arc<[u8]>,
    /// Records for the additional section, owners written out.
    pub(crate) additional: Arc<[u8]>,
}

impl RrSet {
    /// A set whose answers are all as long as the first.
    fn of_slots(rtype: u16, slot_bytes: u16, answers: Vec<u8>) -> Self {
        Self { rtype, slot_bytes, answers: answers.into(), additional: Arc::default() }
    }

    /// A or AAAA records of those addresses that have the type's family; `None` if there are none.
    pub(crate) fn addresses(
        rtype: u16,
        addresses: impl IntoIterator<Item = IpAddr>,
        ttl_seconds: u32,
    ) -> Option<Self> {
        let mut answers = vec![];
        for address in addresses {
            let (family, data) = address_data(&address);
            if family == rtype {
                put_record(&mut answers, &OWNER_IS_QUESTION, rtype, ttl_seconds, &data);
            }
        }
        let slot_bytes = if rtype == rtype::A { A_BYTES } else { AAAA_BYTES };
        (!answers.is_empty()).then(|| Self::of_slots(rtype, slot_bytes, answers))
    }

    /// Records whose data is given in wire form.
    pub(crate) fn of_data(rtype: u16, data: &[&[u8]], ttl_seconds: u32) -> Self {
        let mut set = SetBuilder::new(rtype, ttl_seconds);
        for data in data {
            set.answer(data);
        }
        set.finish()
    }
}

/// Collects a set record by record.
#[derive(Debug)]
pub(crate) struct SetBuilder {
    rtype: u16,
    ttl_seconds: u32,
    answers: Vec<u8>,
    additional: Vec<u8>,
}

impl SetBuilder {
    pub(crate) fn new(rtype: u16, ttl_seconds: u32) -> Self {
        Self { rtype, ttl_seconds, answers: vec![], additional: vec![] }
    }

    /// One record of the set.
    pub(crate) fn answer(&mut self, data: &[u8]) {
        put_record(&mut self.answers, &OWNER_IS_QUESTION, self.rtype, self.ttl_seconds, data);
    }

    /// One address record of another name.
    pub(crate) fn additional_address(&mut self, owner: &WireName, address: &IpAddr) {
        let (rtype, data) = address_data(address);
        put_record(&mut self.additional, owner.as_bytes(), rtype, self.ttl_seconds, &data);
    }

    pub(crate) fn finish(self) -> RrSet {
        let Self { rtype, answers, additional, .. } = self;
        RrSet { rtype, slot_bytes: 0, answers: answers.into(), additional: additional.into() }
    }
}

/// The record type and data of an address.
fn address_data(address: &IpAddr) -> (u16, Vec<u8>) {
    match address {
        IpAddr::V4(v4) => (rtype::A, v4.octets().to_vec()),
        IpAddr::V6(v6) => (rtype::AAAA, v6.octets().to_vec()),
    }
}

/// Appends a record; data beyond 65535 bytes, which no caller has, is left out whole.
pub(crate) fn put_record(
    bytes: &mut Vec<u8>,
    owner: &[u8],
    rtype: u16,
    ttl_seconds: u32,
    data: &[u8],
) {
    let Ok(length) = u16::try_from(data.len()) else { return };
    bytes.extend_from_slice(owner);
    bytes.extend_from_slice(&rtype.to_be_bytes());
    bytes.extend_from_slice(&CLASS_IN.to_be_bytes());
    bytes.extend_from_slice(&ttl_seconds.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(data);
}

/// Length of the owner's name at the front of a record.
pub(crate) fn owner_bytes(record: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        match usize::from(*record.get(at)?) {
            0 => return Some(at + 1),
            0xc0.. => return Some(at + 2),
            length => at += 1 + length,
        }
    }
}

/// The records of a section, one by one; ends early at one that is cut.
pub(crate) fn each_record(mut records: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (record, rest) = records.split_at_checked(record_bytes(records)?)?;
        records = rest;
        Some(record)
    })
}

/// Length of the record at the front of `records`; `None` at their end.
pub(crate) fn record_bytes(records: &[u8]) -> Option<usize> {
    let at = owner_bytes(records)?;
    let length = records.get(at + 8..)?.first_chunk::<2>()?;
    Some(at + 10 + usize::from(u16::from_be_bytes(*length)))
}
