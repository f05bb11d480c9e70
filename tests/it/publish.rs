//! What Ingress writes to the API server: addresses, Events, and who of several does.

use hyper::Method;
use serde_json::{Value, json};

use super::support::{agent::Agent, apiserver::ApiServer, cluster::Cluster, world::World};

/// With a class and a Service in front of Ingress.
fn with_front(world: &World) -> Cluster {
    let objects = [class(), front(&["192.0.2.1"]), pod("ingress-1"), ingress("web", "ours")];
    Cluster::start(world, objects)
}

/// An agent as a pod of the set runs it.
pub(crate) fn agent_of(cluster: &Cluster, world: &World, pod: &str, more: &[&str]) -> Agent {
    let (pod, socket) = (format!("edge/{pod}"), format!("{pod}.sock"));
    let socket = world.root().join(socket).display().to_string();
    let usual = [
        "--no-proxy",
        "--no-dns",
        "--leader-lease",
        "edge/fairlead-ingress",
        "--pod",
        &pod,
        "--healthz-listen=",
        "--metrics-listen=",
        "--admin-socket",
        &socket,
    ];
    cluster.agent(world, &[&usual[..], more].concat())
}

/// Waits until the Ingress has these addresses.
pub(crate) fn await_addresses(cluster: &Cluster, name: &str, wanted: &[&str]) {
    let expected: Vec<Value> = wanted.iter().map(|ip| json!({"ip": ip})).collect();
    cluster.await_all("ingresses", |all| {
        let mut found = all.iter().filter(|ingress| ingress["metadata"]["name"] == name);
        let found = found.next().map(|found| &found["status"]["loadBalancer"]["ingress"]);
        found.is_some_and(|found| match found.as_array() {
            None => expected.is_empty(),
            Some(found) => *found == expected,
        })
    });
}

fn await_holder(cluster: &Cluster, wanted: Option<&str>) {
    cluster.await_all("leases", |all| {
        let holder = all.first().and_then(|lease| lease["spec"]["holderIdentity"].as_str());
        match (holder, wanted) {
            (Some(holder), Some(wanted)) => holder.starts_with(wanted),
            (None, None) => !all.is_empty(),
            _ => false,
        }
    });
}

pub(crate) fn class() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "ours"},
        "spec": {"controller": "fairlead.io/ingress"},
    })
}

fn front(addresses: &[&str]) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "front", "namespace": "edge"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.9"],
                 "ports": [{"name": "http", "port": 80}]},
        "status": {"loadBalancer": {"ingress": addresses}},
    })
}

pub(crate) fn pod(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "edge", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "ingress", "uid": "1",
             "controller": true}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}],
                   "hostIP": "192.168.77.2", "hostIPs": [{"ip": "192.168.77.2"}]},
    })
}

fn ingress(name: &str, class: &str) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
        "spec": {
            "ingressClassName": class,
            "defaultBackend": {"resource": {"kind": "Bucket", "name": "static"}},
        },
    })
}

/// With what was written to it, as `kubectl apply` leaves it.
pub(crate) fn keeping_status(server: &ApiServer, mut ingress: Value) -> Value {
    let name = ingress["metadata"]["name"].as_str().expect("a name").to_owned();
    let stored = server.get("ingresses", "shop", &name).expect("it is there");
    ingress["status"] = stored["status"].clone();
    ingress
}

#[test]
fn ingresses_of_our_class_are_given_the_services_addresses_and_lose_them_with_the_class() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    let mut foreign = ingress("theirs", "other");
    foreign["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    cluster.server.put(foreign);
    let mut agent = agent_of(&cluster, &world, "ingress-1", &["--publish-service", "edge/front"]);
    await_addresses(&cluster, "web", &["192.0.2.1"]);

    cluster.server.put(ingress("api", "ours"));
    await_addresses(&cluster, "api", &["192.0.2.1"]);
    cluster.server.put(front(&["192.0.2.1", "192.0.2.2"]));
    await_addresses(&cluster, "web", &["192.0.2.1", "192.0.2.2"]);
    await_addresses(&cluster, "api", &["192.0.2.1", "192.0.2.2"]);

    cluster.server.put(keeping_status(&cluster.server, ingress("api", "other")));
    await_addresses(&cluster, "api", &[]);
    // Deleted and made anew at once, as `kubectl replace --force` does.
    cluster.server.delete("Ingress", "shop", "web");
    cluster.server.put(ingress("web", "ours"));
    await_addresses(&cluster, "web", &["192.0.2.1", "192.0.2.2"]);

    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
    await_addresses(&cluster, "web", &[]);
    await_addresses(&cluster, "theirs", &["203.0.113.1"]);
    await_holder(&cluster, None);
}

