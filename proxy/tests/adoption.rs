//! Agents come and go, the data path stays.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; clippy's exemption stops at helper functions"
)]

use std::{
    env,
    io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    thread,
    time::{Duration, Instant},
};

use aya::maps::{HashMap, Map, MapData};
use fairlead_ebpf::abi::{BackendKey, TCP, UDP, name};
use fairlead_proxy::{
    Kernel, KernelError, KernelOptions, attach::MapSizes, delta::Step, maps::Maps as _, others,
};
use support::{
    services::{Stop, ask_tcp, frontend, put, replace, serve, unspecified},
    world::{World, run, world},
};

mod support {
    pub(crate) mod services;
    pub(crate) mod world;
}

/// A Service's address and where its backend is, in each family.
const SERVICES: [(&str, &str); 2] = [("10.96.0.1:80", "127.0.0.1"), ("[fd00:96::1]:80", "::1")];
const DEADLINE: Duration = Duration::from_secs(10);
const AGENT: &str = "FAIRLEAD_TEST_AGENT";

/// In both families.
fn put_service(kernel: &Kernel) {
    for (set, (service, ip)) in (1..).zip(SERVICES) {
        let backend = serve(TCP, ip.parse().unwrap(), "backend");
        put(&mut kernel.maps().unwrap(), frontend(service, TCP), set, &[(backend, 0)]);
    }
}

fn assert_served(when: &str) {
    for (service, _) in SERVICES {
        let service: SocketAddr = service.parse().unwrap();
        assert_eq!(ask_tcp(service).unwrap(), ("backend".into(), service), "{when}");
    }
}

fn is_served() -> [bool; 2] {
    SERVICES.map(|(service, _)| ask_tcp(service.parse().unwrap()).is_ok())
}

/// Link and program ids, by name.
fn ids(world: &World) -> Vec<(String, u32, u32)> {
    let links = Kernel::attachments(&world.bpffs).unwrap();
    links.into_iter().map(|link| (link.name, link.link_id, link.program_id)).collect()
}

#[test]
fn next_agent_takes_over_links_and_maps_in_place() {
    world("next_agent_takes_over_links_and_maps_in_place", |world| {
        let first = Kernel::open(&world.options()).unwrap();
        let report = first.attach().unwrap();
        assert_eq!((report.adopted, report.created), (0, 9));
        let others = others::socket_programs().expect("root is told");
        assert!(!others.iter().any(|name| name.starts_with("connect")), "{others:?}");
        put_service(&first);
        let content = first.maps().unwrap().load().unwrap();
        let before = ids(world);
        drop(first);
        assert_served("with no agent at all");

        let second = Kernel::open(&world.options()).unwrap();
        assert_eq!(second.maps().unwrap().load().unwrap(), content);
        assert_eq!(ids(world), before, "nothing changes before the maps are complete");
        let report = second.attach().unwrap();
        assert_eq!((report.adopted, report.created), (9, 0));
        for (old, new) in before.iter().zip(ids(world)) {
            assert_eq!((&old.0, old.1), (&new.0, new.1), "the same link");
            assert_ne!(old.2, new.2, "another program");
        }
        assert_served("attached");
    });
}

/// Runs as an agent until killed, if this process is one.
fn is_agent(world: &World) -> bool {
    if env::var(AGENT).is_err() {
        return false;
    }
    let kernel = Kernel::open(&world.options()).unwrap();
    let report = kernel.attach().unwrap();
    println!("attached {}", report.adopted + report.created);
    loop {
        thread::park();
    }
}

/// Starts an agent, waits until it has attached everything, kills it with SIGKILL.
fn live_and_die(test: &str) {
    let mut agent = Command::new(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(AGENT, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(agent.stdout.take().unwrap()).lines().map_while(Result::ok);
    let attached = lines.find_map(|line| Some(line.rsplit_once("attached ")?.1.to_owned()));
    agent.kill().unwrap();
    agent.wait().unwrap();
    assert_eq!(attached.as_deref(), Some("9"), "programs the agent attached");
}

#[test]
fn agent_killed_again_and_again_under_load_loses_no_connection() {
    let test = "agent_killed_again_and_again_under_load_loses_no_connection";
    world(test, |world| {
        if is_agent(world) {
            return;
        }
        let kernel = Kernel::open(&world.options()).unwrap();
        put_service(&kernel);
        kernel.attach().unwrap();
        drop(kernel);
        let (done, connections) = (AtomicBool::new(false), AtomicU32::new(0));
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        assert_served("agents come and go");
                        connections.fetch_add(2, Ordering::Relaxed);
                    }
                });
            }
            let stop = Stop(&done);
            let before = ids(world);
            for _ in 0..10 {
                live_and_die(test);
            }
            drop(stop);
            let links = |ids: Vec<(String, u32, u32)>| -> Vec<u32> {
                ids.into_iter().map(|(_, link, _)| link).collect()
            };
            assert_eq!(links(ids(world)), links(before), "links of the first agent");
        });
        let connections = connections.into_inner();
        println!("{connections} connections");
        assert!(connections > 500, "only {connections} connections");
    });
}

