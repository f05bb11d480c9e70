//! Flags of Services.

use std::path::PathBuf;

use fairlead_proxy::TableSize;
use ipnetwork::IpNetwork;

/// Services.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Services")]
pub(crate) struct ProxyArgs {
    /// The cgroup whose processes get Services (default: the cgroup2 mount, that is everything on the node)
    #[arg(long, value_name = "PATH", env = "FAIRLEAD_CGROUP_ROOT")]
    pub(crate) cgroup_root: Option<PathBuf>,
    /// BPF file system, where maps and links outlive the agent; mounted if absent
    #[arg(long, value_name = "PATH", default_value = "/sys/fs/bpf", env = "FAIRLEAD_BPFFS")]
    pub(crate) bpffs: PathBuf,
    /// Whose sockets are led to endpoints as they connect: all, or those in the node's own network alone. A pod's packets are
    /// then translated as they leave it, so its own network sees the Service's address: service meshes with
    /// sidecars and clusters within pods need that
    #[arg(
        long,
        value_name = "WHOSE",
        value_enum,
        default_value = "all",
        env = "FAIRLEAD_SOCKET_PROGRAMS"
    )]
    pub(crate) socket_programs: SocketPrograms,
    /// Devices where packets from outside arrive: auto, or a comma-separated list
    #[arg(long, value_name = "auto|LIST", default_value = "auto", env = "FAIRLEAD_DEVICES")]
    pub(crate) devices: String,
    /// Room for so many Service addresses (address, port and protocol each)
    #[arg(long, value_name = "N", default_value_t = 262_144, env = "FAIRLEAD_FRONTENDS_MAX")]
    pub(crate) frontends_max: u32,
    /// Room for so many backends, counted once per Service port
    #[arg(long, value_name = "N", default_value_t = 1_048_576, env = "FAIRLEAD_BACKENDS_MAX")]
    pub(crate) backends_max: u32,
    /// Room for so many entries of open connections from outside: two each, four where the endpoint is on another
    /// node; 140 bytes each at once, and for half as many that begin or end (default: 1/400 of the memory,
    /// 131072 to 1048576, a power of two; as an earlier start has them until `fairlead cleanup`)
    #[arg(long, value_name = "N", env = "FAIRLEAD_CONNECTIONS_MAX",
          value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) connections_max: Option<u32>,
    /// How packets' connections are given to endpoints where a Service has no annotation
    /// fairlead.io/load-balancing: at random, or by a hash of the client, on every node alike
    #[arg(
        long,
        value_name = "WAY",
        value_enum,
        default_value = "random",
        env = "FAIRLEAD_LOAD_BALANCING"
    )]
    pub(crate) load_balancing: Balancing,
    /// Places of a Maglev table, the same for all agents: a hundred for each endpoint of the largest Service
    #[arg(long, value_name = "PLACES", default_value = "1024", env = "FAIRLEAD_MAGLEV_TABLE_SIZE",
          value_parser = table_size)]
    pub(crate) maglev_table_size: TableSize,
    /// Room for so many pieces of Maglev tables, of 64 places each
    #[arg(long, value_name = "N", default_value_t = 65_536, env = "FAIRLEAD_MAGLEV_MAX")]
    pub(crate) maglev_max: u32,
    /// Room for so many ranges of loadBalancerSourceRanges, of all Services together
    #[arg(long, value_name = "N", default_value_t = 65_536, env = "FAIRLEAD_SOURCE_RANGES_MAX")]
    pub(crate) source_ranges_max: u32,
    /// Count what Services' clients send and get: connections by socket when they close, others by packet
    #[arg(long, env = "FAIRLEAD_COUNT_BYTES")]
    pub(crate) count_bytes: bool,
    /// Drop packets to addresses in these ranges that no Service has, besides those of ServiceCIDR objects:
    /// the API server's --service-cluster-ip-range, where it has no such objects (before 1.33)
    #[arg(long, value_name = "CIDR,...", value_delimiter = ',', env = "FAIRLEAD_SERVICE_CIDR")]
    pub(crate) service_cidr: Vec<IpNetwork>,
    /// Where NodePorts answer: all, primary (the Node's first address of each family), localhost, or address ranges
    #[arg(
        long,
        value_name = "WHERE,...",
        value_delimiter = ',',
        default_value = "all",
        env = "FAIRLEAD_NODEPORT_ADDRESSES"
    )]
    pub(crate) nodeport_addresses: Vec<String>,
    /// Backends see the node's address instead of the client's, but for what comes by externalTrafficPolicy: Local
    #[arg(long, env = "FAIRLEAD_MASQUERADE_ALL")]
    pub(crate) masquerade_all: bool,
    /// Serve spec.externalIPs: whoever may write a Service can then take any address (CVE-2020-8554)
    #[arg(long, env = "FAIRLEAD_EXTERNAL_IPS")]
    pub(crate) external_ips: bool,
}

/// Whose sockets are led to endpoints as they connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SocketPrograms {
    All,
    Node,
}

/// How packets' connections are given to endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Balancing {
    Random,
    Maglev,
}

/// The size of a Maglev table, of which there are few to choose from.
fn table_size(text: &str) -> Result<TableSize, String> {
    let size = text.parse().ok().and_then(TableSize::with);
    size.ok_or_else(|| {
        let all = TableSize::ALL.map(|size| size.places().to_string());
        format!("give one of {}", all.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_one_of_few_sizes() {
        assert_eq!(table_size("256"), Ok(TableSize::ALL[0]));
        for text in ["251", "", "-1", "131072"] {
            let error = table_size(text).unwrap_err();
            assert!(error.starts_with("give one of 256, 512, 1024"), "{text}: {error}");
        }
    }
}
