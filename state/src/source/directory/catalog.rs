//! All files together: which claim to an object counts, and what changes when a file does.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::file::Claim;
use crate::{
    change::{Change, Refusal},
    model::{Kind, Name, Object, ObjectRef},
    source::{
        references,
        referred::{References, differing},
    },
};

/// Every claim of every file. The first by path, then by place in the file, is the one in force.
#[derive(Debug)]
pub(super) struct Catalog {
    wanted: BTreeSet<Kind>,
    node_name: Option<Name>,
    /// In the order of path and place: nearly always one, so no tree.
    claims: BTreeMap<ObjectRef, Vec<Claimed>>,
    files: BTreeMap<Arc<Path>, Vec<ObjectRef>>,
    references: References,
    touched: BTreeSet<ObjectRef>,
}

/// A claim and where it was found.
#[derive(Debug)]
struct Claimed {
    path: Arc<Path>,
    place: usize,
    claim: Claim,
}

impl Catalog {
    pub(super) fn new(
        wanted: BTreeSet<Kind>,
        node_name: Option<Name>,
        always: BTreeSet<ObjectRef>,
    ) -> Self {
        Self {
            wanted,
            node_name,
            claims: BTreeMap::new(),
            files: BTreeMap::new(),
            references: References::new(always),
            touched: BTreeSet::new(),
        }
    }

    /// A file now says this; nothing if it is gone.
    pub(super) fn replace_file(&mut self, path: &Path, claims: Vec<Claim>) {
        let path: Arc<Path> = path.into();
        for object in self.files.remove(&path).unwrap_or_default() {
            if let Some(claimed) = self.claims.get_mut(&object) {
                claimed.retain(|claimed| claimed.path != path);
                if claimed.is_empty() {
                    self.claims.remove(&object);
                }
            }
            self.touched.insert(object);
        }
        let mut objects = Vec::with_capacity(claims.len());
        for (place, claim) in claims.into_iter().enumerate() {
            objects.push(claim.object.clone());
            self.touched.insert(claim.object.clone());
            let claimed = self.claims.entry(claim.object.clone()).or_default();
            let before = |other: &Claimed| (&other.path, other.place) < (&path, place);
            let at = claimed.partition_point(before);
            claimed.reserve_exact(1);
            claimed.insert(at, Claimed { path: path.clone(), place, claim });
        }
        if !objects.is_empty() {
            self.files.insert(path, objects);
        }
    }

    /// What the files replaced since the last call change.
    pub(super) fn changes(&mut self) -> Vec<Change> {
        self.follow_references();
        let touched = std::mem::take(&mut self.touched);
        touched.iter().flat_map(|object| self.resolve(object)).collect()
    }

    /// All of it, kind by kind.
    pub(super) fn everything(&mut self) -> Vec<Change> {
        self.follow_references();
        self.touched.clear();
        let mut objects: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
        let mut refused: BTreeMap<Kind, Vec<Refusal>> = BTreeMap::new();
        for change in self.claims.keys().flat_map(|object| self.resolve(object)) {
            match change {
                Change::Upsert(object) => objects.entry(object.kind()).or_default().push(object),
                Change::Refuse(refusal) => {
                    refused.entry(refusal.object.kind).or_default().push(refusal);
                }
                Change::Delete(_) | Change::Replace { .. } => {}
            }
        }
        let replaced = self.wanted.iter().map(|kind| Change::Replace {
            kind: *kind,
            objects: objects.remove(kind).unwrap_or_default(),
            refused: refused.remove(kind).unwrap_or_default(),
        });
        replaced.collect()
    }

    /// An Ingress that changed may refer to other Secrets than before.
    fn follow_references(&mut self) {
        let ingresses = self.touched.iter().filter(|object| object.kind == Kind::Ingress);
        let ingresses: Vec<ObjectRef> = ingresses.cloned().collect();
        if ingresses.is_empty() {
            return;
        }
        let before = self.references.all().clone();
        for ingress in ingresses {
            let first = self.claims.get(&ingress).and_then(|claimed| claimed.first());
            match first.map(|first| &first.claim) {
                None => self.references.remove(&ingress.key),
                Some(Claim { verdict: Ok(Some(Object::Ingress(good))), .. }) => {
                    self.references.set(&ingress.key, references(good));
                }
                // Its last good version stays in force, and so does what it needs.
                Some(_) => {}
            }
        }
        self.touched.extend(differing(&before, self.references.all()).cloned());
    }

    fn resolve(&self, object: &ObjectRef) -> Vec<Change> {
        let by_reference = matches!(object.kind, Kind::Secret | Kind::ConfigMap);
        if !self.wanted.contains(&object.kind) {
            return Vec::new();
        }
        let claimed = self
            .claims
            .get(object)
            .filter(|_| !by_reference || self.references.all().contains_key(object));
        let mut claims = claimed.into_iter().flatten().map(|claimed| &claimed.claim);
        let Some(first) = claims.next() else {
            return vec![Change::Delete(object.clone())];
        };
        let mut changes = match &first.verdict {
            Ok(Some(good)) if self.is_ours(good) => vec![Change::Upsert(good.clone())],
            Ok(_) => vec![Change::Delete(object.clone())],
            Err(refusal) => return vec![Change::Refuse(refusal.clone())],
        };
        if let Some(second) = claims.next() {
            changes.push(Change::Refuse(Refusal {
                object: object.clone(),
                reason: format!(
                    "it is already defined at {}, which stays in force; remove one of the two",
                    first.place
                )
                .into(),
                origin: second.place.clone(),
                class: None,
            }));
        }
        changes
    }

    fn is_ours(&self, object: &Object) -> bool {
        match (object, &self.node_name) {
            (Object::Pod(pod), Some(node)) => pod.node_name.as_ref() == Some(node),
            _ => true,
        }
    }
}
