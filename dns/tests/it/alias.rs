//! Aliases lead through policy: what is at their end is answered as a question of that client for
//! that name. What CoreDNS v1.15 answers by the same Corefile is said where it is something else.

use std::collections::BTreeSet;

use fairlead_state::model::Object;
use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RecordType, RecordType::A},
};

use crate::{
    contract::{YES, objects},
    corefile::always,
    world::{World, external, namespace, query, service, tcp, text, udp},
};

const REFUSED: ResponseCode = ResponseCode::Refused;

const COREFILE: &str = r#".:53 {
  acl secret.test secret.svc.cluster.local {
    block
  }
  acl filter.test {
    filter
  }
  acl drop.test {
    drop
  }
  acl v4.test {
    block net 127.0.0.0/8
  }
  rewrite name exact old.example.net www.example.com
  rewrite name exact hidden.example.net host.secret.test
  kubernetes cluster.local {
    ttl 30
  }
  template IN ANY tmpl.test {
    match ^blocked\.
    answer "{{ .Name }} 60 IN CNAME host.secret.test."
    fallthrough
  }
  template IN ANY tmpl.test {
    match ^dropped\.
    answer "{{ .Name }} 60 IN CNAME host.drop.test."
    fallthrough
  }
  template IN ANY tmpl.test {
    match ^old\.
    answer "{{ .Name }} 60 IN CNAME old.example.net."
    fallthrough
  }
  template IN ANY tmpl.test {
    match ^loop\.
    answer "{{ .Name }} 60 IN CNAME loop.tmpl.test."
    fallthrough
  }
  hosts {
    192.0.2.1 host.secret.test host.filter.test host.drop.test host.v4.test www.example.com
    fallthrough
  }
}
other.test:53 {
  acl {
    block
  }
  hosts {
    192.0.2.2 host.other.test
  }
}
viewed.test:53 {
  view six {
    expr client_ip() == '::1'
  }
  hosts {
    192.0.2.6 www.viewed.test
  }
}
viewed.test:53 {
  hosts {
    192.0.2.4 www.viewed.test
  }
}
"#;

fn aliases() -> Vec<Object> {
    let mut all = vec![
        namespace("demo"),
        namespace("secret"),
        service("secret", "vault", &["10.96.0.9"], &[]),
    ];
    for (name, target) in [
        ("blocked", "host.secret.test"),
        ("filtered", "host.filter.test"),
        ("dropped", "host.drop.test"),
        ("other", "host.other.test"),
        ("inside", "vault.secret.svc.cluster.local"),
        ("far", "blocked.tmpl.test"),
        ("old", "old.example.net"),
        ("hidden", "hidden.example.net"),
        ("fine", "www.example.com"),
        ("four", "host.v4.test"),
        ("viewed", "www.viewed.test"),
        ("nobody", "nobody.nowhere"),
    ] {
        all.push(external("demo", name, target));
    }
    all
}

fn seen(reply: &Message) -> (ResponseCode, Vec<String>) {
    (reply.metadata.response_code, text(&reply.answers))
}

#[tokio::test]
async fn an_alias_is_no_way_around_acl_cve_2026_26017() {
    let world = World::by(COREFILE, aliases()).await;
    // CoreDNS: the alias alone as well, but always with NOERROR (`alias-code`).
    let alone: &[(&str, &str, ResponseCode)] = &[
        ("blocked.demo.svc.cluster.local.", "host.secret.test.", REFUSED),
        ("filtered.demo.svc.cluster.local.", "host.filter.test.", YES),
        // CoreDNS: NODATA without the alias.
        ("dropped.demo.svc.cluster.local.", "host.drop.test.", YES),
        // Another block's rule.
        ("other.demo.svc.cluster.local.", "host.other.test.", REFUSED),
        // CoreDNS follows aliases within the cluster's zone past `acl`.
        ("inside.demo.svc.cluster.local.", "vault.secret.svc.cluster.local.", REFUSED),
        ("hidden.demo.svc.cluster.local.", "hidden.example.net.", REFUSED),
        ("nobody.demo.svc.cluster.local.", "nobody.nowhere.", REFUSED),
        ("blocked.tmpl.test.", "host.secret.test.", REFUSED),
        ("dropped.tmpl.test.", "host.drop.test.", YES),
    ];
    for (name, target, code) in alone {
        for rtype in [A, RecordType::AAAA] {
            let asked = query(name, rtype);
            for reply in [udp(world.v4(), &asked).await, tcp(world.v4(), &asked).await] {
                let wanted = (*code, vec![format!("{name} CNAME {target}")]);
                assert_eq!(seen(&reply), wanted, "{rtype} {reply}");
                assert!(reply.authorities.is_empty() && reply.additionals.is_empty(), "{reply}");
                assert!(reply.metadata.authoritative, "{reply}");
            }
        }
        // What leads there is no secret, and asks nothing of where it leads.
        let alias = world.ask(name, RecordType::CNAME).await;
        assert_eq!(seen(&alias), (YES, vec![format!("{name} CNAME {target}")]));
    }
    let far = world.ask("far.demo.svc.cluster.local.", A).await;
    let both = [
        "blocked.tmpl.test. CNAME host.secret.test.",
        "far.demo.svc.cluster.local. CNAME blocked.tmpl.test.",
    ];
    assert_eq!(seen(&far), (REFUSED, both.map(str::to_owned).to_vec()));
    world.end().await;
}

