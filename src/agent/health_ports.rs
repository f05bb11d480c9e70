//! Servers on healthCheckNodePorts, in kube-proxy's words (pkg/proxy/healthcheck).

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;
use fairlead_proxy::{
    NodePortAddresses,
    health_ports::{HealthPort, HealthPorts},
};
use fairlead_state::{Key, Snapshot, model::Name, store::Snapshots};
use hyper::{Request, Response, StatusCode, body::Incoming, header};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    http::{self, Body, Site, connections, listen::listen},
    kube_proxy::Face,
};

/// Before a port that was taken is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// Services whose ports cannot be listened on, and why.
pub(crate) type Untaken = BTreeMap<Key, String>;

/// A port that is served; not much longer once this is dropped.
struct Served {
    says: Arc<ArcSwap<HealthPort>>,
    guard: DropGuard,
    /// Has the listener.
    accepting: JoinHandle<Option<()>>,
}

impl Served {
    /// Stops it; what is returned ends with the listener closed. Connections are hung up on meanwhile.
    fn end(self) -> JoinHandle<Option<()>> {
        drop(self.guard);
        self.accepting
    }
}

/// What all ports have in common.
pub(super) struct House {
    face: Arc<Face>,
    /// On which of the node's addresses they answer: where NodePorts do.
    places: NodePortAddresses,
    /// Those of the Node object.
    own: ArcSwap<Vec<IpAddr>>,
    untaken: Arc<ArcSwap<Untaken>>,
    cancel: CancellationToken,
}

impl House {
    pub(super) fn new(
        face: Arc<Face>,
        places: NodePortAddresses,
        untaken: Arc<ArcSwap<Untaken>>,
        cancel: CancellationToken,
    ) -> Self {
        Self { face, places, own: ArcSwap::default(), untaken, cancel }
    }

    fn is_at_home(&self, at: IpAddr) -> bool {
        self.places.has(at, &self.own.load())
    }

    /// Logs each once.
    fn tell(&self, untaken: Untaken) {
        let before = self.untaken.load();
        if **before == untaken {
            return;
        }
        for (service, why) in untaken.iter().filter(|(service, _)| !before.contains_key(*service)) {
            tracing::warn!("Service {service}: {why}: find who has it with ss -ltnp");
        }
        self.untaken.store(Arc::new(untaken));
    }
}

