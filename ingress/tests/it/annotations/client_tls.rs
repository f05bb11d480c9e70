//! Whose certificate a client must have.

mod openssl;
mod revoked;

use fairlead_ingress::Refused;
use fairlead_state::{Object, model::PathType::Prefix};
use http::{HeaderName, HeaderValue, Response};
use http_body_util::Full;
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::ClientConfig;

use super::site;
use crate::{
    support::{
        World,
        client::{Answer, get, http1, request, send, showing, tls, trusting_anybody},
        objects::{Authority, IngressExt, backend, ingress, opaque, secret_ref},
        upstream::Upstream,
    },
    upstream_tls::pem,
    version1::version_1,
};

pub(super) const CA: (&str, &str) = ("auth-tls-secret", "default/ca");

/// A host with TLS and these annotations.
pub(super) fn secured(name: &str, annotations: &[(&str, &str)]) -> Object {
    site(name, annotations).tls(&[&format!("{name}.example")], "").object()
}

pub(super) fn certificate(authority: &Authority) -> ClientConfig {
    let (certificate, key) = authority.issue(&["client"]);
    showing(&certificate, &key)
}

pub(super) async fn ask(
    world: &World,
    server_name: &str,
    host: &str,
    config: ClientConfig,
) -> Answer {
    let stream = tls(world.https(), server_name, config).await.unwrap();
    let mut request = request(host, "/");
    for name in ["ssl-client-verify", "ssl-client-subject-dn", "ssl-client-cert"] {
        request.headers_mut().insert(name, "forged".parse().unwrap());
    }
    send(&mut http1(stream).await, request).await
}

#[tokio::test]
async fn a_client_is_let_in_by_its_certificate() {
    let (ours, theirs) = (Authority::new(), Authority::named("theirs"));
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let mode = |mode: &'static str| ("auth-tls-verify-client", mode);
    let page = "https://help.example/certificates";
    objects.extend([
        opaque("ca", &[("ca.crt", &pem(&ours))]),
        secured("on", &[CA]),
        secured("pass", &[CA, ("auth-tls-pass-certificate-to-upstream", "true")]),
        secured("optional", &[CA, mode("optional")]),
        secured("any", &[CA, mode("optional_no_ca")]),
        secured("off", &[CA, mode("off")]),
        secured("name", &[CA, ("auth-tls-match-cn", "CN=rcgen.*")]),
        secured("other", &[CA, ("auth-tls-match-cn", "CN=somebody else")]),
        secured("page", &[CA, ("auth-tls-error-page", page)]),
        secured("depth", &[CA, ("auth-tls-verify-depth", "1")]),
        secured("free", &[]),
    ]);
    let world = World::new(objects).await;
    let (good, bad) = (certificate(&ours), certificate(&theirs));
    for (name, with_none, with_good, with_bad) in [
        ("on", 400, 200, 400),
        ("pass", 400, 200, 400),
        ("optional", 200, 200, 400),
        ("any", 200, 200, 200),
        ("off", 200, 200, 200),
        ("name", 400, 200, 400),
        ("other", 400, 403, 400),
        ("page", 302, 200, 302),
        ("depth", 400, 200, 400),
        ("free", 200, 200, 200),
    ] {
        let host = format!("{name}.example");
        for (what, config, status) in [
            ("none", trusting_anybody(), with_none),
            ("good", good.clone(), with_good),
            // Once more: a resumed session is the same client.
            ("good again", good.clone(), with_good),
            ("bad", bad.clone(), with_bad),
        ] {
            let reached = upstream.requests();
            let answer = ask(&world, &host, &host, config).await;
            assert_eq!(answer.status, status, "{name}, {what}");
            assert_eq!(upstream.requests() - reached, usize::from(status == 200), "{name}");
            if status == 302 {
                assert_eq!(answer.headers["location"], page);
            }
        }
    }
    let depth = "differs: annotation nginx.ingress.kubernetes.io/auth-tls-verify-depth \"1\" limits \
                 nothing: a chain may be as long as it is";
    assert_eq!(world.reasons("depth"), [depth]);
    let subject = "CN=rcgen self signed cert";
    let told = async |name: &str, config: &ClientConfig| {
        let host = format!("{name}.example");
        let answer = ask(&world, &host, &host, config.clone()).await;
        let fields = ["verify", "subject-dn", "issuer-dn", "cert"];
        fields.map(|field| answer.saw(&format!("ssl-client-{field}")).map(str::to_owned))
    };
    let [verify, name, issuer, whole] = told("on", &good).await;
    assert_eq!(verify.as_deref(), Some("SUCCESS"));
    assert_eq!((name.as_deref(), issuer.as_deref()), (Some(subject), Some(subject)));
    assert_eq!(whole, None, "what the client sends as a certificate is taken off");
    let [.., whole] = told("pass", &good).await;
    assert!(whole.unwrap().starts_with("-----BEGIN%20CERTIFICATE-----%0A"));
    let [verify, ..] = told("any", &bad).await;
    assert!(verify.as_deref().unwrap().starts_with("FAILED:"), "{verify:?}");
    let [verify, name, ..] = told("optional", &trusting_anybody()).await;
    assert_eq!((verify.as_deref(), name), (Some("NONE"), None));
    assert!(world.running.counters().refused[&Refused::Certificate] > 10);
}

