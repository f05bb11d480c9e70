//! Addresses of this node's interfaces. The kernel goes through all of them, of which a node with many pods has
//! thousands, and whoever asks waits: not for a thread that serves.

use std::{
    collections::BTreeSet,
    fmt, io,
    net::IpAddr,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use nix::ifaddrs::getifaddrs;

/// As long as what a host's name led to is taken for true.
const READ_AGAIN: Duration = Duration::from_secs(5);
/// Where kube-proxy's IPVS keeps the addresses of Services, which are not the node's.
const SERVICE_INTERFACES: [&str; 2] = ["kube-ipvs0", "kube-dummy-if"];

static OF_NODE: LazyLock<Interfaces> = LazyLock::new(|| Interfaces::by(read));

/// Of this node's interfaces, or of the pod's without `hostNetwork`.
pub(crate) type Own = Arc<BTreeSet<IpAddr>>;

type Read = dyn Fn() -> io::Result<BTreeSet<IpAddr>> + Send + Sync;

/// What was read of them last.
#[derive(Clone)]
pub(crate) struct Interfaces {
    read: Arc<Read>,
    known: Arc<Mutex<Option<(Instant, Own)>>>,
}

impl Interfaces {
    pub(crate) fn of_node() -> Self {
        OF_NODE.clone()
    }

    pub(crate) fn by(
        read: impl Fn() -> io::Result<BTreeSet<IpAddr>> + Send + Sync + 'static,
    ) -> Self {
        Self { read: Arc::new(read), known: Arc::default() }
    }

    /// What is known, if it is new: nobody is waited for.
    pub(crate) fn known(&self) -> Option<Own> {
        // Locked: they are being read.
        let known = self.known.try_lock().ok()?;
        known.as_ref().filter(|known| is_fresh(known)).map(|(_, own)| own.clone())
    }

    /// Waits for the kernel if what is known is old. One reads for all who ask meanwhile.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn addresses(&self) -> Result<Own, Arc<str>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_ref().filter(|known| is_fresh(known)) {
            return Ok(known.1.clone());
        }
        let addresses = (self.read)()
            .map_err(|error| format!("this node's own addresses cannot be read: {error}"))?;
        let addresses = Arc::new(addresses);
        *known = Some((Instant::now(), addresses.clone()));
        Ok(addresses)
    }
}

fn is_fresh(known: &(Instant, Own)) -> bool {
    known.0.elapsed() < READ_AGAIN
}

fn read() -> io::Result<BTreeSet<IpAddr>> {
    let known = getifaddrs()?.filter(|known| !SERVICE_INTERFACES.contains(&&*known.interface_name));
    let addresses = known.filter_map(|known| {
        let address = known.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
    });
    Ok(addresses.collect())
}

impl fmt::Debug for Interfaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Interfaces").field("known", &self.known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

    use super::*;

    #[test]
    fn what_was_read_is_used_while_it_is_new_and_an_error_is_not_kept() {
        let reads = AtomicU8::new(0);
        let interfaces = Interfaces::by(move || match reads.fetch_add(1, SeqCst) {
            0 => Err(io::Error::other("no memory")),
            turn => Ok(BTreeSet::from([IpAddr::from([192, 0, 2, turn])])),
        });
        let last = |interfaces: &Interfaces| {
            let own = interfaces.addresses().map_err(|error| error.to_string());
            own.map(|own| own.iter().map(ToString::to_string).collect::<String>())
        };
        let unread = "this node's own addresses cannot be read: no memory";
        assert_eq!(interfaces.known(), None);
        assert_eq!(last(&interfaces), Err(unread.to_owned()));
        assert_eq!(interfaces.known(), None);
        for _ in 0..3 {
            assert_eq!(last(&interfaces), Ok("192.0.2.1".to_owned()));
            assert!(interfaces.known().is_some());
        }
        if let Some((read, _)) = interfaces.known.lock().unwrap().as_mut() {
            *read -= READ_AGAIN;
        }
        assert_eq!(interfaces.known(), None);
        assert_eq!(last(&interfaces), Ok("192.0.2.2".to_owned()));
    }

    #[test]
    fn whoever_serves_does_not_wait_while_another_reads() {
        let interfaces = Interfaces::by(|| Ok(BTreeSet::new()));
        interfaces.addresses().unwrap();
        let reading = interfaces.known.lock().unwrap();
        assert_eq!(interfaces.known(), None);
        drop(reading);
        assert!(interfaces.known().is_some());
    }
}
