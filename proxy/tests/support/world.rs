//! A world of one test's own: a network namespace, a cgroup, a BPF file system.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{
    env, fs,
    fs::File,
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use fairlead_proxy::KernelOptions;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

const WORLD: &str = "FAIRLEAD_TEST_WORLD";

/// Where a test finds itself.
#[derive(Debug)]
pub(crate) struct World {
    /// Unlike any other's at this time.
    pub(crate) name: String,
    /// Holds this process.
    pub(crate) cgroup: PathBuf,
    /// A BPF file system of its own, mounted by the first who opens it.
    pub(crate) bpffs: PathBuf,
}

/// Runs `body` in a process of its own, in a cgroup, a network namespace (loopback is up) and with
/// a BPF file system that nobody else has. `test` is the path of the calling test function.
///
/// Programs on a cgroup act on sockets made in it, and a socket belongs to the cgroup of the
/// process that made it: hence the process.
pub(crate) fn world(test: &str, body: impl FnOnce(&World)) {
    if let Ok(name) = env::var(WORLD) {
        let world = World::named(name);
        fs::write(world.cgroup.join("cgroup.procs"), "0").unwrap();
        run("ip link set lo up");
        body(&world);
        return;
    }
    let world = World::create();
    let me = env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(WORLD, &world.name)
        .status()
        .unwrap();
    world.remove();
    assert!(status.success(), "{test} failed in its own process: {status}");
}

impl World {
    fn named(name: String) -> Self {
        let cgroup = cgroup_mount().join(&name);
        let bpffs = env::temp_dir().join(&name);
        Self { name, cgroup, bpffs }
    }

    fn create() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let world = Self::named(format!("fl{}-{count}", std::process::id()));
        fs::create_dir(&world.cgroup).expect("a cgroup below the cgroup2 mount: run as root");
        fs::create_dir(&world.bpffs).unwrap();
        world
    }

    /// Also what was pinned: unmounting frees it.
    fn remove(&self) {
        let _ = Command::new("umount").arg(&self.bpffs).output();
        let _ = fs::remove_dir(&self.bpffs);
        if let Err(error) = fs::remove_dir(&self.cgroup) {
            eprintln!("{} is left: {error}", self.cgroup.display());
        }
    }

    /// Options that keep within this world.
    pub(crate) fn options(&self) -> KernelOptions {
        KernelOptions {
            cgroup_root: Some(self.cgroup.clone()),
            bpffs: self.bpffs.clone(),
            ..KernelOptions::default()
        }
    }

    /// Another network namespace, for a pod: connected to this one by a veth pair.
    pub(crate) fn pod(&self) -> Pod {
        let name = format!("{}p", self.name);
        run(&format!("ip netns add {name}"));
        let pod = Pod { name };
        run(&format!("ip link add pod0 type veth peer name eth0 netns {}", pod.name));
        run("ip addr add 10.99.0.1/24 dev pod0");
        run("ip -6 addr add fd99::1/64 dev pod0 nodad");
        run("ip link set pod0 up");
        pod.run("ip link set lo up");
        pod.run("ip addr add 10.99.0.2/24 dev eth0");
        pod.run("ip -6 addr add fd99::2/64 dev eth0 nodad");
        pod.run("ip link set eth0 up");
        pod
    }
}

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Pod {
    name: String,
}

impl Pod {
    fn run(&self, command: &str) {
        run(&format!("ip netns exec {} {command}", self.name));
    }

    /// Runs `body` on a thread in this namespace; sockets made there stay there.
    pub(crate) fn inside<T: Send>(&self, body: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.name)).unwrap();
        let enter = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            body()
        };
        thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).output();
    }
}

/// Runs a command of plain words; it must succeed.
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
}

fn cgroup_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| line.split_once(" cgroup2 ")?.0.split(' ').nth(1));
    Path::new(mount.expect("a cgroup2 mount")).into()
}
