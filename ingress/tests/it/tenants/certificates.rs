//! Whose certificate a host shows that is below another Ingress's wildcard.

use fairlead_ingress::explain::CertificateChoice;
use fairlead_state::{Key, Object, ObjectRef, model::Ingress};

use super::web;
use crate::{
    annotations::annotated,
    support::{
        World,
        client::{get, http1, request, send, tls, trusting},
        objects::{Authority, IngressExt, ingress, secret},
        upstream::Upstream,
    },
    tls::{shown, verified},
};

const WILDCARD: &str = "*.bank.example";

/// `NAMESPACE/NAME`, of a host.
fn of(namespace: &str, name: &str, host: &str) -> Ingress {
    Ingress { key: Key::new(namespace, name), ..ingress(name).host(host, "web") }
}

fn reference(ingress: &Ingress) -> ObjectRef {
    Object::Ingress(ingress.clone().into()).reference()
}

/// The wildcard's own Ingress, in the namespace `bank`, and its Secret.
fn wildcard(authority: &Authority) -> (Ingress, Object) {
    let (certificate, key) = authority.issue(&[WILDCARD]);
    let wild = of("bank", "wild", WILDCARD).tls(&[WILDCARD], "wild");
    (wild, secret(Key::new("bank", "wild"), &certificate, &key))
}

/// ingress-nginx: certificate.lua looks for the certificate of `*.` and the rest of the name where there is none of
/// the name, and lua_ingress.lua sends to HTTPS, with HSTS, whatever name has one.
#[tokio::test]
async fn bug_a_host_below_its_namespaces_wildcard_is_asked_for_by_https() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let (wild, secret) = wildcard(&authority);
    let app = of("bank", "app", "app.bank.example");
    let alias = annotated(of("bank", "alias", "a.example"), &[("server-alias", "b.bank.example")]);
    // It has sections, and none is for this one.
    let other = of("bank", "other", "other.bank.example").tls(&["c.example"], "none");
    let deep = of("bank", "deep", "x.app.bank.example");
    let mut objects = web("bank", upstream.address);
    objects.extend([secret, app.clone().object(), alias.object(), other.object(), deep.object()]);
    let mut world = World::new(objects).await;
    let below = ["app.bank.example", "b.bank.example", "other.bank.example"];
    // Unlike that one's hosts, which are for HTTPS in any case.
    let plain = ["app.bank.example", "b.bank.example"];
    for is_there in [false, true, false, true] {
        match is_there {
            true => world.apply(vec![wild.clone().object()]).await,
            false => world.delete(reference(&wild)).await,
        }
        for name in plain {
            let status = get(world.http(), name, "/").await.status;
            assert_eq!(status, if is_there { 308 } else { 200 }, "{name}");
        }
        for name in below {
            let seen = verified(&world, &authority, name).await.ok();
            assert_eq!(seen, is_there.then_some(200), "{name}");
        }
        assert_eq!(get(world.http(), "x.app.bank.example", "/").await.status, 200);
    }
    let stream = tls(world.https(), "app.bank.example", trusting(authority.der(), &[])).await;
    let answer = send(&mut http1(stream.unwrap()).await, request("app.bank.example", "/")).await;
    assert!(answer.headers.contains_key("strict-transport-security"));
    let rows = world.running.routes();
    let row = rows.iter().find(|row| row.host == "app.bank.example").unwrap();
    assert!(row.tls && row.redirects_to_https, "{row:?}");
    let choice = world.running.explainer().certificate("app.bank.example");
    assert_eq!(choice.secret, Some(Key::new("bank", "wild")));
    // Who has rules for its host says of it what he likes.
    let own = app.tls(&["app.bank.example"], "");
    world.apply(vec![annotated(own, &[("ssl-redirect", "false")]).object()]).await;
    assert_eq!(shown(&world, "app.bank.example").await, shown(&world, "nobody.test").await);
    assert_eq!(get(world.http(), "app.bank.example", "/").await.status, 200);
}

/// With ingress-nginx whoever has a rule, an alias or a redirect for a name below another's wildcard is believed
/// by all clients to be who the wildcard's certificate says.
#[tokio::test]
async fn attack_a_certificate_of_another_namespace_is_not_shown_for_a_host_below_its_wildcard() {
    let upstreams = [Upstream::echo("bank").await, Upstream::echo("evil").await];
    let authority = Authority::new();
    let (wild, secret) = wildcard(&authority);
    let login = of("evil", "login", "login.bank.example");
    let mut objects = web("bank", upstreams[0].address);
    objects.extend(web("evil", upstreams[1].address));
    objects.extend([
        secret,
        wild.clone().object(),
        login.clone().object(),
        annotated(of("evil", "alias", "evil.example"), &[("server-alias", "a.bank.example")])
            .object(),
        annotated(of("evil", "www", "bank.example"), &[("from-to-www-redirect", "true")]).object(),
        // A guest of the wildcard's.
        of("evil", "guest", WILDCARD).tls(&[WILDCARD], "none").object(),
    ]);
    let mut world = World::new(objects).await;
    let default = shown(&world, "nobody.test").await;
    let evil = ["login.bank.example", "a.bank.example", "www.bank.example"];
    let unclaimed = CertificateChoice { secret: None, claimed_by: None, problem: None };
    for _ in 0..2 {
        for name in evil {
            assert_eq!(shown(&world, name).await, default, "{name}");
            assert_eq!(world.running.explainer().certificate(name), unclaimed, "{name}");
        }
        assert_eq!(get(world.http(), evil[0], "/").await.who(), (200, "evil"));
        assert_eq!(get(world.http(), evil[1], "/").await.who(), (200, "evil"));
        assert_eq!(verified(&world, &authority, "x.bank.example").await.unwrap(), 200);
        // Its Secret comes and goes with who names it.
        world.delete(reference(&wild)).await;
        assert_eq!(shown(&world, evil[0]).await, default);
        world.apply(vec![wild.clone().object()]).await;
    }
    // Names are the wildcard's again when nobody has them, and its namespace's where that one has them.
    world.delete(reference(&login)).await;
    assert_eq!(verified(&world, &authority, evil[0]).await.unwrap(), 200);
    let elder = Ingress { created_seconds: -1, ..of("bank", "elder", evil[0]) };
    world.apply(vec![login.object(), elder.clone().object()]).await;
    assert_eq!(verified(&world, &authority, evil[0]).await.unwrap(), 200);
    assert_eq!(get(world.http(), evil[0], "/").await.status, 308);
    world.delete(reference(&elder)).await;
    assert_eq!(shown(&world, evil[0]).await, default);
    assert_eq!(get(world.http(), evil[0], "/").await.who(), (200, "evil"));
}

/// Nor does a guest's section take a host's redirect, HSTS and certificate from it.
#[tokio::test]
async fn attack_a_guests_section_does_not_come_before_the_wildcard_of_a_hosts_namespace() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let (wild, secret) = wildcard(&authority);
    let guest = of("evil", "guest", "app.bank.example").tls(&["app.bank.example"], "none");
    let mut objects = web("bank", upstream.address);
    objects.extend([
        secret,
        wild.object(),
        of("bank", "app", "app.bank.example").object(),
        Ingress { created_seconds: 2_000, ..guest }.object(),
    ]);
    let world = World::new(objects).await;
    assert_eq!(verified(&world, &authority, "app.bank.example").await.unwrap(), 200);
    assert_eq!(get(world.http(), "app.bank.example", "/").await.status, 308);
}
