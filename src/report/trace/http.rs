//! What Ingress does with a request that reaches it.

use std::net::SocketAddr;

use fairlead_ingress::explain::{CertificateChoice, Outcome, Request, Rule};
use fairlead_state::model::{Protocol, ServicePort};

use super::{Candidate, Target, Trace, target::Http};
use crate::{
    counted::counted,
    report::{endpoints, routes},
    view::View,
};

/// Whether an Ingress of ours, or of another class, has the host.
pub(super) fn is_host(view: &View<'_>, host: &str) -> bool {
    let Some(routes) = &view.routes else { return false };
    let wanted = host.to_ascii_lowercase();
    let suffix = wanted.split_once('.').map(|(_, suffix)| format!("*.{suffix}"));
    let fits =
        |pattern: &str| pattern == wanted || pattern == "*" || Some(pattern) == suffix.as_deref();
    routes.rows().iter().any(|row| fits(&row.host))
        || routes.foreign(&view.snapshot).iter().any(|f| f.hosts.iter().any(|host| fits(host)))
}

/// Whether Ingress of this agent answers at an address of the node.
pub(super) fn listens(view: &View<'_>, to: SocketAddr, target: &Target) -> bool {
    let is_tls = target.http.as_ref().is_some_and(|http| http.is_tls);
    let listeners = if is_tls { &view.https } else { &view.http };
    let fits = |at: &SocketAddr| {
        at.port() == to.port()
            && (at.ip() == to.ip() || (at.ip().is_unspecified() && view.is_node_address(to.ip())))
    };
    view.routes.is_some() && listeners.iter().any(fits)
}

/// Adds what Ingress does with the request.
pub(super) fn request(view: &View<'_>, target: &Target, mut trace: Trace) -> anyhow::Result<Trace> {
    let (Some(routes), Some(Http { is_tls, path })) = (&view.routes, &target.http) else {
        return Ok(trace);
    };
    let listeners = if *is_tls { &view.https } else { &view.http };
    let at: Vec<String> = listeners.iter().map(ToString::to_string).collect();
    let kind = if *is_tls { "HTTPS" } else { "HTTP" };
    trace.step(
        "listener",
        format!(
            "Ingress takes {kind} at {}, if {} leads to a node of it",
            at.join(", "),
            target.host
        ),
    );
    let request = Request { tls: *is_tls, host: &target.host, path };
    let found = routes.explain(request);
    if let Some(choice) = &found.certificate {
        trace.step("certificate", certificate(choice));
        if let Some(problem) = &choice.problem {
            trace.step("certificate", problem.clone());
        }
    }
    if let Some(rule) = &found.rule {
        describe(view, rule, &mut trace);
    }
    let wrong_certificate = found.certificate.as_ref().filter(|choice| choice.secret.is_none());
    let findings = routes::findings(view, routes);
    let about = |rule: &Rule| {
        let object = format!("Ingress {}", rule.ingress);
        findings.iter().filter(move |f| f.object == object).map(|f| f.reason.clone())
    };
    for reason in found.rule.iter().flat_map(about) {
        if trace.steps.iter().all(|step| step.lines.iter().all(|line| *line != reason)) {
            trace.step("notes", reason);
        }
    }
    match found.outcome {
        Outcome::Refused(reason) => trace.end("400", format!("400: {reason}"), None),
        Outcome::NoHost => {
            let foreign = routes.foreign(&view.snapshot);
            let foreign = foreign.iter().find(|f| f.hosts.contains(&target.host));
            let cure = match foreign {
                Some(foreign) => format!(
                    "Ingress {} has this host and is not served: {}",
                    foreign.ingress, foreign.reason
                ),
                None => {
                    format!("no Ingress has the host {}: `fairlead routes` lists all", target.host)
                }
            };
            trace.end("404", "404: nothing is served under this host", Some(cure));
        }
        Outcome::NoPath(paths) => {
            let cure = format!(
                "the host's paths are {}: add {path}, or a path / of type Prefix",
                paths.join(", ")
            );
            trace.end(
                "404",
                format!("404: the host is served, the path {path} is not"),
                Some(cure),
            );
        }
        Outcome::Redirected => {
            let https = format!("https://{}{path}", target.host);
            let cure =
                format!("trace {https}, or turn it off by annotation ssl-redirect: \"false\"");
            trace.end("308", format!("308: redirected to {https}"), Some(cure));
        }
        Outcome::Elsewhere(status, location) => {
            let text = format!("{status}: sent to {location}");
            trace.end("moved", text, Some("an annotation of the Ingress says so".to_owned()));
        }
        Outcome::Denied(reason) => {
            let text = "503: nobody is let in, as what guards the path cannot be read";
            trace.end("503", text, Some(reason));
        }
        Outcome::Unavailable(reason) => {
            let cure = found.rule.as_ref().and_then(|rule| why_unavailable(view, rule));
            trace.end("503", format!("503: {reason}"), cure.or(Some(reason)));
        }
        Outcome::Forwarded => match wrong_certificate {
            Some(choice) => {
                let cure = match &choice.problem {
                    Some(problem) => format!(
                        "{problem}: put the Secret right (kubectl create secret tls), or its name \
                         in spec.tls of the Ingress"
                    ),
                    None => format!(
                        "no TLS section of an Ingress names {}: add one with a Secret, or give the \
                         agent --default-certificate",
                        target.host
                    ),
                };
                let text = "clients that verify it refuse the self-signed certificate";
                trace.end("bad certificate", text, Some(cure));
            }
            None => trace.end("served", "forwarded to one of the endpoints in turn", None),
        },
    }
    Ok(trace)
}

