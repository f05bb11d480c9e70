//! ingress-nginx's ConfigMap, read while serving.

use std::fmt::Write as _;

use fairlead_ingress::{ForwardedHeaders, IngressConfig, Matching, OPTIONS, Support};
use fairlead_state::{Key, Kind, Object, ObjectRef};
use http::{HeaderValue, Response};
use http_body_util::Full;
use hyper::body::Bytes;
use tokio::net::TcpStream;

use crate::{
    annotations::site,
    support::{
        World,
        client::{self, Answer, connect, get, get2, request, send},
        objects::{Authority, IngressExt, backend, class, config_map, ingress, ingress_ref},
        page_ends_with,
        upstream::Upstream,
    },
};

/// A role with the ConfigMap `default/nginx`.
async fn world(objects: Vec<Object>) -> World {
    let map = Some(Key::new("default", "nginx"));
    let config = IngressConfig { config_map: map, threads: Some(2), ..crate::support::config() };
    let mut world = World::with(config, objects).await;
    world.apply(vec![class("fairlead", "fairlead.io/ingress")]).await;
    world
}

async fn says(world: &mut World, data: &[(&str, &str)]) {
    world.apply(vec![config_map("nginx", data)]).await;
}

async fn asked(world: &World, fields: &[(&'static str, &'static str)]) -> Answer {
    let mut request = request("a.example", "/");
    for (name, value) in fields {
        request.headers_mut().insert(*name, HeaderValue::from_static(value));
    }
    send(&mut connect(world.http()).await, request).await
}

#[tokio::test]
async fn what_it_says_is_in_force_at_once_and_an_annotation_says_otherwise() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    objects.push(site("own", &[("whitelist-source-range", "127.0.0.0/8")]).object());
    let mut world = world(objects).await;
    assert_eq!(
        world.reasons("nginx"),
        ["waiting: ConfigMap default/nginx does not exist: the agent's own settings hold"]
    );
    for (data, a, own) in [
        (&[("whitelist-source-range", "192.0.2.1")][..], 403, 200),
        (&[("whitelist-source-range", "")], 200, 200),
        (&[("denylist-source-range", "127.0.0.1")], 403, 403),
        (&[("force-ssl-redirect", "true"), ("http-redirect-code", "307")], 307, 307),
        (&[("block-cidrs", "127.0.0.0/8")], 403, 403),
        (&[("block-user-agents", "~*^bad")], 200, 200),
        (&[], 200, 200),
    ] {
        says(&mut world, data).await;
        let answered = (
            get(world.http(), "a.example", "/").await.status,
            get(world.http(), "own.example", "/").await.status,
        );
        assert_eq!(answered, (a, own), "{data:?}");
    }
    assert!(world.reasons("nginx").is_empty());
}

/// Whom to believe was fixed when a connection began: those a balancer in front keeps open are older than its
/// options, and strangers keep theirs as long as they like.
#[tokio::test]
async fn bug_whom_to_believe_is_in_force_for_connections_that_are_open() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let mut world = world(objects).await;
    let mut sender = connect(world.http()).await;
    let believes = ("use-forwarded-headers", "true");
    for (data, forwarded_for, scheme) in [
        (&[][..], "127.0.0.1", "http"),
        (&[believes], "203.0.113.9, 127.0.0.1", "https"),
        (&[believes, ("proxy-real-ip-cidr", "192.0.2.0/24")], "127.0.0.1", "http"),
        (&[believes, ("proxy-real-ip-cidr", "127.0.0.0/8")], "203.0.113.9, 127.0.0.1", "https"),
        (&[], "127.0.0.1", "http"),
    ] {
        says(&mut world, data).await;
        let mut request = request("a.example", "/");
        for (name, value) in [("x-forwarded-for", "203.0.113.9"), ("x-forwarded-proto", "https")] {
            request.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        let answer = send(&mut sender, request).await;
        assert_eq!(answer.saw("x-forwarded-for"), Some(forwarded_for), "{data:?}");
        assert_eq!(answer.saw("x-forwarded-proto"), Some(scheme), "{data:?}");
    }
}

