//! Whose TLS is passed on. All that is served of a host goes with it: who has `/` decides, if its namespace
//! has the host. ingress-nginx takes the word of any Ingress of the host.

use std::sync::Arc;

use fairlead_state::Key;

use super::super::super::{
    Route,
    compile::Compiled,
    finding::{Finding, Severity},
    upstream::Upstream,
};
use crate::host::HostPattern;

/// A host, as far as its TLS is concerned.
pub(super) struct Passing<'a> {
    pub(super) pattern: &'a HostPattern,
    /// See `Ruling::owner`.
    pub(super) owner: &'a Key,
    /// Who has `/`.
    pub(super) root: Option<&'a Arc<Route>>,
}

impl Passing<'_> {
    /// Where its TLS goes; `None`: it ends here. `asking`: whoever wants it passed on.
    pub(super) fn to(
        &self,
        asking: &[&Compiled],
        findings: &mut Vec<Finding>,
    ) -> Option<Arc<Upstream>> {
        let mut to = None;
        for compiled in asking {
            match self.asked_by(&compiled.age.key) {
                Ok(upstream) => to = Some(upstream),
                Err(finding) => findings.push(finding),
            }
        }
        to
    }

    fn asked_by(&self, own: &Key) -> Result<Arc<Upstream>, Finding> {
        let Self { pattern, owner, root } = self;
        let nowhere = || {
            let reason = format!(
                "annotation ssl-passthrough: host {pattern} has no name or no path / to pass to"
            );
            Finding::ingress(own, Severity::Refused, reason)
        };
        // Who calls no name calls no host.
        let root = root.filter(|_| **pattern != HostPattern::Any).ok_or_else(nowhere)?;
        if root.ingress != *own {
            return Err(Finding::beside(own, &root.ingress, |who| {
                format!(
                    "annotation ssl-passthrough: path / of host {pattern} belongs to {who}, which \
                     alone decides where TLS ends"
                )
            }));
        }
        if own.namespace != owner.namespace {
            return Err(Finding::beside(own, owner, |who| {
                format!(
                    "annotation ssl-passthrough: host {pattern} belongs to {who}, whose paths would \
                     not be served any more"
                )
            }));
        }
        root.upstream.clone().ok_or_else(nowhere)
    }
}