#[test]
fn links_of_another_cgroup_are_replaced() {
    world("links_of_another_cgroup_are_replaced", |world| {
        let child = world.cgroup.join("child");
        std::fs::create_dir(&child).unwrap();
        let options = KernelOptions { cgroup_root: Some(child.clone()), ..world.options() };
        let kernel = Kernel::open(&options).unwrap();
        kernel.attach().unwrap();
        put_service(&kernel);
        let before = ids(world);
        assert_eq!(is_served(), [false; 2], "this process is in another cgroup");
        let report = Kernel::open(&world.options()).unwrap().attach().unwrap();
        assert_eq!((report.adopted, report.created), (0, 9));
        assert_served("attached");
        let after = ids(world);
        assert_eq!(before.len(), after.len(), "{before:?}, {after:?}");
        assert!(before.iter().zip(&after).all(|(old, new)| old.0 == new.0 && old.1 != new.1));
        std::fs::remove_dir(child).unwrap();
    });
}

#[test]
fn cleanup_leaves_nothing_behind() {
    world("cleanup_leaves_nothing_behind", |world| {
        Kernel::cleanup(&world.bpffs).unwrap();
        let kernel = Kernel::open(&world.options()).unwrap();
        kernel.attach().unwrap();
        put_service(&kernel);
        assert_served("attached");
        Kernel::cleanup(&world.bpffs).unwrap();
        assert_eq!(is_served(), [false; 2], "detached");
        assert!(!world.bpffs.join("fairlead").exists());
        assert_eq!(ids(world), []);
        Kernel::cleanup(&world.bpffs).unwrap();
    });
}

#[test]
fn pinned_maps_keep_their_size_and_foreign_ones_are_refused() {
    world("pinned_maps_keep_their_size_and_foreign_ones_are_refused", |world| {
        let options = |frontends| KernelOptions {
            sizes: MapSizes { frontends, ..MapSizes::default() },
            ..world.options()
        };
        drop(Kernel::open(&options(1000)).unwrap());
        assert_eq!(Kernel::open(&options(2000)).unwrap().sizes().frontends, 1000);
        let path = world.bpffs.join("fairlead/maps/frontends_v4");
        std::fs::remove_file(&path).unwrap();
        HashMap::<_, u32, u32>::create(1000, 0).unwrap().pin(&path).unwrap();
        let error = Kernel::open(&options(1000)).unwrap_err();
        assert!(matches!(&error, KernelError::Foreign { path: found } if *found == path));
        assert!(error.to_string().contains("fairlead cleanup"), "{error}");
    });
}

/// An upgrade to another map layout: what runs keeps its maps until it is replaced, and only then
/// are their names taken away. Connections, whose layout is the same, go on.
#[test]
fn maps_of_another_layout_go_when_the_new_programs_run() {
    world("maps_of_another_layout_go_when_the_new_programs_run", |world| {
        drop(Kernel::open(&world.options()).unwrap());
        let maps = world.bpffs.join("fairlead/maps");
        // A range in its third version let in clients of the other family.
        let old = ["frontends_v2", "source_ranges_v3"].map(|name| maps.join(name));
        for old in &old {
            HashMap::<_, [u8; 20], [u8; 24]>::create(10, 0).unwrap().pin(old).unwrap();
        }
        let kernel = Kernel::open(&world.options()).unwrap();
        assert!(old.iter().all(|old| old.exists()), "the earlier agent's programs may be at work");
        put_service(&kernel);
        kernel.attach().unwrap();
        assert_served("attached");
        assert!(!old.iter().any(|old| old.exists()));
        assert!(maps.join("connections_v2").exists());
    });
}

