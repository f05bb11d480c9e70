use fairlead_ebpf::abi::{FirstBackends, FrontendValue};

use super::*;

fn key(address: Address, port: u16, protocol: u8) -> FrontendKey {
    FrontendKey { address, port: port.to_be_bytes(), protocol, zero: 0 }
}

fn address(text: &str) -> Address {
    crate::plan::address(text.parse().unwrap())
}

#[test]
fn frontends_in_words() {
    for (key, expected) in [
        (key(address("10.96.0.10"), 53, UDP), "udp 10.96.0.10:53"),
        (key(address("fd00::a"), 53, TCP), "tcp [fd00::a]:53"),
        (key(ANY_V4, 30080, TCP), "tcp *:30080 (NodePort, IPv4)"),
        (key(ANY_V6, 30080, UDP), "udp *:30080 (NodePort, IPv6)"),
        (key(address("10.96.0.10"), 1, SCTP), "sctp 10.96.0.10:1"),
        (key(address("10.96.0.10"), 1, 33), "protocol 33 10.96.0.10:1"),
        (FrontendKey::other_ports(address("fd00::a")), "other ports of fd00::a"),
    ] {
        assert_eq!(frontend(&key).to_string(), expected);
    }
}

#[test]
fn a_hole_in_a_set_shows() {
    let backend = |ip, flags| Backend { address: address(ip), port: [31, 144], flags };
    let value = |set_id, backends| FrontendValue {
        set_id,
        counter_id: 7,
        backends,
        ..bytemuck::Zeroable::zeroed()
    };
    let image = Image {
        frontends: [
            (key(address("10.96.0.2"), 80, TCP), value(2, 3).into()),
            (key(address("10.96.0.1"), 80, TCP), value(0, 0).into()),
        ]
        .into(),
        backends: [
            (BackendKey { set_id: 2, slot: 0 }, backend("10.0.0.1", BACKEND_LOCAL)),
            (BackendKey { set_id: 2, slot: 2 }, backend("fd00::9", 0)),
        ]
        .into(),
        ..Image::default()
    };
    assert_eq!(
        image_text(&image),
        "tcp 10.96.0.1:80 -> REJECT (no endpoints)\n\
         tcp 10.96.0.2:80 -> 10.0.0.1:8080 local, slot 1 MISSING, [fd00::9]:8080\n"
    );
}

/// Sockets were given backends that no line named.
#[test]
fn a_first_backend_that_is_another_than_its_sets_shows() {
    let backend = |last: u8| {
        let address = address(&format!("10.0.0.{last}"));
        Backend { address, port: [31, 144], flags: 0 }
    };
    let key = key(address("10.96.0.1"), 80, TCP);
    for (copies, backends, name, is_shown) in [
        (&[1, 2][..], 2, "the set's", false),
        (&[], 2, "none: they are looked up", false),
        (&[1, 9], 1, "beyond those it leads to", false),
        (&[1, 9], 2, "another", true),
        (&[2, 1], 2, "in another order", true),
        (&[1, 2, 3], 3, "of a slot that is gone", true),
    ] {
        let value = FrontendValue { set_id: 2, backends, ..bytemuck::Zeroable::zeroed() };
        let first = FirstBackends::of(&key, copies.iter().map(|last| backend(*last)));
        let slot = |slot: u8| (BackendKey { set_id: 2, slot: slot.into() }, backend(slot + 1));
        let image = Image {
            frontends: [(key, FrontendEntry { value, first })].into(),
            backends: [slot(0), slot(1)].into(),
            ..Image::default()
        };
        let text = image_text(&image);
        assert_eq!(text.ends_with("; first backends BROKEN\n"), is_shown, "{name}: {text}");
    }
}
