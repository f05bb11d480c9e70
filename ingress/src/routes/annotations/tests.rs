//! What holds for all annotations alike.

use std::collections::BTreeMap;

use fairlead_state::Name;
use http::{HeaderName, HeaderValue};

use super::*;

/// What an Ingress with these says, and what is found about it.
fn read(defaults: &Annotations, annotations: &[(&str, &str)]) -> (Annotations, Vec<String>) {
    let named = |(name, value): &(&str, &str)| (format!("{PREFIX}{name}").into(), (*value).into());
    let annotations: BTreeMap<Name, Name> = annotations.iter().map(named).collect();
    let ingress = Ingress {
        key: Key::new("default", "web"),
        created_seconds: 0,
        class_name: None,
        annotations: Arc::new(annotations),
        default_backend: None,
        rules: [].into(),
        tls: [].into(),
    };
    let mut found = Vec::new();
    let all = parse(&ingress, defaults, |_, reason| found.push(reason));
    (all, found)
}

#[test]
fn bug_an_empty_value_is_as_if_the_annotation_were_not_there() {
    for annotation in &*ANNOTATIONS {
        let (all, found) = read(&Annotations::default(), &[(annotation.name, "")]);
        // ingress-nginx denies these, too.
        let is_closed = annotation.name.ends_with(SOURCE_RANGE);
        assert_eq!(all.denied.is_some(), is_closed, "{}", annotation.name);
        assert_eq!(found.is_empty(), !is_closed, "{}: {found:?}", annotation.name);
        assert!(all.in_force.is_empty(), "{}", annotation.name);
    }
}

/// `basic ` was 503, `HTTPS ` plain HTTP to a port of TLS, and ` v1` no request's.
#[test]
fn bug_blanks_around_a_value_are_no_part_of_it() {
    for annotation in &*ANNOTATIONS {
        let defaults = Annotations::default();
        let (all, found) = read(&defaults, &[(annotation.name, annotation.example)]);
        for value in [" VALUE", "VALUE ", "VALUE\n", "\t VALUE \n"] {
            let value = value.replace("VALUE", annotation.example);
            let (blank, told) = read(&defaults, &[(annotation.name, &value)]);
            assert_eq!(blank.in_force, all.in_force, "{} {value:?}", annotation.name);
            assert_eq!((blank.denied, told), (all.denied.clone(), found.clone()), "{value:?}");
        }
        let (nothing, told) = read(&defaults, &[(annotation.name, " \n ")]);
        let is_closed = annotation.name.ends_with(SOURCE_RANGE);
        assert!(nothing.in_force.is_empty(), "{}", annotation.name);
        assert_eq!(nothing.denied.is_some(), is_closed, "{}: {told:?}", annotation.name);
    }
    let canary = [("canary-by-header", "X-Try"), ("canary-by-header-value", " v1 ")];
    let (all, _) = read(&Annotations::default(), &canary);
    let headers = [(HeaderName::from_static("x-try"), HeaderValue::from_static("v1"))];
    assert!(all.canary.takes(&headers.into_iter().collect(), |all| all));
}

/// One client's "let in" was everybody's.
#[test]
fn attack_answers_are_not_remembered_under_an_empty_key() {
    let url = ("auth-url", "http://auth.shop.svc/");
    for (key, is_remembered) in [("", false), ("$cookie_sid", true)] {
        let (all, _) = read(&Annotations::default(), &[url, ("auth-cache-key", key)]);
        let asking = all.external.asking(Fields::default()).unwrap().unwrap();
        assert_eq!(asking.cache_key.is_some(), is_remembered, "{key:?}");
    }
}

/// ingress-nginx: shouldApplyGlobalAuth asks whether the location's URL is empty.
#[test]
fn attack_an_empty_url_does_not_turn_everybodys_authority_off() {
    let mut defaults = Annotations::default();
    assert_eq!(defaults.set_default("auth-url", "http://auth.shop.svc/"), Some(Ok(())));
    for (annotations, is_asked) in
        [(&[][..], true), (&[("auth-url", "")], true), (&[("enable-global-auth", "false")], false)]
    {
        let (all, _) = read(&defaults, annotations);
        let asking = all.external.asking(Fields::default()).unwrap();
        assert_eq!(asking.is_some(), is_asked, "{annotations:?}");
    }
}

/// Endpoints were asked without the certificate that proxy-ssl-secret was to give.
#[test]
fn bug_a_secret_that_is_never_read_closes_the_paths() {
    for name in ["auth-secret", "auth-tls-secret", "proxy-ssl-secret"] {
        for (value, is_read) in [("default/a", true), ("a", true), ("other/a", false), ("A", false)]
        {
            let (all, found) = read(&Annotations::default(), &[(name, value)]);
            assert_eq!(all.denied.is_none(), is_read, "{name} {value}: {found:?}");
        }
    }
}

/// It guards nothing: certificates are asked for whatever it is.
#[test]
fn bug_an_error_page_that_is_no_url_closes_no_path() {
    for (page, is_told) in [("https://a.example/", false), ("/denied", true), ("@denied", true)] {
        let (all, found) = read(&Annotations::default(), &[("auth-tls-error-page", page)]);
        assert!(all.denied.is_none(), "{page}");
        assert_eq!(found.len(), usize::from(is_told), "{page}: {found:?}");
    }
}
