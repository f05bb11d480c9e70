//! What is written into objects: annotations, ingress-nginx's ConfigMap, and those of TCP and UDP
//! services.

use std::{
    str,
    sync::{Arc, LazyLock, Mutex, PoisonError},
};

use fairlead_state::{
    Change, Key, Kind, Object, ObjectRef, Store,
    model::{
        ConfigMap, Ingress, IngressBackend, IngressClass, IngressPath, IngressRule, PathType,
        Secret, ServiceBackendPort,
    },
    store::Snapshots,
};
use http::{HeaderMap, HeaderValue, StatusCode, header::ORIGIN};

use super::spelling::one_path;
use crate::{
    config::IngressConfig,
    explain::{Explainer, Request},
    routes::{ANNOTATIONS, Planner, Rewritten, Route, Variable},
    tls::Fallback,
};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";
const NAMESPACE: &str = "default";
const CLASS: &str = "fairlead";
const HOST: &str = "a.example";
const FUZZED: &str = "fuzzed";
/// Before names of entries.
const SECRET: &str = "secret:";
const MAP: &str = "map:";
/// Contents one ConfigMap has in turn.
const MAPS_MAX: usize = 4;
/// What variables hold: as bad as a request can make it.
const VARIABLE: &str = "x/../%2e%2e/$1\"\r\nSet-Cookie: a=b";

static FALLBACK: LazyLock<Option<Fallback>> = LazyLock::new(|| Fallback::generate().ok());

/// `NAME=VALUE`, several with NUL between them: an Ingress with these annotations is planned, and a
/// request is led by it or refused with a reason. `secret:NAME=VALUE` is an entry of the Secret `users`,
/// `map:NAME=VALUE` one of the ConfigMap `headers`.
pub fn annotations(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let Some(world) = annotated(text) else { return };
    world.says_lines();
    world.answers();
}

fn annotated(text: &str) -> Option<World> {
    let is_known = |name: &str| ANNOTATIONS.iter().any(|known| known.name == name);
    let known = pairs(text).filter(|(name, _)| is_known(name));
    let annotations = known.map(|(name, value)| (format!("{PREFIX}{name}").into(), value.into()));
    let mut ingress = ingress(FUZZED, &["/p(/|$)(.*)", "/", "/main"]);
    ingress.annotations = Arc::new(annotations.collect());
    let entries = |prefix: &'static str| {
        pairs(text).filter_map(move |(name, value)| Some((name.strip_prefix(prefix)?, value)))
    };
    let has = |prefix| entries(prefix).next().is_some();
    let users = has(SECRET).then(|| users(entries(SECRET)));
    let headers = has(MAP).then(|| map(&Key::new(NAMESPACE, "headers"), entries(MAP)));
    let mut world = World::new(&IngressConfig::default())?;
    world.apply(users.into_iter().chain(headers).chain([Object::Ingress(Arc::new(ingress))]));
    Some(world)
}

/// `NAME=VALUE`, several with NUL between them, and two of it between the contents that the ConfigMap
/// has in turn: all are read, and the last ones stay once it is gone.
pub fn options(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else { return };
    let key = Key::new(NAMESPACE, "options");
    let config = IngressConfig { config_map: Some(key.clone()), ..IngressConfig::default() };
    let Some(mut world) = World::new(&config) else { return };
    for text in text.split("\0\0").take(MAPS_MAX) {
        world.apply([map(&key, pairs(text))]);
        world.says_lines();
        world.answers();
    }
    let in_force = |world: &World| world.with(|planner| format!("{:?}", planner.config()));
    let before = in_force(&world);
    world.delete(ObjectRef { kind: Kind::ConfigMap, key });
    assert_eq!(in_force(&world), before);
}