#[tokio::test]
async fn an_alias_is_followed_by_who_asks() {
    let world = World::by(COREFILE, aliases()).await;
    let (v4, v6) = (world.v4(), world.v6());
    let four = "four.demo.svc.cluster.local. CNAME host.v4.test.";
    let viewed = "viewed.demo.svc.cluster.local. CNAME www.viewed.test.";
    let cases: [(_, _, ResponseCode, &[&str]); 4] = [
        ("four.demo.svc.cluster.local.", v4, REFUSED, &[four]),
        ("four.demo.svc.cluster.local.", v6, YES, &[four, "host.v4.test. A 192.0.2.1"]),
        ("viewed.demo.svc.cluster.local.", v4, YES, &[viewed, "www.viewed.test. A 192.0.2.4"]),
        ("viewed.demo.svc.cluster.local.", v6, YES, &[viewed, "www.viewed.test. A 192.0.2.6"]),
    ];
    for (name, server, code, wanted) in cases {
        let wanted = (code, wanted.iter().map(|line| (*line).to_owned()).collect());
        assert_eq!(seen(&udp(server, &query(name, A)).await), wanted, "{name} at {server}");
    }
    world.end().await;
}

#[tokio::test]
async fn rewrite_changes_the_question_for_an_alias_target() {
    let world = World::by(COREFILE, aliases()).await;
    for name in ["old.demo.svc.cluster.local.", "old.tmpl.test."] {
        let wanted =
            [format!("{name} CNAME old.example.net."), "old.example.net. A 192.0.2.1".to_owned()];
        let mut reply = seen(&world.ask(name, A).await);
        reply.1.sort_by_key(|line| line.contains(" A "));
        assert_eq!(reply, (YES, wanted.to_vec()));
    }
    world.end().await;
}

#[tokio::test]
async fn what_the_cache_keeps_for_one_client_is_not_another_s_by_an_alias_cve_2026_26017() {
    let corefile = format!(
        ".:53 {{\n cache\n kubernetes cluster.local\n forward . {}\n \
         acl secret.example {{\n block net 127.0.0.0/8\n }}\n}}\n",
        always(1).await
    );
    let things = vec![namespace("demo"), external("demo", "out", "host.secret.example")];
    let world = World::by(&corefile, things).await;
    let (name, target) = ("out.demo.svc.cluster.local.", "host.secret.example.");
    let alias = format!("{name} CNAME {target}");
    let whole = (YES, vec![format!("{target} A 192.0.2.1"), alias.clone()]);
    for _ in 0..2 {
        assert_eq!(seen(&udp(world.v6(), &query(name, A)).await), whole);
        assert_eq!(seen(&udp(world.v6(), &query(target, A)).await).1.len(), 1);
        assert_eq!(seen(&udp(world.v4(), &query(name, A)).await), (REFUSED, vec![alias.clone()]));
        assert_eq!(seen(&udp(world.v4(), &query(target, A)).await), (REFUSED, vec![]));
    }
    assert_eq!(world.running.counts().forwarded, 1);
    world.end().await;
}

#[tokio::test]
async fn aliases_end_after_ten() {
    let mut things = objects();
    for step in 0..11 {
        let target = format!("a{}.demo.svc.cluster.local", step + 1);
        things.push(external("demo", &format!("a{step}"), &target));
    }
    things.push(service("demo", "a11", &["10.96.0.11"], &[]));
    let world = World::by(COREFILE, things).await;
    let reply = world.ask("a1.demo.svc.cluster.local.", A).await;
    assert_eq!((seen(&reply).0, reply.answers.len()), (YES, 11));
    for name in ["a0.demo.svc.cluster.local.", "loop.demo.svc.cluster.local.", "loop.tmpl.test."] {
        let reply = world.ask(name, A).await;
        assert_eq!(seen(&reply), (ResponseCode::ServFail, vec![]), "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn rules_and_aliases_that_lead_to_each_other_ask_no_more_than_a_limit() {
    // Each alias has each rule ask for it once more: without a limit for all together, thousands.
    let rule = " rewrite continue cname suffix .svc.cluster.local. .svc.cluster.local.\n";
    let corefile = format!(
        ".:53 {{\n{rule}{rule} kubernetes cluster.local\n forward . {}\n}}\n",
        always(1).await
    );
    let mut things = vec![namespace("demo"), external("demo", "a8", "out.test")];
    for step in 0..8 {
        let target = format!("a{}.demo.svc.cluster.local", step + 1);
        things.push(external("demo", &format!("a{step}"), &target));
    }
    let world = World::by(&corefile, things).await;
    world.ask("a0.demo.svc.cluster.local.", A).await;
    let forwarded = world.running.counts().forwarded;
    assert!((1..=64).contains(&forwarded), "{forwarded}");
    world.end().await;
}

#[tokio::test]
async fn addresses_behind_an_alias_begin_with_another_each_time() {
    let corefile = ".:53 {\n loadbalance\n kubernetes cluster.local\n \
                    hosts {\n 192.0.2.1 two.test\n 192.0.2.2 two.test\n fallthrough\n }\n}\n";
    let things = vec![namespace("demo"), external("demo", "two", "two.test")];
    let world = World::by(corefile, things).await;
    let mut first = BTreeSet::new();
    for id in 0..64 {
        let mut asked = query("two.demo.svc.cluster.local.", A);
        asked.metadata.id = id;
        let reply = udp(world.v4(), &asked).await;
        assert_eq!(reply.answers.len(), 3, "{reply}");
        first.insert(reply.answers[1].data.to_string());
    }
    assert_eq!(first.len(), 2, "{first:?}");
    world.end().await;
}
