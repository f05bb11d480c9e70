//! Packets that would end a connection, or begin it anew: who forges them sees no answer, and knows no number.
#![expect(clippy::unwrap_used, reason = "clippy knows test functions, but not what they share")]

use fairlead_ebpf::abi::{BACKEND_LOCAL, SCTP, TCP};
use fairlead_proxy::connections::Sweep;

use crate::{
    FAMILIES, Family,
    support::{
        client::Client,
        frames::{ACK, Packet, RST, SYN, read_sctp, sctp, sctp_tagged},
        uplink::{IN, OUT, Uplink, at},
        world::{World, world},
    },
    table::age,
};

const BACKEND_ISN: u32 = u32::MAX - 5;
/// Long for a connection that is over, short for one that is open.
const HOURS: u32 = 20_000;

/// Where a backend may be, and how many entries its connections have.
const PLACES: [(u16, usize); 2] = [(BACKEND_LOCAL, 2), (0, 4)];

fn settled(uplink: &Uplink) -> usize {
    uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap().settled
}

/// Nodes of each family whose NodePort leads to a backend in each place: the first of two that are named.
fn each(test: &str, check: impl Fn(&World, &mut Uplink, Family, (u16, usize), [&str; 2])) {
    world(test, |world| {
        for family in FAMILIES {
            for place in PLACES {
                let mut uplink = Uplink::new(&world.options());
                let [old, new] = [5, 6].map(|n| family.backend(n));
                uplink.put(family.key(TCP), 1, &[&old], place.0);
                check(world, &mut uplink, family, place, [&old, &new]);
            }
        }
    });
}

/// What is said at the end of a connection, whose last packet the backend got as this one.
type Ending<'a> = &'a dyn Fn(&Client<'_>, &Packet);

/// It is as if it had never begun.
fn forget_all(uplink: &Uplink, world: &World) {
    crate::table::forget(&world.bpffs, |_| true);
    assert_eq!(settled(uplink), 0);
}

fn client<'a>(uplink: &'a Uplink, family: Family) -> Client<'a> {
    Client::new(uplink, &family.client(9, 40000), family.dialled, BACKEND_ISN)
}

/// Any sequence number was good enough: two minutes later the table had forgotten a connection that was idle, and after two
/// seconds its port could be another's.
#[test]
fn a_forged_reset_ends_no_idle_connection() {
    let name = "resets::a_forged_reset_ends_no_idle_connection";
    each(name, |world, uplink, family, (_, entries), _| {
        let idle = client(uplink, family);
        let met = idle.open();
        let [own, backends] = idle.next();
        for guess in [65_537, 0x4000_0000, 0x8000_0000, 0xc000_0000, u32::MAX] {
            idle.sends(RST, [own.wrapping_add(guess), 0]);
            idle.sends(RST | ACK, [own.wrapping_add(guess), backends]);
            idle.hears(&met, RST, [backends.wrapping_add(guess), 0]);
            assert_eq!(settled(uplink), entries, "{family:?} {guess:#x}");
        }
        age(&world.bpffs, HOURS, |_| true);
        assert_eq!(settled(uplink), entries, "{family:?}: it may be silent as before");
        assert_eq!(idle.goes_on().to, met.to);
        forget_all(uplink, world);
    });
}

/// One in 65,536 guesses is where data could be on its way. Whoever lives answers it (RFC 5961 §3.2), and then both directions
/// are as before: the client has nothing to say for hours.
#[test]
fn a_lucky_forged_reset_is_taken_back_by_the_answer_of_who_lives() {
    let name = "resets::a_lucky_forged_reset_is_taken_back_by_the_answer_of_who_lives";
    each(name, |world, uplink, family, (_, entries), _| {
        let idle = client(uplink, family);
        let met = idle.open();
        let [own, backends] = idle.next();
        idle.sends(RST, [own.wrapping_add(1000), 0]);
        assert_eq!(settled(uplink), 0, "{family:?}: it may be true");
        idle.hears(&met, ACK, [backends, own]);
        assert_eq!(settled(uplink), entries, "{family:?}: the challenge");
        idle.hears(&met, RST, [backends.wrapping_add(1000), 0]);
        assert_eq!(settled(uplink), 0, "{family:?}: of the backend's");
        idle.says(ACK, backends);
        assert_eq!(settled(uplink), entries, "{family:?}: the client's challenge");
        age(&world.bpffs, HOURS, |_| true);
        assert_eq!(settled(uplink), entries, "{family:?}");
        assert_eq!(idle.goes_on().to, met.to);
        forget_all(uplink, world);
    });
}

