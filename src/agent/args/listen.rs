//! Addresses to listen on.

use std::net::SocketAddr;

use super::or_none::OrNone;

/// What a role serves.
pub(super) fn port(text: &str) -> Result<SocketAddr, &'static str> {
    text.parse().map_err(|_| "give ADDRESS:PORT, as 0.0.0.0:8080 or [::]:8080")
}

/// What an agent can do without.
pub(super) fn page(text: &str) -> Result<OrNone<SocketAddr>, &'static str> {
    OrNone::of(text, |text| text.parse().map_err(|_| "give ADDRESS:PORT, or \"\" for none"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_given_with_their_address() {
        for text in ["127.0.0.1:8080", "[::1]:8080"] {
            assert_eq!(port(text).map(|address| address.to_string()), Ok(text.to_owned()));
            assert_eq!(page(text), port(text).map(|address| OrNone(Some(address))));
        }
        assert_eq!(page(""), Ok(OrNone(None)));
        for text in ["127.0.0.1", "localhost:80", "::1:80", ":80", " "] {
            let cure = "give ADDRESS:PORT, ";
            assert!(port(text).is_err_and(|error| error.starts_with(cure)), "{text}");
            assert!(page(text).is_err_and(|error| error.starts_with(cure)), "{text}");
        }
    }
}
