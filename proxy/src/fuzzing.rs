//! What the fuzz target does with bytes; a test does it with everything that was ever found.

use std::sync::{Arc, LazyLock};

use bytemuck::{AnyBitPattern, pod_read_unaligned};
use fairlead_ebpf::abi::FrontendEntry;
use fairlead_state::{Kind, Snapshot, fuzzing::cluster};

use crate::{
    image::Image,
    maps::memory::MemoryMaps,
    plan::NodeView,
    sync::Synchroniser,
    text::{image_text, plan_text},
};

const NODE: &str = "node";
/// Entries of one input.
const ENTRIES_MAX: usize = 256;
/// Slots that frontends may lead to where they are shown, one by one.
const SHOWN_MAX: usize = 4096;

static SNAPSHOT: LazyLock<Arc<Snapshot>> = LazyLock::new(|| {
    cluster(&[
        (
            Kind::Service,
            r#"{"metadata":{"name":"web","namespace":"demo"},"spec":{"type":"NodePort",
               "clusterIPs":["10.96.0.1"],"ports":[{"name":"http","port":80,"nodePort":30080}]}}"#,
        ),
        (
            Kind::EndpointSlice,
            r#"{"metadata":{"name":"web-1","namespace":"demo","labels":
               {"kubernetes.io/service-name":"web"}},"addressType":"IPv4",
               "ports":[{"name":"http","port":8080}],"endpoints":[
               {"addresses":["10.1.0.1"]},{"addresses":["10.1.0.2"],"nodeName":"node"}]}"#,
        ),
    ])
});

/// What another version, or nobody knows who, left in the maps: an agent that starts on it brings
/// them to what is wanted, and can show it before and after.
pub fn maps(bytes: &[u8]) {
    let mut maps = MemoryMaps::default();
    *maps.image_mut() = image(bytes);
    let slots =
        |value: &FrontendEntry| usize::from(value.backends) + usize::from(value.local_backends);
    if maps.image().frontends.values().map(slots).sum::<usize>() <= SHOWN_MAX {
        let _ = image_text(maps.image());
    }
    let mut sync = Synchroniser::new(maps, NODE);
    sync.reconcile(&SNAPSHOT);
    for _ in 0..2 {
        if sync.is_behind() {
            sync.retry();
        }
    }
    let wanted = plan_text(&SNAPSHOT, &NodeView::new(NODE, &SNAPSHOT));
    assert_eq!(image_text(sync.maps().image()), wanted);
}

/// Entries in a row, each behind a byte that says of which map it is.
fn image(mut bytes: &[u8]) -> Image {
    let mut image = Image::default();
    for _ in 0..ENTRIES_MAX {
        let Some((kind, rest)) = bytes.split_first() else { break };
        bytes = rest;
        let taken = match kind % 4 {
            0 => entry(&mut bytes).map(|(key, value)| _ = image.frontends.insert(key, value)),
            1 => entry(&mut bytes).map(|(key, value)| _ = image.backends.insert(key, value)),
            2 => entry(&mut bytes).map(|(key, value)| _ = image.maglev.insert(key, value)),
            _ => read(&mut bytes).map(|range| _ = image.source_ranges.insert(range)),
        };
        if taken.is_none() {
            break;
        }
    }
    image
}

fn entry<K: AnyBitPattern, V: AnyBitPattern>(bytes: &mut &[u8]) -> Option<(K, V)> {
    Some((read(bytes)?, read(bytes)?))
}

fn read<T: AnyBitPattern>(bytes: &mut &[u8]) -> Option<T> {
    let (of_it, rest) = bytes.split_at_checked(size_of::<T>())?;
    *bytes = rest;
    Some(pod_read_unaligned(of_it))
}

#[cfg(test)]
#[path = "../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{replay::replay, *};

    #[test]
    fn everything_fuzzing_has_found_is_taken() {
        replay("proxy_maps", maps);
    }
}
