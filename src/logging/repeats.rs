//! Warnings and errors that say the same again and again: the first is written at once, the others
//! are summed up. What is tried again every second must not bury the line that says why.

use std::{
    collections::HashMap,
    fmt::{self, Write as _},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{Layer, layer::Context};

/// Repeats of so long make one line.
const WINDOW: Duration = Duration::from_secs(30);
/// Different lines that are known at a time; what comes beyond is written as it comes.
const LINES_MAX: usize = 256;
/// Longer lines, which repeat a value of somebody's, are written as they come.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Of a line in its summary.
const SHOWN_CHARS_MAX: usize = 300;

/// Lets each line through once in a while.
#[derive(Clone, Debug, Default)]
pub(super) struct Repeats(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    /// There is a line where there was none.
    has_begun: Condvar,
}

/// What was written lately, by part and text.
#[derive(Debug, Default)]
struct Lines(HashMap<(&'static str, String), Line>);

#[derive(Debug)]
struct Line {
    level: Level,
    /// When its window began.
    since: Instant,
    repeats: u64,
}

/// What is said instead of the repeats of one window.
#[derive(Debug, PartialEq, Eq)]
struct Summary {
    level: Level,
    part: &'static str,
    text: String,
}

impl Repeats {
    /// Writes the summaries, from a thread of its own, for as long as the process lives.
    pub(super) fn sum_up(&self) -> std::io::Result<()> {
        let shared = self.0.clone();
        let thread = thread::Builder::new().name("fairlead-log".into());
        thread.spawn(move || shared.sum_up()).map(drop)
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum_up(&self) {
        let mut lines = self.lines();
        loop {
            lines = match lines.next_end() {
                None => self.has_begun.wait(lines).unwrap_or_else(PoisonError::into_inner),
                Some(end) => {
                    let left = end.saturating_duration_since(Instant::now());
                    let waited = self.has_begun.wait_timeout(lines, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            let due = lines.due(Instant::now());
            drop(lines);
            due.iter().for_each(Summary::write);
            lines = self.lines();
        }
    }
}

impl Lines {
    /// Whether a line is to be written now.
    fn admit(&mut self, part: &'static str, text: String, level: Level, now: Instant) -> bool {
        if let Some(line) = self.0.get_mut(&(part, text.clone())) {
            line.repeats += 1;
            return false;
        }
        if self.0.len() < LINES_MAX && text.len() <= LINE_BYTES_MAX {
            self.0.insert((part, text), Line { level, since: now, repeats: 0 });
        }
        true
    }

    /// The end of the first window to end.
    fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|line| line.since + WINDOW).min()
    }

    /// Ends windows. A line that was repeated begins another, one that was not is forgotten.
    fn due(&mut self, now: Instant) -> Vec<Summary> {
        let mut due = Vec::new();
        self.0.retain(|(part, text), line| {
            if now.saturating_duration_since(line.since) < WINDOW {
                return true;
            }
            if line.repeats == 0 {
                return false;
            }
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            let (repeats, seconds) = (line.repeats, WINDOW.as_secs());
            let text = format!("{shown} … repeated {repeats} times in {seconds} s");
            due.push(Summary { level: line.level, part, text });
            (line.since, line.repeats) = (now, 0);
            true
        });
        due
    }
}

impl Summary {
    fn write(&self) {
        let Self { level, part, text } = self;
        if *level == Level::ERROR {
            tracing::error!(part, "{text}");
        } else {
            tracing::warn!(part, "{text}");
        }
    }
}

impl<S: Subscriber> Layer<S> for Repeats {
    fn event_enabled(&self, event: &Event<'_>, _: Context<'_, S>) -> bool {
        let metadata = event.metadata();
        // A level is less than another that says less.
        let is_summary = metadata.target() == module_path!();
        if *metadata.level() > Level::WARN || is_summary {
            return true;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let mut lines = self.0.lines();
        let is_written =
            lines.admit(metadata.target(), text.into(), *metadata.level(), Instant::now());
        if is_written {
            self.0.has_begun.notify_one();
        }
        is_written
    }
}

/// A line's message and what belongs to it.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a String cannot fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl From<Text> for String {
    fn from(Text { message, fields }: Text) -> Self {
        message + &fields
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::{fmt::MakeWriter, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl MakeWriter<'_> for Written {
        type Writer = Self;

        fn make_writer(&self) -> Self {
            self.clone()
        }
    }

    #[test]
    fn what_is_tried_again_and_again_is_written_once_and_then_summed_up() {
        let (repeats, written) = (Repeats::default(), Written::default());
        let lines = tracing_subscriber::fmt::layer().with_writer(written.clone()).with_ansi(false);
        let subscriber = tracing_subscriber::registry().with(repeats.clone()).with(lines);
        tracing::subscriber::with_default(subscriber, || {
            for round in 0..5 {
                tracing::warn!(upstream = "192.0.2.1", "does not answer");
                tracing::info!("a change is no repeat");
                if round == 0 {
                    tracing::warn!(upstream = "192.0.2.2", "does not answer");
                }
            }
            let later = Instant::now() + WINDOW;
            let due = repeats.0.lines().due(later);
            due.iter().for_each(Summary::write);
            assert!(repeats.0.lines().due(later + WINDOW).is_empty(), "silence ends it");
            tracing::warn!(upstream = "192.0.2.1", "does not answer");
        });
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let count = |part: &str| written.lines().filter(|line| line.contains(part)).count();
        assert_eq!(count("a change is no repeat"), 5, "{written}");
        assert_eq!(count("192.0.2.2"), 1, "{written}");
        assert_eq!(count("192.0.2.1"), 3, "{written}");
        assert_eq!(count("does not answer upstream=\"192.0.2.1\" … repeated 4 times in 30 s"), 1);
    }

    #[test]
    fn floods_of_different_and_of_long_lines_take_no_memory_and_hide_nothing() {
        let (mut lines, now) = (Lines::default(), Instant::now());
        for number in 0..2 * LINES_MAX {
            assert!(lines.admit("part", number.to_string(), Level::WARN, now), "{number}");
        }
        assert_eq!(lines.0.len(), LINES_MAX);
        assert_eq!(lines.next_end(), Some(now + WINDOW));
        assert_eq!((lines.due(now + WINDOW), lines.0.len()), (vec![], 0));
        for _ in 0..2 {
            let long = "x".repeat(LINE_BYTES_MAX + 1);
            assert!(lines.admit("part", long, Level::WARN, now));
        }
        assert_eq!(lines.0.len(), 0);
    }
}
