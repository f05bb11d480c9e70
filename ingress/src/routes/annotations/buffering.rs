//! What is held of bodies, and how much of each.

use super::value::{Read, Unread, bad, number, size, switch};

/// ingress-nginx's, in bytes.
const REQUEST_BYTES: u64 = 8 << 10;
const BUFFER_BYTES: u64 = 4 << 10;
const BUFFERS: u64 = 4;
const FILE_BYTES: u64 = 1 << 30;
/// nginx writes to a file what its buffers do not take. Here so much of it is held, too.
const INSTEAD_OF_FILE_BYTES_MAX: u64 = 1 << 20;
/// Of one body, whatever is said.
const BODY_BYTES_MAX: u64 = 16 << 20;

/// What an Ingress says of it; `None`: ingress-nginx's defaults, but for the two that turn it on: here
/// bodies stream unless it is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Buffers {
    requests: bool,
    answers: bool,
    request_bytes: Option<u64>,
    buffer_bytes: Option<u64>,
    buffers: Option<u64>,
    file_bytes: Option<u64>,
}

/// How much is held of a body, in bytes; `None`: nothing, it streams.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Buffering {
    /// Of a request, before an endpoint is chosen.
    pub(crate) request_bytes: Option<usize>,
    /// Of an answer, ahead of its client.
    pub(crate) answer_bytes: Option<usize>,
}

impl Buffers {
    /// `None`: no annotation of this kind.
    pub(super) fn set(&mut self, name: &str, value: &str) -> Option<Read> {
        Some(match name {
            "proxy-request-buffering" => switch(value).map(|on| self.requests = on),
            "proxy-buffering" => switch(value).map(|on| self.answers = on),
            "client-body-buffer-size" => bytes(value).map(|bytes| self.request_bytes = Some(bytes)),
            "proxy-buffer-size" => bytes(value).map(|bytes| self.buffer_bytes = Some(bytes)),
            "proxy-buffers-number" => count(value).map(|count| self.buffers = Some(count)),
            "proxy-max-temp-file-size" => bytes(value).map(|bytes| self.file_bytes = Some(bytes)),
            "proxy-busy-buffers-size" => size(value).and_then(|_| never_busy()),
            _ => return None,
        })
    }

    pub(super) fn buffering(&self) -> Buffering {
        let request_bytes = self.request_bytes.unwrap_or(REQUEST_BYTES);
        let buffers = self.buffers.unwrap_or(BUFFERS);
        let buffers_bytes = self.buffer_bytes.unwrap_or(BUFFER_BYTES).saturating_mul(buffers);
        let file_bytes = self.file_bytes.unwrap_or(FILE_BYTES);
        Buffering {
            request_bytes: self.requests.then(|| held(request_bytes, u64::MAX)),
            answer_bytes: self.answers.then(|| held(buffers_bytes, file_bytes)),
        }
    }
}

fn held(buffers_bytes: u64, file_bytes: u64) -> usize {
    let in_file = file_bytes.min(INSTEAD_OF_FILE_BYTES_MAX);
    let bytes = buffers_bytes.saturating_add(in_file).min(BODY_BYTES_MAX);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// A size of which 0 is none, not all.
fn bytes(value: &str) -> Result<u64, Unread> {
    size(value).map(|size| if size == u64::MAX { 0 } else { size })
}

/// nginx's proxy_buffers has no fewer.
fn count(value: &str) -> Result<u64, Unread> {
    match number(value)? {
        0 => bad("is none"),
        count => Ok(count),
    }
}

fn never_busy() -> Read {
    Err(Unread::NotServed("changes nothing: a client is sent what is there".into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn bodies_are_held_as_far_as_nginxs_buffers_and_a_mebibyte_of_its_file_go() {
        let request = ("proxy-request-buffering", "on");
        let answer = ("proxy-buffering", "on");
        for (said, request_bytes, answer_bytes) in [
            (&[][..], None, None),
            (&[request], Some(MIB + 8_192), None),
            (&[answer], None, Some(MIB + 16_384)),
            (&[request, ("proxy-request-buffering", "off"), answer], None, Some(MIB + 16_384)),
            // Sizes alone turn nothing on.
            (&[("client-body-buffer-size", "1m"), ("proxy-buffer-size", "8k")], None, None),
            (&[request, ("client-body-buffer-size", "2m")], Some(3 * MIB), None),
            (&[request, ("client-body-buffer-size", "0")], Some(MIB), None),
            (&[request, ("client-body-buffer-size", "8g")], Some(16 * MIB), None),
            (
                &[answer, ("proxy-buffer-size", "8k"), ("proxy-buffers-number", "8")],
                None,
                Some(MIB + 65_536),
            ),
            (&[answer, ("proxy-max-temp-file-size", "0")], None, Some(16_384)),
            (&[answer, ("proxy-max-temp-file-size", "4k")], None, Some(20_480)),
            (
                &[answer, ("proxy-buffer-size", "8g"), ("proxy-buffers-number", "4294967296")],
                None,
                Some(16 * MIB),
            ),
        ] {
            let mut buffers = Buffers::default();
            for (name, value) in said {
                assert_eq!(buffers.set(name, value), Some(Ok(())), "{name}: {value}");
            }
            let expected = Buffering { request_bytes, answer_bytes };
            assert_eq!(buffers.buffering(), expected, "{said:?}");
        }
    }

    #[test]
    fn what_is_no_size_number_or_switch_changes_nothing() {
        for (name, value) in [
            ("proxy-buffering", "true"),
            ("proxy-request-buffering", "yes"),
            ("client-body-buffer-size", "8x"),
            ("proxy-buffer-size", "-1"),
            ("proxy-buffers-number", "0"),
            ("proxy-buffers-number", "4 8k"),
            ("proxy-max-temp-file-size", ""),
            ("proxy-busy-buffers-size", "16k"),
        ] {
            let mut buffers = Buffers::default();
            assert!(buffers.set(name, value).is_some_and(|read| read.is_err()), "{name}: {value}");
            assert_eq!(buffers, Buffers::default(), "{name}: {value}");
        }
        assert_eq!(Buffers::default().set("proxy-body-size", "1m"), None);
    }
}
