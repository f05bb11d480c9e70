//! Random changes, failing maps, crashes: at no entry written is there anything a reader could trip
//! over, and at rest the maps are as planned.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    ops::RangeInclusive,
    sync::LazyLock,
};

use fairlead_ebpf::abi::{Backend, BackendKey, FrontendEntry, FrontendKey, MaglevKey, MaglevPart};
use fairlead_proxy::{
    delta::{FullMap, Step},
    image::Image,
    maps::{
        Capacities, Entry, MapError, Maps, ServiceCounts, faulty::FaultyMaps, memory::MemoryMaps,
    },
    plan::Plans,
    port_range::{PortRange, node_port},
    sync::{Full, Synchroniser},
    text,
};
use fairlead_state::Key;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};

use crate::{
    objects::{Cluster, NODE, node_view},
    random,
};

const SEEDS: u64 = 40;
const CHANGES: usize = 120;
/// Set it to one number to see that run again.
const SEED_VARIABLE: &str = "FAIRLEAD_SIMULATION_SEED";

/// Maps that look at themselves after every entry.
struct Watched {
    maps: MemoryMaps,
    /// Content of sets some frontend leads to.
    live: BTreeMap<u32, Content>,
    /// Frontends that were there and are still wanted: they may not vanish.
    lasting: BTreeSet<FrontendKey>,
    entries: u64,
    at: String,
}

impl Watched {
    fn new(maps: MemoryMaps) -> Self {
        let (live, lasting) = (BTreeMap::new(), BTreeSet::new());
        Self { maps, live, lasting, entries: 0, at: String::new() }
    }

    fn look(&mut self) {
        let image = self.maps.image();
        assert_eq!(random::hole(image), None, "{}", self.at);
        let sought = image.node_ports;
        let unseen = image
            .frontends
            .keys()
            .filter_map(node_port)
            .find(|port| sought.with(PortRange::new(*port, *port)) != sought);
        assert_eq!(unseen, None, "a NodePort beside {sought:?}; {}", self.at);
        let own: RangeInclusive<u16> = image.source_ports.into();
        let dialled = image.frontends.keys().filter(|key| is_port(key));
        let shared = dialled.filter_map(node_port).find(|port| own.contains(port));
        assert_eq!(shared, None, "a NodePort among {own:?}; {}", self.at);
        let live: BTreeMap<u32, Content> = image
            .frontends
            .values()
            .flat_map(|v| [(v.set_id, v.backends), (v.local_set_id, v.local_backends)])
            .filter(|(_, backends)| *backends > 0)
            .map(|(set_id, _)| (set_id, content(image, set_id)))
            .collect();
        for (id, now) in &live {
            let before = self.live.get(id).unwrap_or(now);
            assert_eq!(before, now, "set {id} changed while in use; {}", self.at);
        }
        self.live = live;
        let gone = self.lasting.iter().find(|key| !image.frontends.contains_key(*key));
        if let Some(gone) = gone {
            panic!("{} vanished for a moment; {}", text::frontend(gone), self.at);
        }
    }
}

/// What a Service has once a frontend of it was dialled.
static COUNTED: LazyLock<ServiceCounts> =
    LazyLock::new(|| ServiceCounts { selected: 1, ..ServiceCounts::default() });

/// Who has each frontend.
type Owners = BTreeMap<FrontendKey, Key>;

/// Slots and table of a set.
type Content = (Vec<Backend>, Vec<MaglevPart>);

fn content(image: &Image, set_id: u32) -> Content {
    let first = BackendKey { set_id, slot: 0 };
    let last = BackendKey { set_id, slot: u32::MAX };
    let slots = image.backends.range(first..=last).map(|(_, backend)| *backend).collect();
    let [first, last] = [0, u32::MAX].map(|part| MaglevKey { set_id, part });
    (slots, image.maglev.range(first..=last).map(|(_, part)| *part).collect())
}

impl Maps for Watched {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        self.maps.each(take)
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        self.maps.apply(step)?;
        self.entries += 1;
        self.look();
        Ok(())
    }

    fn capacities(&self) -> Capacities {
        self.maps.capacities()
    }

    fn counters(&self) -> Result<BTreeMap<u32, ServiceCounts>, MapError> {
        self.maps.counters()
    }

    fn named_by_connections(&self) -> Result<BTreeSet<u32>, MapError> {
        self.maps.named_by_connections()
    }
}

/// One life of a node.
struct Run {
    random: StdRng,
    cluster: Cluster,
    sync: Synchroniser<FaultyMaps<Watched>>,
    crashes: usize,
    /// Where there is none, what is beside frontends and the refusal of other ports make way.
    has_room: bool,
    /// What the last start found: counter ids, and who has the frontends. Some may have been others' before, which nobody can know.
    found: BTreeMap<FrontendKey, (u32, Option<Key>)>,
}

