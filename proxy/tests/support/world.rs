//! A world of one test's own: a network namespace, a cgroup, a BPF file system.
#![allow(dead_code, reason = "each test binary uses some of it")]
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test that cannot go on fails"
)]

use std::{
    env, fs,
    fs::File,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
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
        fs::write(world.mark(), "").unwrap();
        return;
    }
    let Made(world) = &World::create();
    let me = env::current_exe().unwrap();
    let status = Command::new("unshare")
        .arg("--net")
        .arg(me)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(WORLD, &world.name)
        .status()
        .unwrap();
    // A path that is no test's runs none, and all is well.
    let has_run = world.mark().exists();
    assert!(
        status.success() && has_run,
        "{test} failed or was not met in its own process: {status}"
    );
}

impl World {
    fn named(name: String) -> Self {
        let cgroup = cgroup_mount().join(&name);
        let bpffs = env::temp_dir().join(&name);
        Self { name, cgroup, bpffs }
    }

    /// There once the body has run.
    fn mark(&self) -> PathBuf {
        self.bpffs.with_extension("ran")
    }

    fn create() -> Made {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let world = Self::named(format!("fl{}-{count}", std::process::id()));
        fs::create_dir(&world.cgroup).expect("a cgroup below the cgroup2 mount: run as root");
        let made = Made(world);
        fs::create_dir(&made.0.bpffs).unwrap();
        made
    }

    /// Options that keep within this world.
    pub(crate) fn options(&self) -> KernelOptions {
        KernelOptions {
            cgroup_root: Some(self.cgroup.clone()),
            bpffs: self.bpffs.clone(),
            ..KernelOptions::default()
        }
    }

    /// Another network namespace, for a pod or a client: connected to this one, which routes for
    /// it, by a veth pair. `number` is below 256 and unlike that of this world's other pods.
    pub(crate) fn pod(&self, number: u8) -> Pod {
        let pod = Pod { name: format!("{}p{number}", self.name), number };
        run(&format!("ip netns add {}", pod.name));
        pod.run("ip link set lo up");
        pod.connect();
        pod
    }

    /// Lets the node route between pods.
    pub(crate) fn forward(&self) {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        fs::write("/proc/sys/net/ipv6/conf/all/forwarding", "1").unwrap();
    }
}

/// A world as its maker has it: taken away when dropped, by a panic too.
struct Made(World);

impl Drop for Made {
    /// Also what was pinned: unmounting frees it.
    fn drop(&mut self) {
        let Self(world) = self;
        let _ = Command::new("umount").arg(&world.bpffs).output();
        let _ = fs::remove_dir(&world.bpffs);
        let _ = fs::remove_file(world.mark());
        if let Err(error) = fs::remove_dir(&world.cgroup) {
            eprintln!("{} is left: {error}", world.cgroup.display());
        }
    }
}

/// Removed when dropped.
#[derive(Debug)]
pub(crate) struct Pod {
    name: String,
    number: u8,
}

impl Pod {
    /// The node's end of the veth pair.
    pub(crate) fn device(&self) -> String {
        format!("pod{}", self.number)
    }

    /// The node's address on it.
    pub(crate) fn node_address(&self, is_ipv4: bool) -> IpAddr {
        self.address(is_ipv4, 1)
    }

    /// In both families.
    pub(crate) fn node_addresses(&self) -> Vec<IpAddr> {
        [true, false].map(|is_ipv4| self.node_address(is_ipv4)).to_vec()
    }

    /// The pod's address.
    pub(crate) fn own_address(&self, is_ipv4: bool) -> IpAddr {
        self.address(is_ipv4, 2)
    }

    fn address(&self, is_ipv4: bool, host: u8) -> IpAddr {
        if is_ipv4 {
            Ipv4Addr::new(10, 99, self.number, host).into()
        } else {
            Ipv6Addr::new(0xfd99, 0, 0, self.number.into(), 0, 0, 0, host.into()).into()
        }
    }

    /// Lays the veth pair, as at first or after [`Pod::disconnect`].
    pub(crate) fn connect(&self) {
        let device = self.device();
        run(&format!("ip link add {device} type veth peer name eth0 netns {}", self.name));
        // A router asks for neighbours from its link-local address (RFC 4861 §4.3), which would be in doubt for a second.
        fs::write(format!("/proc/sys/net/ipv6/conf/{device}/accept_dad"), "0").unwrap();
        for is_ipv4 in [true, false] {
            let (node, own) = (self.node_address(is_ipv4), self.own_address(is_ipv4));
            let options = if is_ipv4 { "24 dev" } else { "64 nodad dev" };
            run(&format!("ip addr add {node}/{options} {device}"));
            self.run(&format!("ip addr add {own}/{options} eth0"));
        }
        run(&format!("ip link set {device} up"));
        self.run("ip link set eth0 up");
        for is_ipv4 in [true, false] {
            self.run(&format!("ip route add default via {}", self.node_address(is_ipv4)));
        }
    }

    /// Takes the veth pair away.
    pub(crate) fn disconnect(&self) {
        run(&format!("ip link delete {}", self.device()));
    }

    /// Runs a command of plain words in this namespace.
    pub(crate) fn run(&self, command: &str) {
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

/// Adds rules of nft's language to this network namespace; they must be taken.
pub(crate) fn load_rules(rules: &str) {
    let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    nft.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(nft.wait().unwrap().success(), "the rules are not taken: {rules}");
}

fn cgroup_mount() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find_map(|line| line.split_once(" cgroup2 ")?.0.split(' ').nth(1));
    Path::new(mount.expect("a cgroup2 mount")).into()
}
