//! The node as the programs must know it: its addresses and its uplinks, followed by rtnetlink.

mod netlink;
mod ranges;
mod uplinks;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use fairlead_ebpf::{
    abi::{Address, NODE_ADDRESS_OWN, NODE_ADDRESS_PORTS},
    packet::mapped,
};
use fairlead_state::{Key, store::Snapshots};
use ipnetwork::IpNetwork;
use tokio_util::sync::CancellationToken;

pub(crate) use self::netlink::addresses;
pub use self::ranges::{Occupant, api_servers, occupant};
use self::{
    netlink::Events,
    uplinks::{Moment, View},
};
use crate::{
    CIDRS_MAX,
    attach::{Devices, Kernel},
    error::{KernelError, Step},
    netfilter,
    object::Role,
};

/// Events come in bursts (an address, its routes): they are waited out, then read once.
const SETTLE: Duration = Duration::from_millis(50);
/// On it kube-proxy's mode ipvs keeps the addresses of all Services, and leaves them there.
pub const IPVS_DEVICE: &str = "kube-ipvs0";
/// After a failure, in case no event comes.
const RETRY: Duration = Duration::from_secs(5);

/// What the cluster says of the node and of its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Told {
    /// The Node object's addresses.
    addresses: Vec<IpAddr>,
    /// Where addresses of this node's pods come from, if the cluster allots them.
    pod_cidrs: Arc<[IpNetwork]>,
    /// The API server's addresses, wherever it runs, as far as they are in `service_cidrs`: the others make no difference.
    api_servers: BTreeSet<IpAddr>,
    /// Of all ServiceCIDRs, and those that were asked for.
    service_cidrs: BTreeSet<IpNetwork>,
}

/// What the programs know of the node; of what failed, nothing.
#[derive(Debug, Default)]
pub struct Known(Option<(View, Told)>);

/// Keeps the kernel's view of the node true until `cancel`, from what [`prepare`] told it: addresses for NodePorts, and programs
/// on the uplinks. `snapshots` tells which addresses the Node object `node_name` has and which
/// ServiceCIDRs there are, and where the API server is; before the first snapshot the devices and flags alone decide.
///
/// # Errors
///
/// Only if rtnetlink cannot be opened at all. Anything else is logged and tried again.
pub async fn follow(
    kernel: Arc<Kernel>,
    mut snapshots: Snapshots,
    node_name: &str,
    mut known: Known,
    cancel: CancellationToken,
) -> Result<(), KernelError> {
    let failed = |error| KernelError::system(Step::Follow, error);
    // Subscribed before the first look, so that nothing falls between.
    let mut events = Events::open().map_err(failed)?;
    let key = Key::new("", node_name);
    warn_without_forwarding();
    loop {
        let told = Told::of(&mut snapshots, &key, &kernel);
        let is_settled = update(&kernel, &told, &mut known);
        let retry = async {
            if is_settled {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(RETRY).await;
        };
        tokio::select! {
            () = cancel.cancelled() => return Ok(()),
            event = events.next() => event.map_err(failed)?,
            () = told_otherwise(&mut snapshots, &key, &kernel, &told) => {}
            () = retry => {}
        }
        tokio::time::sleep(SETTLE).await;
        events.drain();
    }
}

/// Whether everything is as it should be.
fn update(kernel: &Kernel, told: &Told, known: &mut Known) -> bool {
    let view = match look(kernel, told, Moment::Later) {
        Ok(view) => view,
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "addresses and devices could not be read; trying again");
            return false;
        }
    };
    if known.0.as_ref().is_some_and(|(seen, heard)| *seen == view && heard == told) {
        return true;
    }
    let mut errors: Vec<KernelError> = write(kernel, &view, told).err().into_iter().collect();
    errors.extend(kernel.attach_devices(&view.devices));
    let told_of = known.0.take().map(|(seen, _)| seen).unwrap_or_default();
    *known = settled(view, told.clone(), &errors, &told_of);
    errors.is_empty()
}

/// Devices that packets for this node may come by and that can have no programs, by name, and why not: as far as the devices
/// and addresses of this thread's network namespace tell.
///
/// # Errors
/// rtnetlink cannot be read.
pub fn unserved_devices() -> Result<BTreeMap<String, &'static str>, KernelError> {
    let node = netlink::read().map_err(|error| KernelError::system(Step::Follow, error))?;
    let (told, served) = (Told::default(), BTreeMap::new());
    Ok(uplinks::view(&node, &Devices::Auto, &told, &served, Moment::Later).unusable)
}

/// What a Service range holds of this node, by the addresses of this thread's network namespace.
///
/// # Errors
/// rtnetlink cannot be read.
pub fn occupant_here(range: IpNetwork) -> Result<Option<Occupant>, KernelError> {
    let node = netlink::read().map_err(|error| KernelError::system(Step::Follow, error))?;
    let told = Told { service_cidrs: [range].into(), ..Told::default() };
    let view = uplinks::view(&node, &Devices::Auto, &told, &BTreeMap::new(), Moment::Later);
    Ok(view.occupied.get(&range).copied())
}

/// The node as it is.
fn look(kernel: &Kernel, told: &Told, moment: Moment) -> Result<View, KernelError> {
    let node = netlink::read().map_err(|error| KernelError::system(Step::Follow, error))?;
    Ok(uplinks::view(&node, kernel.devices(), told, &kernel.served_devices()?, moment))
}