/// ingress-nginx passes the certificate to whoever is asked as it does to the endpoint, whether or not the
/// client calls itself somebody.
#[tokio::test]
async fn bug_who_is_asked_about_a_request_hears_of_its_certificate_and_not_what_the_client_says() {
    const FIELDS: [&str; 4] = ["verify", "subject-dn", "issuer-dn", "cert"];
    let ours = Authority::new();
    let upstream = Upstream::echo("web").await;
    // Lets everybody in, and says back what it was told.
    let authority = Upstream::serve(|request| async move {
        let mut response = Response::new(Full::default());
        for field in FIELDS {
            let told = request.headers().get(format!("ssl-client-{field}")).cloned();
            let name = HeaderName::try_from(format!("x-told-{field}")).unwrap();
            let nothing = HeaderValue::from_static("nothing");
            response.headers_mut().insert(name, told.unwrap_or(nothing));
        }
        response
    })
    .await;
    let url = format!("http://{}/", authority.address);
    let asking = [
        CA,
        ("auth-url", url.as_str()),
        (
            "auth-response-headers",
            "X-Told-Verify, X-Told-Subject-Dn, X-Told-Issuer-Dn, X-Told-Cert",
        ),
    ];
    let with = |more: &[(&'static str, &'static str)]| [&asking[..], more].concat();
    let optional = ("auth-tls-verify-client", "optional");
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        opaque("ca", &[("ca.crt", &pem(&ours))]),
        secured("on", &asking),
        secured("pass", &with(&[("auth-tls-pass-certificate-to-upstream", "true")])),
        secured("optional", &with(&[optional])),
        // An answer about one client is none about the next.
        secured("kept", &with(&[optional, ("auth-cache-key", "$host")])),
    ]);
    let world = World::new(objects).await;
    let (good, none) = (certificate(&ours), trusting_anybody());
    let subject = "CN=rcgen self signed cert";
    for (name, config, verify, subject, whole) in [
        ("on", &good, "SUCCESS", subject, "nothing"),
        ("pass", &good, "SUCCESS", subject, "-----BEGIN%20CERTIFICATE-----"),
        ("optional", &good, "SUCCESS", subject, "nothing"),
        ("optional", &none, "NONE", "nothing", "nothing"),
        ("kept", &good, "SUCCESS", subject, "nothing"),
        ("kept", &none, "NONE", "nothing", "nothing"),
        ("kept", &good, "SUCCESS", subject, "nothing"),
    ] {
        let host = format!("{name}.example");
        // It says of each of them that it is "forged".
        let answer = ask(&world, &host, &host, config.clone()).await;
        assert_eq!(answer.status, 200, "{name}");
        let told = FIELDS.map(|field| answer.saw(&format!("x-told-{field}")).unwrap_or_default());
        let [told_verify, told_subject, told_issuer, told_whole] = told;
        let told = (told_verify, told_subject, told_issuer);
        assert_eq!(told, (verify, subject, subject), "{name}, {verify}");
        assert!(told_whole.starts_with(whole), "{name}, {verify}: {told_whole}");
    }
    assert_eq!(authority.requests(), 6, "the last answer was remembered");
}

