//! Durations as Go writes them (`24h0m0s`, `1.5s`), which kube-proxy's flags and files carry.

use std::{fmt, str::FromStr, time::Duration};

/// A duration that is not negative; a bare number is seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct GoDuration(pub(crate) Duration);

const UNITS: [(&str, f64); 8] = [
    ("ns", 1e-9),
    ("us", 1e-6),
    ("µs", 1e-6),
    ("μs", 1e-6),
    ("ms", 1e-3),
    ("s", 1.0),
    ("m", 60.0),
    ("h", 3600.0),
];

impl FromStr for GoDuration {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("{text:?} is no duration: give one as 90s, 5m or 24h");
        let mut rest = text.strip_prefix('+').unwrap_or(text);
        if let Ok(seconds) = rest.parse::<u32>() {
            return Ok(Self(Duration::from_secs(seconds.into())));
        }
        if rest.is_empty() {
            return Err(bad());
        }
        let mut total = Duration::ZERO;
        while !rest.is_empty() {
            let is_digit = |c: char| c.is_ascii_digit() || c == '.';
            let (number, after) = rest.split_at(rest.find(|c| !is_digit(c)).ok_or_else(bad)?);
            let (unit, after) = after.split_at(after.find(is_digit).unwrap_or(after.len()));
            let number: f64 = number.parse().map_err(|_| bad())?;
            let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(bad)?;
            let part = Duration::try_from_secs_f64(number * factor).map_err(|_| bad())?;
            total = total.checked_add(part).ok_or_else(bad)?;
            rest = after;
        }
        Ok(Self(total))
    }
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
        let below = self.0.as_secs_f64() - (seconds - seconds % 60) as f64;
        match (hours, minutes) {
            (0, 0) => write!(f, "{below}s"),
            (0, _) => write!(f, "{minutes}m{below}s"),
            _ => write!(f, "{hours}h{minutes}m{below}s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_and_written_as_go_does() {
        for (text, seconds, shown) in [
            ("24h0m0s", 86_400.0, "24h0m0s"),
            ("1h", 3600.0, "1h0m0s"),
            ("90s", 90.0, "1m30s"),
            ("1m1.5s", 61.5, "1m1.5s"),
            ("0s", 0.0, "0s"),
            ("0", 0.0, "0s"),
            ("250ms", 0.25, "0.25s"),
            ("3600", 3600.0, "1h0m0s"),
        ] {
            let parsed: GoDuration = text.parse().unwrap();
            assert!((parsed.0.as_secs_f64() - seconds).abs() < 1e-9, "{text}: {parsed:?}");
            assert_eq!(parsed.to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "5 m", "1d", "-1s", "soon", "1h30", "1e9h", "1.2.3s", "9e999s"] {
            assert!(text.parse::<GoDuration>().is_err(), "{text:?}");
        }
    }
}
