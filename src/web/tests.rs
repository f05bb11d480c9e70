//! Pages from manifests, hostile ones included.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::Duration,
};

use clap::Parser;
use http_body_util::BodyExt as _;
use hyper::StatusCode;

use super::*;
use crate::{
    report::status::{RoleRow, SnapshotRow},
    view::Files,
};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    files: Files,
}

/// An agent that has read a file, and how often it was looked at.
#[derive(Clone)]
struct Manifests(PathBuf, Arc<AtomicUsize>);

impl Facts for Manifests {
    fn health(&self) -> Health {
        let Status { node, is_healthy, is_ending, snapshot, .. } = self.status();
        Health { node, is_healthy, is_ending, snapshot }
    }

    fn status(&self) -> Status {
        Status {
            version: "0".to_owned(),
            node: EVIL.to_owned(),
            is_healthy: true,
            is_ending: false,
            roles: vec![RoleRow {
                name: "proxy".to_owned(),
                state: "failed".to_owned(),
                why: Some(EVIL.to_owned()),
                serves: String::new(),
            }],
            snapshot: Some(SnapshotRow {
                revision: 1,
                changed_seconds_ago: Some(1.0),
                stale_seconds: None,
            }),
            kinds: Vec::new(),
            proxy: None,
            warnings: vec![EVIL.to_owned()],
        }
    }

    fn traffic(&self) -> Traffic {
        let mut traffic = Traffic::default();
        traffic.add("dns", EVIL, 1);
        traffic
    }

    fn look<T>(&self, report: impl FnOnce(&View<'_>) -> anyhow::Result<T>) -> anyhow::Result<T> {
        self.1.fetch_add(1, Relaxed);
        let flags = Flags::parse_from(["test", "-f", &self.0.display().to_string()]);
        report(&flags.files.view()?.view)
    }
}

const EVIL: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&";

/// Where manifests carry words of others that nobody refuses.
const OBJECTS: &str = r#"[
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"},
 "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "http", "port": 80}]}},
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "empty", "namespace": "shop"},
 "spec": {"clusterIP": "10.96.0.10", "ports": [{"name": "http", "port": 80}]}},
{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias", "namespace": "shop"},
 "spec": {"type": "ExternalName", "externalName": "a.example"}},
{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
 "metadata": {"name": "web-1", "namespace": "shop",
              "labels": {"kubernetes.io/service-name": "web"}},
 "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
 "endpoints": [{"addresses": ["10.244.1.5"], "conditions": {"ready": true},
  "nodeName": "EVIL", "zone": "EVIL", "hints": {"forZones": [{"name": "EVIL"}]},
  "targetRef": {"kind": "Pod", "name": "EVIL"}}]},
{"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "fairlead"},
 "spec": {"controller": "fairlead.io/ingress"}},
{"apiVersion": "networking.k8s.io/v1", "kind": "Ingress",
 "metadata": {"name": "web", "namespace": "shop", "annotations": {
  "nginx.ingress.kubernetes.io/upstream-vhost": "EVIL", "nginx.ingress.kubernetes.io/EVIL": "EVIL",
  "nginx.ingress.kubernetes.io/configuration-snippet": "more_set_headers \"X-Key: s3cret\";"}},
 "spec": {"ingressClassName": "fairlead", "rules": [{"host": "shop.example", "http": {"paths": [
   {"path": "/EVIL", "pathType": "ImplementationSpecific",
    "backend": {"service": {"name": "web", "port": {"number": 80}}}},
   {"path": "/", "pathType": "Prefix",
    "backend": {"service": {"name": "web", "port": {"number": 80}}}}]}}]}}
]"#;

fn written() -> (tempfile::TempDir, Manifests) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("all.json");
    let evil = serde_json::to_string(EVIL).unwrap();
    let objects = OBJECTS.replace("EVIL", evil.trim_matches('"'));
    std::fs::write(
        &file,
        format!("{{\"kind\": \"List\", \"apiVersion\": \"v1\", \"items\": {objects}}}"),
    )
    .unwrap();
    (folder, Manifests(file, Arc::default()))
}

fn shown(facts: &Manifests, path: &str, query: &[(&str, &str)]) -> (StatusCode, String) {
    let target = asked::link(path, query);
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    frame::whole(facts, &Page::of(path, query).unwrap())
}

const SHOP: [(&str, &str); 1] = [("name", "shop/web")];

/// Every page, asked for with words of others wherever it takes some.
fn every_page() -> Vec<(&'static str, Vec<(&'static str, &'static str)>)> {
    vec![
        ("/", vec![]),
        ("/services", vec![]),
        ("/services", vec![("q", EVIL)]),
        ("/service", SHOP.to_vec()),
        ("/service", vec![("name", EVIL)]),
        ("/routes", vec![]),
        ("/routes", vec![("q", EVIL)]),
        ("/host", vec![("name", "shop.example")]),
        ("/host", vec![("name", EVIL)]),
        ("/names", vec![]),
        ("/names", vec![("name", EVIL), ("type", EVIL), ("namespace", EVIL)]),
        ("/names", vec![("name", "alias.shop")]),
        ("/drops", vec![]),
        ("/trace", vec![("target", EVIL), ("from", EVIL), ("namespace", EVIL)]),
        ("/trace", vec![("target", "tcp web.shop:80"), ("namespace", EVIL)]),
        ("/trace", vec![("target", "http://shop.example/")]),
    ]
}

