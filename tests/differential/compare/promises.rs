//! What docs/dns-differences.md promises of our replies where they are not compared with CoreDNS's.

use hickory_proto::{
    op::{Edns, Message},
    rr::RData,
};

use crate::{
    questions::{Arrival, Question, Way},
    setups::Setup,
};

/// Rule `opt-size`.
const OPT_SIZE: u16 = 1232;
/// Rule `denial-ttl`, in seconds.
const DENIAL_TTL_MAX: u32 = 1;
const DOMAIN: &str = "cluster.local.";

/// What our reply breaks, if anything.
pub(crate) fn broken(
    setup: &Setup,
    question: &Question,
    ours: &Message,
    Arrival { bytes, cut_bytes }: Arrival,
) -> Option<String> {
    let lacks_room = |bytes| question.lacks_room(bytes, setup.reply_bytes_max());
    let by_udp = cut_bytes.or((question.way == Way::Udp).then_some(bytes));
    if let Some(bytes) = by_udp.filter(|bytes| lacks_room(*bytes)) {
        return Some(format!("  {bytes} bytes by UDP are too many"));
    }
    if cut_bytes.is_some() && !lacks_room(bytes) {
        return Some(format!("  cut, though all {bytes} bytes have room"));
    }
    let size = ours.edns.as_ref().map_or(OPT_SIZE, Edns::max_payload);
    if size != OPT_SIZE {
        return Some(format!("  opt-size: {size}"));
    }
    let available = ours.metadata.recursion_available;
    if is_inside(&question.name) && available != setup.has("forward") {
        return Some(format!("  recursion-available: {available}"));
    }
    let lives_long = ours.authorities.iter().find(|record| match &record.data {
        RData::SOA(soa) => {
            is_inside(&record.name.to_ascii()) && record.ttl.max(soa.minimum) > DENIAL_TTL_MAX
        }
        _ => false,
    });
    lives_long.map(|soa| format!("  denial-ttl: {soa}"))
}

fn is_inside(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    lower.strip_suffix(DOMAIN).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use hickory_proto::{
        op::OpCode,
        rr::{Name, Record, RecordType, rdata::SOA},
    };

    use super::*;
    use crate::setups::SETUPS;

    fn whole(bytes: usize) -> Arrival {
        Arrival { bytes, cut_bytes: None }
    }

    fn cut(cut_bytes: usize, bytes: usize) -> Arrival {
        Arrival { bytes, cut_bytes: Some(cut_bytes) }
    }

    fn denial(ttl: u32, minimum: u32) -> Message {
        let name = |text: &str| Name::from_ascii(text).unwrap();
        let soa = SOA::new(name("ns.dns.cluster.local."), name("a."), 1, 2, 3, 4, minimum);
        let mut reply = Message::response(7, OpCode::Query);
        reply.metadata.recursion_available = true;
        reply.authorities = vec![Record::from_rdata(name(DOMAIN), ttl, RData::SOA(soa))];
        reply
    }

    /// None of it was looked at: TC on every datagram passed, and a denial for an hour.
    #[test]
    fn what_is_not_compared_is_as_promised() {
        let setup = |name: &str| SETUPS.iter().find(|setup| setup.name == name).unwrap();
        let (usual, small, alone) =
            (setup("kubeadm"), setup("small-plugins"), setup("cluster-only"));
        let plain = Question::plain("nope.demo.svc.cluster.local.", RecordType::A);
        let of_size = |size| {
            let edns =
                crate::questions::Edns { size, version: 0, dnssec_ok: false, options: vec![] };
            Question { edns: Some(edns), ..plain.clone() }
        };
        let by_tcp = Question { way: Way::Tcp, ..plain.clone() };
        let outside = Question::plain("www.example.", RecordType::A);
        let good = denial(1, 1);
        let mut unavailable = good.clone();
        unavailable.metadata.recursion_available = false;
        let with_opt = |size| {
            let mut edns = Edns::new();
            edns.set_max_payload(size);
            let mut reply = good.clone();
            reply.edns = Some(edns);
            reply
        };
        let rows = [
            (usual, &plain, good.clone(), whole(512), None),
            (usual, &plain, good.clone(), whole(513), Some("bytes by UDP")),
            (usual, &of_size(4096), good.clone(), whole(1232), None),
            (usual, &of_size(4096), good.clone(), whole(1233), Some("bytes by UDP")),
            (small, &of_size(4096), good.clone(), whole(701), Some("bytes by UDP")),
            (usual, &by_tcp, good.clone(), whole(60_000), None),
            (usual, &plain, good.clone(), cut(500, 513), None),
            (usual, &plain, good.clone(), cut(513, 600), Some("bytes by UDP")),
            (usual, &plain, good.clone(), cut(100, 512), Some("cut, though")),
            (usual, &plain, with_opt(1232), whole(100), None),
            (usual, &plain, with_opt(4096), whole(100), Some("opt-size")),
            (usual, &plain, unavailable.clone(), whole(100), Some("recursion-available")),
            (usual, &outside, unavailable.clone(), whole(100), None),
            (alone, &plain, unavailable, whole(100), None),
            (alone, &plain, good, whole(100), Some("recursion-available")),
            (usual, &plain, denial(3600, 1), whole(100), Some("denial-ttl")),
            (usual, &plain, denial(1, 30), whole(100), Some("denial-ttl")),
        ];
        for (number, (setup, question, reply, arrival, wanted)) in rows.into_iter().enumerate() {
            let told = broken(setup, question, &reply, arrival);
            let is_right = match (&told, wanted) {
                (Some(told), Some(wanted)) => told.contains(wanted),
                (told, wanted) => told.is_none() && wanted.is_none(),
            };
            assert!(is_right, "row {number}: {told:?}");
        }
    }
}
