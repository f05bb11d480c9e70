//! `bufsize`: the largest reply by UDP, whoever made it.

use hickory_proto::{
    op::{Edns, Message},
    rr::RecordType,
};

use crate::{
    autopath::pod,
    contract::objects,
    forward::{knows, upstream},
    world::{World, query, tcp, udp_bytes},
};

const BYTES_MAX: usize = 700;

/// `big.tmpl.test` has 60 addresses.
async fn corefile(more: &str) -> String {
    let answers: String =
        (0..60).map(|last| format!("answer \"{{{{ .Name }}}} 60 IN A 10.0.0.{last}\"\n")).collect();
    format!(
        ".:53 {{\n bufsize {BYTES_MAX}\n {more}\n kubernetes cluster.local\n \
         rewrite name other.test big.tmpl.test\n dns64 {{\n prefix 64:ff9b::/96\n allow_ipv4\n }}\n \
         template IN A tmpl.test {{\n {answers} }}\n \
         template IN AAAA tmpl.test {{\n rcode NOERROR\n }}\n forward . {}\n}}\n",
        upstream(knows).await
    )
}

/// What came of plugins and upstreams was as large as the client took.
#[tokio::test]
async fn replies_that_plugins_and_upstreams_make_are_no_larger_either() {
    for more in ["", "loadbalance round_robin", "nsid here"] {
        let mut things = objects();
        things.push(pod("demo", "client", "127.0.0.1"));
        let world =
            World::by(&corefile(&format!("autopath @kubernetes\n {more}")).await, things).await;
        for (name, rtype) in [
            ("big.tmpl.test.", RecordType::A),
            ("big.tmpl.test.", RecordType::AAAA),
            ("other.test.", RecordType::A),
            ("big.example.", RecordType::A),
            ("big.example.demo.svc.cluster.local.", RecordType::A),
        ] {
            let mut asked = query(name, rtype);
            let mut edns = Edns::new();
            edns.set_max_payload(4096);
            asked.edns = Some(edns);
            for _ in 0..2 {
                let bytes = udp_bytes(world.v4(), &asked.to_vec().unwrap()).await;
                assert!(bytes.len() <= BYTES_MAX, "{more} {name} {rtype}: {}", bytes.len());
                let reply = Message::from_vec(&bytes).unwrap();
                assert!(reply.metadata.truncation, "{more} {name} {rtype}: {reply}");
            }
            let whole = tcp(world.v4(), &asked).await;
            assert!(
                !whole.metadata.truncation && whole.answers.len() >= 60,
                "{more} {name}: {whole}"
            );
        }
        world.end().await;
    }
}
