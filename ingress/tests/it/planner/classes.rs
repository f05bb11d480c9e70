//! Whose an Ingress is.

use super::*;

#[test]
fn a_default_class_of_ours_takes_ingresses_without_class_unless_another_claims_them() {
    let default = |name: &str, controller: &str| match class(name, controller) {
        Object::IngressClass(class) => Object::IngressClass(
            fairlead_state::model::IngressClass { is_default: true, ..(*class).clone() }.into(),
        ),
        other => other,
    };
    let mut classless = ingress("web").host("a.example", "web");
    classless.class_name = None;
    let classless = classless.object();
    let ours = default("fairlead", "fairlead.io/ingress");
    let theirs = default("other", "example.com/other");
    for (classes, served) in [
        (vec![class("fairlead", "fairlead.io/ingress")], 0),
        (vec![ours.clone()], 1),
        (vec![theirs.clone()], 0),
        (vec![ours, theirs], 0),
    ] {
        let mut objects = classes.clone();
        objects.extend([service("web"), classless.clone()]);
        assert_eq!(planned(&objects).routes().route_count(), served, "{classes:?}");
    }
    let config = IngressConfig { watch_ingress_without_class: true, ..IngressConfig::default() };
    let (_store, snapshots) = store(&[service("web"), classless]);
    let mut planner = Planner::new(&config, Fallback::generate().unwrap());
    planner.apply(snapshots.borrow().as_ref().unwrap());
    assert_eq!(planner.routes().route_count(), 1);
}

/// KEP-1453 has the annotation decide; ingress-nginx, of whose Ingresses some have both, ingressClassName.
#[test]
fn bug_an_ingress_that_its_annotation_takes_away_was_left_without_a_word() {
    const THE_ANNOTATION_DECIDES: &str = "both the annotation kubernetes.io/ingress.class and \
        spec.ingressClassName are set; the annotation decides, and makes it";
    let classes = [class("fairlead", "fairlead.io/ingress"), class("other", "example.com/other")];
    for (annotation, class_name, served, told) in [
        ("fairlead", None, 1, None),
        ("old", None, 0, None),
        ("old", Some("fairlead"), 0, Some("refused: another controller's")),
        ("old", Some("other"), 0, None),
        ("old", Some("missing"), 0, None),
        ("fairlead", Some("other"), 1, Some("differs: this controller's")),
        ("fairlead", Some("fairlead"), 1, Some("differs: this controller's")),
    ] {
        let mut web = ingress("web").host("a.example", "web");
        web.class_name = class_name.map(Into::into);
        let web = web.annotation("kubernetes.io/ingress.class", annotation).object();
        let mut objects = classes.to_vec();
        objects.push(service("web"));
        let (mut store, snapshots) = store(&objects);
        let mut planner = Planner::new(&IngressConfig::default(), Fallback::generate().unwrap());
        planner.apply(snapshots.borrow().as_ref().unwrap());
        let before = planner.told();
        store.apply([Change::Upsert(web)]);
        planner.apply(snapshots.borrow().as_ref().unwrap());
        assert_eq!(planner.routes().route_count(), served, "{annotation} {class_name:?}");
        let findings = planner.findings();
        let found = findings.iter().find(|finding| finding.reason.contains(THE_ANNOTATION_DECIDES));
        let expected = told.and_then(|told| told.split_once(": "));
        let severity = found.map(|found| found.severity.as_str());
        assert_eq!(severity, expected.map(|told| told.0), "{annotation} {class_name:?}");
        assert!(
            expected.is_none_or(|told| found.is_some_and(|found| found.reason.contains(told.1)))
        );
        assert!(found.is_none() || planner.told() > before, "an Event is written");
        store.apply([Change::Delete(ingress_ref("web"))]);
        planner.apply(snapshots.borrow().as_ref().unwrap());
        assert_eq!(planner.findings(), [], "{annotation} {class_name:?}");
    }
}

#[test]
fn parameters_of_our_classes_are_said_to_have_no_effect() {
    let with = |name: &str, controller: &str| match class(name, controller) {
        Object::IngressClass(class) => Object::IngressClass(
            fairlead_state::model::IngressClass { has_parameters: true, ..(*class).clone() }.into(),
        ),
        other => other,
    };
    let objects = [with("ours", "fairlead.io/ingress"), with("theirs", "example.com/other")];
    let findings = planned(&objects).findings();
    let told: Vec<String> = findings.iter().map(ToString::to_string).collect();
    let reason = "spec.parameters is not read: settings for all Ingresses are those of \
                  --ingress-config";
    assert_eq!(told, [format!("IngressClass ours differs: {reason}")]);
}
