//! The plain question: what nearly every client sends, and all that the fast path takes.

use std::borrow::Cow;

use super::{
    CLASS_IN, HEADER_BYTES, NSID_OPTION, SUBNET_OPTION, UDP_REPLY_BYTES_MAX,
    UDP_REPLY_BYTES_WITHOUT_EDNS, name::LowerName, rtype,
};
use crate::counters::DropReason;

/// An OPT record's name, type, class, time to live and length.
const OPT_FIXED_BYTES: usize = 11;

/// What a datagram or TCP message turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One IN question, at most one OPT record; [`Question`] holds it.
    Plain,
    /// Anything else that may deserve a reply.
    Odd,
    /// Nothing to reply to.
    Drop(DropReason),
}

/// EDNS of a query (RFC 6891).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Edns {
    /// Largest UDP reply the client takes, in bytes.
    pub(crate) payload_bytes: u16,
    /// DO bit, which is copied into the reply (RFC 3225 §3).
    pub(crate) dnssec_ok: bool,
    /// The server's identifier is asked for (RFC 5001 §2.1).
    pub(crate) nsid: bool,
}

/// A plain question; one value is reused for all queries of a thread.
#[derive(Debug)]
pub(crate) struct Question {
    /// The name asked for, lower case.
    pub(crate) name: LowerName,
    /// The type asked for.
    pub(crate) qtype: u16,
    /// Where the question section ends in the query.
    pub(crate) end: usize,
    /// The client's OPT record.
    pub(crate) edns: Option<Edns>,
}

impl Question {
    /// Room for a question.
    pub(crate) fn new() -> Self {
        Self { name: LowerName::new(), qtype: 0, end: HEADER_BYTES, edns: None }
    }

    /// Reads a query. The fields are only meaningful after [`Shape::Plain`].
    pub(crate) fn read(&mut self, query: &[u8]) -> Shape {
        let Some((header, body)) = query.split_first_chunk::<HEADER_BYTES>() else {
            return Shape::Drop(DropReason::Short);
        };
        // Replying to replies lets one forged datagram make two servers talk for ever.
        if header[2] & 0x80 != 0 {
            return Shape::Drop(DropReason::NotAQuery);
        }
        if self.read_plain(*header, body).is_some() { Shape::Plain } else { Shape::Odd }
    }

    fn read_plain(&mut self, header: [u8; HEADER_BYTES], body: &[u8]) -> Option<()> {
        let [_, _, flags, _, qd_hi, qd_lo, an_hi, an_lo, ns_hi, ns_lo, ar_hi, ar_lo] = header;
        let opcode_and_tc = flags & 0x7a;
        let one_question = [qd_hi, qd_lo] == [0, 1];
        let no_records = [an_hi, an_lo, ns_hi, ns_lo, ar_hi] == [0; 5];
        if opcode_and_tc != 0 || !one_question || !no_records || ar_lo > 1 {
            return None;
        }
        let name_bytes = self.name.read(body)?;
        let (fixed, additional) = body.get(name_bytes..)?.split_first_chunk::<4>()?;
        let [type_hi, type_lo, class_hi, class_lo] = *fixed;
        self.qtype = u16::from_be_bytes([type_hi, type_lo]);
        if u16::from_be_bytes([class_hi, class_lo]) != CLASS_IN || is_meta(self.qtype) {
            return None;
        }
        self.end = HEADER_BYTES + name_bytes + 4;
        self.edns = match ar_lo {
            0 => additional.is_empty().then_some(None)?,
            _ => Some(read_opt(additional)?),
        };
        Some(())
    }

    /// Largest UDP reply to this query, in bytes.
    pub(crate) fn udp_reply_bytes_max(&self) -> usize {
        let offered = self.edns.map_or(0, |edns| usize::from(edns.payload_bytes));
        offered.clamp(UDP_REPLY_BYTES_WITHOUT_EDNS, UDP_REPLY_BYTES_MAX)
    }
}

/// OPT, and the types from TKEY to AXFR, MAILB and MAILA: no data types (RFC 6895 §3.1). ANY is one
/// of them, but a name's answer to it is as plain as any.
fn is_meta(qtype: u16) -> bool {
    qtype == rtype::OPT || (rtype::TKEY..rtype::ANY).contains(&qtype)
}

