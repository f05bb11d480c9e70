//! The page in a large cluster: what people wait for.

use serde_json::json;

use super::{
    agent::Agent,
    browser::{Browser, Look},
    world::World,
};

/// The page of a world's agent, as processes of its node reach it.
pub(crate) const AT: &str = "http://127.0.0.1:10247";

/// Manifests of so many Services, each with two endpoints.
fn many(count: usize) -> String {
    let service = |n: usize| {
        let ip = format!("10.{}.{}.{}", 100 + n / 65536, n / 256 % 256, n % 256);
        json!({"apiVersion": "v1", "kind": "Service",
            "metadata": {"name": format!("service-{n}"), "namespace": format!("team-{}", n % 50)},
            "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}})
    };
    let slice = |n: usize| {
        let endpoint = |host: usize| {
            let ip = format!("10.{}.{}.{}", 200 + host, n / 256, n % 256);
            json!({"addresses": [ip], "conditions": {"ready": true}, "nodeName": "node2",
                "targetRef": {"kind": "Pod", "name": format!("pod-{n}-{host}")}})
        };
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": format!("service-{n}-1"), "namespace": format!("team-{}", n % 50),
                "labels": {"kubernetes.io/service-name": format!("service-{n}")}},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [endpoint(0), endpoint(1)]})
    };
    let items: Vec<_> = (0..count).flat_map(|n| [service(n), slice(n)]).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

/// An agent that has read so many Services, and a browser on its node.
pub(crate) fn large(world: &World, services: usize) -> (Agent, Browser) {
    world.apply("many.json", &many(services));
    let socket = format!("--admin-socket={}", world.root().join("admin.sock").display());
    let agent = world.agent_with(&[&socket, "--no-dns", "--no-ingress"]);
    let ready = ["--url", "http://127.0.0.1:10256/readyz", "--wait-ms", "180000", "--count", "1"];
    assert_eq!(world.load("node", &ready).ok(), 1, "it reads them all");
    let browser = Browser::on_node(world);
    browser.look(Look::Light);
    (agent, browser)
}

/// From going to a page to the first thing to be seen of it, in milliseconds.
pub(crate) fn first_paint_ms(browser: &Browser, path: &str) -> f64 {
    browser.open(&format!("{AT}{path}"));
    let script = "new PerformanceObserver((list, self) => {
        self.disconnect();
        done(list.getEntriesByName('first-contentful-paint')[0].startTime);
      }).observe({ type: 'paint', buffered: true });";
    browser.run_until_done(script).as_f64().expect("a time")
}

/// From typing a Service's name into the filter to its row alone, in milliseconds.
pub(crate) fn filter_ms(browser: &Browser, name: &str) -> f64 {
    let script = format!(
        "const box = document.querySelector('input[name=q]');
         const rows = () => document.querySelectorAll('tbody tr');
         const seen = new MutationObserver(() => {{
           if (rows().length === 1 && rows()[0].innerText.includes('{name}')) {{
             seen.disconnect(); done(performance.now() - begun);
           }}
         }});
         seen.observe(document.querySelector('#live'), {{ subtree: true, childList: true, characterData: true }});
         box.value = '{name}';
         const begun = performance.now();
         box.dispatchEvent(new Event('input', {{ bubbles: true }}));"
    );
    browser.run_until_done(&script).as_f64().expect("a time")
}
