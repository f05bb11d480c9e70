//! Rows of a benchmark: an aligned table with ratios, JSON for machines, Markdown for docs/results.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use serde::Serialize;

/// One figure of one subject. `value` is the median of interleaved runs.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub figure: &'static str,
    pub subject: &'static str,
    /// Services, names or routes loaded.
    pub scale: u64,
    pub value: f64,
    pub unit: &'static str,
    pub runs: usize,
    pub min: f64,
    pub max: f64,
}

#[derive(Serialize)]
struct Document<'a> {
    commit: String,
    date: String,
    machine: String,
    rows: &'a [Row],
}

impl Row {
    /// A row from its runs; panics without any, for then nothing was measured.
    pub fn new(
        figure: &'static str,
        subject: &'static str,
        scale: u64,
        unit: &'static str,
        runs: &[f64],
    ) -> Self {
        let mut sorted = runs.to_vec();
        sorted.sort_by(f64::total_cmp);
        assert!(!sorted.is_empty(), "{figure} of {subject}: no run was measured");
        Self {
            figure,
            subject,
            scale,
            value: sorted[sorted.len() / 2],
            unit,
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

/// Prints the table and writes `target/bench/NAME.json` and `docs/results/NAME.md`.
pub fn finish(name: &str, notes: &str, rows: &[Row]) {
    let table = table(rows);
    print!("{table}");
    let document = Document {
        commit: output("git", &["describe", "--always", "--dirty"]),
        date: output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
        machine: machine(),
        rows,
    };
    let json = serde_json::to_string_pretty(&document).expect("rows are plain data");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    write(&root.join("target/bench").join(format!("{name}.json")), &json);
    let page = format!(
        "# Measured: {name}\n\n{} · {} · commit {}\n\n{notes}\n\nRatio: the row's value to Fairlead's (or, for Fairlead, 1).\n\n```\n{table}```\n",
        document.machine, document.date, document.commit
    );
    write(&root.join("docs/results").join(format!("{name}.md")), &page);
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
