//! Namespaces and links, by `ip -batch`:
//!
//! ```text
//! client               node                                        pods
//! eth0 ──────────── eth0   cni0 ────────────────────────────────── eth0
//! 192.168.77.100    192.168.77.2   10.244.1.1                      10.244.1.10 …
//! fd77::100         fd77::2        fd00:10:244:1::1                fd00:10:244:1::a …
//! ```
//!
//! Another node, if there is to be one, is a second bridge at the client, with its pods' addresses one
//! network further: the client is the node's router.

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

/// A node's pods' network: all /24 and /64.
struct PodNetwork {
    /// Where its bridge is, `cni0`.
    at: Place,
    number: u8,
}

static HERE: PodNetwork = PodNetwork { at: Place::Node, number: 1 };
static ELSEWHERE: PodNetwork = PodNetwork { at: Place::Client, number: 2 };

impl PodNetwork {
    fn address(&self, last: u8) -> (Ipv4Addr, Ipv6Addr) {
        let v4 = Ipv4Addr::new(10, 244, self.number, last);
        (v4, Ipv6Addr::new(0xfd00, 0x10, 0x244, self.number.into(), 0, 0, 0, last.into()))
    }

    /// Makes the bridge.
    fn bridge(&self) -> String {
        let (v4, v6) = self.address(1);
        // A fixed address, as CNI's bridge plugin does: the kernel would take the lowest of the ports',
        // and each pod that comes or goes could leave the others with a gateway that nobody answers for.
        format!(
            "link add cni0 address 0a:58:0a:f4:{:02x}:01 type bridge forward_delay 0\n\
             addr add {v4}/24 dev cni0\n\
             addr add {v6}/64 dev cni0\n\
             link set cni0 up\n",
            self.number
        )
    }
}

/// The addresses of the pod of that number at a place.
pub(crate) fn addresses(place: &Place, last: u8) -> (Ipv4Addr, Ipv6Addr) {
    network_of(place).address(last)
}

fn network_of(place: &Place) -> &'static PodNetwork {
    match place {
        Place::Elsewhere(_) => &ELSEWHERE,
        Place::Node | Place::Client | Place::Pod(_) => &HERE,
    }
}

/// The node and the client, wired together.
pub(crate) fn build(layout: &Layout) -> anyhow::Result<()> {
    let (node, client) = (layout.netns(&Place::Node), layout.netns(&Place::Client));
    create(&node)?;
    create(&client)?;
    let wires = format!(
        "{bridge}\
         link add eth0 type veth peer name eth0 netns {client}\n\
         addr add {NODE_V4}/24 dev eth0\n\
         addr add {NODE_V6}/64 dev eth0\n\
         link set eth0 up\n",
        bridge = HERE.bridge(),
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
        forward()
    })
}

/// Another node for pods to be on.
pub(crate) fn build_elsewhere(layout: &Layout) -> anyhow::Result<()> {
    let (v4, v6) = HERE.address(0);
    let routes = format!("route add {v4}/24 via {NODE_V4}\nroute add {v6}/64 via {NODE_V6}\n");
    inside(&layout.netns(&ELSEWHERE.at), || {
        ip(&ELSEWHERE.bridge())?;
        ip(&routes)?;
        forward()
    })
}

fn forward() -> anyhow::Result<()> {
    sysctl("ipv4/ip_forward", "1")?;
    sysctl("ipv6/conf/all/forwarding", "1")
}

/// A pod's namespace with its link to the bridge.
pub(crate) fn add_pod(layout: &Layout, place: &Place, last: u8) -> anyhow::Result<()> {
    let path = layout.netns(place);
    create(&path)?;
    let network = network_of(place);
    let ((v4, v6), (via_v4, via_v6)) = (network.address(last), network.address(1));
    // Unique because the address is.
    let host_end = format!("veth{last}");
    let wires = format!(
        "link add {host_end} type veth peer name eth0 netns {}\n\
         link set {host_end} master cni0\n\
         link set {host_end} up\n",
        path.display()
    );
    let pod_side = format!(
        "addr add {v4}/24 dev eth0\naddr add {v6}/64 dev eth0\nlink set eth0 up\n\
         route add default via {via_v4}\nroute add default via {via_v6}\n"
    );
    inside(&layout.netns(&network.at), || ip(&wires))?;
    inside(&path, || ip(&pod_side))
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
