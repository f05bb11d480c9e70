//! In what two replies differ, part by part: a rule explains parts, not replies.

use std::collections::BTreeSet;

use super::plain::{Line, Plain};

/// A section of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Section {
    Answers,
    Authorities,
    Additionals,
}

/// What of a section differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    /// Records of CoreDNS alone.
    Missing,
    /// Records of Fairlead alone.
    More,
    /// Of records that both have: times to live.
    Ttl,
    /// Weights of servers.
    Weight,
    /// The letter case of targets, and of any other text.
    DataCase,
    /// The letter case of the name that was asked for.
    AskedCase,
    /// The letter case of other owners.
    OwnerCase,
}

/// A part of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    Code,
    Authoritative,
    /// AD, CD or RD.
    Flags,
    /// Whether there is an OPT record, and its version.
    Edns,
    DnssecOk,
    Options,
    Question,
    QuestionCase,
    In(Section, Kind),
}

/// How a section differs.
#[derive(Debug, Default)]
pub(super) struct Compared {
    pub(super) missing: Vec<Line>,
    pub(super) more: Vec<Line>,
    /// Records of both that are not quite the same, CoreDNS's first.
    pub(super) pairs: Vec<(Line, Line)>,
}

/// How two replies differ.
#[derive(Debug)]
pub(super) struct Differences {
    head: BTreeSet<Part>,
    pub(super) answers: Compared,
    pub(super) authorities: Compared,
    pub(super) additionals: Compared,
}

impl Compared {
    fn of(theirs: &[Line], ours: &[Line]) -> Self {
        let mut compared = Self { more: ours.to_vec(), ..Self::default() };
        let mut others = vec![];
        for line in theirs {
            match compared.more.iter().position(|own| own == line) {
                Some(place) => drop(compared.more.remove(place)),
                None => others.push(line.clone()),
            }
        }
        for line in others {
            match compared.more.iter().position(|own| own.key() == line.key()) {
                Some(place) => compared.pairs.push((line, compared.more.remove(place))),
                None => compared.missing.push(line),
            }
        }
        compared
    }

    fn kinds(&self, asked: &str) -> BTreeSet<Kind> {
        let mut kinds = BTreeSet::new();
        kinds.extend((!self.missing.is_empty()).then_some(Kind::Missing));
        kinds.extend((!self.more.is_empty()).then_some(Kind::More));
        for (theirs, ours) in &self.pairs {
            let is_asked = ours.owner.eq_ignore_ascii_case(asked);
            let case = if is_asked { Kind::AskedCase } else { Kind::OwnerCase };
            let same_but_case = theirs.data.eq_ignore_ascii_case(&ours.data);
            let differs_in_case = theirs.data_without_weight() != ours.data_without_weight();
            kinds.extend((theirs.owner != ours.owner).then_some(case));
            kinds.extend((theirs.ttl != ours.ttl).then_some(Kind::Ttl));
            kinds.extend((!same_but_case).then_some(Kind::Weight));
            kinds.extend(differs_in_case.then_some(Kind::DataCase));
        }
        kinds
    }
}

impl Differences {
    pub(super) fn between(theirs: &Plain, ours: &Plain) -> Self {
        let lower = |plain: &Plain| {
            let all = plain.question.iter().map(|text| text.to_ascii_lowercase());
            all.collect::<Vec<_>>()
        };
        let version = |plain: &Plain| plain.edns.as_ref().map(|edns| edns.version);
        let same_question = lower(theirs) == lower(ours);
        let mut head: BTreeSet<_> = [
            (Part::Code, theirs.code != ours.code),
            (Part::Authoritative, theirs.authoritative != ours.authoritative),
            (Part::Flags, theirs.flags != ours.flags),
            (Part::Edns, version(theirs) != version(ours)),
            (Part::Question, !same_question),
            (Part::QuestionCase, same_question && theirs.question != ours.question),
        ]
        .into_iter()
        .filter_map(|(part, differs)| differs.then_some(part))
        .collect();
        let says = |plain: &Plain| plain.edns.as_ref().is_some_and(|edns| edns.dnssec_ok);
        let options = |plain: &Plain| plain.edns.clone().map_or(vec![], |edns| edns.options);
        head.extend((says(theirs) != says(ours)).then_some(Part::DnssecOk));
        head.extend((options(theirs) != options(ours)).then_some(Part::Options));
        Self {
            head,
            answers: Compared::of(&theirs.answers, &ours.answers),
            authorities: Compared::of(&theirs.authorities, &ours.authorities),
            additionals: Compared::of(&theirs.additionals, &ours.additionals),
        }
    }

    /// All parts that differ in replies to a question for this name.
    pub(super) fn parts(&self, asked: &str) -> BTreeSet<Part> {
        let mut parts = self.head.clone();
        for (section, compared) in [
            (Section::Answers, &self.answers),
            (Section::Authorities, &self.authorities),
            (Section::Additionals, &self.additionals),
        ] {
            parts.extend(compared.kinds(asked).into_iter().map(|kind| Part::In(section, kind)));
        }
        parts
    }

    /// Records of both that are not quite the same, of all sections.
    pub(super) fn pairs(&self) -> impl Iterator<Item = &(Line, Line)> {
        let Self { answers, authorities, additionals, .. } = self;
        answers.pairs.iter().chain(&authorities.pairs).chain(&additionals.pairs)
    }
}
