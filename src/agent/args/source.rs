//! Flags of where objects come from.

use std::path::PathBuf;

/// Where objects come from.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Source")]
pub(crate) struct SourceArgs {
    /// Read the API server this kubeconfig names (default: the in-cluster service account)
    #[arg(long, value_name = "FILE", env = "FAIRLEAD_KUBECONFIG", conflicts_with = "manifests")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Read every *.yaml, *.yml and *.json file below DIR instead of an API server, and follow changes
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_MANIFESTS")]
    pub(crate) manifests: Option<PathBuf>,
    /// Reach API servers here first, in this order, instead of by the configured address, which in a
    /// pod is a Service's and works only once something serves it
    #[arg(long, value_name = "HOST:PORT,...", value_delimiter = ',', env = "FAIRLEAD_API_SERVER")]
    pub(crate) api_server: Vec<String>,
    /// Remember the API servers' own addresses and the cluster's names in this directory, for a start
    /// when none can be reached (default: forgotten at the end)
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,
    /// This node's name in the cluster (default: $NODE_NAME, else the host name)
    #[arg(long, value_name = "NAME", env = "FAIRLEAD_NODE_NAME")]
    pub(crate) node_name: Option<String>,
}
