//! Certificates by SNI, and their change while connections live.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use fairlead_ingress::IngressConfig;
use fairlead_state::{Change, Key, Object, model::PathType};
use rustls::{
    HandshakeKind, NamedGroup,
    client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue},
};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};

use crate::{
    annotations::annotated,
    support::{
        World,
        client::{get, http1, request, send, tls, trusting, trusting_anybody},
        config,
        objects::{Authority, IngressExt, backend, ingress, secret, secret_ref},
        upstream::Upstream,
    },
    version1::sign_version_1,
};

/// The certificate shown for a name.
pub(crate) async fn shown(world: &World, name: &str) -> CertificateDer<'static> {
    let stream = tls(world.https(), name, trusting_anybody()).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

/// GET by HTTPS, verifying the certificate.
pub(crate) async fn verified(
    world: &World,
    authority: &Authority,
    name: &str,
) -> Result<u16, std::io::Error> {
    let stream = tls(world.https(), name, trusting(authority.der(), &["http/1.1"])).await?;
    let mut sender = http1(stream).await;
    Ok(send(&mut sender, request(name, "/")).await.status)
}

fn site(name: &str, host: &str, tls_hosts: &[&str], secret: &str) -> Object {
    ingress(name).host(host, "web").tls(tls_hosts, secret).object()
}

#[tokio::test]
async fn a_name_gets_its_own_certificate_then_a_wildcard_then_the_default() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        authority.secret("one", &["one.site.example"]),
        authority.secret("wild", &["*.site.example"]),
        authority.secret("default", &["default.test"]),
        site("one", "one.site.example", &["one.site.example"], "one"),
        site("wild", "*.site.example", &["*.site.example"], "wild"),
    ]);
    let key = Key::new("default", "default");
    let config = IngressConfig { default_certificate: Some(key), ..config() };
    let world = World::with(config, objects).await;
    for name in ["one.site.example", "two.site.example", "ONE.site.example"] {
        assert_eq!(verified(&world, &authority, name).await.unwrap(), 200, "{name}");
    }
    assert_ne!(shown(&world, "one.site.example").await, shown(&world, "two.site.example").await);
    assert_eq!(shown(&world, "two.site.example").await, shown(&world, "three.site.example").await);
    // Exactly one label; anything else, and a client without SNI, gets the default one.
    let default = shown(&world, "default.test").await;
    assert_eq!(shown(&world, "a.b.site.example").await, default);
    assert_eq!(shown(&world, "127.0.0.1").await, default);
    assert_eq!(verified(&world, &authority, "default.test").await.unwrap(), 404);
    assert_eq!(world.running.status().certificates, 2);
}

#[tokio::test]
async fn ends_of_certificates_are_told_by_name_and_follow_their_secrets() {
    let authority = Authority::new();
    let tls =
        |name: &str| site(name, &format!("{name}.example"), &[&format!("{name}.example")], name);
    let objects = vec![
        authority.secret("a", &["a.example"]),
        authority.secret("default", &["default.test"]),
        tls("a"),
        tls("missing"),
    ];
    let key = Key::new("default", "default");
    let config = IngressConfig { default_certificate: Some(key), ..config() };
    let mut world = World::with(config, objects).await;
    let ends = world.running.expiry_meter();
    let told = || {
        let told = ends().into_iter().map(|expiry| {
            assert!(expiry.expires_seconds > 1_700_000_000, "{expiry:?}");
            (expiry.host, expiry.secret.name.to_string())
        });
        told.collect::<Vec<_>>()
    };
    let pair = |host: &str, secret: &str| (host.to_owned(), secret.to_owned());
    assert_eq!(told(), [pair("_", "default"), pair("a.example", "a")]);
    world.delete(secret_ref("default")).await;
    world.apply(vec![authority.secret("missing", &["missing.example"])]).await;
    assert_eq!(told(), [pair("a.example", "a"), pair("missing.example", "missing")]);
}

