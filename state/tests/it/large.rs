//! Full lists of large clusters.

use std::sync::Arc;

use fairlead_state::{
    Change, Key, Kind, Object, Running, Source, SourceError, model::Namespace, source::Sink, start,
};
use tokio::task::yield_now;
use tokio_util::sync::CancellationToken;

const OBJECTS: usize = 50_000;
/// What another task of the same thread is given while they are taken: without a thread of its own for
/// that, one turn or two.
const TURNS_MIN: usize = 20;

/// Lists so many namespaces, then tells of one more.
struct Lists(usize);

impl Source for Lists {
    async fn run(self, sink: Sink, cancel: CancellationToken) -> Result<(), SourceError> {
        let namespace = |number| {
            let key = Key::new("", format!("n{number:06}").as_str());
            Object::Namespace(Arc::new(Namespace { key, labels: [].into() }))
        };
        let objects = (0..self.0).map(namespace).collect();
        let list = Change::Replace { kind: Kind::Namespace, objects, refused: vec![] };
        for batch in [vec![list], vec![Change::Upsert(namespace(self.0))]] {
            sink.send(batch).await.unwrap();
            // The store takes each for itself.
            yield_now().await;
        }
        cancel.cancelled().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_full_list_neither_holds_up_the_thread_it_comes_in_on_nor_loses_its_place() {
    let cancel = CancellationToken::new();
    let Running { snapshots, task, .. } = start(Lists(OBJECTS), [Kind::Namespace], cancel.clone());
    let mut turns = 0;
    while snapshots.borrow().is_none() {
        yield_now().await;
        turns += 1;
    }
    assert!(turns >= TURNS_MIN, "{turns} turns");
    let is_behind = || snapshots.borrow().as_ref().is_some_and(|s| s.namespaces().len() > OBJECTS);
    while !is_behind() {
        yield_now().await;
    }
    cancel.cancel();
    task.await.unwrap().unwrap();
}
