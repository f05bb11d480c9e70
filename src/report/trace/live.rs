//! `fairlead trace --live`: what becomes of connections to Services while it happens.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use fairlead_proxy::{
    explain::{self, Verdict, Why},
    live,
};
use fairlead_state::in_one_line;
use serde::{Deserialize, Serialize};

use super::{Asker, Target, l4};
use crate::{
    report::traffic::meaning,
    table::{Screen, Tone},
    view::View,
};

/// One line of the stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub(crate) enum Line {
    /// So many decisions were not told: they came faster than they were read.
    Lost { lost: u64 },
    /// A decision.
    Event(Box<Event>),
}

/// A new connection, or a flow's first datagram, and what became of it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// RFC 3339, UTC.
    pub(crate) time: String,
    /// `socket`: a call of a process here; `pod`, `uplink`: a packet from there; `egress`: one on
    /// its way out.
    pub(crate) at: String,
    /// Address, with the port where a packet has one.
    pub(crate) client: Option<String>,
    /// `NAMESPACE/POD`, or the node.
    pub(crate) client_name: Option<String>,
    /// The process that called, and the name of its thread.
    pub(crate) pid: Option<u32>,
    pub(crate) process: Option<String>,
    /// `tcp`, `udp`, `sctp`; `null`: not known.
    pub(crate) protocol: Option<String>,
    /// What was dialled.
    pub(crate) frontend: String,
    /// `NAMESPACE/NAME`; `null`: no Service's.
    pub(crate) service: Option<String>,
    /// `served`, `reject`, `drop`, as `trace` has them.
    pub(crate) verdict: String,
    pub(crate) backend: Option<String>,
    pub(crate) pod: Option<String>,
    /// As in the metrics.
    pub(crate) reason: Option<String>,
    /// The reason in words.
    pub(crate) why: Option<String>,
}

/// What is followed, as far as the objects tell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followed {
    pub(crate) target: Option<live::Target>,
    pub(crate) client: Option<Followee>,
}

/// Who is followed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Followee {
    pub(crate) address: IpAddr,
    /// This node, or a pod of it.
    pub(crate) is_here: bool,
}

/// Reads what is asked for.
///
/// # Errors
/// The target is not known or no Service's, the client is not known, or the maps cannot be read.
pub(crate) fn followed(
    view: &View<'_>,
    target: Option<&Target>,
    from: Asker<'_>,
) -> anyhow::Result<Followed> {
    let client = from.client.map(|name| l4::client(view, Some(name))).transpose()?;
    let of_client = client.as_ref().and_then(|client| client.namespace.as_deref());
    let namespace = from.namespace.or(of_client).unwrap_or("default");
    let target = target.map(|target| destination(view, target, namespace)).transpose()?;
    let client = client.and_then(|client| {
        let is_here = !matches!(client.is, explain::Client::Outside(_));
        Some(Followee { address: client.address?, is_here })
    });
    Ok(Followed { target, client })
}

fn destination(view: &View<'_>, target: &Target, namespace: &str) -> anyhow::Result<live::Target> {
    let Target { protocol, host, port, .. } = target;
    let address = match host.parse() {
        Ok(address) => address,
        Err(_) => {
            let lookup = super::lookup(view, host, namespace, Ipv4Addr::LOCALHOST.into())?;
            let Some(address) = lookup.addresses.first().copied() else {
                anyhow::bail!("{host} has no address whose connections could be followed")
            };
            address
        }
    };
    let to = SocketAddr::new(address, *port);
    let decision = view.decide(explain::Client::Node, *protocol, to)?;
    anyhow::ensure!(
        decision.verdict != Verdict::Pass,
        "{to} is no address of a Service: what becomes of connections to it is not decided here"
    );
    // A port the Service does not have is followed by itself.
    let frontend = decision.frontend.filter(|frontend| frontend.service_port != 0);
    let service = frontend.map(|frontend| (frontend.counter_id, frontend.service_port));
    Ok(live::Target { to, protocol: *protocol, service })
}

/// Why a connection was not served, in words.
pub(crate) fn why(reason: &str) -> &'static str {
    match reason {
        "no_backends" => l4::word(Why::NoEndpoints),
        "no_local_backends" => l4::word(Why::NoLocalEndpoints),
        "unused_port" => l4::word(Why::UnusedPort),
        "unallocated_address" => l4::word(Why::Unallocated),
        "source_denied" => l4::word(Why::SourceDenied),
        other => {
            let meaning = meaning::of("proxy", other);
            meaning.split_once(": ").map_or(meaning, |(_, meaning)| meaning)
        }
    }
}

