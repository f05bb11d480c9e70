//! What one pass of the synchroniser writes, keeps and reports.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fairlead_ebpf::abi::Reason;
use fairlead_proxy::{
    TableSize,
    delta::Step,
    maps::{
        Capacities, Entry, MapError, Maps, ServiceCounts, faulty::FaultyMaps, memory::MemoryMaps,
    },
    plan::{NodeView, Problem, Rules},
    sync::Synchroniser,
    text,
};
use fairlead_state::{
    Change, Kind,
    model::{LoadBalancing, Protocol, Service},
};

use crate::objects::{
    Cluster, NODE, delete, many, node, node_view, port, put_service, put_slice, service, slice,
    with,
};

/// Memory maps that note how they are used.
#[derive(Default)]
struct Noted {
    maps: MemoryMaps,
    steps: Vec<(&'static str, usize)>,
    loads: std::cell::Cell<usize>,
}

impl Maps for Noted {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        self.loads.set(self.loads.get() + 1);
        self.maps.each(take)
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        let name = match step {
            Step::DeleteFrontends(_) => "-frontends",
            Step::PutBackends(_) => "+backends",
            Step::PutFrontends(_) => "+frontends",
            Step::DeleteBackends(_) => "-backends",
            Step::PutMaglev(_) => "+maglev",
            Step::DeleteMaglev(_) => "-maglev",
            Step::PutSourceRanges(_) => "+ranges",
            Step::DeleteSourceRanges(_) => "-ranges",
            Step::ClearCounters(_) => "0 counters",
            Step::NodePorts(_) => "node ports",
            Step::SourcePorts(_) => "source ports",
        };
        self.steps.push((name, step.entries()));
        self.maps.apply(step)
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

#[test]
fn ten_thousand_services_are_two_steps_a_group_and_one_change_is_its_own_size() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(Noted::default(), NODE);
    sync.reconcile(&cluster.apply(many(10_000)));
    let groups = [3616, 8192, 8192].map(|n| [("+backends", n), ("+frontends", n)]);
    let mut expected = groups.concat();
    expected.insert(1, ("source ports", 1));
    assert_eq!(std::mem::take(&mut sync.maps_mut().steps), expected);
    let changed = put_slice(slice("s77", "s77", &["10.1.0.77", "10.3.0.77"]));
    let report = sync.reconcile(&cluster.apply([changed]));
    assert_eq!(
        std::mem::take(&mut sync.maps_mut().steps),
        [("+backends", 2), ("+frontends", 1), ("-backends", 2)]
    );
    assert_eq!((report.services, report.entries()), (1, 5));
    assert_eq!(sync.maps().loads.get(), 1, "read once, at the start");

    let mut restarted = Synchroniser::new(sync.into_maps(), NODE);
    let report = restarted.reconcile(&cluster.newest());
    assert_eq!((report.services, report.entries()), (10_000, 0), "a restart finds all in place");
}

#[test]
fn only_what_concerns_services_is_planned() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(Noted::default(), NODE);
    sync.reconcile(&cluster.apply(many(3).into_iter().chain([node(Some("x"))])));
    sync.maps_mut().steps.clear();
    let same_zone_other_taints = {
        let Change::Upsert(fairlead_state::Object::Node(node)) = node(Some("x")) else { panic!() };
        let node =
            fairlead_state::model::Node { taints: Arc::new(["t".into()]), ..(*node).clone() };
        Change::Upsert(fairlead_state::Object::Node(Arc::new(node)))
    };
    for (change, services) in [(same_zone_other_taints, 0), (node(Some("y")), 0)] {
        let report = sync.reconcile(&cluster.apply([change]));
        assert_eq!((report.services, report.entries()), (services, 0));
    }
}

