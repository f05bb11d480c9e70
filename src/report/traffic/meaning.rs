//! What each reason of each role means to a person, and what to do.

/// In one line; empty for a reason that is not known.
pub(in crate::report) fn of(role: &str, reason: &str) -> &'static str {
    match role {
        "proxy" => of_proxy(reason),
        "dns" => of_dns(reason),
        "ingress" => of_ingress(reason),
        _ => "",
    }
}

fn of_proxy(reason: &str) -> &'static str {
    match reason {
        "set_unstable" => {
            "refused: endpoints changed faster than they could be read; rare, tried again by clients"
        }
        "no_backends" => "refused: the Service has no endpoints (`fairlead services` shows which)",
        "ports_exhausted" => {
            "dropped: no port left for source translation: one client opens very many connections to one endpoint"
        }
        "connection_not_stored" => {
            "dropped: the connection table took no entry: it is full, or memory is short"
        }
        "not_rewritten" => "dropped: a packet could not be rewritten; worth a report",
        "peer_not_stored" => {
            "served, but getpeername(2) shows the endpoint instead of the Service, or a connected UDP socket does not end with its endpoint"
        }
        "fragment" => "left alone: a fragment whose first part was not seen",
        "extension_header" => "left alone: IPv6 extension headers that are not looked behind",
        "malformed" => "left alone: headers cut short or contradicting themselves",
        "source_denied" => {
            "dropped: the client is in none of loadBalancerSourceRanges (`fairlead trace --from ADDRESS` names the Service)"
        }
        "no_local_backends" => "dropped: traffic policy Local, and no endpoint on this node",
        "unallocated_address" => {
            "refused, and dropped where no socket of this node asks: an address of the Service CIDR that no Service has: a stale address, or a deleted Service"
        }
        "unused_port" => {
            "refused: the Service has no such port (`fairlead services NS/NAME` lists its ports)"
        }
        "affinity_not_stored" => {
            "served, but the client may meet another endpoint next time: the affinity table is full"
        }
        "service_address_leak" => {
            "dropped: a packet to a Service address was about to leave the node"
        }
        "martian" => "left alone: from an address no host can have",
        "not_counted" => {
            "served or refused, but not in the Service's counters: there is no room for more"
        }
        _ => "",
    }
}

fn of_dns(reason: &str) -> &'static str {
    match reason {
        "short" => "shorter than a DNS header: no DNS at all",
        "oversized" => "longer than any query",
        "not_a_query" => "marked as a reply: forged, or two servers that talk to each other",
        "source_port_zero" => "from UDP port 0, which nobody can receive on: forged",
        "slow_path_full" => {
            "more questions than can be worked on that are not plain ones; of one client or of all"
        }
        "waiting_full" => {
            "refused: as many questions wait for upstreams as may: they are slow or down (`fairlead doctor`)"
        }
        "gave_way" => {
            "refused: its client had most questions waiting for upstreams, and another wanted a place"
        }
        "send_failed" => {
            "the kernel did not take the reply: no route to the client, or a full buffer"
        }
        "tcp_connections" => "more TCP connections than are taken; the newest was closed",
        "queue_full" => {
            "the kernel had no room for it: questions come faster than they are answered"
        }
        "too_late" => {
            "had waited too long while there was no room for others: more CPU, or fewer questions"
        }
        "client_rate" => "one client asks more often than it may (--dns-client-rate)",
        "client_connections" => {
            "one client opened more TCP connections than it may; the newest was closed"
        }
        "not_taken" => {
            "a reply over TCP that its client did not read in 10 s; the connection was closed"
        }
        "policy" => "acl of the Corefile says drop",
        _ => "",
    }
}

