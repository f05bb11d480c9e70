//! Who may come, by address.

use fairlead_ingress::{ForwardedHeaders, IngressConfig, Refused};

use super::site;
use crate::support::{
    World,
    client::{connect, get, request, send},
    config,
    objects::{IngressExt, backend},
    upstream::Upstream,
};

#[tokio::test]
async fn lists_of_addresses_let_in_and_keep_out() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let (own, other) = ("127.0.0.0/8", "192.0.2.0/24");
    objects.extend(
        [
            site("allowed", &[("allowlist-source-range", own)]),
            site("old", &[("whitelist-source-range", own)]),
            site("not-allowed", &[("whitelist-source-range", other)]),
            site("denied", &[("denylist-source-range", own)]),
            site("not-denied", &[("denylist-source-range", other)]),
            site("both", &[("allowlist-source-range", own), ("denylist-source-range", own)]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (name, status) in [
        ("allowed", 200),
        ("old", 200),
        ("not-allowed", 403),
        ("denied", 403),
        ("not-denied", 200),
        ("both", 403),
    ] {
        let reached = upstream.requests();
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.status, status, "{name}");
        assert_eq!(upstream.requests() - reached, usize::from(status == 200), "{name}");
    }
    world.eventually(|counters| counters.refused[&Refused::Address] == 3).await;
}

#[tokio::test]
async fn a_list_that_cannot_be_read_lets_nobody_in_and_disturbs_nothing_else() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    for (name, list) in [("range", "127.0.0.1/99"), ("part", "127.0.0.1,x"), ("empty", "")] {
        objects.push(site(name, &[("allowlist-source-range", list)]).object());
    }
    objects.push(site("deny", &[("denylist-source-range", "nonsense")]).object());
    objects.push(site("good", &[]).object());
    let mut world = World::new(objects).await;
    for name in ["range", "part", "empty", "deny"] {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.status, 503, "{name}");
        let reasons = world.reasons(name);
        assert!(reasons[0].contains("answer 503 until it is put right"), "{reasons:?}");
    }
    assert_eq!(upstream.requests(), 0);
    assert_eq!(get(world.http(), "good.example", "/").await.status, 200);
    let cured = site("range", &[("allowlist-source-range", "127.0.0.1/32")]);
    world.apply(vec![cured.object()]).await;
    assert_eq!(get(world.http(), "range.example", "/").await.status, 200);
}

#[tokio::test]
async fn an_address_in_a_field_counts_only_behind_a_balancer_and_only_the_last_one() {
    let upstream = Upstream::echo("web").await;
    for (policy, forwarded, status) in [
        (ForwardedHeaders::Replace, "192.0.2.1", 403),
        (ForwardedHeaders::Trust, "192.0.2.1", 200),
        (ForwardedHeaders::Trust, "192.0.2.1, 203.0.113.9", 403),
        (ForwardedHeaders::Trust, "203.0.113.9, 192.0.2.1", 200),
        (ForwardedHeaders::Trust, "nonsense", 403),
    ] {
        let mut objects = backend("web", &[upstream.address]);
        objects.push(site("a", &[("allowlist-source-range", "192.0.2.0/24")]).object());
        let config = IngressConfig { forwarded_headers: policy, ..config() };
        let world = World::with(config, objects).await;
        let mut request = request("a.example", "/");
        request.headers_mut().insert("x-forwarded-for", forwarded.parse().unwrap());
        let answer = send(&mut connect(world.http()).await, request).await;
        assert_eq!(answer.status, status, "{policy:?} {forwarded}");
    }
}