#[tokio::test]
async fn what_guards_and_cannot_be_read_lets_nobody_in_unless_it_could_be_before() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let mut world = world(objects).await;
    let wrong = ("whitelist-source-range", "everybody");
    says(&mut world, &[wrong]).await;
    assert_eq!(asked(&world, &[]).await.status, 503);
    says(&mut world, &[("whitelist-source-range", "127.0.0.0/8")]).await;
    assert_eq!(asked(&world, &[]).await.status, 200);
    says(&mut world, &[wrong]).await;
    assert_eq!(asked(&world, &[]).await.status, 200, "the last good one stays");
    let reasons = world.reasons("nginx");
    assert!(reasons[0].contains("\"127.0.0.0/8\" stays in force"), "{reasons:?}");
}

/// nginx.tmpl: `return {{ $all.Cfg.HTTPRedirectCode }} $redirect_to`.
#[tokio::test]
async fn bug_a_redirect_from_www_has_the_status_it_is_told() {
    let mut world = world(vec![site("a", &[("from-to-www-redirect", "true")]).object()]).await;
    for (data, expected) in [(&[][..], 308), (&[("http-redirect-code", "301")], 301)] {
        says(&mut world, data).await;
        assert_eq!(get(world.http(), "www.a.example", "/").await.status, expected, "{data:?}");
    }
}

/// `kubectl replace --force` deletes and creates: in between everybody was let in.
#[tokio::test]
async fn attack_a_config_map_that_is_deleted_opens_nothing() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let mut world = world(objects).await;
    assert_eq!(asked(&world, &[]).await.status, 200, "at first there was none");
    says(&mut world, &[("whitelist-source-range", "192.0.2.1")]).await;
    assert_eq!(asked(&world, &[]).await.status, 403);
    let key = Key::new("default", "nginx");
    world.delete(ObjectRef { kind: Kind::ConfigMap, key }).await;
    assert_eq!(asked(&world, &[]).await.status, 403);
    // Of Ingresses that come now, too.
    world.apply(vec![site("b", &[]).object()]).await;
    assert_eq!(get(world.http(), "b.example", "/").await.status, 403);
    let reasons = world.reasons("nginx");
    assert!(reasons[0].contains("was deleted: its last options stay in force"), "{reasons:?}");
    says(&mut world, &[]).await;
    assert_eq!(asked(&world, &[]).await.status, 200);
    assert!(world.reasons("nginx").is_empty());
}

/// They were named and left out, and whom they kept out was let in.
#[tokio::test]
async fn attack_a_snippet_for_all_that_keeps_somebody_out_is_acted_on_or_closes_all() {
    const BAD: &str = "if ($http_user_agent = bad) { return 403; }";
    const CLOSED: Option<&str> = Some("until then all answer 503");
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let mut world = world(objects).await;
    for (name, value, of_bad, of_good, told) in [
        ("http-snippet", "deny 192.0.2.1;", 503, 503, CLOSED),
        ("server-snippet", "deny 192.0.2.1;", 503, 503, CLOSED),
        ("location-snippet", "satisfy all;", 503, 503, CLOSED),
        ("server-snippet", BAD, 403, 200, None),
        ("location-snippet", BAD, 403, 200, None),
        // The last good one stays.
        ("location-snippet", "deny all;", 403, 200, Some("its last value stays in force")),
        ("server-snippet", "unknown;", 200, 200, Some("unknown is not served")),
        ("http-snippet", "map $a $b { default 1; }", 200, 200, Some("nothing is executed")),
        // Keys are no directives.
        ("http-snippet", "map $a $b { internal ''; }", 200, 200, Some("nothing is executed")),
        ("http-snippet", "map $a $b { deny 1; } deny all;", 503, 503, CLOSED),
        (
            "http-snippet",
            "server { location / { deny all; } }",
            200,
            200,
            Some("nothing is executed"),
        ),
    ] {
        says(&mut world, &[(name, value)]).await;
        for (agent, status) in [("bad", of_bad), ("good", of_good)] {
            let answer = asked(&world, &[("user-agent", agent)]).await;
            assert_eq!(answer.status, status, "{name} {value}: {agent}");
        }
        let reasons = world.reasons("nginx");
        assert_eq!(reasons.len(), usize::from(told.is_some()), "{name} {value}: {reasons:?}");
        assert!(reasons.iter().all(|reason| reason.contains(told.unwrap())), "{reasons:?}");
    }
}

