//! The connection table as it is pinned, for what would take days.
#![expect(clippy::expect_used, reason = "clippy knows test functions, but not what they share")]

use std::path::Path;

use aya::maps::{HashMap, Map, MapData};
use fairlead_ebpf::abi::{Connection, Tuple, name};

type Table = HashMap<MapData, [u8; 40], [u8; 36]>;

fn tables(bpffs: &Path) -> [Table; 2] {
    [name::CONNECTIONS, name::OPENINGS].map(|name| {
        let data = MapData::from_pin(bpffs.join("fairlead/maps").join(name)).expect("pinned");
        HashMap::try_from(Map::LruHashMap(data)).expect("a hash map")
    })
}

/// Takes entries out of the table; how many.
pub(crate) fn forget(bpffs: &Path, which: impl Fn(&Tuple) -> bool) -> usize {
    let mut count = 0;
    for mut table in tables(bpffs) {
        let keys: Vec<[u8; 40]> = table.keys().map_while(Result::ok).collect();
        for key in
            keys.into_iter().filter(|key| which(&bytemuck::pod_read_unaligned(key.as_slice())))
        {
            table.remove(&key).expect("it is there");
            count += 1;
        }
    }
    count
}

/// Makes it so many ticks later for these entries: nothing has met them meanwhile.
pub(crate) fn age(bpffs: &Path, ticks: u32, which: impl Fn(&Tuple) -> bool) {
    for mut table in tables(bpffs) {
        let all: Vec<([u8; 40], [u8; 36])> = table.iter().map_while(Result::ok).collect();
        for (key, value) in all {
            let mut entry: Connection = bytemuck::pod_read_unaligned(&value);
            if which(&bytemuck::pod_read_unaligned(&key)) {
                entry.seen = entry.seen.wrapping_sub(ticks);
                let value = <[u8; 36]>::try_from(bytemuck::bytes_of(&entry)).expect("as long");
                table.insert(key, value, 0).expect("it is there");
            }
        }
    }
}
