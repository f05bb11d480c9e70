//! `fairlead traffic`: what passed and what was not served, by reason, since the start.

pub(super) mod meaning;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    counted::counted,
    table::{Cell, Screen, Table, Tone},
};

/// Something that was not served, or not as it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct UnservedRow {
    /// `proxy`, `dns`, `ingress`.
    pub(crate) role: String,
    /// As in the metrics.
    pub(crate) reason: String,
    /// Since the start; of the proxy since its maps were made.
    pub(crate) count: u64,
    /// What it means, and what to do.
    pub(crate) meaning: String,
}

/// The report. What a role counts is `null` where it does not run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Traffic {
    /// Connections to Services that were given an endpoint.
    pub(crate) connections: Option<u64>,
    /// Connections to Services that were refused.
    pub(crate) rejected: Option<u64>,
    /// DNS replies by code, `NOERROR`.
    pub(crate) replies: Option<BTreeMap<String, u64>>,
    /// Questions that were sent to other servers.
    pub(crate) forwarded: Option<u64>,
    /// Ingress's answers by status code.
    pub(crate) responses: Option<BTreeMap<u16, u64>>,
    /// Clients' connections to Ingress, now.
    pub(crate) http_connections_open: Option<u64>,
    /// By role and reason; what never happened is left out.
    pub(crate) unserved: Vec<UnservedRow>,
}

impl Traffic {
    /// Adds what a role did not serve.
    pub(crate) fn add(&mut self, role: &str, reason: &str, count: u64) {
        if count > 0 {
            self.unserved.push(UnservedRow {
                role: role.to_owned(),
                reason: reason.to_owned(),
                count,
                meaning: meaning::of(role, reason).to_owned(),
            });
        }
    }
}

/// For people.
pub(crate) fn show(traffic: &Traffic, screen: Screen, _wide: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| {
        text.push_str(&format!("{}{value}\n", screen.paint(&format!("{name:<11}"), Tone::Dim)));
    };
    if let (Some(connections), Some(rejected)) = (traffic.connections, traffic.rejected) {
        line("services", format!("{}, {rejected} refused", counted(connections, "connection")));
    }
    if let Some(replies) = &traffic.replies {
        let forwarded = traffic.forwarded.unwrap_or_default();
        line("dns", format!("{}; {forwarded} asked elsewhere", by_code(replies, "replies")));
    }
    if let Some(responses) = &traffic.responses {
        let open = traffic.http_connections_open.unwrap_or_default();
        let open = counted(open, "client");
        line("ingress", format!("{}; {open} connected", by_code(responses, "answers")));
    }
    if traffic.unserved.is_empty() {
        return text + "everything was served\n";
    }
    let mut table = Table::new(&["ROLE", "NOT SERVED", "COUNT", "MEANING"]);
    for UnservedRow { role, reason, count, meaning } in &traffic.unserved {
        table.row([
            role.as_str().into(),
            Cell::of(reason.as_str(), Tone::Attention),
            count.to_string().into(),
            meaning.as_str().into(),
        ]);
    }
    // A meaning that is cut is none.
    format!("{text}\n{}", table.text(screen.uncut()))
}

fn by_code<K: std::fmt::Display>(counts: &BTreeMap<K, u64>, what: &str) -> String {
    let codes = counts.iter().map(|(code, count)| format!("{count} {code}"));
    let codes: Vec<String> = codes.collect();
    if codes.is_empty() { format!("no {what}") } else { codes.join(", ") }
}
