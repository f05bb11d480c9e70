//! Commands that ask: an agent over its admin socket, or manifests.

use std::{
    io::{self, Write as _},
    ops::ControlFlow,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use crate::{
    admin::{Admin, NOT_UNDERSTOOD, Until},
    exit::{self, WrongUsage},
    kube_proxy::duration::GoDuration,
    output::Output,
    report::{names, routes, services, status, trace, traffic},
    view::{Files, View},
};

/// Far enough away to add to any time.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// Flags of `fairlead status` and `fairlead traffic`.
#[derive(Debug, clap::Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
}

/// Whom to ask, and how to print.
#[derive(Debug, clap::Args)]
pub(crate) struct Ask {
    #[command(flatten)]
    admin: Admin,
    #[command(flatten)]
    output: Output,
    #[command(flatten)]
    files: Files,
}

/// Flags of `fairlead services`.
#[derive(Debug, clap::Args)]
pub(crate) struct ServicesArgs {
    /// This one, with its frontends and endpoints (NAME alone: in namespace default)
    #[arg(value_name = "NAMESPACE/NAME")]
    service: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Flags of `fairlead routes`.
#[derive(Debug, clap::Args)]
pub(crate) struct RoutesArgs {
    /// What is served under this host
    #[arg(value_name = "HOST")]
    host: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// Flags of `fairlead names`.
#[derive(Debug, clap::Args)]
pub(crate) struct NamesArgs {
    /// The answer to this name, as a pod asks for it
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Ask for records of this type: A, AAAA, SRV, PTR, ...
    #[arg(long = "type", value_name = "TYPE", default_value = "A", env = "FAIRLEAD_TYPE")]
    record: String,
    /// Search for the name as pods of this namespace do
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        default_value = "default",
        env = "FAIRLEAD_NAMESPACE"
    )]
    namespace: String,
    #[command(flatten)]
    ask: Ask,
}

/// Flags of `fairlead trace`.
#[derive(Debug, clap::Args)]
pub(crate) struct TraceArgs {
    /// tcp, udp or sctp and HOST:PORT, or an http:// or https:// URL
    #[arg(
        value_name = "tcp|udp|sctp HOST:PORT | URL",
        required_unless_present = "live",
        num_args = 1..=2
    )]
    target: Vec<String>,
    /// Follow real connections to Services as they are made: those of the client and to the target that
    /// are named, or all
    #[arg(long, conflicts_with = "file", env = "FAIRLEAD_LIVE")]
    live: bool,
    /// With --live: tell of one connection in so many
    #[arg(
        long,
        value_name = "N",
        default_value = "1",
        value_parser = clap::value_parser!(u32).range(1..),
        env = "FAIRLEAD_SAMPLE"
    )]
    sample: u32,
    /// With --live: end after so long
    #[arg(long = "for", value_name = "DURATION", default_value = "1h", env = "FAIRLEAD_FOR")]
    length: GoDuration,
    /// With --live: end when standard input does (`kubectl exec` lets go on what nobody reads)
    #[arg(long, hide = true)]
    while_input: bool,
    /// The client: NAMESPACE/POD, or an address (default: a process of this node; with --live, anybody)
    #[arg(long, value_name = "POD|IP", env = "FAIRLEAD_FROM")]
    from: Option<String>,
    /// Search for names as pods of this namespace do (default: the client's, else default)
    #[arg(short, long, value_name = "NAMESPACE", env = "FAIRLEAD_NAMESPACE")]
    namespace: Option<String>,
    #[command(flatten)]
    ask: Ask,
}

/// How an agent fares; 1 if it is not healthy.
pub(crate) fn status(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let report: status::Status = args.admin.ask("status", &[])?;
    args.output.print(&report, status::show)?;
    Ok(verdict(report.is_healthy))
}

/// What passed and what did not.
pub(crate) fn traffic(args: &StatusArgs) -> anyhow::Result<ExitCode> {
    let report: traffic::Traffic = args.admin.ask("traffic", &[])?;
    args.output.print(&report, traffic::show)
}

/// Services and what is behind them.
pub(crate) fn services(args: &ServicesArgs) -> anyhow::Result<ExitCode> {
    let only = args.service.as_deref();
    let Told { report, is_whole } =
        args.ask.about("services", &[("name", only)], |view| services::build(view, only))?;
    args.ask.output.print(&report, services::show)?;
    Ok(verdict(is_whole))
}

