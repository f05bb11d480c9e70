//! Which Ingresses are ours.

use std::sync::Arc;

use fairlead_state::{
    Key, Kind, Name, ObjectRef, SaidClass, Snapshot,
    model::{Ingress, IngressClass},
};

use super::finding::{Finding, Severity};
use crate::config::IngressConfig;

/// The annotation that came before `spec.ingressClassName`.
const LEGACY_ANNOTATION: &str = "kubernetes.io/ingress.class";

/// What makes an Ingress ours.
#[derive(Clone, Debug)]
pub(super) struct ClassRules {
    controller: String,
    class: String,
    without_class: bool,
}

/// Whether an Ingress is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Another controller's, or nobody's.
    NotOurs,
    /// Ours.
    Ours,
    /// Ours by the annotation, although `spec.ingressClassName` is set too.
    OursByAnnotation,
    /// Another controller's by the annotation, and ours by `spec.ingressClassName`.
    TheirsByAnnotation,
}

impl Ownership {
    pub(super) fn is_ours(self) -> bool {
        matches!(self, Ownership::Ours | Ownership::OursByAnnotation)
    }
}

impl ClassRules {
    pub(super) fn new(config: &IngressConfig) -> Self {
        Self {
            controller: config.controller.clone(),
            class: config.ingress_class.clone(),
            without_class: config.watch_ingress_without_class,
        }
    }

    /// Of an Ingress that was read.
    pub(super) fn ownership(&self, snapshot: &Snapshot, ingress: &Ingress) -> Ownership {
        let annotation = ingress.annotations.get(LEGACY_ANNOTATION);
        self.decide(snapshot, annotation, ingress.class_name.as_ref())
    }

    /// Whether an Ingress that was not taken would be ours.
    pub(super) fn is_said_ours(&self, snapshot: &Snapshot, said: &SaidClass) -> bool {
        self.decide(snapshot, said.annotation.as_ref(), said.name.as_ref()).is_ours()
    }

    /// KEP-1453: the annotation wins where both are set; ingress-nginx's `GetIngressClass` has it the other way round.
    fn decide(
        &self,
        snapshot: &Snapshot,
        annotation: Option<&Name>,
        class_name: Option<&Name>,
    ) -> Ownership {
        let is_named_ours = |name: &Name| {
            let class = snapshot.ingress_classes().get(&Key::new("", name.clone()));
            class.is_some_and(|class| self.is_ours(class))
        };
        if let Some(class) = annotation {
            return match (**class == *self.class, class_name) {
                (true, None) => Ownership::Ours,
                (true, Some(_)) => Ownership::OursByAnnotation,
                (false, Some(name)) if is_named_ours(name) => Ownership::TheirsByAnnotation,
                (false, _) => Ownership::NotOurs,
            };
        }
        let ours = match class_name {
            Some(name) => is_named_ours(name),
            None => self.without_class || self.is_default(snapshot),
        };
        if ours { Ownership::Ours } else { Ownership::NotOurs }
    }

    /// What of the two names of an Ingress's class does not hold. Whoever comes from ingress-nginx expects the other.
    pub(super) fn overruled(&self, snapshot: &Snapshot, ingress: &Ingress) -> Option<Finding> {
        let (severity, whose) = match self.ownership(snapshot, ingress) {
            Ownership::NotOurs | Ownership::Ours => return None,
            Ownership::OursByAnnotation => (Severity::Differs, "this controller's"),
            Ownership::TheirsByAnnotation => (Severity::Refused, "another controller's"),
        };
        let reason = format!(
            "both the annotation {LEGACY_ANNOTATION} and spec.ingressClassName are set; the annotation decides, and \
             makes it {whose}, where ingress-nginx goes by ingressClassName: remove the one that is not meant"
        );
        Some(Finding::ingress(&ingress.key, severity, reason))
    }

    /// What of the role's classes has no effect.
    pub(super) fn findings(&self, snapshot: &Snapshot) -> Vec<Finding> {
        let classes = snapshot.ingress_classes().values();
        let own = classes.filter(|class| self.is_ours(class) && class.has_parameters);
        let finding = |class: &Arc<IngressClass>| {
            let object = ObjectRef { kind: Kind::IngressClass, key: class.key.clone() };
            let reason = "spec.parameters is not read: settings for all Ingresses are those of \
                          --ingress-config";
            Finding::new(object, Severity::Differs, reason)
        };
        own.map(finding).collect()
    }

    /// Why an Ingress is not ours, and the cure.
    pub(super) fn why_not(&self, snapshot: &Snapshot, ingress: &Ingress) -> String {
        let ours = &self.controller;
        if let Some(class) = ingress.annotations.get(LEGACY_ANNOTATION) {
            return format!(
                "its annotation {LEGACY_ANNOTATION} is {class:?}, and {:?} is served here: change \
                 or remove the annotation",
                self.class
            );
        }
        let Some(name) = &ingress.class_name else {
            return format!(
                "it names no class and no IngressClass of {ours} is the default: set \
                 spec.ingressClassName, or start with --watch-ingress-without-class"
            );
        };
        match snapshot.ingress_classes().get(&Key::new("", name.clone())) {
            None => format!(
                "its IngressClass {name} does not exist: create it with spec.controller {ours}, or \
                 name another in spec.ingressClassName"
            ),
            Some(class) => format!(
                "its IngressClass {name} belongs to controller {}, and {ours} is served here: name \
                 one of this controller's classes in spec.ingressClassName",
                class.controller
            ),
        }
    }

    fn is_ours(&self, class: &IngressClass) -> bool {
        *class.controller == *self.controller
    }

    /// The API server writes the default class into new Ingresses; manifests have nobody to do so.
    /// Two default classes are an error there, and here nobody's claim.
    fn is_default(&self, snapshot: &Snapshot) -> bool {
        let mut defaults = snapshot.ingress_classes().values().filter(|class| class.is_default);
        match (defaults.next(), defaults.next()) {
            (Some(class), None) => self.is_ours(class),
            _ => false,
        }
    }
}
