//! Label selectors, as `labels` and `namespace_labels` of `kubernetes` have them
//! (k8s.io/apimachinery, `labels.Parse` without `<` and `>`).

use fairlead_state::Name;

use super::{CorefileError, blocks::Directive};

/// All must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    wanted: Wanted,
}

/// What is wanted of a label.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Present,
    Absent,
    In(Vec<String>),
    /// Another one, or none.
    NotIn(Vec<String>),
}

impl Selector {
    /// Whether an object with these labels, by key, is chosen.
    pub(crate) fn holds(&self, labels: &[(Name, Name)]) -> bool {
        self.0.iter().all(|Requirement { key, wanted }| {
            let known = labels.iter().find(|(known, _)| known.as_str() == key);
            let is_one_of = |values: &[String]| {
                known.is_some_and(|(_, value)| values.iter().any(|one| one == value.as_str()))
            };
            match wanted {
                Wanted::Present => known.is_some(),
                Wanted::Absent => known.is_none(),
                Wanted::In(values) => is_one_of(values),
                Wanted::NotIn(values) => !is_one_of(values),
            }
        })
    }
}

/// The words behind the option's name, joined.
pub(super) fn read(line: &Directive) -> Result<Selector, CorefileError> {
    let words: Vec<_> = line.expect(1, usize::MAX)?.iter().map(|word| word.text.as_str()).collect();
    let text = words.join(" ");
    parse(&text).ok_or_else(|| {
        let option = &line.name.text;
        line.name.error(format!(
            "{option}: {text:?} is no label selector: write KEY, !KEY, KEY=VALUE, KEY!=VALUE, \
             KEY in (VALUE,...) or KEY notin (VALUE,...), with commas between"
        ))
    })
}

fn parse(text: &str) -> Option<Selector> {
    let mut requirements = vec![];
    let mut depth = 0_u32;
    // Commas between braces part values.
    let parts = text.split(|c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    });
    for part in parts {
        requirements.push(requirement(part.trim())?);
    }
    Some(Selector(requirements))
}

fn requirement(text: &str) -> Option<Requirement> {
    if let Some(name) = text.strip_prefix('!') {
        return Some(Requirement { key: key(name)?, wanted: Wanted::Absent });
    }
    if let Some((head, values)) = text.split_once('(') {
        let (name, word) = head.trim().split_once(char::is_whitespace)?;
        let values = values.strip_suffix(')')?.split(',').map(value).collect::<Option<_>>()?;
        let wanted = match word.trim() {
            "in" => Wanted::In(values),
            "notin" => Wanted::NotIn(values),
            _ => return None,
        };
        return Some(Requirement { key: key(name)?, wanted });
    }
    if let Some((name, other)) = text.split_once("!=") {
        return Some(Requirement { key: key(name)?, wanted: Wanted::NotIn(vec![value(other)?]) });
    }
    if let Some((name, one)) = text.split_once("==").or_else(|| text.split_once('=')) {
        return Some(Requirement { key: key(name)?, wanted: Wanted::In(vec![value(one)?]) });
    }
    Some(Requirement { key: key(text)?, wanted: Wanted::Present })
}

fn key(text: &str) -> Option<String> {
    let text = text.trim();
    let is_key = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    (!text.is_empty() && text.chars().all(is_key)).then(|| text.to_owned())
}

fn value(text: &str) -> Option<String> {
    let text = text.trim();
    let is_value = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    text.chars().all(is_value).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_choose_as_the_api_server_does() {
        let labels = [("app", "nginx"), ("example.com/tier", "front"), ("empty", "")];
        let labels = labels.map(|(key, value)| (Name::from(key), Name::from(value)));
        for (text, chosen) in [
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=nginx", true),
            ("app == nginx", true),
            ("app=apache", false),
            ("app!=apache", true),
            ("app != nginx", false),
            ("other!=x", true),
            ("empty=", true),
            ("app in (apache, nginx)", true),
            ("app in (apache)", false),
            ("app notin (apache)", true),
            ("other notin (x)", true),
            ("other in (x)", false),
            ("example.com/tier in (front,back),app=nginx", true),
            ("example.com/tier in (front,back),app=apache", false),
        ] {
            let selector = parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(selector.holds(&labels), chosen, "{text}");
        }
    }

    #[test]
    fn what_is_no_selector_is_refused() {
        for text in [
            "", ",", "app,", "=x", "a b", "a in", "a in (b", "a in b)", "a of (b)", "a>1", "a=b=c",
            "a=(b)", "!a=b", "!",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
