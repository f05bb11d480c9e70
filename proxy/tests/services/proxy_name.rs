//! `service.kubernetes.io/service-proxy-name`: which Services are whose.

use std::sync::Arc;

use fairlead_ebpf::abi::FRONTEND_FOREIGN;
use fairlead_proxy::{
    health_ports::HealthPorts,
    plan::{NodeView, Rules, plan_service},
};
use fairlead_state::model::{Service, ServiceType, TrafficPolicy};

use crate::objects::{Cluster, NODE, put_service, service, slice, with};

fn labelled(label: Option<&str>) -> Service {
    let service = Service {
        service_type: ServiceType::LoadBalancer,
        external_traffic_policy: TrafficPolicy::Local,
        ..service("web", "10.96.0.1")
    };
    with(service, |extras| {
        extras.health_check_node_port = Some(30_123);
        extras.proxy_name = label.map(Into::into);
    })
}

#[test]
fn a_proxy_serves_services_of_its_name_and_the_nameless_one_those_without() {
    for (ours, label, is_served) in [
        (None, None, true),
        (None, Some("edge"), false),
        // The label counts, whatever is in it.
        (None, Some(""), false),
        (Some("edge"), Some("edge"), true),
        (Some("edge"), None, false),
        (Some("edge"), Some("other"), false),
    ] {
        let (service, slice) = (labelled(label), Arc::new(slice("web-1", "web", &["10.1.0.1"])));
        let rules = Rules { proxy_name: ours.map(Into::into), ..Rules::default() };
        let node = NodeView { rules, ..NodeView::default() };
        let plan = plan_service(&service, &[&slice], &node);
        assert_eq!(!plan.sets.is_empty(), is_served, "{ours:?} {label:?}");
        // Its address is allotted, so packets to it are the other's and not refused.
        let is_foreign = plan.frontends.iter().any(|f| f.flags & FRONTEND_FOREIGN != 0);
        assert_eq!(is_foreign, !is_served, "{ours:?} {label:?}");

        let snapshot = Cluster::new().apply([put_service(service)]);
        let mut ports = HealthPorts::of_proxy(ours.map(Into::into));
        ports.update(&snapshot, NODE);
        assert_eq!(ports.by_port().len(), usize::from(is_served), "{ours:?} {label:?}");
    }
}
