//! Fields that ConfigMaps name.

use fairlead_ingress::IngressConfig;
use fairlead_state::{Key, Kind, ObjectRef};
use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;

use super::site;
use crate::support::{
    World,
    client::{connect, get, request, send},
    config,
    objects::{IngressExt, backend, config_map},
    upstream::Upstream,
};

#[tokio::test]
async fn answers_have_what_a_config_map_says() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(config_map("headers", &[("X-Frame-Options", "DENY"), ("X-Host", "$host")]));
    objects.push(site("a", &[("custom-headers", "default/headers")]).object());
    objects.push(site("foreign", &[("custom-headers", "other/headers")]).object());
    objects.push(site("none", &[("custom-headers", "nothing")]).object());
    let mut world = World::new(objects).await;
    let answer = get(world.http(), "a.example", "/").await;
    assert_eq!(answer.headers["x-frame-options"], "DENY");
    assert_eq!(answer.headers["x-host"], "a.example");
    for (name, reason) in [("foreign", "of another namespace"), ("none", "does not exist")] {
        assert_eq!(get(world.http(), &format!("{name}.example"), "/").await.status, 200);
        assert!(world.reasons(name)[0].contains(reason), "{:?}", world.reasons(name));
    }
    world.apply(vec![config_map("headers", &[("X-Frame-Options", "SAMEORIGIN")])]).await;
    let answer = get(world.http(), "a.example", "/").await;
    assert_eq!(answer.headers["x-frame-options"], "SAMEORIGIN");
    assert!(!answer.headers.contains_key("x-host"));
}

#[tokio::test]
async fn bug_what_a_config_map_says_of_a_field_holds_whatever_a_snippet_says() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(config_map("headers", &[("X-Both", "map"), ("Server", "map")]));
    let snippet =
        "more_set_headers 'X-Both: snippet' 'X-Own: snippet';\nmore_clear_headers Server;";
    let says = [("custom-headers", "headers"), ("configuration-snippet", snippet)];
    objects.push(site("a", &says).object());
    let world = World::new(objects).await;
    let answer = get(world.http(), "a.example", "/").await;
    for (field, value) in [("x-both", "map"), ("x-own", "snippet"), ("server", "map")] {
        assert_eq!(answer.headers[field], value, "{field}");
    }
}

/// nginx.tmpl: they are the location's, whatever answers there.
#[tokio::test]
async fn bug_answers_a_path_gives_itself_say_what_all_of_its_answers_do() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(config_map("headers", &[("X-Map", "$request_uri")]));
    let says = |more: &str| format!("more_set_headers 'X-Snippet: $request_method';\n{more}");
    let (fields, returns) = (says(""), says("return 503;"));
    type Fields = &'static [(&'static str, &'static str)];
    let cases: [(&str, &str, Fields, &str, u16); 6] = [
        ("web", &fields, &[], "GET", 200),
        ("preflight", &fields, &[], "OPTIONS", 204),
        ("returned", &returns, &[], "GET", 503),
        ("moved", &fields, &[("permanent-redirect", "https://b.example/")], "GET", 301),
        ("rewritten", &fields, &[("rewrite-target", "https://b.example/")], "GET", 302),
        ("https", &fields, &[("force-ssl-redirect", "true")], "GET", 308),
    ];
    for (name, snippet, more, _, _) in cases {
        let all = [
            ("custom-headers", "headers"),
            ("enable-cors", "true"),
            ("configuration-snippet", snippet),
        ];
        objects.push(site(name, &[&all[..], more].concat()).object());
    }
    let config = IngressConfig { https_redirect_port: Some(443), ..config() };
    let world = World::with(config, objects).await;
    for (name, _, _, method, status) in cases {
        let mut asked = request(&format!("{name}.example"), "/a?b=c");
        *asked.method_mut() = method.parse().unwrap();
        let answer = send(&mut connect(world.http()).await, asked).await;
        assert_eq!(answer.status, status, "{name}");
        for (field, value) in [
            ("x-map", "/a?b=c"),
            ("x-snippet", method),
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
        ] {
            let told = answer.headers.get(field).map(|value| value.to_str().unwrap());
            assert_eq!(told, Some(value), "{name}: {field}");
        }
    }
}

#[tokio::test]
async fn whoever_is_asked_is_told_what_a_config_map_says() {
    let authority = Upstream::serve(|request: http::Request<_>| async move {
        let is_told = request.headers().get("x-secret").is_some_and(|value| value == "a.example");
        let status = if is_told { 200 } else { 403 };
        Response::builder().status(status).body(Full::new(Bytes::new())).unwrap()
    })
    .await;
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/verify", authority.address);
    let ingress = site("a", &[("auth-url", &url), ("auth-proxy-set-headers", "default/headers")]);
    objects.push(ingress.object());
    let mut world = World::new(objects).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 503, "nobody knows what to say");
    world.apply(vec![config_map("headers", &[("X-Secret", "$host")])]).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 200);
    let key = Key::new("default", "headers");
    world.delete(ObjectRef { kind: Kind::ConfigMap, key }).await;
    assert_eq!(get(world.http(), "a.example", "/").await.status, 503);
}
