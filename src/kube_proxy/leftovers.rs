//! Takes away what kube-proxy left on a node, and nothing of anybody else: its chains (not the
//! kubelet's, which begin alike), its sets, its virtual servers and its nftables tables.

mod iptables;
mod ipvs;

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, bail};
use fairlead_proxy::node::IPVS_DEVICE;
use fairlead_state::some_of;

use crate::{
    cleanup::{Removed, Report},
    counted::counted,
};

/// Names shown of a long list.
const NAMES_MAX: usize = 20;

/// What happened.
#[derive(Debug, Default)]
struct Log {
    removed: Vec<Removed>,
    /// What was not looked at, or stays.
    notes: Vec<String>,
    /// Some tool was there to look with.
    has_looked: bool,
}

/// Removes everything, says what, and goes on past what fails.
pub(crate) fn remove() -> Report {
    let mut log = Log::default();
    for pid in running() {
        log.notes
            .push(format!("kube-proxy runs (pid {pid}): it writes its rules back; stop it first"));
    }
    let results =
        [nftables(&mut log), all_iptables(&mut log), ipset(&mut log), virtual_servers(&mut log)];
    let errors = results.into_iter().filter_map(Result::err);
    let mut failed: Vec<String> = errors.map(|error| crate::exit::one_line(&error)).collect();
    if !log.has_looked {
        let reason = "neither nft nor iptables is installed here: install nftables and iptables, or \
                      run this where they are";
        failed.push(reason.to_owned());
    }
    Report { removed: log.removed, notes: log.notes, failed }
}

fn nftables(log: &mut Log) -> anyhow::Result<()> {
    let Some(tables) = read("nft", &["list", "tables"])? else {
        log.notes
            .push("nft is not installed: tables ip and ip6 kube-proxy are not looked for".into());
        return Ok(());
    };
    log.has_looked = true;
    for family in ["ip", "ip6"] {
        if tables.lines().any(|line| line.trim() == format!("table {family} kube-proxy")) {
            run("nft", &["delete", "table", family, "kube-proxy"], "")?;
            let name = format!("{family} kube-proxy");
            let text = format!("removed nftables table {name}");
            log.removed.push(Removed { place: "nftables".to_owned(), names: vec![name], text });
        }
    }
    Ok(())
}

/// Both ways of keeping iptables' rules: either may hold some, whichever `iptables` means now.
fn all_iptables(log: &mut Log) -> anyhow::Result<()> {
    let mut reasons = Vec::new();
    for family in ["iptables", "ip6tables"] {
        let mut has_variant = false;
        for variant in ["legacy", "nft"] {
            match one_iptables(&format!("{family}-{variant}"), log) {
                Ok(was_there) => has_variant |= was_there,
                Err(error) => {
                    has_variant = true;
                    reasons.push(crate::exit::one_line(&error));
                }
            }
        }
        if !has_variant && !one_iptables(family, log)? {
            log.notes.push(format!("{family} is not installed: its rules are not looked at"));
        }
    }
    if reasons.is_empty() { Ok(()) } else { bail!("{}", reasons.join("; ")) }
}

/// Whether the tool is there.
fn one_iptables(tool: &str, log: &mut Log) -> anyhow::Result<bool> {
    let Some(saved) = read(&format!("{tool}-save"), &[])? else { return Ok(false) };
    log.has_looked = true;
    for table in iptables::removals(&saved) {
        let iptables::Removal { table, script, chains, jumps, kept } = table;
        for chain in kept {
            log.notes
                .push(format!("{tool} {table}: {chain} stays: rules of somebody else lead there"));
        }
        if chains.is_empty() {
            continue;
        }
        // Counters of everything else stay as they are.
        run(&format!("{tool}-restore"), &["--noflush", "--counters", "--wait=5"], &script)
            .with_context(|| format!("removing kube-proxy's chains from {table}"))?;
        let place = format!("{tool} {table}");
        let (jumps, count) = (counted(jumps, "jump"), counted(chains.len(), "chain"));
        let text = format!("removed {place}: {jumps}, {count}: {}", some_of(&chains, NAMES_MAX));
        log.removed.push(Removed { place, names: chains, text });
    }
    Ok(true)
}

fn ipset(log: &mut Log) -> anyhow::Result<()> {
    let Some(names) = read("ipset", &["list", "-n"])? else {
        if has_ipvs() {
            log.notes.push("ipset is not installed: sets of kube-proxy's IPVS mode stay".into());
        }
        return Ok(());
    };
    let names: Vec<_> =
        names.lines().filter(|name| ipvs::is_set(name)).map(str::to_owned).collect();
    for name in &names {
        run("ipset", &["destroy", name], "")?;
    }
    if !names.is_empty() {
        let text =
            format!("removed {}: {}", counted(names.len(), "ipset"), some_of(&names, NAMES_MAX));
        log.removed.push(Removed { place: "ipset".to_owned(), names, text });
    }
    Ok(())
}

fn virtual_servers(log: &mut Log) -> anyhow::Result<()> {
    if !has_ipvs() {
        return Ok(());
    }
    let addresses = read("ip", &["-o", "address", "show", "dev", IPVS_DEVICE])?.unwrap_or_default();
    match read("ipvsadm", &["--save", "--numeric"])? {
        None => {
            log.notes.push("ipvsadm is not installed: virtual servers of kube-proxy stay".into());
        }
        Some(saved) => {
            let servers = ipvs::servers(&saved, &addresses);
            for (kind, address) in &servers {
                run("ipvsadm", &["--delete-service", kind, address], "")?;
            }
            let shown: Vec<_> = servers.into_iter().map(|(_, address)| address).collect();
            if !shown.is_empty() {
                let count = counted(shown.len(), "virtual server");
                let text = format!("removed {count}: {}", some_of(&shown, NAMES_MAX));
                log.removed.push(Removed { place: "ipvs".to_owned(), names: shown, text });
            }
        }
    }
    run("ip", &["link", "delete", IPVS_DEVICE], "")?;
    log.removed.push(Removed {
        place: "devices".to_owned(),
        names: vec![IPVS_DEVICE.to_owned()],
        text: format!("removed device {IPVS_DEVICE}"),
    });
    Ok(())
}

fn has_ipvs() -> bool {
    Path::new("/sys/class/net").join(IPVS_DEVICE).exists()
}

/// Processes of that name that are seen from here.
fn running() -> Vec<u32> {
    let processes = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let pids = processes.filter_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let name = fs::read_to_string(process.path().join("comm")).ok()?;
        (name.trim() == "kube-proxy").then_some(pid)
    });
    pids.collect()
}

/// What a command prints; `None` if there is no such command.
fn read(program: &str, args: &[&str]) -> anyhow::Result<Option<String>> {
    match Command::new(program).args(args).stdin(Stdio::null()).output() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("running {program}")),
        Ok(output) => checked(program, args, &output).map(Some),
    }
}

fn run(program: &str, args: &[&str], input: &str) -> anyhow::Result<()> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("running {program}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // Whoever ends before it has read everything says why.
        drop(stdin.write_all(input.as_bytes()));
    }
    let output = child.wait_with_output().with_context(|| format!("running {program}"))?;
    checked(program, args, &output).map(drop)
}

fn checked(program: &str, args: &[&str], output: &Output) -> anyhow::Result<String> {
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        bail!("{program} {}: {said} ({})", args.join(" "), output.status);
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