#[test]
fn restart_keeps_counters_and_sweeps_what_ended_meanwhile() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    sync.reconcile(&cluster.apply(many(3)));
    let ids: Vec<u32> = sync.status().counter_owners.keys().copied().collect();
    let mut maps = sync.into_maps();
    // Nobody dialled s0; of s1 and s2 the programs counted, and of one long gone.
    for (id, selected) in [(ids[1], 1), (ids[2], 2), (77, 3)] {
        maps.counters_mut().insert(id, ServiceCounts { selected, ..ServiceCounts::default() });
    }
    let snapshot = cluster.apply([delete(Kind::Service, "s1")]);
    let mut restarted = Synchroniser::new(maps, NODE);
    restarted.reconcile(&snapshot);
    let counters = restarted.counters().unwrap();
    let seen = counters.into_iter().map(|(key, c)| (key.to_string(), c.selected));
    let seen: BTreeMap<String, u64> = seen.collect();
    let expected = [("default/s0".to_owned(), 0), ("default/s2".to_owned(), 2)];
    assert_eq!(seen, expected.into());
    assert_eq!(restarted.maps().image().frontends.len(), 4);
    assert_eq!(restarted.maps().image().backends.len(), 4);
    let left = |sync: &Synchroniser<MemoryMaps>| -> Vec<u32> {
        sync.maps().counters().unwrap().into_keys().collect()
    };
    // Programs may still count for s1, and somebody for whoever had 77.
    for expected in [vec![ids[1], ids[2], 77], vec![ids[1], ids[2], 77], vec![ids[2]]] {
        assert_eq!(left(&restarted), expected);
        assert_eq!(restarted.verify().error, None);
    }
}

#[test]
fn an_id_is_given_again_when_it_has_rested_and_begins_with_zero() {
    let mut cluster = Cluster::new();
    let capacities = Capacities { counters: 3, ..MemoryMaps::default().capacities() };
    let mut sync = Synchroniser::new(MemoryMaps::new(capacities), NODE);
    let put = |name: &str, last: u8| put_service(service(name, &format!("10.96.0.{last}")));
    sync.reconcile(&cluster.apply([put("a", 1), put("b", 2)]));
    let id_of = |sync: &Synchroniser<MemoryMaps>, name: &str| {
        let owners = sync.status().counter_owners;
        owners.iter().find(|(_, key)| *key.name == *name).map(|(id, _)| *id)
    };
    let (a, b) = (id_of(&sync, "a").unwrap(), id_of(&sync, "b").unwrap());
    assert_eq!([a.min(b), a.max(b)], [1, 2], "from the first on, side by side");
    let counted = ServiceCounts {
        selected: 7,
        refused: [(Reason::NoBackends, 1)].into(),
        ..ServiceCounts::default()
    };
    sync.maps_mut().counters_mut().extend([(a, counted.clone()), (b, counted.clone())]);

    // Everything that is counted has an owner: the next one is served all the same.
    sync.reconcile(&cluster.apply([delete(Kind::Service, "a"), put("c", 3)]));
    assert_eq!(id_of(&sync, "c"), Some(3), "beyond the counters");
    sync.verify();
    sync.reconcile(&cluster.apply([put("d", 4)]));
    assert_eq!(id_of(&sync, "d"), Some(4), "a program may still count for a");
    assert_eq!(sync.maps().counters().unwrap()[&a], counted);
    sync.verify();
    sync.reconcile(&cluster.apply([put("e", 5)]));
    assert_eq!(id_of(&sync, "e"), Some(a));
    let counters: BTreeMap<String, u64> = sync
        .counters()
        .unwrap()
        .into_iter()
        .map(|(key, c)| (key.name.to_string(), c.selected))
        .collect();
    let expected = [("b", 7), ("c", 0), ("d", 0), ("e", 0)].map(|(name, n)| (name.to_owned(), n));
    assert_eq!(counters, expected.into());
}

/// A connection from outside outlives its Service. Its bytes would be those of the next one with this id.
#[test]
fn an_id_rests_for_as_long_as_a_connection_is_counted_by_it() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    sync.reconcile(&cluster.apply([put_service(service("a", "10.96.0.1"))]));
    let a = sync.status().counter_owners.keys().copied().next().unwrap();
    let counted = ServiceCounts { selected: 7, ..ServiceCounts::default() };
    sync.maps_mut().counters_mut().insert(a, counted);
    sync.maps_mut().connections_mut().insert(a);
    sync.reconcile(&cluster.apply([delete(Kind::Service, "a")]));
    let comparisons = [(true, true), (true, true), (true, true), (false, true), (false, false)];
    for (step, (is_open, is_kept)) in comparisons.into_iter().enumerate() {
        if !is_open {
            sync.maps_mut().connections_mut().clear();
        }
        assert_eq!(sync.verify().error, None);
        assert_eq!(sync.maps().counters().unwrap().contains_key(&a), is_kept, "{step}");
    }
}