/// `PORT=SERVICE`, several with NUL between them: each port leads somewhere, or is refused with a
/// reason.
pub fn streams(bytes: &[u8]) {
    const HTTP_PORT: u16 = 80;
    let Ok(text) = str::from_utf8(bytes) else { return };
    let [tcp, udp] = ["tcp", "udp"].map(|name| Key::new(NAMESPACE, name));
    let config = IngressConfig {
        http_listen: vec![([0, 0, 0, 0], HTTP_PORT).into()],
        tcp_services: Some(tcp.clone()),
        udp_services: Some(udp.clone()),
        ..IngressConfig::default()
    };
    let Some(mut world) = World::new(&config) else { return };
    world.apply([map(&tcp, pairs(text)), map(&udp, pairs(text))]);
    world.says_lines();
    world.with(|planner| {
        for (port, stream) in &**planner.streams() {
            assert!(port.number > 0 && (port.udp || port.number != HTTP_PORT));
            let service = &stream.upstream.key().service;
            assert!(!service.namespace.is_empty() && !service.name.is_empty());
        }
    });
    world.apply([map(&tcp, pairs("")), map(&udp, pairs(""))]);
    assert!(world.with(|planner| planner.streams().is_empty()));
}

fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('\0').filter_map(|pair| pair.split_once('='))
}

fn map<'t>(key: &Key, entries: impl Iterator<Item = (&'t str, &'t str)>) -> Object {
    let data = entries.map(|(name, value)| (name.into(), value.into()));
    Object::ConfigMap(Arc::new(ConfigMap { key: key.clone(), data: data.collect() }))
}

fn users<'t>(entries: impl Iterator<Item = (&'t str, &'t str)>) -> Object {
    let data = entries.map(|(name, value)| (name.into(), value.as_bytes().into()));
    let (key, data) = (Key::new(NAMESPACE, "users"), data.collect());
    Object::Secret(Arc::new(Secret { key, secret_type: "Opaque".into(), data }))
}

fn ingress(name: &str, paths: &[&str]) -> Ingress {
    let path = |path: &&str| {
        let port = ServiceBackendPort::Number(80);
        let backend = IngressBackend::Service { name: "web".into(), port };
        IngressPath { path: (*path).into(), path_type: PathType::ImplementationSpecific, backend }
    };
    let paths = paths.iter().map(path).collect();
    Ingress {
        key: Key::new(NAMESPACE, name),
        created_seconds: 0,
        class_name: Some(CLASS.into()),
        annotations: Arc::default(),
        default_backend: None,
        rules: [IngressRule { host: Some(HOST.into()), paths }].into(),
        tls: [].into(),
    }
}

/// A role with a class, an Ingress whose canary another may be, and what annotations refer to.
struct World {
    store: Store,
    snapshots: Snapshots,
    planner: Arc<Mutex<Planner>>,
    explainer: Explainer,
}

impl World {
    fn new(config: &IngressConfig) -> Option<Self> {
        let planner = Arc::new(Mutex::new(Planner::new(config, FALLBACK.clone()?)));
        let explainer = Explainer::of(planner.clone());
        let (store, snapshots) = Store::new([]);
        let mut world = Self { store, snapshots, planner, explainer };
        let class = IngressClass {
            key: Key::new("", CLASS),
            controller: config.controller.as_str().into(),
            is_default: false,
            has_parameters: false,
        };
        let passwords = [("auth", "u:{SHA}qUqP5cyxm6YcTAhz05Hph5gvu9M=\n")];
        world.apply([
            Object::IngressClass(Arc::new(class)),
            users(passwords.into_iter()),
            map(&Key::new(NAMESPACE, "headers"), pairs("X-A=a")),
            Object::Ingress(Arc::new(ingress("main", &["/main"]))),
        ]);
        Some(world)
    }

    fn apply(&mut self, objects: impl IntoIterator<Item = Object>) {
        self.store.apply(objects.into_iter().map(Change::Upsert));
        self.plan();
    }

    fn delete(&mut self, object: ObjectRef) {
        self.store.apply([Change::Delete(object)]);
        self.plan();
    }

    fn plan(&mut self) {
        let snapshot = self.snapshots.borrow().clone().unwrap_or_default();
        self.planner.lock().unwrap_or_else(PoisonError::into_inner).apply(&snapshot);
    }

