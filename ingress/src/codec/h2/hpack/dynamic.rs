//! The fields that got numbers on a connection, the newest first (RFC 7541 2.3.2, 4).

use std::collections::VecDeque;

/// As large as its entries are together; both sides know it alike.
#[derive(Debug)]
pub(super) struct Dynamic<T> {
    entries: VecDeque<(T, usize)>,
    bytes: usize,
    bytes_max: usize,
}

impl<T> Dynamic<T> {
    pub(super) fn new(bytes_max: usize) -> Self {
        Self { entries: VecDeque::new(), bytes: 0, bytes_max }
    }

    /// From 0 on.
    pub(super) fn get(&self, number: usize) -> Option<&T> {
        self.entries.get(number).map(|(entry, _)| entry)
    }

    pub(super) fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    pub(super) fn position(&self, is_it: impl Fn(&T) -> bool) -> Option<usize> {
        self.entries.iter().position(|(entry, _)| is_it(entry))
    }

    pub(super) fn resize(&mut self, bytes_max: usize) {
        self.bytes_max = bytes_max;
        self.make_room(0);
    }

    /// Puts in a new one. What is larger than the table empties it, and is not in it.
    pub(super) fn push(&mut self, entry: T, bytes: usize) {
        self.make_room(bytes);
        if bytes <= self.bytes_max {
            self.entries.push_front((entry, bytes));
            self.bytes += bytes;
        }
    }

    fn make_room(&mut self, bytes: usize) {
        while self.bytes + bytes > self.bytes_max
            && let Some((_, freed)) = self.entries.pop_back()
        {
            self.bytes -= freed;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_for_the_newest() {
        let mut table = Dynamic::new(100);
        for (entry, bytes, left) in [
            ("a", 40, &["a"][..]),
            ("b", 40, &["b", "a"]),
            ("c", 20, &["c", "b", "a"]),
            ("d", 1, &["d", "c", "b"]),
            ("e", 100, &["e"]),
            ("f", 101, &[]),
            ("g", 50, &["g"]),
            ("h", 50, &["h", "g"]),
        ] {
            table.push(entry, bytes);
            let all: Vec<_> = (0..).map_while(|i| table.get(i).copied()).collect();
            assert_eq!(all, left, "{entry}");
        }
        table.resize(99);
        assert_eq!((table.get(0), table.get(1)), (Some(&"h"), None));
        table.resize(0);
        assert_eq!(table.get(0), None);
    }
}
