//! Which upstream answers, and what is answered when none can.

use std::{collections::BTreeSet, net::Ipv4Addr, sync::Arc};

use fairlead_ingress::{IngressConfig, host::HostPattern};
use fairlead_state::{
    Object,
    model::{
        EndpointPort, EndpointSlice, Ingress, IngressBackend,
        PathType::{Exact, Prefix},
        Service, ServiceBackendPort, ServiceExtras, ServicePort, TargetPort,
    },
};

use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::support::{
    PATIENCE, World,
    client::{get, read_until},
    config,
    objects::{
        IngressExt, Pod, backend, class, external_name, ingress, ingress_ref, service, slice, to,
    },
    upstream::Upstream,
};

/// ingress-controller-conformance, host_rules.feature and default_backend.feature.
#[tokio::test]
async fn conformance_host_rules() {
    let (foo, wild, fallback) = (
        Upstream::echo("foo").await,
        Upstream::echo("wild").await,
        Upstream::echo("default").await,
    );
    let mut objects = backend("foo", &[foo.address]);
    objects.extend(backend("wild", &[wild.address]));
    objects.extend(backend("default", &[fallback.address]));
    objects.push(ingress("web").host("foo.bar.com", "foo").host("*.foo.com", "wild").object());
    let mut world = World::new(objects).await;
    for (host, expected) in [
        ("foo.bar.com", Some("foo")),
        ("FOO.bar.com:8080", Some("foo")),
        ("foo.bar.com.", Some("foo")),
        ("subdomain.bar.com", None),
        ("bar.foo.com", Some("wild")),
        ("baz.bar.foo.com", None),
        ("foo.com", None),
    ] {
        let answer = get(world.http(), host, "/").await;
        match expected {
            Some(name) => assert_eq!(answer.who(), (200, name), "{host}"),
            None => assert_eq!(answer.status, 404, "{host}"),
        }
    }

    let mut catch_all = ingress("catch-all");
    catch_all.default_backend = Some(to("default"));
    world.apply(vec![catch_all.object()]).await;
    for host in ["my-host", "some-host", "127.0.0.1:80", "[::1]"] {
        let answer = get(world.http(), host, "/any").await;
        assert_eq!(answer.who(), (200, "default"), "{host}");
        for field in ["content-length", "date", "server"] {
            assert!(answer.headers.contains_key(field), "{field}");
        }
    }
}

#[tokio::test]
async fn paths_of_several_ingresses_merge_and_the_oldest_claim_wins() {
    let (old, new) = (Upstream::echo("old").await, Upstream::echo("new").await);
    let mut objects = backend("old", &[old.address]);
    objects.extend(backend("new", &[new.address]));
    let mut elder = ingress("z-elder").rule("a.example", &[(Prefix, "/", "old")]);
    elder.created_seconds = 1;
    let mut younger = ingress("a-younger")
        .rule("a.example", &[(Prefix, "/", "new"), (Prefix, "/new", "new"), (Exact, "/x", "new")]);
    younger.created_seconds = 2;
    objects.extend([elder.object(), younger.object()]);
    let world = World::new(objects).await;
    for (path, expected) in [("/", "old"), ("/y", "old"), ("/new/y", "new"), ("/x", "new")] {
        assert_eq!(get(world.http(), "a.example", path).await.who(), (200, expected), "{path}");
    }
    assert_eq!(
        world.reasons("a-younger"),
        ["refused: path / of host a.example belongs to the older default/z-elder"]
    );
}

#[tokio::test]
async fn what_no_path_matches_goes_to_the_default_backend_of_the_same_host_only() {
    let (web, fallback) = (Upstream::echo("web").await, Upstream::echo("default").await);
    let mut objects = backend("web", &[web.address]);
    objects.extend(backend("default", &[fallback.address]));
    let mut with_default = ingress("with").rule("with.example", &[(Prefix, "/web", "web")]);
    with_default.default_backend = Some(to("default"));
    objects.push(with_default.object());
    objects.push(ingress("without").rule("without.example", &[(Prefix, "/web", "web")]).object());
    objects.push(ingress("wild").host("*.example", "default").object());
    let world = World::new(objects).await;
    for (host, path, expected) in [
        ("with.example", "/web", Some("web")),
        ("with.example", "/other", Some("default")),
        ("without.example", "/web", Some("web")),
        // The wildcard is another tenant's, perhaps: it gets no path of a host that has rules.
        ("without.example", "/other", None),
        ("else.example", "/other", Some("default")),
        ("with.elsewhere", "/other", None),
    ] {
        let answer = get(world.http(), host, path).await;
        match expected {
            Some(name) => assert_eq!(answer.who(), (200, name), "{host}{path}"),
            None => assert_eq!(answer.status, 404, "{host}{path}"),
        }
    }
}

