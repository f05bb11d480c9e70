//! Snippets: typed actions, and nothing that is executed.

use fairlead_ingress::IngressConfig;
use fairlead_state::Key;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;

use super::site;
use crate::support::{
    World,
    client::{Answer, connect, get, get2, http1, http2, raw, request, send, tls, trusting_anybody},
    config,
    objects::{IngressExt, backend, config_map},
    upstream::Upstream,
};

async fn ask(world: &World, name: &str, fields: &[(&'static str, &str)]) -> Answer {
    let mut request = request(&format!("{name}.example"), "/a?b=c");
    for (name, value) in fields {
        request.headers_mut().append(*name, value.parse().unwrap());
    }
    send(&mut connect(world.http()).await, request).await
}

/// Some take trailers for fields nobody has looked at (CVE-2013-5704).
#[tokio::test]
async fn attack_a_field_that_is_taken_off_does_not_come_in_as_a_trailer() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let snippet = ("configuration-snippet", "proxy_set_header X-Secret \"\";");
    objects.push(site("taken-off", &[snippet]).object());
    let world = World::new(objects).await;
    let answer = raw(
        world.http(),
        b"POST / HTTP/1.1\r\nHost: taken-off.example\r\nTransfer-Encoding: chunked\r\n\
          Trailer: X-Secret\r\nX-Secret: open\r\nConnection: close\r\n\r\n\
          1\r\na\r\n0\r\nX-Secret: open\r\n\r\n",
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\na"), "{answer}");
    assert!(!answer.contains("open"), "{answer}");
}

#[tokio::test]
async fn directives_people_use_are_actions() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let snippet = "configuration-snippet";
    objects.extend(
        [
            site(
                "fields",
                &[(
                    snippet,
                    "more_set_headers \"X-Frame-Options: DENY\" 'X-Who: $http_x_user';\n\
                     more_clear_headers Server;\n\
                     add_header X-A 1;\n\
                     proxy_set_header X-From $host;\n\
                     proxy_set_header X-Secret \"\";\n",
                )],
            ),
            site("if", &[(snippet, "if ($http_x_user = \"\") {\n  return 403 \"who?\";\n}\n")]),
            site("server", &[("server-snippet", "return 301 https://b.example$request_uri;")]),
            site(
                "canonical",
                &[(snippet, "if ($host != 'www.x') { return 301 https://www.x$request_uri; }")],
            ),
            site("path", &[(snippet, "return 302 /new;")]),
            site("relative", &[(snippet, "return 302 /new;"), ("relative-redirects", "true")]),
            site("first", &[(snippet, "return 204;"), ("denylist-source-range", "127.0.0.0/8")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let answer = ask(&world, "fields", &[("x-user", "ann"), ("x-secret", "s")]).await;
    assert_eq!(answer.who(), (200, "web"));
    for (field, value) in [
        ("x-frame-options", Some("DENY")),
        ("x-who", Some("ann")),
        ("x-a", Some("1")),
        ("server", None),
    ] {
        let found = answer.headers.get(field).map(|value| value.to_str().unwrap());
        assert_eq!(found, value, "{field}");
    }
    assert_eq!(answer.saw("x-from"), Some("fields.example"));
    assert_eq!(answer.saw("x-secret"), None);
    for (name, fields, status, location, body) in [
        ("if", &[][..], 403, None, "who?"),
        ("if", &[("x-user", "ann")], 200, None, "web"),
        ("server", &[], 301, Some("https://b.example/a?b=c"), "This is found elsewhere."),
        ("canonical", &[], 301, Some("https://www.x/a?b=c"), "This is found elsewhere."),
        ("path", &[], 302, Some("http://path.example/new"), "This is found elsewhere."),
        ("relative", &[], 302, Some("/new"), "This is found elsewhere."),
        // nginx's `return` is of a phase before access lists.
        ("first", &[], 204, None, ""),
    ] {
        let answer = ask(&world, name, fields).await;
        assert_eq!(answer.who(), (status, body), "{name}");
        let found = answer.headers.get("location").map(|value| value.to_str().unwrap());
        assert_eq!(found, location, "{name}");
    }
}

/// It had backslashes in it, and was text/plain; a text of two lines, or beyond ASCII, was refused.
#[tokio::test]
async fn bug_what_a_snippet_returns_is_what_nginx_says() {
    let snippet = "configuration-snippet";
    let texts = [
        ("robots", "return 200 \"User-agent: *\\nDisallow: /\\n\";"),
        ("lines", "return 404 'gone\n\u{e4}';"),
        ("empty", "return 200;"),
        ("error", "return 403;"),
        ("typed", "more_set_headers 'Content-Type: text/csv';\nreturn 200 'a,b';"),
    ];
    let sites = texts.map(|(name, text)| site(name, &[(snippet, text)]).object());
    let world = World::new(sites.into()).await;
    for (name, path, status, media_type, body) in [
        ("robots", "/robots.txt", 200, "text/plain", "User-agent: *\nDisallow: /\n"),
        ("robots", "/", 200, "text/html", "User-agent: *\nDisallow: /\n"),
        ("lines", "/a.json", 404, "application/json", "gone\n\u{e4}"),
        ("empty", "/", 200, "text/html", ""),
        ("error", "/", 403, "text/plain; charset=utf-8", "403 Forbidden\n"),
        ("typed", "/", 200, "text/csv", "a,b"),
    ] {
        let answer = get(world.http(), &format!("{name}.example"), path).await;
        let found = answer.headers.get("content-type").map(|value| value.to_str().unwrap());
        assert_eq!(
            (answer.status, found, &*answer.body),
            (status, Some(media_type), body),
            "{name} {path}"
        );
    }
}

/// It was an answer of that status.
#[tokio::test]
async fn bug_a_snippet_that_returns_444_says_nothing() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let snippet = "configuration-snippet";
    objects.extend(
        [
            site("shut", &[(snippet, "if ($http_user_agent ~ bot) { return 444; }")]),
            site("said", &[(snippet, "return 444 'why';")]),
        ]
        .map(IngressExt::object),
    );
    let world = World::new(objects).await;
    let asked = "GET / HTTP/1.1\r\nHost: shut.example\r\n";
    let both = format!("{asked}\r\n{asked}User-Agent: bot\r\n\r\n{asked}\r\n");
    let answer = raw(world.http(), both.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\nweb\n"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    let sent = "POST / HTTP/1.1\r\nHost: shut.example\r\nUser-Agent: bot\r\n\
                Content-Length: 9\r\n\r\nbody";
    assert_eq!(raw(world.http(), sent.as_bytes()).await, "");
    assert_eq!(ask(&world, "said", &[]).await.who(), (444, "why"));
    let mut stream = http2(tokio::net::TcpStream::connect(world.http()).await.unwrap()).await;
    let mut request = request("shut.example", "http://shut.example/");
    request.headers_mut().insert("user-agent", "bot".parse().unwrap());
    let unanswered = stream.send_request(request).await.unwrap_err();
    assert!(format!("{unanswered:?}").contains("CANCEL"), "{unanswered:?}");
    // Others of the connection are answered.
    assert_eq!(get2(&mut stream, "shut.example", "/").await.who(), (200, "web"));
}

#[tokio::test]
async fn fields_are_added_to_errors_only_where_that_is_said() {
    let upstream = Upstream::serve(|_| async {
        let mut response = Response::new(Full::new(Bytes::from("web\n")));
        *response.status_mut() = StatusCode::NOT_FOUND;
        response
    })
    .await;
    let mut objects = backend("web", &[upstream.address]);
    let text = "add_header X-A 1;\nadd_header X-B 2 always;\nmore_set_headers 'X-C: 3';";
    objects.push(site("a", &[("configuration-snippet", text)]).object());
    let world = World::new(objects).await;
    let answer = ask(&world, "a", &[]).await;
    assert_eq!(answer.status, 404);
    let has = |name: &str| answer.headers.contains_key(name);
    assert_eq!((has("x-a"), has("x-b"), has("x-c")), (false, true, true));
}

/// CVE-2021-25742 and its heirs: a snippet read every Secret of the cluster.
#[tokio::test]
async fn a_snippet_with_anything_else_is_refused_whole_and_its_line_is_named() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let text = "more_set_headers 'X-A: 1';\ncontent_by_lua_block { ngx.say(1) }\n";
    objects.push(site("lua", &[("configuration-snippet", text)]).object());
    let text = "}\n}\nserver { listen 81; }";
    objects.push(site("close", &[("server-snippet", text)]).object());
    let world = World::new(objects).await;
    for (name, status, line) in
        [("lua", 503, "line 2: content_by_lua_block"), ("close", 200, "line 1: }")]
    {
        let answer = ask(&world, name, &[]).await;
        assert_eq!(answer.status, status, "{name}");
        assert!(!answer.headers.contains_key("x-a"), "{name}");
        let reasons = world.reasons(name);
        assert!(reasons[0].starts_with("refused: ") && reasons[0].contains(line), "{reasons:?}");
    }
}

/// headers-more-nginx-module comes behind Lua, which says HSTS in ingress-nginx.
#[tokio::test]
async fn bug_a_snippet_has_the_last_word_on_how_long_a_host_is_one_of_https() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let cases: [(&str, &str, &[&str]); 5] = [
        ("other", "more_set_headers 'X-A: 1';", &["max-age=60"]),
        ("set", "more_set_headers 'Strict-Transport-Security: max-age=5';", &["max-age=5"]),
        ("cleared", "more_clear_headers Strict-Transport-Security;", &[]),
        ("added", "add_header Strict-Transport-Security max-age=5;", &["max-age=60", "max-age=5"]),
        ("map", "", &["max-age=7"]),
    ];
    objects.push(config_map("headers", &[("Strict-Transport-Security", "max-age=7")]));
    for (name, snippet, _) in cases {
        let annotation = match snippet {
            "" => ("custom-headers", "default/headers"),
            snippet => ("configuration-snippet", snippet),
        };
        let host = format!("{name}.example");
        objects.push(site(name, &[annotation]).tls(&[&host], "").object());
    }
    let hsts = "max-age=60".parse().ok();
    let world = World::with(IngressConfig { hsts, ..config() }, objects).await;
    for (name, snippet, expected) in cases {
        let host = format!("{name}.example");
        let stream = tls(world.https(), &host, trusting_anybody()).await.unwrap();
        let answer = send(&mut http1(stream).await, request(&host, "/")).await;
        let told = answer.headers.get_all("strict-transport-security");
        let told: Vec<&str> = told.iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(told, expected, "{name}: {snippet}");
    }
}

/// Its paths were served without it, to everybody.
#[tokio::test]
async fn attack_a_snippet_that_is_refused_lets_nobody_in_whom_it_kept_out() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    let two = [("configuration-snippet", "deny all;"), ("server-snippet", "return 301 /x;")];
    let canonical = "if ($host != 'www.x') { rewrite ^ https://www.x$request_uri permanent; }";
    for (name, annotations) in [
        ("deny", &[("configuration-snippet", "allow 10.0.0.0/8;\ndeny all;")][..]),
        ("server", &[("server-snippet", "if ($ssl_protocol = TLSv1.2) { return 403; }")]),
        ("two", &two),
        ("canonical", &[("server-snippet", canonical)]),
        ("open", &[("configuration-snippet", "gzip on;")]),
    ] {
        objects.push(site(name, annotations).object());
    }
    let world = World::new(objects).await;
    for (name, directive, instead) in [
        ("deny", "allow", "allowlist-source-range"),
        ("server", "return 403", "a snippet of `return`"),
        ("two", "deny", "denylist-source-range or allowlist-source-range"),
        ("canonical", "rewrite to a URL", "a snippet of `return` and of `if`"),
    ] {
        assert_eq!(ask(&world, name, &[]).await.status, 503, "{name}");
        let told = format!("it would keep somebody out ({directive}), so its paths answer 503");
        let reasons = world.reasons(name);
        let is_told = |reason: &String| reason.contains(&told) && reason.contains(instead);
        assert!(reasons.iter().any(is_told), "{name}: {reasons:?}");
    }
    assert_eq!(ask(&world, "open", &[]).await.who(), (200, "web"));
    assert_eq!(upstream.requests(), 1);
}

/// What the ConfigMap does not allow would have kept them out all the same. One that leads away closed its
/// paths, too, until it was said by another snippet.
#[tokio::test]
async fn a_snippet_that_is_not_allowed_lets_nobody_in_whom_it_kept_out() {
    let upstream = Upstream::echo("web").await;
    let mut objects = backend("web", &[upstream.address]);
    objects.push(config_map("options", &[("allow-snippet-annotations", "false")]));
    let moved = "if ($host = \"moved.example\") { return 301 https://new.example$request_uri; }";
    let rewritten = "if ($host) { rewrite ^ https://new.example$request_uri permanent; }";
    let cases = [
        ("guarded", "return 403;", 503),
        ("within", "if ($http_x = \"\") { return 403; }", 503),
        ("listed", "allow 10.0.0.0/8; deny all;", 503),
        ("moved", moved, 200),
        ("rewritten", rewritten, 200),
        ("open", "more_set_headers 'X-A: 1';", 200),
    ];
    for (name, text, _) in cases {
        objects.push(site(name, &[("configuration-snippet", text)]).object());
    }
    let config_map = Some(Key::new("default", "options"));
    let world = World::with(IngressConfig { config_map, ..config() }, objects).await;
    for (name, _, status) in cases {
        assert_eq!(ask(&world, name, &[]).await.status, status, "{name}");
        let reasons = world.reasons(name);
        let told = |text: &str| reasons[0].contains(text);
        assert!(told("is not allowed by the ConfigMap"), "{name}: {reasons:?}");
        assert_eq!(told("answer 503 until"), status == 503, "{name}: {reasons:?}");
        assert_eq!(told("say it by allowlist-source-range"), status == 503, "{name}: {reasons:?}");
    }
}