#[test]
fn words_of_others_are_text_on_every_page() {
    let (_folder, facts) = written();
    let mut met = 0;
    for (path, query) in every_page() {
        let (_, text) = shown(&facts, path, &query);
        for markup in ["<script>alert", "<img src=x", "onerror=alert(1)>", "\"'>"] {
            assert!(!text.contains(markup), "{path} {query:?}: {markup}: {text}");
        }
        met += usize::from(text.contains("&lt;script&gt;alert(1)"));
        // What follows a page is escaped alike.
        let page = Page::of(path, &form(&query)).unwrap();
        let part = events::part(&facts, &page, &mut Rates::default());
        assert!(!part.to_string().contains("<script>alert"), "{path}");
    }
    assert!(met >= 14, "hostile words were shown on {met} pages only");
}

#[test]
fn passwords_in_annotations_are_on_no_page() {
    let (_folder, facts) = written();
    let mut met = 0;
    for (path, query) in every_page() {
        let (_, text) = shown(&facts, path, &query);
        assert!(!text.contains("s3cret"), "{path} {query:?}: {text}");
        met += usize::from(text.contains("configuration-snippet"));
    }
    assert!(met >= 2, "its name is on the pages of the host and of a trace: {met}");
}

fn form(query: &[(&str, &str)]) -> String {
    asked::link("", query).trim_start_matches('?').to_owned()
}

#[test]
fn pages_show_what_the_commands_tell() {
    let (_folder, facts) = written();
    for (path, query, parts) in [
        ("/", vec![], &["Overview", "healthy", "failed"][..]),
        ("/services", vec![], &["shop/", "10.96.0.9", "1/1", "0/0"]),
        ("/services", vec![("q", "10.96.0.9")], &["(of 3 in all)"]),
        ("/services", vec![("which", "down")], &["10.96.0.10", "0/0", "(of 3 in all)"]),
        (
            "/service",
            SHOP.to_vec(),
            &["<svg", "10.244.1.5:8080", "ClusterIP", "trace tcp web.shop:80"],
        ),
        ("/routes", vec![], &["shop.example", "shop/web"]),
        ("/host", vec![("name", "shop.example")], &["<svg", "From the host", "10.244.1.5"]),
        ("/names", vec![("name", "web.shop")], &["web.shop.svc.cluster.local", "10.96.0.9"]),
        ("/trace", vec![("target", "web.shop:80")], &["outcome good", "100.0 %"]),
        ("/trace", vec![("target", "tcp web.shop:81")], &["outcome bad", "refused at once"]),
    ] {
        let (status, text) = shown(&facts, path, &query);
        assert_eq!(status, StatusCode::OK, "{path}: {text}");
        for part in parts {
            assert!(text.contains(part), "{path}: {part}: {text}");
        }
    }
}

#[test]
fn a_question_without_an_answer_keeps_its_form() {
    let (_folder, facts) = written();
    let (status, text) = shown(&facts, "/service", &[("name", "shop/none")]);
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text.contains("Service shop/none does not exist"), "{text}");
    let (_, text) = shown(&facts, "/trace", &[("target", "icmp x:1")]);
    assert!(text.contains("value=\"icmp x:1\"") && text.contains("is no protocol"), "{text}");
}

#[test]
fn everything_a_page_loads_is_its_own() {
    let (_folder, facts) = written();
    for (path, query) in every_page() {
        let (_, text) = shown(&facts, path, &query);
        for attribute in ["src=\"", "href=\"", "action=\""] {
            for (_, rest) in text.match_indices(attribute).map(|(at, _)| text.split_at(at)) {
                let value = rest.trim_start_matches(attribute);
                assert!(value.starts_with('/') && !value.starts_with("//"), "{path}: {value:.60}");
            }
        }
        // The policy forbids both: they would be dead.
        assert!(!text.contains(" style=") && !text.contains(" onclick="), "{path}");
    }
    assert!(!STYLE.contains("url(") && !STYLE.contains("@import"), "style sheets load nothing");
}

#[tokio::test]
async fn where_nobody_looks_nothing_is_computed() {
    let (_folder, facts) = written();
    let places = Arc::new(Semaphore::new(1));
    let place = places.clone().try_acquire_owned().unwrap();
    let page = Page::of("/services", "").unwrap();
    let mut body = events::follow(facts.clone(), page, place, Duration::from_millis(1)).into_body();
    let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert!(first.starts_with(b"data: {"), "{first:?}");
    let looks = facts.1.load(Relaxed);
    assert_eq!(looks, 1);
    // What has not changed is not sent again; a comment now and then finds out who has gone.
    let next = body.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(&next[..], b":\n\n");
    let looks = facts.1.load(Relaxed);
    assert!(looks > 2, "{looks}");
    drop(body);
    assert_eq!(Arc::strong_count(&facts.1), 1, "nobody is left who could look");
    assert_eq!(places.available_permits(), 1, "and the place is free");
}
