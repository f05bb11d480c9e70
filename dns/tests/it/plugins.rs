//! `rewrite` and `template`: every line of the tables is what CoreDNS v1.15 answers by the same
//! Corefile.

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{Record, RecordType},
};

use crate::{
    contract::objects,
    forward::{knows, upstream},
    world::{World, query, tcp, udp},
};

const COREFILE: &str = r#".:53 {
  rewrite name exact a.test b.test
  rewrite name prefix pre- post-
  rewrite name substring mid dim
  rewrite name suffix .suf.test .hosts.test answer auto
  rewrite continue name suffix .c1.test .c2.test answer auto
  rewrite name suffix .c2.test .hosts.test answer auto
  rewrite name suffix .nosuf.test .hosts.test
  rewrite {
    name regex (.*)-(x)\.re\.test {1}.hosts.test
    answer name (.*)\.hosts\.test {1}-x.re.test
  }
  rewrite name exact cn.test cname.tmpl.test
  rewrite name regex ^val\. cname.tmpl.test answer value (.*)\.tmpl\.test {1}.valued.test
  rewrite ttl suffix .ttl.test. 42
  rewrite ttl exact range.ttlr.test 100-200
  rewrite rcode six.test 0 9
  rewrite name exact bad.test bad..test
  rewrite type MX A
  template IN A tmpl.test {
    match "^ip-(?P<a>[0-9]*)-(?P<b>[0-9]*)-(?P<c>[0-9]*)-(?P<d>[0-9]*)\.tmpl\.test\.$"
    answer "{{ .Name }} 60 IN A {{ .Group.a }}.{{ .Group.b }}.{{ .Group.c }}.{{ .Group.d }}"
    additional "add.{{ .Zone }} 5 IN TXT \"{{ index .Match 1 }} {{.Type}} {{.Class}}\""
    authority "{{ .Zone }} 5 IN NS ns.{{ .Zone }}"
    fallthrough
  }
  template IN ANY tmpl.test {
    match "^hex(?P<h>[0-9a-f]{2})\.tmpl\.test\.$"
    answer "{{ .Name }} 60 IN A 10.0.0.{{ parseInt .Group.h 16 8 }}"
    fallthrough
  }
  template ANY ANY tmpl.test {
    match ^nx\.
    rcode NXDOMAIN
    authority "{{ .Zone }} 60 IN SOA ns.{{ .Zone }} h.{{ .Zone }} (1 60 60 60 60)"
    fallthrough
  }
  template IN ANY tmpl.test {
    match ^cname\.
    answer "{{ .Name }} 60 IN CNAME www.hosts.test."
    fallthrough
  }
  template IN ANY tmpl.test {
    match ^broken\.
    answer "{{ .Name }} 60 IN A not-an-ip"
  }
  template IN AAAA . {
    rcode NOERROR
  }
  hosts {
    192.0.2.1 www.hosts.test b.test post-.x dim.test q.hosts.test r.ttl.test range.ttlr.test six.test
    ttl 300
  }
}
"#;

const A: RecordType = RecordType::A;

/// Sections in one line: `NoError | AN owner ttl type data | NS ...`.
fn line(reply: &Message) -> String {
    let code = format!("{:?}", reply.metadata.response_code);
    let section = |name: &'static str, records: &[Record]| {
        let line = move |r: &Record| {
            let data = match &r.data {
                hickory_proto::rr::RData::SOA(soa) => soa.mname.to_string(),
                data => data.to_string(),
            };
            format!("{name} {} {} {} {data}", r.name, r.ttl, r.record_type())
        };
        records.iter().map(line).collect::<Vec<_>>()
    };
    let parts = [
        vec![code],
        section("AN", &reply.answers),
        section("NS", &reply.authorities),
        section("AR", &reply.additionals),
    ];
    parts.concat().join(" | ")
}

