//! Which port of its endpoints a Service leads to.

use super::*;

/// Every request was answered 503, and nothing said why; ingress-nginx finds all but the last three.
#[test]
fn bug_endpoints_whose_port_is_named_otherwise_than_the_services_were_none() {
    let pod = |port| SocketAddr::from(([10, 0, 0, 1], port));
    let number = |number| Some(TargetPort::Number(number));
    let name = |name: &str| Some(TargetPort::Name(name.into()));
    for (service_port, target, ports, expected) in [
        ("http", name("web"), &[("http", Tcp, 8080)][..], Some(8080)),
        ("http", number(9000), &[("admin", Tcp, 9001), ("http", Tcp, 8080)], Some(8080)),
        // By the number, where no name is the Service's.
        ("http", number(18099), &[("", Tcp, 8080)], Some(18099)),
        ("http", number(18099), &[("other", Tcp, 8080)], Some(18099)),
        ("http", number(18099), &[], Some(18099)),
        ("http", None, &[], Some(80)),
        // Any, where the Service names none.
        ("", name("web"), &[("", Udp, 53), ("web", Tcp, 8080)], Some(8080)),
        ("", number(18099), &[("web", Tcp, 8080)], Some(8080)),
        ("", number(18099), &[("web", Tcp, 8080), ("", Tcp, 8081)], Some(8081)),
        // Nobody knows.
        ("http", name("web"), &[("other", Tcp, 8080)], None),
        ("http", name("web"), &[], None),
        ("", number(18099), &[("", Udp, 53)], None),
    ] {
        let Object::Service(web) = service("web") else { unreachable!() };
        let mut web = (*web).clone();
        let mut port = web.ports[0].clone();
        (port.name, port.target_port) = (service_port.into(), target.clone());
        web.ports = [port].into();
        let Object::EndpointSlice(own) = slice("web", "a", pod(1), Pod::Ready) else {
            unreachable!()
        };
        let mut own = (*own).clone();
        let told = ports.iter().map(|(name, protocol, port)| {
            let (name, protocol, port) = ((*name).into(), *protocol, *port);
            EndpointPort { name, protocol, port, app_protocol: None }
        });
        own.ports = told.collect();
        let planner = planned(&[
            class("fairlead", "fairlead.io/ingress"),
            ingress("web").host("a.example", "web").object(),
            Object::Service(Arc::new(web)),
            Object::EndpointSlice(Arc::new(own)),
        ]);
        let found = planner.routes().find("a.example", "/").unwrap();
        let addresses = found.route.upstream.as_ref().unwrap().addresses();
        let what = format!("{service_port:?} {target:?} {ports:?}");
        assert_eq!(addresses, expected.map(pod).into_iter().collect::<Vec<_>>(), "{what}");
        let findings = planner.findings().into_iter().map(|finding| finding.to_string());
        let findings: Vec<String> = findings.collect();
        let reason = match (expected, service_port) {
            (Some(_), _) => None,
            (None, "") => Some("have no TCP port"),
            (None, _) => Some("have no TCP port named \"http\": give a port of the EndpointSlice"),
        };
        let is_told = |reason: &str| {
            let start =
                "Ingress default/web waiting: Service default/web: its endpoints that serve ";
            findings.len() == 1 && findings[0].starts_with(&format!("{start}{reason}"))
        };
        assert!(reason.map_or(findings.is_empty(), is_told), "{what}: {findings:?}");
    }
}

/// None is ready: that is no matter of ports.
#[test]
fn endpoints_that_do_not_serve_have_no_port_to_speak_of() {
    let pod = SocketAddr::from(([10, 0, 0, 1], 1));
    let Object::EndpointSlice(own) = slice("web", "a", pod, Pod::NotReady) else { unreachable!() };
    let own = fairlead_state::model::EndpointSlice { ports: [].into(), ..(*own).clone() };
    let planner = planned(&[
        class("fairlead", "fairlead.io/ingress"),
        ingress("web").host("a.example", "web").object(),
        service("web"),
        Object::EndpointSlice(Arc::new(own)),
    ]);
    assert_eq!(planner.findings(), []);
}
