//! What the user sees: each expectation as it is met or missed, and a table of all at the end.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

/// One expectation and what came of it.
#[derive(Clone, Debug)]
struct Finding {
    step: &'static str,
    what: String,
    seen: String,
    held: bool,
}

/// Prints to standard output; colours and a line that moves only on a terminal.
#[derive(Debug)]
pub(crate) struct Screen {
    terminal: bool,
    colours: bool,
    step: &'static str,
    findings: Vec<Finding>,
}

impl Screen {
    /// Asks the environment what may be printed (<https://no-color.org>).
    pub(crate) fn new() -> Self {
        let dumb = env::var_os("TERM").is_none_or(|term| term == "dumb");
        let terminal = io::stdout().is_terminal() && !dumb;
        let colours = terminal && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { terminal, colours, step: "", findings: Vec::new() }
    }

    /// A new step begins.
    pub(crate) fn step(&mut self, title: &'static str) {
        self.step = title;
        let title = self.painted("1", title);
        self.line(&format!("\n{title}"));
    }

    /// What is being done now; replaced by the next line, and not shown elsewhere than on a
    /// terminal.
    pub(crate) fn doing(&self, what: &str) {
        if self.terminal {
            write(&format!("\r\x1b[K  … {what}"));
        }
    }

    /// A line that expects nothing.
    pub(crate) fn say(&self, text: &str) {
        self.line(text);
    }

    /// An expectation: what, what was seen, and whether it held.
    pub(crate) fn expect(&mut self, what: impl Into<String>, seen: impl Into<String>, held: bool) {
        let (what, seen) = (what.into(), seen.into());
        let mark = self.mark(held);
        self.line(&format!("  {mark} {what}: {seen}"));
        self.findings.push(Finding { step: self.step, what, seen, held });
    }

    /// Whether every expectation held, of which there was at least one.
    pub(crate) fn all_held(&self) -> bool {
        !self.findings.is_empty() && self.findings.iter().all(|finding| finding.held)
    }

    /// The table of everything seen, and the count.
    pub(crate) fn table(&self) {
        self.line(&self.tabled());
    }

    fn tabled(&self) -> String {
        let whats = self.findings.iter().map(|finding| finding.what.chars().count());
        let width = whats.max().unwrap_or(0);
        let mut lines = vec![self.painted("1", "\nWhat was expected and what was seen")];
        let mut last = "";
        for Finding { step, what, seen, held } in &self.findings {
            if *step != last {
                last = step;
                lines.push(self.painted("1", step));
            }
            lines.push(format!("  {} {what:width$}  {seen}", self.mark(*held)));
        }
        let held = self.findings.iter().filter(|finding| finding.held).count();
        lines.push(format!("\n{held} of {} expectations held", self.findings.len()));
        lines.join("\n")
    }

    fn mark(&self, held: bool) -> String {
        match (self.terminal, held) {
            (true, true) => self.painted("32", "✔"),
            (true, false) => self.painted("31", "✘"),
            (false, true) => "ok    ".into(),
            (false, false) => "FAILED".into(),
        }
    }

    fn painted(&self, code: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
    }

    fn line(&self, text: &str) {
        let clear = if self.terminal { "\r\x1b[K" } else { "" };
        write(&format!("{clear}{text}\n"));
    }
}

/// A reader who has gone away changes nothing about the outcome.
fn write(text: &str) {
    let mut stdout = io::stdout().lock();
    drop(stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn screen(terminal: bool, colours: bool, held: &[bool]) -> Screen {
        let finding = |&held: &bool| Finding {
            step: "Names",
            what: "a name".into(),
            seen: "an address".into(),
            held,
        };
        Screen { terminal, colours, step: "", findings: held.iter().map(finding).collect() }
    }

    #[test]
    fn off_a_terminal_the_table_is_plain_and_says_what_failed() {
        let table = screen(false, false, &[true, false]).tabled();
        assert!(table.is_ascii() && !table.contains('\x1b'), "{table}");
        assert!(table.contains("Names\n  ok     a name  an address"), "{table}");
        assert!(table.contains("\n  FAILED a name  an address"), "{table}");
        assert!(table.ends_with("1 of 2 expectations held"), "{table}");
    }

    #[test]
    fn without_colours_a_terminal_gets_marks_but_no_codes() {
        let table = screen(true, false, &[true]).tabled();
        assert!(table.contains('✔') && !table.contains('\x1b'), "{table}");
    }

    #[test]
    fn success_needs_an_expectation_and_all_of_them() {
        for (held, expected) in [(&[][..], false), (&[true], true), (&[true, false], false)] {
            assert_eq!(screen(false, false, held).all_held(), expected, "{held:?}");
        }
    }
}
