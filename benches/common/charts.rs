//! Which of a benchmark's rows are drawn.

use super::{
    plot::{self, Bar, Series},
    report::Row,
};

/// Says what a bar of a chart of ratios means.
const MEANING: &str =
    "The peer's value over Fairlead's: right of 1 (blue) the peer takes more, left of it less.";

/// A picture of a page.
#[derive(Clone, Copy, Debug)]
pub enum Chart {
    /// A figure against what is loaded, a line a subject, in this order.
    Against {
        /// The picture's name behind the benchmark's.
        file: &'static str,
        title: &'static str,
        figure: &'static str,
        /// What is counted below the plot.
        objects: &'static str,
        subjects: &'static [&'static str],
    },
    /// What peers take over what Fairlead takes at one scale, a bar a figure and peer. For costs only: more is worse.
    Ratios {
        file: &'static str,
        title: &'static str,
        scale: u64,
        figures: &'static [&'static str],
        peers: &'static [&'static str],
    },
}

impl Chart {
    /// A figure against the number of Services.
    pub const fn by_services(
        file: &'static str,
        title: &'static str,
        figure: &'static str,
        subjects: &'static [&'static str],
    ) -> Self {
        Self::Against { file, title, figure, objects: "Services", subjects }
    }

    pub fn file(&self) -> &'static str {
        match self {
            Self::Against { file, .. } | Self::Ratios { file, .. } => file,
        }
    }

    pub fn title(&self) -> &'static str {
        match self {
            Self::Against { title, .. } | Self::Ratios { title, .. } => title,
        }
    }

    /// As SVG; `None` where none of its rows was measured.
    pub fn draw(&self, rows: &[Row]) -> Option<String> {
        match *self {
            Self::Against { title, figure, objects, subjects, .. } => {
                let rows: Vec<&Row> = rows.iter().filter(|row| row.figure == figure).collect();
                let series: Vec<Series> =
                    subjects.iter().filter_map(|subject| series(subject, &rows)).collect();
                let unit = &rows.first()?.unit;
                (!series.is_empty()).then(|| plot::lines(title, objects, unit, &series))
            }
            Self::Ratios { title, scale, figures, peers, .. } => {
                let rows: Vec<&Row> = rows.iter().filter(|row| row.scale == scale).collect();
                let rows = rows.as_slice();
                let of_peers = |figure: &&'static str| {
                    let figure = *figure;
                    peers.iter().filter_map(move |peer| ratio(figure, peer, rows))
                };
                let bars: Vec<Bar> = figures.iter().flat_map(of_peers).collect();
                (!bars.is_empty()).then(|| plot::bars(title, MEANING, &bars))
            }
        }
    }
}

fn series(subject: &str, rows: &[&Row]) -> Option<Series> {
    let own = rows.iter().filter(|row| row.subject == subject);
    let mut points: Vec<(f64, f64)> = own.map(|row| (row.scale as f64, row.value)).collect();
    points.sort_by(|one, other| one.0.total_cmp(&other.0));
    (!points.is_empty()).then(|| Series { name: subject.to_owned(), points })
}

fn ratio(figure: &str, peer: &str, rows: &[&Row]) -> Option<Bar> {
    let value = |subject: &str| {
        let row = rows.iter().find(|row| row.figure == figure && row.subject == subject)?;
        Some(row.value)
    };
    Some(Bar { label: format!("{figure}, {peer}"), ratio: value(peer)? / value("fairlead")? })
}
