//! What endpoints are told.

use std::net::IpAddr;

use fairlead_state::{
    Key, Object,
    model::{IngressBackend, IngressPath, Service, ServiceBackendPort},
};

use super::site;
use crate::support::{
    World,
    client::{connect, get, request, send},
    objects::{IngressExt, Pod, backend, slice, slice_ref},
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

/// nginx expands variables in `proxy_set_header Host`.
#[tokio::test]
async fn bug_the_host_endpoints_see_may_have_variables() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(
        [
            site("service", &[("upstream-vhost", "$service_name.$namespace.svc:80")]),
            site("client", &[("upstream-vhost", "$arg_h")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (host, path, expected) in [
        ("service.example", "/", (200, Some("web.default.svc:80"))),
        ("client.example", "/?h=a.b", (200, Some("a.b"))),
        ("client.example", "/?h=a/b", (400, None)),
        ("client.example", "/", (400, None)),
    ] {
        let answer = get(world.http(), host, path).await;
        assert_eq!((answer.status, answer.saw("host")), expected, "{host}{path}");
    }
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

/// Where something else balances Services: a mesh, or kube-proxy.
#[tokio::test]
async fn a_services_own_address_is_asked_where_that_is_wished() {
    let (pod, address) = (Upstream::echo("pod").await, Upstream::echo("address").await);
    let mut objects = backend("web", &[pod.address]);
    let Object::Service(web) = &objects[0] else { panic!("{:?}", objects[0]) };
    let mut ports = web.ports.to_vec();
    ports[0].port = address.address.port();
    let ports = ports.into();
    let cluster_ips = [address.address.ip()].into();
    let addressed = Service { cluster_ips, ports, ..(**web).clone() };
    let cluster_ips = Vec::<IpAddr>::new().into();
    let headless = Service {
        key: Key::new("default", "headless"),
        headless: true,
        cluster_ips,
        ..addressed.clone()
    };
    objects[0] = Object::Service(addressed.into());
    objects.extend([
        Object::Service(headless.into()),
        slice("headless", "a", pod.address, Pod::Ready),
    ]);
    let by_address = ("service-upstream", "true");
    let port = ServiceBackendPort::Number(address.address.port());
    for (name, service, annotations) in [
        ("pods", "web", &[][..]),
        ("no", "web", &[("service-upstream", "false")]),
        ("address", "web", &[by_address]),
        ("headless", "headless", &[by_address]),
        ("bad", "web", &[("service-upstream", "perhaps")]),
    ] {
        let backend = IngressBackend::Service { name: service.into(), port: port.clone() };
        let mut ingress = site(name, annotations);
        let mut rule = ingress.rules[0].clone();
        let path = IngressPath { backend, ..rule.paths[0].clone() };
        rule.paths = [path].into();
        ingress.rules = [rule].into();
        objects.push(ingress.object());
    }
    let mut world = World::new(objects).await;
    for (name, expected) in [
        ("pods", "pod"),
        ("no", "pod"),
        ("address", "address"),
        ("headless", "pod"),
        ("bad", "pod"),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.who(), (200, expected), "{name}");
    }
    assert_eq!(world.reasons("address"), Vec::<String>::new());
    assert_eq!(world.reasons("bad").len(), 1);
    // Whether anybody is ready is for whoever balances there to say.
    world.delete(slice_ref("web", "0")).await;
    assert_eq!(get(world.http(), "pods.example", "/").await.status, 503);
    assert_eq!(get(world.http(), "address.example", "/").await.who(), (200, "address"));
}

#[tokio::test]
async fn no_old_version_is_spoken_to_endpoints() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let versions = [("http11", "1.1", 0), ("http10", "1.0", 1), ("http2", "2", 1)];
    for (name, version, _) in versions {
        objects.push(site(name, &[("proxy-http-version", version)]).object());
    }
    let world = World::new(objects).await;
    for (name, version, says) in versions {
        assert_eq!(get(world.http(), &format!("{name}.example"), "/").await.status, 200);
        assert_eq!(world.reasons(name).len(), says, "{version}: {:?}", world.reasons(name));
    }
}
