//! Devices, addresses and default routes, as rtnetlink tells them.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
};

use ipnetwork::IpNetwork;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::{
    AddressFamily, RouteNetlinkMessage,
    address::{AddressAttribute, AddressFlags, AddressMessage, AddressProtocol, AddressScope},
    link::{
        InfoBridge, InfoData, InfoKind, LinkAttribute, LinkFlags, LinkInfo, LinkLayerType,
        LinkMessage,
    },
    route::{RouteAttribute, RouteMessage, RouteProtocol, RouteType},
};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use tokio::io::unix::AsyncFd;

use crate::sys;

#[cfg(test)]
mod tests;

/// Multicast groups (`enum rtnetlink_groups`): links, and addresses and routes of both families.
const GROUPS: [u32; 5] = [1, 5, 7, 9, 11];
/// Longer than any message: the kernel sends dumps in pieces of at most 32 KiB.
const BUFFER_LEN: usize = 64 * 1024;

/// A network device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pub(super) name: String,
    pub(super) is_up: bool,
    pub(super) is_loopback: bool,
    pub(super) framing: Framing,
    pub(super) kind: Kind,
    /// The device this one is a port of (a bridge, a bond), by index.
    pub(super) master: Option<u32>,
    /// A bridge whose ports may see packets of its own network with a tag.
    pub(super) has_vlans: bool,
    /// Of a kind by which network plugins reach pods of other nodes, where it has no Ethernet header.
    pub(super) is_plugins: bool,
}

impl Device {
    /// Whether it leads to a pod, as far as kinds tell.
    pub(super) fn is_pods(&self) -> bool {
        // Nobody runs a pod behind a TUN device.
        self.kind == Kind::Pod && self.framing == Framing::Ethernet
    }
}

/// What its packets begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// An Ethernet header.
    Ethernet,
    /// Their IP header: IPIP, GRE, WireGuard, IPsec (XFRM, VTI), TUN, PPP.
    Bare,
    /// Something else: InfiniBand, and GRE to many, whose route writes the outer headers (`ipgre_header`).
    Other,
}

/// What is at its other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A network: of hardware, or as good as that.
    Wire,
    /// Other nodes: it carries packets inside its own.
    Overlay,
    /// Another network namespace, or a process or virtual machine.
    Pod,
    /// Whatever its ports lead to.
    Bridge,
    /// None of these: addresses that are kept somewhere, copies of packets, a device inside this namespace.
    Other,
}

/// The node's network at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Node {
    /// By index.
    pub(super) devices: BTreeMap<u32, Device>,
    /// By what was configured here.
    pub(super) configured: Reach,
    /// By what somebody at a device's other end says: Router Advertisements need no proof (RFC 6104).
    pub(super) advertised: Reach,
}

/// How a node is reached, and reaches others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// Device index and address; only such as can be dialled from elsewhere.
    pub(super) addresses: BTreeSet<(u32, IpAddr)>,
    /// Of those, the ones with neighbours of their network on the device.
    pub(super) networks: BTreeSet<(u32, IpNetwork)>,
    /// Indices of devices a default route leads through.
    pub(super) default_routes: BTreeSet<u32>,
}

impl Reach {
    /// Adds what is known of devices that `is_wanted` says yes to.
    pub(super) fn extend(&mut self, other: &Self, is_wanted: impl Fn(u32) -> bool) {
        self.addresses.extend(other.addresses.iter().filter(|(index, _)| is_wanted(*index)));
        self.networks.extend(other.networks.iter().filter(|(index, _)| is_wanted(*index)));
        self.default_routes.extend(other.default_routes.iter().filter(|index| is_wanted(**index)));
    }
}

/// Reads everything anew: a few hundred microseconds, and no state to get out of step.
pub(super) fn read() -> io::Result<Node> {
    let mut node = Node::default();
    dump(RouteNetlinkMessage::GetLink(LinkMessage::default()), &mut node)?;
    dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), &mut node)?;
    for family in [AddressFamily::Inet, AddressFamily::Inet6] {
        let mut request = RouteMessage::default();
        request.header.address_family = family;
        dump(RouteNetlinkMessage::GetRoute(request), &mut node)?;
    }
    Ok(node)
}

/// The addresses of this thread's network namespace that can be dialled from elsewhere.
pub(crate) fn addresses() -> io::Result<Vec<IpAddr>> {
    let mut node = Node::default();
    dump(RouteNetlinkMessage::GetAddress(AddressMessage::default()), &mut node)?;
    let all = [node.configured, node.advertised].map(|reach| reach.addresses);
    Ok(all.into_iter().flatten().map(|(_, ip)| ip).collect())
}

