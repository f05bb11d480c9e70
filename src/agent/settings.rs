//! The agent's settings: the command line wins over the environment, that over the `--config` file,
//! that over the `--kube-proxy-config` file, that over defaults.
//!
//! What the file says is put behind the command line as flags, so there is one parser, one list of
//! keys and one meaning of each value, whichever way it came.

mod file;
mod keeper;
mod ports;
mod watch;

use std::{collections::BTreeMap, ffi::OsString, fs, path::Path};

use clap::{
    Arg, ArgAction, ArgMatches, Args as _, Command, FromArgMatches,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};

use self::file::{Entry, Value};
use super::args::Args;
use crate::{
    exit::BadConfiguration,
    given,
    kube_proxy::{self, config::Report},
};

pub(crate) use keeper::Keeper;
pub(crate) use ports::besides_ingress;

/// Keys that take effect while running.
const LIVE: [&str; 13] = [
    "log-level",
    "upstream",
    "dns-ttl",
    "dns-negative-ttl",
    "drain-timeout",
    "lameduck",
    "conntrack-max-per-core",
    "conntrack-min",
    "conntrack-tcp-timeout-established",
    "conntrack-tcp-timeout-close-wait",
    "conntrack-tcp-be-liberal",
    "conntrack-udp-timeout",
    "conntrack-udp-timeout-stream",
];

/// Settings and how they look.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) args: Args,
    /// What became of kube-proxy's configuration.
    pub(crate) kube_proxy: Report,
    /// Each key's value as text, defaults included; keys without a value are left out.
    values: BTreeMap<String, String>,
}

/// The words behind `fairlead agent`.
#[derive(Clone, Debug)]
pub(crate) struct CommandLine(Vec<OsString>);

impl CommandLine {
    /// This process's own, which has been parsed as `fairlead agent ...`.
    pub(crate) fn of_process() -> Self {
        Self(std::env::args_os().skip_while(|word| word != "agent").skip(1).collect())
    }
}

impl Settings {
    /// Settings by command line, environment and file.
    ///
    /// # Errors
    /// A file cannot be read or used: which line, which key, and what would be right.
    pub(crate) fn load(words: &CommandLine, file: Option<&Path>) -> Result<Self, BadConfiguration> {
        let Some(path) = file else { return Self::with_flags(words, "", Vec::new()) };
        let text = fs::read_to_string(path)
            .map_err(|error| BadConfiguration(format!("--config {}: {error}", path.display())))?;
        Self::with_file(words, path, &text)
    }

    fn with_file(words: &CommandLine, path: &Path, text: &str) -> Result<Self, BadConfiguration> {
        let entries = file::parse(path, text).map_err(BadConfiguration)?;
        let command = command();
        let given = matches(words, &[]).map_err(|error| bad("", &error))?;
        let mut flags = Vec::new();
        for entry in &entries {
            let flag = flag(&command, entry).and_then(|flag| {
                flag.as_ref().map_or(Ok(()), |flag| check(flag))?;
                Ok(flag)
            });
            let flag = flag.map_err(|reason| {
                BadConfiguration(format!("{}:{}: {reason}", path.display(), entry.line))
            })?;
            if !is_said(&command, &given, &entry.key) {
                flags.extend(flag);
            }
        }
        Self::with_flags(words, &format!("{}: ", path.display()), flags)
    }

    /// `flags` are those of the file at `place`.
    fn with_flags(
        words: &CommandLine,
        place: &str,
        flags: Vec<String>,
    ) -> Result<Self, BadConfiguration> {
        let settings = Self::with_drop_in(words, place, flags)?;
        ports::check(&settings.args)?;
        Ok(settings)
    }

    fn with_drop_in(
        words: &CommandLine,
        place: &str,
        mut flags: Vec<String>,
    ) -> Result<Self, BadConfiguration> {
        let settings = parse(words, &flags).map_err(|error| bad(place, &error))?;
        let Some(path) = &settings.args.drop_in.kube_proxy_config else { return Ok(settings) };
        let kube_proxy = kube_proxy::config::load(path)?;
        let place = format!("--kube-proxy-config {}: ", path.display());
        let given = matches(words, &flags).map_err(|error| bad(&place, &error))?;
        flags.extend(drop_in_flags(&given, &kube_proxy, &place)?);
        let settings = parse(words, &flags).map_err(|error| bad(&place, &error))?;
        Ok(Self { kube_proxy, ..settings })
    }

