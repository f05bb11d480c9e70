//! The other pods of one's own DaemonSet or Deployment.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;

use super::{Address, Attempt, WriteError, Writer};
use crate::model::Key;

const READ: Attempt =
    Attempt { what: "reading the own pod", right: "list on pods of its namespace" };

/// Who serves the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Addresses of the nodes that ready pods run on, the own one's included.
    pub nodes: BTreeSet<Address>,
    /// Others that are not about to end.
    pub others: usize,
}

impl Writer {
    /// Looks around from the own pod.
    ///
    /// # Errors
    /// The own pod is not there, there is no right to it, or the API server does not answer.
    pub async fn peers(&self, own: &Key) -> Result<Peers, WriteError> {
        let api = self.namespaced::<Pod>(&own.namespace);
        let pods = READ.at(api.list(&ListParams::default())).await?.items;
        // Deleted by force, or never of this name: that says nothing about who else serves.
        peers(&pods, &own.name).ok_or_else(|| WriteError::NoPod { pod: own.clone() })
    }
}

/// `None`: the own pod is not among them.
fn peers(pods: &[Pod], own: &str) -> Option<Peers> {
    let named = |pod: &&Pod| pod.metadata.name.as_deref() == Some(own);
    let owner = pods.iter().find(named).map(owner)?;
    let family = pods.iter().filter(|pod| self::owner(pod) == owner);
    let mut peers = Peers::default();
    for pod in family {
        let is_ending = pod.metadata.deletion_timestamp.is_some();
        if !named(&pod) && (is_ending || owner.is_none()) {
            continue;
        }
        if !named(&pod) {
            peers.others += 1;
        }
        if is_ready(pod) && !is_ending {
            peers.nodes.extend(host_ips(pod));
        }
    }
    Some(peers)
}

/// The uid of what made it.
fn owner(pod: &Pod) -> Option<&str> {
    let owners = pod.metadata.owner_references.as_ref()?;
    owners.iter().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str())
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let mut conditions = conditions.into_iter().flatten();
    conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// `hostIPs` is there from Kubernetes 1.29 on (KEP-2681), `hostIP` always.
fn host_ips(pod: &Pod) -> impl Iterator<Item = Address> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.host_ips.as_deref()).unwrap_or_default();
    let first = status.and_then(|status| status.host_ip.as_deref());
    let first = first.filter(|_| all.is_empty());
    let ips = all.iter().map(|host| host.ip.as_str()).chain(first);
    ips.filter_map(|ip| ip.parse().ok()).map(Address::Ip)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, owner: &str, ready: bool, ending: bool) -> Pod {
        let ending = ending.then_some("2026-11-26T00:00:00Z");
        let ready = if ready { "True" } else { "False" };
        serde_json::from_value(json!({
            "metadata": {
                "name": name,
                "deletionTimestamp": ending,
                "ownerReferences": [{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": owner,
                                     "uid": owner, "controller": true}],
            },
            "status": {
                "conditions": [{"type": "Ready", "status": ready}],
                "hostIPs": [{"ip": format!("192.0.2.{}", name.len())}],
            },
        }))
        .expect("a pod")
    }

    #[test]
    fn only_ready_pods_of_the_same_set_count() {
        let pods = [
            pod("a", "ingress", true, false),
            pod("bb", "ingress", true, false),
            pod("ccc", "ingress", false, false),
            pod("dddd", "ingress", true, true),
            pod("eeeee", "node", true, false),
        ];
        let ip = |n: u8| Address::Ip([192, 0, 2, n].into());
        let expected = Peers { nodes: [ip(1), ip(2)].into(), others: 2 };
        assert_eq!(peers(&pods, "a"), Some(expected));
        let others = peers(&pods, "dddd").map(|peers| peers.others);
        assert_eq!(others, Some(3), "one that is ending sees those that stay");
        assert_eq!(peers(&pods, "nobody"), None, "nobody knows who serves");
    }

    #[test]
    fn bug_before_kubernetes_1_29_no_node_had_an_address() {
        for (status, expected) in [
            (json!({"hostIP": "192.0.2.1"}), vec!["192.0.2.1"]),
            (json!({"hostIP": "192.0.2.1", "hostIPs": []}), vec!["192.0.2.1"]),
            (
                json!({"hostIP": "192.0.2.1", "hostIPs": [{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}]}),
                vec!["192.0.2.1", "2001:db8::1"],
            ),
            (json!({"hostIP": ""}), vec![]),
            (json!({}), vec![]),
        ] {
            let pod = json!({"metadata": {"name": "a"}, "status": status});
            let pod: Pod = serde_json::from_value(pod).expect("a pod");
            let found: Vec<String> = host_ips(&pod).map(|ip| ip.to_string()).collect();
            assert_eq!(found, expected, "{status}");
        }
    }
}