/// Where ingress-nginx has them: each behind the Ingress's own of its kind.
#[tokio::test]
async fn snippets_for_all_are_beside_those_of_ingresses() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let own = "more_set_headers 'X-Own: a';\nif ($arg_own) { return 404; }";
    objects.push(site("b", &[("configuration-snippet", own)]).object());
    objects.push(site("c", &[("server-snippet", own)]).object());
    let mut world = world(objects).await;
    for (name, of_location) in [("server-snippet", 410), ("location-snippet", 404)] {
        let text = "more_set_headers 'X-All: b';\nif ($arg_own) { return 410; }";
        says(&mut world, &[(name, text)]).await;
        assert!(world.reasons("nginx").is_empty(), "{:?}", world.reasons("nginx"));
        for (host, has_own, of_both) in
            [("a.example", false, 410), ("b.example", true, of_location), ("c.example", true, 404)]
        {
            let answer = get(world.http(), host, "/").await;
            assert_eq!(answer.headers["x-all"], "b", "{name} {host}");
            assert_eq!(answer.headers.contains_key("x-own"), has_own, "{name} {host}");
            assert_eq!(get(world.http(), host, "/?own=1").await.status, of_both, "{name} {host}");
        }
    }
}

#[tokio::test]
async fn who_is_blocked_is_let_in_nowhere() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let mut world = world(objects).await;
    says(&mut world, &[("block-user-agents", "curl,~*bot"), ("block-referers", "~*spam")]).await;
    for (field, value, status) in [
        ("user-agent", "curl", 403),
        ("user-agent", "curl/8", 200),
        ("user-agent", "GoogleBot", 403),
        ("referer", "https://spam.example/", 403),
        ("referer", "https://b.example/", 200),
    ] {
        assert_eq!(asked(&world, &[(field, value)]).await.status, status, "{field}: {value}");
    }
    assert_eq!(upstream.requests(), 2);
}

#[tokio::test]
async fn limits_fields_and_statuses_are_its() {
    let upstream = Upstream::serve(|request: http::Request<_>| async move {
        let seen = request.headers().contains_key("x_under");
        Response::builder()
            .header("x-powered-by", "php")
            .header("x-seen", if seen { "yes" } else { "no" })
            .body(Full::new(Bytes::from("web\n")))
            .unwrap()
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    objects.push(site("slow", &[("limit-rpm", "1"), ("limit-burst-multiplier", "1")]).object());
    let mut world = world(objects).await;
    says(
        &mut world,
        &[
            ("proxy-body-size", "4"),
            ("hide-headers", "X-Powered-By"),
            ("enable-underscores-in-headers", "true"),
            ("limit-req-status-code", "429"),
            ("keep-alive-requests", "2"),
        ],
    )
    .await;
    let answer = asked(&world, &[("x_under", "1")]).await;
    assert!(!answer.headers.contains_key("x-powered-by"));
    assert_eq!(answer.headers["x-seen"], "yes");
    let mut post = request("a.example", "/");
    *post.body_mut() = Full::new(Bytes::from("12345"));
    assert_eq!(send(&mut connect(world.http()).await, post).await.status, 413);
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(get(world.http(), "slow.example", "/").await.status);
    }
    assert!(statuses.contains(&429) && !statuses.contains(&503), "{statuses:?}");
    let mut kept = connect(world.http()).await;
    for expected in [None, Some("close")] {
        let answer = send(&mut kept, request("a.example", "/")).await;
        let close = answer.headers.get("connection").map(|value| value.to_str().unwrap());
        assert_eq!(close, expected);
    }
    // It may send no more, and has its answers.
    let mut sender2 = client::http2(TcpStream::connect(world.http()).await.unwrap()).await;
    for _ in 0..2 {
        assert_eq!(get2(&mut sender2, "a.example", "/").await.status, 200);
    }
    world.eventually(|counters| counters.connections_open == 0).await;
}

#[tokio::test]
async fn forwarding_fields_are_believed_of_whom_it_names() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    let mut world = world(objects).await;
    let everybody = "differs: option use-forwarded-headers believes everybody: whoever connects passes \
                     for any address, turns redirects to HTTPS off and says where redirects lead; \
                     name your balancers in proxy-real-ip-cidr";
    for (cidr, expected, said) in [
        ("192.0.2.0/24", "http", &[][..]),
        ("127.0.0.0/8", "https", &[]),
        // As ingress-nginx, which has the second one where nothing is said.
        ("", "https", &[everybody]),
        ("0.0.0.0/0", "https", &[everybody]),
    ] {
        says(&mut world, &[("use-forwarded-headers", "true"), ("proxy-real-ip-cidr", cidr)]).await;
        let answer = asked(&world, &[("x-forwarded-proto", "https")]).await;
        assert_eq!(answer.saw("x-forwarded-proto"), Some(expected), "{cidr}");
        assert_eq!(world.reasons("nginx"), said, "{cidr}");
    }
}