#[tokio::test]
async fn a_bad_certificate_harms_its_own_host_only_and_says_why() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["a.example"]);
    let (_, other_key) = authority.issue(&["a.example"]);
    let in_default = |name: &str| Key::new("default", name);
    let mut objects = backend("web", &[upstream.address]);
    let no_key = match secret(in_default("no-key"), &certificate, "") {
        Object::Secret(secret) => {
            let mut secret = (*secret).clone();
            secret.data.remove("tls.key");
            Object::Secret(Arc::new(secret))
        }
        other => other,
    };
    objects.extend([
        no_key,
        secret(in_default("no-pem"), "certificate", &key),
        secret(in_default("no-key-pem"), &certificate, "key"),
        secret(in_default("mismatch"), &certificate, &other_key),
        secret(Key::new("other", "elsewhere"), &certificate, &key),
        authority.secret("good", &["good.example"]),
        site("good", "good.example", &["good.example"], "good"),
    ]);
    let cases = [
        ("missing", "Secret default/missing does not exist"),
        ("no-key", "Secret default/no-key has no entry tls.key"),
        ("no-pem", "Secret default/no-pem: tls.crt holds no certificate"),
        (
            "no-key-pem",
            "Secret default/no-key-pem: tls.key holds no private key in PEM (PKCS#8, PKCS#1 or \
             SEC1)",
        ),
        ("mismatch", "Secret default/mismatch: tls.key is not the key of tls.crt"),
        // Of another namespace: never looked at.
        ("elsewhere", "Secret default/elsewhere does not exist"),
    ];
    for (name, _) in cases {
        let host = format!("{name}.example");
        objects.push(site(name, &host, &[&host], name));
    }
    let world = World::new(objects).await;
    let default = shown(&world, "nobody.test").await;
    for (name, reason) in cases {
        assert_eq!(shown(&world, &format!("{name}.example")).await, default, "{name}");
        let reason = format!("waiting: {reason}; the default certificate is served");
        assert_eq!(world.reasons(name), [reason], "{name}");
    }
    assert_eq!(verified(&world, &authority, "good.example").await.unwrap(), 200);
}

/// As `openssl x509 -req` writes it (ingress-nginx, docs/examples/auth/client-certs).
#[tokio::test]
async fn bug_a_certificate_of_version_1_is_shown() {
    let authority = Authority::new();
    let mut params = rcgen::CertificateParams::default();
    params.distinguished_name.push(rcgen::DnType::CommonName, "a.example");
    let (certificate, key) = sign_version_1(&authority, &params);
    let objects = vec![
        secret(Key::new("default", "old"), &certificate, &key),
        site("web", "a.example", &["a.example"], "old"),
    ];
    let world = World::new(objects).await;
    let own = CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap();
    assert_eq!(shown(&world, "a.example").await, own);
    assert_eq!(world.running.expiry_meter()().len(), 1);
    let reasons = world.reasons("web");
    assert!(!reasons.iter().any(|reason| reason.contains("Secret")), "{reasons:?}");
}

#[tokio::test]
async fn a_certificate_changes_while_connections_live_on() {
    let upstream = Upstream::echo("web").await;
    let (old, new) = (Authority::new(), Authority::new());
    let mut objects = backend("web", &[upstream.address]);
    objects.push(old.secret("cert", &["a.example"]));
    objects.push(site("web", "a.example", &["a.example"], "cert"));
    let mut world = World::new(objects).await;

    let stream = tls(world.https(), "a.example", trusting(old.der(), &[])).await.unwrap();
    let mut living = http1(stream).await;
    assert_eq!(send(&mut living, request("a.example", "/")).await.status, 200);

    world.apply(vec![new.secret("cert", &["a.example"])]).await;
    assert!(verified(&world, &old, "a.example").await.is_err());
    assert_eq!(verified(&world, &new, "a.example").await.unwrap(), 200);
    assert_eq!(send(&mut living, request("a.example", "/")).await.status, 200);

    world.delete(secret_ref("cert")).await;
    assert!(verified(&world, &new, "a.example").await.is_err());
    assert_eq!(world.running.status().certificates, 0);
    assert_eq!(send(&mut living, request("a.example", "/")).await.status, 200);
}