#[test]
fn counters_of_a_deleted_service_are_not_inherited_with_its_address() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    sync.reconcile(&cluster.apply([put_service(service("old", "10.96.0.1"))]));
    let old = sync.status().counter_owners;
    let counted = ServiceCounts { selected: 1, ..ServiceCounts::default() };
    sync.maps_mut().counters_mut().extend(old.keys().map(|id| (*id, counted.clone())));
    let new = [delete(Kind::Service, "old"), put_service(service("new", "10.96.0.1"))];
    sync.reconcile(&cluster.apply(new));
    let new = sync.status().counter_owners;
    assert_eq!((old.len(), new.len()), (1, 1));
    assert_ne!(old.keys().next(), new.keys().next());
    let counted: Vec<_> =
        sync.counters().unwrap().into_iter().map(|(_, counted)| counted).collect();
    assert_eq!(counted, [ServiceCounts::default()]);
}

/// The first that leads somewhere.
fn frontend_of(image: &fairlead_proxy::image::Image) -> fairlead_ebpf::abi::FrontendKey {
    *image.frontends.iter().find(|(_, value)| value.backends > 0).unwrap().0
}

#[test]
fn set_ids_wrap_around_and_never_meet_one_in_use() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    let everything =
        || [put_service(service("a", "10.96.0.1")), put_slice(slice("a", "a", &["10.1.0.1"]))];
    sync.reconcile(&cluster.apply(everything()));
    let mut maps = sync.into_maps();
    // As if the ids had come near their end: the next one after the gap is 2^20 - 1 - 3.
    let frontend = frontend_of(maps.image());
    let (slot, backend) = maps.image().backends.iter().next().map(|(k, b)| (*k, *b)).unwrap();
    let image = maps.image_mut();
    image.backends.clear();
    image.backends.insert(fairlead_ebpf::abi::BackendKey { set_id: u32::MAX - 3, ..slot }, backend);
    image.frontends.entry(frontend).and_modify(|entry| entry.value.set_id = u32::MAX - 3);

    let mut sync = Synchroniser::new(maps, NODE);
    assert_eq!(sync.reconcile(&cluster.newest()).entries(), 0, "the id is kept");
    sync.reconcile(&cluster.apply([put_slice(slice("a", "a", &["10.1.0.2"]))]));
    let id = sync.maps().image().frontends[&frontend].set_id;
    assert_eq!(id, (1 << 20) - 4, "not reused soon, not 0");
}

#[test]
fn drift_is_found_counted_and_repaired() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    sync.reconcile(&cluster.apply(many(5)));
    let planned = text::image_text(sync.maps().image());
    let image = sync.maps_mut().image_mut();
    let frontend = *image.frontends.keys().next().unwrap();
    image.frontends.remove(&frontend);
    let slot = *image.backends.keys().next_back().unwrap();
    image.backends.remove(&slot);
    assert_ne!(text::image_text(sync.maps().image()), planned);
    let report = sync.verify();
    assert!(report.drift >= 2, "{report:?}");
    assert_eq!(text::image_text(sync.maps().image()), planned);
    assert_eq!(sync.status().drift_total, report.drift as u64);
    assert_eq!(sync.verify().drift, 0);
}

