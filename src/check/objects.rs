//! Kubernetes objects, by the agent's own decoding and planning.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use fairlead_ingress::{ANNOTATIONS, Severity, Support, explain::Explainer};
use fairlead_proxy::{
    node::{api_servers, occupant},
    plan::{NodeView, Plans},
};
use fairlead_state::{Kind, ObjectRef, Snapshot};
use ipnetwork::IpNetwork;

use super::{Args, Checked, Verdict};

type Findings = BTreeMap<ObjectRef, Vec<(Verdict, String)>>;

/// One verdict a Service and Ingress, and one for whatever is refused.
pub(super) fn check(snapshot: &Snapshot, args: &Args) -> anyhow::Result<Vec<Checked>> {
    let mut findings = Findings::new();
    for (kind, key) in objects(snapshot) {
        findings.entry(ObjectRef { kind, key }).or_default();
    }
    for (object, refusal) in snapshot.refused() {
        let reason = format!("{} ({})", refusal.reason, refusal.origin);
        findings.entry(object.clone()).or_default().push((Verdict::Refused, reason));
    }
    services(snapshot, &mut findings);
    endpoint_slices(snapshot, &mut findings);
    service_ranges(snapshot, &mut findings);
    service_meshes(snapshot, &mut findings);
    ingresses(snapshot, args, &mut findings)?;
    let checked = findings.into_iter().map(|(object, all)| Checked::of(object.to_string(), all));
    Ok(checked.collect())
}

fn objects(snapshot: &Snapshot) -> Vec<(Kind, fairlead_state::Key)> {
    let services = snapshot.services().keys().map(|key| (Kind::Service, key.clone()));
    let ingresses = snapshot.ingresses().keys().map(|key| (Kind::Ingress, key.clone()));
    services.chain(ingresses).collect()
}

fn services(snapshot: &Snapshot, findings: &mut Findings) {
    for warning in Plans::of(snapshot, &NodeView::default()).warnings() {
        let object = ObjectRef { kind: Kind::Service, key: warning.service.clone() };
        let finding = (Verdict::Refused, warning.problem.to_string());
        findings.entry(object).or_default().push(finding);
    }
    for service in snapshot.services().values() {
        let object = ObjectRef { kind: Kind::Service, key: service.key.clone() };
        let all = findings.entry(object).or_default();
        if let Some(name) = &service.extras.proxy_name {
            let reason = format!(
                "label service.kubernetes.io/service-proxy-name is {name:?}: left to that proxy"
            );
            all.push((Verdict::Differs, reason));
        }
        if !service.extras.load_balancer_source_ranges.is_empty() {
            let reason = "source ranges apply to pods of the node where their packets leave it, to \
                          the node's own processes by the node's address";
            all.push((Verdict::Differs, reason.to_owned()));
        }
    }
}

/// What of them no agent can use.
fn endpoint_slices(snapshot: &Snapshot, findings: &mut Findings) {
    for slice in snapshot.endpoint_slices().values() {
        let Some(why) = &slice.left_out else { continue };
        let object = ObjectRef { kind: Kind::EndpointSlice, key: slice.key.clone() };
        let reason = format!("{why}: left out, the rest is served");
        findings.entry(object).or_default().push((Verdict::Refused, reason));
    }
}

/// One with nodes or pods in it is left out by the agents there, and one with the API server in it by all.
fn service_ranges(snapshot: &Snapshot, findings: &mut Findings) {
    let api_servers = api_servers(snapshot);
    for object in snapshot.service_cidrs().values() {
        for range in object.ranges.iter() {
            let Some(reason) = occupied(snapshot, *range, &api_servers) else { continue };
            let object = ObjectRef { kind: Kind::ServiceCidr, key: object.key.clone() };
            findings.entry(object).or_default().push((Verdict::Differs, reason));
        }
    }
}

/// Who has addresses in the range beside Services, and what becomes of these on which nodes.
fn occupied(
    snapshot: &Snapshot,
    range: IpNetwork,
    api_servers: &BTreeSet<IpAddr>,
) -> Option<String> {
    let (mut by_node, mut outside) = (None, None);
    for node in snapshot.nodes().values() {
        let own = node.addresses.iter().copied();
        match occupant(range, own, &node.pod_cidrs, &BTreeSet::new()) {
            Some(by) => by_node = by_node.or_else(|| Some(format!("{by} ({})", node.key.name))),
            None => outside = outside.or(Some(&node.key.name)),
        }
    }
    let by_api_server = occupant(range, [], &[], api_servers);
    let by = by_node.or_else(|| Some(by_api_server?.to_string()))?;
    let place = if by_api_server.is_some() { "on all nodes" } else { "there" };
    let elsewhere = outside.filter(|_| by_api_server.is_none()).map(|name| {
        format!(
            ", and on nodes outside of it ({name}) they are dropped, unless one of them is the API server's"
        )
    });
    Some(format!(
        "{range} holds {by}: {place} its addresses that no Service has are routed like any other, not dropped{}; \
         give Services a range of their own",
        elsewhere.unwrap_or_default()
    ))
}

/// By the Namespaces that meshes are installed in.
fn service_meshes(snapshot: &Snapshot, findings: &mut Findings) {
    for object in snapshot.namespaces().values() {
        if super::is_of_a_mesh(&object.key.name) {
            let object = ObjectRef { kind: Kind::Namespace, key: object.key.clone() };
            findings.entry(object).or_default().push((Verdict::Differs, super::MESH.to_owned()));
        }
    }
}

fn ingresses(snapshot: &Snapshot, args: &Args, findings: &mut Findings) -> anyhow::Result<()> {
    let explainer = Explainer::new(&args.classes.config(), snapshot)?;
    for finding in explainer.findings() {
        let verdict = match finding.severity {
            Severity::Refused => Verdict::Refused,
            Severity::Differs | Severity::Waiting => Verdict::Differs,
        };
        let reason = (verdict, finding.in_full());
        findings.entry(finding.object).or_default().push(reason);
    }
    for key in explainer.served() {
        let Some(ingress) = snapshot.ingresses().get(&key) else { continue };
        let all = findings.entry(ObjectRef { kind: Kind::Ingress, key }).or_default();
        for name in ingress.annotations.keys() {
            let short = name.strip_prefix("nginx.ingress.kubernetes.io/");
            let row = ANNOTATIONS.iter().find(|row| Some(row.name) == short);
            // What is not served the serving parser has said.
            let is_said = all.iter().any(|(_, reason)| reason.contains(&**name));
            if let Some(row) = row.filter(|row| row.support == Support::Differs && !is_said) {
                all.push((Verdict::Differs, format!("annotation {name}: {}", row.note)));
            }
        }
    }
    for foreign in explainer.foreign(snapshot) {
        let object = ObjectRef { kind: Kind::Ingress, key: foreign.ingress };
        findings.entry(object).or_default().push((Verdict::Refused, foreign.reason));
    }
    Ok(())
}
