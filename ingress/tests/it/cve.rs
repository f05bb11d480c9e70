//! Known holes of ingress-nginx, nginx, Traefik and Pingora, one by one: whether they are here.

use std::{collections::BTreeSet, fs, path::Path};

use fairlead_ingress::ANNOTATIONS;
use fairlead_state::{
    Key, Object,
    model::{
        ConfigMap, Ingress,
        PathType::{Exact, ImplementationSpecific, Prefix},
    },
    source::references,
};
use http::{HeaderMap, StatusCode};

use crate::{
    annotations::site,
    support::{
        World,
        client::{Answer, connect, get, raw, request, send},
        objects::{Authority, IngressExt, backend, config_map, ingress, opaque_in, secret},
        upstream::Upstream,
    },
    tls::shown,
    upstream_tls::pem,
};

/// Every hole that is known, with the file and the test that try it.
const HOLES: &[(&str, &str, &str)] = &[
    // ingress-nginx.
    ("CVE-2018-1002104", OWN, "cve_2018_1002104_clients_are_told_nothing_about_us"),
    ("CVE-2019-20372", OWN, "cve_2019_20372_the_body_of_what_is_redirected_is_no_request"),
    ("CVE-2020-8553", OWN, "cve_2020_8553_passwords_of_one_namespace_open_no_other"),
    (
        "CVE-2021-25742",
        "src/routes/annotations/snippet/read.rs",
        "cve_2021_25742_anything_else_refuses_the_snippet_with_its_line",
    ),
    (
        "CVE-2021-25742",
        "tests/it/annotations/snippets.rs",
        "a_snippet_with_anything_else_is_refused_whole_and_its_line_is_named",
    ),
    (
        "CVE-2021-25745",
        "src/routes/annotations/redirect.rs",
        "cve_2021_25745_nothing_but_a_url_gets_in",
    ),
    ("CVE-2021-25745", OWN, PATHS),
    ("CVE-2021-25746", OWN, VALUES),
    ("CVE-2021-25748", OWN, PATHS),
    ("CVE-2022-4886", OWN, PATHS),
    ("CVE-2023-5043", OWN, VALUES),
    ("CVE-2023-5044", OWN, VALUES),
    ("CVE-2024-7646", OWN, VALUES),
    ("CVE-2025-1097", OWN, VALUES),
    ("CVE-2025-1098", OWN, VALUES),
    ("CVE-2025-1974", OWN, WEBHOOK),
    ("CVE-2025-24513", OWN, "cve_2025_24513_a_secrets_name_leads_out_of_no_namespace"),
    (
        "CVE-2025-24514",
        "src/routes/annotations/external.rs",
        "cve_2025_24514_a_url_is_one_and_nothing_else",
    ),
    ("CVE-2025-15566", OWN, ASKED),
    ("CVE-2026-1580", OWN, ASKED),
    ("CVE-2026-24512", OWN, PATHS),
    (
        "CVE-2026-24513",
        "tests/it/annotations/auth.rs",
        "cve_2026_24513_an_error_page_never_lets_in_who_was_kept_out",
    ),
    ("CVE-2026-24514", OWN, WEBHOOK),
    (
        "CVE-2026-3288",
        "src/routes/annotations/rewrite.rs",
        "cve_2026_3288_a_target_is_a_path_and_nothing_else",
    ),
    ("CVE-2026-4342", OWN, VALUES),
    // nginx itself.
    (
        "CVE-2026-42945",
        "src/routes/annotations/template.rs",
        "nginx_rift_cve_2026_42945_expansion_is_bounded",
    ),
    (
        "CVE-2026-9256",
        "src/routes/annotations/template.rs",
        "nginx_rift_cve_2026_42945_expansion_is_bounded",
    ),
    (
        "CVE-2026-42926",
        "tests/it/attacks2.rs",
        "cve_2026_42926_what_http1_could_not_say_does_not_become_http1",
    ),
    ("CVE-2026-42055", OWN, UNSAFE),
    ("CVE-2026-42530", OWN, UNSAFE),
    // Traefik.
    (
        "CVE-2025-66491",
        "tests/it/upstream_tls.rs",
        "cve_2025_66491_a_certificate_counts_if_and_only_if_it_is_to_be_verified",
    ),
    // Pingora.
    (
        "CVE-2025-4366",
        "tests/it/upstreams.rs",
        "cve_2025_4366_an_early_answer_to_an_unfinished_upload_is_passed_on_and_nothing_is_reused",
    ),
    (
        "CVE-2026-2833",
        "tests/it/websocket.rs",
        "cve_2026_2833_a_request_behind_a_refused_upgrade_is_a_request_of_its_own",
    ),
    ("CVE-2026-2835", OWN, "cve_2026_2835_a_body_has_one_end_or_is_refused"),
    ("CVE-2026-2836", OWN, "cve_2026_2836_who_is_let_in_to_one_host_is_not_let_in_to_another"),
    // HTTP/2, whoever speaks it.
    ("CVE-2019-9512", "tests/it/floods.rs", "attack_ping_and_settings_floods_hold_up_nobody_else"),
    ("CVE-2019-9515", "tests/it/floods.rs", "attack_ping_and_settings_floods_hold_up_nobody_else"),
    ("CVE-2019-9518", "tests/it/floods.rs", "attack_empty_data_flood_ends_the_connection"),
    (
        "CVE-2023-44487",
        "tests/it/floods.rs",
        "attack_rapid_reset_cve_2023_44487_ends_the_connection",
    ),
    (
        "CVE-2024-27316",
        "tests/it/floods.rs",
        "attack_continuation_flood_cve_2024_27316_ends_the_connection",
    ),
    (
        "CVE-2025-8671",
        "tests/it/floods.rs",
        "attack_made_you_reset_cve_2025_8671_ends_the_connection",
    ),
];

