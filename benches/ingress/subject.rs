//! The proxies under measurement, each a process of its own on core 0, all told the same.

pub mod caddy;
pub mod fairlead;
pub mod haproxy;
pub mod nginx;
pub mod pingora;

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    account::{Account, Cpu},
    agent::{self, Running},
    check,
    client::{self, Connection},
    table::{self, Pem, Table},
};

/// Lines that are shown if something went wrong.
const COMPLAINTS_MAX: usize = 10;
/// Idle connections that are kept to an upstream: ingress-nginx's default.
const UPSTREAM_IDLE_MAX: usize = 320;

/// Whose proxy, and how it is set up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Fairlead,
    Nginx,
    /// With buffers of 64 KiB.
    NginxBuffers,
    Haproxy,
    /// With bodies that the kernel moves.
    HaproxySplice,
    Caddy,
    Pingora,
}

/// Everybody, as they are set up by default.
pub const ALL: [Kind; 5] = [Kind::Fairlead, Kind::Nginx, Kind::Haproxy, Kind::Caddy, Kind::Pingora];

/// Whether requests are logged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Log {
    Off,
    On,
}

/// Where a proxy's files are, where it listens, and what it is told besides the table.
pub struct Place {
    pub dir: PathBuf,
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// HTTP/2 without TLS.
    pub calls: SocketAddr,
    pub log: Log,
    account: Account,
}

/// A file that was tested, and whose proxy was told to take it.
pub struct Reload {
    pub tested: Duration,
    pub told: Instant,
}

/// A proxy that runs.
pub struct Proxy {
    pub kind: Kind,
    /// Ends before what feeds it and counts it.
    running: Running,
    api: Option<fairlead::Api>,
    pub place: Place,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fairlead => "fairlead",
            Self::Nginx => "nginx",
            Self::NginxBuffers => "nginx-64k",
            Self::Haproxy => "haproxy",
            Self::HaproxySplice => "haproxy-splice",
            Self::Caddy => "caddy",
            Self::Pingora => "pingora-minimal",
        }
    }

    /// Starts it in a directory of its own below `dir`; returns when it answers as it should.
    pub fn start(self, dir: &Path, table: &Table, log: Log) -> Proxy {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = dir.join(format!("{}-{}", self.name(), COUNT.fetch_add(1, Relaxed)));
        fs::create_dir(&dir).unwrap();
        let (plain, tls) = (agent::free_address(), agent::free_address());
        // What has both on one port is asked there.
        let calls = if self == Self::Fairlead { plain } else { agent::free_address() };
        let place = Place { dir, plain, tls, calls, log, account: Account::new() };
        let mut api = None;
        let running = match self {
            Self::Fairlead => {
                let (running, feeding) = fairlead::start(&place, table);
                api = Some(feeding);
                running
            }
            Self::Nginx | Self::NginxBuffers => nginx::start(self, &place, table),
            Self::Haproxy | Self::HaproxySplice => haproxy::start(self, &place, table),
            Self::Caddy => caddy::start(&place, table),
            Self::Pingora => pingora::start(&place, table),
        };
        let last = table::host(table.hosts() - 1);
        agent::wait(&format!("{}'s first answer", self.name()), || {
            client::connect(place.plain)
                .and_then(|mut c| c.get(&last))
                .is_ok_and(client::Reply::is_good)
        });
        if !table.certificates.is_empty() {
            let over_tls = client::Tls::trusting(&table.authority);
            let handshake = || over_tls.connect(place.tls, &last).and_then(|mut c| c.get(&last));
            agent::wait(&format!("{}'s TLS", self.name()), || {
                handshake().is_ok_and(client::Reply::is_good)
            });
        }
        let proxy = Proxy { kind: self, running, api, place };
        check::answers(&proxy, table);
        proxy
    }
}

impl Proxy {
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Of all its processes so far.
    pub fn cpu(&self) -> Cpu {
        self.place.account.cpu()
    }

    /// Of all its processes, shared pages once, in MiB.
    pub fn memory_mib(&self) -> f64 {
        self.place.account.memory_mib()
    }

    /// How much it has logged so far, in bytes.
    pub fn logged(&self) -> u64 {
        fs::metadata(self.place.file("access.log")).map_or(0, |file| file.len())
    }

    /// Has a proxy of files take the table as it is now, as Ingress controllers do.
    pub fn reload(&self, table: &Table) -> Reload {
        match self.kind {
            Kind::Nginx | Kind::NginxBuffers => nginx::reload(self, table),
            Kind::Haproxy | Kind::HaproxySplice => haproxy::reload(self, table),
            Kind::Fairlead | Kind::Caddy | Kind::Pingora => panic!("{} has no reload", self.name()),
        }
    }

    /// Sends the signal if the test succeeds.
    fn tell(&self, mut test: Command, signal: Signal) -> Reload {
        let begun = Instant::now();
        let output = test.output().unwrap();
        let tested = begun.elapsed();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{} refuses its file: {said}", self.name());
        let told = Instant::now();
        kill(Pid::from_raw(self.pid().cast_signed()), signal).unwrap();
        Reload { tested, told }
    }

    /// The API server of an agent.
    pub fn api(&self) -> &fairlead::Api {
        self.api.as_ref().expect("only the agent is fed by an API server")
    }

    /// A new connection, plain.
    pub fn connect(&self) -> std::io::Result<Connection<std::net::TcpStream>> {
        client::connect(self.place.plain)
    }
}

impl Place {
    /// A command that is counted as the proxy.
    fn command(&self, program: &str) -> Command {
        self.account.on_core(0, program)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, text).unwrap();
        path
    }

    /// The end of what it complained of.
    fn complaints(&self) -> String {
        let text = ["errors", "error.log"].map(|name| fs::read_to_string(self.file(name)));
        let text: String = text.into_iter().flatten().collect();
        let lines: Vec<&str> = text.lines().rev().take(COMPLAINTS_MAX).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Certificate and key of each, in files; with `bundled` in one file each.
    fn pem_files(&self, table: &Table, bundled: bool) -> Vec<(PathBuf, PathBuf)> {
        let dir = self.file("tls");
        fs::create_dir_all(&dir).unwrap();
        let write = |(i, Pem { certificate, key }): (usize, &Pem)| {
            let (first, second) = (dir.join(format!("{i}.pem")), dir.join(format!("{i}.key")));
            if bundled {
                fs::write(&first, format!("{certificate}{key}")).unwrap();
            } else {
                fs::write(&first, certificate).unwrap();
                fs::write(&second, key).unwrap();
            }
            (first, second)
        };
        table.certificates.iter().enumerate().map(write).collect()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("{} complained:\n{}", self.dir.display(), self.complaints());
        }
        // Logs of requests are large.
        drop(fs::remove_dir_all(&self.dir));
    }
}
