//! Files that name upstreams, such as `/etc/resolv.conf`.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use hickory_resolver::system_conf::parse_resolv_conf;

use crate::files::{bytes_of, modified};

/// Port of an upstream that names none.
const DNS_PORT: u16 = 53;
/// Larger files are no resolv.conf.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// A changed file is noticed after so long at most, by the next query that needs it.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// Files, and their state when they were last read.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) checked: Instant,
    files: Vec<ResolvConf>,
}

#[derive(Debug)]
struct ResolvConf {
    path: PathBuf,
    /// `None`: could not be read.
    modified: Option<SystemTime>,
}

impl Files {
    /// These, as they are now.
    pub(super) fn new(paths: Vec<PathBuf>) -> Self {
        let file = |path: PathBuf| ResolvConf { modified: modified(&path), path };
        Self { checked: Instant::now(), files: paths.into_iter().map(file).collect() }
    }

    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.iter().map(|file| file.path.as_path())
    }

    /// Whom they name.
    pub(super) fn servers(&self) -> Vec<SocketAddr> {
        self.paths().flat_map(read).collect()
    }

    /// Whom they name, if their time stamps are others, which is looked at once per interval at most.
    pub(super) fn changed(&mut self) -> Option<Vec<SocketAddr>> {
        if self.files.is_empty() || self.checked.elapsed() < CHECK_INTERVAL {
            return None;
        }
        self.checked = Instant::now();
        let mut changed = false;
        for file in &mut self.files {
            let now = modified(&file.path);
            changed |= now != file.modified;
            file.modified = now;
        }
        changed.then(|| self.servers())
    }
}

/// The `nameserver` lines; none, with a warning, if the file cannot be read or has none.
fn read(path: &Path) -> Vec<SocketAddr> {
    let text = match bytes_of(path, FILE_BYTES_MAX) {
        Ok(text) => text,
        Err(error) => {
            tracing::warn!(path = %path.display(), "DNS: cannot read upstreams: {error}");
            return vec![];
        }
    };
    match parse_resolv_conf(text) {
        Ok((config, _)) => {
            let servers = config.name_servers().iter();
            servers.map(|server| SocketAddr::new(server.ip, DNS_PORT)).collect()
        }
        Err(error) => {
            tracing::warn!(path = %path.display(), "DNS: no upstreams there: {error}");
            vec![]
        }
    }
}
