//! `cache [TTL] [ZONES...] { ... }`.

use std::time::Duration;

use super::{CorefileError, blocks::Directive, tokens::Token, values};

/// CoreDNS's own capacity of each half.
const CAPACITY: usize = 9984;
/// No more, whatever is asked: 64 bytes of bookkeeping each.
const CAPACITY_MAX: usize = 1 << 20;
const SUCCESS_TTL_SECONDS: u32 = 3600;
const DENIAL_TTL_SECONDS: u32 = 1800;
const MIN_TTL_SECONDS: u32 = 5;
const SERVFAIL: Duration = Duration::from_secs(5);
const SERVFAIL_MAX: Duration = Duration::from_secs(300);
/// RFC 2181 §8.
const TTL_SECONDS_MAX: u32 = i32::MAX.unsigned_abs();
const STALE: Duration = Duration::from_secs(3600);
/// With `verify`, as RFC 8767 §5 recommends.
pub(crate) const FAILURE_RECHECK: Duration = Duration::from_secs(30);
const FAILURE_RECHECK_MAX: Duration = Duration::from_secs(300);
const KNOWN: &str = "success, denial, prefetch, serve_stale, servfail, disable, keepttl";

/// Bounds of one half of a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Half {
    /// Entries.
    pub capacity: usize,
    /// Longest time an entry is kept, in seconds.
    pub max_ttl_seconds: u32,
    /// Shortest, in seconds.
    pub min_ttl_seconds: u32,
}

/// `serve_stale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale {
    /// How long past its time an entry may be served.
    pub period: Duration,
    /// `verify`: only when the upstreams fail. Otherwise at once, and refreshed meanwhile.
    pub verify: bool,
    /// How long a client waits for them then; zero: until they fail.
    pub verify_timeout: Duration,
    /// Time to live that is told past an entry's end, in seconds.
    pub ttl_seconds: u32,
    /// After a failure they are not asked again for so long.
    pub failure_recheck: Duration,
}

/// `prefetch`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prefetch {
    /// So many questions make a name popular.
    pub amount: u32,
    /// Without so long a gap between them.
    pub gap: Duration,
    /// Refreshed when less than this share of its time is left, in percent.
    pub percentage: u32,
}

/// Options of `cache`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheOptions {
    /// Zones it is for; empty for the block's.
    pub zones: Vec<String>,
    /// Answers.
    pub success: Half,
    /// "No such name", "no such record".
    pub denial: Half,
    /// Time failures are kept.
    pub servfail: Duration,
    /// Zones whose answers are not kept.
    pub no_success: Vec<String>,
    /// Zones whose denials are not kept.
    pub no_denial: Vec<String>,
    /// `serve_stale`.
    pub stale: Option<Stale>,
    /// `prefetch`.
    pub prefetch: Option<Prefetch>,
    /// `keepttl`: times to live are not counted down.
    pub keep_ttl: bool,
}

impl Default for CacheOptions {
    /// What `cache` alone means.
    fn default() -> Self {
        let half = |max_ttl_seconds| Half {
            capacity: CAPACITY,
            max_ttl_seconds,
            min_ttl_seconds: MIN_TTL_SECONDS,
        };
        Self {
            zones: vec![],
            success: half(SUCCESS_TTL_SECONDS),
            denial: half(DENIAL_TTL_SECONDS),
            servfail: SERVFAIL,
            no_success: vec![],
            no_denial: vec![],
            stale: None,
            prefetch: None,
            keep_ttl: false,
        }
    }
}

pub(super) fn read(line: &Directive) -> Result<CacheOptions, CorefileError> {
    let mut options = CacheOptions::default();
    let mut words = &line.args[..];
    if let [first, rest @ ..] = words
        && first.text.parse::<i64>().is_ok()
    {
        let ttl = first.number(1, u32::MAX)?;
        options.success.max_ttl_seconds = ttl;
        options.denial.max_ttl_seconds = ttl;
        words = rest;
    }
    options.zones = values::zones(words)?;
    for option in &line.body {
        option.no_body()?;
        read_option(option, &mut options)?;
    }
    Ok(options)
}

