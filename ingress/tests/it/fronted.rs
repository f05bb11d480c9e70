//! Somebody in front ends TLS: how a client asked is known by hearsay, and believed of whom it may be.

use fairlead_ingress::{ForwardedHeaders, IngressConfig, ProxyProtocol};
use fairlead_state::Object;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    annotations::{annotated, site},
    support::{
        World,
        client::{Answer, http1, request, send, tls_on, trusting_anybody},
        config,
        objects::{Authority, IngressExt, backend, ingress, opaque},
        upstream::Upstream,
    },
    upstream_tls::pem,
};

type Fields<'a> = &'a [(&'static str, &'a str)];
/// What it is about, what is said, and the scheme that follows.
type Said<'a> = (&'a str, Fields<'a>, &'a str);

const HTTPS: (&str, &str) = ("x-forwarded-proto", "https");
const HTTP: (&str, &str) = ("x-forwarded-proto", "http");

/// Who is asked who it is: says 401 to strangers, and what it was told of the URL to others.
async fn doorman() -> Upstream {
    Upstream::serve(|request: http::Request<_>| async move {
        let mut response = Response::new(Full::new(Bytes::new()));
        match request.headers().get("x-original-url") {
            Some(url) if request.headers().contains_key("x-token") => {
                response.headers_mut().insert("x-saw-url", url.clone());
            }
            _ => *response.status_mut() = StatusCode::UNAUTHORIZED,
        }
        response
    })
    .await
}

fn sites(upstream: &Upstream, doorman: &Upstream) -> Vec<Object> {
    let authority = Authority::new();
    let url = format!("http://{}/", doorman.address);
    let mut objects = backend("web", &[upstream.address]);
    objects.push(authority.secret("cert", &["section.example"]));
    objects.push(opaque("ca", &[("ca.crt", &pem(&authority))]));
    let signin = ("auth-signin", "https://login.example/start");
    objects.extend(
        [
            site("plain", &[]),
            site("section", &[]).tls(&["section.example"], "cert"),
            site("force", &[("force-ssl-redirect", "true")]),
            site("bare", &[("from-to-www-redirect", "true")]),
            site("root", &[("app-root", "/app")]),
            site("asked", &[("auth-url", &url), signin, ("auth-response-headers", "x-saw-url")]),
            site("sticky", &[("affinity", "cookie")]),
            site("path", &[("permanent-redirect", "/new"), ("use-port-in-redirects", "true")]),
            site("connection", &[("permanent-redirect", "$scheme://$http_host:$server_port/")]),
            site(
                "client",
                &[("permanent-redirect", "$pass_access_scheme://$best_http_host/$pass_port")],
            ),
            site("certified", &[("auth-tls-secret", "default/ca")]).tls(&["certified.example"], ""),
            annotated(
                ingress("certified-force").host("certified-force.example", "web"),
                &[("auth-tls-secret", "default/ca"), ("force-ssl-redirect", "true")],
            ),
        ]
        .map(IngressExt::object),
    );
    objects
}

/// Believed: `None`: nobody, else these networks, or everybody.
fn believing(networks: Option<&[&str]>) -> IngressConfig {
    let trusted = networks.unwrap_or_default().iter();
    IngressConfig {
        forwarded_headers: match networks {
            Some(_) => ForwardedHeaders::Trust,
            None => ForwardedHeaders::Replace,
        },
        trusted_proxies: trusted.map(|network| network.parse().unwrap()).collect(),
        https_redirect_port: Some(443),
        ..config()
    }
}

/// From a connection that begins with these bytes.
async fn ask(
    world: &World,
    (preface, is_tls): (&[u8], bool),
    (host, path): (&str, &str),
    fields: Fields<'_>,
) -> Answer {
    let address = if is_tls { world.https() } else { world.http() };
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(preface).await.unwrap();
    let mut request = request(host, path);
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    let mut sender = match is_tls {
        true => http1(tls_on(stream, host, trusting_anybody()).await.unwrap()).await,
        false => http1(stream).await,
    };
    send(&mut sender, request).await
}

