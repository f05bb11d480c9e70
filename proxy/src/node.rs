//! The node as the programs must know it: its addresses and its uplinks, followed by rtnetlink.

mod netlink;
mod uplinks;

use std::{collections::BTreeMap, fs, net::IpAddr, sync::Arc, time::Duration};

use fairlead_ebpf::{
    abi::{Address, NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS},
    packet::mapped,
};
use fairlead_state::{Key, store::Snapshots};
use tokio_util::sync::CancellationToken;

use self::{netlink::Events, uplinks::View};
use crate::attach::{Kernel, KernelError, Role, error::Step};

/// Events come in bursts (an address, its routes): they are waited out, then read once.
const SETTLE: Duration = Duration::from_millis(50);
/// After a failure, in case no event comes.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps the kernel's view of the node true until `cancel`: addresses for NodePorts, and programs
/// on the uplinks. `snapshots` tells which addresses the Node object `node_name` has; before the
/// first snapshot the devices alone decide.
///
/// # Errors
///
/// Only if rtnetlink cannot be opened at all. Anything else is logged and tried again.
pub async fn follow(
    kernel: Arc<Kernel>,
    mut snapshots: Snapshots,
    node_name: &str,
    cancel: CancellationToken,
) -> Result<(), KernelError> {
    let failed = |error| KernelError::system(Step::Follow, error);
    // Subscribed before the first look, so that nothing falls between.
    let mut events = Events::open().map_err(failed)?;
    let key = Key::new("", node_name);
    let mut known: Option<View> = None;
    warn_without_forwarding();
    loop {
        let own = own_addresses(&mut snapshots, &key);
        let is_settled = update(&kernel, &own, &mut known);
        let retry = async {
            if is_settled {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(RETRY).await;
        };
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            event = events.next() => event.map_err(failed)?,
            () = node_changed(&mut snapshots, &key, &own) => {}
            () = retry => {}
        }
        tokio::time::sleep(SETTLE).await;
        events.drain();
    }
}

/// Whether everything is as it should be.
fn update(kernel: &Kernel, own: &[IpAddr], known: &mut Option<View>) -> bool {
    let view = match netlink::read() {
        Ok(node) => uplinks::view(&node, kernel.devices(), own),
        Err(error) => {
            tracing::warn!(%error, "addresses and devices could not be read; trying again");
            return false;
        }
    };
    if known.as_ref() == Some(&view) {
        return true;
    }
    let errors = apply(kernel, &view);
    for error in &errors {
        tracing::warn!(error = error as &dyn std::error::Error, "node not fully followed");
    }
    for (device, problem) in &view.unusable {
        tracing::warn!(device, problem, "not used as an uplink");
    }
    let uplinks: Vec<&str> = view.named(Role::Uplink).collect();
    let pods = view.named(Role::Pod).count();
    tracing::info!(addresses = view.addresses.len(), ?uplinks, pods, "following the node");
    // What failed is tried again as a whole.
    *known = errors.is_empty().then_some(view);
    errors.is_empty()
}

fn apply(kernel: &Kernel, view: &View) -> Vec<KernelError> {
    let mut errors: Vec<KernelError> = write_addresses(kernel, view).err().into_iter().collect();
    errors.extend(kernel.attach_devices(&view.devices));
    errors
}

fn write_addresses(kernel: &Kernel, view: &View) -> Result<(), KernelError> {
    let flags = |ip| {
        let has_node_ports = kernel.node_port_addresses().has(ip, &view.own);
        NODE_ADDRESS_OWN | if has_node_ports { NODE_ADDRESS_PORTS } else { 0 }
    };
    let addresses = view.addresses.iter().map(|ip| (address(*ip), flags(*ip))).collect();
    let source = |ip: Option<IpAddr>| ip.map_or([0; 16], address);
    kernel.set_node(&addresses, source(view.source_v4), source(view.source_v6))
}

/// Tells the programs the node's addresses, before they are attached for the first time.
///
/// # Errors
/// rtnetlink cannot be read, or the maps not written.
pub fn prepare(kernel: &Kernel, snapshots: &Snapshots, node_name: &str) -> Result<(), KernelError> {
    let node = netlink::read().map_err(|error| KernelError::system(Step::Follow, error))?;
    let own = own_addresses(&mut snapshots.clone(), &Key::new("", node_name));
    write_addresses(kernel, &uplinks::view(&node, kernel.devices(), &own))
}

/// IPv4 as v4-mapped.
fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn own_addresses(snapshots: &mut Snapshots, key: &Key) -> Vec<IpAddr> {
    let snapshot = snapshots.borrow_and_update();
    let node = snapshot.as_ref().and_then(|snapshot| snapshot.nodes().get(key));
    node.map(|node| node.addresses.to_vec()).unwrap_or_default()
}

/// Returns once the Node object has other addresses than `own`.
async fn node_changed(snapshots: &mut Snapshots, key: &Key, own: &[IpAddr]) {
    while snapshots.changed().await.is_ok() {
        if own_addresses(snapshots, key) != own {
            return;
        }
    }
    // No source any more, as at shutdown: only `cancel` ends the task.
    std::future::pending::<()>().await;
}

/// The usual reason why a NodePort answers on its node and not from outside.
fn warn_without_forwarding() {
    let switches = BTreeMap::from([
        ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
        ("net.ipv6.conf.all.forwarding", "/proc/sys/net/ipv6/conf/all/forwarding"),
    ]);
    for (setting, path) in switches {
        if fs::read_to_string(path).is_ok_and(|value| value.trim() == "0") {
            tracing::warn!(
                setting,
                "is 0: NodePorts from outside reach no pods; `sysctl -w {setting}=1`"
            );
        }
    }
}
