//! One line per change on standard error. Levels per part can be changed while running.

mod repeats;

use std::{str::FromStr, sync::OnceLock};

use clap::ValueEnum;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{
    EnvFilter, Registry, fmt, layer::SubscriberExt, reload, util::SubscriberInitExt,
};

use self::repeats::Repeats;

/// A warning for each forged DNS reply (hickory) or odd handshake (rustls) would let others fill
/// the log.
const QUIET: &str = "hyper=warn,kube=warn,hickory_net=error,hickory_resolver=error,rustls=error";

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// What is logged: `info`, or per part, `info,fairlead_dns=debug`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Level(String);

impl Default for Level {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        for directive in text.split(',') {
            let (part, level) = directive.rsplit_once('=').unwrap_or(("fairlead", directive));
            // The filter itself would take a mistyped level for the name of a part.
            if level.is_empty() || level.parse::<LevelFilter>().is_err() || part.is_empty() {
                return Err(format!(
                    "{directive:?} is no level: give error, warn, info, debug, trace or off, for \
                     one part as PART=LEVEL (info,fairlead_dns=debug)"
                ));
            }
        }
        EnvFilter::try_new(text).map_err(|error| error.to_string())?;
        Ok(Self(text.to_owned()))
    }
}

impl Level {
    fn filter(&self) -> EnvFilter {
        EnvFilter::new(format!("info,{QUIET},{}", self.0))
    }
}

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// Sets up logging for the whole process. A second call keeps the first one's settings.
pub(crate) fn start(format: Format, level: &Level) {
    let (filter, handle) = reload::Layer::new(level.filter());
    let repeats = Repeats::default();
    let registry = tracing_subscriber::registry().with(filter).with(repeats.clone());
    let lines = fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        Format::Text => registry.with(lines.with_ansi(false)).try_init(),
        Format::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    match started {
        Ok(()) => {
            drop(FILTER.set(handle));
            if let Err(error) = repeats.sum_up() {
                tracing::warn!(%error, "repeated warnings are not summed up");
            }
        }
        Err(error) => tracing::debug!(%error, "logging was already set up"),
    }
}

/// Logs at another level from now on.
pub(crate) fn set(level: &Level) {
    if let Some(Err(error)) = FILTER.get().map(|filter| filter.reload(level.filter())) {
        tracing::error!(%error, "--log-level stays as it was");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_one_word_or_one_for_each_part() {
        for (text, is_good) in [
            ("info", true),
            ("DEBUG", true),
            ("off", true),
            ("warn,fairlead_dns=debug", true),
            ("fairlead_state::source=trace", true),
            ("inof", false),
            ("fairlead_dns=loud", false),
            ("=debug", false),
            ("info,", false),
            ("", false),
        ] {
            assert_eq!(text.parse::<Level>().is_ok(), is_good, "{text:?}");
        }
    }

    #[test]
    fn what_is_asked_for_wins_over_what_is_usually_quiet() {
        let filter = "debug,kube=debug".parse::<Level>().unwrap().filter().to_string();
        assert!(filter.contains("kube=debug") && !filter.contains("kube=warn"), "{filter}");
        assert!(filter.contains("rustls=error"), "{filter}");
    }
}
