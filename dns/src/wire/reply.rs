//! Writes a reply into a fixed buffer: whole records only, TC when one did not fit.

use super::{
    CLASS_IN, HEADER_BYTES, UDP_REPLY_BYTES_MAX,
    question::{Question, Shape},
    rcode,
    record::{RrSet, each_record},
    room::with_room,
    rtype,
};

/// Bytes of the OPT record we answer with.
const OPT_BYTES: usize = 11;

/// Flags that hold for a whole reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flags {
    /// AA.
    pub(crate) authoritative: bool,
    /// RA: whether there are upstreams to ask (RFC 1035 §4.1.1). CoreDNS leaves it clear on cluster
    /// names and dig warns (coredns#6262).
    pub(crate) recursion_available: bool,
}

/// A reply being written. Nothing is ever written beyond the limit.
#[derive(Debug)]
pub(crate) struct Reply<'b> {
    buffer: &'b mut [u8],
    at: usize,
    /// Where records must end, so that the OPT record still fits.
    records_end: usize,
    answers: u16,
    authorities: u16,
    additional: u16,
    truncated: bool,
    /// Additional records are left out.
    pub(crate) minimal: bool,
}

impl<'b> Reply<'b> {
    /// Begins the reply to `query`, whose question section `question` has read. `None` if not even
    /// that fits.
    pub(crate) fn begin(
        buffer: &'b mut [u8],
        limit: usize,
        query: &[u8],
        question: &Question,
    ) -> Option<Self> {
        let limit = limit.min(buffer.len());
        let reserved = if question.edns.is_some() { OPT_BYTES } else { 0 };
        let records_end = limit.checked_sub(reserved)?;
        if question.end > records_end {
            return None;
        }
        // The question goes back as it came, letter case included: resolvers that mix it compare
        // (draft-vixie-dns-0x20).
        buffer.get_mut(..question.end)?.copy_from_slice(query.get(..question.end)?);
        let at = question.end;
        Some(Self {
            buffer,
            at,
            records_end,
            answers: 0,
            authorities: 0,
            additional: 0,
            truncated: false,
            minimal: false,
        })
    }

    /// Appends a set's answers, beginning with the `rotation`th, then what of its additional
    /// records fits.
    pub(crate) fn answer_set(&mut self, set: &RrSet, rotation: usize) {
        if set.slot_bytes > 0 {
            self.answer_slots(&set.answers, set.slot_bytes.into(), rotation);
        } else {
            self.answer_records(&set.answers);
        }
        // Additional records are a courtesy: leaving them out is no truncation (RFC 2181 §9).
        let _ = each_record(&set.additional).all(|record| self.additional(record));
    }

    /// One additional record in wire form; false if there is no room for it, or none is wanted.
    pub(crate) fn additional(&mut self, record: &[u8]) -> bool {
        let fits = !self.minimal && !self.truncated && self.put(record);
        self.additional += u16::from(fits);
        fits
    }

    /// Whether a record of the answer had no room: no later one is wanted then.
    pub(crate) fn is_cut(&self) -> bool {
        self.truncated
    }

    /// One answer record in wire form.
    pub(crate) fn answer(&mut self, record: &[u8]) {
        if self.put(record) {
            self.answers += 1;
        } else {
            self.truncated = true;
        }
    }

    /// One record of a kept reply with the time to live it has left; false if there is no room.
    pub(crate) fn aged(&mut self, record: &[u8], ttl_at: usize, ttl: u32, is_answer: bool) -> bool {
        let start = self.at;
        if is_answer {
            self.answer(record);
        } else {
            self.authority(record);
        }
        let place = self.buffer.get_mut(start + ttl_at..start + ttl_at + 4);
        if let Some(place) = place.filter(|_| !self.truncated) {
            place.copy_from_slice(&ttl.to_be_bytes());
        }
        !self.truncated
    }

    /// One authority record in wire form.
    pub(crate) fn authority(&mut self, record: &[u8]) {
        if self.put(record) {
            self.authorities += 1;
        } else {
            self.truncated = true;
        }
    }

    /// Completes header and OPT record; returns the reply's length.
    pub(crate) fn finish(mut self, question: &Question, code: u8, flags: Flags) -> usize {
        let mut additional = self.additional;
        if let Some(edns) = question.edns {
            self.records_end += OPT_BYTES;
            self.put(&opt_record(0, edns.dnssec_ok));
            additional += 1;
        }
        let Some(header) = self.buffer.first_chunk_mut::<HEADER_BYTES>() else { return 0 };
        let (recursion_desired, checking_disabled) = (header[2] & 0x01, header[3] & 0x10);
        header[2] = 0x80
            | recursion_desired
            | if flags.authoritative { 0x04 } else { 0 }
            | if self.truncated { 0x02 } else { 0 };
        header[3] =
            if flags.recursion_available { 0x80 } else { 0 } | checking_disabled | (code & 0x0f);
        let counts = [1, self.answers, self.authorities, additional];
        for (place, count) in header[4..].chunks_exact_mut(2).zip(counts) {
            place.copy_from_slice(&count.to_be_bytes());
        }
        self.at
    }

