//! `status.loadBalancer` of the Ingresses that are served here.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use fairlead_state::{
    Key, Snapshot,
    model::{Ingress, Service},
    write::{Address, Corrected, Placing, WriteError, Writer},
};
use tokio::time::Instant;

use super::{Complaints, FORBIDDEN, Nowhere, REFUSED};
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

/// What an Ingress was given here, or may have been: noted before it is written, as an end does not wait for replies.
#[derive(Debug)]
struct Written {
    /// As it was then; `None` as long as nobody knows whether it was.
    ingress: Option<Arc<Ingress>>,
    /// It has one of these, if it has not been given to somebody else: as a rule there is one.
    addresses: Vec<Arc<BTreeSet<Address>>>,
}

/// What was written.
#[derive(Debug)]
pub(super) struct Statuses {
    writer: Writer,
    pod: Option<Key>,
    from: From,
    found: Option<Found>,
    written: BTreeMap<Key, Written>,
    swept: Option<(Instant, Arc<BTreeSet<Address>>)>,
    /// What the API server refused, and until when it is not tried again.
    refused: BTreeMap<Key, Instant>,
    /// There is no right to any of it; until when that is believed.
    forbidden: Option<Instant>,
    complaints: Complaints,
    nowhere: Nowhere,
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
        Self {
            writer,
            pod,
            from,
            found: None,
            written: BTreeMap::new(),
            swept: None,
            refused: BTreeMap::new(),
            forbidden: None,
            complaints: Complaints::default(),
            nowhere: Nowhere::default(),
        }
    }

    /// Somebody else writes now.
    pub(super) fn forget(&mut self) {
        self.found = None;
        self.written.clear();
        self.swept = None;
        self.refused.clear();
    }

    /// Brings every Ingress of `served` up to date, but for those that the API server refuses; these are
    /// tried again from time to time. Returns whether all others are.
    pub(super) async fn bring(&mut self, snapshot: &Snapshot, served: &BTreeSet<Key>) -> bool {
        let now = Instant::now();
        if self.forbidden.is_some_and(|until| now < until) {
            return false;
        }
        self.refused.retain(|_, until| now < *until);
        let result = self.try_bring(snapshot, served).await;
        let until = Instant::now() + FORBIDDEN;
        self.forbidden = result.as_ref().is_err_and(WriteError::is_forbidden).then_some(until);
        match &result {
            Ok(()) if self.refused.is_empty() => self.complaints.forget(),
            Ok(()) => {}
            Err(error) => self.complaints.say(error),
        }
        result.is_ok()
    }

    /// The last one takes the addresses away: nobody answers there any more.
    pub(super) async fn leave(&mut self) {
        let Some(pod) = &self.pod else { return };
        let others = match self.writer.peers(pod).await {
            Ok(peers) => peers.others,
            Err(error) => return self.complaints.say(&error),
        };
        if others > 0 {
            return;
        }
        if let Err(error) = self.withdraw().await {
            self.complaints.say(&error);
        }
    }

    /// Takes away what was written here, and nothing else: whoever takes over from another controller
    /// has that one's addresses until it has its own.
    async fn withdraw(&mut self) -> Result<(), WriteError> {
        let ours = self.written.iter().filter(|(key, _)| !self.refused.contains_key(key));
        let ours: BTreeMap<Key, Placing<'_>> =
            ours.map(|(key, written)| (key.clone(), Placing::Taken(&written.addresses))).collect();
        if ours.is_empty() {
            return Ok(());
        }
        let Corrected { changed, refused } = self.writer.set_all_addresses(&ours).await?;
        tracing::info!(ingresses = changed, "Ingress: addresses taken away");
        self.written.retain(|key, _| self.refused.contains_key(key) || refused.contains_key(key));
        self.swept = None;
        self.hold(refused);
        Ok(())
    }

    fn hold(&mut self, refused: impl IntoIterator<Item = (Key, WriteError)>) {
        for (key, error) in refused {
            self.complaints.say(&error);
            self.refused.insert(key, Instant::now() + REFUSED);
        }
    }

    /// Notes that an Ingress is about to be given these.
    fn begin(&mut self, key: &Key, wanted: &Arc<BTreeSet<Address>>) {
        let none = || Written { ingress: None, addresses: vec![] };
        let written = self.written.entry(key.clone()).or_insert_with(none);
        written.ingress = None;
        if !written.addresses.contains(wanted) {
            written.addresses.push(wanted.clone());
        }
    }

    /// Corrects one; whether it is as it should be.
    async fn correct(&mut self, key: &Key, placing: Placing<'_>) -> Result<bool, WriteError> {
        if self.refused.contains_key(key) {
            return Ok(false);
        }
        match self.writer.set_addresses(key, placing).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_of_all() || matches!(error, WriteError::Gone { .. }) => {
                Err(error)
            }
            Err(error) => {
                self.hold([(key.clone(), error)]);
                Ok(false)
            }
        }
    }

    async fn try_bring(
        &mut self,
        snapshot: &Snapshot,
        served: &BTreeSet<Key>,
    ) -> Result<(), WriteError> {
        let wanted = Arc::new(self.addresses(snapshot).await?);
        if wanted.is_empty() {
            return self.withdraw().await;
        }
        self.release(snapshot, served).await?;
        let ours = |key: &Key| Some((key.clone(), snapshot.ingresses().get(key)?.clone()));
        let ours: BTreeMap<Key, Arc<Ingress>> = served.iter().filter_map(ours).collect();
        let is_swept =
            |(at, addresses): &(Instant, _)| at.elapsed() < SWEEP && *addresses == wanted;
        if !self.swept.as_ref().is_some_and(is_swept) {
            ours.keys().for_each(|key| self.begin(key, &wanted));
            let placings = ours.keys().map(|key| (key.clone(), Placing::Given(&wanted)));
            let Corrected { changed, refused } =
                self.writer.set_all_addresses(&placings.collect()).await?;
            if changed > 0 {
                tracing::info!(ingresses = changed, addresses = %text(&wanted), "Ingress: addresses written");
            }
            let given = ours.into_iter().filter(|(key, _)| !refused.contains_key(key));
            self.written.extend(given.map(|(key, ingress)| {
                (key, Written { ingress: Some(ingress), addresses: vec![wanted.clone()] })
            }));
            self.hold(refused);
            self.swept = Some((Instant::now(), wanted));
            return Ok(());
        }
        for (key, ingress) in ours {
            let is_same = |written: &Written| {
                written.ingress.as_ref().is_some_and(|seen| Arc::ptr_eq(seen, &ingress))
            };
            if self.written.get(&key).is_some_and(is_same) {
                continue;
            }
            self.begin(&key, &wanted);
            match self.correct(&key, Placing::Given(&wanted)).await {
                Ok(true) => {
                    let (ingress, addresses) = (Some(ingress), vec![wanted.clone()]);
                    self.written.insert(key, Written { ingress, addresses });
                }
                Ok(false) => {}
                // It goes from the snapshot soon.
                Err(WriteError::Gone { .. }) => _ = self.written.remove(&key),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Those that are somebody else's now lose the addresses they were given here, and none of that one's.
    async fn release(
        &mut self,
        snapshot: &Snapshot,
        served: &BTreeSet<Key>,
    ) -> Result<(), WriteError> {
        let lost = self.written.iter().filter(|(key, _)| !served.contains(*key));
        let lost = lost.map(|(key, written)| (key.clone(), written.addresses.clone()));
        for (key, given) in lost.collect::<Vec<_>>() {
            if snapshot.ingresses().contains_key(&key) {
                match self.correct(&key, Placing::Taken(&given)).await {
                    Ok(true) | Err(WriteError::Gone { .. }) => {}
                    Ok(false) => continue,
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
            From::Nodes(pod) => {
                let nodes = self.writer.peers(pod).await?.nodes;
                self.nowhere.look(nodes.is_empty());
                nodes
            }
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
