//! `fairlead trace`: every decision on the way of one connection or request.

mod http;
mod l4;
pub(crate) mod live;
mod target;
mod text;

use serde::{Deserialize, Serialize};

pub(crate) use self::{l4::word, target::Target, text::show};
use super::names;
use crate::view::View;

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// `client`, `dns`, `frontend`, `policy`, `endpoints`, `listener`, `certificate`, `route`,
    /// `annotations`, `upstream`.
    pub(crate) part: String,
    /// One line each.
    pub(crate) lines: Vec<String>,
}

/// Where a connection may go.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Candidate {
    pub(crate) address: String,
    /// Between 0 and 1.
    pub(crate) probability: f64,
    /// On this node.
    pub(crate) is_local: bool,
    pub(crate) pod: Option<String>,
    pub(crate) node: Option<String>,
    pub(crate) zone: Option<String>,
}

/// What becomes of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// `served`, `passed on`, `reject`, `drop`, `no name`, `400`, `404`, `308`, `503`.
    pub(crate) verdict: String,
    /// What the client sees.
    pub(crate) text: String,
    /// Why, and what to do.
    pub(crate) cure: Option<String>,
    /// Whether the client gets what it asked for.
    pub(crate) is_served: bool,
}

/// The report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Trace {
    pub(crate) from: String,
    pub(crate) target: String,
    /// `kernel maps`, or what was planned instead.
    pub(crate) source: String,
    pub(crate) steps: Vec<Step>,
    pub(crate) candidates: Vec<Candidate>,
    pub(crate) outcome: Outcome,
}

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Asker<'a> {
    /// `NAMESPACE/POD`, `POD`, an address, or nothing: a process of the node.
    pub(crate) client: Option<&'a str>,
    /// Names are searched for as pods of this namespace do.
    pub(crate) namespace: Option<&'a str>,
}

impl Trace {
    fn step(&mut self, part: &str, line: impl Into<String>) {
        let line = line.into();
        match self.steps.last_mut().filter(|step| step.part == part) {
            Some(step) => step.lines.push(line),
            None => self.steps.push(Step { part: part.to_owned(), lines: vec![line] }),
        }
    }

    fn end(&mut self, verdict: &str, text: impl Into<String>, cure: impl Into<Option<String>>) {
        let is_served = verdict == "served" || verdict == "308";
        let (verdict, text, cure) = (verdict.to_owned(), text.into(), cure.into());
        self.outcome = Outcome { verdict, text, cure, is_served };
    }
}

/// Traces one connection, or one request.
///
/// # Errors
/// The target or the client cannot be understood, or the maps not be read.
pub(crate) fn build(view: &View<'_>, target: &Target, from: Asker<'_>) -> anyhow::Result<Trace> {
    let client = l4::client(view, from.client)?;
    let mut trace = Trace {
        from: client.text.clone(),
        target: target.to_string(),
        source: view.source().to_owned(),
        ..Trace::default()
    };
    trace.step("client", client.text.clone());
    let namespace = from.namespace.or(client.namespace.as_deref()).unwrap_or("default");
    let addresses = match target.host.parse() {
        Ok(address) => vec![address],
        Err(_) => {
            let source = client.address.unwrap_or(std::net::Ipv4Addr::LOCALHOST.into());
            let lookup = lookup(view, &target.host, namespace, source)?;
            trace.step("dns", lookup.result.clone());
            let walked = lookup.asked.len();
            let searched =
                if walked > 1 { format!(", in {walked} questions") } else { String::new() };
            trace.step("dns", format!("asked as a pod of namespace {namespace} does{searched}"));
            if !lookup.why.is_empty() {
                trace.step("dns", lookup.why.clone());
            }
            if let Some(caveat) = names::caveat(view) {
                trace.step("dns", caveat);
            }
            if lookup.is_forwarded && target.http.is_some() && http::is_host(view, &target.host) {
                return http::request(view, target, trace);
            }
            if lookup.addresses.is_empty() {
                no_address(&mut trace, target, &lookup);
                return Ok(trace);
            }
            lookup.addresses
        }
    };
    let Some(address) = addresses.first() else { anyhow::bail!("{target} has no address") };
    let to = std::net::SocketAddr::new(*address, target.port);
    l4::connection(view, &client, target, to, &mut trace)?;
    let meets_ingress = trace.outcome.verdict == "passed on"
        && target.http.is_some()
        && http::listens(view, to, target);
    if meets_ingress {
        return http::request(view, target, trace);
    }
    Ok(trace)
}

/// A name's IPv4 addresses, or those of IPv6 if it has no others.
fn lookup(
    view: &View<'_>,
    host: &str,
    namespace: &str,
    source: std::net::IpAddr,
) -> anyhow::Result<names::Lookup> {
    let v4 = names::lookup(view, host, "A", namespace, source)?;
    if v4.addresses.is_empty() && v4.is_found && !v4.is_forwarded {
        let v6 = names::lookup(view, host, "AAAA", namespace, source)?;
        if !v6.addresses.is_empty() {
            return Ok(v6);
        }
    }
    Ok(v4)
}

fn no_address(trace: &mut Trace, target: &Target, lookup: &names::Lookup) {
    let host = &target.host;
    if let Some(alias) = &lookup.alias_of {
        let text = format!("{host} is an alias of {alias}: where that leads is not known here");
        return trace.end("passed on", text, Some(lookup.why.clone()));
    }
    if lookup.is_forwarded {
        let text = format!("{host} is no name of the cluster: where it leads is not known here");
        let cure = target.http.is_some().then(|| {
            format!(
                "if {host} is meant to reach Ingress, no Ingress has it as a host: see `fairlead \
                 routes {host}`; if its address is known, trace that"
            )
        });
        return trace.end("passed on", text, cure.or_else(|| Some(lookup.why.clone())));
    }
    let text = match lookup.is_found {
        true => format!("{host} has no address a connection could be made to"),
        false => format!("{host} has no address: the client says \"unknown host\" or the like"),
    };
    trace.end("no name", text, Some(lookup.why.clone()));
}
