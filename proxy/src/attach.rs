//! From an agent that starts to programs that run, and back.
//!
//! Maps and links are pinned: an agent that is killed or replaced leaves both behind, and the next
//! one goes on with the same maps and puts its programs into the same links.

mod cgroup;
mod devices;
mod link;
mod node_ports;
mod options;
mod pins;
pub(crate) mod settings;
mod standing;

use std::{
    collections::BTreeMap,
    fs, io,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use fairlead_ebpf::abi::{Address, BARE_DEVICES_MAX, Reason, Settings, name};
use ipnetwork::IpNetwork;

use self::{
    link::{How, Place},
    pins::Pins,
    standing::Standing,
};
use crate::{
    connections::Connections,
    error::Step,
    live::Live,
    maps::{ServiceCounts, kernel::KernelMaps},
    object::{self, Loaded, Object, Tables},
    stale,
    sys::{self, LinkInfo, LinkTarget},
};

pub use self::{
    node_ports::NodePortAddresses,
    options::{Devices, KernelOptions},
};
pub use crate::{
    error::{KernelError, Step as KernelStep},
    object::{MapSizes, Role},
    sys::PacketRun,
};

/// TCX links and BTF map definitions in one.
const KERNEL_MIN: (u32, u32) = (6, 6);

/// A device with programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attached {
    pub(crate) name: String,
    pub(crate) role: Role,
}

/// What attaching did, for logs and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AttachReport {
    /// Links of an earlier start whose program was replaced in place.
    pub adopted: usize,
    /// Links made anew.
    pub created: usize,
}

/// A program that is attached, by whichever agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attachment {
    /// The program, and for devices their index: `connect4`, `uplink_ingress_2`.
    pub name: String,
    /// The kernel's id of the link: the same as long as the link lives.
    pub link_id: u32,
    /// The kernel's id of the program: another after each start of an agent.
    pub program_id: u32,
    /// Whether what it was attached to is gone.
    pub is_orphan: bool,
}

/// The programs and their maps.
#[derive(Debug)]
pub struct Kernel {
    object: Object,
    pins: Pins,
    cgroup_root: PathBuf,
    devices: Devices,
    node_port_addresses: NodePortAddresses,
    service_cidrs: Vec<IpNetwork>,
    stale: Mutex<stale::Rounds>,
    standing: Standing,
}

impl Kernel {
    /// Makes the maps, or takes those of an earlier start: call [`Kernel::attach`] once they hold
    /// what the cluster wants. What an earlier start attached runs on meanwhile. The programs are
    /// loaded when first needed, or by [`Kernel::verify`].
    ///
    /// Call it from a thread in the node's own network namespace: that is where loopback addresses
    /// will mean the node.
    pub fn open(options: &KernelOptions) -> Result<Self, KernelError> {
        check_kernel(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default())?;
        let cgroup_root = match &options.cgroup_root {
            Some(path) => path.clone(),
            None => cgroup::find_root()?,
        };
        cgroup::open(&cgroup_root)?;
        let pins = Pins::open(&options.bpffs)?;
        let object = Object::open(options.sizes, Some(&pins.maps()))?;
        let write = || {
            let netns_cookie = sys::network_namespace_cookie()?;
            let sizes = object.tables.sizes;
            object.tables.settings.change(|found| settings::of(options, found, netns_cookie, sizes))
        };
        write()
            .inspect_err(|_| object.unpin_made())
            .map_err(|error| KernelError::system(Step::WriteNode, error))?;
        let (devices, addresses) = (options.devices.clone(), options.node_port_addresses.clone());
        let service_cidrs = options.service_cidrs.clone();
        Ok(Self {
            object,
            pins,
            cgroup_root,
            devices,
            node_port_addresses: addresses,
            service_cidrs,
            stale: Mutex::default(),
            standing: Standing::default(),
        })
    }

    /// Gives a start up. Takes back what it has pinned, and nothing that was there before: maps of this version beside those
    /// of an earlier agent whose programs serve on, which nobody would take away. Nothing once a program runs.
    ///
    /// Waits for who is attaching, in another thread; whoever begins to after it is refused. A task that nobody waits
    /// for any more would else leave links to maps without names, or put these programs in the place of the next start's.
    pub fn withdraw(&self) {
        self.standing.withdraw(|| self.object.unpin_made());
    }

    /// Has the kernel check the programs, for tens or hundreds of milliseconds, in which the maps may
    /// be filled.
    pub fn verify(&self) -> Result<(), KernelError> {
        self.object.programs().map(drop)
    }

    /// The maps, for the synchroniser. May be called more than once; all see the same maps.
    pub fn maps(&self) -> Result<KernelMaps, KernelError> {
        KernelMaps::new(&self.object.tables).map_err(|error| KernelError::system(Step::Load, error))
    }

    /// The programs' decisions as they make them.
    pub fn live(&self) -> &Live {
        &self.object.live
    }

    /// The maps as they are, for whoever only looks.
    pub(crate) fn tables(&self) -> &Tables {
        &self.object.tables
    }

