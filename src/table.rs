//! Tables for people: aligned, as wide as the terminal, coloured on one only.

use std::io::IsTerminal as _;

/// Narrower than that no cell is made.
const CELL_CHARS_MIN: usize = 8;
const GAP: &str = "  ";

/// How a cell looks on a terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Tone {
    #[default]
    Plain,
    Good,
    Attention,
    Bad,
    Dim,
}

/// A word with its tone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cell {
    text: String,
    tone: Tone,
}

/// What the output goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Screen {
    /// Columns; `None`: a file or a pipe, nothing is cut.
    columns: Option<usize>,
    coloured: bool,
}

/// Rows under one head.
#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
}

impl Cell {
    pub(crate) fn of(text: impl Into<String>, tone: Tone) -> Self {
        Self { text: text.into(), tone }
    }
}

impl<T: Into<String>> From<T> for Cell {
    fn from(text: T) -> Self {
        Self { text: text.into(), tone: Tone::Plain }
    }
}

impl Screen {
    /// Standard output's. NO_COLOR turns colours off (no-color.org).
    pub(crate) fn of_output() -> Self {
        let is_terminal = std::io::stdout().is_terminal();
        let columns = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { columns: columns.filter(|_| is_terminal), coloured: is_terminal && !no_colour }
    }

    /// The same with every cell whole.
    pub(crate) fn uncut(self) -> Self {
        Self { columns: None, ..self }
    }

    /// Nothing cut, no colours.
    #[cfg(test)]
    pub(crate) fn plain() -> Self {
        Self { columns: None, coloured: false }
    }

    pub(crate) fn paint(self, text: &str, tone: Tone) -> String {
        let code = match tone {
            _ if !self.coloured => return text.to_owned(),
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Attention => "33",
            Tone::Bad => "31",
            Tone::Dim => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table as text. Where it is wider than the screen its widest columns give way.
    pub(crate) fn text(&self, screen: Screen) -> String {
        let widths = self.widths(screen);
        let mut text = String::new();
        let head: Vec<Cell> = self.head.iter().map(|word| Cell::of(*word, Tone::Dim)).collect();
        for row in std::iter::once(&head).chain(&self.rows) {
            let mut line = String::new();
            let mut pad = 0;
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(&" ".repeat(pad));
                let shown = shortened(&cell.text, *width);
                pad = width.saturating_sub(shown.chars().count()) + GAP.len();
                line.push_str(&screen.paint(&shown, cell.tone));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }

    fn widths(&self, screen: Screen) -> Vec<usize> {
        let mut widths: Vec<usize> = self.head.iter().map(|word| word.chars().count()).collect();
        for row in &self.rows {
            for (cell, width) in row.iter().zip(&mut widths) {
                *width = (*width).max(cell.text.chars().count());
            }
        }
        let Some(columns) = screen.columns else { return widths };
        let gaps = GAP.len() * widths.len().saturating_sub(1);
        loop {
            let total = widths.iter().sum::<usize>() + gaps;
            let widest = widths.iter_mut().max();
            match widest {
                Some(widest) if total > columns && *widest > CELL_CHARS_MIN => {
                    *widest = widest.saturating_sub(total - columns).max(CELL_CHARS_MIN);
                    // Two columns of the same width share what is to be given up.
                    *widest = (*widest).max(CELL_CHARS_MIN);
                }
                _ => return widths,
            }
        }
    }
}

fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new(&["NAME", "WHY"]);
        table.row(["a".into(), Cell::of("fine", Tone::Good)]);
        table.row(["longer-name".into(), Cell::of("a reason of some length", Tone::Bad)]);
        table
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_tail() {
        let expected = "NAME         WHY\n\
                        a            fine\n\
                        longer-name  a reason of some length\n";
        assert_eq!(table().text(Screen::plain()), expected);
    }

    #[test]
    fn a_narrow_terminal_gets_whole_lines_with_cut_cells() {
        let screen = Screen { columns: Some(24), coloured: false };
        let text = table().text(screen);
        assert!(text.lines().all(|line| line.chars().count() <= 24), "{text}");
        assert!(text.contains("longer-name  a reason o…"), "{text}");
        let tiny = Screen { columns: Some(1), coloured: false };
        assert_eq!(table().text(tiny).lines().count(), 3);
    }

    #[test]
    fn colours_go_to_terminals_only() {
        let coloured = Screen { columns: None, coloured: true };
        assert!(table().text(coloured).contains("\x1b[31ma reason"));
        assert!(!table().text(Screen::plain()).contains('\x1b'));
    }
}
