//! The least proxy on Pingora: benches/ingress/pingora, which tools/bench.sh builds.

use std::path::Path;

use super::{Log, Place};
use crate::{
    agent::Running,
    table::{self, Table},
};

pub(super) fn start(place: &Place, table: &Table) -> Running {
    let program = Path::new(env!("CARGO_BIN_EXE_fairlead")).with_file_name("pingora-minimal");
    assert!(program.exists(), "no {}: tools/bench.sh ingress builds it", program.display());
    let line = |host| format!("{} {}\n", table::host(host), table.upstreams[table.leads(host)]);
    let hosts: String = (0..table.hosts()).map(line).collect();
    let hosts = place.write("hosts", &hosts);
    let files = place.pem_files(table, false);
    let (certificate, key) = files.first().expect("it always listens for TLS");
    let mut command = place.command(program.to_str().unwrap());
    command.args([place.plain.to_string(), place.tls.to_string()]);
    command.arg(certificate).arg(key).arg(hosts);
    match place.log {
        Log::Off => command.arg("-"),
        Log::On => command.arg(place.file("access.log")),
    };
    Running::start(&mut command, &place.file("errors"))
}
