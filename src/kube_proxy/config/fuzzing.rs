//! What the fuzz target does with bytes; a test does it with everything that was ever found.

use crate::kube_proxy::config::read;

/// A file: read or refused as a whole, or each field of it; in lines a person can act on.
pub(crate) fn config(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let is_line = |line: &str| !line.is_empty() && !line.contains(|c: char| c < ' ');
    let report = match read(text) {
        Ok(report) => report,
        Err(reason) => return assert!(is_line(&reason), "{reason:?}"),
    };
    for line in report.fields.iter().map(ToString::to_string) {
        assert!(is_line(&line), "{line:?}");
    }
    for (flag, value) in report.flags() {
        assert!(is_line(flag) && is_line(value), "{flag}={value:?}");
    }
    let together = [report.refusal(), report.without_meaning(), report.twice];
    assert!(together.iter().flatten().all(|line| is_line(line)), "{together:?}");
}

#[cfg(test)]
#[path = "../../../fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{replay::replay, *};

    #[test]
    fn everything_fuzzing_has_found_is_taken() {
        replay("agent_kube_proxy_config", config);
    }
}
