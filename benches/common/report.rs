//! Rows of a benchmark: an aligned table with ratios, JSON for machines, a page with pictures for docs/results.

use std::{
    borrow::Cow,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde::{Deserialize, Serialize};

use super::charts::Chart;

/// The word that makes a benchmark write its page again from what was measured last.
pub const DRAW: &str = "draw";

/// The words behind a benchmark's name, without the one that cargo adds.
pub fn words() -> Vec<String> {
    std::env::args().skip(1).filter(|word| word != "--bench").collect()
}

/// One figure of one subject. `value` is the median of interleaved runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Row {
    pub figure: Cow<'static, str>,
    pub subject: Cow<'static, str>,
    /// Services, names or routes loaded.
    pub scale: u64,
    pub value: f64,
    pub unit: Cow<'static, str>,
    pub runs: usize,
    pub min: f64,
    pub max: f64,
}

#[derive(Serialize, Deserialize)]
struct Document {
    commit: String,
    date: String,
    machine: String,
    rows: Vec<Row>,
}

impl Row {
    /// A row from its runs; panics without any, for then nothing was measured.
    pub fn new(
        figure: impl Into<Cow<'static, str>>,
        subject: &'static str,
        scale: u64,
        unit: &'static str,
        runs: &[f64],
    ) -> Self {
        let figure = figure.into();
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "{figure} of {subject}: no run was measured");
        Self {
            figure,
            subject: subject.into(),
            scale,
            value: sorted[sorted.len() / 2],
            unit: unit.into(),
            runs: sorted.len(),
            min: sorted[0],
            max: sorted[sorted.len() - 1],
        }
    }
}

/// The value below which `share` of the samples lie.
pub fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_by(f64::total_cmp);
    assert!(!samples.is_empty(), "no samples");
    let last = samples.len() - 1;
    samples[((last as f64) * share).round() as usize]
}

/// Prints the table, writes `target/bench/NAME.json` and from it the page.
pub fn finish(name: &str, notes: &str, charts: &[Chart], rows: Vec<Row>) {
    print!("{}", table(&rows));
    let document = Document {
        commit: output("git", &["describe", "--always", "--dirty"]),
        date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        machine: machine(),
        rows,
    };
    let json = serde_json::to_string_pretty(&document).expect("rows are plain data");
    write(&measured(name), &json);
    publish(name, notes, charts);
}

/// Writes `docs/results/NAME.md` and its pictures from `target/bench/NAME.json`.
pub fn publish(name: &str, notes: &str, charts: &[Chart]) {
    let path = measured(name);
    let json = fs::read(&path);
    let json = json.unwrap_or_else(|error| panic!("{}: {error}: measure first", path.display()));
    let document: Document = serde_json::from_slice(&json).expect("what a benchmark has written");
    let results = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/results");
    let mut pictures = String::new();
    for chart in charts {
        let file = format!("{name}-{}.svg", chart.file());
        match chart.draw(&document.rows) {
            Some(svg) => {
                write(&results.join(&file), &svg);
                writeln!(pictures, "![{}]({file})\n", chart.title()).expect("writing to a string");
            }
            None => println!("{file}: none of its figures was measured"),
        }
    }
    let page = format!(
        "# Measured: {name}\n\n{} · {} · commit {}\n\n{notes}\n\n{pictures}\
         Ratio: the row's value to Fairlead's (or, for Fairlead, 1).\n\n```text\n{}```\n",
        document.machine,
        document.date,
        document.commit,
        table(&document.rows)
    );
    write(&results.join(format!("{name}.md")), &page);
}

fn measured(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench").join(format!("{name}.json"))
}

/// The rows as they are printed.
pub fn table(rows: &[Row]) -> String {
    let mut text = format!(
        "{:<24} {:<20} {:>7} {:>12} {:<6} {:>12} {:>12} {:>5} {:>7}\n",
        "figure", "subject", "scale", "median", "unit", "min", "max", "runs", "ratio"
    );
    for row in rows {
        let ours = rows
            .iter()
            .find(|r| r.subject == "fairlead" && r.figure == row.figure && r.scale == row.scale);
        // Of nothing there is no ratio.
        let ours = ours.filter(|ours| ours.value != 0.0);
        let ratio = ours.map_or("-".into(), |ours| format!("{:.2}", row.value / ours.value));
        writeln!(
            text,
            "{:<24} {:<20} {:>7} {:>12.2} {:<6} {:>12.2} {:>12.2} {:>5} {ratio:>7}",
            row.figure, row.subject, row.scale, row.value, row.unit, row.min, row.max, row.runs
        )
        .expect("writing to a string");
    }
    text
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |rest| rest.trim_start_matches(['\t', ' ', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {model}, Linux {}", output("uname", &["-r"]))
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |error| format!("({program}: {error})"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file in a directory")).expect("create directory");
    fs::write(path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}