/// Serves the ports the newest snapshot asks for, until cancelled.
pub(super) async fn serve(
    mut snapshots: Snapshots,
    node_name: &str,
    proxy_name: Option<Name>,
    house: House,
) {
    let mut ports = HealthPorts::of_proxy(proxy_name);
    let mut served: BTreeMap<u16, Served> = BTreeMap::new();
    let house = Arc::new(house);
    loop {
        let snapshot = snapshots.borrow_and_update().clone();
        if let Some(snapshot) = snapshot {
            ports.update(&snapshot, node_name);
            house.own.store(Arc::new(addresses(&snapshot, node_name)));
        }
        let untaken = follow(&ports.by_port(), &mut served, &house).await;
        let is_complete = untaken.is_empty();
        house.tell(untaken);
        let retry = async {
            if is_complete {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(RETRY).await;
        };
        let changed = async {
            if snapshots.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = house.cancel.cancelled() => return,
            () = changed => {}
            () = retry => {}
        }
    }
}

fn addresses(snapshot: &Snapshot, node_name: &str) -> Vec<IpAddr> {
    let node = snapshot.nodes().get(&Key::new("", node_name));
    node.map_or_else(Vec::new, |node| node.addresses.to_vec())
}

/// Serves what is wanted and nothing else; what cannot be is returned.
async fn follow(
    wanted: &BTreeMap<u16, HealthPort>,
    served: &mut BTreeMap<u16, Served>,
    house: &Arc<House>,
) -> Untaken {
    let gone = served.extract_if(.., |port, _| !wanted.contains_key(port));
    let ends: Vec<_> = gone.map(|(_, served)| served.end()).collect();
    for ended in ends {
        // A port that comes back would meet its own listener, and be somebody else's by all that can be seen.
        drop(ended.await);
    }
    let mut untaken = Untaken::new();
    for (port, health) in wanted {
        if let Some(served) = served.get(port) {
            if **served.says.load() != *health {
                served.says.store(Arc::new(health.clone()));
            }
            continue;
        }
        // Not on the addresses of NodePorts alone: they come and go.
        match listen((Ipv4Addr::UNSPECIFIED, *port).into()) {
            Ok(listener) => {
                let says = Arc::new(ArcSwap::from_pointee(health.clone()));
                let token = house.cancel.child_token();
                let accepting = accept(listener, says.clone(), house.clone());
                let accepting = token.clone().run_until_cancelled_owned(accepting);
                let accepting = tokio::spawn(accepting);
                served.insert(*port, Served { says, guard: token.drop_guard(), accepting });
            }
            Err(error) => {
                let why = format!("healthCheckNodePort {port} cannot be listened on: {error}");
                untaken.insert(health.service.clone(), why);
            }
        }
    }
    untaken
}

/// What is answered ends with the port: nobody would bring it up to date.
async fn accept(listener: TcpListener, says: Arc<ArcSwap<HealthPort>>, house: Arc<House>) {
    let site_of = |stream: &TcpStream| {
        let at = stream.local_addr().ok()?.ip().to_canonical();
        // Whoever came by another address is hung up on.
        let (says, face, is_ipv6) = (says.clone(), house.face.clone(), at.is_ipv6());
        house.is_at_home(at).then_some(Port { says, face, is_ipv6 })
    };
    connections::accept(&listener, site_of).await;
}

/// What a port answers over one family.
#[derive(Clone)]
struct Port {
    says: Arc<ArcSwap<HealthPort>>,
    face: Arc<Face>,
    is_ipv6: bool,
}

impl Site for Port {
    async fn answer(&self, _: Request<Incoming>) -> Response<Body> {
        answer(&self.says.load(), self.is_ipv6, self.face.is_written())
    }
}

/// Any method and path, as kube-proxy answers them: a node whose rules are behind is not to be sent anything, either.
fn answer(health: &HealthPort, is_ipv6: bool, is_written: bool) -> Response<Body> {
    let (service, local_endpoints) = (&health.service, health.local_endpoints(is_ipv6));
    let body = serde_json::json!({
        "service": { "namespace": &*service.namespace, "name": &*service.name },
        "localEndpoints": local_endpoints,
        "serviceProxyHealthy": is_written,
    });
    let is_good = local_endpoints > 0 && is_written;
    let status = if is_good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut response = http::response(status, format!("{body:#}\n"));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    headers.insert("x-load-balancing-endpoint-weight", local_endpoints.into());
    response
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        io,
        net::{Ipv6Addr, SocketAddr},
    };

    use http_body_util::BodyExt as _;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        sync::watch,
    };

    use super::{
        super::http::connections::tests::{besiege, probe},
        *,
    };

    const MANIFESTS: &str = r"
apiVersion: v1
kind: Service
metadata: {name: web, namespace: default}
spec:
  type: LoadBalancer
  clusterIP: 10.96.0.1
  externalTrafficPolicy: Local
  healthCheckNodePort: PORT
  ports: [{port: 80}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: default, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [10.1.0.1], nodeName: node-a}]
