//! TLS to endpoints: encrypted always, verified when asked for.

use std::sync::Arc;

use fairlead_state::{Object, model::Ingress};
use http::Response;
use http_body_util::Full;
use hyper::{body::Bytes, server::conn, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, GeneralSubtree, IsCa, KeyPair, NameConstraints,
};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    server::WebPkiClientVerifier,
    sign::SingleCertAndKey,
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::TlsAcceptor;

use crate::{
    support::{
        World,
        client::{Answer, get, identity, raw, read_until},
        objects::{Authority, IngressExt, backend, ingress, opaque, opaque_in, secret_ref},
        upstream::{Counts, Upstream},
    },
    version1::{sign_version_1, version_1},
};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";
const NAME: &str = "web.default.svc";
/// PEM, and nothing in it.
const ODD_KEY: &str = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";

/// Who an endpoint shows itself as, and whom it lets in.
fn server(authority: &Authority, names: &[&str], clients: Option<&Authority>) -> ServerConfig {
    let (certificate, key) = authority.issue(names);
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(clients.der()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// The same, for somebody who shows any certificate with any key, by these versions alone.
fn showing(
    identity: Arc<SingleCertAndKey>,
    versions: &[&'static SupportedProtocolVersion],
) -> ServerConfig {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ServerConfig::builder_with_provider(provider);
    let builder = builder.with_protocol_versions(versions).unwrap();
    let mut config = builder.with_no_client_auth().with_cert_resolver(identity);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    config
}

/// Answers with the name it was asked for (SNI) and the protocol.
async fn endpoint(config: ServerConfig) -> Upstream {
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Upstream::raw(move |stream, counts: Arc<Counts>| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(mut stream) = acceptor.accept(stream).await else { return };
            let tls = stream.get_ref().1;
            let is_h2 = tls.alpn_protocol() == Some(b"h2");
            let seen = format!("{} {}", tls.server_name().unwrap_or("-"), is_h2);
            if !is_h2 && seen.starts_with("websocket") {
                read_until(&mut stream, "\r\n\r\n").await;
                let agreed = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\
                               Connection: Upgrade\r\n\r\n";
                stream.write_all(agreed).await.unwrap();
                let (mut reading, mut writing) = tokio::io::split(stream);
                let _ = tokio::io::copy(&mut reading, &mut writing).await;
                return;
            }
            let service = service_fn(move |_| {
                counts.request();
                let answer = Response::new(Full::new(Bytes::from(seen.clone())));
                async { Ok::<_, std::convert::Infallible>(answer) }
            });
            let io = TokioIo::new(stream);
            if is_h2 {
                let server = conn::http2::Builder::new(TokioExecutor::new());
                let _ = server.serve_connection(io, service).await;
            } else {
                let _ = conn::http1::Builder::new().serve_connection(io, service).await;
            }
        }
    })
    .await
}

pub(crate) fn pem(authority: &Authority) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(authority.der());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

fn https(annotations: &[(&str, &str)]) -> Ingress {
    let all = [("backend-protocol", "HTTPS")].into_iter().chain(annotations.iter().copied());
    all.fold(ingress("web").host("a.example", "web"), |ingress, (name, value)| {
        ingress.annotation(&format!("{PREFIX}{name}"), value)
    })
}

async fn asked(upstream: &Upstream, ingress: Ingress, secrets: Vec<Object>) -> (Answer, World) {
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress.object());
    objects.extend(secrets);
    let world = World::single(objects).await;
    (get(world.http(), "a.example", "/").await, world)
}

