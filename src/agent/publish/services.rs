//! Events about Services that are not served as they ask, and about the node itself, as kube-proxy
//! writes them. Every node speaks for itself; what all of them have to say of a Service is one Event,
//! since its name is made from its content.

use std::{
    collections::BTreeSet,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use fairlead_proxy::{ProxyStatus, sync::Full};
use fairlead_state::{
    Key, Kind, ObjectRef,
    write::{Weight, Writer},
};

use super::{
    SETTLE,
    events::{Events, Speaker, Word},
    identity,
};
use crate::{
    agent::{Shared, health_ports::Untaken},
    version,
};

/// Nodes of a cluster see the same Service at the same time, and need not say so together.
const SPREAD_MS: u64 = 10_000;
/// What failed is tried again, and what the API server has forgotten is said again.
const TURN: Duration = Duration::from_secs(60);

/// Says what is to be said until the agent ends.
pub(crate) async fn run(shared: Shared, writer: Writer) {
    let cancel = shared.cancel.clone();
    cancel.run_until_cancelled(follow(&shared, writer)).await;
}

async fn follow(shared: &Shared, writer: Writer) {
    let args = shared.args();
    let instance: Arc<str> = identity(&args, &shared.node_name).into();
    let speaker = Speaker { controller: "fairlead.io/proxy", action: "Serve", instance };
    let mut events = Events::new(writer, speaker);
    let mut starting = Some(starting(&shared.node_name));
    let pause = Duration::from_millis(RandomState::new().hash_one(()) % SPREAD_MS);
    loop {
        tokio::time::sleep(SETTLE + pause).await;
        // A role that is started anew shows another.
        let Some(proxy) = shared.live.proxy.load_full() else { continue };
        let mut status = proxy.status.clone();
        let untaken = shared.live.untaken.load_full();
        let (mut words, serves) = {
            let status = status.borrow_and_update();
            (words(&status, &untaken, &shared.node_name), status.revision > 0)
        };
        words.extend(starting.clone().filter(|_| serves));
        events.bring(words).await;
        // It begins once, and is no news an hour later.
        starting = starting.filter(|word| !events.is_said(word));
        // Ended: its successor is looked for.
        let _ = tokio::time::timeout(TURN, status.changed()).await;
    }
}

fn words(status: &ProxyStatus, untaken: &Untaken, node_name: &str) -> BTreeSet<Word> {
    let services = status.warnings.first.iter().map(|warning| Word {
        object: ObjectRef { kind: Kind::Service, key: warning.service.clone() },
        weight: Weight::Warning,
        reason: warning.problem.reason(),
        note: warning.problem.to_string().into(),
    });
    let health = untaken.iter().map(|(service, why)| Word {
        object: ObjectRef { kind: Kind::Service, key: service.clone() },
        weight: Weight::Warning,
        reason: "FailedToStartServiceHealthcheck",
        note: format!("node {node_name}: {why}").into(),
    });
    let node = ObjectRef { kind: Kind::Node, key: Key::new("", node_name) };
    // How many Services it meets is left out: each number would be an Event of its own.
    let full = status.full.iter().map(|Full { map, capacity, .. }| Word {
        object: node.clone(),
        weight: Weight::Warning,
        reason: "ServiceMapFull",
        note: format!("{map} holds {capacity} entries and is full: raise --{map}-max").into(),
    });
    services.chain(health).chain(full).collect()
}

/// That the node begins to serve, as kube-proxy says it.
fn starting(node_name: &str) -> Word {
    Word {
        object: ObjectRef { kind: Kind::Node, key: Key::new("", node_name) },
        weight: Weight::Normal,
        reason: "Starting",
        note: format!("fairlead {} serves this node's Services", version::VERSION).into(),
    }
}

#[cfg(test)]
mod tests {
    use fairlead_proxy::{
        plan::{Problem, Warning},
        sync::Warnings,
    };

    use super::*;

    #[test]
    fn services_are_spoken_of_as_long_as_there_is_something_to_say() {
        let none = Untaken::new();
        assert!(words(&ProxyStatus::default(), &none, "node1").is_empty(), "nothing is known yet");
        let warning = Warning { service: Key::new("shop", "web"), problem: Problem::ExternalIps };
        let warnings = Warnings { first: vec![warning], total: 1 };
        let status = ProxyStatus { revision: 1, warnings, ..ProxyStatus::default() };
        let all = words(&status, &none, "node1");
        let said: Vec<_> = all.iter().map(|w| (w.object.to_string(), w.weight, w.reason)).collect();
        // That it has started is none of these: it was said each hour.
        assert_eq!(said, [("Service shop/web".to_owned(), Weight::Warning, "ExternalIPs")]);
        let word = starting("node1");
        assert_eq!((word.object.to_string(), word.reason), ("Node node1".to_owned(), "Starting"));
    }

    #[test]
    fn a_health_port_that_somebody_else_has_is_told_in_kube_proxys_words() {
        let why = "healthCheckNodePort 31000 cannot be listened on: in use".to_owned();
        let untaken = Untaken::from([(Key::new("shop", "web"), why)]);
        let all = words(&ProxyStatus::default(), &untaken, "node1");
        let said: Vec<_> = all.iter().map(|w| (w.object.to_string(), w.weight, w.reason)).collect();
        let expected =
            ("Service shop/web".to_owned(), Weight::Warning, "FailedToStartServiceHealthcheck");
        assert_eq!(said, [expected]);
        assert!(
            all.iter().all(|word| word.note.starts_with("node node1: healthCheckNodePort 31000"))
        );
    }
}
