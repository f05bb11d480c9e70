//! `kubectl fairlead`: the same commands from where kubectl runs. What an agent is asked is asked inside
//! of its pod, with kubectl's own rights; what needs no agent runs here.

use std::{
    ffi::OsString,
    io::{IsTerminal as _, Write as _},
    os::{fd::AsRawFd as _, unix::process::CommandExt as _},
    path::Path,
    process::{Command, ExitCode, Stdio},
};

use anyhow::Context as _;
use clap::Parser;

use crate::given;

/// The name by which kubectl finds a plugin (Kubernetes documentation, "Extend kubectl with plugins").
const NAME: &str = "kubectl-fairlead";
/// A pod a line: its name, and whether it is ready.
const READINESS: &str = r#"jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
const NO_KUBECTL: &str = "kubectl cannot be run: put it in PATH";

/// Fairlead's commands, asked of a cluster.
#[derive(Debug, Parser)]
#[command(name = "kubectl-fairlead", bin_name = "kubectl fairlead", disable_version_flag = true)]
struct Plugin {
    /// kubectl's context
    #[arg(long, value_name = "NAME")]
    context: Option<OsString>,
    /// kubectl's configuration
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<OsString>,
    /// Where Fairlead is installed
    #[arg(long, value_name = "NAMESPACE", default_value = "kube-system")]
    agents: OsString,
    /// Ask the agent of this node (default: one of them)
    #[arg(long, value_name = "NAME")]
    node: Option<String>,
    /// Ask the agents with this role (default: those that know the answer)
    #[arg(long, value_enum)]
    role: Option<Role>,
    /// A command of `fairlead --help` with its flags; -f and `check` need no agent
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    command: Vec<OsString>,
}

/// Whose DaemonSet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    Node,
    Dns,
    Ingress,
}

impl Role {
    fn as_str(self) -> &'static str {
        match self {
            Role::Node => "node",
            Role::Dns => "dns",
            Role::Ingress => "ingress",
        }
    }
}

/// Whether kubectl has called.
pub(crate) fn is_plugin(words: &[OsString]) -> bool {
    let name = words.first().and_then(|word| Path::new(word).file_name());
    name.is_some_and(|name| name == NAME)
}

/// Runs a command here, or in a pod; then it does not return unless something failed.
pub(crate) fn run(words: &[OsString]) -> anyhow::Result<ExitCode> {
    let plugin = Plugin::parse_from(words);
    let Some(role) = asked(&plugin.command) else { return here(&plugin) };
    let role = plugin.role.unwrap_or(role).as_str();
    let pod = pod(&plugin, role)?;
    let mut exec = kubectl(&plugin);
    exec.arg("--namespace").arg(&plugin.agents).arg("exec");
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if is_terminal {
        exec.args(["--stdin", "--tty"]);
    }
    let is_held = is_live(&plugin.command) && !is_terminal;
    if is_held {
        exec.arg("--stdin");
    }
    exec.arg(format!("pod/{pod}")).args(["--", "fairlead"]).args(&plugin.command);
    if is_held {
        return hold(exec.arg("--while-input"));
    }
    Err(exec.exec()).context(NO_KUBECTL)
}

/// What kubectl ran goes on in the pod when kubectl ends, but for its standard input: that is held open
/// here, and ends with either.
fn hold(exec: &mut Command) -> anyhow::Result<ExitCode> {
    let mut kubectl = exec.stdin(Stdio::piped()).spawn().context(NO_KUBECTL)?;
    let input = kubectl.stdin.take();
    let status = kubectl.wait()?;
    drop(input);
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

fn is_live(command: &[OsString]) -> bool {
    command.first().is_some_and(|word| word == "trace")
        && command.iter().any(|word| word == "--live")
}

/// Whose agents know the answer; `None`: no agent is needed.
fn asked(command: &[OsString]) -> Option<Role> {
    if has(command, &["-f", "--filename"]) {
        return None;
    }
    if is_live(command) {
        return Some(Role::Node);
    }
    let words: Vec<&str> = command.iter().filter_map(|word| word.to_str()).collect();
    match *words.first()? {
        "trace" if words.iter().any(|word| word.contains("://")) => Some(Role::Ingress),
        "status" | "traffic" | "services" | "trace" | "dump" | "doctor" | "cleanup" => {
            Some(Role::Node)
        }
        "names" => Some(Role::Dns),
        "routes" => Some(Role::Ingress),
        _ => None,
    }
}

/// Whether a word begins like one of these flags.
fn has(command: &[OsString], flags: &[&str]) -> bool {
    let mut words = command.iter().map(|word| word.to_string_lossy());
    words.any(|word| flags.iter().any(|flag| word.starts_with(flag)))
}

fn kubectl(plugin: &Plugin) -> Command {
    let mut command = Command::new("kubectl");
    let flags = [("--context", &plugin.context), ("--kubeconfig", &plugin.kubeconfig)];
    for (flag, value) in flags {
        if let Some(value) = value {
            command.arg(flag).arg(value);
        }
    }
    command
}

fn output(command: &mut Command) -> anyhow::Result<Vec<u8>> {
    let output = command.output().context(NO_KUBECTL)?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "kubectl: {}", said.trim().replace('\n', "; "));
    Ok(output.stdout)
}

