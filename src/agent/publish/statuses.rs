//! `status.loadBalancer` of the Ingresses that are served here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fairlead_state::{
    Key, Snapshot,
    model::{Ingress, Service},
    write::{Address, WriteError, Writer},
};
use tokio::time::Instant;

use super::Fault;
use crate::agent::args::PublishArgs;

/// What somebody else wrote over it is put right within.
const SWEEP: Duration = Duration::from_secs(600);
/// Addresses of Services and nodes are looked up again after; a Service's change is seen at once.
const LOOK: Duration = Duration::from_secs(30);

/// Where the addresses are from.
#[derive(Clone, Debug)]
enum From {
    Given(BTreeSet<Address>),
    Service(Key),
    Nodes(Key),
    Nowhere,
}

#[derive(Debug)]
struct Found {
    addresses: BTreeSet<Address>,
    at: Instant,
    service: Option<Arc<Service>>,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Statuses {
    writer: Writer,
    pod: Option<Key>,
    from: From,
    found: Option<Found>,
    /// As they were when they had their addresses.
    written: BTreeMap<Key, Arc<Ingress>>,
    swept: Option<(Instant, BTreeSet<Address>)>,
    fault: Fault,
}

impl Statuses {
    pub(super) fn new(writer: Writer, args: &PublishArgs) -> Self {
        let pod = args.pod.as_ref().map(|pod| pod.0.clone());
        let from = match (&args.publish_service, &pod) {
            (Some(service), _) => From::Service(service.0.clone()),
            (None, _) if !args.publish_address.is_empty() => From::Given(args.addresses()),
            (None, Some(pod)) => From::Nodes(pod.clone()),
            (None, None) => From::Nowhere,
        };
        let written = BTreeMap::new();
        Self { writer, pod, from, found: None, written, swept: None, fault: Fault::default() }
    }

    /// Somebody else writes now.
    pub(super) fn forget(&mut self) {
        self.found = None;
        self.written.clear();
        self.swept = None;
    }

    /// Brings every Ingress of `served` up to date. Returns whether all of them are.
    pub(super) async fn bring(&mut self, snapshot: &Snapshot, served: &BTreeSet<Key>) -> bool {
        if self.fault.holds() {
            return false;
        }
        let result = self.try_bring(snapshot, served).await;
        let is_done = result.is_ok();
        self.fault.note(result);
        is_done
    }

    /// The last one takes the addresses away: nobody answers there any more.
    pub(super) async fn leave(&mut self) {
        let Some(pod) = &self.pod else { return };
        let others = match self.writer.peers(pod).await {
            Ok(peers) => peers.others,
            Err(error) => return self.fault.note(Err(error)),
        };
        if others > 0 {
            return;
        }
        if let Err(error) = self.withdraw().await {
            self.fault.note(Err(error));
        }
    }

    /// Takes away what was written here, and nothing else: whoever takes over from another controller
    /// has that one's addresses until it has its own.
    async fn withdraw(&mut self) -> Result<(), WriteError> {
        if self.written.is_empty() {
            return Ok(());
        }
        let ours = self.written.keys().cloned().collect();
        let count = self.writer.set_all_addresses(&ours, &BTreeSet::new()).await?;
        tracing::info!(ingresses = count, "Ingress: addresses taken away");
        self.written.clear();
        self.swept = None;
        Ok(())
    }

    async fn try_bring(
        &mut self,
        snapshot: &Snapshot,
        served: &BTreeSet<Key>,
    ) -> Result<(), WriteError> {
        let wanted = self.addresses(snapshot).await?;
        if wanted.is_empty() {
            return self.withdraw().await;
        }
        self.release(snapshot, served).await?;
        let ours = |key: &Key| Some((key.clone(), snapshot.ingresses().get(key)?.clone()));
        let ours: BTreeMap<Key, Arc<Ingress>> = served.iter().filter_map(ours).collect();
        let is_swept =
            |(at, addresses): &(Instant, _)| at.elapsed() < SWEEP && *addresses == wanted;
        if !self.swept.as_ref().is_some_and(is_swept) {
            let keys = ours.keys().cloned().collect();
            let count = self.writer.set_all_addresses(&keys, &wanted).await?;
            if count > 0 {
                tracing::info!(ingresses = count, addresses = %text(&wanted), "Ingress: addresses written");
            }
            self.written = ours;
            self.swept = Some((Instant::now(), wanted));
            return Ok(());
        }
        for (key, ingress) in ours {
            if self.written.get(&key).is_some_and(|written| Arc::ptr_eq(written, &ingress)) {
                continue;
            }
            match self.writer.set_addresses(&key, &wanted).await {
                Ok(_) => _ = self.written.insert(key, ingress),
                // It goes from the snapshot soon.
                Err(WriteError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those that are somebody else's now lose the addresses they were given here.
    async fn release(
        &mut self,
        snapshot: &Snapshot,
        served: &BTreeSet<Key>,
    ) -> Result<(), WriteError> {
        let lost = self.written.keys().filter(|key| !served.contains(*key));
        for key in lost.cloned().collect::<Vec<_>>() {
            if snapshot.ingresses().contains_key(&key) {
                match self.writer.set_addresses(&key, &BTreeSet::new()).await {
                    Ok(_) | Err(WriteError::Gone { .. }) => {}
                    Err(error) => return Err(error),
                }
            }
            self.written.remove(&key);
        }
        Ok(())
    }

    async fn addresses(&mut self, snapshot: &Snapshot) -> Result<BTreeSet<Address>, WriteError> {
        if let Some(found) = &self.found
            && found.at.elapsed() < LOOK
            && !self.is_front_new(snapshot)
        {
            return Ok(found.addresses.clone());
        }
        let addresses = match &self.from {
            From::Given(addresses) => addresses.clone(),
            From::Service(key) => match self.writer.service_addresses(key).await {
                Err(WriteError::Gone { .. }) => BTreeSet::new(),
                found => found?,
            },
            From::Nodes(pod) => self.writer.peers(pod).await?.nodes,
            From::Nowhere => BTreeSet::new(),
        };
        let service = self.front(snapshot).cloned();
        self.found = Some(Found { addresses: addresses.clone(), at: Instant::now(), service });
        Ok(addresses)
    }

    /// The Service in front, if addresses are from one.
    fn front<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Service>> {
        match &self.from {
            From::Service(key) => snapshot.services().get(key),
            _ => None,
        }
    }

    /// Whether the Service in front is another than when its addresses were looked up.
    pub(super) fn is_front_new(&self, snapshot: &Snapshot) -> bool {
        let known = self.found.as_ref().and_then(|found| found.service.as_ref());
        known.map(Arc::as_ptr) != self.front(snapshot).map(Arc::as_ptr)
    }
}

fn text(addresses: &BTreeSet<Address>) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}
