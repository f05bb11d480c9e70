//! Where API servers listen, as the cluster itself says: the endpoints of `default/kubernetes`.
//!
//! They are remembered in a file, because a node that starts afresh may have nothing that serves
//! the address of that Service.

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    model::{Key, Protocol},
    snapshot::Snapshot,
    store::Snapshots,
};

/// The Service every API server enters itself into.
const NAMESPACE: &str = "default";
const SERVICE: &str = "kubernetes";
/// The file's name in the state directory.
const FILE: &str = "apiserver";
/// More API servers than any cluster has; a file with more is not ours.
const ADDRESSES_MAX: usize = 64;

/// Addresses of API servers; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<Vec<SocketAddr>>>);

impl Addresses {
    /// Those remembered in a state directory. A file that cannot be read or understood is said and
    /// otherwise taken as none.
    pub(super) fn remembered_in(directory: Option<&Path>) -> Self {
        let addresses = Self::default();
        let Some(file) = directory.map(|directory| directory.join(FILE)) else { return addresses };
        match read(&file) {
            Ok(remembered) => addresses.set(remembered),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(
                "{}: {error}; going on without remembered addresses of the API server",
                file.display()
            ),
        }
        addresses
    }

    pub(super) fn get(&self) -> Vec<SocketAddr> {
        self.lock().clone()
    }

    pub(super) fn set(&self, addresses: Vec<SocketAddr>) {
        *self.lock() = addresses;
    }

    /// Keeps these addresses at what the snapshots say, and remembers them in `directory`, until
    /// the store is gone. An empty list is no news: servers that end take themselves out of it.
    pub async fn follow(self, mut snapshots: Snapshots, directory: Option<PathBuf>) {
        let mut written = directory.as_ref().map(|_| self.get());
        let mut said = String::new();
        snapshots.mark_changed();
        while snapshots.changed().await.is_ok() {
            let newest = snapshots.borrow_and_update().clone();
            let told = newest.as_deref().map(endpoints).unwrap_or_default();
            if told.is_empty() {
                continue;
            }
            if self.get() != told {
                tracing::debug!(?told, "addresses of the API server");
                self.set(told.clone());
            }
            let Some(directory) = &directory else { continue };
            if written.as_ref() == Some(&told) {
                continue;
            }
            match write(directory, &told) {
                Ok(()) => written = Some(told),
                Err(error) => {
                    let reason = format!(
                        "--state-dir {}: {error}; addresses of the API server are not remembered \
                         for the next start",
                        directory.display()
                    );
                    if reason != said {
                        tracing::warn!("{reason}");
                    }
                    said = reason;
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<SocketAddr>> {
        // Replaced as a whole: it is good whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready endpoints of `default/kubernetes`, sorted.
fn endpoints(snapshot: &Snapshot) -> Vec<SocketAddr> {
    let service = Key::new(NAMESPACE, SERVICE);
    let mut all = BTreeSet::new();
    for slice in snapshot.slices_of(&service) {
        let ready = slice.endpoints.iter().filter(|endpoint| endpoint.ready);
        for ip in ready.flat_map(|endpoint| endpoint.addresses.iter()) {
            let ports = slice.ports.iter().filter(|port| port.protocol == Protocol::Tcp);
            all.extend(ports.map(|port| SocketAddr::new(*ip, port.port)));
        }
    }
    all.into_iter().take(ADDRESSES_MAX).collect()
}

fn read(file: &Path) -> io::Result<Vec<SocketAddr>> {
    let text = fs::read_to_string(file)?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let addresses = lines.take(ADDRESSES_MAX).map(|line| {
        line.parse().map_err(|_| {
            let reason = format!("{line:?} is no ADDRESS:PORT");
            io::Error::new(io::ErrorKind::InvalidData, reason)
        })
    });
    addresses.collect()
}

/// Whoever reads sees the old list or the new one, also after a crash of the machine.
fn write(directory: &Path, addresses: &[SocketAddr]) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let unfinished = directory.join(format!(".{FILE}.{}", std::process::id()));
    let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
    let written = fs::File::create(&unfinished).and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, directory.join(FILE))
    });
    if written.is_err() {
        // What is left of a full disk's try is of no use.
        drop(fs::remove_file(&unfinished));
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_remembered_is_read_back_and_a_damaged_file_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("state");
        let good = ["192.0.2.1:6443".parse().unwrap(), "[2001:db8::1]:6443".parse().unwrap()];
        assert!(Addresses::remembered_in(Some(&state)).get().is_empty(), "nothing yet");
        write(&state, &good).unwrap();
        assert_eq!(Addresses::remembered_in(Some(&state)).get(), good);
        assert_eq!(fs::read_dir(&state).unwrap().count(), 1, "no unfinished file stays");
        fs::write(state.join(FILE), b"192.0.2.1:6443\n\xff\x00").unwrap();
        assert!(Addresses::remembered_in(Some(&state)).get().is_empty());
        fs::write(state.join(FILE), "192.0.2.1:6443\nnonsense\n").unwrap();
        assert!(Addresses::remembered_in(Some(&state)).get().is_empty());
    }
}