/// A rollback: what only a later version attaches would go on for ever, with maps that nobody writes.
#[test]
fn programs_of_another_version_are_taken_away_when_this_ones_run() {
    world("programs_of_another_version_are_taken_away_when_this_ones_run", |world| {
        let sizes = MapSizes { bytes: 8, ..MapSizes::default() };
        let counting = KernelOptions { sizes, ..world.options() };
        Kernel::open(&counting).unwrap().attach().unwrap();
        let links = world.bpffs.join("fairlead/links");
        std::fs::rename(links.join("socket_bytes"), links.join("socket_latency")).unwrap();
        let names = || ids(world).into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
        let kernel = Kernel::open(&world.options()).unwrap();
        assert!(names().contains(&"socket_latency".to_owned()), "not before this one's run");
        let report = kernel.attach().unwrap();
        assert_eq!((report.adopted, report.created), (9, 0));
        assert_eq!(names().len(), 9, "{:?}", names());
        assert!(!names().contains(&"socket_latency".to_owned()));
        put_service(&kernel);
        assert_served("attached");
    });
}

/// Its programs would run for ever, with maps of that agent's layout that nobody writes any more.
#[test]
fn bug_a_link_whose_agent_was_killed_before_it_had_its_name_is_taken_away() {
    world("bug_a_link_whose_agent_was_killed_before_it_had_its_name_is_taken_away", |world| {
        let sizes = MapSizes { bytes: 8, ..MapSizes::default() };
        let counting = KernelOptions { sizes, ..world.options() };
        Kernel::open(&counting).unwrap().attach().unwrap();
        let links = world.bpffs.join("fairlead/links");
        std::fs::rename(links.join("socket_bytes"), links.join("connect4_new")).unwrap();
        let kernel = Kernel::open(&world.options()).unwrap();
        let report = kernel.attach().unwrap();
        assert_eq!((report.adopted, report.created), (9, 0));
        assert!(!links.join("connect4_new").exists());
        put_service(&kernel);
        assert_served("attached");
    });
}

/// A power cut leaves no BPF file system; a hand that empties it takes the programs away under an agent
/// that runs on. Who looks sees it, and a start makes everything anew.
#[test]
fn programs_taken_away_are_noticed_and_a_start_brings_them_back() {
    world("programs_taken_away_are_noticed_and_a_start_brings_them_back", |world| {
        let mut kernel = Kernel::open(&world.options()).unwrap();
        assert!(!kernel.is_in_place(), "not attached yet");
        for emptied in [true, false] {
            kernel.attach().unwrap();
            put_service(&kernel);
            assert_served("attached");
            assert!(kernel.is_in_place());
            if emptied {
                std::fs::remove_dir_all(world.bpffs.join("fairlead")).unwrap();
            } else {
                run(&format!("umount -l {}", world.bpffs.display()));
            }
            assert!(!kernel.is_in_place());
            let begun = Instant::now();
            while is_served() != [false; 2] {
                assert!(begun.elapsed() < DEADLINE, "somebody is there to serve it");
            }
            kernel = Kernel::open(&world.options()).unwrap();
        }
        let report = kernel.attach().unwrap();
        assert_eq!((report.adopted, report.created), (0, 9));
        put_service(&kernel);
        assert_served("attached");
    });
}

#[test]
fn missing_cgroup_and_file_system_name_their_cure() {
    world("missing_cgroup_and_file_system_name_their_cure", |world| {
        let no_cgroup = KernelOptions { cgroup_root: Some("/proc".into()), ..world.options() };
        let no_bpffs = KernelOptions { bpffs: "/proc/none".into(), ..world.options() };
        for (options, cure) in [(no_cgroup, "--cgroup-root"), (no_bpffs, "--bpffs")] {
            let error = Kernel::open(&options).unwrap_err().to_string();
            assert!(error.contains(cure), "{error}");
        }
    });
}

/// Sends back what it hears, as long as the client talks.
fn echo(ip: IpAddr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut writer = stream.try_clone().unwrap();
            thread::spawn(move || std::io::copy(&mut stream, &mut writer));
        }
    });
    at
}

