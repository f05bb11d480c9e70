//! Which source, and which kinds the running roles need of it.

use std::collections::BTreeSet;

use fairlead_dns::corefile::{Corefile, Needs, PodsOf};
use fairlead_state::{
    Key, Kind, Name, ObjectRef, Running,
    source::{
        directory::{Directory, DirectoryOptions},
        kubernetes::{Kubernetes, KubernetesOptions},
    },
    write::Writer,
};
use tokio_util::sync::CancellationToken;

use super::args::Args;
use crate::exit::BadConfiguration;

/// Starts reading; what is read from an API server may be written to. Fails only for what no waiting cures: an unreachable API server is waited for.
pub(crate) async fn start(
    args: &Args,
    node_name: &Name,
    for_dns: Needs,
    cancel: CancellationToken,
) -> anyhow::Result<(Running, Option<Writer>)> {
    let kinds = kinds(args, for_dns);
    let always = always(args, node_name);
    let bad = |error| BadConfiguration(crate::exit::one_line(&anyhow::Error::new(error)));
    if let Some(path) = args.source.manifests.clone() {
        let node_name = (for_dns.pods != PodsOf::Cluster).then(|| node_name.clone());
        let labels = for_dns.labels;
        let options = DirectoryOptions { path, node_name, labels, always };
        let source = Directory::new(options).map_err(bad)?;
        return Ok((fairlead_state::start(source, kinds, cancel), None));
    }
    let state_dir = args.source.state_dir.clone();
    let options = KubernetesOptions {
        kubeconfig: args.source.kubeconfig.clone(),
        api_servers: args.source.api_server.clone(),
        state_dir: state_dir.clone(),
        node_name: node_name.clone(),
        all_pods: for_dns.pods == PodsOf::Cluster,
        labels: for_dns.labels,
        always,
    };
    let source = Kubernetes::new(options).await.map_err(bad)?;
    tracing::info!(server = %source.server(), "reading the API server");
    let (addresses, writer) = (source.addresses(), source.writer());
    let running = fairlead_state::start(source, kinds, cancel);
    tokio::spawn(addresses.follow(running.snapshots.clone(), state_dir));
    Ok((running, Some(writer)))
}

/// Whether the API server is the one of the pod this runs in.
pub(crate) fn is_in_cluster(args: &Args) -> bool {
    args.source.kubeconfig.is_none() && args.source.manifests.is_none()
}

/// What DNS wants to be read: by the Corefile as it is at the start. What is wrong with it is said where
/// it is served.
pub(crate) fn for_dns(args: &Args) -> Needs {
    let corefile = args.dns.corefile.as_deref().filter(|_| args.roles.dns());
    let corefile = corefile.and_then(|path| Corefile::read(path).ok());
    corefile.map_or_else(Needs::default, |corefile| corefile.needs())
}

/// What is read by name though no Ingress says so.
fn always(args: &Args, node_name: &Name) -> BTreeSet<ObjectRef> {
    let node = ObjectRef { kind: Kind::Node, key: Key::new("", node_name.clone()) };
    let mut always: BTreeSet<ObjectRef> =
        is_node_needed(args).then_some(node).into_iter().collect();
    if args.roles.ingress() {
        let certificate = args.ingress.default_certificate.as_ref();
        let certificate =
            certificate.map(|secret| ObjectRef { kind: Kind::Secret, key: secret.0.clone() });
        always.extend(args.ingress.classes.named().chain(certificate));
    }
    always
}

/// The own one and no other, as kube-proxy's node manager asks for: every Node is written every few minutes,
/// and what all of them are told of all of them grows with the square.
fn is_node_needed(args: &Args) -> bool {
    // No name outside may lead to its addresses.
    args.roles.proxy() || (args.roles.ingress() && args.ingress.classes.leads_outside())
}

fn kinds(args: &Args, for_dns: Needs) -> BTreeSet<Kind> {
    let roles = args.roles;
    let mut kinds = BTreeSet::from([Kind::Service, Kind::EndpointSlice]);
    if roles.proxy() {
        kinds.insert(Kind::ServiceCidr);
    }
    if roles.dns() {
        kinds.insert(Kind::Namespace);
    }
    if for_dns.pods != PodsOf::Nobody {
        kinds.insert(Kind::Pod);
    }
    if for_dns.imports {
        kinds.insert(Kind::ServiceImport);
    }
    if roles.ingress() {
        kinds.extend(fairlead_ingress::KINDS);
    }
    if is_node_needed(args) {
        kinds.insert(Kind::Node);
    }
    kinds
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    fn args(flags: &str) -> Args {
        let given = ["agent"].into_iter().chain(flags.split_whitespace());
        Flags::try_parse_from(given).unwrap().args
    }

    #[test]
    fn of_a_role_alone_nothing_is_read_that_it_does_not_need() {
        let endpoints = [Kind::Service, Kind::EndpointSlice];
        let both = |more: &[Kind]| endpoints.iter().chain(more).copied().collect::<BTreeSet<_>>();
        for (flags, expected) in [
            ("--no-dns --no-ingress", both(&[Kind::Node, Kind::ServiceCidr])),
            ("--no-proxy --no-ingress", both(&[Kind::Namespace])),
            ("--no-proxy --no-dns", BTreeSet::from(fairlead_ingress::KINDS)),
        ] {
            assert_eq!(kinds(&args(flags), Needs::default()), expected, "{flags:?}");
        }
    }

    #[test]
    fn bug_of_nodes_the_own_one_is_read_by_the_proxy_and_where_names_lead_outside_and_no_other() {
        for (flags, is_read) in [
            ("", true),
            ("--no-dns --no-ingress", true),
            ("--external-names api.example", true),
            ("--no-proxy", false),
            ("--no-proxy --external-names api.example", true),
            ("--no-proxy --no-ingress --external-names api.example", false),
        ] {
            let args = args(flags);
            assert_eq!(kinds(&args, Needs::default()).contains(&Kind::Node), is_read, "{flags:?}");
            // Of a kind of which one is named no others are read.
            let node = ObjectRef { kind: Kind::Node, key: Key::new("", "n1") };
            assert_eq!(always(&args, &"n1".into()).contains(&node), is_read, "{flags:?}");
        }
    }
}