impl Run {
    fn new(seed: u64, capacities: Capacities) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let watched = Watched::new(MemoryMaps::new(capacities));
        let maps = FaultyMaps::new(watched, random.random(), 0);
        let sync = Synchroniser::new(maps, NODE);
        let has_room = capacities == ROOMY;
        let (cluster, found) = (Cluster::new(), BTreeMap::new());
        Self { random, cluster, sync, crashes: 0, has_room, found }
    }

    /// Stops the synchroniser, works on what it leaves behind, and starts another.
    fn restart(&mut self, owners: &Owners, between: impl FnOnce(&mut FaultyMaps<Watched>)) {
        let idle = FaultyMaps::new(Watched::new(MemoryMaps::default()), 0, 0);
        let stopped = std::mem::replace(&mut self.sync, Synchroniser::new(idle, NODE));
        let mut maps = stopped.into_maps();
        between(&mut maps);
        let frontends = maps.inner().maps.image().frontends.iter();
        let found = frontends
            .map(|(key, entry)| (*key, (entry.value.counter_id, owners.get(key).cloned())));
        self.found = found.collect();
        self.sync = Synchroniser::new(maps, NODE);
    }

    fn step(&mut self, name: &str) {
        let changes = self.random.random_range(1..8);
        let changes: Vec<_> = (0..changes).map(|_| random::change(&mut self.random)).collect();
        let snapshot = self.cluster.apply(changes);
        let wanted = crate::objects::plans(&snapshot);
        let has_room = self.has_room;
        let crash = self.random.random_bool(0.15).then(|| self.random.random_range(0..30));
        let faults = if self.random.random_bool(0.5) { 300 } else { 0 };
        let lives = self.random.random_bool(0.2);
        let owners = owners(&wanted);
        let ids = self.sync.status().counter_owners;
        // Without room for who has a frontend now it goes, and comes when there is some.
        let lasts = |(key, entry): &(&FrontendKey, &FrontendEntry)| {
            let has_room =
                has_room || (is_port(key) && ids.get(&entry.value.counter_id) == owners.get(key));
            wanted.is_wanted(key) && has_room
        };
        // The maps are the synchroniser's: they change hands to be set up.
        let set_up = |maps: &mut FaultyMaps<Watched>| {
            let watched = maps.inner_mut();
            watched.at = name.to_owned();
            let there = watched.maps.image().frontends.iter().filter(lasts);
            watched.lasting = there.map(|(key, _)| *key).collect();
            // Programs count whatever a frontend names.
            let named: Vec<u32> =
                watched.maps.image().frontends.values().map(|value| value.counter_id).collect();
            let counted = named.into_iter().map(|id| (id, COUNTED.clone()));
            watched.maps.counters_mut().extend(counted);
            maps.revive(faults);
            if let Some(entries) = crash {
                maps.crash_after(entries);
            }
        };
        if lives {
            self.restart(&owners, set_up);
        } else {
            set_up(self.sync.maps_mut());
        }
        // Where all is as planned, nobody has yet to claim what was counted for him before a restart.
        let is_settled = !self.sync.is_behind();
        let owned = self.sync.status().counter_owners;
        self.sync.reconcile(&snapshot);
        if is_settled {
            let counters = self.sync.maps().inner().maps.counters().unwrap();
            for (id, key) in self.sync.status().counter_owners {
                let is_new = owned.get(&id) != Some(&key);
                assert!(!is_new || !counters.contains_key(&id), "{key} inherits {id}; {name}");
            }
        }
        if crash.is_some() {
            self.crashes += 1;
            self.restart(&owners, |maps| maps.revive(faults));
            self.sync.reconcile(&snapshot);
        }
        for _ in 0..self.random.random_range(0..3) {
            self.sync.retry();
            if self.random.random_bool(0.3) {
                self.sync.verify();
            }
        }
    }

    /// Everything works again, and time passes.
    fn rest(&mut self) {
        self.sync.maps_mut().revive(0);
        self.sync.reconcile(&self.cluster.newest());
        self.sync.retry();
    }

    /// A frontend that is another service's in the maps: leads to its endpoints, is limited to its clients.
    fn anothers(&self, wanted: &Plans) -> Option<String> {
        let (owners, ids) = (owners(wanted), self.sync.status().counter_owners);
        let mut frontends = self.image().frontends.iter();
        let anothers = frontends.find(|(key, entry)| {
            let (id, owner) = (entry.value.counter_id, owners.get(key));
            let was_found = self.found.get(key) == Some(&(id, owner.cloned()));
            ids.get(&id) != owner && !was_found
        });
        anothers.map(|(key, _)| text::frontend(key).to_string())
    }

    fn image(&self) -> &Image {
        self.sync.maps().inner().maps.image()
    }
}

/// Whether somebody may dial it, and be served.
fn is_port(key: &FrontendKey) -> bool {
    !key.is_other_ports() && key.is_serving_of().is_none()
}