/// ingress-nginx: what cannot be read does not replace what could.
#[tokio::test]
async fn a_secret_that_breaks_keeps_its_last_good_certificate_until_it_is_deleted() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let key = || Key::new("default", "cert");
    let (certificate, private) = authority.issue(&["a.example"]);
    let (_, other_private) = authority.issue(&["a.example"]);
    let mut objects = backend("web", &[upstream.address]);
    objects.push(secret(key(), &certificate, &private));
    objects.push(site("web", "a.example", &["a.example"], "cert"));
    // Of the default certificate the same is true.
    objects.push(authority.secret("default", &["default.test"]));
    let default_certificate = Some(Key::new("default", "default"));
    let mut world = World::with(IngressConfig { default_certificate, ..config() }, objects).await;
    let good = shown(&world, "a.example").await;
    for (broken, reason) in [
        (secret(key(), "no PEM", &private), "tls.crt holds no certificate"),
        (secret(key(), &certificate, &other_private), "tls.key is not the key of tls.crt"),
    ] {
        world.apply(vec![broken]).await;
        assert_eq!(shown(&world, "a.example").await, good, "{reason}");
        assert_eq!(verified(&world, &authority, "a.example").await.unwrap(), 200, "{reason}");
        let reason =
            format!("waiting: Secret default/cert: {reason}; its last good certificate is served");
        assert_eq!(world.reasons("web"), [reason]);
    }
    let default = shown(&world, "b.example").await;
    world.apply(vec![secret(Key::new("default", "default"), "no PEM", &private)]).await;
    assert_eq!(shown(&world, "b.example").await, default);
    world.delete(secret_ref("cert")).await;
    assert_eq!(shown(&world, "a.example").await, default);
    // What comes broken after that has nothing to fall back to.
    world.apply(vec![secret(key(), "no PEM", &private)]).await;
    assert_eq!(shown(&world, "a.example").await, default);
    world.apply(vec![secret(key(), &certificate, &private)]).await;
    assert_eq!(shown(&world, "a.example").await, good);
    assert_eq!(world.reasons("web"), Vec::<String>::new());
    // By its name it is the same if nobody saw it gone.
    let remade = [Change::Delete(secret_ref("cert")), Change::Upsert(secret(key(), "no PEM", ""))];
    assert!(world.store.apply(remade));
    world.apply(vec![]).await;
    assert_eq!(shown(&world, "a.example").await, good);
    assert_eq!(world.reasons("web").len(), 1);
}

#[tokio::test]
async fn of_a_broken_secret_that_nobody_names_any_more_nothing_is_kept() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let mut objects = backend("web", &[upstream.address]);
    objects.push(authority.secret("cert", &["a.example", "c.example"]));
    objects.push(site("web", "a.example", &["a.example"], "cert"));
    let mut world = World::new(objects).await;
    let (good, default) = (shown(&world, "a.example").await, shown(&world, "b.example").await);
    world.apply(vec![secret(Key::new("default", "cert"), "no PEM", "no PEM")]).await;
    assert_eq!(shown(&world, "a.example").await, good);
    // An Ingress that changes and goes on naming it.
    let both = ingress("web").host("a.example", "web").host("c.example", "web");
    world.apply(vec![both.tls(&["a.example", "c.example"], "cert").object()]).await;
    assert_eq!(shown(&world, "c.example").await, good);
    world.apply(vec![ingress("web").host("a.example", "web").object()]).await;
    world.apply(vec![site("web", "a.example", &["a.example"], "cert")]).await;
    assert_eq!(shown(&world, "a.example").await, default);
    let reason = "waiting: Secret default/cert: tls.crt holds no certificate; the default \
                  certificate is served";
    assert_eq!(world.reasons("web"), [reason]);
}

#[tokio::test]
async fn the_oldest_ingress_decides_on_a_names_certificate() {
    let upstream = Upstream::echo("web").await;
    let (elder, younger) = (Authority::new(), Authority::new());
    let mut objects = backend("web", &[upstream.address]);
    objects.push(elder.secret("elder", &["a.example"]));
    objects.push(younger.secret("younger", &["a.example"]));
    let mut first = ingress("z").host("a.example", "web").tls(&["a.example"], "elder");
    first.created_seconds = 1;
    let mut second = ingress("a").host("a.example", "web").tls(&["a.example"], "younger");
    second.created_seconds = 2;
    objects.extend([first.object(), second.object()]);
    let mut world = World::new(objects).await;
    assert_eq!(verified(&world, &elder, "a.example").await.unwrap(), 200);
    world.delete(crate::support::objects::ingress_ref("z")).await;
    assert_eq!(verified(&world, &younger, "a.example").await.unwrap(), 200);
}