#[tokio::test]
async fn what_cannot_be_served_answers_503_and_says_why() {
    let web = Upstream::echo("web").await;
    let mut objects = backend("web", &[web.address]);
    objects.extend([service("empty"), external_name("outside"), service("wrong-port")]);
    let mut wrong_port = ingress("wrong-port").host("wrong-port.example", "x");
    let mut paths = wrong_port.rules[0].paths.to_vec();
    paths[0].backend = fairlead_state::model::IngressBackend::Service {
        name: "web".into(),
        port: fairlead_state::model::ServiceBackendPort::Name("nope".into()),
    };
    wrong_port.rules = [fairlead_state::model::IngressRule {
        host: Some("wrong-port.example".into()),
        paths: paths.into(),
    }]
    .into();
    let mut bucket = ingress("bucket");
    bucket.default_backend =
        Some(fairlead_state::model::IngressBackend::Resource("StorageBucket/icons".into()));
    objects.extend([
        ingress("empty").host("empty.example", "empty").object(),
        ingress("missing").host("missing.example", "missing").object(),
        ingress("outside").host("outside.example", "outside").object(),
        wrong_port.object(),
        bucket.object(),
        ingress("web").host("web.example", "web").object(),
    ]);
    let mut world = World::new(objects).await;
    for (name, reason) in [
        ("empty", None),
        ("missing", Some("waiting: Service default/missing does not exist")),
        (
            "outside",
            Some(
                "waiting: Service default/outside is of type ExternalName, which could lead \
                 anywhere, and example.com is none of --external-names",
            ),
        ),
        (
            "wrong-port",
            Some("waiting: Service default/web has no TCP port nope, but http (80/tcp)"),
        ),
        (
            "bucket",
            Some(
                "refused: backend resource StorageBucket/icons is of a kind that is not served; \
                 its paths answer 503",
            ),
        ),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.status, 503, "{name}");
        assert_eq!(world.reasons(name), reason.into_iter().collect::<Vec<_>>(), "{name}");
    }
    assert_eq!(get(world.http(), "web.example", "/").await.status, 200);

    world.apply(backend("missing", &[web.address])).await;
    assert_eq!(get(world.http(), "missing.example", "/").await.who(), (200, "web"));
    assert!(world.reasons("missing").is_empty());
}

/// A Service of type ExternalName with these ports, by number and number behind.
fn leading_to(name: &str, target: &str, ports: &[(u16, u16)]) -> Object {
    let Object::Service(usual) = external_name(name) else { unreachable!("it is a Service") };
    let ports = ports.iter().map(|(port, target)| ServicePort {
        port: *port,
        target_port: Some(TargetPort::Number(*target)),
        ..usual.ports[0].clone()
    });
    let external_name = Some(target.into());
    let extras = ServiceExtras { external_name, ..ServiceExtras::default() }.into();
    let ports = ports.collect::<Vec<_>>().into();
    Object::Service(Arc::new(Service { ports, extras, ..(*usual).clone() }))
}

/// Off by default: whoever may write a Service would lead requests anywhere.
#[tokio::test]
async fn a_service_that_leads_outside_is_served_if_its_name_is_allowed() {
    let port = outside().await;
    let objects = vec![
        leading_to("by-port", "localhost", &[(80, port)]),
        leading_to("without-port", "localhost", &[]),
        leading_to("other-name", "localhost.example", &[(80, port)]),
        to_port("by-port", "by-port", ServiceBackendPort::Number(80)),
        to_port("without-port", "without-port", ServiceBackendPort::Number(port)),
        to_port("no-number", "without-port", ServiceBackendPort::Name("http".into())),
        to_port("other-name", "other-name", ServiceBackendPort::Number(80)),
    ];
    let external_names = vec![HostPattern::parse("localhost").unwrap()];
    let mut world = World::with(IngressConfig { external_names, ..config() }, objects).await;
    for name in ["by-port", "without-port"] {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.who(), (200, "outside"), "{name}: who is ready need not be waited for");
        assert_eq!(world.reasons(name), Vec::<String>::new());
    }
    for (name, reason) in [
        ("no-number", "waiting: Service default/without-port has no TCP port http, and no other"),
        (
            "other-name",
            "waiting: Service default/other-name is of type ExternalName, which could lead anywhere, \
             and localhost.example is none of --external-names",
        ),
    ] {
        assert_eq!(get(world.http(), &format!("{name}.example"), "/").await.status, 503, "{name}");
        assert_eq!(world.reasons(name), [reason]);
    }
    // It comes to lead somewhere else, is a Service as others are, and leads there again.
    world.apply(vec![leading_to("by-port", "elsewhere.example", &[(80, port)])]).await;
    assert_eq!(get(world.http(), "by-port.example", "/").await.status, 503);
    let inside = Upstream::echo("inside").await;
    world.apply(backend("by-port", &[inside.address])).await;
    served_by(&world, "by-port", "inside").await;
    world.apply(vec![leading_to("by-port", "localhost", &[(80, port)])]).await;
    served_by(&world, "by-port", "outside").await;

    let closed = World::new(vec![
        leading_to("by-port", "localhost", &[(80, port)]),
        to_port("by-port", "by-port", ServiceBackendPort::Number(80)),
    ])
    .await;
    assert_eq!(get(closed.http(), "by-port.example", "/").await.status, 503, "by default");
}

