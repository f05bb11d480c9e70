//! What packets say, and what of it is believed.

use super::*;
use crate::abi::CONNECTION_REPLY;

const fn entry(state: u16) -> Connection {
    Connection {
        address: [0; 16],
        source_port: [0; 2],
        destination_port: [0; 2],
        set_id: 0,
        counter_id: 0,
        flags: 0,
        state,
        seen: 0,
    }
}

#[test]
fn only_what_is_new_is_written_and_to_both_directions() {
    let (request, reply) = (0, CONNECTION_REPLY);
    let (answered, assured) = (CONNECTION_ANSWERED, CONNECTION_ASSURED);
    let (fin, other) = (CONNECTION_FIN, CONNECTION_OTHER_FIN);
    let open = request | answered | assured;
    for (state, flags, is_proof, (own, twins)) in [
        (request, ACK, false, (0, 0)),
        (reply, SYN | ACK, false, (answered, answered)),
        (reply | answered, ACK, false, (0, 0)),
        (request | answered, SYN, true, (0, 0)),
        (request | answered, ACK, false, (0, 0)),
        (request | answered, ACK, true, (assured, assured)),
        // Of a datagram there are no flags.
        (request | answered, 0, true, (assured, assured)),
        (request | answered, FIN | ACK, false, (fin, other)),
        (open, ACK, false, (0, 0)),
        (open, FIN | ACK, false, (assured | fin, assured | other)),
        (open | fin, FIN | ACK, false, (0, 0)),
        (open, RST, false, (0, 0)),
        (reply, RST | ACK, false, (answered, answered)),
    ] {
        let expected = News { own, twins, ..News::NONE };
        let news = entry(state).news(flags, is_proof);
        assert_eq!(news, expected, "{state:#b} {flags:#b} {is_proof}");
    }
}

#[test]
fn who_names_an_answers_number_has_had_it() {
    let first = u32::MAX - 2;
    for (protocol, named, expected) in [
        // The answer to a SYN counts as one; an acknowledgement has none of its own (RFC 9293 §3.4).
        (TCP, first, true),
        (TCP, first.wrapping_add(1), true),
        (TCP, first.wrapping_add(65_536), true),
        (TCP, first.wrapping_add(65_537), false),
        (TCP, first.wrapping_sub(1), false),
        (TCP, 0x8000_0000, false),
        (SCTP, first, true),
        (SCTP, first.wrapping_add(1), false),
    ] {
        let mut reply = entry(CONNECTION_REPLY);
        assert!(!reply.is_known_by(protocol, named), "no answer has been seen");
        reply.number(first);
        assert_eq!(reply.is_known_by(protocol, named), expected, "{protocol} {named:#x}");
        assert_eq!(reply.set(), 0, "a number is no set");
    }
    assert_eq!(Connection { set_id: 7, ..Connection::zeroed() }.set(), 7);
}

#[test]
fn a_direction_is_followed_once_both_ends_are_real() {
    let segment = |flags, acknowledged| Segment { sequence: 5, acknowledged, flags };
    for (state, flags, is_followed) in [
        (CONNECTION_ASSURED, ACK, true),
        (CONNECTION_ASSURED | CONNECTION_REPLY, ACK | FIN, true),
        (CONNECTION_ASSURED, 0, false),
        (CONNECTION_ASSURED, ACK | RST, false),
        (CONNECTION_ASSURED | CONNECTION_REPLY, ACK | SYN, false),
        (0, ACK, false),
    ] {
        let mut followed = Connection { set_id: 7, ..entry(state) };
        followed.follow(&segment(flags, 9));
        let expected = if is_followed { (9, 0) } else { (7, 7) };
        assert_eq!((followed.set_id, followed.set()), expected, "{state:#b} {flags:#b}");
    }
    let mut followed = entry(CONNECTION_ASSURED);
    followed.follow(&segment(ACK, 9));
    followed.belong(3);
    assert_eq!(followed.set(), 3, "a set is no number");
}

