//! Upstreams that lead back to this server, as CoreDNS's `loop` finds them: a question nobody else can
//! know is sent to each, and comes in here again or does not. CoreDNS ends then; here such an upstream
//! is left out until it leads elsewhere.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use futures::future::join_all;
use hickory_proto::{
    rr::{Name, RecordType},
    serialize::binary::{BinDecodable, BinDecoder, BinEncodable},
};
use tokio::time::{sleep, timeout};

use super::{UpstreamPool, Wishes, question::Question};
use crate::{
    cache::Flavour,
    wire::name::{LowerName, WireName},
};

/// Longest way round.
const PROBE_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks whether others are asked by now, and two probes of those that lead back.
const INTERVAL: Duration = Duration::from_secs(5);
/// The type CoreDNS asks for: hardly anybody else does.
pub(crate) const PROBE_TYPE: RecordType = RecordType::HINFO;

/// Questions that are on their way.
#[derive(Debug, Default)]
pub(crate) struct Probes(Mutex<Vec<Probe>>);

#[derive(Debug)]
struct Probe {
    /// Wire form, lower case. Random: nobody can make an upstream be left out by guessing
    /// (CVE-2026-26018).
    name: Vec<u8>,
    came_back: bool,
}

impl Probes {
    /// Whether a question is one of them; then it is known to have come back.
    pub(crate) fn notice(&self, name: &LowerName, qtype: u16) -> bool {
        if qtype != u16::from(PROBE_TYPE) {
            return false;
        }
        let mut probes = self.lock();
        let probe = probes.iter_mut().find(|probe| probe.name == name.as_bytes());
        probe.map(|probe| probe.came_back = true).is_some()
    }

    fn begin(&self, name: &[u8]) {
        self.lock().push(Probe { name: name.to_vec(), came_back: false });
    }

    fn end(&self, name: &[u8]) -> bool {
        let mut probes = self.lock();
        let place = probes.iter().position(|probe| probe.name == name);
        place.is_some_and(|place| probes.swap_remove(place).came_back)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Probe>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Probes upstreams whenever they are others, and again while one leads back; ends with the pool.
pub(super) async fn watch(pool: Weak<UpstreamPool>, from: WireName, probes: Arc<Probes>) {
    let mut probed = vec![];
    let mut leads_back = false;
    loop {
        let Some(alive) = pool.upgrade() else { return };
        let servers = alive.all();
        if leads_back || servers != probed {
            let all = servers.iter().map(|server| probe(&alive, *server, &from, &probes));
            let back = join_all(all).await;
            let back =
                servers.iter().zip(back).filter(|(_, back)| *back).map(|(server, _)| *server);
            leads_back = alive.leave_out_loops(back.collect());
            probed = servers;
        }
        drop(alive);
        sleep(INTERVAL).await;
    }
}

async fn probe(pool: &UpstreamPool, server: SocketAddr, from: &WireName, probes: &Probes) -> bool {
    let (Some(name), Ok(one)) = (unguessable(from), pool.manner.upstream(server)) else {
        return false;
    };
    let Ok(wire) = name.to_bytes() else { return false };
    let flavour = Flavour::default();
    let wishes = Wishes { recursion_desired: true, authentic_data: false, flavour };
    let question = Question { name, qtype: PROBE_TYPE, wishes, random_case: false };
    probes.begin(&wire);
    // Whatever it answers: only whether it came in here counts.
    let _ = timeout(PROBE_TIMEOUT, one.ask(&question)).await;
    probes.end(&wire)
}

/// A name below a zone, of 128 random bits.
fn unguessable(zone: &WireName) -> Option<Name> {
    let [first, second] = rand::random::<[u64; 2]>();
    let labels = format!("\u{10}{first:016x}\u{10}{second:016x}");
    let wire = zone.below(labels.as_bytes()).ok()?;
    Name::read(&mut BinDecoder::new(wire.as_bytes())).ok()
}

impl UpstreamPool {
    /// From now on these are not asked. Whether there are any.
    fn leave_out_loops(&self, looping: Vec<SocketAddr>) -> bool {
        let mut usable = self.usable.lock().unwrap_or_else(PoisonError::into_inner);
        if usable.looping != looping {
            for server in looping.iter().filter(|server| !usable.looping.contains(server)) {
                tracing::error!(
                    %server,
                    "DNS: an upstream leads back to this server: left out; name the real one in \
                     `forward`, or with --upstream"
                );
            }
            for server in usable.looping.iter().filter(|server| !looping.contains(server)) {
                tracing::info!(%server, "DNS: an upstream leads back to this server no more");
            }
            usable.looping = looping;
            if let Err(error) = self.renew(&usable) {
                tracing::error!("{error}");
            }
        }
        !usable.looping.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_of_probes_are_random_in_each_of_their_digits_cve_2026_26018() {
        let zone = WireName::from_text("example.").unwrap();
        let names: Vec<_> = (0..256).map(|_| unguessable(&zone).unwrap().to_ascii()).collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        for name in &names {
            let labels: Vec<_> = name.split('.').map(str::len).collect();
            assert_eq!(labels, [16, 16, 7, 0], "{name}");
        }
        for place in (0..16).chain(17..33) {
            // All sixteen; that three of them are missing in 256 turns is out of the question.
            let digits: BTreeSet<_> = names.iter().map(|name| name.as_bytes()[place]).collect();
            assert!(digits.len() > 13, "digit {place}: {digits:?}");
        }
    }
}
