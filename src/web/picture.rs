//! A picture of a way: boxes in columns, joined from left to right, as SVG inside the page.

use maud::{Markup, html};

use super::words::class;
use crate::table::Tone;

const BOX_WIDTH: usize = 200;
const BOX_HEIGHT: usize = 46;
const GAP_WIDTH: usize = 72;
const GAP_HEIGHT: usize = 14;
const HEAD_HEIGHT: usize = 30;
/// More boxes of a column are counted, not drawn.
const BOXES_MAX: usize = 24;
/// As many letters as a box is wide.
const TITLE_CHARS_MAX: usize = 26;
const NOTE_CHARS_MAX: usize = 32;

/// A station of the way.
#[derive(Clone, Debug, Default)]
pub(super) struct Station {
    pub(super) title: String,
    pub(super) note: String,
    pub(super) tone: Tone,
    /// Where a click leads; empty: nowhere.
    pub(super) link: String,
}

/// Where a station was put: column and row.
pub(super) type Place = (usize, usize);

#[derive(Debug)]
struct Column {
    head: &'static str,
    stations: Vec<Station>,
    more: usize,
}

/// Stations and what joins them.
#[derive(Debug)]
pub(super) struct Picture {
    columns: Vec<Column>,
    joins: Vec<(Place, Place, Tone)>,
}

impl Picture {
    /// Without stations, with these heads of columns.
    pub(super) fn new(heads: &[&'static str]) -> Self {
        let column = |head: &&'static str| Column { head, stations: Vec::new(), more: 0 };
        Self { columns: heads.iter().map(column).collect(), joins: Vec::new() }
    }

    /// Puts a station at the foot of a column, unless one of its title is there; `None`: there is no
    /// more room.
    pub(super) fn put(&mut self, column: usize, station: Station) -> Option<Place> {
        let to = self.columns.get_mut(column)?;
        let known = to.stations.iter().position(|known| known.title == station.title);
        if let Some(row) = known {
            return Some((column, row));
        }
        if to.stations.len() == BOXES_MAX {
            to.more += 1;
            return None;
        }
        to.stations.push(station);
        Some((column, to.stations.len() - 1))
    }

    /// Joins two stations, if both have a place.
    pub(super) fn join(&mut self, from: Option<Place>, to: Option<Place>, tone: Tone) {
        let Some((from, to)) = from.zip(to) else { return };
        if !self.joins.iter().any(|(a, b, _)| (*a, *b) == (from, to)) {
            self.joins.push((from, to, tone));
        }
    }

    fn height(&self) -> usize {
        let rows = self.columns.iter().map(|c| c.stations.len() + usize::from(c.more > 0)).max();
        HEAD_HEIGHT + rows.unwrap_or_default().max(1) * (BOX_HEIGHT + GAP_HEIGHT)
    }

    /// Left upper corner of a box; columns are centred.
    fn corner(&self, (column, row): Place) -> (usize, usize) {
        let stations =
            self.columns.get(column).map_or(0, |c| c.stations.len() + usize::from(c.more > 0));
        let free = self.height() - HEAD_HEIGHT - stations * (BOX_HEIGHT + GAP_HEIGHT);
        let y = HEAD_HEIGHT + free / 2 + row * (BOX_HEIGHT + GAP_HEIGHT);
        (column * (BOX_WIDTH + GAP_WIDTH), y)
    }

    /// The picture; `about` says in words what it shows.
    pub(super) fn draw(&self, about: &str) -> Markup {
        let width = self.columns.len() * (BOX_WIDTH + GAP_WIDTH) - GAP_WIDTH;
        let height = self.height();
        html! {
            div.picture {
                svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("-2 0 {} {height}", width + 4))
                    width=(width) height=(height) role="img" aria-label=(about) {
                    @for (at, column) in self.columns.iter().enumerate() {
                        text.head x=(at * (BOX_WIDTH + GAP_WIDTH)) y="16" { (column.head) }
                    }
                    @for (from, to, tone) in &self.joins {
                        path.join.(class(*tone)) d=(self.curve(*from, *to)) {}
                    }
                    @for (at, column) in self.columns.iter().enumerate() {
                        @for (row, station) in column.stations.iter().enumerate() {
                            (self.station((at, row), station))
                        }
                        @if column.more > 0 {
                            @let (x, y) = self.corner((at, column.stations.len()));
                            text.note x=(x + 12) y=(y + 26) { "and " (column.more) " more" }
                        }
                    }
                }
            }
        }
    }

    fn curve(&self, from: Place, to: Place) -> String {
        let ((x1, y1), (x2, y2)) = (self.corner(from), self.corner(to));
        let (x1, y1, y2) = (x1 + BOX_WIDTH, y1 + BOX_HEIGHT / 2, y2 + BOX_HEIGHT / 2);
        let middle = x1.midpoint(x2);
        format!("M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}")
    }

    fn station(&self, place: Place, station: &Station) -> Markup {
        let (x, y) = self.corner(place);
        let Station { title, note, tone, link } = station;
        let drawn = html! {
            title { (title) " · " (note) }
            rect.(class(*tone)) x=(x) y=(y) width=(BOX_WIDTH) height=(BOX_HEIGHT) rx="9" {}
            text.title x=(x + 12) y=(y + 20) { (cut(title, TITLE_CHARS_MAX)) }
            text.note x=(x + 12) y=(y + 36) { (cut(note, NOTE_CHARS_MAX)) }
        };
        html! {
            @if link.is_empty() { g { (drawn) } } @else { a href=(link) { (drawn) } }
        }
    }
}

fn cut(text: &str, chars_max: usize) -> String {
    if text.chars().count() <= chars_max {
        return text.to_owned();
    }
    let kept: String = text.chars().take(chars_max - 1).collect();
    format!("{kept}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn station(title: &str) -> Station {
        Station { title: title.to_owned(), ..Station::default() }
    }

    #[test]
    fn a_crowd_is_counted_and_a_picture_stays_small() {
        let mut picture = Picture::new(&["Host", "Pods"]);
        let host = picture.put(0, station("shop.example"));
        for number in 0..1000 {
            let pod = picture.put(1, station(&format!("web-{number}")));
            picture.join(host, pod, Tone::Good);
        }
        let drawn = picture.draw("all").into_string();
        assert_eq!(drawn.matches("<rect").count(), 1 + BOXES_MAX);
        assert_eq!(drawn.matches("<path").count(), BOXES_MAX);
        assert!(drawn.contains("and 976 more"), "{drawn}");
        assert!(drawn.len() < 20_000, "{}", drawn.len());
    }

    #[test]
    fn what_is_named_twice_is_drawn_once() {
        let mut picture = Picture::new(&["Path", "Service"]);
        for path in ["/a", "/b"] {
            let path = picture.put(0, station(path));
            let service = picture.put(1, station("shop/web:80"));
            picture.join(path, service, Tone::Good);
        }
        let drawn = picture.draw("two paths").into_string();
        assert_eq!((drawn.matches("<rect").count(), drawn.matches("<path").count()), (3, 2));
    }

    #[test]
    fn names_are_text_in_a_picture_too() {
        let mut picture = Picture::new(&["Host"]);
        picture.put(0, station("<script>alert(1)</script>"));
        let drawn = picture.draw("\"><script>").into_string();
        assert!(!drawn.contains("<script"), "{drawn}");
    }
}