fn location(answer: &Answer) -> Option<&str> {
    answer.headers.get("location").map(|value| value.to_str().unwrap())
}

/// Everything that goes by how the client asked says the same.
async fn goes_by(
    world: &World,
    connection: (&[u8], bool),
    fields: Fields<'_>,
    scheme: &str,
    case: &str,
) {
    let is_https = scheme == "https";
    let ask = async |site, fields| ask(world, connection, (site, "/a"), fields).await;
    for site in ["force.example", "section.example"] {
        let answer = ask(site, fields).await;
        let to = format!("https://{site}/a");
        let expected = if is_https { (200, None) } else { (308, Some(&*to)) };
        assert_eq!((answer.status, location(&answer)), expected, "{case}: {site}");
        // RFC 6797 7.2, and ingress-nginx: it is for whoever ends TLS to say.
        let hsts = answer.headers.contains_key("strict-transport-security");
        assert_eq!(hsts, connection.1 && site == "section.example", "{case}: {site}");
    }
    let answer = ask("www.bare.example", fields).await;
    let to = location(&answer).unwrap();
    assert!(to.starts_with(&format!("{scheme}://bare.example")), "{case}: {to}");
    let answer = ask("asked.example", fields).await;
    let to = format!("https://login.example/start?rd={scheme}://asked.example%2Fa");
    assert_eq!((answer.status, location(&answer)), (302, Some(&*to)), "{case}");
    let known: Vec<_> = fields.iter().copied().chain([("x-token", "1")]).collect();
    let answer = ask("asked.example", &known).await;
    let url = format!("{scheme}://asked.example/a");
    assert_eq!(answer.saw("x-saw-url"), Some(&*url), "{case}");
    let answer = ask("plain.example", fields).await;
    for field in ["x-forwarded-proto", "x-forwarded-scheme", "x-scheme"] {
        assert_eq!(answer.saw(field), Some(scheme), "{case}: {field}");
    }
    let cookie = ask("sticky.example", fields).await.headers["set-cookie"].clone();
    assert_eq!(cookie.to_str().unwrap().contains("; Secure"), is_https, "{case}");
}

