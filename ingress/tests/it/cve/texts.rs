//! Texts of annotations, paths and ConfigMaps: where nginx's configuration was made of them, they became directives.

use fairlead_ingress::ANNOTATIONS;
use fairlead_state::model::PathType::{Exact, ImplementationSpecific, Prefix};

use crate::{
    annotations::site,
    support::{
        World,
        client::get,
        objects::{IngressExt, backend, config_map, ingress},
        upstream::Upstream,
    },
};

/// What made directives, blocks or fields of a value.
const INJECTIONS: [&str; 5] = [
    "x;\n}\nserver { listen 81; }",
    "x\r\nX-Injected: 1",
    "x # a comment\nadd_header X-Injected 1;",
    "\"; add_header X-Injected 1; #",
    // IngressNightmare's, as it was published for auth-tls-match-cn.
    "CN=x #(\n){}\n }}\nssl_engine ../../../../proc/1/fd/9;\n#",
];

/// What may be any text: it is compared with fields, or told to a collector of traces.
const FREE: [&str; 3] =
    ["canary-by-header-pattern", "canary-by-header-value", "opentelemetry-operation-name"];

/// Beginnings of names of annotations that do nothing without another one.
const NEEDED: [(&str, &str, &str); 6] = [
    ("affinity-", "affinity", "cookie"),
    ("cors-", "enable-cors", "true"),
    ("mirror-", "mirror-target", "http://127.0.0.1:1/"),
    ("proxy-redirect-from", "proxy-redirect-to", "/"),
    ("proxy-redirect-to", "proxy-redirect-from", "http://a.example/"),
    ("session-cookie-", "affinity", "cookie"),
];

/// CVE-2021-25746, 2023-5043, 2023-5044, 2024-7646, 2025-1097, 2025-1098, 2025-15566, 2026-1580,
/// 2026-4342: a string of an annotation ended what it stood in, and the rest was configuration.
#[tokio::test]
async fn cve_2021_25746_and_its_heirs_no_annotation_ends_what_it_stands_in() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("good", &[]).object());
    let mut cases = Vec::new();
    for annotation in &*ANNOTATIONS {
        let others = NEEDED.iter().filter(|(name, ..)| annotation.name.starts_with(name));
        let others: Vec<_> = others.map(|(_, other, value)| (*other, *value)).collect();
        for text in INJECTIONS {
            let name = format!("s{}", cases.len());
            objects.push(site(&name, &[&others[..], &[(annotation.name, text)]].concat()).object());
            cases.push((name, annotation.name, text));
        }
    }
    let world = World::single(objects).await;
    for (name, annotation, text) in &cases {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        let is_told = answer.headers.contains_key("x-injected");
        assert!(!is_told && answer.saw("x-injected").is_none(), "{annotation}: {text:?}");
        // Served as if it were not there, or to nobody.
        let status = answer.status;
        assert!([200, 403, 503].contains(&status), "{annotation}: {text:?}: {status}");
        let is_said = |reason: &String| reason.contains(annotation);
        let is_taken = !world.reasons(name).iter().any(is_said);
        assert!(!is_taken || FREE.contains(annotation), "{annotation}: {text:?} is taken");
    }
    assert_eq!(get(world.http(), "good.example", "/").await.who(), (200, "web"));
    assert_eq!(world.reasons("good"), Vec::<String>::new());
}

/// CVE-2021-25745, 2021-25748, 2022-4886, 2026-24512: paths were text of the configuration, too.
#[tokio::test]
async fn cve_2021_25748_and_its_heirs_a_path_is_a_path_or_refused() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("good", &[]).object());
    let mut names = Vec::new();
    for path in [
        "/a\n}\nserver {",
        "/a\r\nX-Injected: 1",
        "/a;\n#",
        "/a {return 200 x;} location /b",
        "/a\"; log_format x '$request",
        "/a\\\n}",
        "/a;proxy_pass http://127.0.0.1:1/;#",
    ] {
        for path_type in [Exact, Prefix, ImplementationSpecific] {
            for is_regex in [false, true] {
                let name = format!("s{}", names.len());
                let host = format!("{name}.example");
                let own = ingress(&name).rule(&host, &[(path_type, path, "web")]);
                let name_of = "nginx.ingress.kubernetes.io/use-regex";
                objects.push(own.annotation(name_of, &is_regex.to_string()).object());
                names.push((name, path));
            }
        }
    }
    let world = World::single(objects).await;
    for (name, path) in &names {
        for asked in ["/", "/b", "/x"] {
            let answer = get(world.http(), &format!("{name}.example"), asked).await;
            assert_eq!(answer.status, 404, "{path:?}: {asked}");
            assert!(!answer.headers.contains_key("x-injected"), "{path:?}");
        }
        let is_line = !path.contains(['\r', '\n']);
        assert!(is_line || !world.reasons(name).is_empty(), "{path:?} is served");
    }
    assert_eq!(get(world.http(), "good.example", "/").await.who(), (200, "web"));
}

/// Texts of ConfigMaps became directives, and so did a method.
#[tokio::test]
async fn cve_2025_15566_cve_2026_1580_who_is_asked_is_told_fields_and_nothing_else() {
    let (upstream, authority) = (Upstream::echo("web").await, Upstream::echo("auth").await);
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/", authority.address);
    let url = ("auth-url", url.as_str());
    objects.push(config_map("bad", &[("X-A", "1\r\nX-Injected: 1")]));
    objects.push(config_map("worse", &[("X-A 1;\nX-B", "1")]));
    for (name, more) in [
        ("text", ("auth-proxy-set-headers", "bad")),
        ("name", ("auth-proxy-set-headers", "worse")),
        ("method", ("auth-method", "GET;\n}")),
    ] {
        objects.push(site(name, &[url, more]).object());
    }
    let world = World::new(objects).await;
    for name in ["text", "name", "method"] {
        let answer = get(world.http(), &format!("{name}.example"), "/").await;
        assert_eq!(answer.status, 503, "{name}");
    }
    assert_eq!((upstream.requests(), authority.requests()), (0, 0));
}