fn dump(request: RouteNetlinkMessage, node: &mut Node) -> io::Result<()> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    socket.send(&bytes, 0)?;
    loop {
        let mut buffer = Vec::with_capacity(BUFFER_LEN);
        socket.recv(&mut buffer, 0)?;
        if take_all(&buffer, node)? {
            return Ok(());
        }
    }
}

/// Takes one datagram's messages; whether the dump is over.
fn take_all(mut bytes: &[u8], node: &mut Node) -> io::Result<bool> {
    while let Some([a, b, c, d]) = bytes.first_chunk::<4>() {
        let len = usize::try_from(u32::from_ne_bytes([*a, *b, *c, *d])).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..len).filter(|message| !message.is_empty()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "rtnetlink message cut short"));
        };
        match NetlinkMessage::<RouteNetlinkMessage>::deserialize(message).map(|m| m.payload) {
            Ok(NetlinkPayload::Done(_)) => return Ok(true),
            Ok(NetlinkPayload::Error(error)) if error.code.is_some() => {
                return Err(error.to_io());
            }
            Ok(NetlinkPayload::InnerMessage(message)) => take(message, node),
            Ok(_) => {}
            // A device of a kind the decoder cannot read must not hide the others.
            Err(error) => tracing::debug!(%error, "rtnetlink message not understood"),
        }
        // Messages are aligned to four bytes.
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

fn take(message: RouteNetlinkMessage, node: &mut Node) {
    match message {
        RouteNetlinkMessage::NewLink(message) => {
            node.devices.insert(message.header.index, device(message));
        }
        RouteNetlinkMessage::NewAddress(message) => {
            let (index, prefix) = (message.header.index, message.header.prefix_len);
            let is_advertised = is_advertised(&message);
            let Some(ip) = local_address(message) else { return };
            let reach = if is_advertised { &mut node.advertised } else { &mut node.configured };
            reach.addresses.insert((index, ip));
            let network = IpNetwork::new(ip, prefix).ok().filter(|network| !is_single(network));
            reach.networks.extend(network.map(|network| (index, network)));
        }
        RouteNetlinkMessage::NewRoute(message) => {
            let reach = match message.header.protocol {
                RouteProtocol::Ra => &mut node.advertised,
                _ => &mut node.configured,
            };
            reach.default_routes.extend(default_route(&message));
        }
        _ => {}
    }
}

fn is_single(network: &IpNetwork) -> bool {
    network.prefix() == if network.is_ipv4() { 32 } else { 128 }
}

