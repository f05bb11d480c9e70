//! What a start that fails leaves behind: what was there before, and nothing else.
#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{collections::BTreeSet, fs, thread};

use aya::maps::HashMap;
use fairlead_ebpf::abi::name;
use fairlead_proxy::{Kernel, KernelError, KernelOptions, MapSizes};
use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities};
use support::world::{World, world};

mod support {
    pub(crate) mod world;
}

/// Names in the directory of maps.
fn maps(world: &World) -> BTreeSet<String> {
    let entries = fs::read_dir(world.bpffs.join("fairlead/maps")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// An earlier agent's maps, of a layout of its own and of this one's; programs that have them open run on.
fn earlier(world: &World) -> BTreeSet<String> {
    drop(Kernel::open(&world.options()).unwrap());
    let directory = world.bpffs.join("fairlead/maps");
    for name in maps(world) {
        if ![name::CONNECTIONS, name::OPENINGS, name::PEERS].contains(&name.as_str()) {
            fs::remove_file(directory.join(name)).unwrap();
        }
    }
    let old = HashMap::<_, [u8; 20], [u8; 24]>::create(10, 0).unwrap();
    old.pin(directory.join("frontends_v2")).unwrap();
    maps(world)
}

/// What loading a program takes.
const TO_LOAD: CapabilitySet = CapabilitySet::NET_ADMIN
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::PERFMON)
    .union(CapabilitySet::BPF);

/// On a kernel, or in a container, that takes no programs.
fn without_rights<T>(body: impl FnOnce() -> T) -> T {
    let all = capabilities(None).unwrap();
    let fewer = CapabilitySets { effective: all.effective - TO_LOAD, ..all };
    set_capabilities(None, fewer).unwrap();
    let result = body();
    set_capabilities(None, all).unwrap();
    result
}

/// An upgrade to another layout whose programs this kernel refuses: the earlier agent's serve on, and its names were
/// beside those of maps that nobody would ever use or take away.
#[test]
fn maps_of_a_start_whose_programs_are_refused_go_and_earlier_ones_stay() {
    world("maps_of_a_start_whose_programs_are_refused_go_and_earlier_ones_stay", |world| {
        let before = earlier(world);
        let kernel = Kernel::open(&world.options()).unwrap();
        assert!(maps(world).is_superset(&before) && maps(world).contains(name::FRONTENDS));
        without_rights(|| kernel.verify()).unwrap_err();
        kernel.withdraw();
        assert_eq!(maps(world), before);
        // The kernel has another opinion of the next one.
        let next = Kernel::open(&world.options()).unwrap();
        next.verify().unwrap();
        next.attach().unwrap();
        next.withdraw();
        assert!(maps(world).contains(name::FRONTENDS), "its programs run: their maps keep names");
        assert!(!maps(world).contains("frontends_v2"));
    });
}

/// Some maps are made and pinned before one is too large.
#[test]
fn maps_of_a_start_that_cannot_make_all_of_them_go_and_earlier_ones_stay() {
    world("maps_of_a_start_that_cannot_make_all_of_them_go_and_earlier_ones_stay", |world| {
        let before = earlier(world);
        let sizes = MapSizes { fragments: u32::MAX, ..MapSizes::default() };
        Kernel::open(&KernelOptions { sizes, ..world.options() }).unwrap_err();
        assert_eq!(maps(world), before);
    });
}

/// The agent gives a start up while a thread of its own is about to attach, or is amid of it. Links to maps that had no names
/// any more stayed: the next start made other maps, and nobody wrote these.
#[test]
fn who_withdraws_while_another_thread_attaches_leaves_all_or_nothing() {
    world("who_withdraws_while_another_thread_attaches_leaves_all_or_nothing", |world| {
        let before = earlier(world);
        let links = || Kernel::attachments(&world.bpffs).unwrap().len();
        let too_late = Kernel::open(&world.options()).unwrap();
        too_late.verify().unwrap();
        too_late.withdraw();
        let refused = too_late.attach();
        assert!(matches!(refused, Err(KernelError::Withdrawn)), "{refused:?}");
        assert_eq!((maps(world), links()), (before, 0));

        let amid = Kernel::open(&world.options()).unwrap();
        amid.verify().unwrap();
        thread::scope(|scope| {
            let attaching = scope.spawn(|| amid.attach());
            while links() == 0 && !attaching.is_finished() {
                thread::yield_now();
            }
            amid.withdraw();
            assert!(amid.is_in_place(), "it has waited for the last link");
            attaching.join().unwrap().unwrap();
        });
        assert!(maps(world).contains(name::FRONTENDS), "its programs run: their maps keep names");
    });
}