";

    async fn ask(at: SocketAddr) -> io::Result<String> {
        let mut stream = tokio::net::TcpStream::connect(at).await?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    #[tokio::test]
    async fn a_port_is_served_on_both_families_as_long_as_it_is_wanted() {
        let port = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("all.yaml");
        std::fs::write(&file, MANIFESTS.replace("PORT", &port.to_string())).unwrap();
        let loaded = fairlead_state::source::directory::load(&[file], None, BTreeSet::new());
        let snapshot = loaded.unwrap().snapshot;
        let (publish, snapshots) = watch::channel(Some(snapshot));
        let cancel = CancellationToken::new();
        let token = cancel.clone();
        let house = House::new(Arc::default(), NodePortAddresses::All, Arc::default(), token);
        let serving = tokio::spawn(serve(snapshots, "node-a", None, house));
        for at in [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()] {
            let answer = loop {
                match ask(at).await {
                    Ok(answer) => break answer,
                    Err(_) => tokio::task::yield_now().await,
                }
            };
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            assert!(answer.contains("\"localEndpoints\": 1"), "{answer}");
        }
        let mut open = tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        open.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        publish.send_replace(Some(Arc::default()));
        while open.read(&mut [0; 1024]).await.is_ok_and(|count| count > 0) {}
        while ask((Ipv4Addr::LOCALHOST, port).into()).await.is_ok() {
            tokio::task::yield_now().await;
        }
        cancel.cancel();
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_port_that_somebody_else_has_is_told_until_it_is_free() {
        let taken = std::net::TcpListener::bind("[::]:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let service = Key::new("default", "web");
        let health = HealthPort { service: service.clone(), local_endpoints: [1, 0] };
        let (wanted, mut served) = (BTreeMap::from([(port, health)]), BTreeMap::new());
        let house = House::new(
            Arc::default(),
            NodePortAddresses::All,
            Arc::default(),
            CancellationToken::new(),
        );
        let house = Arc::new(house);
        house.tell(follow(&wanted, &mut served, &house).await);
        let told = house.untaken.load_full();
        assert!(told[&service].contains(&format!("healthCheckNodePort {port} ")), "{told:?}");
        drop(taken);
        house.tell(follow(&wanted, &mut served, &house).await);
        assert!(house.untaken.load().is_empty() && served.contains_key(&port));
    }

    /// kube-proxy closes what goes before it listens on what comes.
    #[tokio::test]
    async fn a_port_that_goes_and_comes_back_does_not_meet_its_own_listener() {
        let port = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let health = HealthPort { service: Key::new("default", "web"), local_endpoints: [1, 1] };
        let (some, none) = (BTreeMap::from([(port, health)]), BTreeMap::new());
        let cancel = CancellationToken::new();
        let house =
            House::new(Arc::default(), NodePortAddresses::All, Arc::default(), cancel.clone());
        let (house, mut served) = (Arc::new(house), BTreeMap::new());
        for wanted in [&some, &none, &some, &none, &some] {
            let untaken = follow(wanted, &mut served, &house).await;
            assert!(untaken.is_empty(), "{untaken:?}");
            assert_eq!(served.len(), wanted.len());
        }
        let answer = ask((Ipv4Addr::LOCALHOST, port).into()).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        cancel.cancel();
    }

    /// Any pod could take a node out of its balancer.
    #[tokio::test]
    async fn attack_connections_that_are_held_keep_no_balancer_from_its_answer() {
        let port = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
        let health = HealthPort { service: Key::new("default", "web"), local_endpoints: [1, 1] };
        let cancel = CancellationToken::new();
        let _ends = cancel.clone().drop_guard();
        let house = House::new(Arc::default(), NodePortAddresses::All, Arc::default(), cancel);
        let mut served = BTreeMap::new();
        let wanted = BTreeMap::from([(port, health)]);
        assert!(follow(&wanted, &mut served, &Arc::new(house)).await.is_empty());
        let at = (Ipv4Addr::LOCALHOST, port).into();
        let _held = besiege(at).await;
        let answer = probe(at).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }

    /// kube-proxy listens on nodePortAddresses alone.
    #[tokio::test]
    async fn a_port_answers_where_node_ports_do() {
        let cases = [
            (vec!["all"], true, true),
            (vec!["primary"], false, false),
            (vec!["127.0.0.0/8", "2001:db8::/32"], true, false),
            (vec!["localhost"], true, true),
        ];
        for (words, by_ipv4, by_ipv6) in cases {
            let places = NodePortAddresses::from_words(words.clone()).unwrap();
            let cancel = CancellationToken::new();
            let house = House::new(Arc::default(), places, Arc::default(), cancel.clone());
            house.own.store(Arc::new(vec!["192.0.2.1".parse().unwrap()]));
            let house = Arc::new(house);
            let port = std::net::TcpListener::bind("[::]:0").unwrap().local_addr().unwrap().port();
            let health =
                HealthPort { service: Key::new("default", "web"), local_endpoints: [1, 1] };
            let mut served = BTreeMap::new();
            let wanted = BTreeMap::from([(port, health)]);
            assert!(follow(&wanted, &mut served, &house).await.is_empty());
            let at: [SocketAddr; 2] =
                [(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()];
            for (at, is_answered) in at.into_iter().zip([by_ipv4, by_ipv6]) {
                let answer = ask(at).await.unwrap_or_default();
                assert_eq!(answer.starts_with("HTTP/1.1 200"), is_answered, "{words:?} {at}");
            }
            cancel.cancel();
        }
    }

    #[tokio::test]
    async fn answers_are_kube_proxys() {
        let not = StatusCode::SERVICE_UNAVAILABLE;
        for (local_endpoints, is_written, status) in
            [(0, true, not), (2, true, StatusCode::OK), (2, false, not), (0, false, not)]
        {
            let service = Key::new("default", "web");
            let health = HealthPort { service, local_endpoints: [0, local_endpoints] };
            assert_eq!(answer(&health, false, is_written).status(), not, "none of its family");
            let response = answer(&health, true, is_written);
            assert_eq!(response.status(), status);
            let weight = &response.headers()["x-load-balancing-endpoint-weight"];
            assert_eq!(weight.to_str().unwrap(), local_endpoints.to_string());
            assert_eq!(response.headers()["content-type"], "application/json");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let expected = serde_json::json!({
                "service": {"namespace": "default", "name": "web"},
                "localEndpoints": local_endpoints,
                "serviceProxyHealthy": is_written,
            });
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&body).unwrap(), expected);
        }
    }
}