/// One line, for people.
pub(crate) fn show(line: &Line, screen: Screen, is_wide: bool) -> String {
    let event = match line {
        Line::Lost { lost } => {
            let text = format!("{lost} more came faster than they could be told\n");
            return screen.paint(&text, Tone::Attention);
        }
        Line::Event(event) => event,
    };
    // hh:mm:ss.mmm of the day: who follows knows the date.
    let time = event.time.get(11..23).unwrap_or(&event.time);
    let named = |at: &Option<String>, name: &Option<String>| match (at, name) {
        (Some(at), Some(name)) => format!("{name} ({at})"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => "a process".to_owned(),
    };
    let mut client = named(&event.client, &event.client_name);
    if let (Some(pid), Some(process)) = (event.pid, &event.process) {
        // Threads name themselves.
        client = format!("{client} {}[{pid}]", in_one_line(process));
    }
    let frontend = named(&Some(event.frontend.clone()), &event.service);
    let protocol = event.protocol.as_deref().unwrap_or("ip");
    let outcome = match event.verdict.as_str() {
        "served" => screen.paint(&named(&event.backend, &event.pod), Tone::Good),
        verdict => {
            let seen = if verdict == "reject" { "refused" } else { "dropped" };
            let why = event.why.as_deref().unwrap_or_default();
            screen.paint(&format!("{seen}: {why}"), Tone::Bad)
        }
    };
    let at = if is_wide { format!(" [{}]", event.at) } else { String::new() };
    let time = screen.paint(time, Tone::Dim);
    format!("{time} {client} -> {protocol} {frontend} -> {outcome}{at}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        Event {
            time: "2026-01-31T12:00:00.125Z".into(),
            at: "socket".into(),
            client: Some("10.244.1.7".into()),
            client_name: Some("shop/cart".into()),
            pid: Some(42),
            process: Some("curl".into()),
            protocol: Some("tcp".into()),
            frontend: "10.96.0.9:80".into(),
            service: Some("shop/web".into()),
            verdict: "served".into(),
            backend: Some("10.244.1.5:8080".into()),
            pod: Some("shop/web-a".into()),
            ..Event::default()
        }
    }

    #[test]
    fn a_line_says_who_dialled_what_and_where_it_led_or_why_nowhere() {
        let refused = Event {
            verdict: "reject".into(),
            backend: None,
            pod: None,
            why: Some(why("no_backends").into()),
            ..event()
        };
        let forged = Event {
            client: None,
            client_name: None,
            process: Some("a\n\u{1b}[2J".into()),
            ..event()
        };
        let leak = Event {
            client: Some("203.0.113.9".into()),
            client_name: None,
            pid: None,
            protocol: None,
            frontend: "10.96.0.9".into(),
            service: None,
            verdict: "drop".into(),
            why: Some(why("service_address_leak").into()),
            ..event()
        };
        for (event, expected) in [
            (
                event(),
                "12:00:00.125 shop/cart (10.244.1.7) curl[42] -> tcp shop/web (10.96.0.9:80) -> \
                 shop/web-a (10.244.1.5:8080)\n",
            ),
            (
                refused,
                "12:00:00.125 shop/cart (10.244.1.7) curl[42] -> tcp shop/web (10.96.0.9:80) -> \
                 refused: the Service has no endpoints for this port\n",
            ),
            (
                forged,
                "12:00:00.125 a process a\\n\\u{1b}[2J[42] -> tcp shop/web (10.96.0.9:80) -> \
                 shop/web-a (10.244.1.5:8080)\n",
            ),
            (
                leak,
                "12:00:00.125 203.0.113.9 -> ip 10.96.0.9 -> dropped: a packet to a Service address \
                 was about to leave the node\n",
            ),
        ] {
            let line = Line::Event(Box::new(event));
            assert_eq!(show(&line, Screen::plain(), false), expected);
            let json = serde_json::to_string(&line).unwrap();
            assert_eq!(serde_json::from_str::<Line>(&json).unwrap(), line, "{json}");
        }
        let lost = Line::Lost { lost: 7 };
        assert!(show(&lost, Screen::plain(), false).starts_with("7 more"));
        assert_eq!(serde_json::to_string(&lost).unwrap(), "{\"lost\":7}");
    }
}
