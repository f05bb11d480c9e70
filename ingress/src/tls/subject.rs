//! Names in certificates as nginx writes them (RFC 2253).

use x509_parser::{oid_registry::Oid, x509::X509Name};

/// Attribute types by their short names (RFC 2253 2.3, RFC 4519).
const SHORT: [(&str, &str); 10] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "STREET"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("0.9.2342.19200300.100.1.1", "UID"),
];

/// Subject and issuer of a certificate; `None`: it cannot be read.
pub(crate) fn names(der: &[u8]) -> Option<(String, String)> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
    Some((text(certificate.subject()), text(certificate.issuer())))
}

/// The last part comes first.
fn text(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let part = |part: &x509_parser::x509::RelativeDistinguishedName<'_>| {
        let attributes = part.iter().map(|attribute| {
            format!(
                "{}={}",
                short(attribute.attr_type()),
                escaped(attribute.as_str().unwrap_or(""))
            )
        });
        attributes.collect::<Vec<_>>().join("+")
    };
    parts.into_iter().rev().map(part).collect::<Vec<_>>().join(",")
}

fn short(oid: &Oid<'_>) -> String {
    let dotted = oid.to_id_string();
    match SHORT.iter().find(|(known, _)| *known == dotted) {
        Some((_, short)) => (*short).to_owned(),
        None => dotted,
    }
}

/// Nothing in a value begins another (RFC 2253 2.4), and nothing another field.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    for (i, c) in value.char_indices() {
        let is_edge = (i == 0 && (c == ' ' || c == '#')) || (i + 1 == value.len() && c == ' ');
        if is_edge || ",+\"\\<>;=".contains(c) {
            text.push('\\');
        }
        match c {
            c if c.is_ascii() && !c.is_ascii_control() => text.push(c),
            c => {
                let mut bytes = [0; 4];
                c.encode_utf8(&mut bytes)
                    .bytes()
                    .for_each(|b| text.push_str(&format!("\\{b:02X}")));
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_cannot_pretend_to_be_another_part() {
        for (value, expected) in [
            ("plain", "plain"),
            ("a,CN=root", "a\\,CN\\=root"),
            (" a ", "\\ a\\ "),
            ("#a", "\\#a"),
            ("a\r\nX: y", "a\\0D\\0AX: y"),
            ("\u{e4}", "\\C3\\A4"),
        ] {
            assert_eq!(escaped(value), expected, "{value:?}");
        }
    }

    #[test]
    fn no_bytes_break_it() {
        for bytes in [&b""[..], b"\x30", b"\x30\x82\xff\xff", &[0xff; 64]] {
            assert_eq!(names(bytes), None);
        }
    }
}
