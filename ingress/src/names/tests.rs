use std::{
    future::{pending, ready},
    net::{IpAddr, Ipv4Addr},
};

use fairlead_state::{
    Change, Kind, Object, Store,
    decode::{Decoded, Decoder},
};
use serde_json::{Value, json};
use tokio::{sync::Notify, task::JoinHandle, time::timeout};

use super::*;
use crate::{KINDS, config::IngressConfig, host::HostPattern, tls::Fallback};

const PATIENCE: Duration = Duration::from_secs(30);
/// As many of one namespace as are asked for at once.
const NAMES: usize = PLACES.all() / 2;
/// Where names lead that are not on the node; of a test network (RFC 5737).
const OUTSIDE: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));

fn object(kind: Kind, document: &Value) -> Object {
    let item = Decoder::new(false).json(kind, &document.to_string(), &"here".into()).unwrap();
    match item.decoded {
        Decoded::Object(object) => object,
        other => panic!("{other:?}"),
    }
}

/// A Service that leads to the name, and an Ingress that leads there.
fn leading_to(name: &str) -> [Object; 2] {
    let own = name.replace('.', "-");
    let class = "kubernetes.io/ingress.class";
    let metadata = json!({
        "name": own, "namespace": "default", "annotations": {class: "fairlead"},
    });
    let service = json!({
        "metadata": metadata,
        "spec": {"type": "ExternalName", "externalName": name, "ports": [{"port": 80}]},
    });
    let backend = json!({"service": {"name": own, "port": {"number": 80}}});
    let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
    let ingress = json!({
        "metadata": metadata,
        "spec": {"rules": [{"host": name, "http": {"paths": [path]}}]},
    });
    [object(Kind::Service, &service), object(Kind::Ingress, &ingress)]
}

/// An asker that runs, of a plan that is not made yet.
struct Asked {
    store: Store,
    planner: Arc<Mutex<Planner>>,
    snapshots: Snapshots,
    planned: watch::Sender<u64>,
    looked_up: watch::Receiver<bool>,
    task: JoinHandle<()>,
}

