//! Who is let in by a password, and beside one by an address.

use fairlead_ingress::Refused;

use super::{annotated, auth::ask, site};
use crate::support::{
    World,
    objects::{IngressExt, backend, ingress, opaque, opaque_in, secret_ref},
    upstream::Upstream,
};

/// "secret", as `openssl passwd -apr1` hashes it.
pub(super) const ANN: &str = "ann:$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/\n";
/// MD5 of "ann:shop:secret", as htdigest writes it.
pub(super) const ANN_OF_SHOP: &str = "ann:shop:12bd5085460ea83b190a12281871336a\n";
/// Basic, of "ann:secret" and of "ann:wrong".
pub(super) const RIGHT: (&str, &str) = ("authorization", "Basic YW5uOnNlY3JldA==");
const WRONG: (&str, &str) = ("authorization", "Basic YW5uOndyb25n");

/// The answer of RFC 7616's MD5 to a challenge, for GET.
pub(super) fn digest(challenge: &str, target: &str, password: &str) -> String {
    use md5::{Digest, Md5};
    let hex = |text: String| {
        Md5::digest(text).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    };
    let nonce = challenge.split("nonce=\"").nth(1).unwrap().split('"').next().unwrap();
    let of_user = hex(format!("ann:shop:{password}"));
    let of_request = hex(format!("GET:{target}"));
    let response = hex(format!("{of_user}:{nonce}:00000001:abc:auth:{of_request}"));
    format!(
        "Digest username=\"ann\", realm=\"shop\", nonce=\"{nonce}\", uri=\"{target}\", \
         algorithm=MD5, qop=auth, nc=00000001, cnonce=\"abc\", response=\"{response}\""
    )
}

#[tokio::test]
async fn a_digest_lets_in_and_counts_for_one_request() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(opaque("users", &[("auth", ANN_OF_SHOP)]));
    let digest_type = ("auth-type", "digest");
    let secret = ("auth-secret", "users");
    objects.push(site("a", &[digest_type, secret, ("auth-realm", "shop")]).object());
    objects.push(site("other", &[digest_type, secret, ("auth-realm", "elsewhere")]).object());
    let world = World::new(objects).await;
    let asked = ask(&world, "a", "/x?y", &[]).await;
    assert_eq!(asked.status, 401);
    let challenge = asked.headers["www-authenticate"].to_str().unwrap().to_owned();
    for (target, password, path, status) in [
        ("/x?y", "secret", "/x?y", 200),
        ("/x?y", "wrong", "/x?y", 401),
        ("/x?y", "secret", "/z", 401),
        // Overheard, and said once more.
        ("/x?y", "secret", "/x?y", 401),
    ] {
        let words = digest(&challenge, target, password);
        let answer = ask(&world, "a", path, &[("authorization", &words)]).await;
        assert_eq!(answer.status, status, "{target} {password} {path}");
        assert_eq!(answer.saw("authorization"), None);
        let is_stale = answer
            .headers
            .get("www-authenticate")
            .is_some_and(|challenge| challenge.to_str().unwrap().ends_with("stale=true"));
        assert_eq!(is_stale, status == 401 && (password, path) == ("secret", target));
    }
    assert_eq!(ask(&world, "other", "/", &[]).await.status, 503);
    assert!(world.reasons("other")[0].contains("no user of the realm"));
}

#[tokio::test]
async fn a_password_lets_in_and_goes_no_further() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let basic = ("auth-type", "basic");
    let file = ("auth-secret", "file");
    objects.extend([
        opaque("file", &[("auth", ANN)]),
        opaque("map", &[("ann", "{PLAIN}secret")]),
        site("file", &[basic, file, ("auth-realm", "The shop")]).object(),
        site("map", &[basic, ("auth-secret", "default/map"), ("auth-secret-type", "auth-map")])
            .object(),
        annotated(
            ingress("acme").rule(
                "acme.example",
                &[(fairlead_state::model::PathType::Prefix, "/.well-known/acme-challenge", "web")],
            ),
            &[basic, file],
        )
        .object(),
        site("forgotten", &[file]).object(),
    ]);
    let mut world = World::new(objects).await;
    for (name, fields, status) in [
        ("file", &[][..], 401),
        ("file", &[WRONG], 401),
        ("file", &[("authorization", "Bearer YW5uOnNlY3JldA==")], 401),
        ("file", &[("authorization", "Basic not base64")], 401),
        ("file", &[RIGHT], 200),
        ("map", &[RIGHT], 200),
        ("map", &[WRONG], 401),
    ] {
        let reached = upstream.requests();
        let answer = ask(&world, name, "/", fields).await;
        assert_eq!(answer.status, status, "{name} {fields:?}");
        assert_eq!(upstream.requests() - reached, usize::from(status == 200), "{name}");
        assert_eq!(answer.saw("authorization"), None, "the endpoint is told no password");
    }
    let challenge = ask(&world, "file", "/", &[]).await.headers["www-authenticate"].clone();
    assert_eq!(challenge, "Basic realm=\"The shop\"");
    let token = ask(&world, "acme", "/.well-known/acme-challenge/token", &[]).await;
    assert_eq!(token.status, 200, "certificate authorities know no password");
    assert_eq!(world.reasons("forgotten").len(), 1);

    // A changed Secret is in force at once, a missing one keeps everybody out.
    let changed = opaque("file", &[("auth", "ann:{PLAIN}other")]);
    world.apply(vec![changed]).await;
    assert_eq!(ask(&world, "file", "/", &[RIGHT]).await.status, 401);
    world.delete(secret_ref("file")).await;
    assert_eq!(ask(&world, "file", "/", &[RIGHT]).await.status, 503);
    assert!(world.reasons("file")[0].contains("Secret default/file does not exist"));
    assert!(world.running.counters().refused[&Refused::Authentication] >= 6);
}