#[test]
fn a_table_comes_with_its_set_and_another_size_is_another_set() {
    let mut cluster = Cluster::new();
    let service = with(service("a", "10.96.0.1"), |extras| {
        extras.load_balancing = LoadBalancing::Maglev;
    });
    let slice = |last: &str| put_slice(slice("a", "a", &["10.1.0.1", last]));
    let mut sync = Synchroniser::new(Noted::default(), NODE);
    sync.reconcile(&cluster.apply([put_service(service), slice("10.1.0.2")]));
    let written = [("+backends", 2), ("+maglev", 16), ("source ports", 1), ("+frontends", 2)];
    assert_eq!(std::mem::take(&mut sync.maps_mut().steps), written);
    sync.reconcile(&cluster.apply([slice("10.1.0.3")]));
    let replaced =
        [("+backends", 2), ("+maglev", 16), ("+frontends", 1), ("-backends", 2), ("-maglev", 16)];
    assert_eq!(std::mem::take(&mut sync.maps_mut().steps), replaced);

    let mut restarted = Synchroniser::new(sync.into_maps(), NODE);
    assert_eq!(restarted.reconcile(&cluster.newest()).entries(), 0, "all is in place");
    let larger = Rules { maglev_table: TableSize::with(512).unwrap(), ..Rules::default() };
    let mut restarted = Synchroniser::new(restarted.into_maps(), NODE).with_rules(larger.clone());
    restarted.reconcile(&cluster.newest());
    let replaced =
        [("+backends", 2), ("+maglev", 8), ("+frontends", 1), ("-backends", 2), ("-maglev", 16)];
    assert_eq!(std::mem::take(&mut restarted.maps_mut().steps), replaced);

    // A place that leads elsewhere: nobody would notice but by counting connections.
    let part = restarted.maps_mut().maps.image_mut().maglev.values_mut().next().unwrap();
    part.slots[7] ^= 1;
    assert!(text::image_text(restarted.maps().maps.image()).contains("maglev 512 BROKEN"));
    assert!(restarted.verify().drift > 0);
    let snapshot = cluster.newest();
    let node = NodeView { rules: larger, ..node_view(&snapshot) };
    let planned = text::plan_text(&snapshot, &node);
    assert_eq!(text::image_text(restarted.maps().maps.image()), planned);
}

#[test]
fn a_way_of_balancing_nobody_knows_is_named_and_the_service_is_served() {
    let mut cluster = Cluster::new();
    let load_balancing = LoadBalancing::Other("round-robin".into());
    let service = with(service("a", "10.96.0.1"), |extras| extras.load_balancing = load_balancing);
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    sync.reconcile(
        &cluster.apply([put_service(service), put_slice(slice("a", "a", &["10.1.0.1"]))]),
    );
    assert_eq!(sync.maps().image().backends.len(), 1);
    assert_eq!(
        sync.plans().warnings()[0].to_string(),
        "Service default/a: annotation fairlead.io/load-balancing \"round-robin\" is not one of \
         random, maglev: random it is"
    );
}

/// Maps that cannot write one frontend, whatever comes with it, or set no counters to zero.
struct Picky {
    maps: MemoryMaps,
    refused: &'static str,
}

impl Maps for Picky {
    fn each(&self, take: &mut dyn FnMut(Entry)) -> Result<(), MapError> {
        self.maps.each(take)
    }