const OWN: &str = "tests/it/cve.rs";
const ASKED: &str = "cve_2025_15566_cve_2026_1580_who_is_asked_is_told_fields_and_nothing_else";
const PATHS: &str = "cve_2021_25748_and_its_heirs_a_path_is_a_path_or_refused";
const UNSAFE: &str = "cve_2026_42055_no_code_of_the_role_is_unsafe";
const VALUES: &str = "cve_2021_25746_and_its_heirs_no_annotation_ends_what_it_stands_in";
const WEBHOOK: &str = "cve_2025_1974_there_is_no_webhook";

/// What Secrets and ConfigMaps are named by.
const NAMED: [&str; 5] = [
    "auth-proxy-set-headers",
    "auth-secret",
    "auth-tls-secret",
    "custom-headers",
    "proxy-ssl-secret",
];

/// Of "ann:one".
const ANN: &str = "Basic YW5uOm9uZQ==";

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

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(path).unwrap()
}

async fn ask(world: &World, host: &str, name: &'static str, value: &str) -> Answer {
    let mut request = request(host, "/");
    request.headers_mut().insert(name, value.parse().unwrap());
    send(&mut connect(world.http()).await, request).await
}

/// With its attribute: what is commented out tries nothing.
#[test]
fn every_known_hole_has_a_test() {
    const BEGINS: [&str; 4] = [
        "\n#[test]\nfn",
        "\n#[tokio::test]\nasync fn",
        "\n    #[test]\n    fn",
        "\n    #[tokio::test]\n    async fn",
    ];
    for (cve, path, test) in HOLES {
        let text = file(path);
        let is_test = BEGINS.iter().any(|begin| text.contains(&format!("{begin} {test}(")));
        assert!(is_test, "{cve}: {path}: {test}");
    }
}

/// The default backend told everybody its metrics.
#[tokio::test]
async fn cve_2018_1002104_clients_are_told_nothing_about_us() {
    let world = World::new(vec![]).await;
    for path in ["/metrics", "/healthz", "/nginx_status", "/debug/pprof/", "/status"] {
        let answer = get(world.http(), "nobody.example", path).await;
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.body.contains("fairlead_"), "{path}: {}", answer.body);
    }
}

/// A redirect was sent without a look at the request's body, which was the next request then.
#[tokio::test]
async fn cve_2019_20372_the_body_of_what_is_redirected_is_no_request() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("moved", &[("permanent-redirect", "https://b.example/")]).object());
    objects.push(site("web", &[]).object());
    let world = World::single(objects).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: web.example\r\n\r\n";
    let length = hidden.len();
    let head = format!("GET / HTTP/1.1\r\nHost: moved.example\r\nContent-Length: {length}\r\n\r\n");
    let next = "GET /next HTTP/1.1\r\nHost: web.example\r\nConnection: close\r\n\r\n";
    let answer = raw(world.http(), format!("{head}{hidden}{next}").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 301 "), "{answer}");
    assert!(!answer.contains("/hidden"), "{answer}");
    assert!(upstream.requests() <= 1, "{answer}");
}