    /// Each setting in one line, for the log.
    pub(crate) fn summary(&self) -> String {
        let one = |(key, value): (&String, &String)| format!("{key}={value}");
        self.values.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}

/// What kube-proxy's file says and nothing else has said before.
fn drop_in_flags(
    given: &ArgMatches,
    report: &Report,
    place: &str,
) -> Result<Vec<String>, BadConfiguration> {
    let command = command();
    let mut flags = Vec::new();
    for (key, text) in report.flags() {
        if is_said(&command, given, key) {
            continue;
        }
        let value = match text {
            "true" => Value::Switch(true),
            text => Value::One(text.to_owned()),
        };
        let entry = Entry { key: key.to_owned(), line: 0, value };
        let flag = flag(&command, &entry).and_then(|flag| {
            flag.as_ref().map_or(Ok(()), |flag| check(flag))?;
            Ok(flag)
        });
        flags.extend(flag.map_err(|reason| BadConfiguration(format!("{place}{reason}")))?);
    }
    Ok(flags)
}

fn command() -> Command {
    Args::augment_args(Command::new("fairlead agent").no_binary_name(true))
}

fn matches(words: &CommandLine, flags: &[String]) -> Result<ArgMatches, clap::Error> {
    let flags = flags.iter().map(OsString::from);
    let words: Vec<OsString> = words.0.iter().cloned().chain(flags).collect();
    given::over_environment(command(), &words).try_get_matches_from(words)
}

fn parse(words: &CommandLine, flags: &[String]) -> Result<Settings, clap::Error> {
    let matches = matches(words, flags)?;
    let command = command();
    let values = keys(&command).filter_map(|arg| Some((key(arg)?, shown(arg, &matches)?)));
    let values = values.collect();
    Ok(Settings { args: Args::from_arg_matches(&matches)?, kube_proxy: Report::default(), values })
}

fn keys(command: &Command) -> impl Iterator<Item = &Arg> {
    command.get_arguments().filter(|arg| arg.get_long().is_some_and(|long| long != "help"))
}

fn key(arg: &Arg) -> Option<String> {
    arg.get_long().map(str::to_owned)
}

fn is_switch(arg: &Arg) -> bool {
    matches!(arg.get_action(), ArgAction::SetTrue)
}

fn shown(arg: &Arg, matches: &ArgMatches) -> Option<String> {
    let id = arg.get_id().as_str();
    if is_switch(arg) {
        return matches.get_flag(id).then(|| "true".to_owned());
    }
    let values = matches.get_raw(id)?;
    Some(values.map(|value| value.to_string_lossy()).collect::<Vec<_>>().join(","))
}

fn is_given(command: &Command, matches: &ArgMatches, key: &str) -> bool {
    let arg = keys(command).find(|arg| arg.get_long() == Some(key));
    let source = arg.and_then(|arg| matches.value_source(arg.get_id().as_str()));
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// Whether a key, or one that cannot stand beside it, is given.
fn is_said(command: &Command, matches: &ArgMatches, key: &str) -> bool {
    let arg = keys(command).find(|arg| arg.get_long() == Some(key));
    let excluded = arg.into_iter().flat_map(|arg| given::excluded_by(command, arg));
    let mut said = excluded.filter_map(Arg::get_long).map(str::to_owned).chain(opposite(key));
    is_given(command, matches, key) || said.any(|key| is_given(command, matches, &key))
}

/// The key that says the same thing the other way round.
fn opposite(key: &str) -> Option<String> {
    match key {
        "proxy" | "dns" | "ingress" => Some(format!("no-{key}")),
        _ => key.strip_prefix("no-").map(str::to_owned),
    }
}

/// The entry as a flag; `None` when it says nothing.
fn flag(command: &Command, entry: &Entry) -> Result<Option<String>, String> {
    let Entry { key, value, .. } = entry;
    let arg = keys(command).find(|arg| arg.get_long() == Some(key)).ok_or_else(|| unknown(key))?;
    if key == "config" {
        return Err("a file cannot name another one (config)".to_owned());
    }
    let takes_several = arg.get_value_delimiter().is_some();
    match value {
        Value::Nothing => Ok(None),
        Value::Mapping => Err(format!("{key}: takes a value, not a structure")),
        Value::Switch(true) if is_switch(arg) => Ok(Some(format!("--{key}"))),
        // `dns: false` means what --no-dns does.
        Value::Switch(false) if is_switch(arg) => {
            let opposite = opposite(key).filter(|opposite| opposite.starts_with("no-"));
            Ok(opposite.map(|opposite| format!("--{opposite}")))
        }
        Value::One(_) | Value::Several(_) if is_switch(arg) => {
            Err(format!("{key}: give true or false"))
        }
        Value::Switch(on) => Ok(Some(format!("--{key}={on}"))),
        Value::One(text) => Ok(Some(format!("--{key}={text}"))),
        Value::Several(list) if takes_several => Ok(Some(format!("--{key}={}", list.join(",")))),
        Value::Several(_) => Err(format!("{key}: takes one value, not a list")),
    }
}

fn unknown(key: &str) -> String {
    let error = command().try_get_matches_from([format!("--{key}=x")]).err();
    let nearest = error.as_ref().and_then(|error| match error.get(ContextKind::SuggestedArg)? {
        ContextValue::String(flag) => Some(flag.trim_start_matches('-').to_owned()),
        _ => None,
    });
    match nearest {
        Some(nearest) => format!("unknown key {key:?}; did you mean {nearest:?}?"),
        None => format!("unknown key {key:?}; keys are the flags of `fairlead agent --help`"),
    }
}

/// Whether the parser likes the value of this flag alone.
fn check(flag: &str) -> Result<(), String> {
    let Err(error) = command().try_get_matches_from([flag]) else { return Ok(()) };
    let about_value = matches!(
        error.kind(),
        ErrorKind::InvalidValue | ErrorKind::ValueValidation | ErrorKind::InvalidUtf8
    );
    // What it needs or excludes besides is judged with everything else.
    if !about_value {
        return Ok(());
    }
    let (key, value) = flag.trim_start_matches('-').split_once('=').unwrap_or((flag, ""));
    let reason = std::error::Error::source(&error).map(ToString::to_string);
    let allowed = error.get(ContextKind::ValidValue).map(|values| format!("give one of {values}"));
    let reason = reason.or(allowed).unwrap_or_else(|| "is no value for it".to_owned());
    Err(format!("{key}: {value:?}: {reason}"))
}

/// The first line of the parser's message: the others explain usage.
fn bad(place: &str, error: &clap::Error) -> BadConfiguration {
    let text = error.to_string();
    let lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage"));
    let lines: Vec<_> = lines.filter(|line| !line.is_empty()).collect();
    let text = lines.join(" ");
    BadConfiguration(format!("{place}{}", text.trim_start_matches("error: ")))
}

#[cfg(test)]
mod tests;