/// RFC 5961 §3.2, as far as it can be known from beside.
#[test]
fn a_reset_is_believed_by_the_number_its_receiver_waits_for() {
    let at = u32::MAX - 2;
    let mut other = entry(CONNECTION_ASSURED | CONNECTION_REPLY);
    let reset = |sequence| Segment { sequence, acknowledged: 0, flags: RST };
    assert_eq!(other.trust(&reset(1)), Trust::Doubtful, "an earlier agent's entry has no number");
    other.number(at);
    assert_eq!(other.trust(&reset(1)), Trust::Doubtful, "this is the answer's own");
    other.acknowledge(at);
    for (sequence, expected) in [
        (at, Trust::Certain),
        // Data before it is on its way.
        (at.wrapping_add(1), Trust::Doubtful),
        (at.wrapping_add(65_536), Trust::Doubtful),
        (at.wrapping_add(65_537), Trust::No),
        (at.wrapping_sub(1), Trust::No),
        (0x8000_0000, Trust::No),
    ] {
        assert_eq!(other.trust(&reset(sequence)), expected, "{sequence:#x}");
    }
    // A SYN that anybody may have sent does not make another reset of the client's believed.
    other.state |= CONNECTION_ASKED;
    assert_eq!(other.trust(&reset(0x8000_0000)), Trust::No);
}

#[test]
fn a_syn_that_met_an_open_connection_is_refused_by_its_own_number() {
    let mut request = entry(CONNECTION_ASSURED);
    request.acknowledge(77);
    let news = request.ask(TCP, u32::MAX, false);
    request.state |= news.own;
    for (flags, acknowledged, expected) in
        [(RST | ACK, 0, Trust::Certain), (RST | ACK, 1, Trust::Doubtful), (RST, 0, Trust::Doubtful)]
    {
        let reset = Segment { sequence: 0, acknowledged, flags };
        assert_eq!(request.trust(&reset), expected, "{flags:#x} {acknowledged}");
    }
}

#[test]
fn a_backend_is_taken_for_gone_by_two_questions_without_an_answer_a_while_apart() {
    for protocol in [TCP, SCTP] {
        let mut request = entry(CONNECTION_ASSURED);
        for (is_silent, is_pinned) in [(true, true), (false, true), (true, false)] {
            let news = request.ask(protocol, 1, is_silent);
            assert_eq!(news.twins, CONNECTION_ASKED);
            request.state |= news.own;
            assert_eq!(request.is_pinned(), is_pinned, "{protocol}");
        }
        request.state &= !request.going_on().own_gone;
        assert!(request.is_pinned() && !request.is_in_question());
    }
    for over in [CONNECTION_FIN, CONNECTION_OTHER_FIN, CONNECTION_RESET] {
        assert!(!entry(CONNECTION_ASSURED | over).is_pinned(), "{over:#b}");
    }
    assert!(!entry(CONNECTION_ANSWERED).is_pinned(), "a client that has not been heard of since");
}

#[test]
fn who_goes_on_takes_a_doubtful_reset_back_for_both_and_a_certain_one_for_itself() {
    let after = |trust: Trust| {
        let news = trust.news();
        assert_eq!((news.own, news.own_gone), (news.twins, news.twins_gone));
        let [mut one, mut other] = [entry(CONNECTION_ASSURED); 2];
        (one.state, other.state) = (one.state | news.own, other.state | news.twins);
        assert_eq!([one, other].map(|entry| entry.is_broken_off()), [trust == Trust::Certain; 2]);
        let back = one.going_on();
        one.state &= !back.own_gone;
        other.state &= !back.twins_gone;
        [one, other].map(|entry| entry.is_closed())
    };
    assert_eq!(after(Trust::Doubtful), [false, false]);
    assert_eq!(after(Trust::Certain), [false, true]);
    assert_eq!(Trust::No.news(), News::NONE);
}