#[tokio::test]
async fn rewrite_and_template_answer_what_coredns_does() {
    let world = World::by(COREFILE, vec![]).await;
    let cases = [
        ("a.test.", A, "NoError | AN a.test. 300 A 192.0.2.1"),
        ("A.TEST.", A, "NoError | AN a.test. 300 A 192.0.2.1"),
        // CoreDNS ends a prefix with a dot.
        ("pre-.x.", A, "NoError | AN post-.x. 300 A 192.0.2.1"),
        ("mid.test.", A, "NoError | AN dim.test. 300 A 192.0.2.1"),
        ("www.suf.test.", A, "NoError | AN www.suf.test. 300 A 192.0.2.1"),
        ("www.c1.test.", A, "NoError | AN www.c1.test. 300 A 192.0.2.1"),
        ("www.nosuf.test.", A, "NoError | AN www.hosts.test. 300 A 192.0.2.1"),
        ("q-x.re.test.", A, "NoError | AN q-x.re.test. 300 A 192.0.2.1"),
        (
            "cn.test.",
            A,
            "NoError | AN cn.test. 60 CNAME www.hosts.test. | AN www.hosts.test. 300 A 192.0.2.1",
        ),
        (
            "val.test.",
            A,
            "NoError | AN cname.tmpl.test. 60 CNAME www.hosts.test. | AN www.hosts.test. 300 A \
             192.0.2.1",
        ),
        ("r.ttl.test.", A, "NoError | AN r.ttl.test. 42 A 192.0.2.1"),
        ("range.ttlr.test.", A, "NoError | AN range.ttlr.test. 200 A 192.0.2.1"),
        ("six.test.", A, "NotAuth | AN six.test. 300 A 192.0.2.1"),
        ("bad.test.", A, "ServFail"),
        ("www.hosts.test.", RecordType::MX, "NoError | AN www.hosts.test. 300 A 192.0.2.1"),
        (
            "ip-10-0-0-1.tmpl.test.",
            A,
            "NoError | AN ip-10-0-0-1.tmpl.test. 60 A 10.0.0.1 | NS tmpl.test. 5 NS ns.tmpl.test. \
             | AR add.tmpl.test. 5 TXT 10 A IN",
        ),
        (
            "IP-10-0-0-1.tmpl.test.",
            A,
            "NoError | AN ip-10-0-0-1.tmpl.test. 60 A 10.0.0.1 | NS tmpl.test. 5 NS ns.tmpl.test. \
             | AR add.tmpl.test. 5 TXT 10 A IN",
        ),
        // Of any type it says its own.
        (
            "ip-10-0-0-1.tmpl.test.",
            RecordType::ANY,
            "NoError | AN ip-10-0-0-1.tmpl.test. 60 A 10.0.0.1 | NS tmpl.test. 5 NS ns.tmpl.test. \
             | AR add.tmpl.test. 5 TXT 10 A IN",
        ),
        // Not this type's template, and no other's pattern fits: the last does not fall through.
        ("ip-1-2-3-4.tmpl.test.", RecordType::TXT, "ServFail"),
        ("hex0a.tmpl.test.", A, "NoError | AN hex0a.tmpl.test. 60 A 10.0.0.10"),
        ("hex0a.tmpl.test.", RecordType::ANY, "NoError | AN hex0a.tmpl.test. 60 A 10.0.0.10"),
        ("hex0a.tmpl.test.", RecordType::TXT, "NoError | AN hex0a.tmpl.test. 60 A 10.0.0.10"),
        ("nx.tmpl.test.", A, "NXDomain | NS tmpl.test. 60 SOA ns.tmpl.test."),
        (
            "cname.tmpl.test.",
            A,
            "NoError | AN cname.tmpl.test. 60 CNAME www.hosts.test. | AN www.hosts.test. 300 A \
             192.0.2.1",
        ),
        ("broken.tmpl.test.", A, "ServFail"),
        ("other.tmpl.test.", A, "ServFail"),
        ("www.hosts.test.", RecordType::AAAA, "NoError"),
    ];
    for (name, rtype, wanted) in cases {
        // The question in the reply is the client's: both check it.
        let asked = query(name, rtype);
        for reply in [udp(world.v4(), &asked).await, tcp(world.v4(), &asked).await] {
            assert_eq!(line(&reply), wanted, "{name} {rtype}");
            assert_eq!(reply.queries, asked.queries);
            let made = reply.metadata.response_code != ResponseCode::ServFail;
            assert_eq!(reply.metadata.authoritative, made, "{name} {rtype}");
        }
    }
    world.end().await;
}

