use super::{super::front::Scheme, *};

fn origin() -> Origin {
    Origin { client: HeaderValue::from_static("192.0.2.7"), port: HeaderValue::from_static("443") }
}

fn edited(policy: ForwardedHeaders, fields: &[(&'static str, &'static str)]) -> HeaderMap {
    edited_by(&Front { scheme: Scheme::Https, port: None, host: None }, policy, fields)
}

fn edited_by(
    front: &Front,
    policy: ForwardedHeaders,
    fields: &[(&'static str, &'static str)],
) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(*name, HeaderValue::from_static(value));
    }
    let host = HeaderValue::from_static("a.example:443");
    let origin = origin();
    let edit = Edit {
        vhost: None,
        prefix: None,
        closes: false,
        origin: &origin,
        front,
        host: &host,
        policy,
        named: (policy == ForwardedHeaders::Trust).then(|| [198, 51, 100, 1].into()),
        underscores: false,
        websocket: false,
        request_id: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef,
    };
    to_upstream(&mut headers, &edit);
    headers
}

fn list(headers: &HeaderMap, name: &str) -> Vec<String> {
    headers.get_all(name).iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[test]
fn an_upstream_learns_who_asked_for_what() {
    let headers = edited(ForwardedHeaders::Replace, &[("accept", "*/*")]);
    for (name, value) in [
        ("accept", "*/*"),
        ("host", "a.example:443"),
        ("x-real-ip", "192.0.2.7"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-host", "a.example:443"),
        ("x-forwarded-port", "443"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-scheme", "https"),
        ("x-scheme", "https"),
        ("x-request-id", "0123456789abcdef0123456789abcdef"),
    ] {
        assert_eq!(list(&headers, name), [value], "{name}");
    }
    assert_eq!(headers.len(), 10);
}

#[test]
fn a_request_without_an_id_of_its_own_gets_one() {
    let (long, longest) = ("x".repeat(129), "x".repeat(128));
    let (long, longest): (&'static str, &'static str) = (long.leak(), longest.leak());
    let own = "0123456789abcdef0123456789abcdef";
    for (sent, expected) in [("", own), ("a", "a"), (longest, longest), (long, own)] {
        let headers = edited(ForwardedHeaders::Replace, &[("x-request-id", sent)]);
        assert_eq!(list(&headers, "x-request-id"), [expected], "{sent:?}");
    }
}

#[test]
fn spoofed_forwarding_fields_do_not_get_through() {
    let headers = edited(
        ForwardedHeaders::Replace,
        &[
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-for", "10.0.0.2"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-host", "evil"),
            ("x-real-ip", "10.0.0.1"),
            ("x_forwarded_for", "10.0.0.1"),
            ("x_real_ip", "10.0.0.1"),
            ("forwarded", "for=10.0.0.1"),
            ("proxy", "http://evil"),
        ],
    );
    assert_eq!(list(&headers, "x-forwarded-for"), ["192.0.2.7"]);
    assert_eq!(list(&headers, "x-original-forwarded-for"), ["10.0.0.1, 10.0.0.2"]);
    assert_eq!(list(&headers, "x-original-forwarded-host"), ["evil"]);
    assert_eq!(list(&headers, "x-forwarded-proto"), ["https"]);
    assert_eq!(list(&headers, "x-forwarded-host"), ["a.example:443"]);
    assert_eq!(list(&headers, "x-real-ip"), ["192.0.2.7"]);
    for gone in ["x_forwarded_for", "x_real_ip", "forwarded", "proxy"] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn spoofed_what_was_claimed_before_is_not_believed_either() {
    use ForwardedHeaders::{Replace, Trust};
    for (name, value, is_kept_of_a_balancer) in [
        // It is what this request claims, whoever is believed.
        ("x-original-forwarded-for", "10.0.0.1", false),
        ("x-original-forwarded-host", "evil", true),
        ("forwarded", "for=10.0.0.1", true),
    ] {
        for (policy, is_kept) in [(Replace, false), (Trust, is_kept_of_a_balancer)] {
            let headers = edited(policy, &[(name, value)]);
            assert_eq!(headers.contains_key(name), is_kept, "{policy:?} {name}");
        }
    }
}

/// ingress-nginx: buildForwardedFor, whoever is believed.
#[test]
fn an_endpoint_sees_what_was_claimed_of_who_asked() {
    use ForwardedHeaders::{Replace, Trust};
    for (claimed, expected, believed) in [
        (&[][..], &[][..], "192.0.2.7"),
        (&[""], &[], "192.0.2.7"),
        (&["10.0.0.1"], &["10.0.0.1"], "10.0.0.1, 192.0.2.7"),
        (&["10.0.0.1", "10.0.0.2"], &["10.0.0.1, 10.0.0.2"], "10.0.0.1, 10.0.0.2, 192.0.2.7"),
    ] {
        let fields: Vec<_> = claimed.iter().map(|value| ("x-forwarded-for", *value)).collect();
        for (policy, forwarded_for) in [(Replace, "192.0.2.7"), (Trust, believed)] {
            let headers = edited(policy, &fields);
            let case = format!("{policy:?} {claimed:?}");
            assert_eq!(list(&headers, "x-original-forwarded-for"), expected, "{case}");
            assert_eq!(list(&headers, "x-forwarded-for"), [forwarded_for], "{case}");
        }
    }
}

#[test]
fn an_answers_hop_by_hop_fields_end_here_too() {
    for (gone, value) in [
        ("connection", "close"),
        ("keep-alive", "timeout=5"),
        ("transfer-encoding", "chunked"),
        ("proxy-authenticate", "Basic"),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert(gone, HeaderValue::from_static(value));
        headers.insert("etag", HeaderValue::from_static("x_y"));
        to_client(&mut headers);
        assert_eq!(headers.keys().collect::<Vec<_>>(), ["etag"], "{gone}");
    }
}

#[test]
fn a_trusted_balancer_is_believed_and_appended_to() {
    let host = Some(Box::new(HeaderValue::from_static("b.example")));
    let headers = edited_by(
        &Front { scheme: Scheme::Http, port: Some(8080), host },
        ForwardedHeaders::Trust,
        &[
            ("x-forwarded-for", "198.51.100.1"),
            // What is made of it is known: whatever else was sent says nothing.
            ("x-forwarded-proto", "http, https"),
            ("x-forwarded-port", "8080"),
            ("x-forwarded-port", "1"),
            ("x-forwarded-host", "b.example"),
            ("x-scheme", "https"),
            // Not every balancer takes it off.
            ("x-real-ip", "10.0.0.1"),
        ],
    );
    assert_eq!(list(&headers, "x-real-ip"), ["198.51.100.1"]);
    assert_eq!(list(&headers, "x-forwarded-for"), ["198.51.100.1, 192.0.2.7"]);
    for name in ["x-forwarded-proto", "x-forwarded-scheme", "x-scheme"] {
        assert_eq!(list(&headers, name), ["http"], "{name}");
    }
    assert_eq!(list(&headers, "x-forwarded-port"), ["8080"]);
    assert_eq!(list(&headers, "x-forwarded-host"), ["b.example"]);
    assert_eq!(list(&headers, "host"), ["a.example:443"]);
}

#[test]
fn hop_by_hop_fields_end_here() {
    let headers = edited(
        ForwardedHeaders::Replace,
        &[
            ("connection", "keep-alive, X-Secret"),
            ("x-secret", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic x"),
            ("te", "gzip"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("expect", "100-continue"),
        ],
    );
    for gone in [
        "connection",
        "x-secret",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "transfer-encoding",
        "upgrade",
        "expect",
    ] {
        assert!(!headers.contains_key(gone), "{gone}");
    }
}

#[test]
fn connection_cannot_take_away_what_identifies_a_request() {
    let headers = edited(
        ForwardedHeaders::Replace,
        &[
            ("connection", "host, x-forwarded-proto, x-forwarded-for, x-real-ip, authorization"),
            ("connection", "content-length, cookie, TraceParent"),
            ("traceparent", "00-1-2-01"),
            ("authorization", "Bearer x"),
            ("content-length", "3"),
            ("cookie", "a=b"),
        ],
    );
    for (name, value) in [
        ("host", "a.example:443"),
        ("authorization", "Bearer x"),
        ("content-length", "3"),
        ("cookie", "a=b"),
        ("traceparent", "00-1-2-01"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-real-ip", "192.0.2.7"),
    ] {
        assert_eq!(list(&headers, name), [value], "{name}");
    }
}

#[test]
fn trailers_and_websockets_are_asked_for_anew() {
    let headers = edited(ForwardedHeaders::Replace, &[("te", "trailers, deflate")]);
    assert_eq!(
        (list(&headers, "te"), list(&headers, "connection")),
        (vec!["trailers".to_owned()], vec!["te".to_owned()])
    );
}

#[test]
fn cookies_are_one_field() {
    for (cookies, expected) in [
        (&[("cookie", "a=1")][..], "a=1"),
        (&[("cookie", "a=1"), ("cookie", "b=2; c=3")], "a=1; b=2; c=3"),
    ] {
        let headers = edited(ForwardedHeaders::Replace, cookies);
        assert_eq!(list(&headers, "cookie"), [expected]);
    }
}