#[tokio::test]
async fn whoever_ends_tls_in_front_is_believed_if_it_is_one_that_is_named() {
    let (upstream, doorman) = (Upstream::echo("web").await, doorman().await);
    const US: Option<&[&str]> = Some(&["127.0.0.0/8"]);
    const EVERYBODY: Option<&[&str]> = Some(&[]);
    const ALL: Option<&[&str]> = Some(&["0.0.0.0/0"]);
    const OTHERS: Option<&[&str]> = Some(&["192.0.2.0/24"]);
    let named = ("x-forwarded-for", "203.0.113.9, 127.0.0.5");
    let appended = ("x-forwarded-for", "203.0.113.9");
    let list = |text: &'static str| ("x-forwarded-proto", text);
    let believed: [(_, &[Said<'_>]); 5] = [
        (None, &[("nobody is believed", &[HTTPS], "http")]),
        (OTHERS, &[("attack: a stranger says that he came by HTTPS", &[HTTPS], "http")]),
        (EVERYBODY, &[("HTTPS", &[HTTPS], "https"), ("nothing is said", &[], "http")]),
        (
            ALL,
            &[
                ("HTTPS", &[HTTPS], "https"),
                ("attack: before what a balancer has added", &[HTTPS, HTTP, appended], "http"),
            ],
        ),
        (
            US,
            &[
                ("HTTPS", &[HTTPS], "https"),
                ("HTTP", &[HTTP], "http"),
                ("nothing is said", &[], "http"),
                ("in capitals", &[list("HTTPS")], "https"),
                ("a WebSocket's", &[list("wss")], "https"),
                ("attack: neither turns a redirect off", &[list("on")], "http"),
                ("attack: nothing turns no redirect off", &[list("")], "http"),
                ("attack: nor does what is no list", &[list("https http")], "http"),
                ("attack: before what a balancer has added", &[HTTPS, HTTP, appended], "http"),
                ("attack: the same in one field", &[list("https,http")], "http"),
                ("the balancer has the last word", &[list("http,https"), appended], "https"),
                ("two balancers that are named", &[list("https,http"), named], "https"),
                ("two, and the client came by HTTP", &[list("http, https"), named], "http"),
                ("two, and the second one adds nothing", &[HTTPS, named], "https"),
                ("attack: before two", &[list("https, http, https"), named], "http"),
            ],
        ),
    ];
    for (believed, cases) in believed {
        let world = World::with(believing(believed), sites(&upstream, &doorman)).await;
        for (case, fields, scheme) in cases {
            let case = format!("{believed:?}: {case}");
            goes_by(&world, (b"", false), fields, scheme, &case).await;
        }
    }
}

#[tokio::test]
async fn whoever_begins_tls_in_front_is_believed_too() {
    let (upstream, doorman) = (Upstream::echo("web").await, doorman().await);
    for (believed, scheme) in [(Some(&["127.0.0.0/8"][..]), "http"), (None, "https")] {
        let world = World::with(believing(believed), sites(&upstream, &doorman)).await;
        goes_by(&world, (b"", true), &[HTTP], scheme, "HTTP in front").await;
        goes_by(&world, (b"", true), &[], "https", "nothing is said").await;
    }
}

fn v1(port: u16) -> Vec<u8> {
    format!("PROXY TCP4 203.0.113.7 198.51.100.2 40000 {port}\r\n").into_bytes()
}

fn v2(port: u16) -> Vec<u8> {
    let mut header =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x07\xc6\x33\x64\x02\x9c\x40".to_vec();
    header.extend(port.to_be_bytes());
    header
}

#[tokio::test]
async fn a_proxy_header_says_https_by_its_port() {
    let (upstream, doorman) = (Upstream::echo("web").await, doorman().await);
    let of = |trusted: &str| {
        Some(ProxyProtocol { trusted: [trusted.parse().unwrap()].into_iter().collect() })
    };
    let (us, others) = (of("127.0.0.0/8"), of("192.0.2.0/24"));
    let behind = Some(&["203.0.113.0/24"][..]);
    const EVERYBODY: Option<&[&str]> = Some(&[]);
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    for (case, proxy_protocol, believed, preface, fields, scheme) in [
        ("version 1, 443", &us, None, v1(443), &[][..], "https"),
        ("version 1, 80", &us, None, v1(80), &[], "http"),
        ("version 1, another port", &us, None, v1(8443), &[], "http"),
        ("version 2, 443", &us, None, v2(443), &[], "https"),
        ("version 2, 80", &us, None, v2(80), &[], "http"),
        ("a health check of the balancer's own", &us, None, local, &[], "http"),
        ("unknown", &us, None, b"PROXY UNKNOWN\r\n".to_vec(), &[], "http"),
        ("attack: a stranger's header", &others, None, v1(443), &[], "http"),
        ("attack: a stranger behind a balancer", &us, EVERYBODY, v1(80), &[HTTPS], "http"),
        ("a balancer behind another", &us, behind, v1(80), &[HTTPS], "https"),
        // ingress-nginx asks the PROXY header last.
        ("443 has the last word", &us, behind, v1(443), &[HTTP], "https"),
    ] {
        let proxy_protocol = proxy_protocol.clone();
        let config = IngressConfig { proxy_protocol, ..believing(believed) };
        let world = World::with(config, sites(&upstream, &doorman)).await;
        goes_by(&world, (&preface, false), fields, scheme, case).await;
        if fields.is_empty() {
            goes_by(&world, (&preface, true), fields, "https", case).await;
        }
    }
}

/// A PROXY header names a client, who is no balancer: what he says of himself reached endpoints as if he were believed.
#[tokio::test]
async fn attack_a_stranger_behind_a_balancer_adds_nobody_to_who_asked() {
    let (upstream, doorman) = (Upstream::echo("web").await, doorman().await);
    let trusted = ["127.0.0.0/8".parse().unwrap()].into_iter().collect();
    let proxy_protocol = Some(ProxyProtocol { trusted });
    const EVERYBODY: Option<&[&str]> = Some(&[]);
    let behind = Some(&["203.0.113.0/24"][..]);
    let claims: Fields<'_> = &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1")];
    for (believed, expected) in
        [(EVERYBODY, "203.0.113.7"), (behind, "192.0.2.1, 203.0.113.7"), (None, "203.0.113.7")]
    {
        let proxy_protocol = proxy_protocol.clone();
        let config = IngressConfig { proxy_protocol, ..believing(believed) };
        let world = World::with(config, sites(&upstream, &doorman)).await;
        let answer = ask(&world, (&v1(80), false), ("plain.example", "/"), claims).await;
        assert_eq!(answer.saw("x-forwarded-for"), Some(expected), "{believed:?}");
        assert_eq!(answer.saw("x-original-forwarded-for"), Some("192.0.2.1"), "{believed:?}");
        assert_eq!(answer.saw("forwarded").is_some(), believed == behind, "{believed:?}");
    }
}

#[tokio::test]
async fn the_host_and_the_port_a_client_used_are_told_likewise() {
    let (upstream, doorman) = (Upstream::echo("web").await, doorman().await);
    let us = World::with(believing(Some(&["127.0.0.0/8"])), sites(&upstream, &doorman)).await;
    let nobody = World::with(believing(None), sites(&upstream, &doorman)).await;
    let port = us.http().port();
    let (host, told_port) = ("x-forwarded-host", "x-forwarded-port");
    let plain = "plain.example";
    for (fields, told, told_port) in [
        (&[(host, "b.example:8443"), (told_port, "8443")][..], "b.example:8443", 8443),
        (&[], plain, port),
        (&[(host, "evil.example, b.example"), (told_port, "1, 8443")], "b.example", 8443),
        (&[(host, "b.example/evil"), (told_port, "0")], plain, port),
        (&[(host, ""), (told_port, "https")], plain, port),
    ] {
        let answer = ask(&us, (b"", false), (plain, "/"), fields).await;
        assert_eq!(answer.saw("x-forwarded-host"), Some(told), "{fields:?}");
        assert_eq!(answer.saw("x-forwarded-port"), Some(&*told_port.to_string()), "{fields:?}");
        // What is matched is what is forwarded.
        assert_eq!(answer.saw("host"), Some(plain), "{fields:?}");
        let answer = ask(&nobody, (b"", false), (plain, "/"), fields).await;
        assert_eq!(answer.saw("x-forwarded-host"), Some(plain), "attack: {fields:?}");
    }
    let said: Fields<'_> = &[HTTPS, (host, "B.example:8443"), (told_port, "8443")];
    let by_port: Fields<'_> = &[HTTPS, (told_port, "8443")];
    let own = format!("http://connection.example:{port}/");
    for (site, path, fields, expected) in [
        ("force", "/a", &[(host, "B.example:8080")][..], "https://b.example/a"),
        ("www.bare", "/a", by_port, "https://bare.example:8443/a"),
        ("www.bare", "/a", &[HTTPS], "https://bare.example/a"),
        ("root", "/", said, "https://root.example/app"),
        ("path", "/", said, "https://path.example:8443/new"),
        ("path", "/", &[HTTPS], "https://path.example/new"),
        ("connection", "/", said, &own),
        ("client", "/", said, "https://B.example:8443/8443"),
    ] {
        let host = format!("{site}.example");
        let answer = ask(&us, (b"", false), (&host, path), fields).await;
        assert_eq!(location(&answer), Some(expected), "{site} {fields:?}");
    }
}

#[tokio::test]
async fn attack_hearsay_of_https_is_no_certificate() {
    let (upstream, doorman) = (Upstream::echo("web").await, doorman().await);
    let world = World::with(believing(Some(&["127.0.0.0/8"])), sites(&upstream, &doorman)).await;
    for site in ["certified.example", "certified-force.example"] {
        for (fields, status) in [(&[][..], 308), (&[HTTPS], 403)] {
            let answer = ask(&world, (b"", false), (site, "/"), fields).await;
            assert_eq!(answer.status, status, "{site} {fields:?}");
        }
    }
    assert_eq!(upstream.requests(), 0);
}
