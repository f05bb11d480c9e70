//! CoreDNS's configuration: read, checked and typed, or one error that names file, line and cure.
//!
//! ```text
//! bytes -> tokens (quotes, comments, environment) -> blocks (snippets, import) -> plugins (typed)
//! ```
//!
//! The order of lines within a server block has no meaning, as in CoreDNS: what asks first is fixed.

mod autopath;
mod bind;
mod blocks;
mod cache;
mod external;
mod forward;
mod guards;
mod hosts;
mod kubernetes;
mod loadbalance;
mod log;
mod matching;
mod plugins;
mod replies;
mod rewrite;
mod selector;
mod servers;
mod template;
mod together;
mod tokens;
mod values;
mod view;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use fairlead_state::in_one_line;
use ipnetwork::IpNetwork;

use crate::files::text_of;

pub use autopath::{AutopathOptions, Search};
pub(crate) use cache::FAILURE_RECHECK;
pub use cache::{CacheOptions, Half, Prefetch, Stale};
pub use external::ExternalOptions;
pub use forward::{ForwardOptions, ForwardPolicy, HealthCheck, TlsOptions, To, Transport};
pub use guards::{AclAction, AclRule};
pub use hosts::HostsOptions;
pub use kubernetes::{Fallthrough, KubernetesOptions, Pods};
pub use loadbalance::WeightOptions;
pub use log::{LogClass, LogField, LogOptions, LogPiece};
pub use matching::{NameMatch, Pattern};
pub use replies::{Dns64Options, FlagBits, HeaderOptions};
pub use rewrite::{AnswerRewrite, OptionAction, RewriteField, RewriteRule};
pub use selector::Selector;
pub use servers::{Health, Reload};
pub use template::{Piece, RecordTemplate, TemplateOptions, Value};
pub use view::{Condition, NumberOf, NumberTest, TextOf, TextTest, ViewOptions};

/// A whole Corefile.
#[derive(Clone, Debug, PartialEq)]
pub struct Corefile {
    /// Server blocks in the order of the file.
    pub blocks: Vec<ServerBlock>,
    /// Every file that was read: the Corefile and what it imports.
    pub files: Vec<PathBuf>,
}

/// The port of blocks that name none.
pub const DEFAULT_PORT: u16 = 53;

/// One server block: names, where they are served, and what answers them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServerBlock {
    /// Zones with their ports; the longest that fits a question answers it.
    pub zones: Vec<ZoneAt>,
    /// Names of the plugins that have a say in answers, as they are written.
    pub plugins: Vec<String>,
    /// `view`: only questions for which it holds are answered here.
    pub view: Option<ViewOptions>,
    /// `bind`: addresses to listen on; empty for the agent's own.
    pub bind: Vec<IpAddr>,
    /// `errors` is there.
    pub errors: bool,
    /// `log`, in the order of the lines: the first whose zones hold a name decides.
    pub logs: Vec<LogOptions>,
    /// `health`.
    pub health: Option<Health>,
    /// `ready`: where it is served.
    pub ready: Option<std::net::SocketAddr>,
    /// `prometheus`: where it is served.
    pub prometheus: Option<std::net::SocketAddr>,
    /// `reload`.
    pub reload: Option<Reload>,
    /// `loop` is there.
    pub detect_loops: bool,
    /// `loadbalance`, not by weights. Else addresses keep their order.
    pub rotate: bool,
    /// `prefer` of `loadbalance`: addresses of the first network that has any come first, and so on.
    pub prefer: Vec<IpNetwork>,
    /// `weighted` of `loadbalance`: which address comes first.
    pub weights: Option<WeightOptions>,
    /// `bufsize`: largest UDP reply, in bytes.
    pub buffer_bytes: Option<u16>,
    /// `any`.
    pub any: bool,
    /// `minimal`.
    pub minimal: bool,
    /// `header`.
    pub header: Option<HeaderOptions>,
    /// `nsid` is there, with its text if it has one.
    pub nsid: Option<Option<String>>,
    /// `dns64`.
    pub dns64: Option<Dns64Options>,
    /// `whoami`.
    pub whoami: bool,
    /// `autopath`.
    pub autopath: Option<AutopathOptions>,
    /// `acl`, in order: the first rule that fits decides.
    pub acl: Vec<AclRule>,
    /// `rewrite`, in order.
    pub rewrites: Vec<RewriteRule>,
    /// `template`, in order.
    pub templates: Vec<TemplateOptions>,
    /// `hosts`.
    pub hosts: Option<HostsOptions>,
    /// `kubernetes`.
    pub kubernetes: Option<KubernetesOptions>,
    /// `k8s_external`.
    pub external: Option<ExternalOptions>,
    /// `cache`.
    pub cache: Option<CacheOptions>,
    /// `forward`, one per origin.
    pub forwards: Vec<ForwardOptions>,
}

/// A zone and the port it is served on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ZoneAt {
    /// Lower case, without the final dot; the root is `.`.
    pub zone: String,
    /// UDP and TCP port.
    pub port: u16,
}