/// Says what the programs were told. What failed is tried again as a whole.
fn settled(view: View, told: Told, errors: &[KernelError], told_of: &View) -> Known {
    for error in errors {
        tracing::warn!(error = error as &dyn std::error::Error, "node not fully followed");
    }
    let is_new = |(device, problem): &(&String, _)| told_of.unusable.get(*device) != Some(*problem);
    for (device, problem) in view.unusable.iter().filter(is_new) {
        tracing::warn!(device, problem, "not used as an uplink");
    }
    let is_new = |(range, by): &(&IpNetwork, _)| told_of.occupied.get(*range) != Some(*by);
    for (range, by) in view.occupied.iter().filter(is_new) {
        tracing::error!(
            "the Service range {range} holds {by}: its addresses that no Service has are routed like any \
             other, instead of being dropped; cure: a Service range of its own (another ServiceCIDR)"
        );
    }
    let cidrs: Vec<IpNetwork> = served_cidrs(&view, &told).collect();
    if cidrs.len() > CIDRS_MAX {
        let left_out: Vec<_> = cidrs.iter().skip(CIDRS_MAX).collect();
        tracing::warn!(
            ?left_out,
            "more than {CIDRS_MAX} ServiceCIDRs: addresses not allotted in these are routed like \
             any other; merge ranges"
        );
    }
    let uplinks: Vec<&str> = view.named(Role::Uplink).collect();
    let pods = view.named(Role::Pod).count();
    let addresses = view.addresses.len();
    let cidrs: Vec<String> = cidrs.iter().map(ToString::to_string).collect();
    tracing::info!(addresses, ?uplinks, pods, service_cidrs = ?cidrs, "following the node");
    Known(errors.is_empty().then_some((view, told)))
}

fn write(kernel: &Kernel, view: &View, told: &Told) -> Result<(), KernelError> {
    let flags = |ip| {
        let has_node_ports = kernel.node_port_addresses().has(ip, &view.own);
        NODE_ADDRESS_OWN | if has_node_ports { NODE_ADDRESS_PORTS } else { 0 }
    };
    let max = kernel.sizes().node_addresses;
    let (addresses, left_out) = view.addresses_within(max as usize);
    if left_out > 0 {
        tracing::warn!(left_out, max, "too many addresses: NodePorts do not answer at the rest");
    }
    let addresses = addresses.into_iter().map(|ip| (address(ip), flags(ip))).collect();
    let source = |ip: Option<IpAddr>| ip.map_or([0; 16], address);
    kernel.set_node(&addresses, source(view.source_v4), source(view.source_v6))?;
    kernel.set_bare_devices(view.bare.iter().copied())?;
    kernel.set_service_cidrs(served_cidrs(view, told))
}

/// The Service ranges in which nobody but Services has addresses.
fn served_cidrs(view: &View, told: &Told) -> impl Iterator<Item = IpNetwork> {
    told.service_cidrs.iter().copied().filter(|range| !view.occupied.contains_key(range))
}

/// Tells the programs the node's addresses and the Service ranges, leaves connections of netfilter's
/// their ports, and attaches the programs of devices: who is told that the node is ready may send to a
/// NodePort at once. What fails there [`follow`] tries again.
///
/// # Errors
/// rtnetlink or the pins cannot be read, or the maps not written.
pub fn prepare(
    kernel: &Kernel,
    snapshots: &Snapshots,
    node_name: &str,
) -> Result<Known, KernelError> {
    let told = Told::of(&mut snapshots.clone(), &Key::new("", node_name), kernel);
    let view = look(kernel, &told, Moment::Start)?;
    write(kernel, &view, &told)?;
    if let Err(error) = netfilter::spare(kernel.tables()) {
        tracing::warn!(
            %error,
            "what netfilter translates cannot be read: a new connection may get the port of one that \
             kube-proxy has begun"
        );
    }
    let errors = kernel.attach_devices(&view.devices);
    Ok(settled(view, told, &errors, &View::default()))
}

/// IPv4 as v4-mapped.
fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(ip) => mapped(ip.octets()),
        IpAddr::V6(ip) => ip.octets(),
    }
}

impl Told {
    fn of(snapshots: &mut Snapshots, key: &Key, kernel: &Kernel) -> Self {
        let snapshot = snapshots.borrow_and_update();
        let node = snapshot.as_ref().and_then(|snapshot| snapshot.nodes().get(key));
        let objects = snapshot.iter().flat_map(|snapshot| snapshot.service_cidrs().values());
        let ranges = objects.flat_map(|object| object.ranges.iter());
        let service_cidrs: BTreeSet<IpNetwork> =
            ranges.chain(kernel.service_cidrs()).copied().collect();
        let mut api_servers = snapshot.as_deref().map(api_servers).unwrap_or_default();
        api_servers.retain(|ip| service_cidrs.iter().any(|range| range.contains(*ip)));
        Self {
            addresses: node.map(|node| node.addresses.to_vec()).unwrap_or_default(),
            pod_cidrs: node.map(|node| node.pod_cidrs.clone()).unwrap_or_default(),
            api_servers,
            service_cidrs,
        }
    }
}

/// Returns once the cluster says something else than `told`.
async fn told_otherwise(snapshots: &mut Snapshots, key: &Key, kernel: &Kernel, told: &Told) {
    while snapshots.changed().await.is_ok() {
        if Told::of(snapshots, key, kernel) != *told {
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
