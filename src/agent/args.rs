//! The agent's flags. Each has an environment variable; cli contract: docs/architecture.md.

mod admin;
mod dns;
mod drop_in;
mod ingress;
mod listen;
mod or_none;
mod proxy;
mod publish;
mod roles;
mod source;

pub(crate) use admin::AdminArgs;
pub(crate) use dns::{DnsArgs, Upstream};
pub(crate) use drop_in::{ConntrackArgs, DropInArgs};
pub(crate) use ingress::IngressArgs;
pub(crate) use or_none::OrNone;
pub(crate) use proxy::{Balancing, ProxyArgs, SocketPrograms};
pub(crate) use publish::{NamespacedName, PublishArgs};
pub(crate) use roles::Roles;
pub(crate) use source::SourceArgs;

/// Flags of `fairlead agent`.
#[derive(Clone, Debug, clap::Args)]
// What a chart adds (extraArgs) comes behind what it says itself, and wins, as with Kubernetes' own programs.
#[command(args_override_self = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) roles: Roles,
    #[command(flatten)]
    pub(crate) source: SourceArgs,
    #[command(flatten)]
    pub(crate) admin: AdminArgs,
    #[command(flatten)]
    pub(crate) proxy: ProxyArgs,
    #[command(flatten)]
    pub(crate) drop_in: DropInArgs,
    #[command(flatten)]
    pub(crate) dns: DnsArgs,
    #[command(flatten)]
    pub(crate) ingress: IngressArgs,
    #[command(flatten)]
    pub(crate) publish: PublishArgs,
}

impl Args {
    /// Takes over from `new` what can change while running.
    pub(crate) fn take_live(&mut self, new: Self) {
        self.admin.log_level = new.admin.log_level;
        self.admin.drain_timeout = new.admin.drain_timeout;
        self.admin.lameduck = new.admin.lameduck;
        self.drop_in.conntrack = new.drop_in.conntrack;
        self.dns.upstream = new.dns.upstream;
        self.dns.dns_ttl = new.dns.dns_ttl;
        self.dns.dns_negative_ttl = new.dns.dns_negative_ttl;
    }
}
