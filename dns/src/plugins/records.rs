//! Names in records as text, and records from text.

use hickory_proto::{
    rr::{Name, RData, Record},
    serialize::{
        binary::{BinDecodable, BinDecoder, BinEncodable},
        txt::Parser,
    },
};

use crate::wire::{
    name::LowerName,
    text::{NameText, to_wire},
};

/// Lower case, with the final dot.
pub(crate) fn text(name: &Name) -> Option<String> {
    let wire = name.to_bytes().ok()?;
    let mut lower = LowerName::new();
    lower.read(&wire)?;
    Some(NameText::of(&lower).as_str().to_owned())
}

/// `None` if it is no name.
pub(crate) fn name(text: &str) -> Option<Name> {
    Name::read(&mut BinDecoder::new(&to_wire(text)?)).ok()
}

/// The name within a record's data that may be changed.
pub(crate) fn name_within(data: &mut RData) -> Option<&mut Name> {
    match data {
        RData::CNAME(cname) => Some(&mut cname.0),
        RData::NS(ns) => Some(&mut ns.0),
        RData::PTR(ptr) => Some(&mut ptr.0),
        RData::MX(mx) => Some(&mut mx.exchange),
        RData::SRV(srv) => Some(&mut srv.target),
        RData::SOA(soa) => Some(&mut soa.mname),
        RData::NAPTR(naptr) => Some(&mut naptr.replacement),
        _ => None,
    }
}

/// The time to live of a record that names none, as CoreDNS reads them (dns.NewRR).
const TTL_SECONDS: u32 = 3600;

/// One record as a zone file has it.
pub(super) fn parse(text: &str) -> Result<Record, String> {
    // A directive is no record: none may name a file of this machine.
    if text.trim_start().starts_with('$') {
        return Err("a directive instead of a record".to_owned());
    }
    let zone_file = format!("$TTL {TTL_SECONDS}\n{text}\n");
    let parsed = Parser::new(zone_file, None, Some(Name::root())).parse();
    let (_, sets) = parsed.map_err(|error| error.to_string())?;
    let mut records = sets.values().flat_map(|set| set.records_without_rrsigs());
    match (records.next(), records.next()) {
        (Some(record), None) => Ok(record.clone()),
        _ => Err("not one record".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_a_time_to_live_has_coredns_s_and_one_without_a_class_is_of_the_internet() {
        for (text, wanted) in [
            ("a.example. IN A 192.0.2.1", Some(3600)),
            ("a.example. A 192.0.2.1", Some(3600)),
            ("a.example. 60 IN A 192.0.2.1", Some(60)),
            ("a.example. IN 60 A 192.0.2.1", Some(60)),
            ("a.example. 0 IN A 192.0.2.1", Some(0)),
            ("a.example. IN A 192.0.2.256", None),
            ("a.example. IN A 192.0.2.1\nb.example. IN A 192.0.2.1", None),
            ("$INCLUDE /etc/hostname", None),
            (" $TTL 7", None),
        ] {
            assert_eq!(parse(text).ok().map(|record| record.ttl), wanted, "{text}");
        }
    }
}