#[test]
fn resets_of_either_end_end_a_connection_at_once() {
    let name = "resets::resets_of_either_end_end_a_connection_at_once";
    each(name, |world, uplink, family, (_, entries), _| {
        let [own, backends] = client(uplink, family).next();
        let none = |_: &Client<'_>, _: &Packet| {};
        // As a health check of a balancer's does it: no data.
        let at_once = |one: &Client<'_>, _: &Packet| drop(one.sends(RST | ACK, [own, backends]));
        // An upload that is given up: what is on its way is acknowledged, and those segments are answered with resets
        // (RFC 9293 §3.10.7.1).
        let upload = |one: &Client<'_>, met: &Packet| {
            one.sends(ACK, [own.wrapping_add(500_000), backends]);
            one.sends(RST, [own.wrapping_add(501_000), backends]);
            one.hears(met, ACK, [backends, own.wrapping_add(300_000)]);
            one.sends(RST, [own.wrapping_add(300_000), 0]);
        };
        // The last answer has not been acknowledged yet.
        let answered = |one: &Client<'_>, met: &Packet| {
            one.hears(met, ACK, [backends, own]);
            one.hears(met, RST | ACK, [backends.wrapping_add(3000), own]);
        };
        // The backend was started anew, and knows nothing of it.
        let reborn = |one: &Client<'_>, met: &Packet| {
            one.sends(ACK, [own, backends.wrapping_add(70)]);
            one.hears(met, RST, [backends.wrapping_add(70), 0]);
        };
        let endings: [(Ending<'_>, usize); 5] =
            [(&none, entries), (&at_once, 0), (&upload, 0), (&answered, 0), (&reborn, 0)];
        for (at, (ending, left)) in endings.into_iter().enumerate() {
            let one = client(uplink, family);
            let met = one.open();
            ending(&one, &met);
            assert_eq!(settled(uplink), left, "{family:?} {at}");
            age(&world.bpffs, 150, |_| true);
            let swept = uplink.kernel.connections().unwrap().sweep(Sweep::Over).unwrap();
            assert_eq!(swept.removed, entries - left, "{family:?} {at}");
            forget_all(uplink, world);
        }
    });
}

/// Also before anybody has said anything: the answer to a health check's SYN is the last word of the backend.
#[test]
fn a_reset_right_after_the_handshake_is_believed_and_a_forged_one_is_not() {
    let name = "resets::a_reset_right_after_the_handshake_is_believed_and_a_forged_one_is_not";
    each(name, |world, uplink, family, (_, entries), _| {
        for (guess, left) in [(0x2000_0000, entries), (0, 0)] {
            let one = client(uplink, family);
            one.begin();
            let [own, backends] = one.next();
            one.says(ACK, backends);
            one.sends(RST, [own.wrapping_add(guess), 0]);
            assert_eq!(settled(uplink), left, "{family:?} {guess:#x}");
            forget_all(uplink, world);
        }
    });
}

/// Such a SYN opened the connection anew, to another backend, where the old one had left the service: the client's next
/// packet met a stranger, who reset it. netfilter ignores the SYN, and the backend answers it (RFC 5961 §4.2).
#[test]
fn a_forged_or_late_syn_leads_no_open_connection_away_from_a_backend_that_left() {
    let name =
        "resets::a_forged_or_late_syn_leads_no_open_connection_away_from_a_backend_that_left";
    each(name, |world, uplink, family, (place, entries), [old, new]| {
        let met = client(uplink, family).open();
        uplink.put(family.key(TCP), 2, &[new], place);
        let idle = client(uplink, family);
        let [own, backends] = idle.next();
        for sequence in [idle.numbers[0], 7] {
            for _ in 0..3 {
                let syn = idle.sends(SYN, [sequence, 0]).unwrap();
                assert_eq!(syn.to, at(old), "{family:?} {sequence}");
                idle.hears(&met, ACK, [backends, own]);
                age(&world.bpffs, 5, |_| true);
            }
        }
        assert_eq!(settled(uplink), entries);
        // Nor may a reset that nobody has seen the numbers for be believed after it.
        idle.sends(SYN, [7, 0]);
        idle.sends(RST, [own.wrapping_add(0x4000_0000), 0]);
        assert_eq!(settled(uplink), entries);
        age(&world.bpffs, HOURS, |_| true);
        assert_eq!(idle.goes_on().to, at(old));
        let other = Client::new(uplink, &family.client(9, 40001), family.dialled, BACKEND_ISN);
        assert_eq!(other.begin().to, at(new), "whoever is new meets who serves");
        forget_all(uplink, world);
    });
}

