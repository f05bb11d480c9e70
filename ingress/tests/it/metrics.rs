//! What each route served.

use std::time::Duration;

use fairlead_ingress::{Histogram, RequestKind, RouteCounters};
use fairlead_state::model::PathType::Prefix;
use http::{Method, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::io::AsyncWriteExt;

use crate::{
    annotations::{annotated, site},
    support::{
        PATIENCE, World,
        client::{connect, get, request, send},
        objects::{IngressExt, backend, ingress, ingress_ref},
        upstream::Upstream,
    },
};

/// Once `reached`: the counters tell nobody that they changed.
pub(crate) async fn served(
    world: &World,
    reached: impl Fn(&[RouteCounters]) -> bool,
) -> Vec<RouteCounters> {
    let meter = world.running.route_meter();
    let looking = async {
        loop {
            let routes = meter();
            if reached(&routes) {
                return routes;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let served = tokio::time::timeout(PATIENCE, looking).await;
    assert!(served.is_ok(), "{:#?}", meter());
    served.unwrap()
}

fn count(routes: &[RouteCounters]) -> u64 {
    routes.iter().flat_map(|route| route.requests.values()).map(Histogram::count).sum()
}

#[tokio::test]
async fn requests_are_counted_by_route_method_and_status_with_their_times_and_sizes() {
    let upstream = Upstream::serve(|_| async { Response::new(Full::new(Bytes::from("hello"))) });
    let upstream = upstream.await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(ingress("a").host("a.example", "web").object());
    objects.push(ingress("empty").host("empty.example", "nobody").object());
    let world = World::new(objects).await;
    for _ in 0..3 {
        assert_eq!(get(world.http(), "a.example", "/x").await.status, 200);
    }
    let mut post = request("a.example", "/x");
    *post.method_mut() = Method::POST;
    *post.body_mut() = Full::new(Bytes::from(vec![b'x'; 5_000]));
    assert_eq!(send(&mut connect(world.http()).await, post).await.status, 200);
    assert_eq!(get(world.http(), "empty.example", "/").await.status, 503);
    // Nobody's.
    assert_eq!(get(world.http(), "nobody.example", "/").await.status, 404);
    let routes = served(&world, |routes| count(routes) == 5).await;
    let [a, empty] = &routes[..] else { panic!("{routes:#?}") };
    let labels = &a.labels;
    let names = [&labels.host, &labels.path, &labels.namespace, &labels.ingress, &labels.service];
    assert_eq!(names.map(|name| &**name), ["a.example", "/", "default", "a", "web"]);
    let kind = |method, status| RequestKind { status, method, is_canary: false };
    assert_eq!(a.requests[&kind("GET", 200)].count(), 3);
    assert_eq!(a.requests[&kind("POST", 200)].count(), 1);
    for times in [&a.connect, &a.header, &a.response] {
        assert_eq!(times.count(), 4);
    }
    assert!(a.header.sum <= a.response.sum, "{a:#?}");
    assert!(a.request_bytes.sum > 5_000 && a.request_bytes.sum < 6_000, "{a:#?}");
    assert!(a.response_bytes.sum > 4 * 5, "{a:#?}");
    assert_eq!(empty.requests[&kind("GET", 503)].count(), 1);
    assert_eq!(empty.header.count(), 0, "nobody was asked");
}

#[tokio::test]
async fn connecting_to_an_endpoint_of_http2_takes_its_time_once() {
    let upstream = Upstream::serve2(|_| async { Response::new(Full::new(Bytes::from("hello"))) });
    let upstream = upstream.await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[("backend-protocol", "GRPC")]).object());
    let world = World::single(objects).await;
    let mut took_us = Vec::new();
    for requests in 1..=2 {
        assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
        let routes = served(&world, |routes| count(routes) == requests).await;
        assert_eq!(routes[0].connect.count(), requests);
        took_us.push(routes[0].connect.sum);
    }
    assert!(took_us[0] > 0 && took_us[0] == took_us[1], "{took_us:?}");
}

#[tokio::test]
async fn what_a_rule_answers_itself_is_its_own_and_what_the_host_does_is_nobodys() {
    let mut objects = backend("web", &[]);
    objects.extend(
        [
            site("https", &[("force-ssl-redirect", "true")]),
            site("moved", &[("permanent-redirect", "https://b.example/")]),
            site("denied", &[("allowlist-source-range", "192.0.2.0/24")]),
            site("cors", &[("enable-cors", "true")]),
            site("root", &[("app-root", "/app")]),
            ingress("slash").rule("slash.example", &[(Prefix, "/d/", "web")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    for (name, path, status) in [
        ("https", "/", 308),
        ("moved", "/", 301),
        ("denied", "/", 403),
        ("root", "/", 302),
        ("slash", "/d", 301),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        assert_eq!(answer.status, status, "{name}");
    }
    let mut preflight = request("cors.example", "/");
    *preflight.method_mut() = Method::OPTIONS;
    preflight.headers_mut().insert("origin", "https://b.example".parse().unwrap());
    assert_eq!(send(&mut connect(world.http()).await, preflight).await.status, 204);
    let routes = served(&world, |routes| count(routes) == 5).await;
    let kinds: Vec<_> = routes
        .iter()
        .flat_map(|route| {
            let ingress = &*route.labels.ingress;
            route.requests.keys().map(move |kind| (ingress, kind.status))
        })
        .collect();
    let expected = [("cors", 204), ("denied", 403), ("https", 308), ("moved", 301), ("slash", 301)];
    assert_eq!(kinds, expected);
}

#[tokio::test]
async fn who_is_asked_first_takes_none_of_the_endpoints_time() {
    const DELAY: Duration = Duration::from_secs(1);
    let authority = Upstream::serve(|_| async {
        tokio::time::sleep(DELAY).await;
        Response::new(Full::new(Bytes::new()))
    });
    let (upstream, authority) = (Upstream::echo("web").await, authority.await);
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/", authority.address);
    objects.push(site("a", &[("auth-url", &url)]).object());
    let world = World::new(objects).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    let routes = served(&world, |routes| count(routes) == 1).await;
    let took: u64 = routes[0].requests.values().map(|durations| durations.sum).sum();
    let delay_us = u64::try_from(DELAY.as_micros()).unwrap();
    let of_endpoint = [routes[0].header.sum, routes[0].response.sum];
    assert!(took >= delay_us && of_endpoint.iter().all(|sum| *sum < delay_us), "{routes:#?}");
}

#[tokio::test]
async fn a_trial_has_the_name_ingress_nginx_gives_its_upstream() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend(backend("next", &[upstream.address]));
    let trial = ingress("trial").host("a.example", "next");
    let trial = annotated(trial, &[("canary", "true"), ("canary-by-header", "x-next")]);
    objects.extend([site("a", &[]).object(), trial.object()]);
    let world = World::new(objects).await;
    for choice in ["always", "never"] {
        let mut asked = request("a.example", "/");
        asked.headers_mut().insert("x-next", choice.parse().unwrap());
        assert_eq!(send(&mut connect(world.http()).await, asked).await.status, 200);
    }
    let routes = served(&world, |routes| count(routes) == 2).await;
    assert_eq!(&*routes[0].labels.canary, "default-next-80");
    let kinds: Vec<_> = routes[0].requests.iter().map(|(k, h)| (k.is_canary, h.count())).collect();
    assert_eq!(kinds, [(false, 1), (true, 1)]);
}

#[tokio::test]
async fn a_client_that_left_is_its_routes_499() {
    let upstream = Upstream::serve(|_| std::future::pending::<Response<Full<Bytes>>>()).await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let world = World::new(objects).await;
    let mut stream = tokio::net::TcpStream::connect(world.http()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n").await.unwrap();
    world.eventually(|counters| counters.upstream_connects == 1).await;
    drop(stream);
    let routes = served(&world, |routes| count(routes) == 1).await;
    let kinds: Vec<_> = routes[0].requests.keys().map(|kind| kind.status).collect();
    assert_eq!(kinds, [499]);
}

#[tokio::test]
async fn a_changed_route_keeps_its_series_and_one_that_is_gone_has_none() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let mut world = World::new(objects).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    served(&world, |routes| count(routes) == 1).await;
    world.apply(vec![site("a", &[("proxy-body-size", "2m")]).object()]).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    served(&world, |routes| count(routes) == 2).await;
    world.delete(ingress_ref("a")).await;
    served(&world, <[RouteCounters]>::is_empty).await;
}
