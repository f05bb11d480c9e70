//! `fairlead check`: will these objects and configurations work here, and what would differ?

mod cluster;
mod corefile;
mod kube_proxy;
mod objects;
mod strict;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use fairlead_state::source::directory;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

pub(crate) use self::strict::Otherwise;
use crate::{
    classes::ClassArgs,
    kube_proxy::config,
    output::Output,
    table::{Cell, Screen, Table, Tone},
};

/// Larger files are no manifests.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// What a mesh's sidecars and node proxies would miss.
const MESH: &str = "a service mesh: by default a pod's socket is led to an endpoint before the mesh sees the \
                    Service's address; run with --socket-programs node (the chart's proxy.socketPrograms)";
/// Whose objects are a data plane's, and not served yet.
const GATEWAY_API: &str = "(gateway.networking.k8s.io/";

/// Flags of `fairlead check`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Manifests, Corefiles and kube-proxy's configurations; directories are searched for them
    #[arg(
        short,
        long = "filename",
        value_name = "FILE",
        required_unless_present = "kubeconfig",
        num_args = 1..,
        env = "FAIRLEAD_FILENAME",
        value_delimiter = ','
    )]
    file: Vec<PathBuf>,
    /// Check what the cluster of this kubeconfig has, instead of files; nothing is written there
    #[arg(long, value_name = "FILE", env = "FAIRLEAD_KUBECONFIG", conflicts_with = "file")]
    kubeconfig: Option<PathBuf>,
    #[command(flatten)]
    classes: ClassArgs,
    #[command(flatten)]
    output: Output,
}

/// How something fares here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Verdict {
    /// As where it comes from.
    Works,
    /// It is served, with a difference.
    Differs,
    /// It, or a part of it, is not.
    Refused,
}

/// One object, or one part of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Checked {
    /// `Service shop/web`, `Corefile FILE`, `KubeProxyConfiguration mode`.
    pub(crate) object: String,
    pub(crate) verdict: Verdict,
    /// How it differs, or why it is refused, and what to do instead.
    pub(crate) reasons: Vec<String>,
}

/// The report.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) checked: Vec<Checked>,
    /// Requests that `--matching strict` would answer otherwise.
    #[serde(default)]
    pub(crate) strict: Vec<Otherwise>,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Verdict::Works => "works",
            Verdict::Differs => "differs",
            Verdict::Refused => "refused",
        }
    }
}

impl Checked {
    /// The worst of what is said of it.
    pub(super) fn of(object: String, findings: Vec<(Verdict, String)>) -> Self {
        let worst = findings.iter().map(|(verdict, _)| *verdict).max();
        let reasons = findings.into_iter().map(|(_, reason)| reason).collect();
        Self { object, verdict: worst.unwrap_or(Verdict::Works), reasons }
    }
}

