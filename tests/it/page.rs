//! The page: kept from strangers, read by people in a real browser, fast in a large cluster.

use std::{fmt::Write as _, net::Ipv4Addr, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Runtime,
    time::timeout,
};

use super::{
    common::process,
    support::{
        agent::Agent,
        browser::{Browser, Look},
        certificate::Certificate,
        page::{AT, filter_ms, first_paint_ms, large},
        world::World,
    },
};

const PORT: u16 = 10247;
/// How long a page is followed to see what that costs: several of its updates.
const LOOKED_AT: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(20);
/// As many pages as may be followed.
const STREAMS_MAX: usize = 16;

fn socket_flag(world: &World) -> String {
    format!("--admin-socket={}", world.root().join("admin.sock").display())
}

fn agent(world: &World, more: &[&str]) -> Agent {
    let flag = socket_flag(world);
    let agent = world.agent_with(&[&[flag.as_str()], more].concat());
    agent.await_ready(world);
    agent
}

/// Asks with these lines; a connection that is kept is returned, too.
async fn begin(lines: &str) -> std::io::Result<(TcpStream, String)> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT)).await?;
    // A server that has seen enough may close while the rest is written.
    drop(stream.write_all(format!("{lines}\r\n\r\n").as_bytes()).await);
    let mut head = Vec::new();
    while !head.windows(4).any(|four| four == b"\r\n\r\n") && stream.read_buf(&mut head).await? > 0
    {
    }
    Ok((stream, String::from_utf8_lossy(&head).into_owned()))
}

fn ask(runtime: &Runtime, lines: &str) -> String {
    let lines = format!("{lines}\r\nConnection: close");
    let asking = async move {
        let (mut stream, mut answer) = begin(&lines).await?;
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
        answer.push_str(&String::from_utf8_lossy(&rest));
        std::io::Result::Ok(answer)
    };
    // Spawned: this thread is somewhere else.
    let answer = runtime.block_on(runtime.spawn(async { timeout(PATIENCE, asking).await }));
    answer.expect("no panic").expect("an answer in time").unwrap_or_default()
}