/// The agent's pod, on a node if one is named. By labels: a DaemonSet may bear another's name
/// (`dns.daemonSetName`).
fn pod(plugin: &Plugin, role: &str) -> anyhow::Result<String> {
    let labels = format!("app.kubernetes.io/name=fairlead,app.kubernetes.io/component={role}");
    let mut get = kubectl(plugin);
    get.arg("--namespace").arg(&plugin.agents).args(["get", "pods", "--output", READINESS]);
    get.args(["--selector", &labels]);
    if let Some(node) = &plugin.node {
        get.args(["--field-selector", &format!("spec.nodeName={node}")]);
    }
    let found = output(&mut get)?;
    let pod = best(&String::from_utf8_lossy(&found)).map(str::to_owned);
    pod.with_context(|| match &plugin.node {
        Some(node) => {
            format!(
                "no pod of fairlead-{role} runs on node {node}: `kubectl get nodes` lists names"
            )
        }
        None => format!("no pod of fairlead-{role} runs there: --agents names the namespace"),
    })
}

/// Of pods as [`READINESS`] shows them the first that is ready, else the first.
fn best(pods: &str) -> Option<&str> {
    let ready = pods.lines().find_map(|line| line.strip_suffix(" True"));
    ready.or_else(|| pods.lines().next()?.split(' ').next()).filter(|name| !name.is_empty())
}

/// Runs a command that needs no agent; `check` without files is about kubectl's cluster.
fn here(plugin: &Plugin) -> anyhow::Result<ExitCode> {
    let mut words = vec![OsString::from("fairlead")];
    words.extend(plugin.command.iter().cloned());
    let is_check = plugin.command.first().is_some_and(|word| word == "check");
    if !is_check || has(&plugin.command, &["-f", "--filename", "--kubeconfig"]) {
        return Ok(crate::run(given::parse(&words)));
    }
    // kubectl knows which of several files and contexts is meant. Its answer has keys in it: a file
    // without a name is gone with this process, however that ends.
    let view = ["config", "view", "--raw", "--minify", "--flatten"];
    let config = output(kubectl(plugin).args(view))?;
    let mut file = tempfile::tempfile().context("keeping kubectl's configuration")?;
    file.write_all(&config).context("keeping kubectl's configuration")?;
    words.push("--kubeconfig".into());
    words.push(format!("/proc/self/fd/{}", file.as_raw_fd()).into());
    Ok(crate::run(given::parse(&words)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<OsString> {
        text.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn whoever_knows_the_answer_is_asked_and_nobody_without_need() {
        for (command, expected) in [
            ("status", Some(Role::Node)),
            ("services shop/web -o json", Some(Role::Node)),
            ("routes", Some(Role::Ingress)),
            ("names web.shop", Some(Role::Dns)),
            ("trace tcp web.shop:80", Some(Role::Node)),
            ("trace --from shop/a https://shop.example/", Some(Role::Ingress)),
            ("trace --live http://web.shop/", Some(Role::Node)),
            ("trace -f manifests tcp web.shop:80", None),
            ("services --filename=a.yaml", None),
            ("check", None),
            ("plan -f a.yaml", None),
            ("completions bash", None),
            ("version", None),
        ] {
            assert_eq!(asked(&words(command)), expected, "{command}");
        }
    }

    #[test]
    fn a_pod_that_is_ready_is_asked_if_any_is() {
        for (pods, expected) in [
            ("a False\nb True\nc True\n", Some("b")),
            ("a False\nb \n", Some("a")),
            ("a \n", Some("a")),
            ("", None),
        ] {
            assert_eq!(best(pods), expected, "{pods:?}");
        }
    }

    #[test]
    fn the_name_decides_and_not_the_place() {
        for (name, expected) in [
            ("kubectl-fairlead", true),
            ("/usr/local/bin/kubectl-fairlead", true),
            ("fairlead", false),
            ("/opt/kubectl-fairlead/fairlead", false),
        ] {
            assert_eq!(is_plugin(&words(name)), expected, "{name}");
        }
    }

    #[test]
    fn flags_before_the_command_are_the_plugins_and_those_behind_it_the_commands() {
        let plugin = Plugin::try_parse_from(words(
            "kubectl-fairlead --context prod --node n1 services shop/web --node-name x -o json",
        ));
        let plugin = plugin.unwrap();
        assert_eq!(plugin.node.as_deref(), Some("n1"));
        assert_eq!(plugin.command, words("services shop/web --node-name x -o json"));
    }
}
