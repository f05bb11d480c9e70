use http::Request;

use super::*;

fn head(
    method: &str,
    uri: &str,
    version: Version,
    fields: &[(&'static str, &str)],
) -> http::request::Parts {
    let mut request = Request::builder().method(method).uri(uri).version(version);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap().into_parts().0
}

#[test]
fn heads_that_peers_read_differently_are_refused() {
    use Refused as R;
    let long_uri = format!("/{}", "a".repeat(9000));
    let host = ("host", "a.example");
    let v = Version::HTTP_11;
    for (name, head, expected) in [
        ("method in lower case", head("get", "/", v, &[host]), R::Malformed),
        ("method in mixed case", head("Trace", "/", v, &[host]), R::Malformed),
        ("method with a sign", head("GET!", "/", v, &[host]), R::Malformed),
        ("method with a digit", head("GET2", "/", v, &[host]), R::Malformed),
        ("CONNECT", head("CONNECT", "a.example:443", v, &[host]), R::Method),
        ("TRACE (cross-site tracing)", head("TRACE", "/", v, &[host]), R::Method),
        ("no Host", head("GET", "/", v, &[]), R::HostMissing),
        ("empty Host", head("GET", "/", v, &[("host", "")]), R::HostInvalid),
        ("two Hosts", head("GET", "/", v, &[host, ("host", "b.example")]), R::HostDuplicate),
        ("the same Host twice", head("GET", "/", v, &[host, host]), R::HostDuplicate),
        ("space in Host", head("GET", "/", v, &[("host", "a b")]), R::HostInvalid),
        ("path in Host", head("GET", "/", v, &[("host", "a/b")]), R::HostInvalid),
        ("user in Host", head("GET", "/", v, &[("host", "x@a.example")]), R::HostInvalid),
        ("list in Host", head("GET", "/", v, &[("host", "a,b")]), R::HostInvalid),
        ("absolute form, other Host", head("GET", "http://b/", v, &[host]), R::HostMismatch),
        ("absolute form, user", head("GET", "http://x@b/", v, &[("host", "x@b")]), R::HostInvalid),
        ("absolute form, no Host", head("GET", "http://b/", v, &[]), R::HostMissing),
        (
            "h2 authority, other Host",
            head("GET", "https://b/", Version::HTTP_2, &[host]),
            R::HostMismatch,
        ),
        ("long target", head("GET", &long_uri, v, &[host]), R::UriTooLong),
        ("dot segments above root", head("GET", "/a/../../b", v, &[host]), R::Path),
        ("encoded NUL", head("GET", "/a%00", v, &[host]), R::Path),
        ("encoded backslash", head("GET", "/a%5c..%5cb", v, &[host]), R::Path),
        ("dot segment with parameter", head("GET", "/a/..;/b", v, &[host]), R::Path),
        ("asterisk form", head("OPTIONS", "*", v, &[host]), R::Path),
        (
            "gzip, chunked",
            head("POST", "/", v, &[host, ("transfer-encoding", "gzip, chunked")]),
            R::TransferCoding,
        ),
        (
            "chunked twice",
            head(
                "POST",
                "/",
                v,
                &[host, ("transfer-encoding", "chunked"), ("transfer-encoding", "chunked")],
            ),
            R::TransferCoding,
        ),
    ] {
        assert_eq!(admit(&head, &Limits::default()).err(), Some(expected), "{name}");
    }
    let fields: Vec<(&'static str, &str)> = (0..100).map(|_| ("x-a", "b")).chain([host]).collect();
    let many = head("GET", "/", v, &fields);
    assert_eq!(admit(&many, &Limits::default()).err(), Some(R::FieldsTooMany));
}

/// What is left of it may be few fields.
#[test]
fn a_head_that_was_not_read_to_its_end_is_refused_whatever_is_left_of_it() {
    let mut head = head("GET", "https://a.example/", Version::HTTP_2, &[]);
    assert!(admit(&head, &Limits::default()).is_ok());
    head.extensions.insert(crate::codec::h2::Oversized);
    assert_eq!(admit(&head, &Limits::default()).err(), Some(Refused::FieldsTooMany));
}

/// Browsers send each name and value of a cookie as a field of its own.
#[test]
fn crumbs_of_a_cookie_count_as_one_field() {
    for (crumbs, others, expected) in [(500, 99, None), (1, 100, Some(Refused::FieldsTooMany))] {
        let crumbs = (0..crumbs).map(|_| ("cookie", "a=b"));
        let fields: Vec<(&'static str, &str)> =
            crumbs.chain((0..others).map(|_| ("x-a", "b"))).collect();
        let head = head("GET", "https://a.example/", Version::HTTP_2, &fields);
        assert_eq!(admit(&head, &Limits::default()).err(), expected);
    }
}

#[test]
fn ordinary_heads_pass_with_their_normal_form() {
    let host = ("host", "A.example:8080");
    let v = Version::HTTP_11;
    for (name, head, expected_host, expected_path) in [
        ("origin form", head("GET", "/x/../y?q", v, &[host]), "a.example", "/y"),
        (
            "absolute form of HTTP/1.0",
            head("GET", "http://a.example/y", Version::HTTP_10, &[]),
            "a.example",
            "/y",
        ),
        (
            "absolute form, same Host",
            head("GET", "http://a.EXAMPLE:8080/y", v, &[host]),
            "a.example",
            "/y",
        ),
        ("h2", head("GET", "https://a.example/y", Version::HTTP_2, &[]), "a.example", "/y"),
        ("HTTP/1.0 health check", head("GET", "/y", Version::HTTP_10, &[]), "", "/y"),
        (
            "chunked",
            head("POST", "/y", v, &[host, ("transfer-encoding", "Chunked")]),
            "a.example",
            "/y",
        ),
        ("WebDAV", head("PROPFIND", "/y", v, &[host]), "a.example", "/y"),
    ] {
        let admitted = admit(&head, &Limits::default()).unwrap();
        assert_eq!(
            (&*admitted.host, &*admitted.path.normal),
            (expected_host, expected_path),
            "{name}"
        );
    }
}

#[test]
fn only_a_plain_websocket_request_is_upgraded() {
    let websocket = ("upgrade", "websocket");
    let upgrade = ("connection", "Upgrade");
    let host = ("host", "a");
    let v = Version::HTTP_11;
    for (name, head, expected) in [
        ("RFC 6455", head("GET", "/", v, &[host, websocket, upgrade]), true),
        (
            "with keep-alive",
            head(
                "GET",
                "/",
                v,
                &[host, ("upgrade", "WebSocket"), ("connection", "keep-alive, Upgrade")],
            ),
            true,
        ),
        ("no Connection", head("GET", "/", v, &[host, websocket]), false),
        ("h2c smuggling", head("GET", "/", v, &[host, ("upgrade", "h2c"), upgrade]), false),
        ("two tokens", head("GET", "/", v, &[host, ("upgrade", "websocket, h2c"), upgrade]), false),
        ("two fields", head("GET", "/", v, &[host, websocket, ("upgrade", "h2c"), upgrade]), false),
        ("POST", head("POST", "/", v, &[host, websocket, upgrade]), false),
        (
            "with a body",
            head("GET", "/", v, &[host, websocket, upgrade, ("content-length", "4")]),
            false,
        ),
        (
            "that says it has none",
            head("GET", "/", v, &[host, websocket, upgrade, ("content-length", "0")]),
            true,
        ),
        (
            "that says so in another way",
            head("GET", "/", v, &[host, websocket, upgrade, ("content-length", "00")]),
            false,
        ),
        (
            "chunked, perhaps none",
            head("GET", "/", v, &[host, websocket, upgrade, ("transfer-encoding", "chunked")]),
            false,
        ),
        ("HTTP/1.0", head("GET", "/", Version::HTTP_10, &[host, websocket, upgrade]), false),
    ] {
        let asked = admit(&head, &Limits::default()).unwrap().websocket;
        assert_eq!(asked, expected.then_some(Websocket::Upgrade), "{name}");
    }
}
