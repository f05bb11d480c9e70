//! `loadbalance`: which addresses come first.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hickory_proto::rr::{
    RData, Record,
    rdata::{A, AAAA},
};
use ipnetwork::IpNetwork;

use crate::wire::{
    record::{each_record, owner_bytes},
    rtype,
};

/// Type, class, time to live and length of data.
const HEAD_BYTES: usize = 10;

/// Puts the addresses of a finished reply in the order of the networks they are in, those in none last;
/// within each the order stays.
pub(super) fn prefer(reply: &mut [u8], question_end: usize, networks: &[IpNetwork]) {
    if networks.is_empty() {
        return;
    }
    let answers = reply.get(6..8).and_then(|count| count.first_chunk().copied());
    let answers = usize::from(answers.map_or(0, u16::from_be_bytes));
    let records = reply.get(question_end..).unwrap_or_default();
    let mut at = question_end;
    let mut run: Vec<(usize, &[u8])> = vec![];
    for record in each_record(records).take(answers) {
        match address(record) {
            Some(address) => run.push((place(networks, address), record)),
            // Aliases stand before them.
            None if run.is_empty() => at += record.len(),
            None => break,
        }
    }
    // An owner written out may be what later ones point at.
    let moves = run.iter().all(|(_, record)| record.first().is_some_and(|first| *first >= 0xc0));
    if !moves {
        return;
    }
    run.sort_by_key(|(place, _)| *place);
    let sorted: Vec<u8> = run.iter().flat_map(|(_, record)| record.iter().copied()).collect();
    if let Some(target) = reply.get_mut(at..at + sorted.len()) {
        target.copy_from_slice(&sorted);
    }
}

/// As [`prefer`], of records: aliases, addresses, others.
pub(super) fn prefer_records(answers: &mut [Record], networks: &[IpNetwork]) {
    answers.sort_by_key(|record| match &record.data {
        RData::CNAME(_) => (0, 0),
        RData::A(A(v4)) => (1, place(networks, (*v4).into())),
        RData::AAAA(AAAA(v6)) => (1, place(networks, (*v6).into())),
        _ => (2, 0),
    });
}

/// The addresses behind the aliases begin with the `rotation`th of them.
pub(crate) fn turn(answers: &mut [Record], rotation: usize) {
    let is_address = |record: &Record| matches!(record.data, RData::A(_) | RData::AAAA(_));
    let first = answers.iter().position(is_address).unwrap_or(answers.len());
    let rest = answers.get_mut(first..).unwrap_or_default();
    let count = rest.iter().take_while(|record| is_address(record)).count();
    if let Some(addresses) = rest.get_mut(..count) {
        addresses.rotate_left(rotation % count.max(1));
    }
}

fn place(networks: &[IpNetwork], address: IpAddr) -> usize {
    networks.iter().position(|network| network.contains(address)).unwrap_or(usize::MAX)
}

/// The address of an A or AAAA record.
fn address(record: &[u8]) -> Option<IpAddr> {
    let owner = owner_bytes(record)?;
    let rtype = record.get(owner..)?.first_chunk().copied().map(u16::from_be_bytes)?;
    let data = record.get(owner + HEAD_BYTES..)?;
    match rtype {
        rtype::A => Some(Ipv4Addr::from(*data.first_chunk::<4>()?).into()),
        rtype::AAAA => Some(Ipv6Addr::from(*data.first_chunk::<16>()?).into()),
        _ => None,
    }
}
