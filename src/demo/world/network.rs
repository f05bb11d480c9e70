//! Namespaces and links, by `ip -batch`:
//!
//! ```text
//! client               node                                        pods
//! eth0 ──────────── eth0   cni0 ────────────────────────────────── eth0
//! 192.168.77.100    192.168.77.2   10.244.1.1                      10.244.1.10 …
//! fd77::100         fd77::2        fd00:10:244:1::1                fd00:10:244:1::a …
//! ```

use std::{
    fs,
    io::Write,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, setns, unshare};

use super::{
    CLIENT_V4, CLIENT_V6, NODE_V4, NODE_V6,
    layout::{Layout, Place},
    mounts,
};

const BRIDGE_V4: Ipv4Addr = Ipv4Addr::new(10, 244, 1, 1);
/// Fixed, as CNI's bridge plugin does: the kernel would take the lowest of the ports' addresses,
/// and
/// each pod that comes or goes could leave the others with a gateway that nobody answers for.
const BRIDGE_MAC: &str = "0a:58:0a:f4:01:01";
const BRIDGE_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0x10, 0x244, 1, 0, 0, 0, 1);

/// The node and the client, wired together.
pub(crate) fn build(layout: &Layout) -> anyhow::Result<()> {
    let (node, client) = (layout.netns(&Place::Node), layout.netns(&Place::Client));
    create(&node)?;
    create(&client)?;
    let wires = format!(
        "link add cni0 address {BRIDGE_MAC} type bridge forward_delay 0\n\
         addr add {BRIDGE_V4}/24 dev cni0\n\
         addr add {BRIDGE_V6}/64 dev cni0\n\
         link set cni0 up\n\
         link add eth0 type veth peer name eth0 netns {client}\n\
         addr add {NODE_V4}/24 dev eth0\n\
         addr add {NODE_V6}/64 dev eth0\n\
         link set eth0 up\n",
        client = client.display()
    );
    let client_side = format!(
        "addr add {CLIENT_V4}/24 dev eth0\naddr add {CLIENT_V6}/64 dev eth0\nlink set eth0 up\n"
    );
    // A gateway is only accepted once the link has a carrier, that is when both ends are up.
    let routes = format!("route add default via {CLIENT_V4}\nroute add default via {CLIENT_V6}\n");
    inside(&node, || ip(&wires))?;
    inside(&client, || ip(&client_side))?;
    inside(&node, || {
        ip(&routes)?;
        sysctl("ipv4/ip_forward", "1")?;
        sysctl("ipv6/conf/all/forwarding", "1")
    })
}

/// A pod's namespace with its link to the bridge.
pub(crate) fn add_pod(
    layout: &Layout,
    name: &str,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
) -> anyhow::Result<()> {
    let path = layout.netns(&Place::Pod(name.to_owned()));
    create(&path)?;
    let host_end = host_end(v4);
    let wires = format!(
        "link add {host_end} type veth peer name eth0 netns {}\n\
         link set {host_end} master cni0\n\
         link set {host_end} up\n",
        path.display()
    );
    let pod_side = format!(
        "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0\nlink set eth0 up\n\
         route add default via {BRIDGE_V4}\nroute add default via {BRIDGE_V6}\n"
    );
    inside(&layout.netns(&Place::Node), || ip(&wires))?;
    inside(&path, || ip(&pod_side))
}

/// The name of a pod's device on the node: unique because the address is.
fn host_end(v4: Ipv4Addr) -> String {
    let [.., last] = v4.octets();
    format!("veth{last}")
}

/// A new namespace that stays as long as the file is mounted.
fn create(path: &Path) -> anyhow::Result<()> {
    fs::File::create_new(path).with_context(|| format!("creating {}", path.display()))?;
    on_own_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("a network namespace")?;
        mounts::bind(Path::new("/proc/thread-self/ns/net"), path)?;
        // Addresses are given by us, once: waiting for duplicates would cost seconds.
        for scope in ["all", "default"] {
            sysctl(&format!("ipv6/conf/{scope}/disable_ipv6"), "0")?;
            sysctl(&format!("ipv6/conf/{scope}/accept_dad"), "0")?;
            sysctl(&format!("ipv6/conf/{scope}/accept_ra"), "0")?;
        }
        ip("link set lo up\n")
    })
}

fn inside(
    namespace: &Path,
    work: impl FnOnce() -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    on_own_thread(|| {
        let file = fs::File::open(namespace)?;
        setns(file, CloneFlags::CLONE_NEWNET)?;
        work()
    })
    .with_context(|| format!("in network namespace {}", namespace.display()))
}

/// Namespaces belong to threads: one of its own keeps the caller where it is.
fn on_own_thread(work: impl FnOnce() -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// `/proc/sys/net` shows the reader's own namespace.
fn sysctl(name: &str, value: &str) -> anyhow::Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    fs::write(&path, value).with_context(|| format!("setting {}", path.display()))
}

fn ip(batch: &str) -> anyhow::Result<()> {
    let mut child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting ip (Debian package iproute2)")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(batch.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim().replace('\n', "; "));
    }
    Ok(())
}
