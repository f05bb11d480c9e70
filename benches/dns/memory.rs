//! Memory, and what a relist does to it and to answers.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

use crate::{
    agent, objects, process,
    subject::{Subject, ask, is_answered},
    support::apiserver::ApiServer,
};

/// What is freed at the start has so long to go back to the system.
const SETTLING: Duration = Duration::from_secs(5);
const BETWEEN_QUESTIONS: Duration = Duration::from_micros(500);
const PATIENCE: Duration = Duration::from_secs(5);

/// A single long wait may be the machine's own: several have a median.
const RELISTS: usize = 5;

/// What was seen of a server.
#[derive(Debug)]
pub struct Footprint {
    pub rss_mib: f64,
    pub relists: Vec<Relist>,
}

/// What a list of everything does.
#[derive(Debug)]
pub struct Relist {
    /// Of memory, over what it was before.
    pub peak_mib: f64,
    /// The longest wait for an answer meanwhile.
    pub pause_ms: f64,
    /// How much longer than it wanted the one who asks slept at most: then the machine had no core for it,
    /// and a pause of that length says nothing about the server. For the reader of the log.
    #[allow(dead_code, reason = "printed")]
    pub overslept_ms: f64,
}

/// Measures a server that has just answered for the first time, then has the API server forget what
/// it knows, several times.
pub fn footprint(server: &ApiServer, subject: &Subject, services: u64) -> Footprint {
    settle();
    let rss_mib = process::status_kib(subject.process.pid(), "VmRSS") / 1024.0;
    let relists = (0..RELISTS).map(|_| relist(server, subject, services)).collect();
    Footprint { rss_mib, relists }
}

/// Waits until what only a start needed is given back.
pub fn settle() {
    thread::park_timeout(SETTLING);
}

/// Has everything listed again while questions are asked.
pub fn relist(server: &ApiServer, subject: &Subject, services: u64) -> Relist {
    let pid = subject.process.pid();
    let before_mib = process::status_kib(pid, "VmRSS") / 1024.0;
    // The peak begins anew (proc(5)).
    fs::write(format!("/proc/{pid}/clear_refs"), "5").unwrap();
    let ended = Arc::new(AtomicBool::new(false));
    let asking = {
        let (address, ended) = (subject.address, ended.clone());
        thread::spawn(move || longest_wait(address, services, &ended))
    };
    server.compact();
    server.disconnect_all();
    server.put(objects::service("late", services, "10.111.0.1"));
    let late = "late.ns0.svc.cluster.local";
    agent::wait("the relist", || is_answered(subject.address, late));
    settle();
    ended.store(true, Relaxed);
    let (pause, overslept) = asking.join().expect("every answer is right");
    let peak_mib = process::status_kib(pid, "VmHWM") / 1024.0 - before_mib;
    server.delete("Service", "ns0", "late");
    agent::wait("the end of what came late", || !is_answered(subject.address, late));
    let [pause_ms, overslept_ms] = [pause, overslept].map(|wait| wait.as_secs_f64() * 1000.0);
    Relist { peak_mib, pause_ms, overslept_ms }
}

/// The longest wait for an answer, and by how much a pause between two questions was too long at most.
fn longest_wait(
    address: std::net::SocketAddr,
    services: u64,
    ended: &AtomicBool,
) -> (Duration, Duration) {
    let (mut longest, mut overslept) = (Duration::ZERO, Duration::ZERO);
    let mut turn = 0;
    while !ended.load(Relaxed) {
        turn += 7919;
        let begun = Instant::now();
        let number = turn % services;
        let name = objects::name(number);
        let reply = ask(address, &name, PATIENCE).unwrap_or_else(|| panic!("{name}: no answer"));
        assert!(reply[3] & 15 == 0 && reply[7] > 0, "{name} was denied during a relist");
        // The only record, whose address is its end.
        let is_right = reply[7] == 1 && reply.ends_with(&objects::address(number));
        assert!(is_right, "{name} had another address during a relist: {reply:?}");
        longest = longest.max(begun.elapsed());
        let asleep = Instant::now();
        thread::park_timeout(BETWEEN_QUESTIONS);
        overslept = overslept.max(asleep.elapsed().saturating_sub(BETWEEN_QUESTIONS));
    }
    (longest, overslept)
}
