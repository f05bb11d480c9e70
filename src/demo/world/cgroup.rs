//! The world's cgroups: `node` (the agent, the node's own processes, its pods) and `outside` (the
//! client).

use std::{
    fs,
    os::fd::AsFd,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::layout::{Layout, Place};

/// Longest wait for killed processes to leave a cgroup.
const EXIT_TIMEOUT: Duration = Duration::from_secs(3);

/// Makes them, empty.
pub(crate) fn create(layout: &Layout) -> anyhow::Result<()> {
    for place in [Place::Node, Place::Client] {
        let dir = layout.cgroup(&place);
        fs::create_dir_all(&dir).with_context(|| {
            format!("making cgroup {} (is cgroup2 writable here?)", dir.display())
        })?;
    }
    Ok(())
}

/// Kills what runs in them and removes them.
pub(crate) fn remove(layout: &Layout) {
    remove_tree(layout.own_cgroup());
}

/// Kills all processes of a cgroup and of those one level below, and removes both. A missing one is
/// no error.
pub(crate) fn remove_tree(own: &Path) {
    if !own.exists() {
        return;
    }
    // cgroup.kill: kernel 5.14.
    if let Err(error) = fs::write(own.join("cgroup.kill"), "1") {
        tracing::warn!(%error, cgroup = %own.display(), "its processes could not be killed");
    }
    await_empty(own);
    let children = fs::read_dir(own).into_iter().flatten().flatten();
    for dir in children.map(|entry| entry.path()).filter(|path| path.is_dir()) {
        remove_one(&dir);
    }
    remove_one(own);
}

fn remove_one(dir: &Path) {
    if let Err(error) = fs::remove_dir(dir) {
        tracing::warn!(%error, cgroup = %dir.display(), "could not be removed");
    }
}

/// The kernel signals a change of `cgroup.events` as POLLPRI.
fn await_empty(own: &Path) {
    let path = own.join("cgroup.events");
    let started = Instant::now();
    loop {
        let Ok(file) = fs::File::open(&path) else { return };
        let populated = fs::read_to_string(&path).is_ok_and(|text| text.contains("populated 1"));
        let left = EXIT_TIMEOUT.saturating_sub(started.elapsed());
        if !populated || left.is_zero() {
            return;
        }
        // The text may change between the read and the poll: look again soon.
        let wait = PollTimeout::try_from(left.min(Duration::from_millis(20)));
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        if poll(&mut fds, wait.unwrap_or(PollTimeout::ZERO)).is_err() {
            return;
        }
    }
}