/// Whoever takes an Ingress over writes its own addresses at once: they were taken away, and nobody found it.
#[test]
fn bug_an_ingress_that_has_left_keeps_what_its_new_controller_wrote() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    cluster.server.put(ingress("api", "ours"));
    let mut agent = agent_of(&cluster, &world, "ingress-1", &["--publish-service", "edge/front"]);
    await_addresses(&cluster, "api", &["192.0.2.1"]);
    let mut left = ingress("api", "other");
    left["status"] = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    cluster.server.put(left);
    // What comes later is written after it was looked at.
    cluster.server.put(ingress("later", "ours"));
    await_addresses(&cluster, "later", &["192.0.2.1"]);
    await_addresses(&cluster, "api", &["203.0.113.1"]);
    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
    await_addresses(&cluster, "later", &[]);
    await_addresses(&cluster, "api", &["203.0.113.1"]);
}

/// What was on its way at the end was not known to be written, and stayed: addresses where nobody answers.
#[test]
fn bug_an_address_that_was_being_written_at_the_end_was_never_taken_away() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    let mut agent = agent_of(&cluster, &world, "ingress-1", &["--publish-service", "edge/front"]);
    await_addresses(&cluster, "web", &["192.0.2.1"]);
    let path = "/apis/networking.k8s.io/v1/namespaces/shop/ingresses/later/status";
    cluster.server.leave_unanswered(Method::PATCH, path);
    cluster.server.leave_unanswered(Method::PUT, path);
    cluster.server.put(ingress("later", "ours"));
    await_addresses(&cluster, "later", &["192.0.2.1"]);
    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
    await_addresses(&cluster, "web", &[]);
    await_addresses(&cluster, "later", &[]);
}

/// Whoever looked there found nobody, for as long as the Service had no new one.
#[test]
fn bug_an_address_that_the_service_has_lost_is_taken_away_and_only_where_it_was_written() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    let theirs = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.1"}]}});
    let moved = |name: &str| {
        let mut moved = ingress(name, "ours");
        moved["status"] = theirs.clone();
        moved
    };
    // Of the controller before, and the Service waits for its balancer.
    cluster.server.put(front(&[]));
    cluster.server.put(moved("early"));
    let agent = agent_of(&cluster, &world, "ingress-1", &["--publish-service", "edge/front"]);
    await_holder(&cluster, Some("ingress-1"));
    cluster.server.put(front(&["192.0.2.1"]));
    await_addresses(&cluster, "web", &["192.0.2.1"]);
    await_addresses(&cluster, "early", &["192.0.2.1"]);
    cluster.server.put(front(&[]));
    await_addresses(&cluster, "web", &[]);
    await_addresses(&cluster, "early", &[]);
    cluster.server.put(moved("late"));
    cluster.server.put(front(&["192.0.2.2"]));
    for name in ["web", "early", "late"] {
        await_addresses(&cluster, name, &["192.0.2.2"]);
    }
    let written = |name: &str| {
        let path = format!("/apis/networking.k8s.io/v1/namespaces/shop/ingresses/{name}/status");
        cluster.server.requests().paths.get(&path).copied().unwrap_or_default()
    };
    assert_eq!(["web", "early", "late"].map(written), [3, 3, 1], "{}", agent.log());
}

#[test]
fn of_two_agents_one_writes_and_the_other_follows_without_a_gap() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    cluster.server.put(pod("ingress-2"));
    let mut first = agent_of(&cluster, &world, "ingress-1", &[]);
    await_holder(&cluster, Some("ingress-1"));
    await_addresses(&cluster, "web", &["192.168.77.2"]);
    // Other addresses than the first one's, so that it shows who wrote.
    let second = agent_of(&cluster, &world, "ingress-2", &["--publish-address", "192.0.2.2"]);
    second.await_line(&["Ingress: listening"]);
    let written = |name: &str| {
        let path = format!("/apis/networking.k8s.io/v1/namespaces/shop/ingresses/{name}/status");
        cluster.server.requests().paths.get(&path).copied().unwrap_or_default()
    };
    let names = ["web", "one", "two"];
    for name in &names[1..] {
        cluster.server.put(ingress(name, "ours"));
        await_addresses(&cluster, name, &["192.168.77.2"]);
    }
    assert_eq!(names.map(written), [1; 3], "{}{}", first.log(), second.log());
    first.terminate();
    assert!(first.await_end().success(), "{}", first.log());
    for name in names {
        await_addresses(&cluster, name, &["192.0.2.2"]);
    }
    assert_eq!(names.map(written), [2; 3], "the first one took them away: {}", first.log());
    await_holder(&cluster, Some("ingress-2"));
}

