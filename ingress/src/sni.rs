//! The name a TLS client calls, read from its first message without answering it.

/// A first message is not longer than this; rustls takes no longer one either.
pub const HELLO_BYTES_MAX: usize = 16 << 10;

/// Record and handshake header (RFC 8446 5.1, 4).
const RECORD_HEADER_BYTES: usize = 5;
const RECORD_BYTES_MAX: usize = 16 << 10;
const HANDSHAKE_HEADER_BYTES: usize = 4;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const RANDOM_AND_VERSION_BYTES: usize = 34;
/// RFC 6066 3.
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
const NAME_BYTES_MAX: usize = 255;

/// What the bytes so far are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hello {
    /// The beginning of a first message: more must come.
    Partial,
    /// A whole one; the name in lower case, if it calls one.
    Whole(Option<String>),
    /// None.
    Other,
}

/// Reads the bytes a client began with.
pub fn parse(bytes: &[u8]) -> Hello {
    let mut message = Vec::new();
    let mut rest = bytes;
    loop {
        match next_record(rest) {
            Record::Whole(fragment, after) => {
                message.extend_from_slice(fragment);
                rest = after;
            }
            Record::Partial => return limited(bytes),
            Record::Other => return Hello::Other,
        }
        match message_body(&message) {
            Some(Some(body)) => return hello(body).map_or(Hello::Other, Hello::Whole),
            Some(None) => {}
            None => return Hello::Other,
        }
    }
}

fn limited(bytes: &[u8]) -> Hello {
    if bytes.len() < HELLO_BYTES_MAX { Hello::Partial } else { Hello::Other }
}

enum Record<'a> {
    Whole(&'a [u8], &'a [u8]),
    Partial,
    Other,
}

fn next_record(bytes: &[u8]) -> Record<'_> {
    // What is there must be right even before all of it is.
    if bytes.first().is_some_and(|kind| *kind != HANDSHAKE)
        || bytes.get(1).is_some_and(|major| *major != 3)
    {
        return Record::Other;
    }
    let Some((header, rest)) = bytes.split_at_checked(RECORD_HEADER_BYTES) else {
        return Record::Partial;
    };
    let [.., high, low] = *header else { return Record::Partial };
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length == 0 || length > RECORD_BYTES_MAX {
        return Record::Other;
    }
    match rest.split_at_checked(length) {
        Some((fragment, after)) => Record::Whole(fragment, after),
        None => Record::Partial,
    }
}

/// `None`: no first message. `Some(None)`: not all of it.
fn message_body(message: &[u8]) -> Option<Option<&[u8]>> {
    let Some((header, rest)) = message.split_at_checked(HANDSHAKE_HEADER_BYTES) else {
        return Some(None);
    };
    let [kind, high, middle, low] = *header else { return None };
    let length = u32::from_be_bytes([0, high, middle, low]) as usize;
    if kind != CLIENT_HELLO || length > HELLO_BYTES_MAX {
        return None;
    }
    Some(rest.get(..length))
}

/// `None`: its parts do not add up.
fn hello(body: &[u8]) -> Option<Option<String>> {
    let mut rest = body.get(RANDOM_AND_VERSION_BYTES..)?;
    // Session, suites, compression.
    take8(&mut rest)?;
    take16(&mut rest)?;
    take8(&mut rest)?;
    if rest.is_empty() {
        return Some(None);
    }
    let mut extensions = take16(&mut rest)?;
    while !extensions.is_empty() {
        let kind = number(&mut extensions)?;
        let value = take16(&mut extensions)?;
        if kind == SERVER_NAME {
            return name(value).map(Some);
        }
    }
    Some(None)
}

fn name(value: &[u8]) -> Option<String> {
    let mut rest = value;
    let mut names = take16(&mut rest)?;
    let (kind, after) = names.split_first()?;
    names = after;
    let name = take16(&mut names)?;
    let is_name = |b: &u8| b.is_ascii_alphanumeric() || b"-._".contains(b);
    let is_one = *kind == HOST_NAME
        && rest.is_empty()
        && !name.is_empty()
        && name.len() <= NAME_BYTES_MAX
        && name.iter().all(is_name);
    is_one.then(|| String::from_utf8_lossy(name).to_ascii_lowercase())
}

fn number(rest: &mut &[u8]) -> Option<u16> {
    let (number, after) = rest.split_first_chunk::<2>()?;
    *rest = after;
    Some(u16::from_be_bytes(*number))
}

/// A part with its length in one byte before it.
fn take8<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, after) = rest.split_first()?;
    let (part, after) = after.split_at_checked(usize::from(*length))?;
    *rest = after;
    Some(part)
}

/// The same, in two.
fn take16<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = number(rest)?;
    let (part, after) = rest.split_at_checked(usize::from(length))?;
    *rest = after;
    Some(part)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;

    /// What rustls itself says first.
    fn client_hello(name: &str) -> Vec<u8> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        let name = name.to_owned().try_into().unwrap();
        let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    /// The same message in records of so many bytes.
    fn fragmented(hello: &[u8], size: usize) -> Vec<u8> {
        let records = hello[RECORD_HEADER_BYTES..].chunks(size).map(|part| {
            let length = u16::try_from(part.len()).unwrap().to_be_bytes();
            [&[HANDSHAKE, 3, 1], &length[..], part].concat()
        });
        records.collect::<Vec<_>>().concat()
    }

    #[test]
    fn the_name_is_found_however_the_message_is_cut() {
        let hello = client_hello("Pass.Example");
        let name = Some("pass.example".to_owned());
        assert_eq!(parse(&hello), Hello::Whole(name.clone()));
        for end in 0..hello.len() {
            assert_eq!(parse(&hello[..end]), Hello::Partial, "{end}");
        }
        for size in [1, 5, 100] {
            assert_eq!(parse(&fragmented(&hello, size)), Hello::Whole(name.clone()), "{size}");
        }
        assert_eq!(parse(&client_hello("192.0.2.1")), Hello::Whole(None));
    }

    #[test]
    fn what_is_no_hello_is_told_at_once() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"\x16\x02",
            b"\x15\x03\x01\x00\x02\x02\x28",
            b"\x16\x03\x01\x00\x00",
            b"\x16\x03\x01\xff\xff",
            b"\x16\x03\x01\x00\x04\x02\x00\x00\x00",
            b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        ] {
            assert_eq!(parse(bytes), Hello::Other, "{bytes:?}");
        }
    }

    #[test]
    fn a_hello_that_does_not_end_is_given_up() {
        let mut bytes = Vec::new();
        while bytes.len() < HELLO_BYTES_MAX + 10 {
            bytes.extend_from_slice(b"\x16\x03\x01\x00\x04\x01\x00\x3f\xff");
        }
        assert_eq!(parse(&bytes[..100]), Hello::Partial);
        assert_ne!(parse(&bytes[..HELLO_BYTES_MAX]), Hello::Partial);
    }

    proptest! {
        #[test]
        fn no_bytes_break_it(bytes: Vec<u8>) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_damage_breaks_it(at in 0usize..200, byte: u8) {
            let mut hello = client_hello("a.example");
            if let Some(place) = hello.get_mut(at) {
                *place = byte;
            }
            let _ = parse(&hello);
        }
    }
}