    /// Makes the socket programs run in the cgroup, in place of those of an earlier start.
    ///
    /// # Errors
    /// The kernel takes or keeps a program or link not, or the start was withdrawn.
    pub fn attach(&self) -> Result<AttachReport, KernelError> {
        let programs = self.object.programs()?;
        let mut attaching = self.standing.attaching()?;
        let (cgroup, id) = cgroup::open(&self.cgroup_root)?;
        let mut report = AttachReport::default();
        for Loaded { name, attach_type, fd, .. } in &programs.of_sockets {
            let place = Place {
                target: LinkTarget::Cgroup(cgroup.as_fd()),
                info: LinkInfo::Cgroup { id, attach_type: *attach_type as u32 },
            };
            let pin = self.pins.cgroup_link(name);
            let step = Step::AttachCgroup(name);
            report.add(link::attach(fd, *attach_type, place, &pin, &step)?);
            attaching.note_link();
        }
        let own = programs.of_sockets.iter().map(|program| program.name);
        self.detach_unknown(|name| pins::device_of(name).is_none(), &own)?;
        self.pins.remove_unfinished()?;
        self.pins.remove_maps(|name| !object::is_current(name))?;
        Ok(report)
    }

    /// Takes away, of links of one sort, those of programs that are none of `own`: of a setting that is off now, or of
    /// another version. After a rollback nobody else would, and they would go on with maps that nobody writes.
    fn detach_unknown(
        &self,
        is_of_this_sort: impl Fn(&str) -> bool,
        own: &(impl Iterator<Item = &'static str> + Clone),
    ) -> Result<(), KernelError> {
        for (name, path) in self.pins.all()? {
            let program = pins::device_of(&name).map_or(name.as_str(), |(program, _)| program);
            if is_of_this_sort(&name) && !own.clone().any(|own| own == program) {
                tracing::info!(link = name, "taken away: no program of this version's");
                pins::detach(&path)?;
            }
        }
        Ok(())
    }

    /// Whether the links that keep the socket programs in the cgroup are still pinned. They are not
    /// once somebody unmounts or empties the BPF file system, and the programs are gone with them.
    pub fn is_in_place(&self) -> bool {
        let is_pinned = |name: &str| self.pins.cgroup_link(name).exists();
        self.object
            .programs()
            .is_ok_and(|programs| programs.of_sockets.iter().all(|program| is_pinned(program.name)))
    }

    /// Where NodePorts answer, as it was asked for.
    pub(crate) fn node_port_addresses(&self) -> &NodePortAddresses {
        &self.node_port_addresses
    }

    /// Where ClusterIPs come from whatever the cluster says, as it was asked for.
    pub(crate) fn service_cidrs(&self) -> &[IpNetwork] {
        &self.service_cidrs
    }

    /// Makes `addresses` the node's own (their values are `NODE_ADDRESS_*`), and `v4` and `v6` (all zero: none) those that source
    /// translation uses where the kernel does not know the route's. [`crate::node::follow`] does it by itself.
    pub fn set_node(
        &self,
        addresses: &BTreeMap<Address, u32>,
        v4: Address,
        v6: Address,
    ) -> Result<(), KernelError> {
        self.write_node(addresses, v4, v6)
            .map_err(|error| KernelError::system(Step::WriteNode, error))
    }

    /// Makes these ranges, [`crate::CIDRS_MAX`] of them at most, those that ClusterIPs come from: what is in
    /// them and not allotted is dropped. [`crate::node::follow`] does it by itself.
    pub fn set_service_cidrs(
        &self,
        ranges: impl IntoIterator<Item = IpNetwork>,
    ) -> Result<(), KernelError> {
        let (service_cidrs, service_cidr_count) = settings::cidrs(ranges);
        let settings = &self.object.tables.settings;
        let written =
            settings.change(|found| Settings { service_cidrs, service_cidr_count, ..*found });
        written.map_err(|error| KernelError::system(Step::WriteNode, error))
    }

    /// Makes these devices, by index and at most [`BARE_DEVICES_MAX`], those whose packets have no Ethernet header.
    pub(crate) fn set_bare_devices(
        &self,
        devices: impl IntoIterator<Item = u32>,
    ) -> Result<(), KernelError> {
        let mut bare_devices = [0; BARE_DEVICES_MAX];
        bare_devices.iter_mut().zip(devices).for_each(|(slot, index)| *slot = index);
        let settings = &self.object.tables.settings;
        let written = settings.change(|found| Settings { bare_devices, ..*found });
        written.map_err(|error| KernelError::system(Step::WriteNode, error))
    }

    fn write_node(
        &self,
        wanted: &BTreeMap<Address, u32>,
        v4: Address,
        v6: Address,
    ) -> io::Result<()> {
        let tables = &self.object.tables;
        let found = tables.node_addresses.entries()?;
        let stale: Vec<Address> =
            found.iter().map(|entry| entry.0).filter(|a| !wanted.contains_key(a)).collect();
        let entries: Vec<(Address, u32)> = wanted.iter().map(|(a, flags)| (*a, *flags)).collect();
        // First: they may be in the way.
        tables.node_addresses.delete(&stale)?;
        tables.node_addresses.put(&entries)?;
        tables.settings.change(|found| Settings { address_v4: v4, address_v6: v6, ..*found })
    }

    /// The uplinks as they were asked for.
    pub(crate) fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The maps' sizes as the kernel has them.
    pub fn sizes(&self) -> MapSizes {
        self.object.tables.sizes
    }

    /// What became of connections, by counter id (see `FrontendValue::counter_id`), of ids up to `last`
    /// ([`ProxyStatus::counters_last`](crate::ProxyStatus::counters_last)): whatever is beyond need not
    /// be looked at. None of services to which nothing has happened.
    pub fn services(&self, last: u32) -> Result<BTreeMap<u32, ServiceCounts>, KernelError> {
        let read = self.object.tables.counters.up_to(last);
        read.map_err(|error| KernelError::system(Step::ReadCounters, error))
    }

    /// Packets and calls that were not served, by reason; reasons never met are there with 0.
    pub fn drops(&self) -> Result<BTreeMap<Reason, u64>, KernelError> {
        let read = |reason| {
            let cpus = self.object.tables.drops.get(&(reason as u32))?.unwrap_or_default();
            Ok((reason, cpus.iter().sum()))
        };
        let all: io::Result<_> = Reason::ALL.into_iter().map(read).collect();
        all.map_err(|error| KernelError::system(Step::ReadCounters, error))
    }

    /// Ends UDP sockets, in every network namespace that is seen and can be entered, that are connected to a
    /// backend that no longer serves what was dialled: see [`crate::stale`].
    pub fn end_stale_sockets(&self) -> Result<stale::Ended, KernelError> {
        let Tables { connected_peers, datagram_peers, frontends, backends, .. } =
            &self.object.tables;
        let is_upgrade = self.object.has_made(name::CONNECTED_PEERS)
            && !self.object.has_made(name::DATAGRAM_PEERS);
        let earlier = is_upgrade.then_some(datagram_peers);
        let maps = stale::Maps { peers: connected_peers, earlier, frontends, backends };
        let mut rounds = self.stale.lock().unwrap_or_else(PoisonError::into_inner);
        stale::end(&maps, &mut rounds).map_err(|error| KernelError::system(Step::EndSockets, error))
    }

    /// The connection table.
    pub fn connections(&self) -> Result<Connections, KernelError> {
        let Tables { connections, openings, .. } = &self.object.tables;
        let clone = || Ok(Connections::new(connections.try_clone()?, openings.try_clone()?));
        clone().map_err(|error| KernelError::system(Step::Sweep, error))
    }

    /// Instructions the verifier went through for each program, by name.
    pub fn verified_instructions(&self) -> Result<BTreeMap<&'static str, u32>, KernelError> {
        let programs = self.object.programs()?.iter();
        Ok(programs.map(|program| (program.name, program.verified_instructions)).collect())
    }

