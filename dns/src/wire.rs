//! DNS messages as bytes (RFC 1035 §4, RFC 6891): plain questions in, replies out.
//!
//! [`question`] takes only what nearly every client sends; all else is left to the slow path's
//! complete parser.

pub(crate) mod name;
pub(crate) mod question;
pub(crate) mod record;
pub(crate) mod reply;
pub(crate) mod room;
pub(crate) mod text;
pub(crate) mod types;

/// Bytes of a message before its question.
pub(crate) const HEADER_BYTES: usize = 12;

/// Largest UDP reply we send: fits every path without fragments (DNS flag day 2020, RFC 9715).
pub const UDP_REPLY_BYTES_MAX: usize = 1232;

/// Largest UDP reply to a client that did not say otherwise (RFC 1035 §2.3.4).
pub(crate) const UDP_REPLY_BYTES_WITHOUT_EDNS: usize = 512;

/// Records of one section: of 16 bytes each, the smallest there are, no more fit into any message.
pub(crate) const RECORDS_MAX: usize = 4096;

/// Record types that have a meaning here.
pub(crate) mod rtype {
    pub(crate) const A: u16 = 1;
    pub(crate) const NS: u16 = 2;
    pub(crate) const CNAME: u16 = 5;
    pub(crate) const SOA: u16 = 6;
    pub(crate) const PTR: u16 = 12;
    pub(crate) const TXT: u16 = 16;
    pub(crate) const AAAA: u16 = 28;
    pub(crate) const SRV: u16 = 33;
    pub(crate) const OPT: u16 = 41;
    pub(crate) const TKEY: u16 = 249;
    pub(crate) const ANY: u16 = 255;
}

/// Response codes of replies written here.
pub(crate) mod rcode {
    pub(crate) const NO_ERROR: u8 = 0;
    pub(crate) const FORMAT_ERROR: u8 = 1;
    pub(crate) const SERVER_FAILURE: u8 = 2;
    pub(crate) const NO_SUCH_NAME: u8 = 3;
    /// Those of a header that have names, as CoreDNS writes them, by their numbers (RFC 6895 §2.3).
    pub(crate) const NAMES: [&str; 12] = [
        "NOERROR",
        "FORMERR",
        "SERVFAIL",
        "NXDOMAIN",
        "NOTIMP",
        "REFUSED",
        "YXDOMAIN",
        "YXRRSET",
        "NXRRSET",
        "NOTAUTH",
        "NOTZONE",
        "DSOTYPENI",
    ];
    /// The largest that fits a header; more needs an OPT record, which not every client has sent.
    pub(crate) const MAX: u8 = 15;
}

/// The option of a server's identifier (RFC 5001).
pub(crate) const NSID_OPTION: u16 = 3;

/// The option of a client's network (RFC 7871).
pub(crate) const SUBNET_OPTION: u16 = 8;

/// Class IN.
pub(crate) const CLASS_IN: u16 = 1;
