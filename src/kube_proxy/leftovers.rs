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
    /// What could not be done, and why.
    failed: Vec<String>,
    /// Some tool was there to look with.
    has_looked: bool,
}

impl Log {
    fn fail(&mut self, error: &anyhow::Error) {
        self.failed.push(crate::exit::one_line(error));
    }

    /// Whether it was done; what was not keeps nothing else from it.
    fn is_done(&mut self, result: anyhow::Result<()>) -> bool {
        result.inspect_err(|error| self.fail(error)).is_ok()
    }
}

/// Removes everything, says what, and goes on past what fails.
pub(crate) fn remove() -> Report {
    let mut log = Log::default();
    for pid in running() {
        log.notes
            .push(format!("kube-proxy runs (pid {pid}): it writes its rules back; stop it first"));
    }
    all_iptables(&mut log);
    for part in [nftables, ipset, virtual_servers] {
        if let Err(error) = part(&mut log) {
            log.fail(&error);
        }
    }
    if !log.has_looked {
        let reason = "neither nft nor iptables is installed here: install nftables and iptables, or \
                      run this where they are";
        log.failed.push(reason.to_owned());
    }
    Report { removed: log.removed, notes: log.notes, failed: log.failed }
}

fn nftables(log: &mut Log) -> anyhow::Result<()> {
    let Some(tables) = read("nft", &["list", "tables"])? else {
        log.notes
            .push("nft is not installed: tables ip and ip6 kube-proxy are not looked for".into());
        return Ok(());
    };
    log.has_looked = true;
    for family in ["ip", "ip6"] {
        if tables.lines().any(|line| line.trim() == format!("table {family} kube-proxy"))
            && log.is_done(run("nft", &["delete", "table", family, "kube-proxy"], ""))
        {
            let name = format!("{family} kube-proxy");
            let text = format!("removed nftables table {name}");
            log.removed.push(Removed { place: "nftables".to_owned(), names: vec![name], text });
        }
    }
    Ok(())
}

/// Both ways of keeping iptables' rules: either may hold some, whichever `iptables` means now.
fn all_iptables(log: &mut Log) {
    for family in ["iptables", "ip6tables"] {
        let variants = ["legacy", "nft"];
        let are_there = variants.map(|variant| one_iptables(&format!("{family}-{variant}"), log));
        if are_there == [false; 2] && !one_iptables(family, log) {
            log.notes.push(format!("{family} is not installed: its rules are not looked at"));
        }
    }
}

/// Whether the tool is there.
fn one_iptables(tool: &str, log: &mut Log) -> bool {
    let saved = match read(&format!("{tool}-save"), &[]) {
        Ok(Some(saved)) => saved,
        Ok(None) => return false,
        Err(error) => {
            log.fail(&error);
            return true;
        }
    };
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
        let result =
            run(&format!("{tool}-restore"), &["--noflush", "--counters", "--wait=5"], &script)
                .with_context(|| format!("removing kube-proxy's chains from {table}"));
        if !log.is_done(result) {
            continue;
        }
        let place = format!("{tool} {table}");
        let (jumps, count) = (counted(jumps, "jump"), counted(chains.len(), "chain"));
        let text = format!("removed {place}: {jumps}, {count}: {}", some_of(&chains, NAMES_MAX));
        log.removed.push(Removed { place, names: chains, text });
    }
    true
}

fn ipset(log: &mut Log) -> anyhow::Result<()> {
    let Some(names) = read("ipset", &["list", "-n"])? else {
        if has_device() {
            log.notes.push("ipset is not installed: sets of kube-proxy's IPVS mode stay".into());
        }
        return Ok(());
    };
    let mut names: Vec<_> =
        names.lines().filter(|name| ipvs::is_set(name)).map(str::to_owned).collect();
    names.retain(|name| log.is_done(run("ipset", &["destroy", name], "")));
    if !names.is_empty() {
        let text =
            format!("removed {}: {}", counted(names.len(), "ipset"), some_of(&names, NAMES_MAX));
        log.removed.push(Removed { place: "ipset".to_owned(), names, text });
    }
    Ok(())
}

/// Virtual servers, and the device once all of them are gone: its addresses tell whose they are.
fn virtual_servers(log: &mut Log) -> anyhow::Result<()> {
    // Not asked where the kernel has none: ipvsadm(8) would load the module.
    if !has_device() && !Path::new("/proc/net/ip_vs").exists() {
        return Ok(());
    }
    let addresses = if has_device() {
        read("ip", &["-o", "address", "show", "dev", IPVS_DEVICE])?.unwrap_or_default()
    } else {
        String::new()
    };
    let Some(saved) = read("ipvsadm", &["--save", "--numeric"])? else {
        let with =
            if has_device() { ", and so does its device, by which they are known" } else { "" };
        log.notes
            .push(format!("ipvsadm is not installed: virtual servers of kube-proxy stay{with}"));
        return Ok(());
    };
    let mut servers = ipvs::servers(&saved, &addresses);
    let found = servers.len();
    servers.retain(|(kind, address)| {
        log.is_done(run("ipvsadm", &["--delete-service", kind, address], ""))
    });
    let are_gone = servers.len() == found;
    let shown: Vec<_> = servers.into_iter().map(|(_, address)| address).collect();
    if !shown.is_empty() {
        let count = counted(shown.len(), "virtual server");
        let text = format!("removed {count}: {}", some_of(&shown, NAMES_MAX));
        log.removed.push(Removed { place: "ipvs".to_owned(), names: shown, text });
    }
    if are_gone && has_device() {
        run("ip", &["link", "delete", IPVS_DEVICE], "")?;
        log.removed.push(Removed {
            place: "devices".to_owned(),
            names: vec![IPVS_DEVICE.to_owned()],
            text: format!("removed device {IPVS_DEVICE}"),
        });
    }
    Ok(())
}

/// In the network namespace of this process, which /sys/class/net need not show.
fn has_device() -> bool {
    Path::new("/proc/sys/net/ipv4/conf").join(IPVS_DEVICE).exists()
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
