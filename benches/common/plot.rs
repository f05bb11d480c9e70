//! Plots as SVG: lines against the number of objects, bars of ratios. Pure: the same figures give the same bytes.
//!
//! A picture brings its own background and follows the reader's preference for light or dark, so that it reads the
//! same on a forge, in the book and alone. Lines differ by shape as well as by colour.

use std::fmt::Write as _;

/// Colours of one scheme, as `#rrggbb`.
#[derive(Debug)]
pub struct Colours {
    pub background: &'static str,
    /// Titles and values.
    pub ink: &'static str,
    /// Names of ticks and axes.
    pub faint: &'static str,
    pub grid: &'static str,
    /// Of the subjects, Fairlead first.
    pub series: [&'static str; SERIES_MAX],
}

/// As many subjects as can be told apart.
pub const SERIES_MAX: usize = 6;

impl Colours {
    const fn new(
        [background, ink, faint, grid]: [&'static str; 4],
        series: [&'static str; SERIES_MAX],
    ) -> Self {
        Self { background, ink, faint, grid, series }
    }
}

pub const LIGHT: Colours = Colours::new(
    ["#ffffff", "#1f2328", "#59636e", "#d1d9e0"],
    ["#0b62c4", "#b8400a", "#0b7a53", "#8a3fa8", "#7d6000", "#5b6470"],
);

pub const DARK: Colours = Colours::new(
    ["#0d1117", "#e6edf3", "#9198a1", "#3d444d"],
    ["#58a6ff", "#ff9a5c", "#4fd1a0", "#d2a8ff", "#e3b341", "#b1bac4"],
);

/// One subject's values.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    pub name: String,
    /// Objects loaded, and the figure; in order. Only what is above zero has a place.
    pub points: Vec<(f64, f64)>,
}

/// One peer's value over Fairlead's.
#[derive(Clone, Debug, PartialEq)]
pub struct Bar {
    pub label: String,
    pub ratio: f64,
}

const WIDTH: f64 = 760.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 24.0;
const PLOT_HEIGHT: f64 = 260.0;
const TITLE_Y: f64 = 28.0;
const LEGEND_Y: f64 = 52.0;
const LEGEND_LINE: f64 = 20.0;
/// Wide enough for any letter of the text's size.
const LETTER: f64 = 7.6;
/// From this span on an axis is logarithmic.
const LOG_FROM: f64 = 10.0;
/// From this span on three ticks a decade are too close.
const CLOSE_BELOW: f64 = 200.0;
const BAR_LINE: f64 = 26.0;
const BAR_LABELS: f64 = 330.0;
const BAR_VALUES: f64 = 70.0;

/// An axis: values to places.
struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
    from: f64,
    to: f64,
}

impl Axis {
    /// Of values above zero, with ticks at round ones.
    fn of_values(low: f64, high: f64, from: f64, to: f64) -> (Self, Vec<f64>) {
        if high / low >= LOG_FROM {
            let ticks = decades(low, high);
            let ends = (ticks.first().copied(), ticks.last().copied());
            let (low, high) = (ends.0.unwrap_or(low), ends.1.unwrap_or(high));
            return (Self { low, high, is_log: true, from, to }, ticks);
        }
        let ticks = even(high);
        let high = ticks.last().copied().unwrap_or(high);
        (Self { low: 0.0, high, is_log: false, from, to }, ticks)
    }