fn certificate(choice: &CertificateChoice) -> String {
    let CertificateChoice { secret, claimed_by, .. } = choice;
    match (secret, claimed_by) {
        (Some(secret), Some(host)) => format!("of Secret {secret}, by the TLS section for {host}"),
        (Some(secret), None) => format!("the default one, of Secret {secret}"),
        (None, Some(host)) => format!("self-signed; the TLS section for {host} has none to show"),
        (None, None) => "self-signed: no TLS section has the host".to_owned(),
    }
}

fn describe(view: &View<'_>, rule: &Rule, trace: &mut Trace) {
    let path = if rule.path.is_empty() { "the default backend" } else { &rule.path };
    let kind = routes::path_type(rule.path_type);
    trace.step(
        "route",
        format!("host {}, path {path} ({kind}) of Ingress {}", rule.host, rule.ingress),
    );
    if !rule.annotations.is_empty() {
        trace.step("annotations", rule.annotations.join(", "));
    }
    let Some((service, port)) = &rule.service else { return };
    let count = rule.endpoints.len();
    let endpoints = counted(count, "endpoint");
    let spoken = rule.protocol;
    trace.step("upstream", format!("Service {service}, port {port}: {endpoints}, {spoken}"));
    let share = 1.0 / f64::from(u32::try_from(count).unwrap_or(u32::MAX).max(1));
    let rows = view.snapshot.services().get(service);
    let rows = rows.map(|service| endpoints::rows(&view.snapshot, service, None));
    let rows = rows.unwrap_or_default();
    let candidate = |address: &SocketAddr| {
        let address = address.to_string();
        let row = rows.iter().find(|row| row.address == address).cloned().unwrap_or_default();
        Candidate {
            address,
            probability: share,
            is_local: row.node.as_deref() == Some(&*view.node_name),
            pod: row.pod,
            node: row.node,
            zone: row.zone,
        }
    };
    trace.candidates = rule.endpoints.iter().map(candidate).collect();
}

fn why_unavailable(view: &View<'_>, rule: &Rule) -> Option<String> {
    let (key, wanted) = rule.service.as_ref()?;
    let ingress = &rule.ingress;
    let Some(service) = view.snapshot.services().get(key) else {
        return Some(format!(
            "create Service {key}, or correct the backend's service name in Ingress {ingress}"
        ));
    };
    let named = |port: &&ServicePort| {
        let is_wanted = *port.name == **wanted || port.port.to_string() == *wanted;
        is_wanted && port.protocol == Protocol::Tcp
    };
    Some(match service.ports.iter().find(named) {
        Some(port) => endpoints::why_none(&view.snapshot, service, port),
        // Which there are is told with what is missing.
        None => {
            format!("correct the backend's port in Ingress {ingress}, or add it to the Service")
        }
    })
}