/// Who is let in by `optional_no_ca`: nothing is known of strangers, and ours must be good.
#[tokio::test]
async fn bug_a_strangers_certificate_is_one_whatever_is_in_it() {
    const YEARS: (i32, i32) = (2020, 2999);
    const GONE: (i32, i32) = (2020, 2021);
    const TO_COME: (i32, i32) = (2998, 2999);
    let of = |name: &str, (from, to), change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec!["client".to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 12, 31);
        change(&mut params);
        params
    };
    let plain = |_: &mut CertificateParams| ();
    // As `openssl req -x509`.
    let ca =
        |params: &mut CertificateParams| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let serves = |params: &mut CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    };
    let own = |params: CertificateParams| {
        let key = KeyPair::generate().unwrap();
        (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
    };
    let old = |(certificate, key): (String, String)| (version_1(&certificate), key);
    let (ours, theirs) = (Authority::named("ours"), Authority::named("theirs"));
    let namesake = Authority::named("ours");
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let mode = ("auth-tls-verify-client", "optional_no_ca");
    objects.extend([opaque("ca", &[("ca.crt", &pem(&ours))]), secured("any", &[CA, mode])]);
    let world = World::new(objects).await;
    let ask = async |(certificate, key): &(String, String)| {
        ask(&world, "any.example", "any.example", showing(certificate, key)).await
    };
    for (case, shown, status) in [
        ("self-signed", own(of("client", YEARS, plain)), 200),
        ("self-signed, CA:TRUE", own(of("client", YEARS, ca)), 200),
        ("self-signed, for servers", own(of("client", YEARS, serves)), 200),
        ("theirs", theirs.sign(&of("client", YEARS, plain)), 200),
        ("theirs, version 1", old(theirs.sign(&of("client", YEARS, plain))), 200),
        ("theirs, CA:TRUE", theirs.sign(&of("client", YEARS, ca)), 200),
        ("theirs, for servers", theirs.sign(&of("client", YEARS, serves)), 200),
        // OpenSSL's error 10, which nginx refuses of anybody.
        ("theirs, out of date", theirs.sign(&of("client", GONE, plain)), 400),
        ("self-signed, CA:TRUE, out of date", own(of("client", GONE, ca)), 400),
        ("theirs, not yet", theirs.sign(&of("client", TO_COME, plain)), 400),
        ("ours, CA:TRUE", ours.sign(&of("client", YEARS, ca)), 400),
        ("ours, for servers", ours.sign(&of("client", YEARS, serves)), 400),
        ("ours, out of date", ours.sign(&of("client", GONE, plain)), 400),
        // OpenSSL's error 7: not in nginx's ssl_verify_error_optional.
        ("namesake's", namesake.sign(&of("client", YEARS, plain)), 400),
        ("self-signed, named as ours", own(of("ours", YEARS, ca)), 400),
    ] {
        let reached = upstream.requests();
        let answer = ask(&shown).await;
        assert_eq!(answer.status, status, "{case}");
        assert_eq!(upstream.requests() - reached, usize::from(status == 200), "{case}");
        let verify = answer.saw("ssl-client-verify");
        assert_eq!(verify.is_some_and(|text| text.starts_with("FAILED:")), status == 200, "{case}");
    }
    let good = ask(&ours.sign(&of("client", YEARS, plain))).await;
    assert_eq!((good.status, good.saw("ssl-client-verify")), (200, Some("SUCCESS")));
}

