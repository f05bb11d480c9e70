//! `fairlead doctor`: what a node lacks, what it means, and the cure.

mod kernel;
mod limits;
mod neighbours;
mod network;

use std::{path::PathBuf, process::ExitCode};

use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};

use crate::{
    agent::{ProxyArgs, SocketPrograms},
    output::Output,
    table::{Cell, Screen, Table, Tone},
};

/// Flags of `fairlead doctor`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    told: Told,
    #[command(flatten)]
    output: Output,
}

/// What the node's agent is told.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Told {
    /// BPF file system
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf", env = "FAIRLEAD_BPFFS")]
    bpffs: PathBuf,
    /// Whether addresses of this node are in these ranges: the API server's --service-cluster-ip-range
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', env = "FAIRLEAD_SERVICE_CIDR")]
    service_cidr: Vec<IpNetwork>,
    /// Whose sockets the agent leads to endpoints as they connect
    #[arg(
        long,
        value_name = "WHOSE",
        value_enum,
        default_value = "all",
        env = "FAIRLEAD_SOCKET_PROGRAMS"
    )]
    socket_programs: SocketPrograms,
}

impl From<&ProxyArgs> for Told {
    fn from(args: &ProxyArgs) -> Self {
        let ProxyArgs { bpffs, service_cidr, socket_programs, .. } = args.clone();
        Self { bpffs, service_cidr, socket_programs }
    }
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Health {
    /// As it should be.
    Ok,
    /// Works, and may surprise.
    Warning,
    /// A role does not work.
    Bad,
    /// Could not be found out.
    Unknown,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// What was looked at.
    pub(crate) check: String,
    /// The roles that need it; empty: all.
    pub(crate) roles: Vec<String>,
    pub(crate) health: Health,
    /// What was found.
    pub(crate) found: String,
    /// What follows from it.
    pub(crate) meaning: Option<String>,
    pub(crate) cure: Option<String>,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) findings: Vec<Finding>,
}

impl Finding {
    fn ok(check: &str, found: impl Into<String>) -> Self {
        Self {
            check: check.to_owned(),
            roles: Vec::new(),
            health: Health::Ok,
            found: found.into(),
            meaning: None,
            cure: None,
        }
    }

    fn not(check: &str, health: Health, found: impl Into<String>) -> Self {
        Self { health, ..Self::ok(check, found) }
    }

    fn means(mut self, meaning: impl Into<String>, cure: impl Into<String>) -> Self {
        (self.meaning, self.cure) = (Some(meaning.into()), Some(cure.into()));
        self
    }

    fn of(mut self, role: &str) -> Self {
        self.roles.push(role.to_owned());
        self
    }
}

/// What may keep roles from starting, a line each: for the log of an agent that has just failed to.
pub(crate) fn advice(roles: &[&str], told: &Told) -> Vec<String> {
    let findings = findings(told);
    let is_trouble = |finding: &&Finding| {
        let mut of = finding.roles.iter();
        let is_theirs = finding.roles.is_empty() || of.any(|of| roles.contains(&of.as_str()));
        is_theirs && matches!(finding.health, Health::Bad | Health::Warning)
    };
    let line = |Finding { check, found, meaning, cure, .. }: &Finding| {
        let said = [meaning, cure].into_iter().flatten().map(String::as_str);
        format!("{check}: {found}: {}", said.collect::<Vec<_>>().join("; "))
    };
    findings.iter().filter(is_trouble).map(line).collect()
}

/// What this node is found to be like, by looks that take no time.
fn findings(told: &Told) -> Vec<Finding> {
    let mut findings = kernel::checks(&told.bpffs);
    findings.extend(limits::checks());
    findings.extend(neighbours::checks(told.socket_programs));
    findings.extend(network::ports());
    findings.push(network::devices());
    findings.extend(told.service_cidr.iter().map(|range| network::service_range(*range)));
    findings
}

/// Looks at everything, changes nothing; 1 if a role would not work.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let mut findings = findings(&args.told);
    // These may take seconds to answer, or not to.
    findings.extend(network::name_servers());
    let report = Report { findings };
    args.output.print(&report, show)?;
    let is_bad = report.findings.iter().any(|finding| finding.health == Health::Bad);
    Ok(if is_bad { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn show(report: &Report, screen: Screen, _wide: bool) -> String {
    let mut table = Table::new(&["CHECK", "RESULT", "FOUND", "FOR"]);
    for finding in &report.findings {
        let (word, tone) = word(finding.health);
        let roles = match finding.roles.as_slice() {
            [] => "all roles".to_owned(),
            roles => roles.join(", "),
        };
        table.row([
            finding.check.as_str().into(),
            Cell::of(word, tone),
            finding.found.as_str().into(),
            Cell::of(roles, Tone::Dim),
        ]);
    }
    let mut text = table.text(screen);
    let troubles = report.findings.iter().filter(|finding| finding.health != Health::Ok);
    for Finding { check, meaning, cure, health, found, .. } in troubles {
        let (word, tone) = word(*health);
        text.push_str(&format!("\n{} {check}: {found}\n", screen.paint(word, tone)));
        if let Some(meaning) = meaning {
            text.push_str(&format!("  means  {meaning}\n"));
        }
        if let Some(cure) = cure {
            text.push_str(&format!("  cure   {cure}\n"));
        }
    }
    text
}

fn word(health: Health) -> (&'static str, Tone) {
    match health {
        Health::Ok => ("ok", Tone::Good),
        Health::Warning => ("warning", Tone::Attention),
        Health::Bad => ("bad", Tone::Bad),
        Health::Unknown => ("unknown", Tone::Dim),
    }
}