fn of_ingress(reason: &str) -> &'static str {
    match reason {
        "malformed" => "400: no HTTP, or HTTP that cannot be parsed",
        "host_missing" => "400: no Host",
        "host_duplicate" => "400: more than one Host",
        "host_invalid" => "400: bytes that are no host name",
        "host_mismatch" => "400: Host and request target name different hosts",
        "method" => "405: CONNECT or TRACE",
        "uri_too_long" => "414: path and query are too long",
        "path" => "400: a path without a safe normal form",
        "transfer_coding" => "501: a transfer coding other than chunked",
        "length" => "400: more than one Content-Length, or one that is no number",
        "length_and_coding" => "400: a length and a transfer coding: how request smuggling begins",
        "fields_too_many" => "431: too many fields, or by HTTP/2 too many bytes of them",
        "misconfigured" => {
            "503: what guards the route cannot be read, so nobody is let in (`fairlead routes`)"
        }
        "expressions" => {
            "503: to compare the path with its host's regular expressions takes more steps than a request \
             is given (`fairlead routes`)"
        }
        "address" => {
            "403: the client's address is not let in (whitelist-source-range, denylist-source-range)"
        }
        "request_rate" => "503: the client asks too often (limit-rps, limit-rpm)",
        "client_connections" => {
            "503: the client has too many requests in service (limit-connections)"
        }
        "authentication" => "401: no password, or the external authority said no",
        "certificate" => {
            "403, or 400 without one: no client certificate that is taken (auth-tls-*)"
        }
        "blocked" => {
            "403: of those the ConfigMap lets in nowhere (block-cidrs, block-user-agents, block-referers)"
        }
        "flood" => {
            "closed: an HTTP/2 client sent requests only to give them up, or frames that ask for nothing"
        }
        "stream_limit" => {
            "reset: an HTTP/2 client has more requests at once than it may (http2-max-concurrent-streams)"
        }
        "proxy_header" => "closed: no PROXY header, which --proxy-protocol requires",
        "proxy_header_limit" => {
            "closed: too many connections of one address of which no PROXY header had come (--proxy-protocol-from)"
        }
        "connection_limit" => "closed: more connections than are taken",
        "client_connection_limit" => {
            "closed: more connections of one address than --client-connections-max"
        }
        "mirror_unfit" => {
            "served, but not copied: gRPC or a WebSocket, a conversation which no mirror is sent"
        }
        "mirror_too_large" => {
            "served, but not copied: its body is larger than what is held for a copy (1 MiB, or proxy-request-buffering's)"
        }
        "mirror_cut_off" => "not copied: its body did not end, or it was answered before that",
        "mirror_busy" => {
            "served, but not copied: the mirror answers more slowly than requests come, or copies hold all the memory they may"
        }
        "mirror_target" => "served, but not copied: mirror-target names no host that can be found",
        "mirror_unanswered" => {
            "served, but the mirror could not be reached or did not answer properly"
        }
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use fairlead_dns::{Crowded, DropReason};
    use fairlead_ebpf::abi::Reason;
    use fairlead_ingress::{Refused, Uncopied};

    use super::*;

    #[test]
    fn every_reason_of_every_role_has_a_meaning() {
        let proxy = Reason::ALL.map(|reason| ("proxy", reason.as_str()));
        let dns = DropReason::ALL.map(|reason| ("dns", reason.as_str()));
        let crowded = Crowded::ALL.map(|reason| ("dns", reason.as_str()));
        let ingress = Refused::ALL.map(|reason| ("ingress", reason.as_str()));
        let mirrors = Uncopied::ALL.map(|reason| ("ingress", reason.as_str()));
        for (role, reason) in
            proxy.into_iter().chain(dns).chain(crowded).chain(ingress).chain(mirrors)
        {
            assert!(!of(role, reason).is_empty(), "{role}: {reason}");
        }
    }

    #[test]
    fn answers_are_said_with_their_status() {
        for reason in Refused::ALL {
            let said = of("ingress", reason.as_str());
            let status = reason.status().as_u16().to_string();
            let has_none = ["closed", "reset"].iter().any(|end| said.starts_with(end));
            assert!(said.starts_with(&status) || has_none, "{reason}: {said}");
        }
    }
}