    fn apply(&mut self, step: &Step) -> Result<(), MapError> {
        let is_refused = |key| text::frontend(key).to_string() == self.refused;
        let map = match step {
            Step::PutFrontends(entries) if entries.iter().any(|(key, _)| is_refused(key)) => {
                "frontends"
            }
            Step::ClearCounters(_) if self.refused == "counters" => "counters",
            _ => return self.maps.apply(step),
        };
        Err(MapError::Other { map, source: std::io::Error::other("will not") })
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

#[test]
fn one_service_that_cannot_be_written_holds_up_no_other() {
    let mut cluster = Cluster::new();
    let maps = Picky { maps: MemoryMaps::default(), refused: "tcp 10.96.0.77:80" };
    let mut sync = Synchroniser::new(maps, NODE);
    let report = sync.reconcile(&cluster.apply(many(1000)));
    assert_eq!(report.behind, 1);
    assert_eq!(report.error.as_deref(), Some("frontends: will not"));
    assert_eq!(sync.maps().maps.image().frontends.len(), 1998);
    assert_eq!(sync.maps().maps.image().backends.len(), 1998, "nothing is left of the attempts");
    sync.maps_mut().refused = "";
    assert_eq!(sync.retry().behind, 0);
    assert_eq!(sync.maps().maps.image().frontends.len(), 2000);
}

#[test]
fn counters_that_cannot_be_set_to_zero_are_given_to_nobody() {
    let mut cluster = Cluster::new();
    let maps = Picky { maps: MemoryMaps::default(), refused: "counters" };
    let mut sync = Synchroniser::new(maps, NODE);
    let owner = |sync: &Synchroniser<Picky>| {
        sync.status().counter_owners.iter().next().map(|(id, _)| *id).unwrap()
    };
    sync.reconcile(&cluster.apply([put_service(service("a", "10.96.0.1"))]));
    let a = owner(&sync);
    let counted = ServiceCounts { selected: 1, ..ServiceCounts::default() };
    sync.maps_mut().maps.counters_mut().insert(a, counted);
    sync.reconcile(&cluster.apply([delete(Kind::Service, "a")]));
    for expected in [None, Some("counters: will not"), Some("counters: will not")] {
        assert_eq!(sync.verify().error.as_deref(), expected);
    }
    sync.reconcile(&cluster.apply([put_service(service("b", "10.96.0.2"))]));
    assert_ne!(owner(&sync), a);
    sync.maps_mut().refused = "";
    assert_eq!(sync.verify().error, None);
    assert!(sync.maps().counters().unwrap().is_empty());
    sync.reconcile(
        &cluster.apply([delete(Kind::Service, "b"), put_service(service("c", "10.96.0.3"))]),
    );
    assert_eq!(owner(&sync), a);
}

#[test]
fn maps_that_cannot_be_read_are_left_alone_until_they_can() {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(FaultyMaps::new(MemoryMaps::default(), 1, 1000), NODE);
    let report = sync.reconcile(&cluster.apply(many(2)));
    assert!(report.error.is_some());
    assert!(sync.is_behind());
    sync.maps_mut().revive(0);
    assert_eq!(sync.retry().error, None);
    assert!(!sync.is_behind());
    assert_eq!(sync.maps().inner().image().frontends.len(), 4);
}

#[test]
fn the_elder_service_has_a_contested_frontend_until_it_is_gone() {
    let with_node_port = |name: &str, ip: &str, created_seconds| Service {
        created_seconds,
        ports: Arc::new([port("", Protocol::Tcp, 80, Some(30080))]),
        ..service(name, ip)
    };
    let endpoints = |name, ip| put_slice(slice(name, name, &[ip]));
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(MemoryMaps::default(), NODE);
    let node_port = |sync: &Synchroniser<MemoryMaps>| {
        let text = text::image_text(sync.maps().image());
        text.lines().find(|line| line.contains("NodePort")).unwrap_or_default().to_owned()
    };
    sync.reconcile(&cluster.apply([
        put_service(with_node_port("young", "10.96.0.1", 20)),
        endpoints("young", "10.1.0.1"),
        endpoints("old", "10.1.0.2"),
    ]));
    assert_eq!(node_port(&sync), "tcp *:30080 (NodePort, IPv4) -> 10.1.0.1:8080");
    sync.reconcile(&cluster.apply([put_service(with_node_port("old", "10.96.0.2", 10))]));
    assert_eq!(node_port(&sync), "tcp *:30080 (NodePort, IPv4) -> 10.1.0.2:8080");
    let warnings = sync.plans().warnings();
    assert!(matches!(&warnings[..], [w] if matches!(w.problem, Problem::Taken { .. })));
    assert_eq!(
        warnings[0].to_string(),
        "Service default/young: tcp *:30080 (NodePort, IPv4) belongs to the older Service \
         default/old: change the port or the address of one"
    );
    sync.reconcile(&cluster.apply([delete(Kind::Service, "old")]));
    assert_eq!(node_port(&sync), "tcp *:30080 (NodePort, IPv4) -> 10.1.0.1:8080");
    assert_eq!(sync.plans().warnings(), []);
}
