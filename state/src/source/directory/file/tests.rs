use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(file: &str, text: &str) -> Result<Content, Syntax> {
    parse(file, text, &mut Decoder::default())
}

fn places(content: &Content) -> Vec<(String, String)> {
    content.claims.iter().map(|c| (c.object.to_string(), c.place.to_string())).collect()
}

#[test]
fn several_documents_a_file_each_with_its_line() {
    let text = "\
# a comment first
---
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
# nothing but a comment
---
apiVersion: v1
kind: Namespace
metadata:
  name: \"yes\"
  annotations:
    text: |
      --- not a marker, for it is indented
--- # a marker with a comment
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: None}
...
";
    let content = read("a.yaml", text).unwrap();
    let expected = [
        ("Namespace shop", "a.yaml:3"),
        ("Namespace yes", "a.yaml:9"),
        ("Service shop/db", "a.yaml:16"),
    ];
    assert_eq!(places(&content), expected.map(|(o, p)| (o.to_owned(), p.to_owned())));
}

#[test]
fn lists_are_opened_and_foreign_kinds_named_once() {
    let yaml = "\
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: a}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: a}}
- {apiVersion: apps/v1, kind: Deployment, metadata: {name: b}}
- {apiVersion: example.com/v1, kind: AllowList, metadata: {name: b}}
";
    let json = r#"{"apiVersion": "v1", "kind": "NamespaceList", "items": [
  {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a"}}]}
{"apiVersion": "apps/v1", "kind": "Deployment"}"#;
    let content = read("a.yaml", yaml).unwrap();
    assert_eq!(places(&content).len(), 1);
    let foreign: Vec<&str> = content.foreign.iter().map(String::as_str).collect();
    assert_eq!(foreign, ["AllowList (example.com/v1)", "Deployment (apps/v1)"]);
    let content = read("a.json", json).unwrap();
    assert_eq!(places(&content), [("Namespace a".to_owned(), "a.json:2".to_owned())]);
    assert_eq!(content.foreign.len(), 1);
}

#[test]
fn what_does_not_parse_is_named_by_file_line_and_reason() {
    let table = [
        ("a.yaml", "a: 1\n---\nkind: [\n", "a.yaml:1: a document without apiVersion and kind"),
        ("a.yaml", "apiVersion: v1\nkind: Service\n", "a.yaml:1: a Service without metadata.name"),
        ("a.yaml", "\n\n- 1\n", "a.yaml:3: a document without apiVersion and kind"),
        ("a.yaml", "apiVersion: v1\nkind: Service\nmetadata:\n\tname: a\n", "a.yaml:4: "),
        ("a.yaml", "x: {apiVersion: v1}\n---\n\nx: [1, 2\ny: 3\n", "a.yaml:1: a document"),
        ("a.yaml", "kind: [\n", "a.yaml:1: unclosed bracket '['"),
        (
            "a.yaml",
            "---\napiVersion: v1\nkind: Node\nmetadata: {name: n}\n---\nx: 'open\n",
            "a.yaml:",
        ),
        ("a.yaml", "apiVersion: v1\napiVersion: v1\n", "a.yaml:2: "),
        ("a.json", "{\"kind\": \n \"Service\",,}", "a.json:2: "),
        ("a.json", "\n[1]", "a.json:2: a document without apiVersion and kind"),
        ("a.json", "{\"apiVersion\": \"v1\"", "a.json:1: EOF while parsing an object"),
    ];
    for (file, text, expected) in table {
        let error = read(file, text).unwrap_err().to_string();
        assert!(error.starts_with(expected), "{text:?}: {error}");
        assert!(!error.contains('\n'), "one line: {error}");
    }
}

#[test]
fn an_empty_file_is_an_empty_cluster() {
    for (file, text) in [
        ("a.yaml", ""),
        ("a.yaml", "---\n# nothing\n---\n"),
        ("a.yml", "\u{feff}---\n"),
        ("a.json", " \n"),
    ] {
        assert!(read(file, text).unwrap().claims.is_empty(), "{text:?}");
    }
}

#[test]
fn names_that_were_booleans_in_yaml_1_1_are_names() {
    for name in ["y", "n", "yes", "no", "on", "off"] {
        let text = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}}}\n");
        let content = read("a.yaml", &text).unwrap();
        assert_eq!(content.claims[0].object.key.to_string(), name);
    }
}

