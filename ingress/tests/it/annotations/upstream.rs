//! What endpoints are told.

use super::site;
use crate::support::{
    World,
    client::{connect, get, request, send},
    objects::{IngressExt, backend},
    upstream::Upstream,
};

#[tokio::test]
async fn endpoints_see_the_host_they_are_to_see() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(
        [
            site("vhost", &[("upstream-vhost", "internal.example:8080")]),
            site("bad", &[("upstream-vhost", "internal example")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let answer = get(world.http(), "vhost.example", "/").await;
    assert_eq!(answer.saw("host"), Some("internal.example:8080"));
    assert_eq!(answer.saw("x-forwarded-host"), Some("vhost.example"));
    assert_eq!(get(world.http(), "bad.example", "/").await.saw("host"), Some("bad.example"));
    assert_eq!(world.reasons("bad").len(), 1);
}

#[tokio::test]
async fn connections_to_endpoints_are_closed_where_that_is_wished() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(
        [
            site("close", &[("connection-proxy-header", "close")]),
            site("keep", &[("connection-proxy-header", "keep-alive")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::single(objects).await;
    for (name, connections) in [("close", 3), ("keep", 1)] {
        let before = upstream.connections();
        let mut sender = connect(world.http()).await;
        for _ in 0..3 {
            let answer = send(&mut sender, request(&format!("{name}.example"), "/")).await;
            assert_eq!(answer.status, 200);
        }
        assert_eq!(upstream.connections() - before, connections, "{name}");
    }
}
