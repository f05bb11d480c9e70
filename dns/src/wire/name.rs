//! Domain names in wire form: length-prefixed labels, the empty root label last.

use std::{fmt, sync::Arc};

/// Longest name, root label included (RFC 1035 §2.3.4).
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// Longest label.
pub(crate) const LABEL_BYTES_MAX: usize = 63;
/// Most labels a name of [`NAME_BYTES_MAX`] can have, root not counted.
const LABELS_MAX: usize = 127;

/// Why a text is not a domain name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// Two dots in a row, or nothing at all.
    #[error("a label is empty")]
    EmptyLabel,
    /// A label beyond 63 bytes.
    #[error("a label is longer than 63 bytes")]
    LongLabel,
    /// A name beyond 255 bytes in wire form.
    #[error("the name is longer than 255 bytes")]
    LongName,
}

/// An owned name: lower case, uncompressed, complete.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct WireName(Arc<[u8]>);

impl WireName {
    /// The root: no label.
    pub(crate) fn root() -> Self {
        Self([0].into())
    }

    /// From text such as `cluster.local`, the final dot optional.
    pub(crate) fn from_text(text: &str) -> Result<Self, BadName> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let mut bytes = Vec::with_capacity(text.len() + 2);
        for label in text.split('.') {
            push_label(&mut bytes, label.as_bytes())?;
        }
        Self::finish(bytes)
    }

    /// `labels` (wire form, without root) in front of this name.
    pub(crate) fn below(&self, labels: &[u8]) -> Result<Self, BadName> {
        let mut bytes = labels.to_vec();
        bytes.extend_from_slice(&self.0);
        if bytes.len() > NAME_BYTES_MAX {
            return Err(BadName::LongName);
        }
        Ok(Self(bytes.into()))
    }

    fn finish(mut bytes: Vec<u8>) -> Result<Self, BadName> {
        bytes.push(0);
        if bytes.len() > NAME_BYTES_MAX {
            return Err(BadName::LongName);
        }
        Ok(Self(bytes.into()))
    }

    /// Wire form, root included.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Labels, root not counted.
    pub(crate) fn label_count(&self) -> usize {
        labels(&self.0).count()
    }
}

impl fmt::Debug for WireName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for label in labels(&self.0) {
            write!(f, "{}.", label.escape_ascii())?;
        }
        Ok(())
    }
}

/// Appends one label, lower-cased.
pub(crate) fn push_label(bytes: &mut Vec<u8>, label: &[u8]) -> Result<(), BadName> {
    let length = match u8::try_from(label.len()) {
        Ok(0) => return Err(BadName::EmptyLabel),
        Ok(length) if label.len() <= LABEL_BYTES_MAX => length,
        _ => return Err(BadName::LongLabel),
    };
    bytes.push(length);
    bytes.extend(label.iter().map(u8::to_ascii_lowercase));
    Ok(())
}

/// The labels of a wire name, from the left; ends at the root label or at the end of the bytes.
fn labels(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = bytes.split_first().filter(|(length, _)| **length > 0)?;
        let (label, rest) = rest.split_at_checked(usize::from(*length))?;
        bytes = rest;
        Some(label)
    })
}

/// A question's name, lower-cased, with the place of each label; reused from query to query.
pub(crate) struct LowerName {
    bytes: [u8; NAME_BYTES_MAX],
    length: usize,
    starts: [u8; LABELS_MAX],
    label_count: usize,
}

impl LowerName {
    /// The root.
    pub(crate) fn new() -> Self {
        Self { bytes: [0; NAME_BYTES_MAX], length: 1, starts: [0; LABELS_MAX], label_count: 0 }
    }

    /// Reads the uncompressed name at the front of `bytes`; returns its length, or `None` if it is
    /// compressed, cut off or too long.
    pub(crate) fn read(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        let mut count = 0;
        loop {
            let length = usize::from(*bytes.get(at)?);
            if length == 0 {
                break;
            }
            // Above 63 lie compression pointers and the long-dead extended labels.
            if length > LABEL_BYTES_MAX {
                return None;
            }
            *self.starts.get_mut(count)? = u8::try_from(at).ok()?;
            count += 1;
            at += 1 + length;
        }
        let length = at + 1;
        let target = self.bytes.get_mut(..length)?;
        target.copy_from_slice(bytes.get(..length)?);
        // Length bytes are at most 63, below 'A': the whole name can be folded at once.
        target.make_ascii_lowercase();
        self.length = length;
        self.label_count = count;
        Some(length)
    }

