//! Secrets, ConfigMaps and the own Node: only those something refers to, each by a watch of its own.
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
    source::referred::{Referred, differing},
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
    /// Those whose watch has not said anything; kept until the kinds are complete.
    unanswered: BTreeSet<ObjectRef>,
    /// What is referred to, as seen last; `None` until it is known.
    wanted: Option<Referred>,
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
            unanswered: BTreeSet::new(),
            wanted: None,
            complete: false,
            tasks: JoinSet::new(),
        }
    }

    /// Runs until nobody takes changes, or until the references end with who publishes them.
    pub(super) async fn run(mut self, mut references: watch::Receiver<Option<Referred>>) -> Closed {
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

    /// Costs what changed: Ingresses come and go one by one, and may be many.
    async fn retarget(
        &mut self,
        wanted: Option<Referred>,
        answers: &mpsc::Sender<Change>,
    ) -> Result<(), Closed> {
        let Some(wanted) = wanted else { return Ok(()) };
        let before = self.wanted.replace(wanted.clone()).unwrap_or_default();
        let mut changes = Vec::new();
        for object in differing(&before, &wanted) {
            if !wanted.contains_key(object) {
                changes.extend(self.end(object));
            } else if self.kinds.contains(&object.kind) {
                self.begin(object.clone(), answers.clone());
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
        if !self.complete {
            self.unanswered.insert(object.clone());
        }
        self.followed.insert(object, Followed { task, answer: None });
    }

    /// `None`: it is of a kind that is not followed.
    fn end(&mut self, object: &ObjectRef) -> Option<Change> {
        self.followed.remove(object)?.task.abort();
        self.unanswered.remove(object);
        let subject = object.to_string();
        self.sink.problem(&subject, None);
        self.outage.forget(&subject);
        Some(Change::Delete(object.clone()))
    }

    async fn take(&mut self, answer: Change) -> Result<(), Closed> {
        let Some(object) = subject(&answer) else { return Ok(()) };
        // The last word of a watch that has been given up.
        let Some(followed) = self.followed.get_mut(&object) else { return Ok(()) };
        if self.complete {
            return self.sink.send(vec![answer]).await;
        }
        followed.answer = Some(answer);
        self.unanswered.remove(&object);
        self.complete_if_all_answered().await
    }

    async fn complete_if_all_answered(&mut self) -> Result<(), Closed> {
        if self.wanted.is_none() || !self.unanswered.is_empty() {
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
            class: None,
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
