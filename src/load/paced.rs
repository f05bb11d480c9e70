//! A connection per request, begun on schedule whether or not earlier ones were answered: what is
//! slow shows.

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

/// Connections begun together when several are due.
const TICK: Duration = Duration::from_millis(1);
/// Requests open at a time; those above are skipped and counted.
const OPEN_MAX: usize = 4096;

/// Runs until `count` requests were made or `stop`, and waits for open ones.
pub(crate) async fn run(
    caller: &Rc<Caller>,
    rate: u32,
    count: Option<u64>,
    recorder: &Rc<RefCell<Recorder>>,
    stop: &CancellationToken,
) {
    let mut open = JoinSet::new();
    let mut tick = tokio::time::interval(TICK);
    let started = Instant::now();
    let last = count.unwrap_or(u64::MAX);
    let (mut begun, mut skipped, mut took) = (0, 0, Duration::ZERO);
    while begun < last {
        tokio::select! {
            _ = tick.tick() => {}
            () = stop.cancelled() => break,
        }
        while open.try_join_next().is_some() {}
        took = started.elapsed();
        let wanted = due(took, rate).min(last);
        while begun < wanted {
            begun += 1;
            if open.len() >= OPEN_MAX {
                recorder.borrow_mut().skip();
                skipped += 1;
                continue;
            }
            open.spawn_local(one(caller.clone(), recorder.clone()));
        }
    }
    recorder.borrow_mut().paced(rate, begun - skipped, took);
    open.join_all().await;
}

/// How many requests should have begun by now; the first is due at once.
fn due(elapsed: Duration, rate: u32) -> u64 {
    let due = elapsed.as_micros() * u128::from(rate) / 1_000_000;
    u64::try_from(due).unwrap_or(u64::MAX).saturating_add(1)
}

async fn one(caller: Rc<Caller>, recorder: Rc<RefCell<Recorder>>) {
    let started = Instant::now();
    let result = request::once(&caller).await;
    let took = started.elapsed();
    match result {
        Ok(answer) => recorder.borrow_mut().answer(took, answer),
        Err(failure) => recorder.borrow_mut().failure(took, failure),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly() {
        for (elapsed_ms, rate, expected) in
            [(0, 1000, 1), (1, 1000, 2), (500, 1000, 501), (999, 1, 1), (1000, 1, 2)]
        {
            assert_eq!(due(Duration::from_millis(elapsed_ms), rate), expected);
        }
    }
}