    fn at(&self, value: f64) -> f64 {
        let share = match self.is_log {
            true => (value / self.low).ln() / (self.high / self.low).ln(),
            false => (value - self.low) / (self.high - self.low),
        };
        self.from + share * (self.to - self.from)
    }
}

/// Powers of ten around a range.
fn decades(low: f64, high: f64) -> Vec<f64> {
    let (low, high) = (low.log10().floor(), high.log10().ceil());
    let mut ticks = vec![];
    let mut exponent = low;
    while exponent <= high {
        ticks.push(10f64.powf(exponent));
        exponent += 1.0;
    }
    ticks
}

/// Even steps of 1, 2 or 5 from zero to no less than `high`.
fn even(high: f64) -> Vec<f64> {
    let decade = 10f64.powf((high / 5.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|step| step * decade);
    let step = steps.into_iter().find(|step| step * 5.0 >= high * 0.999).unwrap_or(high);
    let mut ticks = vec![0.0];
    let mut tick = 0.0;
    while tick < high * 0.999 {
        tick += step;
        ticks.push(tick);
    }
    ticks
}

/// 1, 2 and 5 in each decade, from one no larger than `low` to one no smaller than `high`.
fn one_two_five(low: f64, high: f64) -> Vec<f64> {
    let all = decades(low, high).into_iter();
    let all: Vec<f64> = all.flat_map(|decade| [1.0, 2.0, 5.0].map(|n| n * decade)).collect();
    let first = all.iter().rposition(|tick| *tick <= low * 1.001).unwrap_or(0);
    let last = all.iter().position(|tick| *tick >= high * 0.999).unwrap_or(all.len() - 1);
    all.get(first..=last).unwrap_or_default().to_vec()
}

/// `1,234`, `12`, `0.5`.
fn number(value: f64) -> String {
    if value < 100.0 {
        let text = format!("{value:.2}");
        return text.trim_end_matches('0').trim_end_matches('.').to_owned();
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (n, digit) in digits.chars().enumerate() {
        if n > 0 && (digits.len() - n).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn scheme(colours: &Colours) -> String {
    let Colours { background, ink, faint, grid, series } = colours;
    let mut text = format!(
        ".back{{fill:{background}}}.ink{{fill:{ink}}}.faint{{fill:{faint}}}.grid{{stroke:{grid}}}"
    );
    for (n, colour) in series.iter().enumerate() {
        let _ = write!(text, ".l{n}{{stroke:{colour}}}.f{n}{{fill:{colour}}}");
    }
    text
}

/// A picture of this height around `content`.
fn picture(title: &str, height: f64, content: &str) -> String {
    let (light, dark, title) = (scheme(&LIGHT), scheme(&DARK), escaped(title));
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH:.0} {height:.0}\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" \
         role=\"img\" aria-label=\"{title}\">\n\
         <style>text{{font:13px system-ui,sans-serif}}.title{{font-size:15px;font-weight:600}}.end{{text-anchor:end}}\
         .middle{{text-anchor:middle}}.line{{fill:none;stroke-width:2}}.own{{stroke-width:3}}\n\
         {light}\n@media(prefers-color-scheme:dark){{{dark}}}</style>\n\
         <rect class=\"back\" width=\"{WIDTH:.0}\" height=\"{height:.0}\" rx=\"6\"/>\n\
         <text class=\"title ink\" x=\"16\" y=\"{TITLE_Y:.0}\">{title}</text>\n{content}</svg>\n"
    )
}

fn text(to: &mut String, class: &str, (x, y): (f64, f64), words: &str) {
    let _ =
        writeln!(to, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(words));
}

fn grid(to: &mut String, from: (f64, f64), until: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, until);
    let _ = writeln!(
        to,
        "<line class=\"grid\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

/// A sign of its own for each subject.
fn mark(to: &mut String, series: usize, (x, y): (f64, f64)) {
    let _ = match series % 4 {
        0 => writeln!(to, "<circle class=\"f{series}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.5\"/>"),
        1 => {
            let (x, y) = (x - 4.0, y - 4.0);
            writeln!(
                to,
                "<rect class=\"f{series}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"8\" height=\"8\"/>"
            )
        }
        2 => writeln!(to, "<path class=\"f{series}\" d=\"M{x:.1} {y:.1}m0 -6l5.5 10h-11z\"/>"),
        _ => writeln!(to, "<path class=\"f{series}\" d=\"M{x:.1} {y:.1}m0 -6l6 6l-6 6l-6 -6z\"/>"),
    };
}

/// Names of the subjects above the plot; returns how many lines they take.
fn legend(to: &mut String, series: &[Series]) -> f64 {
    let (mut x, mut y, mut lines) = (LEFT, LEGEND_Y, 1.0);
    for (n, one) in series.iter().enumerate() {
        let width = 14.0 + LETTER * one.name.chars().count() as f64 + 16.0;
        if x > LEFT && x + width > WIDTH - RIGHT {
            (x, y, lines) = (LEFT, y + LEGEND_LINE, lines + 1.0);
        }
        mark(to, n, (x + 4.0, y - 4.0));
        text(to, "ink", (x + 14.0, y), &one.name);
        x += width;
    }
    lines
}

/// A figure in `unit` against `objects`, a line a subject, the first one thicker. The axis of objects is logarithmic,
/// the figure's where its values span a decade.
pub fn lines(title: &str, objects: &str, unit: &str, series: &[Series]) -> String {
    let series: Vec<Series> = series
        .iter()
        .take(SERIES_MAX)
        .map(|one| {
            let is_placed = |(x, y): &&(f64, f64)| *x > 0.0 && *y > 0.0 && y.is_finite();
            Series {
                name: one.name.clone(),
                points: one.points.iter().filter(is_placed).copied().collect(),
            }
        })
        .collect();
    let values = || series.iter().flat_map(|one| one.points.iter().copied());
    let least = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::INFINITY, f64::min);
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let mut content = String::new();
    let top = LEGEND_Y + legend(&mut content, &series) * LEGEND_LINE + 8.0;
    let bottom = top + PLOT_HEIGHT;
    if values().next().is_none() {
        return picture(title, bottom, &content);
    }
    let (low, high) = (least(&mut values().map(|(x, _)| x)), most(&mut values().map(|(x, _)| x)));
    let across = Axis {
        // One scale alone stands in the middle.
        low: if low < high { low } else { low / 2.0 },
        high: if low < high { high } else { high * 2.0 },
        is_log: true,
        from: LEFT + 24.0,
        to: WIDTH - RIGHT - 32.0,
    };
    let (low, high) = (least(&mut values().map(|(_, y)| y)), most(&mut values().map(|(_, y)| y)));
    let (up, ticks) = Axis::of_values(low, high, bottom, top);
    for tick in ticks {
        let y = up.at(tick);
        grid(&mut content, (LEFT, y), (WIDTH - RIGHT, y));
        text(&mut content, "faint end", (LEFT - 8.0, y + 4.0), &number(tick));
    }
    let mut scales: Vec<f64> = values().map(|(x, _)| x).collect();
    scales.sort_by(f64::total_cmp);
    scales.dedup();
    for scale in scales {
        let x = across.at(scale);
        grid(&mut content, (x, bottom), (x, bottom + 5.0));
        text(&mut content, "faint middle", (x, bottom + 20.0), &number(scale));
    }
    let middle = f64::midpoint(LEFT, WIDTH - RIGHT);
    text(&mut content, "faint middle", (middle, bottom + 40.0), objects);
    text(&mut content, "faint end", (LEFT - 8.0, top - 14.0), unit);
    // Fairlead's line is drawn last, on top.
    for (n, one) in series.iter().enumerate().rev() {
        let places: Vec<(f64, f64)> =
            one.points.iter().map(|(x, y)| (across.at(*x), up.at(*y))).collect();
        let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let own = if n == 0 { " own" } else { "" };
        let _ =
            writeln!(content, "<polyline class=\"line l{n}{own}\" points=\"{}\"/>", path.join(" "));
        for place in places {
            mark(&mut content, n, place);
        }
    }
    picture(title, bottom + 56.0, &content)
}

/// Peers' values over Fairlead's, on a logarithmic axis around 1; `meaning` stands below.
pub fn bars(title: &str, meaning: &str, bars: &[Bar]) -> String {
    let drawn: Vec<&Bar> =
        bars.iter().filter(|bar| bar.ratio > 0.0 && bar.ratio.is_finite()).collect();
    let low = drawn.iter().map(|bar| bar.ratio).fold(0.5, f64::min);
    let high = drawn.iter().map(|bar| bar.ratio).fold(2.0, f64::max);
    let ticks = match high / low < CLOSE_BELOW {
        true => one_two_five(low, high),
        false => decades(low, high),
    };
    let axis = Axis {
        low: ticks.first().copied().unwrap_or(low),
        high: ticks.last().copied().unwrap_or(high),
        is_log: true,
        from: BAR_LABELS,
        to: WIDTH - RIGHT - BAR_VALUES,
    };
    let top = LEGEND_Y;
    let bottom = top + BAR_LINE * drawn.len() as f64;
    let mut content = String::new();
    for tick in ticks {
        let x = axis.at(tick);
        grid(&mut content, (x, top), (x, bottom));
        text(&mut content, "faint middle", (x, bottom + 18.0), &number(tick));
    }
    let one = axis.at(1.0);
    for (n, bar) in drawn.into_iter().enumerate() {
        let y = top + BAR_LINE * n as f64 + 4.0;
        let at = axis.at(bar.ratio);
        let (x, width) = (one.min(at), (at - one).abs().max(1.0));
        // Fairlead's colour where it takes less, another where the peer does.
        let class = if bar.ratio >= 1.0 { "f0" } else { "f1" };
        let height = BAR_LINE - 8.0;
        let _ = writeln!(
            content,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.0}\"/>"
        );
        text(&mut content, "ink end", (BAR_LABELS - 10.0, y + 13.0), &bar.label);
        let value = format!("× {}", number(bar.ratio));
        text(&mut content, "ink end", (WIDTH - RIGHT, y + 13.0), &value);
    }
    let _ = writeln!(
        content,
        "<line class=\"l5\" x1=\"{one:.1}\" y1=\"{top:.1}\" x2=\"{one:.1}\" y2=\"{bottom:.1}\"/>"
    );
    text(&mut content, "faint", (16.0, bottom + 42.0), meaning);
    picture(title, bottom + 56.0, &content)
}
