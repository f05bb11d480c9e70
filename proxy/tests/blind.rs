//! Floods from forged addresses, whose sender sees no answer but may send any packet.

use fairlead_ebpf::abi::{SCTP, TCP};
use fairlead_proxy::{KernelOptions, attach::MapSizes, connections::Sweep};
use support::{
    client::{CLIENTS, Client},
    frames::{ACK, RST, SYN, read_sctp, sctp, sctp_tagged},
    services::node_port,
    uplink::{IN, NEXT, OUT, Uplink, at},
    world::world,
};

mod support {
    pub(crate) mod client;
    pub(crate) mod frames;
    pub(crate) mod services;
    pub(crate) mod uplink;
    pub(crate) mod world;
}

/// Entries of either map: the flood's connections need many times as many.
const ROOM: u32 = 2048;
const FLOOD: u16 = 6000;

/// Whatever is no number of anybody's: `n` times an odd number.
fn any(n: u16) -> u32 {
    u32::from(n).wrapping_mul(0x9e37_79b1)
}

/// Client's address, without its port, and what is dialled.
const FAMILIES: [(bool, &str, &str, &str); 2] = [
    (true, "203.0.113.9", "192.168.0.2:30080", "10.244.1.5:8080"),
    (false, "[2001:db8:9::9]", "[2001:db8::2]:30080", "[fd00:10::5]:8080"),
];

/// A backend answers each SYN, by a SYN cookie too. Whoever sent it, from any address, needs not see the answer to send an
/// ACK as well; the backend resets what acknowledges nothing of its, by the very number it was told, and a second ACK that
/// repeats it looked like that of a client that had had it. Each such pair was a settled connection: they pushed out every
/// one that was silent for a moment.
#[test]
fn blind_acks_after_a_flood_of_syns_settle_nothing_and_push_out_no_open_connection() {
    let name = "blind_acks_after_a_flood_of_syns_settle_nothing_and_push_out_no_open_connection";
    world(name, |world| {
        let sizes = MapSizes { connections: ROOM, openings: ROOM, ..MapSizes::default() };
        let mut uplink = Uplink::new(&KernelOptions { sizes, ..world.options() });
        for (set, (is_ipv4, .., backend)) in (1..).zip(FAMILIES) {
            uplink.put(node_port(is_ipv4, 30080, TCP), set, &[backend], 0);
        }
        let settled = || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().settled;
        for (before, (_, client, dialled, _)) in [0, 8].into_iter().zip(FAMILIES) {
            let silent = Client::new(&uplink, &format!("{client}:999"), dialled, any(77));
            silent.open();
            let mut met = 0;
            for n in 0..FLOOD {
                let from = format!("{client}:{}", 1024 + n);
                let forged = Client::new(&uplink, &from, dialled, any(n));
                let at_backend = forged.begin();
                let guess = any(n) ^ 0x5555_5555;
                met += u16::from(forged.says(ACK, guess).is_some());
                forged.hears(&at_backend, RST, [guess, 0]);
                forged.says(ACK, guess);
            }
            assert_eq!(met, FLOOD, "each was led to the backend, which can tell");
            assert_eq!(settled(), before + 4, "only the one that is real");
            silent.goes_on();
            // Amid what the flood has left another comes, and is as safe as the first.
            let late = Client::new(&uplink, &format!("{client}:1000"), dialled, any(78));
            late.open();
            assert_eq!(settled(), before + 8);
        }
    });
}

/// The window: what the backend sends before it hears from the client, with data in its first answer (RFC 7413), is no
/// more than a SYN has room for.
#[test]
fn a_client_is_taken_for_real_by_what_it_acknowledges_and_by_nothing_else() {
    world("a_client_is_taken_for_real_by_what_it_acknowledges_and_by_nothing_else", |world| {
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
        let settled = || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().settled;
        let (mut real, isn) = (0, u32::MAX - 9);
        let cases = [
            (ACK, isn.wrapping_add(1), true),
            (ACK, isn.wrapping_add(14_481), true),
            (ACK, isn.wrapping_add(65_536), true),
            (ACK, isn.wrapping_add(65_537), false),
            (ACK, isn.wrapping_sub(1), false),
            (ACK, 0x7000_0000, false),
            // No acknowledgement, whatever stands there.
            (0, isn.wrapping_add(1), false),
            (SYN, isn.wrapping_add(1), false),
        ];
        for (port, (flags, acknowledged, is_real)) in (40000..).zip(cases) {
            let from = format!("203.0.113.9:{port}");
            let client = Client::new(&uplink, &from, "192.168.0.2:30080", isn);
            client.begin();
            assert!(client.says(flags, acknowledged).is_some(), "led to the backend, at any rate");
            real += if is_real { 4 } else { 0 };
            assert_eq!(settled(), real, "{flags:#x} {acknowledged:#x}");
        }
    });
}

/// One whose client's first ACK another program's agent saw, or nobody: the next answer has a number, too.
#[test]
fn a_connection_whose_first_acknowledgement_was_lost_settles_by_a_later_one() {
    world("a_connection_whose_first_acknowledgement_was_lost_settles_by_a_later_one", |world| {
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(true, 30080, TCP), 1, &["10.244.1.5:8080"], 0);
        let settled = || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().settled;
        let isn = 5;
        let client = Client::new(&uplink, "203.0.113.9:40000", "192.168.0.2:30080", isn);
        let at_backend = client.begin();
        let far = isn + 3_000_000;
        client.says(ACK, far);
        assert_eq!(settled(), 0);
        client.hears(&at_backend, ACK, [far, CLIENTS + 1]);
        client.says(ACK, far + 1448);
        assert_eq!(settled(), 4);
    });
}

/// An association's tags (RFC 9260 §5.1) are what sequence numbers are to TCP: a second INIT was enough before.
#[test]
fn an_association_settles_by_the_backends_tag_and_not_by_any_other() {
    world("an_association_settles_by_the_backends_tag_and_not_by_any_other", |world| {
        const INIT: u8 = 1;
        const INIT_ACK: u8 = 2;
        const COOKIE_ECHO: u8 = 10;
        let mut uplink = Uplink::new(&world.options());
        uplink.put(node_port(true, 30080, SCTP), 1, &["10.244.1.5:8080"], 0);
        let settled = || uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().settled;
        let through = |frame: Vec<u8>| {
            [IN, OUT].into_iter().fold(frame, |frame, hook| {
                let run = uplink.kernel.run_on_packet(hook, &frame, 1).unwrap();
                assert_eq!(run.verdict, NEXT, "{hook}");
                run.packet
            })
        };
        let (client, node) = ("203.0.113.9:40000", "192.168.0.2:30080");
        let (from, backend) = read_sctp(&through(sctp(client, node, INIT)));
        assert_eq!(backend, at("10.244.1.5:8080"));
        // The tag that its receiver is to name from then on.
        let answer = sctp(&backend.to_string(), &from.to_string(), INIT_ACK);
        assert_eq!(read_sctp(&through(answer.clone())), (at(node), at(client)));
        let asked: [u8; 4] = answer[14 + 20 + 16..][..4].try_into().unwrap();
        for (chunk, tag, expected) in
            [(INIT, [0; 4], 0), (COOKIE_ECHO, [7; 4], 0), (COOKIE_ECHO, asked, 4)]
        {
            through(sctp_tagged(client, node, chunk, tag));
            assert_eq!(settled(), expected, "{chunk} {tag:?}");
        }
    });
}
