//! What the command line says wins over the environment: of flags that exclude each other, the variable
//! of one gives way to another that is given. Two that are given stay a mistake.

use std::ffi::OsString;

use clap::{Arg, ArgMatches, Command, Id, Parser, parser::ValueSource};

/// Parses the words of a command line, and ends the process as clap does where they make no sense.
pub(crate) fn parse<T: Parser>(words: &[OsString]) -> T {
    let command = over_environment(T::command(), words);
    let parsed = T::from_arg_matches(&command.get_matches_from(words));
    parsed.unwrap_or_else(|error| error.format(&mut T::command()).exit())
}

/// The command without the variables of flags that others among `words` exclude.
pub(crate) fn over_environment(command: Command, words: &[OsString]) -> Command {
    // A first look: clap takes variables for given, and what is wrong is told by the second.
    let seen = command.clone().ignore_errors(true).try_get_matches_from(words);
    // Who asks for help is not answered here.
    let Ok(seen) = seen else { return command };
    match seen.subcommand() {
        Some((name, seen)) => command.mut_subcommand(name, |command| without(command, seen)),
        None => without(command, &seen),
    }
}

fn without(command: Command, seen: &ArgMatches) -> Command {
    let is_given =
        |arg: &&Arg| seen.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine);
    let given = command.get_arguments().filter(is_given);
    let excluded = given.flat_map(|arg| excluded_by(&command, arg));
    let excluded: Vec<Id> = excluded.map(|arg| arg.get_id().clone()).collect();
    command.mut_args(|arg| {
        let is_excluded = excluded.contains(arg.get_id());
        if is_excluded { arg.env(None::<&'static str>) } else { arg }
    })
}

/// What cannot stand beside a flag, whichever of the two says so.
pub(crate) fn excluded_by<'a>(command: &'a Command, arg: &'a Arg) -> impl Iterator<Item = &'a Arg> {
    let excludes = move |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
    };
    let others = command.get_arguments().filter(|other| other.get_id() != arg.get_id());
    others.filter(move |other| excludes(arg, other) || excludes(other, arg))
}