/// Deleted by force while it served; the others of its set serve on.
#[test]
fn bug_a_leader_whose_pod_is_gone_takes_no_address_away() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    cluster.server.put(pod("ingress-2"));
    let mut agent = agent_of(&cluster, &world, "ingress-1", &[]);
    await_addresses(&cluster, "web", &["192.168.77.2"]);
    cluster.server.delete("Pod", "edge", "ingress-1");
    agent.terminate();
    assert!(agent.await_end().success(), "{}", agent.log());
    await_holder(&cluster, None);
    await_addresses(&cluster, "web", &["192.168.77.2"]);
    agent.await_line(&["WARN", "the own pod edge/ingress-1 is not there", "--pod"]);
}

#[test]
fn what_is_not_served_is_an_event_of_the_object_once() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    let agent = agent_of(&cluster, &world, "ingress-1", &["--publish-address", "192.0.2.9"]);
    let refused = |all: &[Value]| {
        all.iter().any(|event| event["note"].as_str().is_some_and(|note| note.contains("Bucket")))
    };
    let events = cluster.await_all("events", refused);
    let event = events.first().expect("one");
    let regarding = &event["regarding"];
    assert_eq!(regarding["uid"], "uid-web", "kubectl describe looks for it: {event}");
    assert_eq!((&event["type"], &event["reason"]), (&json!("Warning"), &json!("Refused")));
    assert_eq!(event["metadata"]["namespace"], "shop");
    agent.kill();
    let mut counts = vec![events.len()];
    for address in ["192.0.2.10", "192.0.2.11"] {
        // Another leader after it has nothing new to say.
        cluster.server.delete("Lease", "edge", "fairlead-ingress");
        let again = agent_of(&cluster, &world, "ingress-1", &["--publish-address", address]);
        await_addresses(&cluster, "web", &[address]);
        counts.push(cluster.await_all("events", refused).len());
        again.kill();
    }
    // What lasts is said again each 55 minutes: that may fall between two of the three.
    assert!(counts.windows(2).any(|pair| pair[0] == pair[1]), "{counts:?}");
}

/// Of another's Ingress its own controller speaks; this one has nothing to say of it, good or bad.
#[test]
fn what_cannot_be_read_is_an_event_of_our_ingresses_and_of_nobody_elses() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    let unreadable = |name: &str, class: &str| {
        let mut ingress = ingress(name, class);
        ingress["spec"] = json!({"ingressClassName": class});
        ingress
    };
    let mut by_annotation = unreadable("a-annotated", "ours");
    by_annotation["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "nginx"});
    let mut ours_before = ingress("y-before", "ours");
    let objects = [
        unreadable("a-other", "other"),
        by_annotation,
        unreadable("x-ours", "ours"),
        ours_before.clone(),
    ];
    cluster.server.put_all(objects);
    let agent = agent_of(&cluster, &world, "ingress-1", &["--publish-address", "192.0.2.9"]);
    let spoken_of = |all: &[Value]| {
        let unread = all.iter().filter(|event| {
            let note = event["note"].as_str().unwrap_or_default();
            note.contains("neither rules nor defaultBackend")
        });
        let names = unread.map(|event| event["regarding"]["name"].as_str().unwrap_or_default());
        let mut names: Vec<String> = names.map(str::to_owned).collect();
        names.sort();
        names
    };
    cluster.await_all("events", |all| spoken_of(all) == ["x-ours"]);
    await_addresses(&cluster, "y-before", &["192.0.2.9"]);
    // Its last good form is served on, so it is ours still. It is said last of all that is to be said.
    ours_before["spec"] = json!({"ingressClassName": "other"});
    cluster.server.put(ours_before);
    let all = cluster.await_all("events", |all| spoken_of(all).contains(&"y-before".to_owned()));
    assert_eq!(spoken_of(&all), ["x-ours", "y-before"], "{}", agent.log());
}

#[test]
fn without_the_right_to_write_it_says_which_and_serves() {
    let world = World::with_pods(1);
    let cluster = with_front(&world);
    cluster.server.forbid(&["events"]);
    let agent = agent_of(&cluster, &world, "ingress-1", &["--publish-address", "192.0.2.9"]);
    await_addresses(&cluster, "web", &["192.0.2.9"]);
    agent.await_line(&["WARN", "writing an Event", "grant this account create on events"]);
    // The only Ingress leads to a Bucket: nothing is there, and it says so.
    let url = "http://127.0.0.1/";
    assert_eq!(world.load("node", &["--url", url, "--expect", "503", "--count", "1"]).ok(), 1);
}

