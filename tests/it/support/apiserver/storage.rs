//! Objects, their versions, and what happened to them.

use std::collections::{BTreeMap, HashMap};

use serde_json::{Value, json};
use tokio::sync::watch;

/// Resource, namespace, name.
pub(super) type Id = (String, String, String);

/// The objects and their history since the last compaction.
#[derive(Debug, Default)]
pub(super) struct Storage {
    objects: BTreeMap<Id, Value>,
    version: u64,
    compacted: u64,
    history: Vec<Happened>,
    /// Who watches one object, told the version at which something last happened to it: like a real
    /// server this one wakes nobody for another's change.
    followers: HashMap<Id, watch::Sender<u64>>,
    /// Lists that are being read page by page.
    pages: HashMap<String, (u64, Vec<Value>)>,
}

#[derive(Debug)]
struct Happened {
    version: u64,
    resource: String,
    before: Option<Value>,
    after: Option<Value>,
}

/// Which objects a request is about.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) resource: String,
    pub(super) namespace: Option<String>,
    pub(super) name: Option<String>,
    pub(super) node_name: Option<String>,
}

/// A version that is no longer known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Gone;

/// A page of a list.
#[derive(Debug)]
pub(super) struct Page {
    pub(super) items: Vec<Value>,
    pub(super) version: u64,
    pub(super) next: Option<String>,
}

impl Storage {
    pub(super) fn version(&self) -> u64 {
        self.version
    }

    pub(super) fn put(&mut self, mut object: Value) -> u64 {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let id = id(&object);
        let before = self.objects.insert(id.clone(), object.clone());
        self.remember(id, before, Some(object));
        self.version
    }

    pub(super) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        let id = (resource.to_owned(), namespace.to_owned(), name.to_owned());
        self.objects.get(&id).cloned()
    }

    pub(super) fn delete(&mut self, kind: &str, namespace: &str, name: &str) {
        let id = (resource(kind), namespace.to_owned(), name.to_owned());
        let before = self.objects.remove(&id).unwrap_or_else(|| panic!("there is no {id:?}"));
        self.version += 1;
        self.remember(id, Some(before), None);
    }

    pub(super) fn compact(&mut self) {
        self.history.clear();
        self.pages.clear();
        self.compacted = self.version;
    }

    pub(super) fn all(&self, selection: &Selection) -> Vec<Value> {
        // Ten thousand watches of one object each must not look at all objects each.
        if let (Some(namespace), Some(name)) = (&selection.namespace, &selection.name) {
            let one = self.get(&selection.resource, namespace, name);
            return one.filter(|object| selection.takes(object)).into_iter().collect();
        }
        self.objects.values().filter(|object| selection.takes(object)).cloned().collect()
    }

    pub(super) fn page(
        &mut self,
        selection: &Selection,
        limit: Option<usize>,
        token: Option<&str>,
    ) -> Result<Page, Gone> {
        let (version, mut items) = match token {
            Some(token) => self.pages.remove(token).ok_or(Gone)?,
            None => (self.version, self.all(selection)),
        };
        let rest = items.split_off(limit.unwrap_or(usize::MAX).min(items.len()));
        let next = (!rest.is_empty()).then(|| format!("{version}-{}", rest.len()));
        if let Some(token) = &next {
            self.pages.insert(token.clone(), (version, rest));
        }
        Ok(Page { items, version, next })
    }

    /// Type and object of each event after a version.
    pub(super) fn events(
        &self,
        selection: &Selection,
        after: u64,
    ) -> Result<Vec<(&'static str, Value)>, Gone> {
        if after < self.compacted && !self.is_unchanged(selection, after) {
            return Err(Gone);
        }
        let known = self.history.partition_point(|happened| happened.version <= after);
        let news = self.history.iter().skip(known);
        Ok(news.filter_map(|happened| happened.event(selection)).collect())
    }

    /// Wakes when something happens to an object.
    pub(super) fn follow(&mut self, id: Id) -> watch::Receiver<u64> {
        let version = self.version;
        self.followers.entry(id).or_insert_with(|| watch::Sender::new(version)).subscribe()
    }

    /// Wakes all who follow one object.
    pub(super) fn call_followers(&self) {
        self.followers.values().for_each(|followers| followers.send_modify(|_| ()));
    }

    /// It is about one object, to which nothing has happened since.
    fn is_unchanged(&self, selection: &Selection, after: u64) -> bool {
        let followers = selection.single().and_then(|id| self.followers.get(&id));
        followers.is_some_and(|followers| *followers.borrow() <= after)
    }

    fn remember(&mut self, id: Id, before: Option<Value>, after: Option<Value>) {
        if let Some(followers) = self.followers.get(&id) {
            followers.send_replace(self.version);
        }
        self.history.push(Happened { version: self.version, resource: id.0, before, after });
    }
}

impl Happened {
    fn event(&self, selection: &Selection) -> Option<(&'static str, Value)> {
        if self.resource != selection.resource {
            return None;
        }
        let before = self.before.as_ref().filter(|object| selection.takes(object));
        let after = self.after.as_ref().filter(|object| selection.takes(object));
        match (before, after) {
            (None, Some(after)) => Some(("ADDED", after.clone())),
            (Some(_), Some(after)) => Some(("MODIFIED", after.clone())),
            (Some(before), None) => {
                let mut gone = before.clone();
                gone["metadata"]["resourceVersion"] = json!(self.version.to_string());
                Some(("DELETED", gone))
            }
            (None, None) => None,
        }
    }
}

impl Selection {
    /// All objects of a resource.
    pub(super) fn of(resource: &str) -> Self {
        Self { resource: resource.to_owned(), namespace: None, name: None, node_name: None }
    }

    /// The only object it can take.
    pub(super) fn single(&self) -> Option<Id> {
        let (namespace, name) = self.namespace.clone().zip(self.name.clone())?;
        Some((self.resource.clone(), namespace, name))
    }

    fn takes(&self, object: &Value) -> bool {
        let (resource, namespace, name) = id(object);
        let node_name = object["spec"]["nodeName"].as_str();
        resource == self.resource
            && self.namespace.as_ref().is_none_or(|wanted| *wanted == namespace)
            && self.name.as_ref().is_none_or(|wanted| *wanted == name)
            && self.node_name.as_deref().is_none_or(|wanted| node_name == Some(wanted))
    }
}

fn id(object: &Value) -> Id {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    (resource(&text(&object["kind"])), text(&metadata["namespace"]), text(&metadata["name"]))
}

/// `EndpointSlice` to `endpointslices`, `Ingress` to `ingresses`.
fn resource(kind: &str) -> String {
    let plural = if kind.ends_with('s') { "es" } else { "s" };
    kind.to_lowercase() + plural
}