fn read_option(line: &Directive, options: &mut CacheOptions) -> Result<(), CorefileError> {
    match line.name.text.as_str() {
        "success" => read_half(line, &mut options.success)?,
        "denial" => read_half(line, &mut options.denial)?,
        "disable" => {
            let [what, zones @ ..] = line.expect(1, usize::MAX)? else { return Ok(()) };
            let mut zones = values::zones(zones)?;
            if zones.is_empty() {
                zones.push(".".to_owned());
            }
            match what.text.as_str() {
                "success" => options.no_success.extend(zones),
                "denial" => options.no_denial.extend(zones),
                _ => return Err(what.error("disable: write success or denial")),
            }
        }
        "servfail" => {
            options.servfail = line.one()?.duration()?;
            if options.servfail > SERVFAIL_MAX {
                return Err(line.name.error("servfail: at most 5m (RFC 2308 §7.1)"));
            }
        }
        "serve_stale" => options.stale = Some(read_stale(line)?),
        // As in CoreDNS: no amount, no prefetching.
        "prefetch" => options.prefetch = Some(read_prefetch(line)?).filter(|p| p.amount > 0),
        "keepttl" => options.keep_ttl = line.expect(0, 0)?.is_empty(),
        _ => return Err(line.unknown("cache", KNOWN)),
    }
    Ok(())
}

/// `CAPACITY [TTL] [MINTTL]`.
fn read_half(line: &Directive, half: &mut Half) -> Result<(), CorefileError> {
    let words = line.expect(1, 3)?;
    if let Some(capacity) = words.first() {
        half.capacity = capacity.number(1, usize::MAX)?.min(CAPACITY_MAX);
    }
    if let Some(ttl) = words.get(1) {
        half.max_ttl_seconds = ttl.number(1, u32::MAX)?;
    }
    if let Some(least) = words.get(2) {
        half.min_ttl_seconds = least.number(0, half.max_ttl_seconds)?;
    }
    Ok(())
}

/// `[DURATION] [immediate [TTL [RECHECK]] | verify [TIMEOUT [TTL [RECHECK]]]]`.
fn read_stale(line: &Directive) -> Result<Stale, CorefileError> {
    let mut stale = Stale {
        period: STALE,
        verify: false,
        verify_timeout: Duration::ZERO,
        ttl_seconds: 0,
        failure_recheck: Duration::ZERO,
    };
    let mut words = line.expect(0, 5)?;
    if let [period, rest @ ..] = words
        && !["immediate", "verify"].contains(&period.text.as_str())
    {
        stale.period = period.duration()?;
        words = rest;
    }
    let times = match words {
        [] => return Ok(stale),
        [mode, times @ ..] if mode.text == "immediate" => times,
        [mode, times @ ..] if mode.text == "verify" => {
            stale.verify = true;
            stale.failure_recheck = FAILURE_RECHECK;
            stale.verify_timeout = times.first().map_or(Ok(Duration::ZERO), Token::duration)?;
            times.get(1..).unwrap_or_default()
        }
        [mode, ..] => return Err(mode.error("serve_stale: write immediate or verify")),
    };
    if let Some(ttl) = times.first() {
        let whole = ttl.duration().ok().filter(|ttl| ttl.subsec_nanos() == 0);
        let seconds = whole.and_then(|ttl| u32::try_from(ttl.as_secs()).ok());
        let seconds = seconds.filter(|seconds| *seconds <= TTL_SECONDS_MAX);
        let wrong = || ttl.error("serve_stale: give a time to live in whole seconds, such as 30s");
        stale.ttl_seconds = seconds.ok_or_else(wrong)?;
    }
    if let Some(recheck) = times.get(1) {
        stale.failure_recheck = recheck.duration()?;
        if stale.failure_recheck > FAILURE_RECHECK_MAX {
            return Err(recheck.error("serve_stale: failures are rechecked after 5m at most"));
        }
    }
    match times.get(2) {
        Some(extra) => Err(extra.error(format!("serve_stale: {:?} is too much", extra.text))),
        None => Ok(stale),
    }
}

/// `AMOUNT [[DURATION] [PERCENTAGE%]]`.
fn read_prefetch(line: &Directive) -> Result<Prefetch, CorefileError> {
    let words = line.expect(1, 3)?;
    let amount = words.first().map_or(Ok(0), |word| word.number(0, 1_000_000))?;
    let gap = words.get(1).map_or(Ok(Duration::from_secs(60)), Token::duration)?;
    let percentage = match words.get(2) {
        None => 10,
        Some(word) => word
            .text
            .strip_suffix('%')
            .and_then(|number| number.parse().ok())
            .filter(|percentage| (10..=90).contains(percentage))
            .ok_or_else(|| word.error("prefetch: give a share from 10% to 90%"))?,
    };
    Ok(Prefetch { amount, gap, percentage })
}