#[tokio::test]
async fn what_cannot_be_read_of_authentication_lets_nobody_in() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let basic = ("auth-type", "basic");
    objects
        .extend([opaque_in("other", "file", &[("auth", ANN)]), opaque("empty", &[("else", ANN)])]);
    let cases: [(&str, &[(&str, &str)]); 8] = [
        ("foreign", &[basic, ("auth-secret", "other/file")]),
        ("missing", &[basic, ("auth-secret", "nowhere")]),
        ("entry", &[basic, ("auth-secret", "empty")]),
        ("none", &[basic]),
        ("digest", &[("auth-type", "digest"), ("auth-secret", "empty")]),
        ("url", &[("auth-url", "ftp://auth")]),
        ("snippet", &[("auth-url", "http://127.0.0.1:1/"), ("auth-snippet", "x")]),
        ("tls", &[("auth-tls-secret", "other/ca")]),
    ];
    objects.extend(cases.map(|(name, annotations)| site(name, annotations).object()));
    let world = World::new(objects).await;
    for (name, _) in cases {
        let answer = ask(&world, name, "/", &[RIGHT]).await;
        assert_eq!(answer.status, 503, "{name}");
        let reasons = world.reasons(name);
        assert!(reasons.iter().any(|reason| reason.contains("answer 503")), "{name}: {reasons:?}");
    }
    assert_eq!(upstream.requests(), 0);
}

#[tokio::test]
async fn satisfy_any_takes_the_address_or_the_password() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(opaque("file", &[("auth", ANN)]));
    let auth = [("auth-type", "basic"), ("auth-secret", "file")];
    let own = ("allowlist-source-range", "127.0.0.0/8");
    let other = ("allowlist-source-range", "192.0.2.0/24");
    let any = ("satisfy", "any");
    for (name, list) in [("own", own), ("other", other)] {
        let host = |kind: &str| format!("{name}-{kind}");
        objects.push(site(&host("any"), &[&auth[..], &[list, any]].concat()).object());
        objects.push(site(&host("all"), &[&auth[..], &[list]].concat()).object());
    }
    let world = World::new(objects).await;
    for (name, without, with) in [
        ("own-any", 200, 200),
        ("own-all", 401, 200),
        ("other-any", 401, 200),
        ("other-all", 403, 403),
    ] {
        assert_eq!(ask(&world, name, "/", &[]).await.status, without, "{name}");
        assert_eq!(ask(&world, name, "/", &[RIGHT]).await.status, with, "{name}, password");
    }
}

#[tokio::test]
async fn a_hash_that_takes_hours_keeps_its_user_out_and_is_told() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let slow = "slow:$6$rounds=999999999$abcdefgh$x\nodd:?\n";
    objects.push(opaque("users", &[("auth", &format!("{ANN}{slow}"))]));
    objects.push(site("a", &[("auth-type", "basic"), ("auth-secret", "users")]).object());
    let world = World::new(objects).await;
    // "slow:secret".
    let (name, words) = ("authorization", "Basic c2xvdzpzZWNyZXQ=");
    for (field, status) in [((name, words), 401), (RIGHT, 200)] {
        assert_eq!(ask(&world, "a", "/", &[field]).await.status, status, "{field:?}");
    }
    let reasons = world.reasons("a");
    assert_eq!(reasons.len(), 2, "{reasons:?}");
    assert!(reasons.iter().any(|reason| reason.contains("takes too long to check")), "{reasons:?}");
    assert!(!format!("{reasons:?}").contains("slow:"), "{reasons:?}");
}
