//! Flags that kube-proxy's configuration has an equal of, and where they are read from.

use std::path::PathBuf;

use crate::kube_proxy::duration::GoDuration;

/// In kube-proxy's place.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "In kube-proxy's place")]
pub(crate) struct DropInArgs {
    /// Settings as kube-proxy has them: a KubeProxyConfiguration (v1alpha1), for example what kubeadm
    /// keeps in the ConfigMap kube-proxy under config.conf. Flags, environment and --config win.
    /// Followed: conntrack settings and logging.verbosity take effect at once, others at the next start
    #[arg(long, value_name = "FILE", env = "FAIRLEAD_KUBE_PROXY_CONFIG")]
    pub(crate) kube_proxy_config: Option<PathBuf>,
    /// Serve the Services whose label service.kubernetes.io/service-proxy-name has this value, and no
    /// others (default: those without the label)
    #[arg(long, value_name = "NAME", env = "FAIRLEAD_PROXY_NAME",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) proxy_name: Option<String>,
    /// End at the start when the health or metrics port is taken
    #[arg(long, env = "FAIRLEAD_BIND_ADDRESS_HARD_FAIL")]
    pub(crate) bind_address_hard_fail: bool,
    /// The process's oom_score_adj (default: as it was started; lowering it needs CAP_SYS_RESOURCE)
    #[arg(long, value_name = "N", env = "FAIRLEAD_OOM_SCORE_ADJ", allow_negative_numbers = true,
          value_parser = clap::value_parser!(i32).range(-1000..=1000))]
    pub(crate) oom_score_adj: Option<i32>,
    /// Where the node's /proc/sys can be written; a container has it mounted read-only
    #[arg(long, value_name = "PATH", default_value = "/proc/sys", env = "FAIRLEAD_SYSCTL_ROOT")]
    pub(crate) sysctl_root: PathBuf,
    #[command(flatten)]
    pub(crate) conntrack: ConntrackArgs,
}

/// The node's connection tracking, which other rules use whoever balances Services; kube-proxy's
/// flags, with its defaults.
#[derive(Clone, Debug, PartialEq, Eq, clap::Args)]
pub(crate) struct ConntrackArgs {
    /// Raise nf_conntrack_max to so many per CPU; 0 leaves it alone
    #[arg(long, value_name = "N", default_value_t = 32_768,
          env = "FAIRLEAD_CONNTRACK_MAX_PER_CORE", value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    pub(crate) conntrack_max_per_core: u32,
    /// Raise nf_conntrack_max to at least so many, unless --conntrack-max-per-core is 0
    #[arg(long, value_name = "N", default_value_t = 131_072, env = "FAIRLEAD_CONNTRACK_MIN",
          value_parser = clap::value_parser!(u32).range(..=i64::from(i32::MAX)))]
    pub(crate) conntrack_min: u32,
    /// nf_conntrack_tcp_timeout_established; 0 leaves it alone
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "24h",
        env = "FAIRLEAD_CONNTRACK_TCP_TIMEOUT_ESTABLISHED"
    )]
    pub(crate) conntrack_tcp_timeout_established: GoDuration,
    /// nf_conntrack_tcp_timeout_close_wait; 0 leaves it alone
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "1h",
        env = "FAIRLEAD_CONNTRACK_TCP_TIMEOUT_CLOSE_WAIT"
    )]
    pub(crate) conntrack_tcp_timeout_close_wait: GoDuration,
    /// Set nf_conntrack_tcp_be_liberal: packets out of the window are not INVALID
    #[arg(long, env = "FAIRLEAD_CONNTRACK_TCP_BE_LIBERAL")]
    pub(crate) conntrack_tcp_be_liberal: bool,
    /// nf_conntrack_udp_timeout; 0 leaves it alone
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        env = "FAIRLEAD_CONNTRACK_UDP_TIMEOUT"
    )]
    pub(crate) conntrack_udp_timeout: GoDuration,
    /// nf_conntrack_udp_timeout_stream; 0 leaves it alone
    #[arg(
        long,
        value_name = "DURATION",
        default_value = "0s",
        env = "FAIRLEAD_CONNTRACK_UDP_TIMEOUT_STREAM"
    )]
    pub(crate) conntrack_udp_timeout_stream: GoDuration,
}
