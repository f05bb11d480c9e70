//! Where a list-and-watch puts what it learns: a whole kind goes straight to the store.

use std::{collections::BTreeSet, sync::Arc};

use tokio::sync::watch;

use super::{Closed, Sink, api::ApiError, outage::Outage, reflector::Target};
use crate::{
    change::{Change, Refusal},
    model::{Key, Kind, Object},
    snapshot::Snapshot,
    source::{
        references,
        referred::{References, Referred, differing},
    },
};

/// All objects of one kind.
#[derive(Debug)]
pub(super) struct WholeKind {
    kind: Kind,
    sink: Sink,
    outage: Arc<Outage>,
    references: Option<Published>,
    is_listed: bool,
}

/// What the Ingresses refer to, kept up to date for [`super::referenced`].
#[derive(Debug)]
pub(super) struct Published {
    references: References,
    publisher: watch::Sender<Option<Referred>>,
}

impl WholeKind {
    pub(super) fn new(
        kind: Kind,
        sink: Sink,
        outage: Arc<Outage>,
        references: Option<Published>,
    ) -> Self {
        Self { kind, sink, outage, references, is_listed: false }
    }
}

impl Target for WholeKind {
    async fn listed(&mut self, objects: Vec<Object>, refused: Vec<Refusal>) -> Result<(), Closed> {
        if let Some(references) = &mut self.references {
            references.replace(&objects, &refused);
        }
        self.is_listed = true;
        self.sink.send(vec![Change::Replace { kind: self.kind, objects, refused }]).await
    }

    fn known(&self) -> Option<Arc<Snapshot>> {
        self.sink.newest()
    }

    async fn changed(&mut self, changes: Vec<Change>) -> Result<(), Closed> {
        if let Some(references) = &mut self.references {
            references.follow(&changes);
        }
        self.sink.send(changes).await
    }

    fn contact(&mut self) {
        self.sink.contact(self.kind);
        self.outage.contact(self.kind.as_str());
    }

    async fn failed(&mut self, error: &ApiError) -> Result<(), Closed> {
        let is_withheld = error.is_absent() || error.is_forbidden();
        if self.kind.is_optional() && is_withheld && !self.is_listed {
            if error.is_forbidden() {
                self.outage.failed(self.kind.as_str(), self.kind, error);
            }
            self.sink.contact(self.kind);
            return self.listed(Vec::new(), Vec::new()).await.inspect(|()| self.is_listed = false);
        }
        self.sink.failed(self.kind, &error.to_string());
        self.outage.failed(self.kind.as_str(), self.kind, error);
        Ok(())
    }
}

impl Published {
    pub(super) fn new(references: References, publisher: watch::Sender<Option<Referred>>) -> Self {
        Self { references, publisher }
    }

    fn replace(&mut self, objects: &[Object], refused: &[Refusal]) {
        // The last good version of a refused Ingress stays in force, and so does what it needs.
        let listed = objects.iter().map(Object::key);
        let kept: BTreeSet<&Key> =
            listed.chain(refused.iter().map(|refusal| &refusal.object.key)).collect();
        self.references.retain(|key| kept.contains(key));
        objects.iter().for_each(|object| self.take(object));
        self.publish();
    }

    fn follow(&mut self, changes: &[Change]) {
        for change in changes {
            match change {
                Change::Upsert(object) => self.take(object),
                Change::Delete(object) => self.references.remove(&object.key),
                Change::Refuse(_) | Change::Replace { .. } => {}
            }
        }
        self.publish();
    }

    fn take(&mut self, object: &Object) {
        if let Object::Ingress(ingress) = object {
            self.references.set(&ingress.key, references(ingress));
        }
    }

    fn publish(&self) {
        let all = self.references.all();
        self.publisher.send_if_modified(|published| {
            let is_new = |known: &Referred| differing(known, all).next().is_some();
            let changed = published.as_ref().is_none_or(is_new);
            *published = Some(all.clone());
            changed
        });
    }
}