/// Prints one verdict an object; 1 if anything is refused.
pub(crate) fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let report = check(args)?;
    args.output.print(&report, show)?;
    let is_refused = report.checked.iter().any(|checked| checked.verdict == Verdict::Refused);
    Ok(if is_refused { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn check(args: &Args) -> anyhow::Result<Report> {
    match &args.kubeconfig {
        Some(kubeconfig) => check_cluster(kubeconfig, args),
        None => check_files(args),
    }
}

fn check_cluster(kubeconfig: &Path, args: &Args) -> anyhow::Result<Report> {
    let snapshot = cluster::read(kubeconfig, args.classes.named())?;
    let mut report = Report::default();
    for document in cluster::configurations(&snapshot) {
        embedded(&document, Path::new("Corefile"), &mut report.checked);
    }
    report.checked.extend(objects::check(&snapshot, args)?);
    report.strict = strict::otherwise(&args.classes.config(), &snapshot)?;
    Ok(report)
}

fn check_files(args: &Args) -> anyhow::Result<Report> {
    let mut files = Vec::new();
    for path in &args.file {
        gather(path, true, &mut files)?;
    }
    let mut report = Report::default();
    let mut manifests = Vec::new();
    for path in files {
        let text = read(&path)?;
        let configurations = kube_proxy::documents(&text);
        report.checked.extend(configurations.iter().flat_map(|text| kube_proxy::check(text)));
        let Some(documents) = documents(&path, &text) else {
            if configurations.is_empty() {
                report.checked.push(corefile::check(&path.display().to_string(), &path, &text));
            }
            continue;
        };
        for document in &documents {
            embedded(document, &path, &mut report.checked);
        }
        let is_other = |document: &Value| {
            let kind = document.get("kind").and_then(Value::as_str);
            kind.is_some_and(|kind| kind != config::KIND)
        };
        if configurations.is_empty() || documents.iter().any(is_other) {
            manifests.push(path);
        }
    }
    if !manifests.is_empty() {
        let loaded = directory::load(&manifests, None, args.classes.named().collect())?;
        report.checked.extend(objects::check(&loaded.snapshot, args)?);
        report.strict = strict::otherwise(&args.classes.config(), &loaded.snapshot)?;
        // Kinds that are no business of ours are no finding; what is to come, and a file that does
        // not parse, are.
        let to_come = loaded.foreign.iter().filter(|line| line.contains(GATEWAY_API));
        report.checked.extend(loaded.problems.iter().chain(to_come).map(|problem| {
            Checked::of("file".to_owned(), vec![(Verdict::Refused, problem.clone())])
        }));
    }
    Ok(report)
}

/// Whether an object with this name belongs to Istio or Linkerd.
fn is_of_a_mesh(name: &str) -> bool {
    ["istio", "linkerd"].iter().any(|mesh| {
        name.strip_prefix(mesh).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    })
}

/// Configurations in a ConfigMap, and who would rather see packets.
fn embedded(document: &Value, path: &Path, checked: &mut Vec<Checked>) {
    let word = |name: &str| document.get(name).and_then(Value::as_str).unwrap_or_default();
    match word("kind") {
        // Injectors of sidecars: istio-sidecar-injector, linkerd-proxy-injector-webhook-config.
        "MutatingWebhookConfiguration" => {
            let name = document.pointer("/metadata/name").and_then(Value::as_str);
            if let Some(name) = name.filter(|name| is_of_a_mesh(name)) {
                let object = format!("MutatingWebhookConfiguration {name}");
                checked.push(Checked::of(object, vec![(Verdict::Differs, MESH.to_owned())]));
            }
        }
        "List" => {
            let items = document.get("items").and_then(Value::as_array);
            items.into_iter().flatten().for_each(|item| embedded(item, path, checked));
        }
        "ConfigMap" => {
            let data = document.get("data").and_then(Value::as_object);
            for (entry, text) in data.into_iter().flatten() {
                let Some(text) = text.as_str() else { continue };
                let name = document.pointer("/metadata/name").and_then(Value::as_str);
                let name = name.unwrap_or_default();
                if entry == "Corefile" {
                    checked.push(corefile::check(&format!("ConfigMap {name}"), path, text));
                }
                // The agent is given the whole text, too.
                if config::is_meant(text) {
                    checked.extend(kube_proxy::check(text));
                }
            }
        }
        _ => {}
    }
}

/// Objects in a file; `None`: it is a Corefile.
fn documents(path: &Path, text: &str) -> Option<Vec<Value>> {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with("Corefile") || name.ends_with(".corefile") {
        return None;
    }
    // What is wrong with a file is said by whoever serves from it.
    let options = serde_saphyr::options! {
        with_snippet: false,
        duplicate_keys: DuplicateKeyPolicy::LastWins,
    };
    let documents = serde_saphyr::from_multiple_with_options(text, options);
    let documents: Vec<Value> = documents.unwrap_or_default();
    let has_objects = documents.iter().any(|document| document.get("kind").is_some());
    let is_manifest = ["yaml", "yml", "json"].iter().any(|kind| name.ends_with(kind));
    (has_objects || is_manifest).then_some(documents)
}

fn gather(path: &Path, is_named: bool, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let metadata = fs::metadata(path).with_context(|| format!("reading {}", path.display()))?;
    if !metadata.is_dir() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let fits = name.starts_with("Corefile")
            || ["yaml", "yml", "json"].iter().any(|kind| name.ends_with(kind));
        if is_named || (fits && !name.starts_with('.')) {
            files.push(path.to_owned());
        }
        return Ok(());
    }
    let entries = fs::read_dir(path).with_context(|| format!("reading {}", path.display()))?;
    let mut entries: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    entries.sort();
    entries.iter().try_for_each(|entry| gather(entry, false, files))
}

fn read(path: &Path) -> anyhow::Result<String> {
    let shown = path.display();
    let bytes = fs::metadata(path).with_context(|| format!("reading {shown}"))?.len();
    anyhow::ensure!(bytes <= FILE_BYTES_MAX, "{shown} has {bytes} bytes: that is no manifest");
    fs::read_to_string(path).with_context(|| format!("reading {shown}"))
}

fn show(report: &Report, screen: Screen, _wide: bool) -> String {
    let mut table = Table::new(&["OBJECT", "HERE", "HOW, WHY, AND WHAT INSTEAD"]);
    let mut counts = [0usize; 3];
    for Checked { object, verdict, reasons } in &report.checked {
        let (tone, place) = match verdict {
            Verdict::Works => (Tone::Good, 0),
            Verdict::Differs => (Tone::Attention, 1),
            Verdict::Refused => (Tone::Bad, 2),
        };
        if let Some(count) = counts.get_mut(place) {
            *count += 1;
        }
        let mut reasons = reasons.iter().map(String::as_str);
        let first = reasons.next().unwrap_or_default();
        table.row([object.as_str().into(), Cell::of(verdict.as_str(), tone), first.into()]);
        for reason in reasons {
            table.row(["".into(), "".into(), reason.into()]);
        }
    }
    if table.is_empty() {
        return "nothing that could be checked\n".to_owned();
    }
    let [works, differs, refused] = counts;
    // A reason that is cut is none.
    let text = table.text(screen.uncut());
    let strict = strict::show(&report.strict, screen);
    format!("{text}\nworks {works}, differs {differs}, refused {refused}\n{strict}")
}