/// Hosts and paths; 1 if nothing is served under the one asked for.
pub(crate) fn routes(args: &RoutesArgs) -> anyhow::Result<ExitCode> {
    let host = args.host.as_deref();
    let Told { report, is_whole } =
        args.ask.about("routes", &[("host", host)], |view| routes::build(view, host))?;
    args.ask.output.print(&report, routes::show)?;
    let missing = host.filter(|_| report.routes.is_empty());
    if let Some(host) = missing {
        // Nowhere is left to report a failure of standard error to.
        drop(writeln!(
            io::stderr(),
            "fairlead: nothing is served under {host}: `fairlead trace http://{host}/` says why, \
             `fairlead routes` lists all"
        ));
    }
    Ok(verdict(is_whole && missing.is_none()))
}

/// Names; 1 if the one asked for does not exist.
pub(crate) fn names(args: &NamesArgs) -> anyhow::Result<ExitCode> {
    let NamesArgs { record, namespace, .. } = args;
    let name = args.name.as_deref();
    let query = [
        ("name", name),
        ("type", name.map(|_| record.as_str())),
        ("namespace", name.map(|_| namespace.as_str())),
    ];
    let Told { report, is_whole } = args.ask.about("names", &query, |view| {
        let Some(name) = name else { return names::all(view) };
        let source = std::net::Ipv4Addr::LOCALHOST.into();
        let lookup = names::lookup(view, name, record, namespace, source)?;
        Ok(names::of(view, lookup))
    })?;
    args.ask.output.print(&report, names::show)?;
    Ok(verdict(is_whole && report.lookup.is_none_or(|lookup| lookup.is_found)))
}

/// Every decision on the way; 1 if the client does not get what it asks for.
pub(crate) fn trace(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    if args.live {
        return follow(args);
    }
    let text = args.target.join(" ");
    // Misspelt targets are told before anybody is asked.
    let target = target(&text)?;
    let (client, namespace) = (args.from.as_deref(), args.namespace.as_deref());
    let query = [("target", Some(text.as_str())), ("from", client), ("namespace", namespace)];
    let Told { report, is_whole } = args.ask.about("trace", &query, |view| {
        trace::build(view, &target, trace::Asker { client, namespace })
    })?;
    args.ask.output.print(&report, trace::show)?;
    let is_served = report.outcome.is_served || report.outcome.verdict == "passed on";
    Ok(verdict(is_whole && is_served))
}

fn target(text: &str) -> Result<trace::Target, WrongUsage> {
    text.parse().map_err(|error: anyhow::Error| WrongUsage(exit::one_line(&error)))
}

/// Connections as they are made, until the agent or the reader ends, or the time is over.
fn follow(args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let text = (!args.target.is_empty()).then(|| args.target.join(" "));
    text.as_deref().map(target).transpose()?;
    let sample = args.sample.to_string();
    let query = [
        ("target", text.as_deref()),
        ("from", args.from.as_deref()),
        ("namespace", args.namespace.as_deref()),
        ("sample", Some(sample.as_str())),
    ];
    let until =
        Until { at: Instant::now() + args.length.0.min(LONGEST), input_ends: args.while_input };
    let mut is_first = true;
    args.ask.admin.follow("live", &given(&query), until, |line| {
        if line.is_empty() {
            if std::mem::take(&mut is_first) {
                // Nowhere is left to report a failure of standard error to.
                drop(writeln!(io::stderr(), "following new connections to Services; Ctrl-C ends"));
            }
            return Ok(ControlFlow::Continue(()));
        }
        let line: trace::live::Line = serde_json::from_str(line).context(NOT_UNDERSTOOD)?;
        match io::stdout().write_all(args.ask.output.line(&line, trace::live::show)?.as_bytes()) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            written => Ok(ControlFlow::Continue(written?)),
        }
    })?;
    if Instant::now() >= until.at {
        let length = args.length;
        // As above.
        drop(writeln!(io::stderr(), "{length} are over: --for follows for longer"));
    }
    Ok(ExitCode::SUCCESS)
}

fn given<'a>(query: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    query.iter().filter_map(|(name, value)| Some((*name, (*value)?))).collect()
}

fn verdict(is_good: bool) -> ExitCode {
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A report, and whether it was made of everything that was named.
struct Told<T> {
    report: T,
    is_whole: bool,
}

impl Ask {
    /// The report on a page of an agent, or made from files; what is wrong with these goes to
    /// standard error, and of a file that cannot be read the report knows nothing.
    fn about<T: serde::de::DeserializeOwned>(
        &self,
        page: &str,
        query: &[(&str, Option<&str>)],
        of_view: impl FnOnce(&View<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<Told<T>> {
        if !self.files.given() {
            let report = self.admin.ask(page, &given(query))?;
            return Ok(Told { report, is_whole: true });
        }
        let loaded = self.files.view()?;
        for problem in &loaded.problems {
            // Nowhere is left to report a failure of standard error to.
            drop(writeln!(io::stderr(), "fairlead: {problem}"));
        }
        Ok(Told { report: of_view(&loaded.view)?, is_whole: loaded.is_whole })
    }
}
