//! Manifests in, maps in words out: the same on memory maps and in the kernel.
//!
//! `NAME.yaml` and `NAME.txt` are one scenario. `NAME.1.yaml`, `NAME.2.yaml`, ... are states one
//! after the other, each with its text. With FAIRLEAD_UPDATE=1 the texts are written instead of
//! compared.

use std::{collections::BTreeMap, collections::BTreeSet, env, fs, path::PathBuf};

use fairlead_proxy::{
    attach::MapSizes,
    maps::{Maps, kernel::KernelMaps, memory::MemoryMaps},
    sync::Synchroniser,
    text,
};
use fairlead_state::{Change, Kind, Object, Snapshot, source::directory};

use crate::objects::{Cluster, NODE, node_view};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/scenarios");

/// States of a cluster, in order.
struct Scenario {
    name: String,
    states: Vec<PathBuf>,
}

fn scenarios() -> Vec<Scenario> {
    let mut by_name: BTreeMap<String, BTreeSet<PathBuf>> = BTreeMap::new();
    for entry in fs::read_dir(DIRECTORY).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let file = path.file_name().unwrap().to_str().unwrap();
            let name = file.split('.').next().unwrap().to_owned();
            by_name.entry(name).or_default().insert(path);
        }
    }
    assert!(by_name.len() >= 15, "scenarios are missing in {DIRECTORY}");
    let scenario = |(name, states): (String, BTreeSet<PathBuf>)| Scenario {
        name,
        states: states.into_iter().collect(),
    };
    by_name.into_iter().map(scenario).collect()
}

/// The state in a file as one change.
fn state(path: &PathBuf) -> Vec<Change> {
    let loaded = directory::load(std::slice::from_ref(path), None, BTreeSet::new()).unwrap();
    assert_eq!(loaded.problems, Vec::<String>::new(), "{}", path.display());
    assert!(loaded.snapshot.refused().is_empty(), "{:?}", loaded.snapshot.refused());
    replace_all(&loaded.snapshot)
}

fn replace_all(snapshot: &Snapshot) -> Vec<Change> {
    let replace = |kind, objects| Change::Replace { kind, objects, refused: vec![] };
    let services = snapshot.services().values().cloned().map(Object::Service).collect();
    let slices = snapshot.endpoint_slices().values().cloned().map(Object::EndpointSlice).collect();
    let nodes = snapshot.nodes().values().cloned().map(Object::Node).collect();
    vec![
        replace(Kind::Service, services),
        replace(Kind::EndpointSlice, slices),
        replace(Kind::Node, nodes),
    ]
}

/// Maps and warnings in words.
fn words(image: &str, warnings: impl Iterator<Item = impl ToString>) -> String {
    let warnings = warnings.map(|warning| format!("warning: {}\n", warning.to_string()));
    format!("{image}{}", warnings.collect::<String>())
}

fn play<M: Maps>(scenario: &Scenario, maps: M) {
    let mut cluster = Cluster::new();
    let mut sync = Synchroniser::new(maps, NODE);
    for path in &scenario.states {
        let snapshot = cluster.apply(state(path));
        let report = sync.reconcile(&snapshot);
        assert_eq!((report.error, report.behind), (None, 0), "{}", scenario.name);
        let image = sync.maps().load().unwrap();
        let found = words(&text::image_text(&image), sync.plans().warnings().iter());
        let planned = text::plan_text(&snapshot, &node_view(&snapshot));
        assert_eq!(text::image_text(&image), planned, "{}: plan and maps differ", path.display());

        let expected = path.with_extension("txt");
        if env::var_os("FAIRLEAD_UPDATE").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        let expected = fs::read_to_string(&expected)
            .unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
        assert_eq!(found, expected, "{}", path.display());
    }
}

#[test]
fn scenarios_on_memory_maps() {
    for scenario in scenarios() {
        play(&scenario, MemoryMaps::default());
    }
}

#[test]
fn scenarios_on_kernel_maps() {
    let sizes = MapSizes { frontends: 256, backends: 256, counters: 256, ..MapSizes::default() };
    for scenario in scenarios() {
        play(&scenario, KernelMaps::private(sizes).unwrap());
    }
}