#[test]
fn an_old_version_is_refused_with_the_one_to_write() {
    let text = "apiVersion: extensions/v1beta1\nkind: Ingress\nmetadata: {name: a}\n";
    let content = read("a.yaml", text).unwrap();
    let refusal = content.claims[0].verdict.as_ref().unwrap_err();
    assert_eq!(
        refusal.to_string(),
        "Ingress default/a refused: apiVersion \"extensions/v1beta1\" is not read; \
         write networking.k8s.io/v1 (a.yaml:1)"
    );
}

#[test]
fn billion_laughs_is_refused_quickly() {
    let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..12 {
        let list = vec![format!("*a{}", i - 1); 10].join(", ");
        text.push_str(&format!("a{i}: &a{i} [{list}]\n"));
    }
    let began = std::time::Instant::now();
    assert!(read("a.yaml", &text).is_err());
    assert!(began.elapsed() < std::time::Duration::from_secs(10));
}

#[test]
fn yaml_and_json_say_the_same() {
    let yaml = "\
apiVersion: v1
kind: Service
metadata:
  name: hello
  creationTimestamp: 2026-01-31T12:00:00Z
spec:
  clusterIP: 10.96.0.7
  ports:
  - port: 80
    targetPort: web
";
    let json = r#"{"apiVersion":"v1","kind":"Service",
        "metadata":{"name":"hello","creationTimestamp":"2026-01-31T12:00:00Z"},
        "spec":{"clusterIP":"10.96.0.7","ports":[{"port":80,"targetPort":"web"}]}}"#;
    let object = |content: Content| content.claims[0].verdict.clone().unwrap().unwrap();
    assert_eq!(object(read("a.yaml", yaml).unwrap()), object(read("a.json", json).unwrap()));
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(---\n|[ \
     \t\n:,&*!|>'\"%@`{}\\[\\]-]|kind|apiVersion|v1|Node|é){0,60}") {
        let _ = read("a.yaml", &text);
        let _ = read("a.json", &text);
    }

    #[test]
    fn no_value_of_any_field_makes_the_decoder_panic(kind in 0..9usize, seed in value()) {
        let kind = crate::model::Kind::ALL[kind];
        let head = json!({"apiVersion": kind.api_version(), "kind": kind.as_str()}).to_string();
        let document = seed.replacen('{', &format!("{},", head.trim_end_matches('}')), 1);
        let _ = read("a.json", &document);
        let _ = read("a.yaml", &document);
    }
}

/// JSON objects made of the names that mean something.
fn value() -> impl Strategy<Value = String> {
    const NAMES: [&str; 24] = [
        "metadata",
        "name",
        "namespace",
        "labels",
        "annotations",
        "spec",
        "status",
        "ports",
        "port",
        "clusterIP",
        "clusterIPs",
        "endpoints",
        "addresses",
        "addressType",
        "rules",
        "http",
        "paths",
        "backend",
        "service",
        "tls",
        "data",
        "type",
        "kubernetes.io/service-name",
        "path",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop::sample::select(vec!["", "a", "None", "10.0.0.1", "::", "IPv4", "/", "NodePort", "€"])
            .prop_map(Value::from),
    ];
    let tree =
        leaf.prop_recursive(6, 40, 5, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                object(inner),
            ]
        });
    fn object(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
        let fields = prop::collection::vec((prop::sample::select(&NAMES[..]), inner), 0..6);
        fields.prop_map(|fields| {
            Value::Object(
                fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect(),
            )
        })
    }
    (object(tree.clone()), object(tree)).prop_map(|(mut object, mut metadata)| {
        metadata["name"] = json!("a");
        object["metadata"] = metadata;
        object.to_string()
    })
}