/// CVE-2025-66491 was this table upside down.
#[tokio::test]
async fn cve_2025_66491_a_certificate_counts_if_and_only_if_it_is_to_be_verified() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let ca = opaque("ca", &[("ca.crt", &pem(&authority))]);
    for (name, config, verified) in [
        ("right", server(&authority, &[NAME], None), 200),
        ("of another name", server(&authority, &["other.default.svc"], None), 502),
        ("of another authority", server(&stranger, &[NAME], None), 502),
        ("of no name", server(&authority, &[], None), 502),
    ] {
        let upstream = endpoint(config).await;
        for (verify, expected) in [(None, 200), (Some("off"), 200), (Some("on"), verified)] {
            let mut annotations = vec![("proxy-ssl-secret", "default/ca")];
            annotations.extend(verify.map(|verify| ("proxy-ssl-verify", verify)));
            let reached = upstream.requests();
            let (answer, world) = asked(&upstream, https(&annotations), vec![ca.clone()]).await;
            assert_eq!(answer.status, expected, "{name}, verify {verify:?}");
            assert_eq!(upstream.requests() - reached, usize::from(expected == 200), "{name}");
            let failures = world.running.counters().upstream_tls_failures;
            assert_eq!(failures > 0, expected != 200, "{name}, verify {verify:?}");
        }
    }
}

/// `openssl x509 -req` writes them, and OpenSSL takes them.
#[tokio::test]
async fn bug_a_certificate_of_version_1_is_taken_from_whoever_has_its_key_where_none_is_verified() {
    let authority = Authority::new();
    let ((certificate, key), (_, other)) = (authority.issue(&[NAME]), authority.issue(&[NAME]));
    let old = version_1(&certificate);
    for version in [&TLS12, &TLS13] {
        for (name, certificate, key, expected) in [
            ("version 3", &certificate, &key, 200),
            ("version 1", &old, &key, 200),
            ("version 3, another's key", &certificate, &other, 502),
            ("version 1, another's key", &old, &other, 502),
        ] {
            for protocol in ["HTTPS", "GRPCS"] {
                let upstream = endpoint(showing(identity(certificate, key), &[version])).await;
                let ingress = https(&[("backend-protocol", protocol)]);
                let (answer, _) = asked(&upstream, ingress, vec![]).await;
                let case = format!("{name}, {protocol}, {version:?}");
                assert_eq!(answer.status, expected, "{case}");
                assert_eq!(upstream.requests(), usize::from(expected == 200), "{case}");
            }
        }
    }
}

/// Certificates of version 1, without alternative names, and ones that are their own authority, as commands
/// of OpenSSL write them.
#[tokio::test]
async fn bug_an_endpoint_is_verified_by_what_openssl_takes() {
    let called = |common: &str, names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params
    };
    let own = |common: &str, year: i32| {
        let mut params = called(common, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let unsigned = |(certificate, key): (String, String)| (version_1(&certificate), key);
    let ours = Authority::named("ours");
    let mut limited = called("limited", &[]);
    limited.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![GeneralSubtree::DnsName("other.svc".into())],
        excluded_subtrees: Vec::new(),
    });
    let limited = Authority::by(limited);
    let (pinned, other, old) = (own(NAME, 2999), own("other.default.svc", 2999), own(NAME, 2021));
    let (signed, alike) = (pem(&ours), pem(&ours) + &pinned.0);
    for (case, entries, (certificate, key), expected) in [
        ("version 1", &signed, sign_version_1(&ours, &called(NAME, &[])), 200),
        ("version 1, another name", &signed, sign_version_1(&ours, &called("b", &[])), 502),
        ("version 1, not signed", &signed, unsigned(ours.sign(&called(NAME, &[]))), 502),
        ("no alternative", &signed, ours.sign(&called(NAME, &[])), 200),
        ("no alternative, a wildcard", &signed, ours.sign(&called("*.default.svc", &[])), 200),
        ("no alternative, another name", &signed, ours.sign(&called("b", &[])), 502),
        ("another alternative", &signed, ours.sign(&called(NAME, &["b"])), 502),
        ("an alternative address", &signed, ours.sign(&called(NAME, &["192.0.2.1"])), 200),
        ("for other names", &pem(&limited), limited.sign(&called(NAME, &[])), 502),
        ("an entry", &alike, pinned.clone(), 200),
        ("an entry of another name", &other.0.clone(), other, 502),
        ("an entry, out of date", &old.0.clone(), old, 502),
        ("an entry's namesake", &alike, own(NAME, 2999), 502),
        ("no entry", &signed, pinned, 502),
    ] {
        let upstream = endpoint(showing(identity(&certificate, &key), &[&TLS13])).await;
        let annotations = [("proxy-ssl-secret", "default/ca"), ("proxy-ssl-verify", "on")];
        let ca = opaque("ca", &[("ca.crt", entries)]);
        let (answer, _) = asked(&upstream, https(&annotations), vec![ca]).await;
        assert_eq!(answer.status, expected, "{case}");
        assert_eq!(upstream.requests(), usize::from(expected == 200), "{case}");
    }
}