#[tokio::test]
async fn handshakes_go_by_it() {
    let authority = Authority::new();
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(authority.secret("cert", &["a.example"]));
    objects.push(site("a", &[]).tls(&["a.example"], "cert").object());
    let mut world = world(objects).await;
    let alpn = async |world: &World| {
        let config = client::trusting(authority.der(), &["h2", "http/1.1"]);
        let stream = client::tls(world.https(), "a.example", config).await.unwrap();
        String::from_utf8(stream.get_ref().1.alpn_protocol().unwrap().to_vec()).unwrap()
    };
    let unknown = async |world: &World| {
        client::tls(world.https(), "b.example", client::trusting_anybody()).await.is_ok()
    };
    assert_eq!(alpn(&world).await, "h2");
    assert!(unknown(&world).await);
    says(
        &mut world,
        &[("use-http2", "false"), ("ssl-reject-handshake", "true"), ("ssl-protocols", "TLSv1.3")],
    )
    .await;
    assert_eq!(alpn(&world).await, "http/1.1");
    assert!(!unknown(&world).await);
    let builder = rustls::ClientConfig::builder_with_provider(std::sync::Arc::new(
        rustls::crypto::aws_lc_rs::default_provider(),
    ));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(authority.der()).unwrap();
    let tls12 = builder.with_protocol_versions(&[&rustls::version::TLS12]).unwrap();
    let tls12 = tls12.with_root_certificates(roots).with_no_client_auth();
    assert!(client::tls(world.https(), "a.example", tls12).await.is_err());
}

#[tokio::test]
async fn everybody_is_asked_for_by_default_and_some_are_left_out() {
    let authority = Upstream::serve(|_| async {
        let mut response = Response::new(Full::new(Bytes::new()));
        *response.status_mut() = http::StatusCode::UNAUTHORIZED;
        response
    })
    .await;
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[]).object());
    objects.push(site("open", &[("enable-global-auth", "false")]).object());
    objects.push(site("unclear", &[("enable-global-auth", "no")]).object());
    let mut world = world(objects).await;
    let url = format!("http://{}/verify", authority.address);
    says(&mut world, &[("global-auth-url", &url)]).await;
    for (name, status) in [("a", 401), ("open", 200), ("unclear", 503)] {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.status, status, "{name}");
    }
    assert_eq!((authority.requests(), upstream.requests()), (1, 1));
}

/// ingress-nginx has the directive in its server `_` alone: a host that is served by the default certificate
/// is served on.
#[tokio::test]
async fn bug_handshakes_for_hosts_with_the_default_certificate_are_not_refused() {
    let authority = Authority::new();
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        authority.secret("cert", &["own.example"]),
        site("own", &[]).tls(&["own.example"], "cert").object(),
        site("plain", &[("server-alias", "alias.example")]).object(),
        site("section", &[]).tls(&["section.example"], "").object(),
        site("missing", &[]).tls(&["missing.example"], "missing").object(),
        ingress("wild").host("*.wild.example", "web").object(),
        // Whose hosts are all those that nobody has.
        ingress("any").host("*", "web").tls(&["named.example"], "").object(),
    ]);
    let mut world = world(objects).await;
    let is_taken = async |world: &World, name: &str| {
        client::tls(world.https(), name, client::trusting_anybody()).await.is_ok()
    };
    let served = ["own", "plain", "alias", "section", "missing", "a.wild", "named", "PLAIN"];
    let served = served.map(|name| format!("{name}.example"));
    // The last one has no name to call.
    let unserved = ["other.example", "wild.example", "a.b.wild.example", "127.0.0.1"];
    for (rejects, expected) in [("false", true), ("true", false)] {
        says(&mut world, &[("ssl-reject-handshake", rejects)]).await;
        for name in &served {
            assert!(is_taken(&world, name).await, "{name}, {rejects}");
        }
        for name in unserved {
            assert_eq!(is_taken(&world, name).await, expected, "{name}, {rejects}");
        }
    }
    world.delete(ingress_ref("plain")).await;
    assert!(!is_taken(&world, "plain.example").await);
    world.apply(vec![site("other", &[]).object()]).await;
    assert!(is_taken(&world, "other.example").await);
}

