//! Requests that are refused, without their `Connection: close` and empty line.

/// Name, bytes, status. None of them reaches the upstream.
pub(crate) type Attack = (&'static str, &'static [u8], u16);

/// At least as strict as the strictest of nginx, HAProxy, hyper and Pingora, or safely re-framed.
pub(crate) const ATTACKS: &[Attack] = &[
    ("duplicate Host", b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: b.example\r\n", 400),
    ("the same Host twice", b"GET / HTTP/1.1\r\nHost: a.example\r\nHost: a.example\r\n", 400),
    ("no Host", b"GET / HTTP/1.1\r\n", 400),
    ("empty Host", b"GET / HTTP/1.1\r\nHost:\r\n", 400),
    ("bad bytes in Host", b"GET / HTTP/1.1\r\nHost: a.example/../b\r\n", 400),
    ("list in Host", b"GET / HTTP/1.1\r\nHost: a.example, b.example\r\n", 400),
    ("user in Host", b"GET / HTTP/1.1\r\nHost: x@a.example\r\n", 400),
    ("no number as the port", b"GET / HTTP/1.1\r\nHost: a.example:b\r\n", 400),
    ("high bytes in Host", b"GET / HTTP/1.1\r\nHost: a\xff.example\r\n", 400),
    ("absolute form, other Host", b"GET http://b.example/ HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("absolute form, no Host", b"GET http://a.example/ HTTP/1.1\r\n", 400),
    ("absolute form, user info", b"GET http://a.example@b/ HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("method in lower case", b"get / HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("method with a sign", b"GET! / HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("CONNECT", b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n", 405),
    ("TRACE", b"TRACE / HTTP/1.1\r\nHost: a.example\r\n", 405),
    (
        "TE in HTTP/1.0",
        b"POST / HTTP/1.0\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n",
        400,
    ),
    ("TE xchunked", b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: xchunked\r\n", 400),
    (
        "TE chunked, identity",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, identity\r\n",
        400,
    ),
    (
        "TE gzip, chunked",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: gzip, chunked\r\n",
        501,
    ),
    (
        "TE chunked, chunked",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked, chunked\r\n",
        501,
    ),
    (
        "TE behind a vertical tab",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: \x0bchunked\r\n",
        400,
    ),
    (
        "space before colon",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding : chunked\r\n",
        400,
    ),
    (
        "two lengths",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nContent-Length: 4\r\n",
        400,
    ),
    ("list of lengths", b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3, 3\r\n", 400),
    ("signed length", b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: +3\r\n", 400),
    ("negative length", b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: -1\r\n", 400),
    ("hexadecimal length", b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 0x3\r\n", 400),
    ("length of nothing", b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length:\r\n", 400),
    (
        "length beyond 64 bits",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 18446744073709551616\r\n",
        400,
    ),
    (
        "CL.TE",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\r\n\
          Transfer-Encoding: chunked\r\n",
        400,
    ),
    (
        "TE.CL",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\n\
          Content-Length: 6\r\n",
        400,
    ),
    // nginx refuses it, HAProxy goes by the coding.
    (
        "CL.TE, lines by bare LF",
        b"POST / HTTP/1.1\nHost: a.example\nContent-Length: 6\nTransfer-Encoding: chunked\n",
        400,
    ),
    (
        "TE behind a bare LF within a line",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 6\nTransfer-Encoding: chunked\r\n",
        400,
    ),
    (
        "two lengths, one behind a bare LF within a line",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\nContent-Length: 4\r\n",
        400,
    ),
    (
        "the same length twice",
        b"POST / HTTP/1.1\r\nHost: a.example\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
        400,
    ),
    ("fragment in the target", b"GET /a#b HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("space in the target", b"GET /a /b HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("tab before the target", b"GET\t/ HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("space before the first name", b"GET / HTTP/1.1\r\n Host: a.example\r\n", 400),
    ("no name", b"GET / HTTP/1.1\r\nHost: a.example\r\n: b\r\n", 400),
    ("space in a name", b"GET / HTTP/1.1\r\nHost: a.example\r\nX A: b\r\n", 400),
    ("obs-fold", b"GET / HTTP/1.1\r\nHost: a.example\r\nX-A: b\r\n c\r\n", 400),
    ("NUL in a value", b"GET / HTTP/1.1\r\nHost: a.example\r\nX-A: b\0c\r\n", 400),
    ("bare CR in a value", b"GET / HTTP/1.1\r\nHost: a.example\r\nX-A: b\rc\r\n", 400),
    ("HTTP/1.2", b"GET / HTTP/1.2\r\nHost: a.example\r\n", 400),
    ("HTTP/0.9", b"GET /\r\n", 400),
    ("HTTP/2.0 in a request line", b"GET / HTTP/2.0\r\nHost: a.example\r\n", 400),
    ("above the root", b"GET /a/../../b HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("encoded NUL", b"GET /a%00 HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("half an encoding", b"GET /a%2 HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("encoded backslash", b"GET /a%5c..%5cb HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("encoded line end", b"GET /a%0d%0aX:%20y HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("backslash", b"GET /a\\..\\b HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("dot segment with parameter", b"GET /a/..;/b HTTP/1.1\r\nHost: a.example\r\n", 400),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\n", 400),
];
