//! Which parts run.

use clap::ArgAction;

/// Which parts run in this process.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Roles (all on unless turned off)")]
pub(crate) struct Roles {
    /// Balance Services by eBPF
    #[arg(long, overrides_with = "no_proxy", action = ArgAction::SetTrue)]
    proxy: bool,
    /// Leave Services to another proxy
    #[arg(long, env = "FAIRLEAD_NO_PROXY")]
    no_proxy: bool,
    /// Answer for the cluster's names
    #[arg(long, overrides_with = "no_dns", action = ArgAction::SetTrue)]
    dns: bool,
    /// Leave names to another server
    #[arg(long, env = "FAIRLEAD_NO_DNS")]
    no_dns: bool,
    /// Serve Ingresses
    #[arg(long, overrides_with = "no_ingress", action = ArgAction::SetTrue)]
    ingress: bool,
    /// Leave Ingresses to another controller
    #[arg(long, env = "FAIRLEAD_NO_INGRESS")]
    no_ingress: bool,
}

impl Roles {
    pub(crate) fn proxy(self) -> bool {
        self.proxy || !self.no_proxy
    }

    pub(crate) fn dns(self) -> bool {
        self.dns || !self.no_dns
    }

    pub(crate) fn ingress(self) -> bool {
        self.ingress || !self.no_ingress
    }
}
