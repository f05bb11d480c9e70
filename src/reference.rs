//! `fairlead man --markdown`: every command and flag, made from the flags themselves; docs/reference/flags.md.

use std::fmt::Write as _;

use clap::{Arg, ArgAction, Command};

const HEAD: &str = "# Commands and flags\n\n\
    <!-- Made by `make reference` from the program itself: change the flags. -->\n\n\
    Each flag has an environment variable, and the agent's flags are also the keys of its `--config` file. What is given on the \
    command line wins over the environment, and that over the file; of flags that exclude each other, too.\n";

/// The whole reference.
pub(crate) fn markdown(command: &Command) -> String {
    let mut text = HEAD.to_owned();
    let shown = command.get_subcommands().filter(|sub| !sub.is_hide_set());
    for sub in shown.filter(|sub| sub.get_name() != "help") {
        // Writing to a String cannot fail.
        let _ = write!(text, "\n## fairlead {}\n\n{}\n", sub.get_name(), about(sub));
        section(&mut text, sub);
    }
    text
}

fn about(command: &Command) -> String {
    command.get_about().map(ToString::to_string).unwrap_or_default()
}

/// Arguments under their headings, in the order of the help.
fn section(text: &mut String, command: &Command) {
    let shown: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| {
            !arg.is_hide_set() && !matches!(arg.get_action(), ArgAction::Help | ArgAction::Version)
        })
        .collect();
    let mut headings: Vec<Option<&str>> = Vec::new();
    for arg in &shown {
        if !headings.contains(&arg.get_help_heading()) {
            headings.push(arg.get_help_heading());
        }
    }
    for heading in headings {
        if let Some(heading) = heading {
            let _ = write!(text, "\n### {heading}\n");
        }
        text.push_str("\n| flag | default | variable | meaning |\n|---|---|---|---|\n");
        for arg in shown.iter().filter(|arg| arg.get_help_heading() == heading) {
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} |",
                name(arg),
                default(arg),
                arg.get_env().map(|env| format!("`{}`", env.to_string_lossy())).unwrap_or_default(),
                meaning(arg)
            );
        }
    }
}

fn name(arg: &Arg) -> String {
    let takes = arg.get_action().takes_values();
    let value = arg.get_value_names().unwrap_or_default().first().filter(|_| takes);
    let value = value.map(ToString::to_string).unwrap_or_default();
    let short = arg.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let text = match arg.get_long() {
        Some(long) => format!("{short}--{long} {value}"),
        None => value,
    };
    format!("`{}`", cell(text.trim()))
}

fn default(arg: &Arg) -> String {
    let shown = if arg.get_action().takes_values() { arg.get_default_values() } else { &[] };
    let values: Vec<_> = shown.iter().map(|value| value.to_string_lossy()).collect();
    let text = values.join(",");
    if text.is_empty() { String::new() } else { format!("`{}`", cell(&text)) }
}

fn meaning(arg: &Arg) -> String {
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values = arg.get_possible_values();
    let names: Vec<String> = values
        .iter()
        .filter(|value| !value.is_hide_set())
        .map(|value| format!("`{}`", value.get_name()))
        .collect();
    let is_switch = !arg.get_action().takes_values();
    let choice = if names.is_empty() || is_switch {
        String::new()
    } else {
        format!(" ({})", names.join(", "))
    };
    cell(&format!("{help}{choice}"))
}

/// Text that stays within its cell.
fn cell(text: &str) -> String {
    text.replace('\n', " ").replace('|', "\\|").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::Cli;

    #[test]
    fn the_reference_is_that_of_this_program() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/flags.md");
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        let made = markdown(&Cli::command());
        assert!(
            kept == made,
            "docs/reference/flags.md is not what the flags say: `make reference`"
        );
    }

    /// On without a word; what turns them off has a variable.
    const ROLES: [&str; 3] = ["proxy", "dns", "ingress"];

    #[test]
    fn every_flag_has_a_variable_named_after_it_and_a_line_of_help() {
        let command = Cli::command();
        let all = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        for (sub, arg) in all.flat_map(|sub| sub.get_arguments().map(move |arg| (sub, arg))) {
            let Some(long) = arg.get_long().filter(|long| *long != "help") else { continue };
            if arg.is_hide_set() {
                continue;
            }
            let place = format!("fairlead {} --{long}", sub.get_name());
            assert!(arg.get_help().is_some(), "{place}: no help");
            if ROLES.contains(&long) {
                continue;
            }
            let variable = format!("FAIRLEAD_{}", long.to_ascii_uppercase().replace('-', "_"));
            let own = arg.get_env().map(|name| name.to_string_lossy().into_owned());
            assert_eq!(own.as_deref(), Some(&*variable), "{place}");
        }
    }

    /// These print no data: one runs on, one is a show, and two write what others read.
    const WITHOUT_DATA: [&str; 4] = ["agent", "demo", "completions", "man"];

    #[test]
    fn every_command_that_prints_data_prints_it_for_programs_too() {
        for sub in Cli::command().get_subcommands().filter(|sub| !sub.is_hide_set()) {
            let output = sub.get_arguments().find(|arg| arg.get_long() == Some("output"));
            let is_expected = !WITHOUT_DATA.contains(&sub.get_name());
            assert_eq!(output.is_some(), is_expected, "fairlead {} -o", sub.get_name());
        }
    }

    #[test]
    fn every_flag_is_there_with_its_variable() {
        let made = markdown(&Cli::command());
        for row in [
            "| `--web-listen ADDR` | `127.0.0.1:10247` | `FAIRLEAD_WEB_LISTEN` |",
            "| `--dns-listen ADDR,...` | `0.0.0.0:53,[::]:53` | `FAIRLEAD_DNS_LISTEN` |",
            "| `-o, --output FORMAT` | `table` | `FAIRLEAD_OUTPUT` |",
            "## fairlead trace",
        ] {
            assert!(made.contains(row), "{row}: {made}");
        }
        assert!(
            !made.contains("fairlead world") && !made.contains("fairlead probe"),
            "hidden ones"
        );
    }
}
