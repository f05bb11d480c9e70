//! Keeps the node's connection tracking as the settings want it.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::args::Args;
use crate::kube_proxy::sysctls;

/// The kernel's module may be loaded later, by the first rule that needs it.
const RETRY: Duration = Duration::from_secs(60);

/// Writes at once, whenever the settings change, and again while something is missing.
pub(super) async fn keep(mut settings: watch::Receiver<Arc<Args>>) {
    let mut said = None;
    loop {
        let args = settings.borrow_and_update().drop_in.clone();
        let complaint = sysctls::apply(&args.sysctl_root, &args.conntrack);
        if let Some(line) = complaint.as_ref().filter(|line| said.as_ref() != Some(*line)) {
            tracing::warn!("{line}");
        }
        let is_complete = complaint.is_none();
        said = complaint;
        let retry = async {
            if is_complete {
                std::future::pending::<()>().await;
            }
            tokio::time::sleep(RETRY).await;
        };
        tokio::select! {
            changed = settings.changed() => if changed.is_err() { return },
            () = retry => {}
        }
    }
}
