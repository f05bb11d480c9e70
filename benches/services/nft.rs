//! A rule set of the shape kube-proxy's nftables mode writes: a map from address to chain, a chain per Service, one per endpoint.

use std::{fmt::Write as _, fs, time::Instant};

use crate::{objects, world::World};

/// Loads the rules for `count` Services into the routing namespace; milliseconds that `nft -f` took.
pub fn load_ms(world: &World, count: u64) -> f64 {
    let file = world.dir().join("rules.nft");
    fs::write(&file, rules(count)).unwrap();
    let started = Instant::now();
    let status = world.in_node("nft").arg("-f").arg(&file).status().unwrap();
    assert!(status.success(), "nft -f failed");
    started.elapsed().as_secs_f64() * 1000.0
}

fn rules(count: u64) -> String {
    let mut text = String::from("table ip kube-proxy {\n");
    for i in 0..count {
        for n in 0..2 {
            writeln!(
                text,
                "chain endpoint-{i}-{n} {{ ip saddr 10.2.0.{e} meta mark set meta mark or 0x4000; meta l4proto tcp dnat to 10.2.0.{e}:{port}; }}",
                e = n + 2,
                port = objects::PORT
            )
            .unwrap();
        }
        writeln!(
            text,
            "chain service-{i} {{ numgen random mod 2 vmap {{ 0 : goto endpoint-{i}-0, 1 : goto endpoint-{i}-1 }}; }}"
        )
        .unwrap();
    }
    text.push_str(
        "map service-ips { type ipv4_addr . inet_proto . inet_service : verdict; elements = {\n",
    );
    for i in 0..count {
        writeln!(text, "{} . tcp . 80 : goto service-{i},", objects::nft_ip(i)).unwrap();
    }
    text.push_str(
        "} }
chain services { ip daddr . meta l4proto . th dport vmap @service-ips; }
chain nat-prerouting { type nat hook prerouting priority dstnat; policy accept; jump services; }
chain nat-output { type nat hook output priority -100; policy accept; jump services; }
chain masquerading { meta mark & 0x4000 == 0 return; masquerade fully-random; }
chain nat-postrouting { type nat hook postrouting priority srcnat; policy accept; jump masquerading; }
}
",
    );
    text
}
