//! Flows of datagrams: each of their entries gives way by itself, and no first packet or end tells one from the next.

use fairlead_ebpf::abi::{BACKEND_LOCAL, EGRESS, INGRESS, Tuple, UDP};
use fairlead_proxy::KernelOptions;

use crate::{
    FAMILIES, FromOutside,
    support::{
        services::address,
        uplink::Uplink,
        world::{World, world},
    },
    table::{age, forget},
};

/// Backends enough that a flow which is given one anew hardly ever meets its own again.
const BACKENDS: u8 = 200;

/// Which entries of a flow are gone, seen from its backend.
type Gone = fn(&Tuple, backend: [u8; 16]) -> bool;

fn is_reply(key: &Tuple, backend: [u8; 16]) -> bool {
    key.source == backend
}

const HALVES: [(&str, Gone); 5] = [
    ("reply out", |key, backend| is_reply(key, backend) && key.hook == EGRESS),
    ("reply in", |key, backend| is_reply(key, backend) && key.hook == INGRESS),
    ("both replies", is_reply),
    ("request out", |key, backend| key.destination == backend && key.hook == EGRESS),
    ("all but the request in", |key, backend| key.hook == EGRESS || is_reply(key, backend)),
];

/// Of a flow without answers yet the entry for them was met by nothing, and pushed out by a few seconds of short connections;
/// the first answer left the node as the backend's own, and each further question kept the rest of the flow as it was.
#[test]
fn bug_a_flow_of_which_some_entries_are_gone_goes_on_there_and_back_with_its_backend() {
    let name = "datagrams::bug_a_flow_of_which_some_entries_are_gone_goes_on_there_and_back_with_\
                its_backend";
    world(name, |world| {
        let mut uplink = Uplink::new(&world.options());
        let backends = [(0, HALVES.as_slice()), (BACKEND_LOCAL, &HALVES[..1])];
        let cases = backends.map(|of| [false, true].map(|is_answered| (of, is_answered)));
        let mut set = 0;
        for (family, ((flags, halves), is_answered)) in FAMILIES
            .into_iter()
            .flat_map(|family| cases.concat().into_iter().map(move |of| (family, of)))
        {
            set += 1;
            let backends: Vec<String> = (0..BACKENDS).map(|n| family.backend(n)).collect();
            let backends: Vec<&str> = backends.iter().map(String::as_str).collect();
            uplink.put(family.key(UDP), set, &backends, flags);
            for (count, (what, is_gone)) in (1..).zip(halves) {
                let case = format!("{family:?} answered {is_answered}, flags {flags}: {what}");
                let flow = FromOutside { uplink: &uplink, first: family.first(UDP, 9, 40000) };
                let there = flow.there(&flow.first);
                if is_answered {
                    flow.open();
                }
                let backend = address(there.to.ip());
                assert_ne!(forget(&world.bpffs, |key| is_gone(key, backend)), 0, "{case}");
                next_tick(world);
                for _ in 0..2 {
                    assert_eq!(flow.there(&flow.first), there, "{case}");
                    assert_eq!(flow.and_back(&there.reply()), flow.first.reply(), "{case}");
                }
                assert_eq!(uplink.services(set), (count, 0), "{case}: it is no new one");
                forget(&world.bpffs, |_| true);
            }
        }
    });
}

/// The port that a flow goes out from may be another than the first choice.
#[test]
fn a_flow_of_which_some_entries_are_gone_keeps_its_source_port() {
    let name = "datagrams::a_flow_of_which_some_entries_are_gone_keeps_its_source_port";
    world(name, |world| {
        const PORTS: u16 = 4096;
        let options = KernelOptions { snat_ports: 57000..=57000 + PORTS - 1, ..world.options() };
        let mut uplink = Uplink::new(&options);
        for (set, family) in (1..).zip(FAMILIES) {
            uplink.put(family.key(UDP), set, &[&family.backend(5)], 0);
            // As many ports on, the first choice is the same.
            let [one, two] = [40000, 40000 + PORTS].map(|port| family.first(UDP, 9, port));
            let one = FromOutside { uplink: &uplink, first: one };
            let two = FromOutside { uplink: &uplink, first: two };
            let (first, second) = (one.there(&one.first), two.there(&two.first));
            assert_ne!(first.from, second.from);
            let backend = address(second.to.ip());
            for is_gone in HALVES[..3].iter().map(|(_, gone)| gone) {
                assert_ne!(forget(&world.bpffs, |key| is_gone(key, backend)), 0);
                next_tick(world);
                for (flow, there) in [(&two, &second), (&one, &first)] {
                    assert_eq!(flow.there(&flow.first), *there, "{family:?}");
                    assert_eq!(flow.and_back(&there.reply()), flow.first.reply(), "{family:?}");
                }
            }
        }
    });
}

/// Entries are looked after once a tick.
fn next_tick(world: &World) {
    age(&world.bpffs, 1, |_| true);
}
