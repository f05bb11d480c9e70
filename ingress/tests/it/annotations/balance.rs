//! Which endpoint a request goes to.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime},
};

use fairlead_state::Object;
use http::Response;
use http_body_util::Full;
use hyper::body::Bytes;

use super::site;
use crate::support::{
    World,
    client::{Answer, connect, get, http1, request, send, tls, trusting_anybody},
    objects::{IngressExt, Pod, backend, slice, slice_ref},
    upstream::{Upstream, dead},
};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Service `web` with these endpoints.
async fn endpoints(names: &[&'static str]) -> (Vec<Upstream>, Vec<Object>) {
    let mut upstreams = Vec::new();
    for name in names {
        upstreams.push(Upstream::echo(name).await);
    }
    let addresses: Vec<_> = upstreams.iter().map(|upstream| upstream.address).collect();
    (upstreams, backend("web", &addresses))
}

async fn with(world: &World, host: &str, fields: &[(&'static str, &str)]) -> Answer {
    let mut request = request(host, "/");
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    send(&mut connect(world.http()).await, request).await
}

fn cookie(answer: &Answer) -> Option<String> {
    answer.headers.get("set-cookie").map(|value| value.to_str().unwrap().to_owned())
}

/// `NAME=VALUE` of it.
fn crumb(answer: &Answer) -> String {
    cookie(answer).unwrap().split(';').next().unwrap().to_owned()
}

#[tokio::test]
async fn a_hash_of_the_request_leads_to_one_endpoint_or_one_subset() {
    let (_upstreams, mut objects) = endpoints(&NAMES).await;
    let by = ("upstream-hash-by", "$http_x_user");
    let (subset, two) =
        (("upstream-hash-by-subset", "true"), ("upstream-hash-by-subset-size", "2"));
    objects.extend(
        [
            site("hash", &[by]),
            site("subset", &[by, subset, two]),
            site("bad", &[("upstream-hash-by", "constant")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let seen = async |host: &str, user: &str| {
        let mut seen = BTreeSet::new();
        for _ in 0..8 {
            let answer = with(&world, host, &[("x-user", user)]).await;
            seen.insert(answer.who().1.to_owned());
        }
        seen
    };
    let mut all = BTreeSet::new();
    for user in ["u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"] {
        let one = seen("hash.example", user).await;
        assert_eq!(one.len(), 1, "{user}: {one:?}");
        all.extend(one);
        assert_eq!(seen("subset.example", user).await.len(), 2, "{user}");
    }
    assert!(all.len() > 1);
    assert_eq!(seen("bad.example", "u1").await.len(), 4);
    assert_eq!(world.reasons("bad").len(), 1);
}

#[tokio::test]
async fn a_cookie_keeps_a_client_with_its_endpoint() {
    let (upstreams, mut objects) = endpoints(&NAMES).await;
    let on = ("affinity", "cookie");
    objects.extend(
        [site("balanced", &[on]), site("persistent", &[on, ("affinity-mode", "persistent")])]
            .map(IngressExt::object),
    );
    let mut world = World::new(objects).await;
    let mut kept = Vec::new();
    for host in ["balanced.example", "persistent.example"] {
        let first = get(world.http(), host, "/").await;
        let crumb = crumb(&first);
        assert!(crumb.starts_with("INGRESSCOOKIE="), "{crumb}");
        for _ in 0..6 {
            let answer = with(&world, host, &[("cookie", &crumb)]).await;
            assert_eq!(answer.who(), first.who(), "{host}");
            assert_eq!(cookie(&answer), None, "{host}");
        }
        let names: BTreeSet<String> = {
            let mut names = BTreeSet::new();
            for _ in 0..40 {
                names.insert(get(world.http(), host, "/").await.who().1.to_owned());
            }
            names
        };
        assert_eq!(names.len(), 4, "clients without a cookie are spread");
        kept.push((host, first.who().1.to_owned(), crumb));
    }
    // Its endpoint goes: another one, and in persistent mode another cookie.
    for (host, name, crumb) in kept {
        let gone = NAMES.iter().position(|other| **other == *name).unwrap();
        world.delete(slice_ref("web", &gone.to_string())).await;
        let answer = with(&world, host, &[("cookie", &crumb)]).await;
        assert_ne!(answer.who().1, name);
        assert_eq!(cookie(&answer).is_some(), host.starts_with("persistent"), "{host}");
        let address = upstreams[gone].address;
        world.apply(vec![slice("web", &gone.to_string(), address, Pod::Ready)]).await;
    }
}

#[tokio::test]
async fn the_cookie_is_made_as_the_annotations_say() {
    let (_upstreams, mut objects) = endpoints(&["a"]).await;
    let on = ("affinity", "cookie");
    objects.extend(
        [
            site("plain", &[on]),
            site(
                "all",
                &[
                    on,
                    ("session-cookie-name", "route"),
                    ("session-cookie-path", "/app"),
                    ("session-cookie-domain", "example"),
                    ("session-cookie-max-age", "60"),
                    ("session-cookie-expires", "60"),
                    ("session-cookie-samesite", "None"),
                    ("session-cookie-conditional-samesite-none", "true"),
                    ("session-cookie-secure", "true"),
                ],
            ),
            site("gone", &[on, ("session-cookie-expires", "-2000000000")]),
            site("bad", &[on, ("session-cookie-path", "/; HttpOnly")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let plain = cookie(&get(world.http(), "plain.example", "/x").await).unwrap();
    assert!(plain.ends_with("; Path=/; HttpOnly"), "{plain}");
    let all = cookie(&get(world.http(), "all.example", "/").await).unwrap();
    assert!(all.starts_with("route="), "{all}");
    let expires = all.split_once("; Expires=").unwrap().1.split(';').next().unwrap();
    let left = httpdate::parse_http_date(expires).unwrap().duration_since(SystemTime::now());
    let left = left.unwrap().as_secs();
    assert!((30..=60).contains(&left), "{left} s are left of 60: {all}");
    let rest = "; Max-Age=60; Path=/app; Domain=example; Secure; HttpOnly; SameSite=None";
    assert!(all.ends_with(rest), "{all}");
    let gone = cookie(&get(world.http(), "gone.example", "/").await).unwrap();
    assert!(gone.contains("; Expires=Thu, 01 Jan 1970 00:00:00 GMT;"), "{gone}");
    let old = "Mozilla/5.0 (X11; Linux x86_64) Chrome/60.0.3112 Safari/537.36";
    let all = cookie(&with(&world, "all.example", &[("user-agent", old)]).await).unwrap();
    assert!(all.ends_with("; HttpOnly"), "{all}");
    let bad = cookie(&get(world.http(), "bad.example", "/").await).unwrap();
    assert!(bad.ends_with("; Path=/; HttpOnly"), "{bad}");
    assert_eq!(world.reasons("bad").len(), 1);
}

/// sticky.lua goes by HTTPS where nothing is said, and of `false` the controller says nothing.
#[tokio::test]
async fn bug_no_word_takes_secure_off_a_cookie_of_https() {
    let (_upstreams, mut objects) = endpoints(&["a"]).await;
    for (name, secure) in [("says-true", "true"), ("says-false", "false")] {
        let says = [("affinity", "cookie"), ("session-cookie-secure", secure)];
        objects.push(site(name, &says).object());
    }
    let world = World::new(objects).await;
    for (name, by_http) in [("says-true", true), ("says-false", false)] {
        let host = format!("{name}.example");
        let answer = get(world.http(), &host, "/").await;
        assert_eq!(cookie(&answer).unwrap().contains("; Secure"), by_http, "{name}");
        let stream = tls(world.https(), &host, trusting_anybody()).await.unwrap();
        let answer = send(&mut http1(stream).await, request(&host, "/")).await;
        assert!(cookie(&answer).unwrap().contains("; Secure"), "{name}");
    }
}

#[tokio::test]
async fn a_cookie_that_leads_to_a_failing_endpoint_is_changed_where_that_is_wished() {
    let good = Upstream::echo("good").await;
    let mut objects = backend("web", &[good.address, dead().await]);
    let on = ("affinity", "cookie");
    objects.extend(
        [site("stay", &[on]), site("change", &[on, ("session-cookie-change-on-failure", "true")])]
            .map(IngressExt::object),
    );
    let world = World::single(objects).await;
    for (host, changes) in [("stay.example", false), ("change.example", true)] {
        let mut changed = 0;
        for key in 0..12 {
            let crumb = format!("INGRESSCOOKIE=key{key}|mark");
            let answer = with(&world, host, &[("cookie", &crumb)]).await;
            assert_eq!(answer.who(), (200, "good"), "{host}");
            changed += usize::from(cookie(&answer).is_some());
        }
        assert_eq!(changed > 0, changes, "{host}: {changed}");
    }
}

#[tokio::test]
async fn the_faster_of_two_endpoints_gets_most_requests() {
    let fast = Upstream::echo("fast").await;
    let slow = Upstream::serve(|_| async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        Response::new(Full::new(Bytes::from("slow\n")))
    })
    .await;
    let mut objects = backend("web", &[fast.address, slow.address]);
    objects.push(site("ewma", &[("load-balance", "ewma")]).object());
    objects.push(site("chash", &[("load-balance", "chash")]).object());
    let world = World::single(objects).await;
    for _ in 0..40 {
        get(world.http(), "ewma.example", "/").await;
    }
    // The slow one until both have answered.
    assert!(slow.requests() < 20, "{} of 40", slow.requests());
    assert_eq!(world.reasons("chash").len(), 1);
}

/// It had no time to be slow by, so half of all requests waited for it until they were late.
#[tokio::test]
async fn bug_an_endpoint_that_never_answers_is_not_taken_for_the_faster_one() {
    let fast = Upstream::echo("fast").await;
    let stuck = Upstream::raw(|stream, counts| async move {
        counts.request();
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let mut objects = backend("web", &[fast.address, stuck.address]);
    let annotations = [("load-balance", "ewma"), ("proxy-read-timeout", "1")];
    objects.push(site("ewma", &annotations).object());
    let world = World::single(objects).await;
    for _ in 0..12 {
        assert_eq!(get(world.http(), "ewma.example", "/").await.status, 200);
    }
    assert!(stuck.requests() <= 1, "{} of 12", stuck.requests());
}