/// A port of 127.0.0.1, where other upstreams are not.
async fn outside() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                read_until(&mut stream, "\r\n\r\n").await;
                let head = "HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\n";
                stream.write_all(format!("{head}outside").as_bytes()).await.unwrap();
            });
        }
    });
    port
}

/// Names are looked up aside: it may take a moment.
async fn served_by(world: &World, name: &str, who: &str) {
    let served = async {
        while get(world.http(), &format!("{name}.example"), "/").await.who() != (200, who) {
            tokio::task::yield_now().await;
        }
    };
    let is_served = tokio::time::timeout(PATIENCE, served).await.is_ok();
    assert!(is_served, "{name} by {who}: {:?}", world.reasons(name));
}

#[tokio::test]
async fn terminating_endpoints_serve_only_when_nobody_is_ready() {
    let (ready, ending, cold) = (
        Upstream::echo("ready").await,
        Upstream::echo("ending").await,
        Upstream::echo("cold").await,
    );
    let mut world = World::new(vec![
        service("web"),
        slice("web", "a", ready.address, Pod::Ready),
        slice("web", "b", ending.address, Pod::Terminating),
        slice("web", "c", cold.address, Pod::NotReady),
        ingress("web").host("a.example", "web").object(),
    ])
    .await;
    for _ in 0..6 {
        assert_eq!(get(world.http(), "a.example", "/").await.who(), (200, "ready"));
    }
    world.apply(vec![slice("web", "a", ready.address, Pod::NotReady)]).await;
    for _ in 0..6 {
        assert_eq!(get(world.http(), "a.example", "/").await.who(), (200, "ending"));
    }
    world.apply(vec![slice("web", "b", ending.address, Pod::NotReady)]).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 503);
    assert_eq!(cold.requests(), 0);
}

/// ingress-controller-conformance, load_balancing.feature.
#[tokio::test]
async fn conformance_every_endpoint_gets_its_share() {
    let mut upstreams = Vec::new();
    for _ in 0..10 {
        upstreams.push(Upstream::echo("web").await);
    }
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    let mut objects = backend("web", &addresses);
    objects.push(ingress("web").host("a.example", "web").object());
    let world = World::new(objects).await;
    for _ in 0..100 {
        assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    }
    for upstream in &upstreams {
        // Two threads, each in rounds of its own.
        assert!((9..=11).contains(&upstream.requests()), "{}", upstream.requests());
    }
}

#[tokio::test]
async fn only_ingresses_of_our_class_are_served() {
    let web = Upstream::echo("web").await;
    let legacy = "kubernetes.io/ingress.class";
    let mut objects = backend("web", &[web.address]);
    objects.push(class("other", "example.com/other"));
    let make = |name: &str, class: Option<&str>, annotation: Option<&str>| {
        let mut ingress = ingress(name).host(&format!("{name}.example"), "web");
        ingress.class_name = class.map(Into::into);
        match annotation {
            Some(value) => ingress.annotation(legacy, value).object(),
            None => ingress.object(),
        }
    };
    objects.extend([
        make("ours", Some("fairlead"), None),
        make("other", Some("other"), None),
        make("unknown", Some("unknown"), None),
        make("none", None, None),
        make("legacy", None, Some("fairlead")),
        make("legacy-other", None, Some("nginx")),
        make("both", Some("other"), Some("fairlead")),
        make("both-other", Some("fairlead"), Some("nginx")),
    ]);
    let mut world = World::new(objects).await;
    let served = async |world: &World, name: &str| {
        get(world.http(), &format!("{name}.example"), "/").await.status == 200
    };
    for (name, expected) in [
        ("ours", true),
        ("other", false),
        ("unknown", false),
        ("none", false),
        ("legacy", true),
        ("legacy-other", false),
        ("both", true),
        ("both-other", false),
    ] {
        assert_eq!(served(&world, name).await, expected, "{name}");
    }
    assert_eq!(world.reasons("both").len(), 1);

    // The class comes to be ours: its Ingresses are served from then on.
    world.apply(vec![class("other", "fairlead.io/ingress")]).await;
    assert!(served(&world, "other").await);
    world.apply(vec![class("other", "example.com/other")]).await;
    assert!(!served(&world, "other").await);
}

