//! `fairlead status`: how an agent fares.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    counted::counted,
    table::{Cell, Screen, Table, Tone},
};

/// Warnings shown to people; JSON has all.
const WARNINGS_SHOWN_MAX: usize = 20;

/// One role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct RoleRow {
    pub(crate) name: String,
    /// `starting`, `ready`, `cannot start`, `failed`, `stopped`.
    pub(crate) state: String,
    pub(crate) why: Option<String>,
    /// What it serves, in words.
    pub(crate) serves: String,
}

/// One kind of object.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct KindRow {
    pub(crate) kind: String,
    pub(crate) objects: usize,
    /// The initial list is complete.
    pub(crate) is_synced: bool,
    /// Why it cannot be followed.
    pub(crate) error: Option<String>,
}

/// The snapshot in force.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SnapshotRow {
    pub(crate) revision: u64,
    /// Seconds since the newest change in it was received.
    pub(crate) changed_seconds_ago: Option<f64>,
    /// For so many seconds the source has been out of touch; `null`: it is followed.
    pub(crate) stale_seconds: Option<f64>,
}

/// The proxy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct ProxyRow {
    pub(crate) revision: u64,
    pub(crate) is_current: bool,
    pub(crate) services: usize,
    pub(crate) behind: usize,
    pub(crate) frontends: usize,
    pub(crate) frontends_max: usize,
    pub(crate) backends: usize,
    pub(crate) backends_max: usize,
    pub(crate) last_pass_ms: f64,
    pub(crate) last_error: Option<String>,
    /// Programs attached, with how often; `null`: this cannot be read.
    pub(crate) programs: Option<BTreeMap<String, usize>>,
    /// Packets and calls not served, by reason; zeroes left out.
    pub(crate) unserved: BTreeMap<String, u64>,
}

/// The least there is to say of an agent, for whoever asks every other second: the rest of the report
/// is asked of the kernel and of every object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Health {
    pub(crate) node: String,
    /// Every role is ready and the source is followed.
    pub(crate) is_healthy: bool,
    /// The agent has been told to end.
    pub(crate) is_ending: bool,
    /// `None` until every kind is complete.
    pub(crate) snapshot: Option<SnapshotRow>,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) node: String,
    /// Every role is ready and the source is followed.
    pub(crate) is_healthy: bool,
    /// The agent has been told to end.
    pub(crate) is_ending: bool,
    pub(crate) roles: Vec<RoleRow>,
    /// `null` until every kind is complete.
    pub(crate) snapshot: Option<SnapshotRow>,
    pub(crate) kinds: Vec<KindRow>,
    pub(crate) proxy: Option<ProxyRow>,
    pub(crate) warnings: Vec<String>,
}

/// For people.
pub(crate) fn show(status: &Status, screen: Screen, wide: bool) -> String {
    let verdict = match (status.is_ending, status.is_healthy) {
        (true, _) => screen.paint("ending", Tone::Attention),
        (_, true) => screen.paint("healthy", Tone::Good),
        _ => screen.paint("not healthy", Tone::Bad),
    };
    let mut text = format!("node {}, fairlead {}: {verdict}\n\n", status.node, status.version);
    let mut table = Table::new(&["ROLE", "STATE", "SERVES"]);
    for role in &status.roles {
        let tone = match role.state.as_str() {
            "ready" => Tone::Good,
            "starting" => Tone::Attention,
            _ => Tone::Bad,
        };
        let serves = role.why.as_deref().unwrap_or(&role.serves);
        table.row([role.name.as_str().into(), Cell::of(role.state.as_str(), tone), serves.into()]);
    }
    text.push_str(&table.text(screen));
    text.push('\n');
    text.push_str(&snapshot_line(status, screen));
    let counts = status.kinds.iter().map(|kind| format!("{} {}", kind.objects, kind.kind));
    text.push_str(&format!("objects    {}\n", counts.collect::<Vec<_>>().join(", ")));
    if let Some(proxy) = &status.proxy {
        text.push_str(&proxy_lines(proxy, wide));
    }
    for kind in status.kinds.iter().filter(|kind| kind.error.is_some()) {
        let line = format!("{}: {}", kind.kind, kind.error.as_deref().unwrap_or_default());
        text.push_str(&format!("{}\n", screen.paint(&line, Tone::Bad)));
    }
    let shown = if wide { usize::MAX } else { WARNINGS_SHOWN_MAX };
    if !status.warnings.is_empty() {
        text.push_str(&format!("\n{}\n", counted(status.warnings.len(), "warning")));
    }
    for warning in status.warnings.iter().take(shown) {
        text.push_str(&format!("  {}\n", screen.paint(warning, Tone::Attention)));
    }
    if let Some(more) = status.warnings.len().checked_sub(shown).filter(|more| *more > 0) {
        text.push_str(&format!("  and {more} more: -o wide\n"));
    }
    text
}

fn snapshot_line(status: &Status, screen: Screen) -> String {
    let Some(snapshot) = &status.snapshot else {
        let missing = status.kinds.iter().filter(|kind| !kind.is_synced);
        let missing: Vec<&str> = missing.map(|kind| kind.kind.as_str()).collect();
        let line = format!("none yet: waiting for {}", missing.join(", "));
        return format!("snapshot   {}\n", screen.paint(&line, Tone::Attention));
    };
    let changed = snapshot.changed_seconds_ago.map(|ago| format!(", changed {} ago", span(ago)));
    let changed = changed.unwrap_or_default();
    let state = match snapshot.stale_seconds {
        None => screen.paint("followed", Tone::Good),
        Some(stale) => screen.paint(&format!("out of touch for {}", span(stale)), Tone::Bad),
    };
    format!("snapshot   revision {}{changed}, {state}\n", snapshot.revision)
}

fn proxy_lines(proxy: &ProxyRow, wide: bool) -> String {
    let mut text = format!(
        "maps       {} of {} frontends, {} of {} backends, last pass {:.1} ms\n",
        proxy.frontends,
        proxy.frontends_max,
        proxy.backends,
        proxy.backends_max,
        proxy.last_pass_ms
    );
    match &proxy.programs {
        None => text.push_str("programs   cannot be read: no rights to the BPF file system\n"),
        Some(programs) => {
            let programs = programs.iter().map(|(name, count)| match count {
                1 => name.clone(),
                count => format!("{name} ({count} devices)"),
            });
            text.push_str(&format!("programs   {}\n", programs.collect::<Vec<_>>().join(", ")));
        }
    }
    if wide || !proxy.unserved.is_empty() {
        let unserved = proxy.unserved.iter().map(|(reason, count)| format!("{reason} {count}"));
        text.push_str(&format!("unserved   {}\n", unserved.collect::<Vec<_>>().join(", ")));
    }
    text
}

/// A span people read: `3 s`, `5 min`, `2 h`, `4 d`.
pub(crate) fn span(seconds: f64) -> String {
    match seconds {
        s if s < 120.0 => format!("{s:.0} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3600.0),
        s => format!("{:.0} d", s / 86_400.0),
    }
}