#[tokio::test]
async fn plain_http_of_a_tls_host_is_redirected_unless_told_not_to() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        ingress("tls").host("tls.example", "web").tls(&["tls.example"], "").object(),
        ingress("all").host("all.example", "web").tls(&[], "").object(),
        ingress("wild").host("a.wild.example", "web").tls(&["*.wild.example"], "").object(),
        ingress("plain").host("plain.example", "web").object(),
        ingress("off")
            .host("off.example", "web")
            .tls(&["off.example"], "")
            .annotation("nginx.ingress.kubernetes.io/ssl-redirect", "false")
            .object(),
    ]);
    objects.push(
        ingress("forced")
            .host("forced.example", "web")
            .annotation("nginx.ingress.kubernetes.io/force-ssl-redirect", "true")
            .object(),
    );
    let world = World::new(objects).await;
    let port = world.https().port();
    for (host, path, location) in [
        ("tls.example", "/a/../x?y=%20z", Some(format!("https://tls.example:{port}/x?y=%20z"))),
        ("TLS.example:80", "/", Some(format!("https://tls.example:{port}/"))),
        ("all.example", "/", Some(format!("https://all.example:{port}/"))),
        ("a.wild.example", "/", Some(format!("https://a.wild.example:{port}/"))),
        ("forced.example", "/", Some(format!("https://forced.example:{port}/"))),
        ("tls.example", "/.well-known/acme-challenge/token", None),
        ("plain.example", "/", None),
        ("off.example", "/", None),
    ] {
        let answer = get(world.http(), host, path).await;
        let seen = answer.headers.get("location").map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(seen, location, "{host}{path}");
        assert_eq!(answer.status, if location.is_some() { 308 } else { 200 }, "{host}{path}");
    }
}

#[tokio::test]
async fn redirects_and_endpoints_hear_of_the_port_the_outside_knows() {
    let upstream = Upstream::echo("web").await;
    for (port, location) in [(443, "https://a.example/x"), (8443, "https://a.example:8443/x")] {
        let mut objects = backend("web", &[upstream.address]);
        objects.push(site("web", "a.example", &["a.example"], ""));
        let config = IngressConfig { https_redirect_port: Some(port), ..config() };
        let world = World::with(config, objects).await;
        assert_eq!(get(world.http(), "a.example", "/x").await.headers["location"], location);
        // Endpoints hear of the same one.
        let stream = tls(world.https(), "a.example", trusting_anybody()).await.unwrap();
        let answer = send(&mut http1(stream).await, request("a.example", "/x")).await;
        assert_eq!(answer.saw("x-forwarded-port"), Some(&*port.to_string()));
    }
}

/// ingress-nginx: pass_port is HTTPS's where the port is its own for HTTPS.
#[tokio::test]
async fn bug_a_second_https_listener_has_a_port_of_its_own() {
    let upstream = Upstream::echo("web").await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    for known in [None, Some(443)] {
        let mut objects = backend("web", &[upstream.address]);
        objects.push(site("web", "a.example", &["a.example"], ""));
        let moved = ingress("moved").host("moved.example", "web").tls(&["moved.example"], "");
        let said = [("permanent-redirect", "/new"), ("use-port-in-redirects", "true")];
        objects.push(annotated(moved, &said).object());
        let config =
            IngressConfig { https_listen: vec![any, any], https_redirect_port: known, ..config() };
        let world = World::with(config, objects).await;
        let &[first, second] = world.running.https() else { panic!() };
        for (listener, port) in [(first, known.unwrap_or(first.port())), (second, second.port())] {
            let stream = tls(listener, "a.example", trusting_anybody()).await.unwrap();
            let answer = send(&mut http1(stream).await, request("a.example", "/x")).await;
            assert_eq!(answer.saw("x-forwarded-port"), Some(&*port.to_string()), "{known:?}");
            let stream = tls(listener, "moved.example", trusting_anybody()).await.unwrap();
            let answer = send(&mut http1(stream).await, request("moved.example", "/")).await;
            let named = if port == 443 { String::new() } else { format!(":{port}") };
            let location = format!("https://moved.example{named}/new");
            assert_eq!(answer.headers["location"], location, "{known:?}");
        }
    }
}

