//! hickory's server with its in-memory zone: what a general DNS library costs.
//!
//! `hickory ADDRESS SERVICES` serves the benchmark's names until it is killed. `make bench-dns` measures
//! the agent beside it.

use std::{env, error::Error, net::Ipv4Addr, sync::Arc};

use hickory_proto::rr::{
    LowerName, Name, RData, Record,
    rdata::{A, SOA, SRV},
};
use hickory_server::{
    Server,
    net::runtime::TokioRuntimeProvider,
    store::in_memory::InMemoryZoneHandler,
    zone_handler::{AxfrPolicy, Catalog, ZoneType},
};
use tokio::net::UdpSocket;

const TTL_SECONDS: u32 = 30;
const SERIAL: u32 = 1;
const NAMESPACES: u32 = 100;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let usage = "usage: hickory ADDRESS SERVICES";
    let mut words = env::args().skip(1);
    let address = words.next().ok_or(usage)?;
    let services: u32 = words.next().ok_or(usage)?.parse()?;
    let origin = Name::from_ascii("cluster.local.")?;
    let mut zone: InMemoryZoneHandler<TokioRuntimeProvider> =
        InMemoryZoneHandler::empty(origin.clone(), ZoneType::Primary, AxfrPolicy::Deny);
    let mut put = |name: &Name, data| {
        zone.upsert_mut(Record::from_rdata(name.clone(), TTL_SECONDS, data), SERIAL)
    };
    let server = Name::from_ascii("ns.dns.cluster.local.")?;
    let soa = SOA::new(server.clone(), server, SERIAL, 7200, 1800, 86400, TTL_SECONDS);
    put(&origin, RData::SOA(soa));
    for i in 0..services {
        let text = format!("svc{i}.ns{}.svc.cluster.local.", i % NAMESPACES);
        let name = Name::from_ascii(&text)?;
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(10, 96, 0, 1).to_bits() + i);
        put(&name, RData::A(A(address)));
        let port = Name::from_ascii(format!("_http._tcp.{text}"))?;
        put(&port, RData::SRV(SRV::new(0, 100, 80, name)));
    }
    let mut catalog = Catalog::new();
    catalog.upsert(LowerName::new(&origin), vec![Arc::new(zone)]);
    let mut server = Server::new(catalog);
    server.register_socket(UdpSocket::bind(address).await?);
    server.block_until_done().await?;
    Ok(())
}
