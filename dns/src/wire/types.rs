//! Names of types and classes, as they are written in files and logs: the registry's (RFC 6895 §3), and
//! those of RFC 3597 §5 for what has none. hickory knows fewer.

use std::borrow::Cow;

/// Types with names, by number.
const TYPES: [(u16, &str); 88] = [
    (0, "None"),
    (1, "A"),
    (2, "NS"),
    (3, "MD"),
    (4, "MF"),
    (5, "CNAME"),
    (6, "SOA"),
    (7, "MB"),
    (8, "MG"),
    (9, "MR"),
    (10, "NULL"),
    (12, "PTR"),
    (13, "HINFO"),
    (14, "MINFO"),
    (15, "MX"),
    (16, "TXT"),
    (17, "RP"),
    (18, "AFSDB"),
    (19, "X25"),
    (20, "ISDN"),
    (21, "RT"),
    (23, "NSAP-PTR"),
    (24, "SIG"),
    (25, "KEY"),
    (26, "PX"),
    (27, "GPOS"),
    (28, "AAAA"),
    (29, "LOC"),
    (30, "NXT"),
    (31, "EID"),
    (32, "NIMLOC"),
    (33, "SRV"),
    (34, "ATMA"),
    (35, "NAPTR"),
    (36, "KX"),
    (37, "CERT"),
    (39, "DNAME"),
    (41, "OPT"),
    (42, "APL"),
    (43, "DS"),
    (44, "SSHFP"),
    (45, "IPSECKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (48, "DNSKEY"),
    (49, "DHCID"),
    (50, "NSEC3"),
    (51, "NSEC3PARAM"),
    (52, "TLSA"),
    (53, "SMIMEA"),
    (55, "HIP"),
    (56, "NINFO"),
    (57, "RKEY"),
    (58, "TALINK"),
    (59, "CDS"),
    (60, "CDNSKEY"),
    (61, "OPENPGPKEY"),
    (62, "CSYNC"),
    (63, "ZONEMD"),
    (64, "SVCB"),
    (65, "HTTPS"),
    (99, "SPF"),
    (100, "UINFO"),
    (101, "UID"),
    (102, "GID"),
    (103, "UNSPEC"),
    (104, "NID"),
    (105, "L32"),
    (106, "L64"),
    (107, "LP"),
    (108, "EUI48"),
    (109, "EUI64"),
    (128, "NXNAME"),
    (249, "TKEY"),
    (250, "TSIG"),
    (251, "IXFR"),
    (252, "AXFR"),
    (253, "MAILB"),
    (254, "MAILA"),
    (255, "ANY"),
    (256, "URI"),
    (257, "CAA"),
    (258, "AVC"),
    (260, "AMTRELAY"),
    (261, "RESINFO"),
    (32768, "TA"),
    (32769, "DLV"),
    (65535, "Reserved"),
];

/// Classes with names, by number.
const CLASSES: [(u16, &str); 6] =
    [(1, "IN"), (2, "CS"), (3, "CH"), (4, "HS"), (254, "NONE"), (255, "ANY")];

/// A type's name.
pub(crate) fn type_name(qtype: u16) -> Cow<'static, str> {
    named(&TYPES, qtype).map_or_else(|| format!("TYPE{qtype}").into(), Cow::Borrowed)
}

/// A class' name.
pub(crate) fn class_name(class: u16) -> Cow<'static, str> {
    named(&CLASSES, class).map_or_else(|| format!("CLASS{class}").into(), Cow::Borrowed)
}

/// The type of a name, whatever its letter case; `None` if it is none's.
pub(crate) fn type_number(name: &str) -> Option<u16> {
    let known = TYPES.iter().find(|(_, known)| known.eq_ignore_ascii_case(name));
    let number = || name.to_ascii_uppercase().strip_prefix("TYPE")?.parse().ok();
    known.map(|(number, _)| *number).or_else(number)
}

fn named(all: &[(u16, &'static str)], number: u16) -> Option<&'static str> {
    let place = all.binary_search_by_key(&number, |(known, _)| *known).ok()?;
    all.get(place).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use hickory_proto::rr::RecordType;

    use super::*;

    #[test]
    fn types_have_the_registry_s_names_and_others_their_numbers() {
        assert!(TYPES.is_sorted() && CLASSES.is_sorted());
        for (number, name) in TYPES {
            assert_eq!((type_name(number), type_number(name)), (name.into(), Some(number)));
            let known = RecordType::from(number);
            if !matches!(known, RecordType::Unknown(_) | RecordType::ZERO) {
                assert_eq!(<&str>::from(known), name);
            }
        }
        for (name, number) in [
            ("ixfr", Some(251)),
            ("TYPE65280", Some(65280)),
            ("type1", Some(1)),
            ("TYPE65536", None),
            ("TYPE", None),
            ("X", None),
            ("", None),
        ] {
            assert_eq!(type_number(name), number, "{name}");
        }
        assert_eq!(type_name(65280), "TYPE65280");
        assert_eq!([class_name(1), class_name(3), class_name(7)], ["IN", "CH", "CLASS7"]);
    }
}
