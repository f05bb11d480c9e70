//! Exit statuses (0 ok, 1 failed, 2 wrong usage, 64 bad configuration) and the last line a person reads.

use std::{io::Write, process::ExitCode};

/// `EX_USAGE` of sysexits.h, as linkerd's proxy uses it: the configuration, not the machine, is at fault.
const BAD_CONFIGURATION: u8 = 64;
/// As clap ends.
const WRONG_USAGE: u8 = 2;

/// Marks an error that only a changed flag, variable or file can cure.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct BadConfiguration(pub(crate) String);

/// Marks an error of words on the command line that clap cannot tell.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct WrongUsage(pub(crate) String);

/// Writes to standard output; a closed pipe is not an error of ours.
pub(crate) fn print(text: &str) -> anyhow::Result<ExitCode> {
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(e.into()),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Turns a command's result into its exit status, naming the error and its causes in one line.
pub(crate) fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    let error = match result {
        Ok(code) => return code,
        Err(error) => error,
    };
    // Nowhere is left to report a failure of standard error to.
    drop(writeln!(std::io::stderr(), "fairlead: {}", one_line(&error)));
    if is_bad_configuration(&error) {
        return ExitCode::from(BAD_CONFIGURATION);
    }
    if error.chain().any(<dyn std::error::Error>::is::<WrongUsage>) {
        return ExitCode::from(WRONG_USAGE);
    }
    ExitCode::FAILURE
}

/// Whether only a changed flag, variable or file can cure it.
pub(crate) fn is_bad_configuration(error: &anyhow::Error) -> bool {
    error.chain().any(<dyn std::error::Error>::is::<BadConfiguration>)
}

/// Causes whose text the outer error already contains are not said twice.
pub(crate) fn one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.contains(&cause) {
            continue;
        }
        if !line.is_empty() {
            line.push_str(": ");
        }
        line.push_str(&cause);
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[test]
    fn a_cause_is_named_once() {
        let inner = anyhow::anyhow!("no such file");
        let error = Err::<(), _>(inner).context("reading x: no such file").context("start");
        assert_eq!(one_line(&error.unwrap_err()), "start: reading x: no such file");
    }

    #[test]
    fn whose_fault_it_is_is_found_below_its_context() {
        let error = anyhow::Error::new(BadConfiguration("port 0".into())).context("flags");
        assert_eq!(report(Err(error)), ExitCode::from(64));
        let error = anyhow::Error::new(WrongUsage("no URL".into())).context("trace");
        assert_eq!(report(Err(error)), ExitCode::from(2));
        assert_eq!(report(Err(anyhow::anyhow!("no agent"))), ExitCode::from(1));
    }
}