#[tokio::test]
async fn bug_a_secrets_certificate_of_version_1_is_ours_to_show() {
    let ours = Authority::new();
    let upstream = endpoint(server(&ours, &[NAME], None)).await;
    let params = CertificateParams::new(vec!["fairlead".to_owned()]).unwrap();
    let (certificate, key) = sign_version_1(&ours, &params);
    let identity = opaque("us", &[("tls.crt", &certificate), ("tls.key", &key)]);
    let with = [("proxy-ssl-secret", "default/us")];
    let (answer, world) = asked(&upstream, https(&with), vec![identity]).await;
    assert_eq!((answer.status, world.reasons("web")), (200, Vec::new()));
}

#[tokio::test]
async fn what_is_to_be_verified_and_cannot_be_is_not_sent() {
    let authority = Authority::new();
    let upstream = endpoint(server(&authority, &[NAME], None)).await;
    let ((certificate, _), (_, other)) = (authority.issue(&["us"]), authority.issue(&["us"]));
    let service = "waiting: Service default/web: TLS to its endpoints:";
    for (name, annotations, reason) in [
        (
            "no Secret named",
            &[("proxy-ssl-verify", "on")][..],
            format!("{service} proxy-ssl-verify needs proxy-ssl-secret, with ca.crt in it"),
        ),
        (
            "no such Secret",
            &[("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "default/none")],
            format!("{service} Secret default/none does not exist"),
        ),
        (
            "no authority in it",
            &[("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "default/empty")],
            format!("{service} Secret default/empty has no entry ca.crt"),
        ),
        (
            "a damaged authority",
            &[("proxy-ssl-verify", "on"), ("proxy-ssl-secret", "default/bad")],
            format!("{service} Secret default/bad: ca.crt holds no certificate"),
        ),
        (
            "another's key",
            &[("proxy-ssl-secret", "default/mixed")],
            format!("{service} Secret default/mixed: tls.key is not the key of tls.crt"),
        ),
        (
            "a damaged key",
            &[("proxy-ssl-secret", "default/odd")],
            format!("{service} Secret default/odd: tls.key cannot be used: unsupported or damaged"),
        ),
        (
            "a name that is none",
            &[("proxy-ssl-name", "a b")],
            format!("{service} proxy-ssl-name \"a b\" is no server name"),
        ),
    ] {
        let secrets = vec![
            opaque("empty", &[]),
            opaque("bad", &[("ca.crt", "x")]),
            opaque("mixed", &[("tls.crt", &certificate), ("tls.key", &other)]),
            opaque("odd", &[("tls.crt", &certificate), ("tls.key", ODD_KEY)]),
        ];
        let (answer, world) = asked(&upstream, https(annotations), secrets).await;
        assert_eq!(answer.status, 503, "{name}");
        assert_eq!(world.reasons("web").last(), Some(&reason), "{name}");
    }
    assert_eq!(upstream.connections(), 0);
}

#[tokio::test]
async fn a_secret_of_another_namespace_is_never_read() {
    let authority = Authority::new();
    let upstream = endpoint(server(&authority, &[NAME], None)).await;
    let annotations = [("proxy-ssl-secret", "other/ca"), ("proxy-ssl-verify", "on")];
    let secrets = vec![opaque_in("other", "ca", &[("ca.crt", &pem(&authority))])];
    let (answer, world) = asked(&upstream, https(&annotations), secrets).await;
    assert_eq!(answer.status, 503);
    let reason = "refused: annotation nginx.ingress.kubernetes.io/proxy-ssl-secret \"other/ca\" \
                  is of another namespace and never read; its paths answer 503 until it is put right";
    assert!(world.reasons("web").contains(&reason.to_owned()), "{:?}", world.reasons("web"));
}

#[tokio::test]
async fn the_name_is_told_when_asked_for() {
    let authority = Authority::new();
    let upstream = endpoint(server(&authority, &["a.internal"], None)).await;
    for (annotations, seen) in [
        (&[][..], "- false"),
        (&[("proxy-ssl-name", "a.internal")], "- false"),
        (&[("proxy-ssl-server-name", "on")], "web.default.svc false"),
        (&[("proxy-ssl-server-name", "on"), ("proxy-ssl-name", "a.internal")], "a.internal false"),
        (&[("backend-protocol", "GRPCS")], "- true"),
    ] {
        let (answer, _world) = asked(&upstream, https(annotations), vec![]).await;
        assert_eq!((answer.status, answer.body.as_str()), (200, seen), "{annotations:?}");
    }
}

#[tokio::test]
async fn the_name_that_is_asked_for_is_the_one_that_is_verified() {
    let authority = Authority::new();
    let upstream = endpoint(server(&authority, &["a.internal"], None)).await;
    let verified = [("proxy-ssl-secret", "default/ca"), ("proxy-ssl-verify", "on")];
    for (more, expected) in [
        (&[][..], 502),
        (&[("proxy-ssl-name", "a.internal")], 200),
        (&[("proxy-ssl-name", "b.internal")], 502),
    ] {
        let annotations = [&verified[..], more].concat();
        let ca = opaque("ca", &[("ca.crt", &pem(&authority))]);
        let (answer, _world) = asked(&upstream, https(&annotations), vec![ca]).await;
        assert_eq!(answer.status, expected, "{more:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_wants_to_know_us_is_shown_the_secrets_certificate() {
    let (authority, ours) = (Authority::new(), Authority::new());
    let upstream = endpoint(server(&authority, &[NAME], Some(&ours))).await;
    let (certificate, key) = ours.issue(&["fairlead"]);
    let identity = opaque("us", &[("tls.crt", &certificate), ("tls.key", &key)]);
    let with = [("proxy-ssl-secret", "default/us")];
    let (answer, _world) = asked(&upstream, https(&with), vec![identity]).await;
    assert_eq!(answer.status, 200);
    let (answer, _world) = asked(&upstream, https(&[]), vec![]).await;
    assert_eq!(answer.status, 502);
}

/// Connections made under the old authority are not used again.
#[tokio::test]
async fn a_changed_authority_counts_from_the_next_request_on() {
    let (old, new) = (Authority::new(), Authority::new());
    let upstream = endpoint(server(&old, &[NAME], None)).await;
    let annotations = [("proxy-ssl-secret", "default/ca"), ("proxy-ssl-verify", "on")];
    let secrets = vec![opaque("ca", &[("ca.crt", &pem(&old))])];
    let (answer, mut world) = asked(&upstream, https(&annotations), secrets).await;
    assert_eq!(answer.status, 200);
    for (authority, expected) in [(&new, 502), (&old, 200)] {
        world.apply(vec![opaque("ca", &[("ca.crt", &pem(authority))])]).await;
        assert_eq!(get(world.http(), "a.example", "/").await.status, expected);
    }
    world.delete(secret_ref("ca")).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 503);
}

#[tokio::test]
async fn bug_a_secret_that_breaks_keeps_its_last_good_form_in_use_until_it_is_deleted() {
    let (old, new) = (Authority::new(), Authority::new());
    let upstream = endpoint(server(&new, &[NAME], None)).await;
    let annotations = [("proxy-ssl-secret", "default/ca"), ("proxy-ssl-verify", "on")];
    let good = |authority: &Authority| opaque("ca", &[("ca.crt", &pem(authority))]);
    let (answer, mut world) = asked(&upstream, https(&annotations), vec![good(&new)]).await;
    assert_eq!(answer.status, 200);
    let ask = async |world: &World| get(world.http(), "a.example", "/").await.status;
    let ((certificate, _), (_, other)) = (new.issue(&["us"]), new.issue(&["us"]));
    let trusted = pem(&new);
    let broken = [
        (opaque("ca", &[]), "default/ca has no entry ca.crt"),
        (opaque("ca", &[("ca.crt", "x")]), "default/ca: ca.crt holds no certificate"),
        (
            opaque("ca", &[("ca.crt", &trusted), ("tls.crt", &certificate), ("tls.key", &other)]),
            "default/ca: tls.key is not the key of tls.crt",
        ),
    ];
    let connections = upstream.connections();
    for (secret, reason) in &broken {
        world.apply(vec![secret.clone()]).await;
        assert_eq!(ask(&world).await, 200, "{reason}");
        let reason = format!(
            "waiting: Service default/web: TLS to its endpoints: Secret {reason}; its last good form \
             is used"
        );
        assert_eq!(world.reasons("web"), [reason]);
    }
    assert_eq!(upstream.connections(), connections, "connections go on as well");
    // What it held last is what counts, also where it lets nobody in.
    for (secret, expected) in [(good(&old), 502), (broken[0].0.clone(), 502), (good(&new), 200)] {
        world.apply(vec![secret]).await;
        assert_eq!(ask(&world).await, expected);
    }
    assert_eq!(world.reasons("web"), Vec::<String>::new());
    world.delete(secret_ref("ca")).await;
    assert_eq!(ask(&world).await, 503);
    world.apply(vec![broken[0].0.clone()]).await;
    assert_eq!(ask(&world).await, 503, "there is nothing to fall back to");
}

/// Anybody in between may end a connection; only the endpoint may say that its answer is whole
/// (RFC 9112 9.8).
#[tokio::test]
async fn attack_a_body_cut_off_without_tls_saying_so_is_cut_off_for_the_client() {
    let authority = Authority::new();
    for is_closed in [true, false] {
        let acceptor = TlsAcceptor::from(Arc::new(server(&authority, &[NAME], None)));
        let upstream = Upstream::raw(move |stream, counts: Arc<Counts>| {
            let acceptor = acceptor.clone();
            async move {
                let mut stream = acceptor.accept(stream).await.unwrap();
                read_until(&mut stream, "\r\n\r\n").await;
                counts.request();
                stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nlet me in if").await.unwrap();
                stream.flush().await.unwrap();
                if is_closed {
                    // close_notify.
                    stream.shutdown().await.unwrap();
                }
            }
        })
        .await;
        let mut objects = backend("web", &[upstream.address]);
        objects.push(https(&[]).object());
        let world = World::single(objects).await;
        let ask = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
        let seen = raw(world.http(), ask).await;
        assert_eq!(seen.ends_with("0\r\n\r\n"), is_closed, "{seen}");
        assert_eq!(upstream.requests(), 1);
    }
}

#[tokio::test]
async fn websockets_pass_through_tls_to_an_endpoint() {
    let authority = Authority::new();
    let upstream = endpoint(server(&authority, &["websocket"], None)).await;
    let annotations = [("proxy-ssl-server-name", "on"), ("proxy-ssl-name", "websocket")];
    let mut objects = backend("web", &[upstream.address]);
    objects.push(https(&annotations).object());
    let world = World::single(objects).await;
    let mut stream = tokio::net::TcpStream::connect(world.http()).await.unwrap();
    let ask = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\n\
                Upgrade: websocket\r\n\r\n";
    stream.write_all(ask).await.unwrap();
    assert!(read_until(&mut stream, "\r\n\r\n").await.starts_with("HTTP/1.1 101 "));
    let (sent, mut received) = (vec![b'x'; 100_000], vec![0; 100_000]);
    let (mut reading, mut writing) = stream.split();
    let (written, read) = tokio::join!(writing.write_all(&sent), reading.read_exact(&mut received));
    written.unwrap();
    read.unwrap();
    assert!(sent == received);
}
