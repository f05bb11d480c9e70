//! Which certificate a host has where those with rules for it and others name it in TLS sections.

use fairlead_state::{Change, Key, model::Ingress};

use crate::{
    support::{
        World,
        client::get,
        objects::{
            Authority, IngressExt, backend, ingress, ingress_ref, opaque, secret, secret_ref,
        },
        upstream::Upstream,
    },
    tls::{shown, verified},
};

/// A rule for all hosts serves those that nobody has rules for, and of those it may bring certificates.
#[tokio::test]
async fn attack_a_rule_for_every_host_brings_no_certificate_to_hosts_of_others() {
    let upstream = Upstream::echo("web").await;
    let (authority, stranger) = (Authority::new(), Authority::new());
    let names = ["shop.example", "a.wild.example", "free.example"];
    let any = Ingress { created_seconds: -1, ..ingress("any").host("", "web").tls(&names, "junk") };
    let shop = || ingress("shop").host("shop.example", "web").object();
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        stranger.secret("junk", &names),
        authority.secret("wild", &["*.wild.example"]),
        ingress("wild").host("*.wild.example", "web").tls(&["*.wild.example"], "wild").object(),
        authority.secret("alias", &["x.wild.example"]),
        ingress("alias")
            .host("c.example", "web")
            .annotation("nginx.ingress.kubernetes.io/server-alias", "x.wild.example")
            .tls(&["x.wild.example"], "alias")
            .object(),
        any.object(),
        shop(),
    ]);
    let mut world = World::new(objects).await;
    let default = shown(&world, "nobody.example").await;
    let (junk, wild) = (shown(&world, "free.example").await, shown(&world, "b.wild.example").await);
    assert!(junk != default && wild != default);
    assert_eq!(shown(&world, "shop.example").await, default);
    assert_eq!(shown(&world, "a.wild.example").await, wild);
    // An alias is nearer than a wildcard.
    let alias = shown(&world, "x.wild.example").await;
    assert!(![&default, &junk, &wild].contains(&&alias));
    // As rules go and come back.
    world.delete(ingress_ref("shop")).await;
    assert_eq!(shown(&world, "shop.example").await, junk);
    world.apply(vec![shop()]).await;
    assert_eq!(shown(&world, "shop.example").await, default);
    world.delete(ingress_ref("wild")).await;
    assert_eq!(shown(&world, "a.wild.example").await, junk);
    let again = ingress("wild").host("*.wild.example", "web").tls(&["*.wild.example"], "wild");
    assert!(world.store.apply([Change::Upsert(again.object())]));
    world.apply(vec![]).await;
    assert_eq!(shown(&world, "a.wild.example").await, wild);
}

/// Whoever named another's host in a TLS section alone had it redirected to HTTPS, with HSTS, and, being older,
/// with a certificate of its own.
#[tokio::test]
async fn attack_a_tls_section_alone_changes_nothing_of_anothers_host() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let mut objects = backend("web", &[upstream.address]);
    let elder = |mut ingress: Ingress| {
        ingress.created_seconds = -1;
        ingress.object()
    };
    let annotated = |name: &str, annotation: &str, value: &str| {
        let host = format!("{name}.example");
        let name = format!("nginx.ingress.kubernetes.io/{annotation}");
        ingress(annotation).host(&host, "web").annotation(&name, value)
    };
    objects.extend([
        authority.secret("theirs", &["shop.example", "www.red.example"]),
        authority.secret("own", &["tls.example", "mine.example"]),
        ingress("shop").host("shop.example", "web").object(),
        ingress("tls").host("tls.example", "web").tls(&["tls.example"], "own").object(),
        ingress("www").host("www.red.example", "web").object(),
        // Of somebody else, and older: without any rule for them, by a host for all names, by an alias and by
        // what is sent to its own host.
        elder(
            ingress("b").host("b.example", "web").tls(&["shop.example", "tls.example"], "theirs"),
        ),
        elder(ingress("any").host("", "web").tls(&["shop.example", "tls.example"], "theirs")),
        elder(
            annotated("alias", "server-alias", "shop.example, tls.example")
                .tls(&["shop.example", "tls.example"], "theirs"),
        ),
        elder(annotated("red", "from-to-www-redirect", "true").tls(&["www.red.example"], "theirs")),
    ]);
    let world = World::new(objects).await;
    for name in ["shop.example", "www.red.example"] {
        let answer = get(world.http(), name, "/").await;
        assert_eq!(answer.who(), (200, "web"), "{name}: {:?}", answer.headers);
    }
    assert_eq!(get(world.http(), "tls.example", "/").await.status, 308);
    assert_eq!(verified(&world, &authority, "tls.example").await.unwrap(), 200);
    let reasons = world.reasons("b");
    let told = "tls hosts shop.example and 1 more: no rule of this Ingress is for them";
    assert!(matches!(&reasons[..], [one] if one.contains(told)), "{reasons:?}");
}