#[test]
fn sockets_outlive_their_service_and_its_set() {
    world("sockets_outlive_their_service_and_its_set", |world| {
        let kernel = Kernel::open(&world.options()).unwrap();
        kernel.attach().unwrap();
        let mut maps = kernel.maps().unwrap();
        let mut open = vec![];
        for (set, (service, ip)) in (1..).zip(SERVICES) {
            let backend = echo(ip.parse().unwrap());
            put(&mut maps, frontend(service, TCP), set, &[(backend, 0)]);
            let service: SocketAddr = service.parse().unwrap();
            open.push((service, TcpStream::connect(service).unwrap()));
        }
        let talk = |mut stream: &TcpStream| {
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            stream.write_all(b"still there?").unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(&answer, b"still there?");
        };
        open.iter().for_each(|(_, stream)| talk(stream));
        for (set_id, (service, _)) in (1..).zip(SERVICES) {
            maps.apply(&Step::DeleteFrontends(vec![frontend(service, TCP)])).unwrap();
            maps.apply(&Step::DeleteBackends(vec![BackendKey { set_id, slot: 0 }])).unwrap();
        }
        assert_eq!(kernel.end_stale_sockets().unwrap().sockets, 0, "only datagrams' are ended");
        for (service, stream) in &open {
            assert!(TcpStream::connect(service).is_err(), "{service} is nobody's");
            talk(stream);
            assert_eq!(
                stream.peer_addr().unwrap(),
                *service,
                "years later it is still the service"
            );
        }
    });
}

type Notes = HashMap<MapData, [u8; 32], [u8; 36]>;

/// Of UDP sockets, the one way or the other.
fn notes(bpffs: &Path, map: &str) -> Notes {
    let data = MapData::from_pin(bpffs.join("fairlead/maps").join(map)).unwrap();
    let map = match map {
        name::DATAGRAM_PEERS => Map::LruHashMap(data),
        _ => Map::HashMap(data),
    };
    map.try_into().unwrap()
}

/// Notes of connected sockets were among those of all others once: each that was open at the upgrade was known to nobody any
/// more, and sent to a dead address for ever.
#[test]
fn bug_udp_sockets_connected_under_an_agent_that_noted_them_elsewhere_end_with_their_backend() {
    let test =
        "bug_udp_sockets_connected_under_an_agent_that_noted_them_elsewhere_end_with_their_backend";
    world(test, |world| {
        let first = Kernel::open(&world.options()).unwrap();
        first.attach().unwrap();
        let mut maps = first.maps().unwrap();
        let sockets: Vec<UdpSocket> = (1..)
            .zip(SERVICES)
            .flat_map(|(set, (service, ip))| {
                let backend = serve(UDP, ip.parse().unwrap(), "backend");
                put(&mut maps, frontend(service, UDP), set, &[(backend, 0)]);
                let to: SocketAddr = service.parse().unwrap();
                let socket = UdpSocket::bind((unspecified(to.ip()), 0)).unwrap();
                socket.set_read_timeout(Some(DEADLINE)).unwrap();
                let unconnected = UdpSocket::bind((unspecified(to.ip()), 0)).unwrap();
                unconnected.send_to(b"?", to).unwrap();
                let closed = UdpSocket::bind((unspecified(to.ip()), 0)).unwrap();
                closed.send_to(b"?", to).unwrap();
                drop(closed);
                socket.connect(to).unwrap();
                [socket, unconnected]
            })
            .collect();
        drop((maps, first));
        let mut earlier = notes(&world.bpffs, name::DATAGRAM_PEERS);
        let connected: Vec<_> =
            notes(&world.bpffs, name::CONNECTED_PEERS).iter().map(Result::unwrap).collect();
        assert_eq!(connected.len(), SERVICES.len());
        for (key, peer) in &connected {
            earlier.insert(key, peer, 0).unwrap();
        }
        let pins = world.bpffs.join("fairlead");
        std::fs::remove_file(pins.join("maps").join(name::CONNECTED_PEERS)).unwrap();
        std::fs::remove_file(pins.join("links/socket_release")).unwrap();

        let second = Kernel::open(&world.options()).unwrap();
        let report = second.attach().unwrap();
        assert_eq!((report.adopted, report.created), (8, 1));
        assert_eq!(second.end_stale_sockets().unwrap().sockets, 0, "their backends serve");
        let taken_over = notes(&world.bpffs, name::CONNECTED_PEERS).keys().count();
        assert_eq!(taken_over, connected.len(), "closed and unconnected ones are nobody's concern");
        let mut maps = second.maps().unwrap();
        for (set, (service, _)) in (11..).zip(SERVICES) {
            replace(&mut maps, frontend(service, UDP), (set, set), &[]);
        }
        assert_eq!(second.end_stale_sockets().unwrap().sockets, connected.len());
        for socket in sockets.iter().step_by(2) {
            let error = socket.recv(&mut [0; 16]).unwrap_err().kind();
            assert_eq!(error, ErrorKind::ConnectionAborted);
        }
    });
}
