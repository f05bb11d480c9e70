//! What all Ingresses refer to together, kept at the cost of what changed.

use std::collections::{BTreeMap, BTreeSet};

use imbl::{OrdMap, ordmap::DiffItem};

use crate::model::{Key, ObjectRef};

/// Objects, and how many refer to each; never 0. Clones share structure.
pub(super) type Referred = OrdMap<ObjectRef, usize>;

/// Who refers to what.
#[derive(Debug)]
pub(super) struct References {
    /// Of Ingresses that refer to anything: mostly to one object.
    of: BTreeMap<Key, Box<[ObjectRef]>>,
    referred: Referred,
}

impl References {
    /// `always` is referred to though no Ingress does.
    pub(super) fn new(always: BTreeSet<ObjectRef>) -> Self {
        let referred = always.into_iter().map(|object| (object, 1_usize)).collect();
        Self { of: BTreeMap::new(), referred }
    }

    /// All of it.
    pub(super) fn all(&self) -> &Referred {
        &self.referred
    }

    /// The Ingress refers to these, and to nothing else.
    pub(super) fn set(&mut self, ingress: &Key, objects: BTreeSet<ObjectRef>) {
        let known = self.of.get(ingress).map_or(&[][..], |known| &**known);
        if known.iter().eq(&objects) {
            return;
        }
        for object in &objects {
            let users = self.referred.get(object).copied().unwrap_or_default();
            self.referred.insert(object.clone(), users + 1);
        }
        let old = match objects.is_empty() {
            true => self.of.remove(ingress),
            false => self.of.insert(ingress.clone(), objects.into_iter().collect()),
        };
        for object in old.unwrap_or_default() {
            self.leave(&object);
        }
    }

    /// The Ingress is gone.
    pub(super) fn remove(&mut self, ingress: &Key) {
        self.set(ingress, BTreeSet::new());
    }

    /// Ingresses that are not kept are gone.
    pub(super) fn retain(&mut self, is_kept: impl Fn(&Key) -> bool) {
        let gone: Vec<Key> = self.of.keys().filter(|ingress| !is_kept(ingress)).cloned().collect();
        gone.iter().for_each(|ingress| self.remove(ingress));
    }

    fn leave(&mut self, object: &ObjectRef) {
        match self.referred.get(object).copied() {
            Some(users) if users > 1 => _ = self.referred.insert(object.clone(), users - 1),
            _ => _ = self.referred.remove(object),
        }
    }
}

/// What only one of the two has. Of maps that share structure only what differs is looked at.
pub(super) fn differing<'a>(
    before: &'a Referred,
    after: &'a Referred,
) -> impl Iterator<Item = &'a ObjectRef> {
    before.diff(after).filter_map(|item| match item {
        DiffItem::Add(object, _) | DiffItem::Remove(object, _) => Some(object),
        DiffItem::Update { .. } => None,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::Kind;

    fn secret(name: u8) -> ObjectRef {
        ObjectRef { kind: Kind::Secret, key: Key::new("shop", format!("s{name}")) }
    }

    fn ingress(name: u8) -> Key {
        Key::new("shop", format!("i{name}"))
    }

    fn secrets(names: &[u8]) -> BTreeSet<ObjectRef> {
        names.iter().copied().map(secret).collect()
    }

    fn names(of: &Referred) -> Vec<String> {
        of.keys().map(|object| object.key.name.to_string()).collect()
    }

    #[test]
    fn an_object_is_referred_to_until_nobody_does_and_some_always_are() {
        let mut references = References::new(secrets(&[0]));
        for (what, ingress_name, refers_to, all) in [
            ("the first", 1, &[1][..], &["s0", "s1"][..]),
            ("another one, to the same and more", 2, &[1, 2], &["s0", "s1", "s2"]),
            ("the first, to another", 1, &[3], &["s0", "s1", "s2", "s3"]),
            ("to what is always referred to", 1, &[0], &["s0", "s1", "s2"]),
            ("and no longer", 1, &[], &["s0", "s1", "s2"]),
            ("the last", 2, &[2], &["s0", "s2"]),
            ("nobody", 2, &[], &["s0"]),
        ] {
            references.set(&ingress(ingress_name), secrets(refers_to));
            assert_eq!(names(references.all()), all, "{what}");
        }
        assert!(references.of.is_empty());
    }

    #[test]
    fn an_ingress_that_refers_to_the_same_touches_nothing_of_ten_thousand_others() {
        let mut references = References::new(BTreeSet::new());
        let object = |i: u32| ObjectRef { kind: Kind::Secret, key: Key::new("n", format!("s{i}")) };
        let ingress = |i: u32| Key::new("n", format!("i{i}"));
        (0..10_000).for_each(|i| references.set(&ingress(i), BTreeSet::from([object(i)])));
        let before = references.all().clone();
        references.set(&ingress(7), BTreeSet::from([object(7)]));
        assert!(before.ptr_eq(references.all()));
        references.set(&ingress(7), BTreeSet::from([object(8)]));
        assert_eq!(differing(&before, references.all()).collect::<Vec<_>>(), [&object(7)]);
        assert_eq!(references.all().get(&object(8)), Some(&2));
    }

    /// Who, and to what from now on.
    fn step() -> impl Strategy<Value = (u8, BTreeSet<u8>)> {
        (0u8..5, prop::collection::btree_set(0u8..6, 0..4))
    }

    proptest! {
        #[test]
        fn small_steps_lead_where_all_at_once_does(
            steps in prop::collection::vec(step(), 1..40),
            seen in 0usize..40,
            kept in 0u8..6,
        ) {
            let always = secrets(&[5]);
            let mut references = References::new(always.clone());
            let mut model: BTreeMap<Key, BTreeSet<ObjectRef>> = BTreeMap::new();
            let mut before = references.all().clone();
            for (n, (name, objects)) in steps.iter().enumerate() {
                let objects: BTreeSet<ObjectRef> = objects.iter().copied().map(secret).collect();
                references.set(&ingress(*name), objects.clone());
                model.insert(ingress(*name), objects);
                if n == seen {
                    before = references.all().clone();
                }
            }
            references.retain(|ingress| *ingress.name < *format!("i{kept}"));
            model.retain(|ingress, _| *ingress.name < *format!("i{kept}"));
            let all: BTreeSet<&ObjectRef> = model.values().flatten().chain(&always).collect();
            prop_assert_eq!(references.all().keys().collect::<BTreeSet<_>>(), all.clone());
            let before_all: BTreeSet<&ObjectRef> = before.keys().collect();
            let told: BTreeSet<&ObjectRef> = differing(&before, references.all()).collect();
            let expected: BTreeSet<&ObjectRef> =
                before_all.symmetric_difference(&all).copied().collect();
            prop_assert_eq!(told, expected);
        }
    }
}