    /// Length in bytes, root included.
    pub(crate) fn len(&self) -> usize {
        self.length
    }

    /// Labels, root not counted.
    pub(crate) fn label_count(&self) -> usize {
        self.label_count
    }

    /// Wire form, root included.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// How many bytes stand before label `index`; `index == label_count` is the root.
    pub(crate) fn start(&self, index: usize) -> usize {
        if index >= self.label_count {
            return self.length - 1;
        }
        self.starts.get(index).copied().map_or(0, usize::from)
    }

    /// The bytes of labels `from..to`, length bytes included.
    pub(crate) fn span(&self, from: usize, to: usize) -> &[u8] {
        self.bytes.get(self.start(from)..self.start(to)).unwrap_or_default()
    }

    /// The text of one label.
    pub(crate) fn label(&self, index: usize) -> &[u8] {
        self.span(index, index + 1).get(1..).unwrap_or_default()
    }

    /// How many labels stand to the left of `zone` (which has `zone_labels`); `None` outside the
    /// zone.
    pub(crate) fn labels_below(&self, zone: &WireName, zone_labels: usize) -> Option<usize> {
        let below = self.label_count.checked_sub(zone_labels)?;
        let suffix = self.bytes.get(self.start(below)..self.length)?;
        // Compared from a label's start, so that `notcluster.local` is no part of `cluster.local`.
        (suffix == zone.as_bytes()).then_some(below)
    }
}

impl fmt::Debug for LowerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        WireName(self.as_bytes().into()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_becomes_wire_form() {
        let cases: [(&str, Result<&[u8], BadName>); 6] = [
            ("cluster.local", Ok(b"\x07cluster\x05local\0")),
            ("Cluster.LOCAL.", Ok(b"\x07cluster\x05local\0")),
            ("", Err(BadName::EmptyLabel)),
            ("a..b", Err(BadName::EmptyLabel)),
            (&"x".repeat(64), Err(BadName::LongLabel)),
            (&vec!["y".repeat(63); 4].join("."), Err(BadName::LongName)),
        ];
        for (text, wanted) in cases {
            let name = WireName::from_text(text);
            assert_eq!(name.as_ref().map(WireName::as_bytes), wanted.as_ref().copied(), "{text}");
        }
    }

    #[test]
    fn only_whole_labels_make_a_name_part_of_a_zone() {
        let zone = WireName::from_text("cluster.local").unwrap();
        let cases = [
            ("cluster.local", Some(0)),
            ("a.svc.Cluster.Local", Some(2)),
            ("notcluster.local", None),
            ("local", None),
            ("cluster.local.example", None),
        ];
        for (text, wanted) in cases {
            let mut name = LowerName::new();
            name.read(WireName::from_text(text).unwrap().as_bytes()).unwrap();
            assert_eq!(name.labels_below(&zone, zone.label_count()), wanted, "{text}");
        }
    }

    #[test]
    fn compressed_cut_and_overlong_names_are_not_read() {
        let long: Vec<u8> = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[0]].concat();
        let deep: Vec<u8> = [&b"\x01a".repeat(127)[..], &[0]].concat();
        let deeper: Vec<u8> = [&b"\x01a".repeat(128)[..], &[0]].concat();
        let cases: [(&[u8], bool); 7] = [
            (b"\x01a\0", true),
            (b"\xc0\x0c", false),
            (b"\x01a\xc0\x0c", false),
            (b"\x05ab", false),
            (&long, false),
            (&deep, true),
            (&deeper, false),
        ];
        for (bytes, good) in cases {
            assert_eq!(LowerName::new().read(bytes).is_some(), good, "{bytes:?}");
        }
    }
}
