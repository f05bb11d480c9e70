use super::*;

/// kube-proxy serves them all; of some nobody was told that they were none of the programs' devices (GRE, VTI, XFRM, PPP).
#[test]
fn devices_that_carry_others_packets_are_known_with_what_their_packets_begin_with() {
    use {Framing::*, InfoKind as Is, LinkLayerType as Link};
    let (to_one, to_all) = (LinkFlags::Pointopoint, LinkFlags::Broadcast);
    let none = LinkFlags::empty();
    for (is, link, flags, kind, framing) in [
        (Is::IpIp, Link::Tunnel, to_one, Kind::Overlay, Bare),
        (Is::SitTun, Link::Sit, to_one, Kind::Overlay, Bare),
        (Is::Ip6Tnl, Link::Tunnel6, to_one, Kind::Overlay, Bare),
        (Is::GreTun, Link::Ipgre, to_one, Kind::Overlay, Bare),
        (Is::GreTun, Link::Ipgre, none, Kind::Overlay, Other),
        (Is::GreTun, Link::Ipgre, to_one | to_all, Kind::Overlay, Other),
        (Is::GreTun6, Link::Ip6gre, to_one, Kind::Overlay, Bare),
        (Is::GreTun6, Link::Ip6gre, none, Kind::Overlay, Other),
        (Is::GreTap, Link::Ether, to_all, Kind::Overlay, Ethernet),
        (Is::Vti, Link::Tunnel, to_one, Kind::Overlay, Bare),
        (Is::Vti6, Link::Tunnel6, to_one, Kind::Overlay, Bare),
        (Is::Xfrm, Link::None, none, Kind::Overlay, Bare),
        (Is::Wireguard, Link::None, to_one, Kind::Overlay, Bare),
        (Is::Other("ovpn".into()), Link::None, to_one, Kind::Overlay, Bare),
        (Is::Tun, Link::None, to_one, Kind::Pod, Bare),
        (Is::Tun, Link::Ether, to_all, Kind::Pod, Ethernet),
        (Is::Other("ppp".into()), Link::Ppp, to_one, Kind::Wire, Bare),
        (Is::Ipoib, Link::Infiniband, to_all, Kind::Wire, Other),
        (Is::Vlan, Link::Ether, to_all, Kind::Wire, Ethernet),
        (Is::MacVlan, Link::Ether, to_all, Kind::Other, Ethernet),
    ] {
        let mut message = LinkMessage::default();
        message.header.link_layer_type = link;
        message.header.flags = flags;
        let what = format!("{is:?} {flags:?}");
        let is_plugins = matches!(is, Is::IpIp | Is::SitTun | Is::Ip6Tnl | Is::Wireguard);
        message.attributes = vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(is)])];
        let device = device(message);
        assert_eq!((device.kind, device.framing), (kind, framing), "{what}");
        assert_eq!(device.is_plugins, is_plugins, "{what}");
    }
}
