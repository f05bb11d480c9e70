//! Which trace a request belongs to (W3C Trace Context). Pure but for new ids.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::{Sampler, Sampling};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Version, trace, parent and flags (W3C Trace Context 3.2).
const FIELD_BYTES: usize = 55;
const SAMPLED: u8 = 1;

/// A request's place in a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Context {
    pub(crate) trace_id: u128,
    pub(crate) span_id: u64,
    /// Whose request it was a part of.
    pub(crate) parent_id: Option<u64>,
    pub(crate) is_sampled: bool,
}

/// Who asked, as it says itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Parent {
    trace_id: u128,
    span_id: u64,
    is_sampled: bool,
}

impl Context {
    /// Of a request with these fields; `trusts`: what they say of a trace is believed.
    pub(crate) fn begin(headers: &HeaderMap, trusts: bool, sampling: Sampling) -> Self {
        let parent = if trusts { parent(headers) } else { None };
        let trace_id = parent.map_or_else(|| rand::random::<u128>().max(1), |p| p.trace_id);
        let is_sampled = match parent {
            Some(parent) if sampling.is_parent_based => parent.is_sampled,
            _ => sampling.sampler.takes(trace_id),
        };
        Self {
            trace_id,
            span_id: rand::random::<u64>().max(1),
            parent_id: parent.map(|parent| parent.span_id),
            is_sampled,
        }
    }

    /// What the endpoint is told.
    fn field(&self) -> HeaderValue {
        let Self { trace_id, span_id, is_sampled, .. } = self;
        let flags = u8::from(*is_sampled);
        let text = format!("00-{trace_id:032x}-{span_id:016x}-{flags:02x}");
        // Digits and dashes are a field.
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("00"))
    }

    /// Makes a client's fields those of the request to an upstream. Who asked and is not sampled
    /// stays whom the endpoint knows: there is no span in between.
    pub(crate) fn tell(&self, headers: &mut HeaderMap) {
        let has_parent = self.parent_id.is_some();
        if !has_parent {
            headers.remove(&TRACESTATE);
        }
        if self.is_sampled || !has_parent {
            headers.insert(&TRACEPARENT, self.field());
        }
    }
}

impl Sampler {
    /// As OpenTelemetry's `TraceIdRatioBased`, so that all who ask decide alike.
    fn takes(self, trace_id: u128) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Below(bound) => {
                let [.., a, b, c, d, e, f, g, h] = trace_id.to_be_bytes();
                u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1 < bound
            }
        }
    }

    /// Of all requests this share, 0 to 1.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "the share is between 0 and 1, and its product at most 2^63"
    )]
    pub(crate) fn share(share: f64) -> Self {
        Self::Below((share.clamp(0.0, 1.0) * (1u64 << 63) as f64) as u64)
    }
}

/// `None`: there is none, there are several, or it is not one (3.2.2: then it is ignored).
fn parent(headers: &HeaderMap) -> Option<Parent> {
    let mut all = headers.get_all(&TRACEPARENT).iter();
    match (all.next(), all.next()) {
        (Some(one), None) => parse(one.as_bytes()),
        _ => None,
    }
}

fn parse(field: &[u8]) -> Option<Parent> {
    let (own, rest) = field.split_at_checked(FIELD_BYTES)?;
    let mut parts = own.split(|b| *b == b'-');
    let [version, trace_id, span_id, flags] =
        [parts.next()?, parts.next()?, parts.next()?, parts.next()?];
    let lengths = [version.len(), trace_id.len(), span_id.len(), flags.len()];
    if parts.next().is_some() || lengths != [2, 32, 16, 2] {
        return None;
    }
    // Later versions may say more, after another dash; there is no version ff.
    let fits =
        if version == b"00" { rest.is_empty() } else { rest.first().is_none_or(|b| *b == b'-') };
    if !fits || version == b"ff" {
        return None;
    }
    hex(version)?;
    let flags = u8::try_from(hex(flags)?).ok()?;
    let trace_id = hex(trace_id).filter(|id| *id != 0)?;
    let span_id = u64::try_from(hex(span_id)?).ok().filter(|id| *id != 0)?;
    Some(Parent { trace_id, span_id, is_sampled: flags & SAMPLED != 0 })
}

/// Lower case only.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0u128, |number, digit| {
        let digit = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn fields(values: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&TRACEPARENT, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_what_is_a_parent_is_one() {
        let of = |flags| Parent {
            trace_id: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span_id: 0xb7ad_6b71_6920_3331,
            is_sampled: flags,
        };
        let ids = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
        for (field, expected) in [
            (ONE.to_owned(), Some(of(true))),
            (format!("00-{ids}-00"), Some(of(false))),
            (format!("00-{ids}-ff"), Some(of(true))),
            (format!("01-{ids}-01-more"), Some(of(true))),
            (format!("01-{ids}-01more"), None),
            (format!("00-{ids}-01-more"), None),
            (format!("ff-{ids}-01"), None),
            (format!("00-{ids}-1"), None),
            (format!("00-{}-01", ids.to_uppercase()), None),
            ("00-00000000000000000000000000000000-b7ad6b7169203331-01".to_owned(), None),
            ("00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01".to_owned(), None),
            ("0-00af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned(), None),
            ("-".repeat(55), None),
            (String::new(), None),
        ] {
            assert_eq!(parse(field.as_bytes()), expected, "{field}");
        }
        assert_eq!(parent(&fields(&[ONE, ONE])), None, "two are none");
    }

    #[test]
    fn who_asks_decides_if_it_is_trusted_and_asked() {
        let always = Sampling { sampler: Sampler::Always, is_parent_based: true };
        let never = Sampling { sampler: Sampler::Never, is_parent_based: true };
        let unsampled = ONE.replace("-01", "-00");
        for (field, trusts, sampling, is_child, is_sampled) in [
            (Some(ONE), true, never, true, true),
            (Some(&*unsampled), true, always, true, false),
            (Some(ONE), true, Sampling { is_parent_based: false, ..never }, true, false),
            (Some(ONE), false, never, false, false),
            (None, true, always, false, true),
        ] {
            let headers = fields(&field.into_iter().collect::<Vec<_>>());
            let context = Context::begin(&headers, trusts, sampling);
            let seen = (context.parent_id.is_some(), context.is_sampled);
            assert_eq!(seen, (is_child, is_sampled), "{field:?} {trusts} {sampling:?}");
        }
    }

    #[test]
    fn a_share_takes_its_share_of_all_ids() {
        for (share, takes_low, takes_high) in
            [(0.0, false, false), (0.01, true, false), (1.0, true, true)]
        {
            let sampler = Sampler::share(share);
            assert_eq!(sampler.takes(1), takes_low, "{share}");
            assert_eq!(sampler.takes(u128::MAX), takes_high, "{share}");
        }
    }
}
