//! Requests over HTTP/2 at the edge of what is let through, and what is known to go on here alone.

use crate::{
    backends::Front,
    smuggling::over_h2::{AUTHORITY, METHOD, PATH, SCHEME},
    support::frames::Field,
};

/// A request, as frames.
pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) fields: &'static [Field<'static>],
    /// Behind them.
    pub(super) more: &'static [Field<'static>],
    /// In one frame.
    pub(super) body: Option<&'static [u8]>,
    pub(super) trailers: &'static [Field<'static>],
}

/// Front, name of the row, peer that refuses it, and why it goes on here.
pub(super) type Laxer = (Front, &'static str, &'static str, &'static str);

pub(super) const LAXER: &[Laxer] = &[
    (Front::Http2, "host and authority agree", "nginx", AGREE),
    (Front::Http2, "host and authority agree but for letter case", "nginx", AGREE),
    (Front::Http2, "trailers", "nginx", "RFC 9113 8.1; nginx takes none of a request"),
];
const AGREE: &str = "RFC 9113 8.3.1 allows it where both say the same; one Host goes on";

const USUAL: &[Field<'static>] = &[METHOD, SCHEME, AUTHORITY, PATH];
const POST: &[Field<'static>] = &[(b":method", b"POST"), SCHEME, AUTHORITY, PATH];

const fn head(name: &'static str, fields: &'static [Field<'static>]) -> Row {
    Row { name, fields, more: &[], body: None, trailers: &[] }
}

const fn field(name: &'static str, more: &'static [Field<'static>]) -> Row {
    Row { name, fields: USUAL, more, body: None, trailers: &[] }
}

const fn body(
    name: &'static str,
    more: &'static [Field<'static>],
    bytes: &'static [u8],
    trailers: &'static [Field<'static>],
) -> Row {
    Row { name, fields: POST, more, body: Some(bytes), trailers }
}

pub(super) const ROWS: &[Row] = &[
    head("a plain one", USUAL),
    head("scheme https without TLS", &[METHOD, (b":scheme", b"https"), AUTHORITY, PATH]),
    head("scheme ftp", &[METHOD, (b":scheme", b"ftp"), AUTHORITY, PATH]),
    head("scheme with a line end", &[METHOD, (b":scheme", b"http\r\nx: y"), AUTHORITY, PATH]),
    head("scheme with a colon", &[METHOD, (b":scheme", b"http://a/?"), AUTHORITY, PATH]),
    head("a method nobody knows", &[(b":method", b"BREW"), SCHEME, AUTHORITY, PATH]),
    head("method with an underscore", &[(b":method", b"M_SEARCH"), SCHEME, AUTHORITY, PATH]),
    head("empty method", &[(b":method", b""), SCHEME, AUTHORITY, PATH]),
    head("method by a tab", &[(b":method", b"GET\t/"), SCHEME, AUTHORITY, PATH]),
    head("authority with a port", &[METHOD, SCHEME, (b":authority", b"a.example:80"), PATH]),
    head("authority in upper case", &[METHOD, SCHEME, (b":authority", b"A.EXAMPLE"), PATH]),
    head("authority with a last dot", &[METHOD, SCHEME, (b":authority", b"a.example."), PATH]),
    head("authority without port digits", &[METHOD, SCHEME, (b":authority", b"a.example:"), PATH]),
    head("port 0", &[METHOD, SCHEME, (b":authority", b"a.example:0"), PATH]),
    head("port beyond 16 bits", &[METHOD, SCHEME, (b":authority", b"a.example:65536"), PATH]),
    head("port with a sign", &[METHOD, SCHEME, (b":authority", b"a.example:+80"), PATH]),
    head("IPv6 authority", &[METHOD, SCHEME, (b":authority", b"[::1]:80"), PATH]),
    head("half an IPv6 authority", &[METHOD, SCHEME, (b":authority", b"[::1"), PATH]),
    head("two dots in the authority", &[METHOD, SCHEME, (b":authority", b"a..example"), PATH]),
    head("underscore in the authority", &[METHOD, SCHEME, (b":authority", b"a_b.example"), PATH]),
    head("star in the authority", &[METHOD, SCHEME, (b":authority", b"*.example"), PATH]),
    head("encoding in the authority", &[METHOD, SCHEME, (b":authority", b"a%2eexample"), PATH]),
    head("tab in the authority", &[METHOD, SCHEME, (b":authority", b"a.example\t"), PATH]),
    head("NUL in the authority", &[METHOD, SCHEME, (b":authority", b"a.example\0"), PATH]),
    head("host alone", &[METHOD, SCHEME, PATH, (b"host", b"a.example")]),
    head("host and authority agree", &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"a.example")]),
    head(
        "host and authority agree but for letter case",
        &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"A.example")],
    ),
    head(
        "host and authority differ in the port",
        &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"a.example:81")],
    ),
    head("empty host", &[METHOD, SCHEME, AUTHORITY, PATH, (b"host", b"")]),
    head("two slashes", &[METHOD, SCHEME, AUTHORITY, (b":path", b"//b.example/")]),
    head("dot segments", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a/./../b")]),
    head("encoded slash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a%2fb")]),
    head("encoded dots", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a/%2e%2e/b")]),
    head("high bytes in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/\xc3\xa9")]),
    head("tab in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a\tb")]),
    head("DEL in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a\x7fb")]),
    head("control in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a\x01b")]),
    head("NUL in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a\0b")]),
    head("signs in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a\"<>^`{|}b")]),
    head("space in the query", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/?a b")]),
    head("line end in the query", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/?a\r\nX: y")]),
    head("two question marks", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/?a?b")]),
    head("query without path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"?a")]),
    head("fragment in the query", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/?a#b")]),
    head("authority form", &[METHOD, SCHEME, AUTHORITY, (b":path", b"a.example:80")]),
    head(
        "absolute form of the own host",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"http://a.example/")],
    ),
    head(
        "a protocol without CONNECT",
        &[METHOD, SCHEME, AUTHORITY, PATH, (b":protocol", b"websocket")],
    ),
    field("second scheme", &[(b":scheme", b"https")]),
    field("pseudo field in upper case", &[(b":Path", b"/evil")]),
    field("bare colon as a name", &[(b":", b"x")]),
    field("underscore in a name", &[(b"x_forwarded_for", b"192.0.2.1")]),
    field("signs in a name", &[(b"x!#$%&'*+.^`|~-a", b"b")]),
    field("brackets in a name", &[(b"x(a)", b"b")]),
    field("high bytes in a name", &[(b"x-\xff", b"b")]),
    field("NUL in a name", &[(b"x-\0a", b"b")]),
    field("DEL in a name", &[(b"x-\x7f", b"b")]),
    field("tab in a name", &[(b"x\ta", b"b")]),
    field("space behind a name", &[(b"x-a ", b"b")]),
    field("space before a name", &[(b" x-a", b"b")]),
    field("transfer-encoding behind a space", &[(b"transfer-encoding ", b"chunked")]),
    field("an empty value", &[(b"x-a", b"")]),
    field("tab in a value", &[(b"x-a", b"b\tc")]),
    field("high bytes in a value", &[(b"x-a", b"\xff\xfe")]),
    field("control in a value", &[(b"x-a", b"b\x01c")]),
    field("DEL in a value", &[(b"x-a", b"b\x7fc")]),
    field("line end at the end of a value", &[(b"x-a", b"b\r\n")]),
    field("space behind a value", &[(b"x-a", b"b ")]),
    field("te: trailers", &[(b"te", b"trailers")]),
    field("te: Trailers", &[(b"te", b"Trailers")]),
    field("te: trailers and more", &[(b"te", b"trailers, gzip")]),
    field("te twice", &[(b"te", b"trailers"), (b"te", b"gzip")]),
    field("empty te", &[(b"te", b"")]),
    field("empty transfer-encoding", &[(b"transfer-encoding", b"")]),
    field("transfer-encoding: identity", &[(b"transfer-encoding", b"identity")]),
    field("http2-settings", &[(b"http2-settings", b"AAMAAABkAAQAAP__")]),
    field("proxy-authorization", &[(b"proxy-authorization", b"Basic eDp5")]),
    field("trailer", &[(b"trailer", b"content-length")]),
    field("an expectation without body", &[(b"expect", b"100-continue")]),
    field("an unknown expectation", &[(b"expect", b"more")]),
    field("crumbs of a cookie", &[(b"cookie", b"a=1"), (b"cookie", b"b=2")]),
    field("length 0 without body", &[(b"content-length", b"0")]),
    field("length with leading zeros", &[(b"content-length", b"00")]),
    field("length behind a space", &[(b"content-length", b" 0")]),
    body("a body", &[], b"abc", &[]),
    body("an empty body", &[], b"", &[]),
    body("a body of its length", &[(b"content-length", b"3")], b"abc", &[]),
    body("a body of its length, leading zeros", &[(b"content-length", b"003")], b"abc", &[]),
    body("a body and a length of 0", &[(b"content-length", b"0")], b"abc", &[]),
    body("a body longer than announced", &[(b"content-length", b"2")], b"abc", &[]),
    body("a body shorter than announced", &[(b"content-length", b"4")], b"abc", &[]),
    body("an expectation", &[(b"expect", b"100-continue"), (b"content-length", b"3")], b"abc", &[]),
    body("trailers", &[(b"te", b"trailers")], b"abc", &[(b"x-a", b"b")]),
    body("trailers in upper case", &[], b"abc", &[(b"X-A", b"b")]),
    body("trailers with a line end", &[], b"abc", &[(b"x-a", b"b\r\nx-b: c")]),
    body("trailers with a pseudo field", &[], b"abc", &[(b":path", b"/evil")]),
    body("trailers with a length", &[], b"abc", &[(b"content-length", b"9")]),
    body("trailers with a coding", &[], b"abc", &[(b"transfer-encoding", b"chunked")]),
    body("trailers with a host", &[], b"abc", &[(b"host", b"b.example")]),
    body("trailers with connection", &[], b"abc", &[(b"connection", b"x-a")]),
    body("trailers without name", &[], b"abc", &[(b"", b"b")]),
];