fn seeds() -> impl Iterator<Item = u64> {
    let one: Option<u64> = env::var(SEED_VARIABLE).ok().map(|seed| seed.parse().unwrap());
    one.map_or(0..SEEDS, |seed| seed..seed + 1)
}

fn owners(wanted: &Plans) -> Owners {
    wanted.leads().map(|(planned, lead)| (lead.frontend.key, planned.key.clone())).collect()
}

/// A port that its service has, and that is refused as one it does not have.
fn refused_own_port(image: &Image, wanted: &Plans) -> Option<String> {
    let missing = wanted.leads().filter(|(_, lead)| {
        is_port(&lead.frontend.key) && !image.frontends.contains_key(&lead.frontend.key)
    });
    let mut refused = missing.filter(|(planned, lead)| {
        let others = FrontendKey::other_ports(lead.frontend.key.address);
        let is_theirs =
            wanted.leads().any(|(owner, l)| l.frontend.key == others && owner.key == planned.key);
        is_theirs && image.frontends.contains_key(&others)
    });
    refused.next().map(|(_, lead)| text::frontend(&lead.frontend.key).to_string())
}

const ROOMY: Capacities = Capacities {
    frontends: 1000,
    backends: 1000,
    maglev: 10_000,
    source_ranges: 1000,
    counters: 1000,
};

#[test]
fn readers_see_no_hole_whatever_fails_and_at_rest_maps_are_as_planned() {
    let (mut entries, mut crashes, mut faults) = (0, 0, 0);
    for seed in seeds() {
        let mut run = Run::new(seed, ROOMY);
        for change in 0..CHANGES {
            let at = format!("change {change} of {SEED_VARIABLE}={seed}");
            run.step(&at);
            if run.random.random_bool(0.3) {
                run.rest();
                let snapshot = run.cluster.newest();
                let planned = text::plan_text(&snapshot, &node_view(&snapshot));
                assert_eq!(text::image_text(run.image()), planned, "{at}");
                assert_eq!(random::strays(run.image()), Vec::<String>::new(), "{at}");
                let served: PortRange =
                    run.image().frontends.keys().filter_map(node_port).collect();
                assert_eq!(run.image().node_ports, served, "{at}");
                assert!(!run.sync.is_behind(), "{at}");
                for _ in 0..2 {
                    assert_eq!(run.sync.verify().error, None, "{at}");
                }
                let owners = run.sync.status().counter_owners;
                let counters = run.sync.maps().counters().unwrap();
                let nobodys = counters.keys().find(|id| !owners.contains_key(*id));
                assert_eq!(nobodys, None, "{at}");
            }
        }
        entries += run.sync.maps().inner().entries;
        crashes += run.crashes;
        faults += run.sync.maps().faults();
    }
    println!("{entries} entries, {crashes} crashes, {faults} faults");
    let is_one = env::var(SEED_VARIABLE).is_ok();
    assert!(is_one || (entries > 10_000 && crashes > 100 && faults > 1000), "too tame");
}

#[test]
fn maps_that_are_too_small_never_show_a_hole_either() {
    for seed in seeds() {
        let tight = Capacities {
            frontends: 14,
            backends: 12,
            maglev: 32,
            source_ranges: 1000,
            counters: 4,
        };
        let mut run = Run::new(seed, tight);
        let mut was_full = false;
        for change in 0..CHANGES {
            let at = format!("change {change} of {SEED_VARIABLE}={seed}, tight");
            run.step(&at);
            run.rest();
            let wanted = crate::objects::plans(&run.cluster.newest());
            let stale = run.image().frontends.keys().find(|key| !wanted.is_wanted(key));
            assert_eq!(stale, None, "deletions go through; {at}");
            assert_eq!(random::strays(run.image()), Vec::<String>::new(), "{at}");
            let status = run.sync.status();
            was_full |= !status.full.is_empty();
            if status.full.is_empty() {
                let snapshot = run.cluster.newest();
                let planned = text::plan_text(&snapshot, &node_view(&snapshot));
                assert_eq!(text::image_text(run.image()), planned, "{at}");
            }
            assert_eq!(refused_own_port(run.image(), &wanted), None, "{at}");
            assert_eq!(run.anothers(&wanted), None, "{at}");
            let lacks_places = |full: &Full| full.map == FullMap::Frontends;
            if let Some(full) = status.full.iter().find(|full| lacks_places(full)) {
                assert_eq!(run.image().frontends.len(), tight.frontends, "{at}");
                let has_spare = run.image().frontends.keys().any(|k| k.is_serving_of().is_some());
                assert!(!has_spare || full.services == full.flows, "{at}");
            }
            assert_eq!(status.full.is_empty(), !run.sync.is_behind(), "{at}");
        }
        assert!(was_full, "seed {seed} met no full map");
    }
}