/// Of a namespace that was being deleted, of a policy that refused one object, of a right that one namespace
/// did not give: for ten minutes nobody heard anything of any other.
#[test]
fn bug_an_event_that_cannot_be_written_kept_all_others_from_being_said() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    let elsewhere = |namespace: &str| {
        let mut ingress = ingress("web", "ours");
        ingress["metadata"]["namespace"] = json!(namespace);
        ingress
    };
    cluster.server.put_all(["a-ending", "b-denied", "c-withheld"].map(elsewhere));
    let refuse = |namespace: &str, message: &str, cause: Option<&str>| {
        let path = format!("/apis/events.k8s.io/v1/namespaces/{namespace}/events");
        cluster.server.refuse(Method::POST, &path, message, cause);
    };
    refuse(
        "a-ending",
        "events.events.k8s.io \"web.1\" is forbidden: unable to create new content in namespace \
         a-ending because it is being terminated",
        Some("NamespaceTerminating"),
    );
    refuse("b-denied", "admission webhook \"policy.example\" denied the request: no", None);
    refuse(
        "c-withheld",
        "events.events.k8s.io is forbidden: User \"test\" cannot create resource \"events\" in API \
         group \"events.k8s.io\" in the namespace \"c-withheld\"",
        None,
    );
    let agent = agent_of(&cluster, &world, "ingress-1", &["--publish-address", "192.0.2.9"]);
    let of_shop = |all: &[Value]| all.iter().any(|event| event["metadata"]["namespace"] == "shop");
    cluster.await_all("events", of_shop);
    agent.await_line(&["WARN", "writing an Event", "policy.example"]);
    agent.await_line(&["WARN", "writing an Event", "grant this account"]);
    let said = agent.lines_with(&["WARN", "writing an Event"]);
    let [denied, withheld] = &said[..] else { panic!("{said:?}") };
    assert!(denied.contains("policy.example") && !denied.contains("RBAC"), "{denied}");
    assert!(
        withheld.contains("c-withheld") && withheld.contains("grant this account"),
        "{withheld}"
    );
}

/// The chart gives list and watch on them, and no get.
#[test]
fn bug_what_is_wrong_with_a_configmap_was_never_an_event_of_it() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    cluster.server.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "options", "namespace": "edge", "uid": "uid-options"},
        "data": {"use-forwarded-headers": "true"},
    }));
    let message =
        "configmaps \"options\" is forbidden: User \"test\" cannot get resource \"configmaps\"";
    let path = "/api/v1/namespaces/edge/configmaps/options";
    cluster.server.refuse(Method::GET, path, message, None);
    let more = ["--publish-address", "192.0.2.9", "--ingress-config", "edge/options"];
    let _agent = agent_of(&cluster, &world, "ingress-1", &more);
    let of_map = |event: &Value| event["regarding"]["uid"] == "uid-options";
    let all = cluster.await_all("events", |all| all.iter().any(of_map));
    let event = all.iter().find(|event| of_map(event)).expect("awaited");
    assert_eq!(event["regarding"]["kind"], "ConfigMap", "{event}");
    assert_eq!(event["metadata"]["namespace"], "edge", "{event}");
}

/// A policy that refused one of them kept all behind it without an address, for good.
#[test]
fn bug_an_ingress_whose_status_is_refused_keeps_no_other_from_its_address() {
    let world = World::with_pods(0);
    let cluster = with_front(&world);
    let early = ingress("early", "ours");
    let late = ingress("late", "ours");
    cluster.server.put(early.clone());
    for name in ["early", "late"] {
        let path = format!("/apis/networking.k8s.io/v1/namespaces/shop/ingresses/{name}/status");
        let denied = "admission webhook \"policy.example\" denied the request: no";
        cluster.server.refuse(Method::PATCH, &path, denied, None);
    }
    let agent = agent_of(&cluster, &world, "ingress-1", &["--publish-address", "192.0.2.9"]);
    await_addresses(&cluster, "web", &["192.0.2.9"]);
    // Written one by one from now on.
    cluster.server.put_all([late, ingress("later", "ours")]);
    await_addresses(&cluster, "later", &["192.0.2.9"]);
    let parts = ["WARN", "writing an Ingress's status", "policy.example"];
    agent.await_line(&parts);
    let said = agent.lines_with(&parts);
    assert_eq!(said.len(), 1, "both are refused in the same words: {said:?}");
    await_addresses(&cluster, "early", &[]);
}