/// ingress-nginx: hsts, on for hosts with a certificate, and only where TLS was used.
#[tokio::test]
async fn browsers_are_told_to_stay_with_https_where_there_is_a_tls_section() {
    let upstream = Upstream::serve(|_| async {
        http::Response::builder()
            .header("strict-transport-security", "max-age=1")
            .body(http_body_util::Full::<hyper::body::Bytes>::default())
            .unwrap()
    })
    .await;
    let default = Some("max-age=31536000; includeSubDomains");
    for (hsts, expected) in [
        (fairlead_ingress::Hsts::default().into(), default),
        ("max-age=60".parse().ok(), Some("max-age=60")),
        (None, Some("max-age=1")),
    ] {
        let mut objects = backend("web", &[upstream.address]);
        objects.push(
            ingress("tls")
                .host("tls.example", "web")
                .tls(&["tls.example"], "")
                .annotation("nginx.ingress.kubernetes.io/ssl-redirect", "false")
                .object(),
        );
        objects.push(ingress("plain").host("plain.example", "web").object());
        let world = World::with(IngressConfig { hsts, ..config() }, objects).await;
        let told = |answer: &crate::support::client::Answer| {
            let value = answer.headers.get("strict-transport-security");
            value.map(|value| value.to_str().unwrap().to_owned())
        };
        for (host, is_tls, expected) in [
            ("tls.example", true, expected),
            ("tls.example", false, Some("max-age=1")),
            ("plain.example", true, Some("max-age=1")),
        ] {
            let answer = if is_tls {
                let stream = tls(world.https(), host, trusting_anybody()).await.unwrap();
                send(&mut http1(stream).await, request(host, "/")).await
            } else {
                get(world.http(), host, "/").await
            };
            assert_eq!(told(&answer).as_deref(), expected, "{host}, TLS: {is_tls}");
        }
    }
    for bad in ["31536000", "max-age=x", "max-age=1; includesubdomain", "max-age=1; preload\n"] {
        assert!(bad.parse::<fairlead_ingress::Hsts>().is_err(), "{bad}");
    }
}