#[tokio::test]
async fn snippets_are_refused_where_it_allows_none() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("a", &[("configuration-snippet", "return 204;")]).object());
    let mut world = world(objects).await;
    assert_eq!(asked(&world, &[]).await.status, 204);
    says(&mut world, &[("allow-snippet-annotations", "false")]).await;
    assert_eq!(asked(&world, &[]).await.status, 200);
    assert_eq!(world.reasons("a").len(), 1);
}

/// ingress-nginx 1.15 without a ConfigMap (its configmap.md, tls.md and cli-arguments.md).
#[test]
fn what_holds_without_a_word_is_ingress_nginxs() {
    let IngressConfig { limits, timeouts, tls, .. } = IngressConfig::default();
    for (option, ours, theirs) in [
        ("proxy-body-size", limits.body_bytes_max, 1 << 20),
        ("large-client-header-buffers, all", limits.head_bytes_max as u64, 4 * (8 << 10)),
        ("large-client-header-buffers, one", limits.uri_bytes_max as u64, 8 << 10),
        ("http2-max-concurrent-streams", limits.h2_streams_max.into(), 128),
        ("proxy-next-upstream-tries", limits.upstream_tries_max as u64, 3),
        ("proxy-connect-timeout", timeouts.upstream_connect_ms, 5_000),
        ("proxy-send-timeout", timeouts.upstream_send_ms, 60_000),
        ("proxy-read-timeout", timeouts.upstream_read_ms, 60_000),
        ("client-header-timeout", timeouts.header_read_ms, 60_000),
        ("client-body-timeout", timeouts.client_body_ms, 60_000),
        ("keep-alive", timeouts.keep_alive_idle_ms, 75_000),
        ("upstream-keepalive-timeout", timeouts.upstream_idle_ms, 60_000),
        ("proxy-stream-timeout", timeouts.stream_idle_ms, 600_000),
    ] {
        assert_eq!(ours, theirs, "{option}");
    }
    let config = IngressConfig::default();
    for (option, ours, theirs) in [
        ("http-redirect-code", config.https_redirect_status, 308_u16),
        ("limit-req-status-code", config.request_rate_status, 503),
        ("limit-conn-status-code", config.client_connections_status, 503),
    ] {
        assert_eq!(ours, theirs, "{option}");
    }
    assert!(tls.tls12 && tls.tls13 && tls.http2 && !tls.rejects_unknown);
    assert!(!config.underscores_in_headers && config.compression.is_none());
    assert_eq!(config.matching, Matching::Compat);
    assert_eq!(config.forwarded_headers, ForwardedHeaders::Replace);
}

fn table() -> String {
    let mut table = String::new();
    for support in [Support::Works, Support::Differs, Support::Refused] {
        let count = OPTIONS.iter().filter(|row| row.support == support).count();
        let _ = write!(table, "{} {count}, ", support.as_str());
    }
    let _ = writeln!(table, "of {}.\n", OPTIONS.len());
    table.push_str("| option | support | what differs, why not, what instead |\n|---|---|---|\n");
    for row in OPTIONS {
        let note = row.note.replace('|', "\\|");
        let _ = writeln!(table, "| `{}` | {} | {note} |", row.name, row.support.as_str());
    }
    table
}

#[test]
fn the_documentation_is_up_to_date() {
    page_ends_with("configmap.md", "options", &table());
}
