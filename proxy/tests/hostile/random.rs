//! Packets at random, spoiled at random.
//!
//! `FAIRLEAD_HOSTILE_SEED=N` ends with that seed, which a failure names; what the tables hold is of those before it.

use std::{collections::BTreeMap, env};

use fairlead_ebpf::{
    abi::{Address, Reason, TCP, UDP},
    packet::mapped,
};
use rand::{Rng as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::{
    CLIENTS, ETHERNET, HEADERS, TARGETS,
    fault::fault,
    shortest, start,
    support::{
        frames::{Packet, fragment, refresh_header, sctp, too_big},
        services::address,
        uplink::{DROP, IN, NEXT, NODE_V4, NODE_V6, OUT, POD, REDIRECT},
        world::world,
    },
};

const SEED_VARIABLE: &str = "FAIRLEAD_HOSTILE_SEED";
const SEEDS: u64 = 40;
const FRAMES: u32 = 1500;

/// A frame as somebody might send it in good faith.
fn honest(random: &mut StdRng) -> Vec<u8> {
    let family = random.random_range(0..2usize);
    let (client, target) = (CLIENTS[family], *TARGETS[family].choose(random).unwrap());
    let client = client.replace("40000", &random.random_range(1..65535u16).to_string());
    let protocol = *[TCP, UDP].choose(random).unwrap();
    let mut packet = Packet::first(protocol, &client, target);
    packet.payload = vec![7; random.random_range(0..64)];
    match random.random_range(0..10) {
        0 => sctp(&client, target, random.random_range(0..3)),
        1 => {
            let [router, to] =
                if family == 0 { ["203.0.113.1", NODE_V4] } else { ["2001:db8:9::1", NODE_V6] };
            too_big(router.parse().unwrap(), to.parse().unwrap(), &packet.reply())
        }
        2 => packet.reply().frame(),
        3 => packet.later().frame(),
        4 => {
            let whole = packet.frame();
            let payload = whole.len() - ETHERNET - HEADERS[family];
            let from = 8 * random.random_range(0..3);
            fragment(&whole, from.min(payload / 8 * 8), random.random_range(1..40))
        }
        5 if family == 1 => with_extensions(random, &packet.frame()),
        _ => packet.frame(),
    }
}

/// Extension headers, legal and not, before the transport header.
fn with_extensions(random: &mut StdRng, frame: &[u8]) -> Vec<u8> {
    const KINDS: [u8; 8] = [0, 43, 44, 60, 51, 135, 59, 50];
    let (head, rest) = frame.split_at(ETHERNET + 40);
    let mut head = head.to_vec();
    let mut extensions = Vec::new();
    let mut next_at = ETHERNET + 6;
    let mut all = head.clone();
    for _ in 0..random.random_range(1..7) {
        let kind = *KINDS.choose(random).unwrap();
        let len = if kind == 44 { 0 } else { random.random_range(0..3u8) };
        let mut header = vec![0; (usize::from(len) + 1) * 8];
        random.fill(&mut header[2..]);
        header[0] = all[next_at];
        header[1] = len;
        all[next_at] = kind;
        next_at = all.len();
        all.extend(header.iter());
        extensions.extend(header);
    }
    head = all[..ETHERNET + 40].to_vec();
    let extensions = all[ETHERNET + 40..].to_vec();
    let len = u16::try_from(extensions.len() + rest.len()).unwrap();
    head[ETHERNET + 4..ETHERNET + 6].copy_from_slice(&len.to_be_bytes());
    [head, extensions, rest.to_vec()].concat()
}

/// Makes it worse.
fn spoil(random: &mut StdRng, frame: &mut Vec<u8>) {
    let is_ipv4 = frame[12..14] == [0x08, 0x00];
    let martians: [[u8; 4]; 6] =
        [[0; 4], [127, 0, 0, 1], [224, 0, 0, 1], [255; 4], [10, 96, 0, 1], [192, 168, 0, 2]];
    match random.random_range(0..9) {
        0 => frame.truncate(random.random_range(shortest(frame)..=frame.len())),
        1 => frame.extend(std::iter::repeat_n(0xee, random.random_range(1..40))),
        // Version and header length.
        2 => spoil_byte(random, frame, ETHERNET),
        // Its own length.
        3 => spoil_byte(random, frame, ETHERNET + if is_ipv4 { 2 } else { 4 }),
        4 => spoil_byte(random, frame, ETHERNET + if is_ipv4 { 3 } else { 5 }),
        // Flags, fragment offset; the next header.
        5 => {
            let at = *if is_ipv4 { [6usize, 7, 9] } else { [6, 6, 6] }.choose(random).unwrap();
            spoil_byte(random, frame, ETHERNET + at);
        }
        6 if is_ipv4 && frame.len() >= 34 => {
            let at = if random.random() { 26 } else { 30 };
            frame[at..at + 4].copy_from_slice(martians.choose(random).unwrap());
        }
        6 if frame.len() >= 54 => {
            let forged: Address = match random.random_range(0..4) {
                0 => [0; 16],
                1 => [0xff; 16],
                2 => mapped([10, 96, 0, 1]),
                _ => address("::1".parse().unwrap()),
            };
            let at = ETHERNET + if random.random() { 8 } else { 24 };
            frame[at..at + 16].copy_from_slice(&forged);
        }
        // Anywhere in the headers.
        _ => {
            let at = random.random_range(ETHERNET..ETHERNET + 80);
            spoil_byte(random, frame, at);
        }
    }
    if is_ipv4 && frame.len() >= 34 && random.random() {
        refresh_header(frame);
    }
}

fn spoil_byte(random: &mut StdRng, frame: &mut [u8], at: usize) {
    if let Some(byte) = frame.get_mut(at) {
        *byte = random.random();
    }
}

fn last_seed() -> u64 {
    env::var(SEED_VARIABLE).map_or(SEEDS - 1, |seed| seed.parse().unwrap())
}

#[test]
fn nothing_hostile_is_translated_wrongly_answered_to_nobody_or_leaks() {
    world("random::nothing_hostile_is_translated_wrongly_answered_to_nobody_or_leaks", |world| {
        let uplink = start(&world.options());
        let mut met: BTreeMap<(&str, i32, bool), u32> = BTreeMap::new();
        for seed in 0..=last_seed() {
            let mut random = StdRng::seed_from_u64(seed);
            for number in 0..FRAMES {
                let mut frame = honest(&mut random);
                for _ in 0..random.random_range(0..3) {
                    spoil(&mut random, &mut frame);
                }
                let hook = *[IN, POD, OUT].choose(&mut random).unwrap();
                let run = uplink.kernel.run_on_packet(hook, &frame, 1).unwrap();
                let fault = fault(hook, &frame, run.verdict, &run.packet);
                let (verdict, after) = (run.verdict, &run.packet);
                assert_eq!(
                    fault, None,
                    "frame {number} of {SEED_VARIABLE}={seed}, {hook}: {frame:02x?} met {verdict}: \
                     {after:02x?}"
                );
                *met.entry((hook, verdict, *after != frame)).or_default() += 1;
            }
        }
        // A test that met nothing would prove nothing.
        let enough = 2 * (last_seed() + 1);
        for kind in [(IN, NEXT, true), (IN, NEXT, false), (IN, DROP, false), (IN, REDIRECT, true)] {
            let count = met.get(&kind).copied().unwrap_or_default();
            assert!(u64::from(count) > enough, "{kind:?} of {met:?}");
        }
        assert!(met.contains_key(&(OUT, DROP, false)), "{met:?}");
        for reason in
            [Reason::Malformed, Reason::Martian, Reason::Fragment, Reason::ExtensionHeader]
        {
            assert!(uplink.count(reason) > enough, "{reason:?}: {}", uplink.count(reason));
        }
    });
}
