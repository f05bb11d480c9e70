//! Requests over HTTP/2 that are refused.

use crate::support::frames::{
    Field,
    Outcome::{self, Refused, Status},
};

pub(crate) const METHOD: Field<'_> = (b":method", b"GET");
pub(crate) const SCHEME: Field<'_> = (b":scheme", b"http");
pub(crate) const AUTHORITY: Field<'_> = (b":authority", b"a.example");
pub(crate) const PATH: Field<'_> = (b":path", b"/");

/// Name, fields after the usual four, what becomes of it.
pub(crate) type Attack = (&'static str, &'static [Field<'static>], Outcome);

pub(crate) const FIELDS: &[Attack] = &[
    ("upper case in a name", &[(b"X-A", b"b")], Refused),
    ("line end in a name", &[(b"x-a: b\r\nx-b", b"c")], Refused),
    ("space in a name", &[(b"x a", b"b")], Refused),
    ("colon in a name", &[(b"x:a", b"b")], Refused),
    ("no name", &[(b"", b"b")], Refused),
    ("line end in a value", &[(b"x-a", b"b\r\nx-b: c")], Refused),
    ("request in a value", &[(b"x-a", b"b\r\n\r\nGET /evil HTTP/1.1\r\nHost: a\r\n\r\n")], Refused),
    ("LF in a value", &[(b"x-a", b"b\nx-b: c")], Refused),
    ("CR in a value", &[(b"x-a", b"b\rc")], Refused),
    ("NUL in a value", &[(b"x-a", b"b\0c")], Refused),
    ("space before a value", &[(b"x-a", b" b")], Refused),
    ("tab behind a value", &[(b"x-a", b"b\t")], Refused),
    ("transfer-encoding", &[(b"transfer-encoding", b"chunked")], Refused),
    ("connection", &[(b"connection", b"close")], Refused),
    ("keep-alive", &[(b"keep-alive", b"timeout=5")], Refused),
    ("proxy-connection", &[(b"proxy-connection", b"close")], Refused),
    ("upgrade", &[(b"upgrade", b"websocket")], Refused),
    ("te other than trailers", &[(b"te", b"gzip")], Refused),
    ("length without body", &[(b"content-length", b"5")], Refused),
    ("two lengths", &[(b"content-length", b"0"), (b"content-length", b"5")], Refused),
    ("the same length twice", &[(b"content-length", b"0"), (b"content-length", b"0")], Status(400)),
    ("list of lengths", &[(b"content-length", b"0, 0")], Refused),
    ("signed length", &[(b"content-length", b"+0")], Refused),
    ("negative length", &[(b"content-length", b"-1")], Refused),
    ("hexadecimal length", &[(b"content-length", b"0x0")], Refused),
    ("length of nothing", &[(b"content-length", b"")], Refused),
    ("length beyond 64 bits", &[(b"content-length", b"18446744073709551616")], Refused),
    ("another host", &[(b"host", b"b.example")], Status(400)),
    ("the host twice", &[(b"host", b"a.example"), (b"host", b"a.example")], Status(400)),
    ("pseudo field behind others", &[(b"x-a", b"b"), (b":path", b"/evil")], Refused),
    ("second path", &[(b":path", b"/evil")], Refused),
    ("second method", &[(b":method", b"POST")], Refused),
    ("second authority", &[(b":authority", b"b.example")], Refused),
    ("unknown pseudo field", &[(b":evil", b"x")], Refused),
    ("response's pseudo field", &[(b":status", b"200")], Refused),
];

pub(crate) const HEADS: &[Attack] = &[
    ("no method", &[SCHEME, AUTHORITY, PATH], Refused),
    ("no path", &[METHOD, SCHEME, AUTHORITY], Refused),
    ("no scheme", &[METHOD, AUTHORITY, PATH], Refused),
    ("empty scheme", &[METHOD, (b":scheme", b""), AUTHORITY, PATH], Refused),
    ("method in lower case", &[(b":method", b"get"), SCHEME, AUTHORITY, PATH], Status(400)),
    ("method with a sign", &[(b":method", b"GET!"), SCHEME, AUTHORITY, PATH], Status(400)),
    ("no authority, no host", &[METHOD, SCHEME, PATH], Status(400)),
    ("empty authority", &[METHOD, SCHEME, (b":authority", b""), PATH], Refused),
    (
        "user in the authority",
        &[METHOD, SCHEME, (b":authority", b"x@a.example"), PATH],
        Status(400),
    ),
    (
        "list in the authority",
        &[METHOD, SCHEME, (b":authority", b"a.example,b"), PATH],
        Status(400),
    ),
    (
        "high bytes in the authority",
        &[METHOD, SCHEME, (b":authority", b"a\xff.example"), PATH],
        Refused,
    ),
    ("space in the authority", &[METHOD, SCHEME, (b":authority", b"a .example"), PATH], Refused),
    ("path in the authority", &[METHOD, SCHEME, (b":authority", b"a.example/x"), PATH], Refused),
    (
        "request in the method",
        &[(b":method", b"GET / HTTP/1.1\r\nHost: b\r\n\r\nGET"), SCHEME, AUTHORITY, PATH],
        Refused,
    ),
    ("space in the method", &[(b":method", b"GET /evil"), SCHEME, AUTHORITY, PATH], Refused),
    (
        "line end in the path",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/ HTTP/1.1\r\nX: y")],
        Refused,
    ),
    ("space in the path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/ HTTP/1.1")], Refused),
    ("empty path", &[METHOD, SCHEME, AUTHORITY, (b":path", b"")], Refused),
    ("path without slash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"evil")], Refused),
    ("absolute form", &[METHOD, SCHEME, AUTHORITY, (b":path", b"http://b.example/")], Refused),
    ("encoded NUL", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a%00")], Status(400)),
    ("half an encoding", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a%2")], Status(400)),
    ("encoded backslash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a%5c..%5cb")], Status(400)),
    ("encoded line end", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a%0d%0aX:%20y")], Status(400)),
    ("backslash", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a\\..\\b")], Status(400)),
    (
        "dot segment with parameter",
        &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a/..;/b")],
        Status(400),
    ),
    ("above the root", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/../a")], Status(400)),
    (
        "asterisk form",
        &[(b":method", b"OPTIONS"), SCHEME, AUTHORITY, (b":path", b"*")],
        Status(400),
    ),
    ("CONNECT", &[(b":method", b"CONNECT"), (b":authority", b"a.example:443")], Status(405)),
    (
        "extended CONNECT",
        &[(b":method", b"CONNECT"), (b":protocol", b"evil"), SCHEME, AUTHORITY, PATH],
        Status(405),
    ),
    ("TRACE", &[(b":method", b"TRACE"), SCHEME, AUTHORITY, PATH], Status(405)),
    ("fragment", &[METHOD, SCHEME, AUTHORITY, (b":path", b"/a#b")], Refused),
];
