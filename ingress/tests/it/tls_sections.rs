//! Which certificate a host has where those with rules for it and others name it in TLS sections.

use fairlead_state::{Change, model::Ingress};

use crate::{
    support::{
        World,
        objects::{Authority, IngressExt, backend, ingress, ingress_ref},
        upstream::Upstream,
    },
    tls::shown,
};

/// A rule for all hosts serves those that nobody has rules for, and of those it may bring certificates.
#[tokio::test]
async fn attack_a_rule_for_every_host_brings_no_certificate_to_hosts_of_others() {
    let upstream = Upstream::echo("web").await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let names = ["shop.example", "a.wild.example", "free.example"];
    let any = Ingress { created_seconds: -1, ..ingress("any").host("", "web").tls(&names, "junk") };
    let shop = || ingress("shop").host("shop.example", "web").object();
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        stranger.secret("junk", &names),
        authority.secret("wild", &["*.wild.example"]),
        ingress("wild").host("*.wild.example", "web").tls(&["*.wild.example"], "wild").object(),
        authority.secret("alias", &["x.wild.example"]),
        ingress("alias")
            .host("c.example", "web")
            .annotation("nginx.ingress.kubernetes.io/server-alias", "x.wild.example")
            .tls(&["x.wild.example"], "alias")
            .object(),
        any.object(),
        shop(),
    ]);
    let mut world = World::new(objects).await;
    let default = shown(&world, "nobody.example").await;
    let (junk, wild) = (shown(&world, "free.example").await, shown(&world, "b.wild.example").await);
    assert!(junk != default && wild != default);
    assert_eq!(shown(&world, "shop.example").await, default);
    assert_eq!(shown(&world, "a.wild.example").await, wild);
    // An alias is nearer than a wildcard.
    let alias = shown(&world, "x.wild.example").await;
    assert!(![&default, &junk, &wild].contains(&&alias));
    // As rules go and come back.
    world.delete(ingress_ref("shop")).await;
    assert_eq!(shown(&world, "shop.example").await, junk);
    world.apply(vec![shop()]).await;
    assert_eq!(shown(&world, "shop.example").await, default);
    world.delete(ingress_ref("wild")).await;
    assert_eq!(shown(&world, "a.wild.example").await, junk);
    let again = ingress("wild").host("*.wild.example", "web").tls(&["*.wild.example"], "wild");
    assert!(world.store.apply([Change::Upsert(again.object())]));
    world.apply(vec![]).await;
    assert_eq!(shown(&world, "a.wild.example").await, wild);
}
