//! client — node — server: three namespaces joined by two veth pairs, and a cgroup that has the hooks.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

const CGROUP2: [&str; 2] = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];

pub struct World {
    tag: String,
    dir: tempfile::TempDir,
    cgroup: PathBuf,
}

impl World {
    pub fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let tag = format!("flb{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = CGROUP2.iter().map(Path::new).find(|p| p.join("cgroup.procs").exists());
        let cgroup = root.expect("a cgroup2 mount").join(&tag);
        fs::create_dir_all(cgroup.join("node")).unwrap();
        fs::create_dir(cgroup.join("outside")).unwrap();
        let world = Self { tag, dir: tempfile::tempdir().unwrap(), cgroup };
        world.build();
        world
    }

    fn build(&self) {
        let t = &self.tag;
        let (node, client, server) = (self.netns("n"), self.netns("c"), self.netns("s"));
        for ns in [&node, &client, &server] {
            ip(&format!("netns add {ns}"));
            ip(&format!("-n {ns} link set lo up"));
        }
        for (peer, net, side) in [(&client, 1, "c"), (&server, 2, "s")] {
            ip(&format!("link add {t}{side} netns {node} type veth peer name eth0 netns {peer}"));
            ip(&format!("-n {node} addr add 10.{net}.0.1/24 dev {t}{side}"));
            ip(&format!("-n {node} link set {t}{side} up"));
            ip(&format!("-n {peer} addr add 10.{net}.0.2/24 dev eth0"));
            ip(&format!("-n {peer} link set eth0 up"));
            ip(&format!("-n {peer} route add default via 10.{net}.0.1"));
        }
        ip(&format!("-n {server} addr add 10.2.0.3/24 dev eth0"));
        let status = self.in_node("sysctl").args(["-qw", "net.ipv4.ip_forward=1"]).status();
        assert!(status.unwrap().success(), "forwarding");
        fs::create_dir(self.bpffs()).unwrap();
    }

    fn netns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    /// The device of the node that faces the client.
    pub fn uplink(&self) -> String {
        format!("{}c", self.tag)
    }

    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn bpffs(&self) -> PathBuf {
        self.dir().join("bpf")
    }

    pub fn node_cgroup(&self) -> PathBuf {
        self.cgroup.join("node")
    }

    /// Beside it, without hooks.
    pub fn outside_cgroup(&self) -> PathBuf {
        self.cgroup.join("outside")
    }

    pub fn client_netns(&self) -> PathBuf {
        Path::new("/run/netns").join(self.netns("c"))
    }

    pub fn server_netns(&self) -> PathBuf {
        Path::new("/run/netns").join(self.netns("s"))
    }

    pub fn node_netns(&self) -> PathBuf {
        Path::new("/run/netns").join(self.netns("n"))
    }

    /// A command in the routing namespace, outside of the cgroup.
    pub fn in_node(&self, program: &str) -> Command {
        self.enter("n", program)
    }

    /// A command in one of the namespaces `n`, `c`, `s`. (`ip netns exec` would hide cgroups and bpffs.)
    pub fn enter(&self, side: &str, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.netns(side))).arg(program);
        command
    }

    /// Does something in one of the namespaces.
    pub fn within<T: Send>(&self, side: &str, work: impl FnOnce() -> T + Send) -> T {
        let netns = fs::File::open(Path::new("/run/netns").join(self.netns(side))).unwrap();
        let inside = || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            work()
        };
        std::thread::scope(|scope| scope.spawn(inside).join().expect("no panic"))
    }

    /// One more address of the node.
    pub fn add_address(&self, address: &str) {
        ip(&format!("-n {} addr add {address} dev {}", self.netns("n"), self.uplink()));
    }

    /// Takes away what an agent left pinned, so that the next one starts cold.
    pub fn clear_pins(&self) {
        let mut command = self.in_node(env!("CARGO_BIN_EXE_fairlead"));
        let status = command.args(["cleanup", "--bpffs"]).arg(self.bpffs()).status().unwrap();
        assert!(status.success(), "cleanup");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.clear_pins();
        for side in ["n", "c", "s"] {
            drop(Command::new("ip").args(["netns", "del", &self.netns(side)]).status());
        }
        drop(Command::new("umount").arg(self.bpffs()).stderr(std::process::Stdio::null()).status());
        drop(fs::remove_dir(self.node_cgroup()));
        drop(fs::remove_dir(self.outside_cgroup()));
        drop(fs::remove_dir(&self.cgroup));
    }
}

fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().expect("ip");
    assert!(status.success(), "ip {line}");
}