/// A browser that is redirected by HTTPS, or asks before it asks, did not hear of it.
#[tokio::test]
async fn bug_answers_without_an_endpoint_say_that_the_host_is_one_of_https_too() {
    const TOLD: Option<&str> = Some("max-age=60");
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let site = |name: &str, annotations: &[(&str, &str)]| {
        let host = format!("{name}.example");
        let ingress = ingress(name).rule(&host, &[(PathType::Prefix, "/a/", "web")]);
        annotated(ingress.tls(&[&host], ""), annotations).object()
    };
    let returns = |directive| format!("{directive} return 410;");
    objects.extend([
        site("plain", &[]),
        site("moved", &[("permanent-redirect", "https://b.example/")]),
        site("root", &[("app-root", "/app")]),
        site("returned", &[("configuration-snippet", "return 410;")]),
        site(
            "cleared",
            &[("configuration-snippet", &returns("more_clear_headers Strict-Transport-Security;"))],
        ),
        site("cors", &[("enable-cors", "true")]),
        site("shut", &[("auth-type", "basic"), ("auth-secret", "missing")]),
        site("bare", &[("from-to-www-redirect", "true")]),
    ]);
    let hsts = "max-age=60".parse().ok();
    let world = World::with(IngressConfig { hsts, ..config() }, objects).await;
    let told = |answer: &crate::support::client::Answer| {
        let value = answer.headers.get("strict-transport-security");
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    for (method, host, path, status, expected) in [
        ("GET", "plain.example", "/a/", 200, TOLD),
        ("GET", "plain.example", "/a", 301, TOLD),
        ("GET", "plain.example", "/b", 404, TOLD),
        ("GET", "moved.example", "/a/", 301, TOLD),
        ("GET", "root.example", "/", 302, TOLD),
        ("GET", "returned.example", "/a/", 410, TOLD),
        // It has the last word.
        ("GET", "cleared.example", "/a/", 410, None),
        ("OPTIONS", "cors.example", "/a/", 204, TOLD),
        ("GET", "shut.example", "/a/", 503, TOLD),
        // Of ingress-nginx's servers of redirects none says so, nor is anybody to speak for nobody's host.
        ("GET", "www.bare.example", "/a/", 308, None),
        ("GET", "nobody.example", "/a/", 404, None),
    ] {
        let mut asked = request(host, path);
        *asked.method_mut() = method.parse().unwrap();
        asked.headers_mut().insert("origin", "https://b.example".parse().unwrap());
        let stream = tls(world.https(), host, trusting_anybody()).await.unwrap();
        let answer = send(&mut http1(stream).await, asked).await;
        assert_eq!((answer.status, told(&answer).as_deref()), (status, expected), "{host}{path}");
    }
    let answer = get(world.http(), "plain.example", "/a/").await;
    assert_eq!((answer.status, told(&answer)), (308, None), "RFC 6797 7.2: by HTTPS alone");
}

/// ingress-nginx: ssl_prefer_server_ciphers on, AES-128 first.
#[tokio::test]
async fn our_order_of_suites_counts_and_not_the_clients() {
    use rustls::{CipherSuite, ClientConfig, RootCertStore, crypto::aws_lc_rs, version};
    let authority = Authority::new();
    let objects = vec![
        authority.secret("cert", &["a.example"]),
        site("web", "a.example", &["a.example"], "cert"),
    ];
    let world = World::new(objects).await;
    for (version, expected) in [
        (&version::TLS13, CipherSuite::TLS13_AES_128_GCM_SHA256),
        (&version::TLS12, CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256),
    ] {
        for is_reversed in [false, true] {
            let mut provider = aws_lc_rs::default_provider();
            if is_reversed {
                provider.cipher_suites.reverse();
            }
            let mut roots = RootCertStore::empty();
            roots.add(authority.der()).unwrap();
            let builder = ClientConfig::builder_with_provider(Arc::new(provider));
            let builder = builder.with_protocol_versions(&[version]).unwrap();
            let config = builder.with_root_certificates(roots).with_no_client_auth();
            let stream = tls(world.https(), "a.example", config).await.unwrap();
            let suite = stream.get_ref().1.negotiated_cipher_suite().unwrap().suite();
            assert_eq!(suite, expected, "reversed: {is_reversed}");
        }
    }
}

/// What a client has to resume with, and nothing of TLS 1.2.
#[derive(Debug, Default)]
struct Tickets(Mutex<Vec<Tls13ClientSessionValue>>);

impl ClientSessionStore for Tickets {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, ticket: Tls13ClientSessionValue) {
        self.0.lock().unwrap().push(ticket);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        self.0.lock().unwrap().pop()
    }
}

#[tokio::test]
async fn each_connection_brings_one_ticket_and_the_next_is_resumed_with_it() {
    let (upstream, authority) = (Upstream::echo("web").await, Authority::new());
    let mut objects = backend("web", &[upstream.address]);
    objects.push(authority.secret("cert", &["a.example"]));
    objects.push(site("web", "a.example", &["a.example"], "cert"));
    let world = World::new(objects).await;
    let tickets = Arc::new(Tickets::default());
    let mut config = trusting(authority.der(), &["http/1.1"]);
    config.resumption = Resumption::store(tickets.clone());
    for is_resumed in [false, true, true] {
        let stream = tls(world.https(), "a.example", config.clone()).await.unwrap();
        let kind = stream.get_ref().1.handshake_kind();
        assert_eq!(kind == Some(HandshakeKind::Resumed), is_resumed, "{kind:?}");
        // Tickets come before answers.
        let answer = send(&mut http1(stream).await, request("a.example", "/")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(tickets.0.lock().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn plain_http_and_silence_on_the_tls_port_end_the_connection() {
    let world = World::new(vec![]).await;
    let answer = crate::support::client::raw(world.https(), b"GET / HTTP/1.1\r\n\r\n").await;
    assert!(!answer.contains("HTTP"), "{answer}");
    world.eventually(|counters| counters.tls_failures == 1).await;
}

#[test]
fn private_keys_are_in_no_debug_text() {
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["a.example"]);
    let object = secret(Key::new("default", "cert"), &certificate, &key);
    let text = format!("{object:?}");
    let secret_line = key.lines().nth(1).unwrap();
    assert!(!text.contains(secret_line) && !text.contains("BEGIN"), "{text}");
}
