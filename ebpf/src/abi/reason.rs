//! Why a packet or call was not served, or was left alone although it might have been meant.

/// Index into the per-CPU array `drops`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Refused: a backend set changed faster than it could be read.
    SetUnstable = 0,
    /// Dropped: a packet to a service address without backends.
    NoBackends = 1,
    /// Dropped: no free port for source translation.
    PortsExhausted = 2,
    /// Dropped: the connection table took no entry.
    ConnectionNotStored = 3,
    /// Dropped: a packet could not be rewritten.
    NotRewritten = 4,
    /// Served, but the socket will show the backend instead of the service.
    PeerNotStored = 5,
    /// Passed untranslated: a fragment.
    Fragment = 6,
    /// Passed untranslated: an ICMP error.
    IcmpError = 7,
    /// Passed untranslated: IPv6 extension headers.
    ExtensionHeader = 8,
    /// Passed untranslated: headers cut short or contradicting themselves.
    Malformed = 9,
}

impl Reason {
    /// Every reason, by index.
    pub const ALL: [Reason; 10] = [
        Reason::SetUnstable,
        Reason::NoBackends,
        Reason::PortsExhausted,
        Reason::ConnectionNotStored,
        Reason::NotRewritten,
        Reason::PeerNotStored,
        Reason::Fragment,
        Reason::IcmpError,
        Reason::ExtensionHeader,
        Reason::Malformed,
    ];

    /// The reason as a metric label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::SetUnstable => "set_unstable",
            Reason::NoBackends => "no_backends",
            Reason::PortsExhausted => "ports_exhausted",
            Reason::ConnectionNotStored => "connection_not_stored",
            Reason::NotRewritten => "not_rewritten",
            Reason::PeerNotStored => "peer_not_stored",
            Reason::Fragment => "fragment",
            Reason::IcmpError => "icmp_error",
            Reason::ExtensionHeader => "extension_header",
            Reason::Malformed => "malformed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_by_index() {
        for (index, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.as_str());
        }
    }
}
