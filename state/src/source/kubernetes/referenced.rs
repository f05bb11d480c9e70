//! Secrets and ConfigMaps: only those something refers to, each by a watch of its own.
//!
//! So no right to read all Secrets is needed, and none is held that nobody uses. The watches share
//! connections ([`super::streams`]); an API server looks such watches up by the object's name, and
//! wakes no other when it changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
};

use super::{
    Closed, Sink,
    api::{Api, ApiError, Query},
    outage::Outage,
    reflector::{Reflector, Target},
};
use crate::{
    change::{Change, Refusal},
    model::{Kind, Object, ObjectRef},
};

/// Answers between the watches and this; a watch that is faster waits.
const ANSWERS_MAX: usize = 64;

/// Follows what is referred to.
#[derive(Debug)]
pub(super) struct Referenced {
    api: Arc<Api>,
    outage: Arc<Outage>,
    sink: Sink,
    kinds: BTreeSet<Kind>,
    followed: BTreeMap<ObjectRef, Followed>,
    /// The references are known.
    known: bool,
    /// The kinds were complete once: from then on each answer goes straight on.
    complete: bool,
    tasks: JoinSet<Closed>,
}

#[derive(Debug)]
struct Followed {
    task: AbortHandle,
    /// What its watch said last; `None` until it said anything.
    answer: Option<Change>,
}

/// One object, whose answers go to [`Referenced`].
#[derive(Debug)]
struct Single {
    object: ObjectRef,
    subject: String,
    sink: Sink,
    outage: Arc<Outage>,
    server: Arc<str>,
    answers: mpsc::Sender<Change>,
}

impl Referenced {
    pub(super) fn new(
        api: Arc<Api>,
        outage: Arc<Outage>,
        sink: Sink,
        kinds: BTreeSet<Kind>,
    ) -> Self {
        Self {
            api,
            outage,
            sink,
            kinds,
            followed: BTreeMap::new(),
            known: false,
            complete: false,
            tasks: JoinSet::new(),
        }
    }

    /// Runs until nobody takes changes, or until the references end with who publishes them.
    pub(super) async fn run(
        mut self,
        mut references: watch::Receiver<Option<BTreeSet<ObjectRef>>>,
    ) -> Closed {
        let (answers, mut answered) = mpsc::channel(ANSWERS_MAX);
        references.mark_changed();
        // Without Ingresses the references never change: nobody is left to publish them.
        let mut published = true;
        loop {
            let done = tokio::select! {
                changed = references.changed(), if published => {
                    published = changed.is_ok();
                    let wanted = references.borrow_and_update().clone();
                    self.retarget(wanted, &answers).await
                }
                Some(answer) = answered.recv() => self.take(answer).await,
                Some(_) = self.tasks.join_next() => Ok(()),
            };
            if done.is_err() {
                return Closed;
            }
        }
    }

    async fn retarget(
        &mut self,
        wanted: Option<BTreeSet<ObjectRef>>,
        answers: &mpsc::Sender<Change>,
    ) -> Result<(), Closed> {
        let Some(wanted) = wanted else { return Ok(()) };
        self.known = true;
        let gone: Vec<ObjectRef> =
            self.followed.keys().filter(|object| !wanted.contains(object)).cloned().collect();
        let mut changes = Vec::new();
        for object in gone {
            if let Some(followed) = self.followed.remove(&object) {
                followed.task.abort();
            }
            let subject = object.to_string();
            self.sink.problem(&subject, None);
            self.outage.forget(&subject);
            changes.push(Change::Delete(object));
        }
        for object in wanted {
            if self.kinds.contains(&object.kind) && !self.followed.contains_key(&object) {
                self.begin(object, answers.clone());
            }
        }
        if self.complete {
            return self.sink.send(changes).await;
        }
        self.complete_if_all_answered().await
    }

    fn begin(&mut self, object: ObjectRef, answers: mpsc::Sender<Change>) {
        let query = Query::one(&object);
        let target = Single {
            subject: object.to_string(),
            object: object.clone(),
            sink: self.sink.clone(),
            outage: self.outage.clone(),
            server: self.api.server().clone(),
            answers,
        };
        let task = self.tasks.spawn(Reflector::new(self.api.clone(), query, target).run());
        self.followed.insert(object, Followed { task, answer: None });
    }

    async fn take(&mut self, answer: Change) -> Result<(), Closed> {
        let followed = subject(&answer).and_then(|object| self.followed.get_mut(&object));
        // The last word of a watch that has been given up.
        let Some(followed) = followed else { return Ok(()) };
        if self.complete {
            return self.sink.send(vec![answer]).await;
        }
        followed.answer = Some(answer);
        self.complete_if_all_answered().await
    }

    async fn complete_if_all_answered(&mut self) -> Result<(), Closed> {
        if !self.known || self.followed.values().any(|followed| followed.answer.is_none()) {
            return Ok(());
        }
        self.complete = true;
        let mut objects: BTreeMap<Kind, Vec<Object>> = BTreeMap::new();
        let mut refused: BTreeMap<Kind, Vec<Refusal>> = BTreeMap::new();
        for followed in self.followed.values_mut() {
            match followed.answer.take() {
                Some(Change::Upsert(object)) => {
                    objects.entry(object.kind()).or_default().push(object);
                }
                Some(Change::Refuse(refusal)) => {
                    refused.entry(refusal.object.kind).or_default().push(refusal);
                }
                _ => {}
            }
        }
        let replaced = self.kinds.iter().map(|kind| Change::Replace {
            kind: *kind,
            objects: objects.remove(kind).unwrap_or_default(),
            refused: refused.remove(kind).unwrap_or_default(),
        });
        let replaced = replaced.collect();
        self.sink.send(replaced).await
    }
}

impl Target for Single {
    async fn listed(
        &mut self,
        mut objects: Vec<Object>,
        mut refused: Vec<Refusal>,
    ) -> Result<(), Closed> {
        let answer = match (objects.pop(), refused.pop()) {
            (Some(object), _) => Change::Upsert(object),
            (None, Some(refusal)) => Change::Refuse(refusal),
            (None, None) => Change::Delete(self.object.clone()),
        };
        self.changed(vec![answer]).await
    }

    async fn changed(&mut self, changes: Vec<Change>) -> Result<(), Closed> {
        for change in changes {
            self.answers.send(change).await.map_err(|_| Closed)?;
        }
        Ok(())
    }

    fn contact(&mut self) {
        self.sink.contact(self.object.kind);
        self.sink.problem(&self.subject, None);
        self.outage.contact(&self.subject);
    }

    /// Not being allowed to read it is an answer: everything else must not wait for the right.
    async fn failed(&mut self, error: &ApiError) -> Result<(), Closed> {
        self.sink.problem(&self.subject, Some(&error.to_string()));
        self.outage.failed(&self.subject, self.object.kind, error);
        if !error.is_forbidden() {
            return Ok(());
        }
        let refusal = Refusal {
            object: self.object.clone(),
            reason: format!("{error}; {}", error.cure(self.object.kind, false)).into(),
            origin: self.server.clone(),
        };
        self.changed(vec![Change::Refuse(refusal)]).await
    }
}

fn subject(change: &Change) -> Option<ObjectRef> {
    match change {
        Change::Upsert(object) => Some(object.reference()),
        Change::Delete(object) => Some(object.clone()),
        Change::Refuse(refusal) => Some(refusal.object.clone()),
        Change::Replace { .. } => None,
    }
}