#[tokio::test]
async fn a_tls_section_is_for_the_hosts_that_its_ingress_serves_in_whatever_way() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let mut objects = backend("web", &[upstream.address]);
    let www = "nginx.ingress.kubernetes.io/from-to-www-redirect";
    let alias = "nginx.ingress.kubernetes.io/server-alias";
    objects.extend([
        authority.secret("wild", &["*.wild.example"]),
        authority.secret("exact", &["exact.wild.example"]),
        authority.secret("red", &["red.example", "www.red.example"]),
        authority.secret("more", &["alias.example", "any.example", "a.many.example"]),
        ingress("wild")
            .host("a.wild.example", "web")
            .host("exact.wild.example", "web")
            .tls(&["*.wild.example"], "wild")
            .tls(&["exact.wild.example"], "exact")
            .object(),
        ingress("red")
            .host("red.example", "web")
            .annotation(www, "true")
            .tls(&["red.example", "www.red.example"], "red")
            .object(),
        ingress("alias")
            .host("b.example", "web")
            .annotation(alias, "alias.example")
            .tls(&["alias.example"], "more")
            .object(),
        ingress("any").host("", "web").tls(&["any.example"], "more").object(),
        ingress("many").host("*.many.example", "web").tls(&["a.many.example"], "more").object(),
    ]);
    let world = World::new(objects).await;
    for (name, status) in [
        ("a.wild.example", 200),
        ("exact.wild.example", 200),
        ("red.example", 200),
        ("www.red.example", 308),
        ("alias.example", 200),
        ("any.example", 200),
        ("a.many.example", 200),
    ] {
        assert_eq!(verified(&world, &authority, name).await.unwrap(), status, "{name}");
    }
    let shown_exact = shown(&world, "exact.wild.example").await;
    assert_ne!(shown_exact, shown(&world, "a.wild.example").await);
}

/// ingress-nginx, extractTLSSecretName: what users who have one certificate for a name and its `www` rely on.
/// All hosts of an Ingress with sections are asked for by HTTPS (createServers: the default certificate is one).
#[tokio::test]
async fn bug_a_host_that_no_section_names_has_the_certificate_that_names_it_or_the_default_one() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let mut objects = backend("web", &[upstream.address]);
    let of = |name: &str, hosts: &[&str]| {
        hosts.iter().fold(ingress(name), |ingress, host| ingress.host(host, "web"))
    };
    objects.extend([
        authority.secret("pair", &["two.example", "www.two.example"]),
        authority.secret("wild", &["*.wide.example"]),
        authority.secret("late", &["late.example"]),
        of("pair", &["two.example", "www.two.example", "ftp.two.example"])
            .tls(&["two.example"], "pair")
            .object(),
        // No rule is for what its section says.
        of("only", &["www.two.example"]).tls(&["two.example"], "pair").object(),
        of("wide", &["a.wide.example", "*.wide.example", "b.a.wide.example"])
            .tls(&["wide.example"], "pair")
            .tls(&["wide.example"], "wild")
            .object(),
        of("late", &["late.example", "later.example"]).tls(&["none.example"], "late").object(),
        // Sections for all hosts, and one of a wildcard, leave each to the certificate that names it.
        of("each", &["a.each.example", "b.each.example", "c.each.example"])
            .tls(&["*.each.example"], "missing")
            .tls(&[], "a")
            .tls(&[], "b")
            .object(),
        authority.secret("a", &["a.each.example"]),
        authority.secret("b", &["b.each.example"]),
        of("none", &["none.two.example"]).object(),
    ]);
    let mut world = World::new(objects).await;
    let default = shown(&world, "nobody.test").await;
    for (name, is_named) in [
        ("two.example", true),
        ("www.two.example", true),
        ("ftp.two.example", false),
        ("a.wide.example", true),
        ("c.wide.example", true),
        ("b.a.wide.example", false),
        ("late.example", true),
        ("later.example", false),
        ("a.each.example", true),
        ("b.each.example", true),
        ("c.each.example", false),
    ] {
        let seen = verified(&world, &authority, name).await.ok();
        assert_eq!(seen, is_named.then_some(200), "{name}");
        assert_eq!(shown(&world, name).await == default, !is_named, "{name}");
        assert_eq!(get(world.http(), name, "/").await.status, 308, "{name}");
    }
    assert_eq!(get(world.http(), "none.two.example", "/").await.status, 200);
    assert_eq!(world.reasons("only"), Vec::<String>::new());
    let missing =
        "waiting: Secret default/missing does not exist; the default certificate is served";
    assert_eq!(world.reasons("each"), [missing]);
    // As certificates change.
    world.apply(vec![authority.secret("late", &["later.example"])]).await;
    assert_eq!(verified(&world, &authority, "later.example").await.unwrap(), 200);
    assert_eq!(shown(&world, "late.example").await, default);
    // One that breaks is served as before, and its hosts are its own.
    world.apply(vec![opaque("late", &[("tls.crt", "broken"), ("tls.key", "broken")])]).await;
    assert_eq!(verified(&world, &authority, "later.example").await.unwrap(), 200);
    world.delete(secret_ref("late")).await;
    assert_eq!(shown(&world, "later.example").await, default);
    for name in ["late.example", "later.example"] {
        assert_eq!(get(world.http(), name, "/").await.status, 308, "{name}");
    }
}