/// Passwords were files named after namespace and Ingress, and `a-b` with `c` was `a` with `b-c`.
#[tokio::test]
async fn cve_2020_8553_passwords_of_one_namespace_open_no_other() {
    let auth = [("auth-type", "basic"), ("auth-secret", "users"), ("auth-secret-type", "auth-map")];
    let one = Ingress { key: Key::new("a", "b-c"), ..site("one", &auth) };
    let two = Ingress { key: Key::new("a-b", "c"), ..site("two", &auth) };
    let world = World::new(vec![
        opaque_in("a", "users", &[("ann", "{PLAIN}one")]),
        opaque_in("a-b", "users", &[("ann", "{PLAIN}two")]),
        one.object(),
        two.object(),
    ])
    .await;
    // Of "ann:two"; there is no Service behind.
    let (one, two) = (ANN, "Basic YW5uOnR3bw==");
    for (host, words, status) in [
        ("one.example", one, 503),
        ("one.example", two, 401),
        ("two.example", two, 503),
        ("two.example", one, 401),
    ] {
        let answer = ask(&world, host, "authorization", words).await;
        assert_eq!(answer.status, status, "{host}: {words}");
    }
}

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

/// IngressNightmare, and CVE-2026-24514: whoever reached the webhook had code run. There is none.
#[test]
fn cve_2025_1974_there_is_no_webhook() {
    let mut open = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy")];
    let mut files = 0;
    while let Some(path) = open.pop() {
        if path.is_dir() {
            open.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            continue;
        }
        let text = fs::read(&path).unwrap();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.contains("WebhookConfiguration"), "{}", path.display());
        files += 1;
    }
    assert!(files > 20, "{files} files");
}

/// A name of a Secret was a part of a path of a file.
#[tokio::test]
async fn cve_2025_24513_a_secrets_name_leads_out_of_no_namespace() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(opaque_in("other", "users", &[("ann", "{PLAIN}one")]));
    let names =
        ["other/users", "../other/users", "default/../other/users", "/etc/passwd", "..%2Fx"];
    for (i, name) in names.iter().enumerate() {
        let auth =
            [("auth-type", "basic"), ("auth-secret", *name), ("auth-secret-type", "auth-map")];
        objects.push(site(&format!("s{i}"), &auth).object());
    }
    let world = World::new(objects).await;
    for (i, name) in names.iter().enumerate() {
        let host = format!("s{i}.example");
        let answer = ask(&world, &host, "authorization", ANN).await;
        assert_eq!(answer.status, 503, "{name}");
    }
    assert_eq!(upstream.requests(), 0);
}

/// Whatever an Ingress says in whatever annotation, objects that are watched for it are of its own
/// namespace.
#[test]
fn no_annotation_has_an_object_of_another_namespace_read() {
    let mut followed = BTreeSet::new();
    for annotation in &*ANNOTATIONS {
        let own = site("own", &[(annotation.name, "default/own")]);
        if references(&own).iter().any(|object| &*object.key.name == "own") {
            followed.insert(annotation.name);
        }
        for text in [
            "other/x",
            "../other/x",
            "default/../other/x",
            "/x",
            "defaulted/x",
            "//x",
            "",
            // Of a selector these would be more than a name, or make it none.
            "x,foo",
            "x,metadata.namespace=other",
            "default/x,metadata.name!=y",
            "=x",
            "x\\",
            "x y",
            "x\n",
            "X",
        ] {
            let refers = references(&site("own", &[(annotation.name, text)]));
            assert!(refers.is_empty(), "{} {text:?}: {refers:?}", annotation.name);
        }
    }
    assert_eq!(followed.into_iter().collect::<Vec<_>>(), NAMED);
}