    fn with<T>(&self, ask: impl FnOnce(&Planner) -> T) -> T {
        ask(&self.planner.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whatever is said of an object is one line.
    fn says_lines(&self) {
        for finding in self.explainer.findings() {
            let text = finding.to_string();
            assert!(!text.is_empty() && !text.contains(char::is_control), "{text:?}");
        }
        for line in self.explainer.annotations(&Key::new(NAMESPACE, FUZZED)) {
            assert!(!line.contains(char::is_control), "{line:?}");
        }
    }

    /// Requests to each of the paths.
    fn answers(&self) {
        for path in ["/", "/p/x/y", "/main"] {
            for tls in [true, false] {
                let _ = self.explainer.explain(Request { tls, host: HOST, path });
            }
            self.with(|planner| {
                if let Some(found) = planner.routes().find(HOST, path) {
                    answer(found.route, path);
                }
            });
        }
    }
}

/// What a route makes of a request.
fn answer(route: &Route, path: &str) {
    let look = |_: &Variable, text: &mut String| text.push_str(VARIABLE);
    let mut headers = HeaderMap::new();
    headers.insert(ORIGIN, HeaderValue::from_static("https://a.example"));
    if let Some(Rewritten::Path { path, .. }) =
        route.rewrite.as_ref().and_then(|rewrite| rewrite.apply(path, look))
    {
        one_path(&path);
    }
    if let Some(trial) = &route.canary {
        let _ = trial.rule.takes(&headers, |most| most);
    }
    let Some(extra) = &route.policy.extra else { return };
    if let Some(snippet) = &extra.snippet
        && let Ok(in_force) = snippet.in_force(&look)
    {
        let _ = (in_force.returned(&look), in_force.to_endpoint(&look));
        in_force.told(&look).apply(StatusCode::OK, &mut headers);
    }
    if let Some(cors) = &extra.cors
        && let Some(origin) = cors.allows(&headers)
    {
        cors.set_fields(&mut headers, &origin);
    }
    if let Some(reply) = &extra.reply {
        reply.apply(&mut headers);
    }
    for template in extra.templates() {
        let (text, prefix) = (template.render(look), template.prefix());
        // Whatever a request says comes behind it.
        assert!(text.starts_with(prefix) || prefix.starts_with(&*text), "{template:?}: {text:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{super::replay::corpus, *};
    use crate::routes::{Severity, Support};

    /// A fuzzer changes what it begins with: from a whole that is served it gets further than from
    /// parts.
    #[test]
    fn the_corpus_begins_with_every_annotation_in_force() {
        let key = Key::new(NAMESPACE, FUZZED);
        let mut acting = BTreeSet::new();
        for (path, bytes) in corpus("ingress_annotations") {
            let file = path.file_name().unwrap().to_string_lossy();
            if !file.starts_with("valid_") {
                continue;
            }
            let world = annotated(str::from_utf8(&bytes).unwrap()).unwrap();
            let in_force = world.explainer.annotations(&key);
            acting.extend(
                in_force.iter().filter_map(|line| Some(line.split('=').next()?.to_owned())),
            );
            let findings = world.explainer.findings().into_iter();
            for finding in findings.filter(|finding| finding.object.key == key) {
                assert_ne!(finding.severity, Severity::Refused, "{file}: {finding}");
                // What has no effect here is read all the same.
                let is_about = |name: &str| finding.reason.contains(&format!("{PREFIX}{name} "));
                let told = ANNOTATIONS.iter().filter(|annotation| is_about(annotation.name));
                acting.extend(told.map(|annotation| annotation.name.to_owned()));
            }
        }
        let served = ANNOTATIONS.iter().filter(|row| row.support != Support::Refused);
        let missing: Vec<_> =
            served.map(|row| row.name).filter(|name| !acting.contains(*name)).collect();
        assert!(missing.is_empty(), "no valid_* input has {missing:?}");
    }
}