    /// What is attached below `bpffs`, by name.
    pub fn attachments(bpffs: &Path) -> Result<Vec<Attachment>, KernelError> {
        let read = |(name, path): (String, PathBuf)| {
            let link = match sys::pinned(&path).and_then(sys::link_info) {
                Ok(link) => link,
                // Detached since the names were read.
                Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                Err(error) => return Some(Err(KernelError::pin(path, error))),
            };
            Some(Ok(Attachment {
                name,
                link_id: link.id,
                program_id: link.program_id,
                is_orphan: matches!(
                    link.attached_to,
                    LinkInfo::Device { index: 0, .. } | LinkInfo::Cgroup { id: 0, .. }
                ),
            }))
        };
        Pins::all_links(bpffs)?.into_iter().filter_map(read).collect()
    }

    /// What the packet program `uplink_ingress`, `pod_ingress` or `uplink_egress` makes of an Ethernet frame,
    /// outside of any network, but with the real maps; for tests, measurements and explanations.
    /// Later repetitions see what earlier ones made of the frame.
    pub fn run_on_packet(
        &self,
        program: &'static str,
        frame: &[u8],
        repeat: u32,
    ) -> Result<PacketRun, KernelError> {
        let mut programs = self.object.programs()?.of_devices.iter().map(|(program, _)| program);
        let loaded = programs.find(|loaded| loaded.name == program);
        let loaded = loaded.ok_or(KernelError::Incomplete { name: program })?;
        sys::test_run(&loaded.fd, frame, repeat)
            .map_err(|error| KernelError::system(Step::RunPacket, error))
    }

    /// Detaches and unpins everything of Fairlead's below `bpffs`, whoever left it there. Sockets
    /// that are connected stay connected.
    pub fn cleanup(bpffs: &Path) -> Result<(), KernelError> {
        pins::remove_all(bpffs)
    }
}

impl AttachReport {
    fn add(&mut self, how: How) {
        match how {
            How::Adopted => self.adopted += 1,
            How::New => self.created += 1,
        }
    }
}

/// What cannot be read is not refused: the kernel will say itself what it lacks.
fn check_kernel(release: &str) -> Result<(), KernelError> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
        return Ok(());
    };
    if (major, minor) < KERNEL_MIN {
        return Err(KernelError::OldKernel { release: release.trim().into() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
