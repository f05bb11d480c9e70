//! Why a packet or call was not served, or was left alone although it might have been meant.

/// Index into the per-CPU array `drops`.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Refused: a backend set changed faster than it could be read.
    SetUnstable = 0,
    /// Refused: a service without backends. Told to who follows, and counted for the service alone.
    NoBackends = 1,
    /// Dropped: no free port for source translation.
    PortsExhausted = 2,
    /// Dropped: the connection table took no entry.
    ConnectionNotStored = 3,
    /// Dropped: a packet could not be rewritten.
    NotRewritten = 4,
    /// Served, but the socket will show the backend instead of the service, or does not end with it.
    PeerNotStored = 5,
    /// Passed untranslated: a fragment whose first one was not seen.
    Fragment = 6,
    /// Passed untranslated: IPv6 extension headers that are not looked behind.
    ExtensionHeader = 7,
    /// Passed untranslated: headers cut short or contradicting themselves.
    Malformed = 8,
    /// Refused or dropped: the client is in none of the service's source ranges.
    SourceDenied = 9,
    /// Refused or dropped: the service has backends, but policy Local and none on this node.
    NoLocalBackends = 10,
    /// Refused or dropped: an address of the Service CIDR that no service has.
    UnallocatedAddress = 11,
    /// Refused: a port that the service at this address does not have.
    UnusedPort = 12,
    /// Served, but the client may meet another backend next time.
    AffinityNotStored = 13,
    /// Dropped: a packet to a service address was about to leave the node.
    ServiceAddressLeak = 14,
    /// Passed untranslated: from an address no host can have, or IPv4 addresses in IPv6.
    Martian = 15,
    /// Served or refused, but not in the Service's counters: there was no room for more.
    NotCounted = 16,
}

impl Reason {
    /// Every reason, by index.
    pub const ALL: [Reason; 17] = [
        Reason::SetUnstable,
        Reason::NoBackends,
        Reason::PortsExhausted,
        Reason::ConnectionNotStored,
        Reason::NotRewritten,
        Reason::PeerNotStored,
        Reason::Fragment,
        Reason::ExtensionHeader,
        Reason::Malformed,
        Reason::SourceDenied,
        Reason::NoLocalBackends,
        Reason::UnallocatedAddress,
        Reason::UnusedPort,
        Reason::AffinityNotStored,
        Reason::ServiceAddressLeak,
        Reason::Martian,
        Reason::NotCounted,
    ];

    /// The reason of this index.
    pub fn at(index: u32) -> Option<Self> {
        Self::ALL.get(index as usize).copied()
    }

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
            Reason::ExtensionHeader => "extension_header",
            Reason::Malformed => "malformed",
            Reason::SourceDenied => "source_denied",
            Reason::NoLocalBackends => "no_local_backends",
            Reason::UnallocatedAddress => "unallocated_address",
            Reason::UnusedPort => "unused_port",
            Reason::AffinityNotStored => "affinity_not_stored",
            Reason::ServiceAddressLeak => "service_address_leak",
            Reason::Martian => "martian",
            Reason::NotCounted => "not_counted",
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
            assert_eq!(Reason::at(*reason as u32), Some(*reason));
        }
        assert_eq!(Reason::at(u32::try_from(Reason::ALL.len()).unwrap()), None);
    }
}
