//! Tells when a file may have changed, whichever way: written in place, replaced by rename, or, as
//! a mounted ConfigMap is, by swapping a link beside it.

use std::{io, path::Path, time::Duration};

use futures::StreamExt;
use inotify::{EventStream, Inotify, WatchMask};

/// Room for events of one read.
const EVENT_BUFFER_BYTES: usize = 4 << 10;
/// Quiet time after which whoever writes is done.
const QUIET: Duration = Duration::from_millis(50);

/// A watched directory.
pub(super) struct Watch(EventStream<Vec<u8>>);

impl Watch {
    /// Watches the directory that `file` is named in.
    pub(super) fn of(file: &Path) -> io::Result<Self> {
        let directory = match file.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let inotify = Inotify::init()?;
        let mask = WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::MOVE | WatchMask::DELETE;
        inotify.watches().add(directory, mask)?;
        Ok(Self(inotify.into_event_stream(vec![0; EVENT_BUFFER_BYTES])?))
    }

    /// Waits for something to happen in the directory and for it to be over.
    pub(super) async fn changed(&mut self) -> io::Result<()> {
        self.0.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
        while let Ok(Some(event)) = tokio::time::timeout(QUIET, self.0.next()).await {
            event?;
        }
        Ok(())
    }
}