/// The backend still knows the client's old connection, challenges the new SYN, and the client resets the old one by the
/// number it is told: plain TCP (RFC 9293 §3.5.1, figure 9).
#[test]
fn a_client_that_was_started_anew_on_its_old_port_is_served_anew() {
    let name = "resets::a_client_that_was_started_anew_on_its_old_port_is_served_anew";
    each(name, |world, uplink, family, (place, _), [old, new]| {
        let met = client(uplink, family).open();
        uplink.put(family.key(TCP), 2, &[new], place);
        let anew = client(uplink, family);
        let [own, backends] = anew.next();
        assert_eq!(anew.sends(SYN, [7, 0]).unwrap().to, at(old), "{family:?}");
        anew.hears(&met, ACK, [backends, own]);
        assert_eq!(anew.sends(RST, [own, 0]).unwrap().to, at(old), "{family:?}");
        let syn = anew.sends(SYN, [7, 0]).unwrap();
        assert_eq!(syn.to, at(new), "{family:?}");
        anew.hears(&syn, SYN | ACK, [99, 8]);
        assert_eq!(anew.sends(ACK, [8, 100]).unwrap().to, at(new));
        forget_all(uplink, world);
    });
}

#[test]
fn a_syn_that_the_backend_refuses_or_nobody_answers_is_led_to_who_serves() {
    let name = "resets::a_syn_that_the_backend_refuses_or_nobody_answers_is_led_to_who_serves";
    each(name, |world, uplink, family, (place, _), [old, new]| {
        for is_refused in [true, false] {
            uplink.put(family.key(TCP), 1, &[old], place);
            let met = client(uplink, family).open();
            uplink.put(family.key(TCP), 2, &[new], place);
            let anew = client(uplink, family);
            assert_eq!(anew.sends(SYN, [7, 0]).unwrap().to, at(old), "{family:?}");
            if is_refused {
                anew.hears(&met, RST | ACK, [0, 8]);
            } else {
                assert_eq!(anew.sends(SYN, [7, 0]).unwrap().to, at(old), "at once: nobody knows");
                age(&world.bpffs, 2, |_| true);
            }
            let syn = anew.sends(SYN, [7, 0]).unwrap();
            assert_eq!(syn.to, at(new), "{family:?} {is_refused}");
            let seen = anew.hears(&syn, SYN | ACK, [99, 8]);
            assert_eq!((seen.from, seen.to), (anew.syn.to, anew.syn.from), "{family:?}");
            forget_all(uplink, world);
        }
    });
}

/// An INIT is answered by who has the association, too (RFC 9260 §5.2.2).
#[test]
fn a_forged_or_late_init_leads_no_open_association_away_from_a_backend_that_left() {
    let name =
        "resets::a_forged_or_late_init_leads_no_open_association_away_from_a_backend_that_left";
    world(name, |world| {
        const INIT: u8 = 1;
        const INIT_ACK: u8 = 2;
        const COOKIE_ECHO: u8 = 10;
        // What `sctp` asks for.
        const TAG: [u8; 4] = [1, 2, 3, 4];
        let mut uplink = Uplink::new(&world.options());
        for (set, family) in [1, 3].into_iter().zip(FAMILIES) {
            let [old, new] = [5, 6].map(|n| family.backend(n));
            uplink.put(family.key(SCTP), set, &[&old], BACKEND_LOCAL);
            let client = family.client(9, 40000);
            let through = |uplink: &Uplink, frame: &[u8]| {
                [IN, OUT].into_iter().fold(frame.to_vec(), |frame, hook| {
                    uplink.kernel.run_on_packet(hook, &frame, 1).unwrap().packet
                })
            };
            let init = sctp(&client, family.dialled, INIT);
            let says = |uplink: &Uplink| read_sctp(&through(uplink, &init)).1;
            let answer = |uplink: &Uplink| {
                let seen = through(uplink, &sctp(&old, &client, INIT_ACK));
                assert_eq!(read_sctp(&seen), (at(family.dialled), at(&client)));
            };
            assert_eq!(says(&uplink), at(&old));
            answer(&uplink);
            through(&uplink, &sctp_tagged(&client, family.dialled, COOKIE_ECHO, TAG));
            uplink.put(family.key(SCTP), set + 1, &[&new], BACKEND_LOCAL);
            for _ in 0..3 {
                assert_eq!(says(&uplink), at(&old), "{family:?}");
                answer(&uplink);
                age(&world.bpffs, 5, |_| true);
            }
            assert_eq!(says(&uplink), at(&old), "{family:?}");
            age(&world.bpffs, 2, |_| true);
            assert_eq!(says(&uplink), at(&new), "{family:?}: nobody has answered the last one");
        }
    });
}