/// One OPT record of version 0 that fills the rest of the message; its options are well-formed and
/// not ours.
fn read_opt(record: &[u8]) -> Option<Edns> {
    let (fixed, mut options) = record.split_first_chunk::<OPT_FIXED_BYTES>()?;
    let [root, type_hi, type_lo, size_hi, size_lo, _, version, flags, _, length_hi, length_lo] =
        *fixed;
    let is_opt = root == 0 && u16::from_be_bytes([type_hi, type_lo]) == rtype::OPT;
    let length = usize::from(u16::from_be_bytes([length_hi, length_lo]));
    if !is_opt || version != 0 || options.len() != length {
        return None;
    }
    let mut nsid = false;
    while let Some(([code_hi, code_lo, hi, lo], rest)) = options.split_first_chunk::<4>() {
        let (data, next) = rest.split_at_checked(usize::from(u16::from_be_bytes([*hi, *lo])))?;
        match u16::from_be_bytes([*code_hi, *code_lo]) {
            NSID_OPTION => nsid = true,
            SUBNET_OPTION if !is_subnet(data) => return None,
            _ => {}
        }
        options = next;
    }
    options.is_empty().then_some(Edns {
        payload_bytes: u16::from_be_bytes([size_hi, size_lo]),
        dnssec_ok: flags & 0x80 != 0,
        nsid,
    })
}

/// Family, prefix lengths and as much of the address as they say (RFC 7871 §6), or no family and no prefix,
/// as dig's `+subnet=0` asks; anything else is a format error.
fn is_subnet(data: &[u8]) -> bool {
    let Some(([family_hi, family_lo, prefix, _], address)) = data.split_first_chunk::<4>() else {
        return false;
    };
    let longest = match u16::from_be_bytes([*family_hi, *family_lo]) {
        0 => 0,
        1 => 32,
        2 => 128,
        _ => return false,
    };
    *prefix <= longest && address.len() == usize::from(prefix.div_ceil(8))
}

/// The query as hickory can read it, which takes only families it knows: a client's network of no family
/// (dig's `+subnet=0`) becomes 0.0.0.0/0, which says the same (RFC 7871 §7.1.2).
pub(crate) fn with_family(query: &[u8]) -> Cow<'_, [u8]> {
    let mut question = Question::new();
    if question.read(query) != Shape::Plain || question.edns.is_none() {
        return Cow::Borrowed(query);
    }
    let mut known = Cow::Borrowed(query);
    let mut at = question.end + OPT_FIXED_BYTES;
    while let Some([code_hi, code_lo, hi, lo, rest @ ..]) = query.get(at..) {
        let is_subnet = u16::from_be_bytes([*code_hi, *code_lo]) == SUBNET_OPTION;
        if is_subnet
            && rest.starts_with(&[0, 0])
            && let Some(family) = known.to_mut().get_mut(at + 5)
        {
            *family = 1;
        }
        at += 4 + usize::from(u16::from_be_bytes([*hi, *lo]));
    }
    known
}

/// Whether the record behind a query's only question is an OPT record whose last option is cut, which is a
/// format error (RFC 6891 §6.1.2); hickory takes what stands before it.
pub(crate) fn has_cut_option(query: &[u8]) -> bool {
    let (question, opt) = ([0, 1, 0, 0, 0, 0, 0, 1], rtype::OPT.to_be_bytes());
    let options = || {
        let (header, body) = query.split_first_chunk::<HEADER_BYTES>()?;
        let name_bytes = LowerName::new().read(body)?;
        let record = body.get(name_bytes + 4..).filter(|_| header.ends_with(&question))?;
        let (fixed, options) = record.split_first_chunk::<OPT_FIXED_BYTES>()?;
        let [root, type_hi, type_lo, .., hi, lo] = *fixed;
        let is_opt = root == 0 && [type_hi, type_lo] == opt;
        options.get(..usize::from(u16::from_be_bytes([hi, lo]))).filter(|_| is_opt)
    };
    let mut options = options().unwrap_or_default();
    while let Some(([_, _, hi, lo], rest)) = options.split_first_chunk::<4>() {
        let length = usize::from(u16::from_be_bytes([*hi, *lo]));
        let Some((_, next)) = rest.split_at_checked(length) else { return true };
        options = next;
    }
    !options.is_empty()
}

#[cfg(test)]
mod tests;
