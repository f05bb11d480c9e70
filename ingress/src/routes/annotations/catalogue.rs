//! Every annotation of ingress-nginx 1.15, and what becomes of it here.

mod answers;
mod endpoints;
mod guards;
mod routing;

use std::sync::LazyLock;

use self::Support::{Differs, Refused, Works};

/// How far an annotation is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Support {
    /// As by ingress-nginx.
    Works,
    /// It is served, and something is different.
    Differs,
    /// It is not.
    Refused,
}

/// One annotation, without `nginx.ingress.kubernetes.io/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Annotation {
    /// Its name.
    pub name: &'static str,
    /// How far it is served.
    pub support: Support,
    /// What is different, or why it is not served; for others what is worth knowing, perhaps.
    pub note: &'static str,
    /// A value of its.
    pub example: &'static str,
    /// The test that shows it, a path below the crate's `tests/it`.
    pub test: &'static str,
}

impl Support {
    /// The word in the documentation.
    pub fn as_str(self) -> &'static str {
        match self {
            Works => "works",
            Differs => "differs",
            Refused => "refused",
        }
    }
}

impl Annotation {
    /// What is said of one that has no effect; `shown`: its value, as far as that is repeated.
    pub(super) fn not_served(&self, name: &str, shown: &str) -> String {
        let how = if self.support == Refused { " is not served" } else { "" };
        format!("annotation {name}{shown}{how}: {}", self.note)
    }
}

/// The annotation of this name.
pub(super) fn find(name: &str) -> Option<&'static Annotation> {
    ANNOTATIONS.iter().find(|annotation| annotation.name == name)
}

const fn row(
    name: &'static str,
    support: Support,
    note: &'static str,
    example: &'static str,
    test: &'static str,
) -> Annotation {
    Annotation { name, support, note, example, test }
}

const NONE: &str = "annotations::documentation::what_is_refused_says_why";

/// All of them, by name.
pub static ANNOTATIONS: LazyLock<Vec<Annotation>> = LazyLock::new(|| {
    let subjects = [guards::ROWS, routing::ROWS, endpoints::ROWS, answers::ROWS];
    let mut all = subjects.concat();
    all.sort_unstable_by_key(|annotation| annotation.name);
    all
});

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fairlead_state::{Key, model::Ingress};

    use super::{super::parse, *};
    use crate::routes::Severity;

    /// What is said of an Ingress that has nothing but this.
    fn said(annotation: &Annotation) -> Vec<(Severity, String)> {
        let name = format!("nginx.ingress.kubernetes.io/{}", annotation.name);
        let ingress = Ingress {
            key: Key::new("default", "web"),
            created_seconds: 0,
            class_name: None,
            annotations: Arc::new([(name.into(), annotation.example.into())].into()),
            default_backend: None,
            rules: [].into(),
            tls: [].into(),
        };
        let mut said = Vec::new();
        parse(&ingress, &super::super::Annotations::default(), |severity, reason| {
            said.push((severity, reason));
        });
        said
    }

    #[test]
    fn the_parsers_do_what_the_list_says() {
        assert!(ANNOTATIONS.is_sorted_by(|a, b| a.name < b.name), "one is there twice");
        for annotation in &*ANNOTATIONS {
            let said = said(annotation);
            let is_unknown = said.iter().any(|(_, reason)| reason.contains("has no effect here"));
            assert!(!is_unknown, "{}: {said:?}", annotation.name);
            let is_about_it = |reason: &str| reason.contains(&format!("/{} ", annotation.name));
            let about_it = said.iter().filter(|(_, reason)| is_about_it(reason)).count();
            match annotation.support {
                Works => assert_eq!(about_it, 0, "{}: {said:?}", annotation.name),
                Differs => {}
                Refused => assert!(about_it > 0, "{}: {said:?}", annotation.name),
            }
            let has_note = !annotation.note.is_empty();
            assert!(has_note || annotation.support == Works, "{}", annotation.name);
        }
    }
}