/// They are all held, because an Ingress of their own namespace is served by them.
#[tokio::test]
async fn an_object_of_another_namespace_is_never_served_whatever_names_it() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let (certificate, key) = authority.issue(&["own.example"]);
    let theirs = |name: &str| Key::new("other", name);
    let own = [
        ("auth-type", "basic"),
        ("auth-secret", "other/users"),
        ("auth-tls-secret", "other/ca"),
        ("auth-tls-verify-client", "optional"),
        ("proxy-ssl-secret", "other/ca"),
        ("custom-headers", "other/headers"),
        ("auth-url", "http://127.0.0.1:1/"),
        ("auth-proxy-set-headers", "other/headers"),
    ];
    let own = Ingress { key: theirs("own"), ..site("own", &own).tls(&["own.example"], "cert") };
    let headers = [("X-Theirs".into(), "1".into())].into();
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        opaque_in("other", "users", &[("auth", "ann:{PLAIN}one")]),
        opaque_in("other", "ca", &[("ca.crt", &pem(&authority))]),
        secret(theirs("cert"), &certificate, &key),
        Object::ConfigMap(ConfigMap { key: theirs("headers"), data: headers }.into()),
        own.object(),
        site("good", &[]).object(),
    ]);
    type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], u16);
    let cases: [Case<'_>; 5] = [
        ("auth-secret", &[("auth-type", "basic"), ("auth-secret", "other/users")], 503),
        ("auth-tls-secret", &[("auth-tls-secret", "other/ca")], 503),
        (
            "proxy-ssl-secret",
            &[
                ("backend-protocol", "HTTPS"),
                ("proxy-ssl-verify", "on"),
                ("proxy-ssl-secret", "other/ca"),
            ],
            503,
        ),
        (
            "auth-proxy-set-headers",
            &[("auth-url", "http://127.0.0.1:1/"), ("auth-proxy-set-headers", "other/headers")],
            503,
        ),
        ("custom-headers", &[("custom-headers", "other/headers")], 200),
    ];
    let tried: BTreeSet<&str> = cases.iter().map(|(name, ..)| *name).collect();
    assert_eq!(tried.into_iter().collect::<Vec<_>>(), NAMED);
    objects.extend(cases.map(|(name, annotations, _)| site(name, annotations).object()));
    let sections = [("slash", "other/cert"), ("up", "../other/cert"), ("bare", "cert")];
    for (name, secret) in sections {
        objects.push(site(name, &[]).tls(&[&format!("{name}.example")], secret).object());
    }
    let world = World::single(objects).await;
    let of_own = world.reasons("own");
    let has_none = |reason: &String| reason.contains("Secret") || reason.contains("ConfigMap");
    assert!(!of_own.iter().any(has_none), "it has all it names: {of_own:?}");
    let (own, default) = (shown(&world, "own.example").await, shown(&world, "x.example").await);
    assert_ne!(own, default);
    for (name, _, status) in cases {
        let answer = ask(&world, &format!("{name}.example"), "authorization", ANN).await;
        assert_eq!(answer.status, status, "{name}");
        assert!(!answer.headers.contains_key("x-theirs"), "{name}");
        let is_told = |reason: &String| reason.contains("of another namespace and never read");
        assert!(world.reasons(name).iter().any(is_told), "{name}: {:?}", world.reasons(name));
    }
    for (name, secret) in sections {
        assert_eq!(shown(&world, &format!("{name}.example")).await, default, "{name}");
        let missing = format!("Secret default/{secret} does not exist");
        let reasons = world.reasons(name);
        assert!(reasons.iter().any(|reason| reason.contains(&missing)), "{name}: {reasons:?}");
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

/// Of HTTP/1.0 with a coding, or of two lengths, one end was believed, and what came behind it was the
/// next request to whoever believed the other.
#[tokio::test]
async fn cve_2026_2835_a_body_has_one_end_or_is_refused() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(site("web", &[]).object());
    let world = World::single(objects).await;
    let hidden = "GET /hidden HTTP/1.1\r\nHost: web.example\r\n\r\n";
    for (version, fields) in [
        ("1.0", "Transfer-Encoding: chunked\r\n"),
        ("1.0", "Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n"),
        ("1.0", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("1.1", "Transfer-Encoding: identity\r\nContent-Length: 5\r\n"),
        ("1.1", "Transfer-Encoding: chunked, identity\r\n"),
        ("1.1", "Content-Length: 5\r\nContent-Length: 50\r\n"),
    ] {
        let head = format!("POST / HTTP/{version}\r\nHost: web.example\r\n{fields}\r\n");
        let answer = raw(world.http(), format!("{head}0\r\n\r\n{hidden}").as_bytes()).await;
        assert_eq!(answer.matches("HTTP/1.").count(), 1, "{version} {fields:?}: {answer}");
        let is_refused = [" 400 ", " 501 "].iter().any(|status| answer.contains(status));
        assert!(is_refused, "{version} {fields:?}: {answer}");
        assert_eq!(upstream.requests(), 0, "{version} {fields:?}");
    }
}

/// A cache's key without the host gave one site's answer to another's clients.
#[tokio::test]
async fn cve_2026_2836_who_is_let_in_to_one_host_is_not_let_in_to_another() {
    let upstream = Upstream::echo("web").await;
    let is_known = |fields: &HeaderMap| {
        let url = fields.get("x-original-url");
        url.is_some_and(|url| url.as_bytes().starts_with(b"http://one.example/"))
    };
    let authority = Upstream::knowing(is_known, StatusCode::FORBIDDEN).await;
    let mut objects = backend("web", &[upstream.address]);
    let url = format!("http://{}/", authority.address);
    let own = site("one", &[("auth-url", &url), ("auth-cache-key", "$http_x_token")]);
    objects.push(own.host("two.example", "web").object());
    let world = World::single(objects).await;
    for (host, status) in [("one.example", 200), ("two.example", 403), ("one.example", 200)] {
        assert_eq!(ask(&world, host, "x-token", "t").await.status, status, "{host}");
    }
    assert_eq!(authority.requests(), 2, "answers are remembered");
}

/// CVE-2026-42055, 2026-42530 and most of nginx's: memory of another's. Nothing here can be.
#[test]
fn cve_2026_42055_no_code_of_the_role_is_unsafe() {
    assert!(file("src/lib.rs").contains("#![forbid(unsafe_code)]"));
}