/// With ingress-nginx the default certificate of the oldest Ingress with any section takes the place of the one
/// that a younger one brings.
#[tokio::test]
async fn who_names_a_host_comes_before_who_has_sections_for_others() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let canary = "nginx.ingress.kubernetes.io/canary";
    let other = |name: &str, host: &str| {
        let ingress = ingress(name).host(host, "web").host("other.example", "web");
        Ingress { created_seconds: -1, ..ingress.tls(&["other.example"], "other") }
    };
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        authority.secret("other", &["other.example"]),
        authority.secret("own", &["a.example"]),
        other("elder", "a.example").object(),
        ingress("own").host("a.example", "web").tls(&["a.example"], "own").object(),
        // A canary's sections are for nobody's hosts but those they name.
        other("trial", "b.example").annotation(canary, "true").object(),
        ingress("plain").host("b.example", "web").object(),
    ]);
    let mut world = World::new(objects).await;
    assert_eq!(verified(&world, &authority, "a.example").await.unwrap(), 200);
    assert_eq!(get(world.http(), "b.example", "/").await.status, 200);
    world.delete(ingress_ref("own")).await;
    assert_eq!(shown(&world, "a.example").await, shown(&world, "nobody.test").await);
    assert_eq!(get(world.http(), "a.example", "/").await.status, 308);
}

/// ingress-nginx, createServers: a host whose section names no Secret, or one that cannot be used, has the
/// default certificate. One without a section has whatever is for its name.
#[tokio::test]
async fn bug_a_host_that_is_to_show_the_default_certificate_shows_nobody_elses() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let wild = ingress("wild").host("*.foo.example", "web").tls(&["*.foo.example"], "wild");
    let site = |name: &str, secret: Option<&str>| {
        let host = format!("{name}.foo.example");
        let ingress = ingress(name).host(&host, "web");
        match secret {
            Some(secret) => ingress.tls(&[&host], secret).object(),
            None => ingress.object(),
        }
    };
    let mut objects = backend("web", &[upstream.address]);
    objects.extend([
        authority.secret("wild", &["*.foo.example"]),
        wild.object(),
        opaque("broken", &[("tls.crt", "broken"), ("tls.key", "broken")]),
        site("none", Some("")),
        site("missing", Some("missing")),
        site("broken", Some("broken")),
        site("plain", None),
    ]);
    let mut world = World::new(objects).await;
    let default = shown(&world, "nobody.example").await;
    let general = shown(&world, "nobody.foo.example").await;
    assert_ne!(general, default);
    let is_default = async |world: &World, name: &str| {
        let shown = shown(world, &format!("{name}.foo.example")).await;
        assert!(shown == default || shown == general, "{name}");
        let said = world.running.explainer().certificate(&format!("{name}.foo.example"));
        let (secret, host) = match shown == default {
            true => (None, format!("{name}.foo.example")),
            false => (Some(Key::new("default", "wild")), "*.foo.example".to_owned()),
        };
        assert_eq!((said.secret, said.claimed_by), (secret, Some(host)), "{name}");
        shown == default
    };
    for (name, expected) in [("none", true), ("missing", true), ("broken", true), ("plain", false)]
    {
        assert_eq!(is_default(&world, name).await, expected, "{name}");
    }
    // As sections and Secrets come and go.
    world.apply(vec![site("none", None), site("plain", Some(""))]).await;
    assert!(!is_default(&world, "none").await);
    assert!(is_default(&world, "plain").await);
    world.apply(vec![authority.secret("missing", &["missing.foo.example"])]).await;
    assert_eq!(verified(&world, &authority, "missing.foo.example").await.unwrap(), 200);
    world.delete(secret_ref("missing")).await;
    assert!(is_default(&world, "missing").await);
    assert_eq!(world.running.status().certificates, 1);
    world.delete(ingress_ref("missing")).await;
    assert!(!is_default(&world, "missing").await);
}