    /// Slots are of one size, so a rotated set is at most two copies.
    fn answer_slots(&mut self, slots: &[u8], slot_bytes: usize, rotation: usize) {
        let total = slots.len() / slot_bytes;
        let room = (self.records_end - self.at) / slot_bytes;
        let count = total.min(room);
        let first = rotation % total.max(1);
        let upto_end = count.min(total - first);
        let tail = slots.get(first * slot_bytes..(first + upto_end) * slot_bytes);
        let head = slots.get(..(count - upto_end) * slot_bytes);
        let fits = self.put(tail.unwrap_or_default()) && self.put(head.unwrap_or_default());
        // A message has 16 bits for the count and less than 65535 / 16 records.
        self.answers += if fits { u16::try_from(count).unwrap_or(0) } else { 0 };
        self.truncated |= !fits || count < total;
    }

    fn answer_records(&mut self, records: &[u8]) {
        for record in each_record(records) {
            self.answer(record);
            if self.truncated {
                return;
            }
        }
    }

    fn put(&mut self, record: &[u8]) -> bool {
        let end = self.at + record.len();
        if end > self.records_end {
            return false;
        }
        let Some(place) = self.buffer.get_mut(self.at..end) else { return false };
        place.copy_from_slice(record);
        self.at = end;
        true
    }
}

/// Our OPT record: the upper bits of a response code, the DO bit, and how much we take, which is more than any
/// query needs (RFC 6891 §6.1.2, §6.1.3).
pub(crate) fn opt_record(code_high: u8, dnssec_ok: bool) -> [u8; OPT_BYTES] {
    let do_flag = if dnssec_ok { 0x80 } else { 0 };
    let [size_hi, size_lo] = u16::try_from(UDP_REPLY_BYTES_MAX).unwrap_or(u16::MAX).to_be_bytes();
    let [type_hi, type_lo] = rtype::OPT.to_be_bytes();
    [0, type_hi, type_lo, size_hi, size_lo, code_high, 0, do_flag, 0, 0, 0]
}

/// A reply of a header only: the query could not be read beyond it.
pub(crate) fn bare(query: &[u8], code: u8) -> Option<[u8; HEADER_BYTES]> {
    let [id_hi, id_lo, flags, ..] = *query.first_chunk::<HEADER_BYTES>()?;
    let mut reply = [0; HEADER_BYTES];
    reply[..4].copy_from_slice(&[id_hi, id_lo, 0x80 | (flags & 0x79), code & 0x0f]);
    Some(reply)
}

/// SERVFAIL; `None` if not even that can be said of the message.
pub(crate) fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let mut question = Question::new();
    if question.read(query) != Shape::Plain {
        return bare(query, rcode::SERVER_FAILURE).map(Vec::from);
    }
    with_room(|buffer| {
        let limit = buffer.len();
        let reply = Reply::begin(buffer, limit, query, &question)?;
        let flags = Flags { authoritative: false, recursion_available: true };
        let bytes = reply.finish(&question, rcode::SERVER_FAILURE, flags);
        buffer.get(..bytes).map(<[u8]>::to_vec)
    })
}

/// A record's first bytes up to its data, the owner given as an offset into the message.
pub(crate) fn record_head(
    owner: usize,
    rtype: u16,
    ttl_seconds: u32,
    data_bytes: usize,
) -> [u8; 12] {
    let mut head = [0; 12];
    head[..2].copy_from_slice(&pointer(owner));
    head[2..4].copy_from_slice(&rtype.to_be_bytes());
    head[4..6].copy_from_slice(&CLASS_IN.to_be_bytes());
    head[6..10].copy_from_slice(&ttl_seconds.to_be_bytes());
    head[10..].copy_from_slice(&u16::try_from(data_bytes).unwrap_or(0).to_be_bytes());
    head
}

/// A compression pointer. Offsets here lie within the question, far below 2^14.
pub(crate) fn pointer(offset: usize) -> [u8; 2] {
    (0xc000 | u16::try_from(offset & 0x3fff).unwrap_or(0)).to_be_bytes()
}

/// Adds an option to the OPT record that ends a finished reply, if there is one and room for it.
pub(crate) fn push_option(reply: &mut Vec<u8>, limit: usize, option: u16, data: &[u8]) {
    let Some(opt_at) = reply.len().checked_sub(OPT_BYTES) else { return };
    let [type_hi, type_lo] = rtype::OPT.to_be_bytes();
    let is_bare = reply.get(opt_at..opt_at + 3) == Some(&[0, type_hi, type_lo])
        && reply.ends_with(&[0, 0])
        && reply.len() + 4 + data.len() <= limit;
    let (Ok(length), Ok(total)) = (u16::try_from(data.len()), u16::try_from(4 + data.len())) else {
        return;
    };
    if !is_bare {
        return;
    }
    reply.truncate(reply.len() - 2);
    for part in [total, option, length] {
        reply.extend_from_slice(&part.to_be_bytes());
    }
    reply.extend_from_slice(data);
}

/// Whether a finished reply lacks records that had no room (TC).
pub(crate) fn is_cut(reply: &[u8]) -> bool {
    reply.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// The response code of a finished reply, without EDNS' upper bits.
pub(crate) fn code(reply: &[u8]) -> u8 {
    reply.get(3).map_or(rcode::SERVER_FAILURE, |flags| flags & 0x0f)
}
