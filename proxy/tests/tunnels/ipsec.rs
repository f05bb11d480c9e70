//! Devices without an Ethernet header whose packets come with one all the same: what IPsec has unwrapped (XFRM, VTI) keeps the
//! header of the packet it came in (skb_mac_header_rebuild). What is sent there has none.

use std::net::SocketAddr;

use aya::maps::{Array, Map, MapData};
use fairlead_ebpf::abi::{BACKEND_LOCAL, SETTINGS_INDEX, Settings, TCP, UDP, name};

use crate::support::{
    frames::Packet,
    services::node_port,
    uplink::{IN, NODE_V4, NODE_V6, OUT, Uplink, at},
    world::{World, world},
};

/// The kernel has frames that a test brings arrive there, with an Ethernet header.
const LOOPBACK: u32 = 1;

/// They were read from their first byte: an IP header of version 0, or of whatever the station's address is.
#[test]
fn bug_packets_with_a_link_header_on_a_device_that_has_none_are_read_behind_it() {
    let name = "ipsec::bug_packets_with_a_link_header_on_a_device_that_has_none_are_read_behind_it";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        make_bare(world, LOOPBACK);
        let mut set = 0;
        for (node, client, backend) in [
            (NODE_V4, "203.0.113.9:40000", "10.244.1.5:8080"),
            (NODE_V6, "[2001:db8:9::9]:40000", "[fd00:244:1::5]:8080"),
        ] {
            let client = at(client);
            let dialled = SocketAddr::new(node.parse().unwrap(), 30080);
            for protocol in [TCP, UDP] {
                set += 1;
                let key = node_port(client.is_ipv4(), 30080, protocol);
                uplink.put(key, set, &[backend], BACKEND_LOCAL);
                let first = Packet {
                    from: client,
                    to: dialled,
                    ..Packet::first(protocol, "[::1]:1", "[::1]:1")
                };
                let met = uplink.pass(IN, &first);
                assert_eq!((met.from, met.to), (client, at(backend)), "protocol {protocol}");
                let answer = uplink.pass(OUT, &met.reply());
                assert_eq!((answer.from, answer.to), (dialled, client), "protocol {protocol}");
            }
        }
    });
}

/// As the agent says it of a device.
fn make_bare(world: &World, device: u32) {
    const LEN: usize = size_of::<Settings>();
    let pin = world.bpffs.join("fairlead/maps").join(name::SETTINGS);
    let map = Map::Array(MapData::from_pin(pin).unwrap());
    let mut map: Array<_, [u8; LEN]> = map.try_into().unwrap();
    let bytes = map.get(&SETTINGS_INDEX, 0).unwrap();
    let mut settings: Settings = bytemuck::pod_read_unaligned(&bytes);
    settings.bare_devices[0] = device;
    let changed: [u8; LEN] = bytemuck::bytes_of(&settings).try_into().unwrap();
    map.set(SETTINGS_INDEX, changed, 0).unwrap();
}