/// ingress-nginx, createServers: VerifyHostname, and of a certificate without DNS names its common name.
#[tokio::test]
async fn bug_a_certificate_is_shown_for_the_hosts_that_it_is_for() {
    let upstream = Upstream::echo("web").await;
    let authority = Authority::new();
    let site = |name: &str, host: &str, secret: &str| {
        ingress(name).host(host, "web").tls(&[host], secret).object()
    };
    let mut objects = backend("web", &[upstream.address]);
    let mut common = rcgen::CertificateParams::default();
    common.distinguished_name.push(rcgen::DnType::CommonName, "*.common.example");
    let (certificate, key) = authority.sign(&common);
    objects.extend([
        authority.secret("a", &["a.example", "*.wild.example"]),
        secret(Key::new("default", "common"), &certificate, &key),
        site("own", "a.example", "a"),
        site("other", "b.example", "a"),
        site("below", "x.wild.example", "a"),
        site("far", "x.y.wild.example", "a"),
        site("wild", "*.wild.example", "a"),
        site("broad", "*.example", "a"),
        site("common", "x.common.example", "common"),
        ingress("many").host("c.example", "web").host("d.example", "web").tls(&[], "a").object(),
    ]);
    let mut world = World::new(objects).await;
    let default = shown(&world, "nobody.test").await;
    for (name, is_shown) in [
        ("a.example", true),
        ("b.example", false),
        ("x.wild.example", true),
        ("x.y.wild.example", false),
        ("any.wild.example", true),
        ("any.example", false),
        ("x.common.example", true),
        ("c.example", false),
    ] {
        assert_eq!(shown(&world, name).await != default, is_shown, "{name}");
    }
    let told = |hosts: &str| {
        [format!(
            "waiting: Secret default/a is for a.example, *.wild.example, not for {hosts}; the default \
             certificate is served"
        )]
    };
    for (name, hosts) in [
        ("other", "b.example"),
        ("far", "x.y.wild.example"),
        ("broad", "*.example"),
        ("many", "c.example and 1 more"),
    ] {
        assert_eq!(world.reasons(name), told(hosts), "{name}");
    }
    for name in ["own", "below", "wild", "common"] {
        assert_eq!(world.reasons(name), Vec::<String>::new(), "{name}");
    }
    let choice = world.running.explainer().certificate("b.example");
    assert_eq!((choice.secret, choice.claimed_by.as_deref()), (None, Some("b.example")));
    assert!(told("b.example")[0].ends_with(&choice.problem.unwrap()));
    // It is asked for by HTTPS all the same, and ends by name are those of what is shown.
    assert_eq!(get(world.http(), "b.example", "/").await.status, 308);
    assert!(world.running.expiry_meter()().iter().all(|end| end.host != "b.example"));
    // As certificates change.
    world.apply(vec![authority.secret("a", &["b.example"])]).await;
    assert_eq!(verified(&world, &authority, "b.example").await.unwrap(), 200);
    assert_eq!(shown(&world, "a.example").await, default);
    assert_eq!(world.reasons("other"), Vec::<String>::new());
    assert_eq!(world.reasons("own").len(), 1);
}

/// A certificate says nothing of who has rules for a host.
#[tokio::test]
async fn attack_a_certificate_that_names_anothers_host_claims_nothing_of_it() {
    let upstream = Upstream::echo("web").await;
    let stranger = Authority::new();
    let mut objects = backend("web", &[upstream.address]);
    let elder = |mut ingress: Ingress| {
        ingress.created_seconds = -1;
        ingress.object()
    };
    objects.extend([
        stranger.secret("theirs", &["shop.example", "other.example", "*.example"]),
        ingress("shop").host("shop.example", "web").object(),
        elder(ingress("any").host("", "web").tls(&["other.example"], "theirs")),
        elder(
            ingress("alias")
                .host("other.example", "web")
                .annotation("nginx.ingress.kubernetes.io/server-alias", "shop.example")
                .tls(&["other.example"], "theirs"),
        ),
    ]);
    let world = World::new(objects).await;
    assert_eq!(shown(&world, "shop.example").await, shown(&world, "nobody.test").await);
    assert_eq!(get(world.http(), "shop.example", "/").await.who(), (200, "web"));
}