fn device(message: LinkMessage) -> Device {
    let mut device = Device {
        name: String::new(),
        is_up: message.header.flags.contains(LinkFlags::Up),
        is_loopback: message.header.flags.contains(LinkFlags::Loopback),
        framing: framing(message.header.link_layer_type, message.header.flags),
        kind: Kind::Wire,
        master: None,
        has_vlans: false,
        is_plugins: false,
    };
    let (mut is_pair, mut is_elsewhere) = (false, false);
    for attribute in message.attributes {
        match attribute {
            LinkAttribute::IfName(name) => device.name = name,
            LinkAttribute::LinkNetNsId(_) => is_elsewhere = true,
            LinkAttribute::Controller(index) => device.master = Some(index),
            LinkAttribute::LinkInfo(infos) => {
                for info in infos {
                    match info {
                        LinkInfo::Kind(kind) => {
                            is_pair = matches!(kind, InfoKind::Veth | InfoKind::Netkit);
                            device.kind = self::kind(&kind);
                            device.is_plugins = is_plugins(&kind);
                        }
                        LinkInfo::Data(InfoData::Bridge(of)) => {
                            device.has_vlans = of.contains(&InfoBridge::VlanFiltering(true));
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // A VLAN's device may be in another namespace, too.
    if is_pair && is_elsewhere {
        device.kind = Kind::Pod;
    }
    device
}

fn framing(link: LinkLayerType, flags: LinkFlags) -> Framing {
    let is_to_one = flags.contains(LinkFlags::Pointopoint) && !flags.contains(LinkFlags::Broadcast);
    match link {
        LinkLayerType::Ether => Framing::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Ppp
        | LinkLayerType::Rawip
        | LinkLayerType::Sit
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6 => Framing::Bare,
        LinkLayerType::Ipgre | LinkLayerType::Ip6gre if is_to_one => Framing::Bare,
        _ => Framing::Other,
    }
}

/// Hardware has no kind at all.
fn kind(kind: &InfoKind) -> Kind {
    match kind {
        InfoKind::BatAdv
        | InfoKind::Bond
        | InfoKind::Dsa
        | InfoKind::Hsr
        | InfoKind::Ipoib
        | InfoKind::MacSec
        | InfoKind::RmNet
        | InfoKind::Team
        | InfoKind::Vlan
        | InfoKind::Wwan => Kind::Wire,
        InfoKind::BareUdp
        | InfoKind::Geneve
        | InfoKind::GreTap
        | InfoKind::GreTap6
        | InfoKind::GreTun
        | InfoKind::GreTun6
        | InfoKind::Ip6Tnl
        | InfoKind::IpIp
        | InfoKind::SitTun
        | InfoKind::Vti
        | InfoKind::Vti6
        | InfoKind::Vxlan
        | InfoKind::Wireguard
        | InfoKind::Xfrm => Kind::Overlay,
        InfoKind::Tun => Kind::Pod,
        InfoKind::Bridge => Kind::Bridge,
        InfoKind::Other(name) => match name.as_str() {
            "ppp" => Kind::Wire,
            "ovpn" => Kind::Overlay,
            _ => Kind::Other,
        },
        _ => Kind::Other,
    }
}

/// Calico and kube-router have IPIP and the like, Calico, flannel and Kilo WireGuard. With a device of IPsec, of GRE or of a VPN
/// what comes by it is lost; with one of these, all pods of other nodes are.
fn is_plugins(kind: &InfoKind) -> bool {
    use InfoKind::{Ip6Tnl, IpIp, SitTun, Wireguard};
    matches!(kind, IpIp | Ip6Tnl | SitTun | Wireguard)
}

/// Whether a router's word is all that is behind it. The kernel says so itself; who configures addresses in its place may say
/// it by flags alone (an address by RFC 4862 from which temporary ones are made, or one of RFC 8981's).
fn is_advertised(message: &AddressMessage) -> bool {
    let flags = AddressFlags::Managetempaddr | AddressFlags::Secondary;
    message.header.family == AddressFamily::Inet6
        && message.attributes.iter().any(|attribute| match attribute {
            AddressAttribute::Protocol(by) => *by == AddressProtocol::RouterAnnouncement,
            AddressAttribute::Flags(found) => found.intersects(flags),
            _ => false,
        })
}

/// Addresses that mean something only on one link (fe80::) or only here (127.0.0.1) are no
/// address of the node to others.
fn local_address(message: AddressMessage) -> Option<IpAddr> {
    if matches!(message.header.scope, AddressScope::Link | AddressScope::Host) {
        return None;
    }
    let mut address = None;
    for attribute in message.attributes {
        match attribute {
            // On point-to-point devices the other attribute is the far end's.
            AddressAttribute::Local(ip) => return Some(ip),
            AddressAttribute::Address(ip) => address = Some(ip),
            _ => {}
        }
    }
    address
}

fn default_route(message: &RouteMessage) -> Vec<u32> {
    if message.header.destination_prefix_length != 0 || message.header.kind != RouteType::Unicast {
        return Vec::new();
    }
    let mut devices = Vec::new();
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => devices.push(*index),
            RouteAttribute::MultiPath(hops) => {
                devices.extend(hops.iter().map(|hop| hop.interface_index));
            }
            _ => {}
        }
    }
    devices
}

/// Says that something changed, never what: that is read anew.
#[derive(Debug)]
pub(super) struct Events {
    socket: AsyncFd<Socket>,
}

impl Events {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.set_non_blocking(true)?;
        let groups = GROUPS.iter().fold(0, |groups, group| groups | (1 << (group - 1)));
        socket.bind(&SocketAddr::new(0, groups))?;
        Ok(Self { socket: sys::watched(socket)? })
    }

    /// Returns at the next event, or when events were lost, which comes to the same.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        loop {
            let mut ready = self.socket.readable().await?;
            match ready.try_io(|socket| receive(socket.get_ref())) {
                Ok(result) => return result,
                Err(_would_block) => {}
            }
        }
    }

    /// Takes what has come in the meantime.
    pub(super) fn drain(&mut self) {
        while receive(self.socket.get_ref()).is_ok() {}
    }
}

fn receive(socket: &Socket) -> io::Result<()> {
    let mut buffer = Vec::with_capacity(BUFFER_LEN);
    match socket.recv(&mut buffer, 0) {
        Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
        _ => Ok(()),
    }
}