fn with_ports(name: &str, ports: &[(&str, u16)]) -> Object {
    match service(name) {
        Object::Service(service) => {
            let usual = &service.ports[0];
            let ports = ports.iter().map(|(name, port)| {
                let (name, port) = ((*name).into(), *port);
                ServicePort { name, port, ..usual.clone() }
            });
            let ports = ports.collect::<Vec<_>>().into();
            Object::Service(Arc::new(Service { ports, ..(*service).clone() }))
        }
        other => other,
    }
}

/// A slice whose port has this name.
fn named_slice(service: &str, port: &str, upstream: &Upstream) -> Object {
    let address = upstream.address;
    let suffix = address.to_string().replace(['.', ':'], "-");
    match slice(service, &suffix, address, Pod::Ready) {
        Object::EndpointSlice(slice) => {
            let port = EndpointPort { name: port.into(), ..slice.ports[0].clone() };
            let slice = EndpointSlice { ports: [port].into(), ..(*slice).clone() };
            Object::EndpointSlice(Arc::new(slice))
        }
        other => other,
    }
}

/// Everything under `NAME.example` to a port of a Service.
fn to_port(name: &str, service: &str, port: ServiceBackendPort) -> Object {
    let mut ingress = ingress(name).host(&format!("{name}.example"), service);
    let mut rule = ingress.rules[0].clone();
    let mut paths = rule.paths.to_vec();
    paths[0].backend = IngressBackend::Service { name: service.into(), port };
    rule.paths = paths.into();
    ingress.rules = [rule].into();
    ingress.object()
}

/// EndpointSlices name a Service's ports, and each says for itself which number a name has there.
#[tokio::test]
async fn a_port_is_found_by_number_or_name_and_each_slice_has_its_own_number() {
    use ServiceBackendPort::{Name, Number};
    let (first, second) = (Upstream::echo("first").await, Upstream::echo("second").await);
    let (admin, only) = (Upstream::echo("admin").await, Upstream::echo("only").await);
    let world = World::single(vec![
        with_ports("web", &[("http", 80), ("admin", 8080)]),
        named_slice("web", "http", &first),
        named_slice("web", "http", &second),
        named_slice("web", "admin", &admin),
        // The only port of a Service needs no name.
        with_ports("single", &[("", 80)]),
        named_slice("single", "", &only),
        to_port("number", "web", Number(80)),
        to_port("name", "web", Name("http".into())),
        to_port("other-number", "web", Number(8080)),
        to_port("other-name", "web", Name("admin".into())),
        to_port("single", "single", Number(80)),
        to_port("nobody", "web", Number(81)),
    ])
    .await;
    for (name, expected) in [
        ("number", &["first", "second"][..]),
        ("name", &["first", "second"]),
        ("other-number", &["admin"]),
        ("other-name", &["admin"]),
        ("single", &["only"]),
    ] {
        let mut seen = BTreeSet::new();
        for _ in 0..4 {
            let answer = get(world.http(), &format!("{name}.example"), "/").await;
            seen.insert(answer.who().1.to_owned());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected, "{name}");
    }
    assert_eq!(get(world.http(), "nobody.example", "/").await.status, 503);
    assert_eq!(world.reasons("nobody").len(), 1);
}

#[tokio::test]
async fn of_two_catch_alls_the_oldest_has_what_no_host_has() {
    let (old, new) = (Upstream::echo("old").await, Upstream::echo("new").await);
    let mut objects = backend("old", &[old.address]);
    objects.extend(backend("new", &[new.address]));
    for (name, service, created_seconds) in [("z-elder", "old", 1), ("a-younger", "new", 2)] {
        let default_backend = Some(to(service));
        objects.push(Ingress { created_seconds, default_backend, ..ingress(name) }.object());
    }
    let mut world = World::new(objects).await;
    assert_eq!(get(world.http(), "any.example", "/x").await.who(), (200, "old"));
    world.delete(ingress_ref("z-elder")).await;
    assert_eq!(get(world.http(), "any.example", "/x").await.who(), (200, "new"));
}
