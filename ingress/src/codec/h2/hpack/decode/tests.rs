use super::*;

#[derive(Debug, Default)]
struct Seen(Vec<(String, String)>, usize);

impl Sink for Seen {
    fn take(&mut self, field: &Field, bytes: usize) -> Result<(), Unread> {
        let text = |name: &str, value: &[u8]| {
            (name.to_owned(), String::from_utf8_lossy(value).into_owned())
        };
        self.0.push(match field {
            Field::Method(method) => text(":method", method.as_str().as_bytes()),
            Field::Scheme(scheme) => text(":scheme", scheme.as_str().as_bytes()),
            Field::Authority(authority) => text(":authority", authority.as_str().as_bytes()),
            Field::Path(path) => text(":path", path.as_str().as_bytes()),
            Field::Protocol(protocol) => text(":protocol", protocol.as_bytes()),
            Field::Regular(name, value) => text(name.as_str(), value.as_bytes()),
            Field::Malformed(_) => text("malformed", b""),
        });
        self.1 += bytes;
        Ok(())
    }
}

/// RFC 7541 C.3 and C.4: three requests on one connection, plain and in Huffman's code.
#[test]
fn the_rfc_has_these_requests() {
    let plain: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x0fwww.example.com",
        b"\x82\x86\x84\xbe\x58\x08no-cache",
        b"\x82\x87\x85\xbf\x40\x0acustom-key\x0ccustom-value",
    ];
    let coded: [&[u8]; 3] = [
        b"\x82\x86\x84\x41\x8c\xf1\xe3\xc2\xe5\xf2\x3a\x6b\xa0\xab\x90\xf4\xff",
        b"\x82\x86\x84\xbe\x58\x86\xa8\xeb\x10\x64\x9c\xbf",
        b"\x82\x87\x85\xbf\x40\x88\x25\xa8\x49\xe9\x5b\xa9\x7d\x7f\x89\x25\xa8\x49\xe9\x5b\xb8\xe8\xb4\xbf",
    ];
    let authority = (":authority", "www.example.com");
    let expected: [&[(&str, &str)]; 3] = [
        &[(":method", "GET"), (":scheme", "http"), (":path", "/"), authority],
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/"),
            authority,
            ("cache-control", "no-cache"),
        ],
        &[
            (":method", "GET"),
            (":scheme", "https"),
            (":path", "/index.html"),
            authority,
            ("custom-key", "custom-value"),
        ],
    ];
    for blocks in [plain, coded] {
        let mut decoder = Decoder::new();
        for (block, expected) in blocks.into_iter().zip(expected) {
            let mut seen = Seen::default();
            decoder.decode(block, &mut seen).unwrap();
            let seen: Vec<_> = seen.0.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            assert_eq!(seen, expected);
        }
    }
}

#[test]
fn what_is_malformed_is_passed_on_and_kept_in_the_table() {
    let mut decoder = Decoder::new();
    let mut seen = Seen::default();
    // A capital; a line end in a value; its name again; the same by number.
    let block = b"\x40\x03X-A\x01b\x40\x03x-b\x02\n.\x7e\x01c\xc0\x82";
    decoder.decode(block, &mut seen).unwrap();
    let names: Vec<_> = seen.0.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["malformed", "malformed", "x-b", "malformed", ":method"]);
    assert_eq!(seen.1, 36 + 37 + 36 + 36 + 42);
}

#[test]
fn a_block_that_is_none_is_refused() {
    let long = [&b"\x3f\xe2\x1f"[..]].concat();
    for (name, block) in [
        ("index 0", &b"\x80"[..]),
        ("index behind the table", b"\xbe"),
        ("name behind the table", b"\x7e\x01a"),
        ("size above ours", &long),
        ("size behind a field", b"\x82\x20"),
        ("no value", b"\x41"),
        ("name cut", b"\x40\x05ab"),
        ("value cut", b"\x41\x05ab"),
        ("length without end", b"\x41\x7f\xff\xff\xff\xff\xff\xff"),
        ("Huffman's end", b"\x41\x84\xff\xff\xff\xff"),
    ] {
        let outcome = Decoder::new().decode(block, &mut Seen::default());
        assert_eq!(outcome, Err(Unread::Invalid), "{name}");
    }
}

#[test]
fn room_of_long_text_is_not_kept() {
    let mut code = Vec::new();
    huffman::encode(&[b'a'; 20_000], &mut code);
    let mut block = vec![0, 1, b'a'];
    integer::write(0x80, 7, code.len(), &mut block);
    block.extend(code);
    let mut decoder = Decoder::new();
    let mut seen = Seen::default();
    decoder.decode(&block, &mut seen).unwrap();
    assert_eq!(seen.0[0].1.len(), 20_000);
    assert!(decoder.texts.iter().all(|text| text.capacity() <= KEPT_BYTES_MAX));
}

#[test]
fn sizes_before_the_first_field_are_taken() {
    let mut decoder = Decoder::new();
    let seen = &mut Seen::default();
    decoder.decode(b"\x40\x01a\x01b", seen).unwrap();
    decoder.decode(b"\x20\x3f\xe1\x1f\x82", seen).unwrap();
    assert_eq!(decoder.decode(b"\xbe", seen), Err(Unread::Invalid), "emptied in between");
    decoder.decode(b"\x40\x01a\x01b\xbe", seen).unwrap();
}