/// Whoever needs no certificate for one host must not reach another by it.
#[tokio::test]
async fn a_certificate_asked_for_by_another_host_is_none() {
    let ours = Authority::new();
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        opaque("ca", &[("ca.crt", &pem(&ours))]),
        secured("on", &[CA]),
        secured("optional", &[CA, ("auth-tls-verify-client", "optional")]),
        secured("open", &[CA, ("ssl-redirect", "false")]),
        secured("free", &[]),
    ]);
    let world = World::new(objects).await;
    for (server_name, config) in [
        ("free.example", certificate(&ours)),
        ("optional.example", certificate(&ours)),
        ("unknown.example", trusting_anybody()),
    ] {
        let answer = ask(&world, server_name, "on.example", config).await;
        assert_eq!(answer.status, 421, "{server_name}");
    }
    // Nor by plain HTTP.
    assert_eq!(get(world.http(), "on.example", "/").await.status, 308);
    assert_eq!(get(world.http(), "open.example", "/").await.status, 403);
    assert_eq!(upstream.requests(), 0);
    assert_eq!(ask(&world, "free.example", "free.example", trusting_anybody()).await.status, 200);
}

#[tokio::test]
async fn authorities_change_under_open_connections_and_broken_ones_let_nobody_in() {
    let (old, new) = (Authority::new(), Authority::new());
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([opaque("ca", &[("ca.crt", &pem(&old))]), secured("a", &[CA])]);
    let mut world = World::new(objects).await;
    let stream = tls(world.https(), "a.example", certificate(&old)).await.unwrap();
    let mut sender = http1(stream).await;
    assert_eq!(send(&mut sender, request("a.example", "/")).await.status, 200);
    world.apply(vec![opaque("ca", &[("ca.crt", &pem(&new))])]).await;
    assert_eq!(send(&mut sender, request("a.example", "/")).await.status, 400);
    let ask_new =
        async |world: &World| ask(world, "a.example", "a.example", certificate(&new)).await.status;
    assert_eq!(ask_new(&world).await, 200);
    for broken in [opaque("ca", &[("ca.crt", "no PEM")]), opaque("ca", &[("else", "x")])] {
        world.apply(vec![broken]).await;
        assert_eq!(ask_new(&world).await, 403);
        assert_eq!(world.reasons("a").len(), 1, "{:?}", world.reasons("a"));
    }
    world.delete(secret_ref("ca")).await;
    assert_eq!(ask_new(&world).await, 403);
    world.apply(vec![opaque("ca", &[("ca.crt", &pem(&new))])]).await;
    assert_eq!(ask_new(&world).await, 200);
}

/// ingress-nginx: `return 403` for the whole server. The host's other Ingresses asked nobody for anything.
#[tokio::test]
async fn attack_a_secret_that_is_never_read_opens_no_other_path_of_its_host() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let foreign = ("auth-tls-secret", "other/ca");
    let nobody = ("auth-tls-secret", "no name");
    let off = ("auth-tls-verify-client", "off");
    type Annotations<'a> = &'a [(&'a str, &'a str)];
    let cases: [(&str, Annotations<'_>, u16); 4] = [
        ("foreign", &[foreign], 403),
        ("optional", &[foreign, ("auth-tls-verify-client", "optional")], 403),
        ("nobody", &[nobody], 403),
        ("off", &[foreign, off], 200),
    ];
    for (name, annotations, _) in cases {
        let host = format!("{name}.example");
        let api = ingress(&format!("{name}-api")).rule(&host, &[(Prefix, "/api", "web")]);
        objects.extend([secured(name, annotations), api.object()]);
    }
    let world = World::new(objects).await;
    for (name, _, status) in cases {
        let host = format!("{name}.example");
        let stream = tls(world.https(), &host, trusting_anybody()).await.unwrap();
        let answer = send(&mut http1(stream).await, request(&host, "/api")).await;
        assert_eq!(answer.status, status, "{name}");
    }
    assert_eq!(upstream.requests(), 1);
    let told = "names no Secret that is read; by HTTPS its hosts let nobody in until then";
    let reasons = world.reasons("foreign");
    assert!(reasons.iter().any(|reason| reason.contains(told)), "{reasons:?}");
}