#[test]
fn strangers_are_kept_out_and_nothing_secret_or_foreign_is_shown() {
    let world = World::with_pods(1);
    let certificate = Certificate::apply(&world);
    let _agent = agent(&world, &["--no-proxy"]);
    let runtime = world.runtime("node");
    let get = |path: &str| ask(&runtime, &format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1:10247"));
    for (lines, status) in [
        ("GET / HTTP/1.1\r\nHost: localhost:10247", "200"),
        ("HEAD / HTTP/1.1\r\nHost: localhost:10247", "200"),
        // DNS rebinding: a name of somebody else's that leads here.
        ("GET / HTTP/1.1\r\nHost: evil.example:10247", "421"),
        ("GET /events?of=/ HTTP/1.1\r\nHost: evil.example:10247", "421"),
        ("GET / HTTP/1.1\r\nX: y", "400"),
        ("GET / HTTP/1.1\r\nHost: localhost\r\nHost: localhost", "400"),
        // Another site's script.
        ("GET /part?of=/ HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example", "403"),
        ("GET /events?of=/ HTTP/1.1\r\nHost: localhost\r\nSec-Fetch-Site: cross-site", "403"),
        // Nothing is written here.
        ("POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", "405"),
        ("PUT /services HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0", "405"),
        ("DELETE /service?name=default/hello HTTP/1.1\r\nHost: localhost", "405"),
        // There are no files.
        ("GET /../../../etc/passwd HTTP/1.1\r\nHost: localhost", "404"),
        ("GET /%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: localhost", "404"),
        ("GET /style.css/../../etc/passwd HTTP/1.1\r\nHost: localhost", "404"),
        ("GET //etc/passwd HTTP/1.1\r\nHost: localhost", "404"),
        ("GET /part?of=/../etc/passwd HTTP/1.1\r\nHost: localhost", "404"),
        ("GET http://evil.example/ HTTP/1.1\r\nHost: localhost", "400"),
        // Nor the other pages of this agent.
        ("GET /v1/status HTTP/1.1\r\nHost: localhost", "404"),
        ("GET /metrics HTTP/1.1\r\nHost: localhost", "404"),
    ] {
        let answer = ask(&runtime, lines);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{lines}: {answer}");
        if answer.contains("content-type") {
            let lower = answer.to_ascii_lowercase();
            for field in
                ["content-security-policy: default-src 'none'", "x-content-type-options: nosniff"]
            {
                assert!(lower.contains(field), "{lines}: {field}: {answer}");
            }
            assert!(!lower.contains("access-control-allow-origin"), "{lines}: {answer}");
        }
    }
    for long in [
        format!("GET /services?q={} HTTP/1.1\r\nHost: localhost", "a".repeat(4000)),
        format!("GET /services?q={} HTTP/1.1\r\nHost: localhost", "a".repeat(64 << 10)),
        format!("GET / HTTP/1.1\r\nHost: localhost\r\nX: {}", "a".repeat(64 << 10)),
    ] {
        let answer = ask(&runtime, &long);
        let is_refused = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(is_refused, "{long:.60}: {answer}");
    }
    for path in [
        "/",
        "/services",
        "/service?name=default/hello",
        "/routes",
        "/host?name=hello.example.com",
        "/names",
        "/names?name=hello",
        "/drops",
        "/trace?target=https://hello.example.com/",
    ] {
        let answer = get(path);
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
        assert!(!certificate.is_betrayed_by(&answer), "{path}");
    }
    assert!(get("/host?name=hello.example.com").contains("default/hello-tls"));
}

#[test]
fn followers_are_few_and_a_place_is_given_back_when_one_has_gone() {
    let world = World::with_pods(1);
    let _agent = agent(&world, &["--no-proxy", "--no-ingress"]);
    let runtime = world.runtime("node");
    let follow = || begin("GET /events?of=/services HTTP/1.1\r\nHost: localhost");
    let follow_all = async move {
        let mut following = Vec::new();
        for number in 0..STREAMS_MAX {
            let (stream, head) = follow().await.expect("an answer");
            assert!(head.starts_with("HTTP/1.1 200"), "{number}: {head}");
            assert!(head.contains("text/event-stream"), "{head}");
            following.push(stream);
        }
        let (_, head) = follow().await.expect("an answer");
        assert!(head.starts_with("HTTP/1.1 503"), "one too many: {head}");
        drop(following.pop());
        let again = async {
            while !follow().await.expect("an answer").1.starts_with("HTTP/1.1 200") {
                tokio::task::yield_now().await;
            }
        };
        timeout(PATIENCE, again).await.expect("a place is free again");
    };
    runtime.block_on(runtime.spawn(follow_all)).expect("no panic");
}

/// A Service whose pods the test names.
fn shop(pods: &[(&str, &str, bool)]) -> String {
    let mut text = "
apiVersion: v1
kind: Service
metadata: {name: cart, namespace: default}
spec: {type: NodePort, clusterIP: 10.96.0.77, ports: [{name: http, port: 80, nodePort: 30977}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: cart-1, namespace: default, labels: {kubernetes.io/service-name: cart}}
addressType: IPv4
ports: [{name: http, port: 8080, protocol: TCP}]
endpoints:
"
    .to_owned();
    for (name, address, ready) in pods {
        let _ = writeln!(
            text,
            "- {{addresses: [{address}], conditions: {{ready: {ready}}}, nodeName: node1, \
             targetRef: {{kind: Pod, name: {name}}}}}"
        );
    }
    text
}

const CHECKOUT: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, namespace: default}
spec:
  ingressClassName: fairlead
  rules:
  - host: shop.example
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: hello, port: {number: 80}}}}
      - {path: /cart, pathType: Prefix, backend: {service: {name: cart, port: {name: http}}}}
      - {path: /pay, pathType: Exact, backend: {service: {name: empty, port: {number: 80}}}}
";