/// What a Corefile wants to be read besides Services, their endpoints and Namespaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Pods.
    pub pods: PodsOf,
    /// ServiceImports.
    pub imports: bool,
    /// Labels of Services and Namespaces.
    pub labels: bool,
}

/// Whose pods are followed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PodsOf {
    /// None.
    #[default]
    Nobody,
    /// The own node's.
    Node,
    /// All.
    Cluster,
}

/// What is wrong with a Corefile, where, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorefileError {
    /// File as it was named.
    pub file: Arc<str>,
    /// Line, from 1; 0 for the file as a whole.
    pub line: u32,
    /// What, and the cure.
    pub reason: String,
}

impl fmt::Display for CorefileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.file, self.reason),
            line => write!(f, "{}:{line}: {}", self.file, self.reason),
        }
    }
}

impl std::error::Error for CorefileError {}

/// Longest Corefile, imports each, in bytes: a ConfigMap holds no more.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Values of environment variables.
pub type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

impl Corefile {
    /// Reads a file and what it imports.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn read(path: &Path) -> Result<Self, CorefileError> {
        let text = read_text(path)?;
        Self::parse(path, &text, &|name| std::env::var(name).ok())
    }

    /// Parses a Corefile's text; `path` names it in errors, and imports are relative to it.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(
        path: &Path,
        text: &str,
        environment: Environment<'_>,
    ) -> Result<Self, CorefileError> {
        // Errors repeat words of the file, and a word in quotes may have lines.
        Self::parsed(path, text, environment).map_err(|CorefileError { file, line, reason }| {
            let (file, reason) = (in_one_line(&file).into(), in_one_line(&reason).into());
            CorefileError { file, line, reason }
        })
    }

    fn parsed(
        path: &Path,
        text: &str,
        environment: Environment<'_>,
    ) -> Result<Self, CorefileError> {
        let mut files = vec![path.to_owned()];
        let written = blocks::parse(path, text, environment, &mut files)?;
        let blocks = written.iter().map(plugins::server_block).collect::<Result<Vec<_>, _>>()?;
        let places: Vec<_> = written.iter().zip(&blocks).collect();
        together::check(&places)?;
        Ok(Self { blocks, files })
    }

    /// The first of a plugin's settings that is for the whole process.
    fn first<T>(&self, of: impl Fn(&ServerBlock) -> Option<T>) -> Option<T> {
        self.blocks.iter().find_map(of)
    }

    /// `health`, of whichever block has it.
    pub fn health(&self) -> Option<Health> {
        self.first(|block| block.health)
    }

    /// `ready`.
    pub fn ready(&self) -> Option<std::net::SocketAddr> {
        self.first(|block| block.ready)
    }

    /// `prometheus`.
    pub fn prometheus(&self) -> Option<std::net::SocketAddr> {
        self.first(|block| block.prometheus)
    }

    /// How often the file is read again; `None`: never.
    pub fn reload(&self) -> Option<Duration> {
        self.first(|block| block.reload).and_then(|reload| reload.0)
    }

    /// What must be read besides Services: the own node's pods for `autopath @kubernetes`, all for `pods
    /// verified`, ServiceImports for `multicluster`, labels for `labels` and `namespace_labels`.
    pub fn needs(&self) -> Needs {
        let mut autopath = self.blocks.iter().filter_map(|block| block.autopath.as_ref());
        let walks = autopath.any(|path| matches!(path.search, Search::Pods(_)));
        let kubernetes = self.kubernetes();
        let pods = match kubernetes.as_ref().map(|kubernetes| kubernetes.pods) {
            Some(Pods::Verified) => PodsOf::Cluster,
            _ if walks => PodsOf::Node,
            _ => PodsOf::Nobody,
        };
        let imports = kubernetes.as_ref().is_some_and(|all| all.multicluster.is_some());
        let labels =
            kubernetes.is_some_and(|all| all.labels.is_some() || all.namespace_labels.is_some());
        Needs { pods, imports, labels }
    }

    /// `kubernetes`: the settings of the first block that has it, and the zones of all.
    pub fn kubernetes(&self) -> Option<KubernetesOptions> {
        let mut all = self.blocks.iter().filter_map(|block| block.kubernetes.clone());
        let mut first = all.next()?;
        for next in all {
            for zone in next.reverse_zones {
                if !first.reverse_zones.contains(&zone) {
                    first.reverse_zones.push(zone);
                }
            }
            first.domain = first.domain.or(next.domain);
            first.multicluster = first.multicluster.or(next.multicluster);
        }
        Some(first)
    }
}

fn read_text(path: &Path) -> Result<String, CorefileError> {
    text_of(path, FILE_BYTES_MAX).map_err(|error| CorefileError {
        file: path.display().to_string().into(),
        line: 0,
        reason: format!("cannot be read: {error}"),
    })
}

#[cfg(test)]
mod tests;
