//! One line per change on standard error; `FAIRLEAD_LOG` chooses levels per part (`info,fairlead_dns=debug`).

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line, for collectors.
    Json,
}

/// Sets up logging for the whole process. A second call keeps the first one's settings.
pub(crate) fn start(format: Format) {
    let filter = EnvFilter::try_from_env("FAIRLEAD_LOG")
        // A warning for each forged DNS reply (hickory) or odd handshake (rustls) would let others fill the log.
        .unwrap_or_else(|_| {
            EnvFilter::new(
                "info,hyper=warn,kube=warn,hickory_net=error,hickory_resolver=error,rustls=error",
            )
        });
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        Format::Text => lines.with_ansi(false).try_init(),
        Format::Json => lines.json().flatten_event(true).try_init(),
    };
    if let Err(error) = started {
        tracing::debug!(%error, "logging was already set up");
    }
}