impl Asked {
    /// Of a machine that may have no Node.
    fn new<F>(objects: &[Object], look_up: impl Fn(Name) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Looked> + Send + 'static,
    {
        Self::of(objects, false, look_up)
    }

    fn of<F>(
        objects: &[Object],
        is_node_expected: bool,
        look_up: impl Fn(Name) -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = Looked> + Send + 'static,
    {
        let external_names = vec![HostPattern::Any];
        let config = IngressConfig { external_names, ..IngressConfig::default() };
        let planner = Planner::new(&config, Fallback::generate().unwrap());
        let planner = Arc::new(Mutex::new(planner));
        let kinds = || KINDS.into_iter().chain([Kind::Node]);
        let (mut store, snapshots) = Store::new(kinds());
        let replace = |kind| {
            let objects = objects.iter().filter(|object| object.kind() == kind).cloned().collect();
            Change::Replace { kind, objects, refused: Vec::new() }
        };
        store.apply(kinds().map(replace));
        let (planned, plan) = watch::channel(0);
        let (looked_up, known) = watch::channel(false);
        let asker = Asker {
            planner: planner.clone(),
            snapshots: snapshots.clone(),
            node: Some(Key::new("", "node-1")),
            is_node_expected,
            planned: plan,
            looked_up,
        };
        let task = tokio::spawn(asker.run(look_up));
        Self { store, planner, snapshots, planned, looked_up: known, task }
    }

    fn plan(&self) {
        let snapshot = self.snapshots.borrow().clone().unwrap();
        self.planner.lock().unwrap().apply(&snapshot);
        self.planned.send_replace(snapshot.revision());
    }

    /// How long it takes until all is looked up.
    async fn looked_up(&mut self) -> Duration {
        let begun = Instant::now();
        let looked_up = self.looked_up.wait_for(|known| *known);
        timeout(PATIENCE, looked_up).await.unwrap().unwrap();
        begun.elapsed()
    }

    fn reasons(&self) -> Vec<String> {
        let findings = self.planner.lock().unwrap().findings();
        findings.into_iter().map(|finding| finding.reason.to_string()).collect()
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Else whoever starts anew would answer 503 where its predecessor did not.
#[tokio::test]
async fn all_is_looked_up_when_the_last_name_of_the_plan_has_an_answer_of_any_kind() {
    let [goes_on, is_asked] = [(); 2].map(|()| Arc::new(Notify::new()));
    let (gate, bell) = (goes_on.clone(), is_asked.clone());
    let look_up = move |name: Name| {
        let (gate, bell) = (gate.clone(), bell.clone());
        async move {
            match &*name {
                "gone.example" => Looked::Err("no such name".into()),
                "late.example" => {
                    bell.notify_one();
                    gate.notified().await;
                    Ok(vec![OUTSIDE])
                }
                _ => Ok(vec![OUTSIDE]),
            }
        }
    };
    let objects = ["good.example", "gone.example", "late.example"].map(leading_to);
    let mut asked = Asked::new(&objects.concat(), look_up);
    tokio::task::yield_now().await;
    assert!(!*asked.looked_up.borrow(), "there is no plan");
    asked.plan();
    timeout(PATIENCE, is_asked.notified()).await.unwrap();
    assert!(!*asked.looked_up.borrow(), "late.example was not looked up");
    goes_on.notify_one();
    assert!(asked.looked_up().await < FIRST_LOOKUPS_MAX);
    assert!(asked.planner.lock().unwrap().unknown_names().is_empty());
    assert!(asked.reasons().iter().any(|reason| reason.contains("no such name")));
}

/// A right that was not given opened what it is for: names could lead to the node's address outside.
#[tokio::test]
async fn bug_names_lead_nowhere_while_the_node_that_they_must_not_lead_to_cannot_be_read() {
    let addresses = json!([{"type": "ExternalIP", "address": OUTSIDE.to_string()}]);
    let node = json!({"metadata": {"name": "node-1"}, "status": {"addresses": addresses}});
    let elsewhere = json!({"metadata": {"name": "node-1"}, "status": {"addresses": []}});
    for (node, is_expected, refused) in [
        (None, false, ""),
        (None, true, "Node was not read"),
        (Some(elsewhere), true, ""),
        (Some(node), true, "only addresses of this node"),
    ] {
        let mut objects = leading_to("good.example").to_vec();
        objects.extend(node.iter().map(|node| object(Kind::Node, node)));
        let mut asked = Asked::of(&objects, is_expected, |_| ready(Looked::Ok(vec![OUTSIDE])));
        asked.plan();
        asked.looked_up().await;
        let reasons = asked.reasons();
        for part in ["Node was not read", "only addresses of this node"] {
            let is_told = reasons.iter().any(|reason| reason.contains(part));
            assert_eq!(is_told, part == refused, "{node:?} {is_expected}: {reasons:?}");
        }
    }
}

#[tokio::test]
async fn a_plan_without_such_names_waits_for_nothing() {
    let mut asked = Asked::new(&[], |_| ready(Looked::Ok(vec![OUTSIDE])));
    asked.plan();
    assert!(asked.looked_up().await < FIRST_LOOKUPS_MAX);
}

#[tokio::test]
async fn a_name_that_nobody_answers_is_not_waited_for_longer_than_three_seconds() {
    let look_up = |name: Name| async move {
        if &*name == "dead.example" { pending().await } else { Looked::Ok(vec![OUTSIDE]) }
    };
    let objects = ["dead.example", "good.example"].map(leading_to);
    let mut asked = Asked::new(&objects.concat(), look_up);
    asked.plan();
    let waited = asked.looked_up().await;
    assert!(waited >= FIRST_LOOKUPS_MAX && waited < PATIENCE / 2, "{waited:?}");
    assert_eq!(asked.planner.lock().unwrap().unknown_names(), [Name::from("dead.example")]);
}

#[tokio::test]
async fn attack_names_that_nobody_answers_keep_no_other_from_being_looked_up() {
    let is_asked = Arc::new(Notify::new());
    let bell = is_asked.clone();
    let look_up = move |name: Name| {
        let bell = bell.clone();
        async move {
            if &*name != "good.example" {
                pending::<()>().await;
            }
            bell.notify_one();
            Looked::Ok(vec![OUTSIDE])
        }
    };
    // They are asked for before it: of those who wait as long the alphabet decides.
    let names = (1..NAMES).map(|i| format!("dead-{i}.example")).chain(["good.example".into()]);
    let objects: Vec<_> = names.flat_map(|name| leading_to(&name)).collect();
    let asked = Asked::new(&objects, look_up);
    asked.plan();
    timeout(PATIENCE, is_asked.notified()).await.unwrap();
    let unknown = || asked.planner.lock().unwrap().unknown_names().len();
    let learnt = async {
        while unknown() == NAMES {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, learnt).await.unwrap();
    assert_eq!(unknown(), NAMES - 1, "nobody answers the others");
}

#[test]
fn of_ten_thousand_names_that_nobody_answers_the_log_names_eight() {
    const TOLD: &str = ": not looked up within 3 s: their paths answer 503";
    for (count, named) in [
        (1, "a1.example"),
        (2, "a1.example, a2.example"),
        (
            10_000,
            "a1.example, a2.example, a3.example, a4.example, a5.example, a6.example, a7.example, \
             a8.example and 9992 more",
        ),
    ] {
        let unknown: Vec<Name> = (1..=count).map(|i| format!("a{i}.example").into()).collect();
        assert_eq!(unanswered(&unknown), format!("{named}{TOLD}"));
    }
}

/// It waited for the name's next turn, ten seconds later, and its path answered 503.
#[tokio::test]
async fn a_service_that_is_deleted_and_made_anew_has_its_address_at_once() {
    let look_up = |_| ready(Looked::Ok(vec![OUTSIDE]));
    let mut asked = Asked::new(&leading_to("a.example"), look_up);
    let planner = asked.planner.clone();
    let known = async || {
        while !planner.lock().unwrap().are_names_known() {
            tokio::task::yield_now().await;
        }
    };
    asked.plan();
    timeout(PATIENCE, known()).await.unwrap();
    let [service, _] = leading_to("a.example");
    // Both before anybody hears of one.
    for change in [Change::Delete(service.reference()), Change::Upsert(service)] {
        asked.store.apply([change]);
        let snapshot = asked.snapshots.borrow().clone().unwrap();
        planner.lock().unwrap().apply(&snapshot);
    }
    assert!(!planner.lock().unwrap().are_names_known());
    asked.plan();
    timeout(LOOK_AGAIN / 2, known()).await.unwrap();
}

/// In a pod with a network of its own the Node alone says which addresses are the node's.
#[tokio::test]
async fn attack_a_name_that_points_at_an_address_of_the_own_node_leads_nowhere() {
    const INSIDE: &str = "it has only addresses of this node";
    for (node, is_refused) in [("node-1", true), ("node-2", false)] {
        let addresses = json!([{"type": "InternalIP", "address": OUTSIDE.to_string()}]);
        let document = json!({"metadata": {"name": node}, "status": {"addresses": addresses}});
        let mut objects = leading_to("a.example").to_vec();
        objects.push(object(Kind::Node, &document));
        let mut asked = Asked::new(&objects, |_| ready(Looked::Ok(vec![OUTSIDE])));
        asked.plan();
        asked.looked_up().await;
        let reasons = asked.reasons();
        assert_eq!(reasons.iter().any(|r| r.contains(INSIDE)), is_refused, "{node}: {reasons:?}");
    }
}
