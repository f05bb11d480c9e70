//! Connections that stay open, with a request now and then: what breaks them shows.

use std::{
    cell::RefCell,
    rc::Rc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    report::Recorder,
    request::{self, Caller},
};

/// Ten requests a second on each connection.
const INTERVAL: Duration = Duration::from_millis(100);

/// Keeps `streams` connections busy until `stop`. One that fails is counted and replaced.
pub(crate) async fn run(
    caller: &Rc<Caller>,
    streams: u32,
    recorder: &Rc<RefCell<Recorder>>,
    stop: &CancellationToken,
) {
    let mut open = JoinSet::new();
    for _ in 0..streams {
        open.spawn_local(keep_open(caller.clone(), recorder.clone(), stop.clone()));
    }
    open.join_all().await;
}

async fn keep_open(caller: Rc<Caller>, recorder: Rc<RefCell<Recorder>>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        let started = Instant::now();
        match request::open(&caller).await {
            Ok(sender) => talk(&caller, sender, &recorder, &stop).await,
            Err(failure) => recorder.borrow_mut().failure(started.elapsed(), failure),
        }
        pause(&stop).await;
    }
}

async fn talk(
    caller: &Caller,
    mut sender: request::Sender,
    recorder: &RefCell<Recorder>,
    stop: &CancellationToken,
) {
    while !stop.is_cancelled() {
        let started = Instant::now();
        match request::again(caller, &mut sender).await {
            Ok(answer) => {
                let last = answer.last;
                recorder.borrow_mut().answer(started.elapsed(), answer);
                if last {
                    return;
                }
            }
            Err(failure) => {
                recorder.borrow_mut().failure(started.elapsed(), failure);
                return;
            }
        }
        pause(stop).await;
    }
}

async fn pause(stop: &CancellationToken) {
    tokio::select! {
        () = tokio::time::sleep(INTERVAL) => {}
        () = stop.cancelled() => {}
    }
}
