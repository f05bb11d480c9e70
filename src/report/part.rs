//! A part of a long list: what has some words, so many of it from there on.

/// Rows that are shown at once.
pub(crate) const ROWS_MAX: usize = 100;

/// What of a list is wanted; everything unless told otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    words: Vec<String>,
    first: usize,
    count: usize,
}

/// How much there is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extent {
    /// In the list.
    pub(crate) total: usize,
    /// Of those, with the words.
    pub(crate) fitting: usize,
    /// The first one taken, from 0.
    pub(crate) first: usize,
    /// How many were taken.
    pub(crate) taken: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { words: Vec::new(), first: 0, count: usize::MAX }
    }
}

impl Wanted {
    /// Page `page`, from 1, of what has every word of `text`.
    pub(crate) fn page(text: &str, page: usize) -> Self {
        let words = text.split_whitespace().map(str::to_lowercase).collect();
        Self { words, first: page.saturating_sub(1).saturating_mul(ROWS_MAX), count: ROWS_MAX }
    }

    /// Whether something has every word.
    pub(crate) fn fits(&self, has: impl Fn(&str) -> bool) -> bool {
        self.words.iter().all(|word| has(word))
    }

    /// Whether any word is asked for.
    pub(crate) fn has_words(&self) -> bool {
        !self.words.is_empty()
    }

    /// The wanted part of what fits, or of everything where nothing has to: a list that somebody only looks at is not walked
    /// through every time. A page behind the last one is the last one.
    pub(crate) fn take<T>(
        &self,
        all: impl ExactSizeIterator<Item = T>,
        fits: Option<impl Fn(&T) -> bool>,
    ) -> (Vec<T>, Extent) {
        let total = all.len();
        let Some(fits) = fits else { return self.cut(all, total, total) };
        let fitting: Vec<T> = all.filter(|row| fits(row)).collect();
        let count = fitting.len();
        self.cut(fitting.into_iter(), count, total)
    }

    fn cut<T>(
        &self,
        rows: impl Iterator<Item = T>,
        fitting: usize,
        total: usize,
    ) -> (Vec<T>, Extent) {
        let last = fitting.saturating_sub(1);
        let first = self.first.min(last - last % self.count.max(1));
        let taken: Vec<T> = rows.skip(first).take(self.count).collect();
        let extent = Extent { total, fitting, first, taken: taken.len() };
        (taken, extent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_page_of_what_has_every_word() {
        let all = || (0..1000_usize).map(|n| format!("shop/web-{n}"));
        for (text, page, expected, fitting) in [
            ("", 1, "shop/web-0", 1000),
            ("", 3, "shop/web-200", 1000),
            ("", 99, "shop/web-900", 1000),
            ("SHOP -99", 1, "shop/web-99", 11),
            ("shop nothing", 1, "", 0),
        ] {
            let wanted = Wanted::page(text, page);
            let fits = |row: &String| wanted.fits(|word| row.contains(word));
            let (taken, extent) = wanted.take(all(), wanted.has_words().then_some(fits));
            let first = taken.first().map(String::as_str).unwrap_or_default();
            assert_eq!((first, extent.fitting, extent.total), (expected, fitting, 1000), "{text}");
            assert!(taken.len() <= ROWS_MAX && extent.taken == taken.len());
        }
        let (taken, _) = Wanted::default().take(all(), Some(|_: &String| true));
        assert_eq!(taken.len(), 1000, "all of it, unless told otherwise");
    }
}