#[test]
fn a_browser_shows_filters_traces_and_follows_a_rolling_update() {
    let world = World::with_pods(3);
    let [one, two] =
        [("cart-5d9-x7k2p", "10.244.1.11", true), ("cart-5d9-q4m8z", "10.244.1.12", true)];
    world.apply("shop.yaml", &shop(&[one, two]));
    world.apply("checkout.yaml", CHECKOUT);
    let _agent = agent(&world, &[]);
    let load = world.steady("node", &["--url", "http://10.96.0.20", "--rate", "40"]);
    let browser = Browser::on_node(&world);
    browser.look(Look::Light);

    browser.open(AT);
    for part in ["node1", "healthy", "Services", "DNS", "Ingress", "followed"] {
        assert!(browser.text().contains(part), "{part}:\n{}", browser.text());
    }
    // Connections flow, and their rate is there without anybody's reload.
    browser.await_true(
        "[...document.querySelectorAll('.tile .big')].some(tile => parseFloat(tile.textContent) > 10)",
    );
    browser.keep("overview.png");
    browser.look(Look::Phone);
    let overflow = "return document.documentElement.scrollWidth - innerWidth";
    for path in ["/", "/services", "/routes", "/names", "/drops", "/trace?target=tcp+cart:80"] {
        browser.open(&format!("{AT}{path}"));
        assert!(browser.run(overflow).as_i64() <= Some(0), "{path} is wider than a phone");
    }
    browser.open(&format!("{AT}/services"));
    browser.keep("phone.png");
    browser.look(Look::Dark);

    browser.open(&format!("{AT}/services"));
    assert!(browser.text().contains("10.96.0.20"));
    browser.run(
        "const box = document.querySelector('input[name=q]'); box.value = 'cart';
         box.dispatchEvent(new Event('input', { bubbles: true }));",
    );
    browser.await_true("document.querySelectorAll('tbody tr').length === 1");
    let shown = browser.text();
    assert!(shown.contains("10.96.0.77") && !shown.contains("10.96.0.20"), "{shown}");
    assert_eq!(
        browser.run("return location.search"),
        "?q=cart",
        "the filter can be sent to others"
    );

    browser.open(&format!("{AT}/service?name=default/cart"));
    for part in ["cart-5d9-x7k2p", "cart-5d9-q4m8z", "2 of 2 ready"] {
        assert!(browser.text().contains(part), "{part}:\n{}", browser.text());
    }
    browser.run("window.same = true");
    let [old, new] =
        [("cart-5d9-q4m8z", "10.244.1.12", false), ("cart-7f6-b2w9c", "10.244.1.13", true)];
    world.apply("shop.yaml", &shop(&[old, new]));
    browser.await_true("document.body.innerText.includes('cart-7f6-b2w9c')");
    browser.await_true("document.body.innerText.includes('1 of 2 ready')");
    assert!(!browser.text().contains("cart-5d9-x7k2p"), "who has gone is not shown");
    assert_eq!(browser.run("return window.same"), true, "without a reload");

    browser.open(&format!("{AT}/host?name=shop.example"));
    for part in ["shop.example", "/cart", "default/cart:http", "cart-7f6-b2w9c", "0 of 0 ready"] {
        assert!(browser.text().contains(part), "{part}:\n{}", browser.text());
    }
    browser.keep("host.png");

    browser.open(&format!("{AT}/trace"));
    browser.run(
        "document.querySelector('input[name=target]').value = 'http://shop.example/pay';
         document.querySelector('form.question').submit();",
    );
    browser.await_true("document.querySelector('.outcome')?.textContent.startsWith('503')");
    assert!(browser.text().contains("no pod matches Service default/empty"), "{}", browser.text());
    browser.keep("trace.png");

    assert_eq!(browser.complaints(), Vec::<String>::new());
    load.stop().assert_flawless("the Service that was watched");
}

/// What is promised of a release, and measured of it in docs/results/page.md, a build without optimisation takes longer for.
const SLOWER: f64 = if cfg!(debug_assertions) { 3.0 } else { 1.0 };

#[test]
fn ten_thousand_services_are_painted_within_a_second_filtered_within_a_tenth_and_cheap_to_follow() {
    let world = World::with_pods(1);
    let (agent, browser) = large(&world, 10_000);
    // What another process of a busy machine takes is not the page's: the best of some tries counts.
    let painted = (0..5).map(|_| first_paint_ms(&browser, "/services"));
    let painted = painted.fold(f64::INFINITY, f64::min);
    assert!(painted < SLOWER * 1000.0, "first paint after {painted} ms");
    assert!(browser.text().contains("of 10\u{202f}00"), "{:.400}", browser.text());
    assert_eq!(browser.run("return document.querySelectorAll('tbody tr').length"), 100);
    let filtered = (0..10).map(|n| filter_ms(&browser, &format!("service-{}", 9990 + n)));
    let filtered = filtered.fold(f64::INFINITY, f64::min);
    assert!(filtered < SLOWER * 100.0, "filtered after {filtered} ms");
    // A tab that stays open where nothing happens.
    browser.open(&format!("{AT}/services"));
    let followed = process::core_share(agent.pid(), LOOKED_AT);
    browser.open("about:blank");
    let alone = process::core_share(agent.pid(), LOOKED_AT);
    println!(
        "first paint {painted:.0} ms, filtered {filtered:.0} ms, {:.2} % of a core more than {:.2} %",
        (followed - alone) * 100.0,
        alone * 100.0
    );
    assert!(
        followed - alone < SLOWER * 0.01,
        "a follower costs {followed} of a core, nobody {alone}"
    );
    assert_eq!(browser.complaints(), Vec::<String>::new());
}