#[tokio::test]
async fn rewrite_reaches_names_of_the_cluster_and_of_upstreams() {
    let upstream = upstream(knows).await;
    let corefile = format!(
        ".:53 {{
  rewrite stop {{
    name suffix .apps.example .demo.svc.cluster.local
    answer auto
  }}
  rewrite name exact intern.example www.example
  rewrite rcode suffix .svc.cluster.local NXDOMAIN NOERROR
  kubernetes cluster.local
  cache
  forward . {upstream}
}}
"
    );
    let world = World::by(&corefile, objects()).await;
    let cases = [
        ("web.apps.example.", "NoError | AN web.apps.example. 30 A 10.96.0.1"),
        ("web.demo.svc.cluster.local.", "NoError | AN web.demo.svc.cluster.local. 30 A 10.96.0.1"),
    ];
    for (name, wanted) in cases {
        let line = line(&world.ask(name, A).await).replace(" 5 A ", " 30 A ");
        assert_eq!(line, wanted);
    }
    let intern = world.ask("intern.example.", A).await;
    assert!(line(&intern).contains("AN intern.example. "), "{intern}");
    // From the cache the same.
    let again = world.ask("intern.example.", A).await;
    assert_eq!(again.answers.len(), intern.answers.len());
    let denied = world.ask("nope.demo.svc.cluster.local.", A).await;
    assert!(line(&denied).starts_with("NoError | NS cluster.local. "), "{denied}");
    // Names no rule is for stay on the fast path.
    let slow = world.running.counts().slow_queries;
    world.ask("dns-version.cluster.local.", RecordType::TXT).await;
    assert_eq!(world.running.counts().slow_queries, slow);
    world.end().await;
}

#[tokio::test]
async fn acl_sees_the_name_a_rewrite_leads_to_cve_2026_26017() {
    let corefile = "\
.:53 {
  rewrite name exact door.test secret.test
  rewrite name exact secret.other open.test
  acl secret.test {
    block
  }
  acl secret.other {
    block
  }
  hosts {
    192.0.2.1 secret.test open.test
  }
}
";
    let world = World::by(corefile, vec![]).await;
    for (name, wanted) in [
        ("open.test.", ResponseCode::NoError),
        ("secret.test.", ResponseCode::Refused),
        ("door.test.", ResponseCode::Refused),
        ("secret.other.", ResponseCode::Refused),
    ] {
        assert_eq!(world.ask(name, A).await.metadata.response_code, wanted, "{name}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_type_that_is_always_empty_is_answered_on_the_fast_path() {
    let corefile = "\
.:53 {
  template ANY AAAA {
    rcode NXDOMAIN
  }
  kubernetes cluster.local
}
";
    let world = World::by(corefile, objects()).await;
    let reply = world.ask("web.demo.svc.cluster.local.", RecordType::AAAA).await;
    assert_eq!(line(&reply), "NXDomain");
    assert_eq!(world.ask("web.demo.svc.cluster.local.", A).await.answers.len(), 1);
    assert_eq!(world.running.counts().slow_queries, 0);
    world.end().await;
}

#[tokio::test]
async fn a_name_cannot_write_records_of_its_own_into_a_template() {
    let corefile = "\
.:53 {
  template IN TXT evil.test {
    answer \"{{ .Name }} 60 IN TXT x\"
  }
}
";
    let world = World::by(corefile, vec![]).await;
    for label in [&b"a\nb 60 IN A 1.2.3.4\n"[..], b"a ; ", b"$INCLUDE", b"a\"(", b"\\", b"\xff"] {
        let mut asked = query("evil.test.", RecordType::TXT);
        let labels = [label, b"evil", b"test"];
        let name = hickory_proto::rr::Name::from_labels(labels).unwrap();
        asked.queries[0].set_name(name.clone());
        let reply = udp(world.v4(), &asked).await;
        let ours = reply
            .answers
            .iter()
            .all(|record| record.record_type() == RecordType::TXT && record.name.num_labels() == 3);
        assert!(reply.answers.len() <= 1 && ours, "{label:?}: {reply}");
    }
    world.end().await;
}
