//! The thread that writes: whatever it waits for, no request does.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::MetadataExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use super::LogTarget;

/// Blocks that wait to be written; with them the queue holds a few megabytes.
const BLOCKS_MAX: usize = 128;
/// How often it is looked whether the file is still where it was.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Lines for one place.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) target: LogTarget,
    pub(super) bytes: Vec<u8>,
    pub(super) lines: u64,
}

/// Where threads send blocks.
#[derive(Clone, Debug)]
pub(crate) struct Queue(SyncSender<Block>);

/// A queue, and its other end.
pub(crate) fn queue() -> (Queue, Receiver<Block>) {
    let (sender, receiver) = sync_channel(BLOCKS_MAX);
    (Queue(sender), receiver)
}

impl Queue {
    /// False if there is no room.
    pub(super) fn send(&self, block: Block) -> bool {
        self.0.try_send(block).is_ok()
    }
}

/// Writes until all senders are gone. Lines that cannot be written are counted.
pub(crate) fn write(blocks: &Receiver<Block>, lost: &Arc<AtomicU64>) {
    let mut open: Option<Place> = None;
    let mut is_failing = false;
    while let Ok(block) = blocks.recv() {
        match write_to(&mut open, &block) {
            Ok(()) => is_failing = false,
            Err(error) => {
                open = None;
                lost.fetch_add(block.lines, Relaxed);
                if !std::mem::replace(&mut is_failing, true) {
                    let place = place_name(&block.target);
                    tracing::warn!(
                        %error,
                        "the access log cannot be written to {place}; its lines are lost until it can"
                    );
                }
            }
        }
    }
}

fn place_name(target: &LogTarget) -> String {
    match target {
        LogTarget::Stdout => "standard output".to_owned(),
        LogTarget::File(path) => path.display().to_string(),
    }
}

/// A place that is open.
struct Place {
    target: LogTarget,
    out: Out,
}

enum Out {
    Stdout,
    File { file: File, inode: u64, looked: Instant },
}

fn write_to(open: &mut Option<Place>, block: &Block) -> io::Result<()> {
    let is_open = open.as_mut().is_some_and(|place| place.is(&block.target));
    if !is_open {
        *open = Some(Place::open(&block.target)?);
    }
    match open.as_mut().map(|place| &mut place.out) {
        Some(Out::File { file, .. }) => file.write_all(&block.bytes),
        Some(Out::Stdout) => {
            let mut stdout = io::stdout().lock();
            stdout.write_all(&block.bytes)?;
            stdout.flush()
        }
        None => Ok(()),
    }
}

impl Place {
    fn open(target: &LogTarget) -> io::Result<Self> {
        let out = match target {
            LogTarget::Stdout => Out::Stdout,
            LogTarget::File(path) => {
                let file = OpenOptions::new().append(true).create(true).open(path)?;
                let inode = file.metadata()?.ino();
                Out::File { file, inode, looked: Instant::now() }
            }
        };
        Ok(Self { target: target.clone(), out })
    }

    /// Whether lines for `target` belong here: not into a file that was moved away.
    fn is(&mut self, target: &LogTarget) -> bool {
        if self.target != *target {
            return false;
        }
        match (&mut self.out, target) {
            (Out::File { inode, looked, .. }, LogTarget::File(path)) => {
                if looked.elapsed() < LOOK_AGAIN {
                    return true;
                }
                *looked = Instant::now();
                is_there(path, *inode)
            }
            _ => true,
        }
    }
}

fn is_there(path: &Path, inode: u64) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.ino() == inode)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(target: &LogTarget, text: &str) -> Block {
        Block { target: target.clone(), bytes: text.as_bytes().to_vec(), lines: 1 }
    }

    #[test]
    fn a_full_queue_takes_no_more() {
        let (queue, blocks) = queue();
        let sent = (0..BLOCKS_MAX + 5).filter(|_| queue.send(block(&LogTarget::Stdout, "a")));
        assert_eq!(sent.count(), BLOCKS_MAX);
        drop(blocks);
        assert!(!queue.send(block(&LogTarget::Stdout, "a")));
    }

    #[test]
    fn a_file_is_appended_to_and_what_cannot_be_written_is_counted() {
        let directory = tempfile::tempdir().unwrap();
        let good = LogTarget::File(directory.path().join("access.log"));
        let bad = LogTarget::File(directory.path().join("none/access.log"));
        std::fs::write(directory.path().join("access.log"), "before\n").unwrap();
        let (queue, blocks) = queue();
        for (target, text) in [(&good, "a\n"), (&bad, "b\n"), (&good, "c\n")] {
            assert!(queue.send(block(target, text)));
        }
        drop(queue);
        let lost = Arc::default();
        write(&blocks, &lost);
        let written = std::fs::read_to_string(directory.path().join("access.log")).unwrap();
        assert_eq!(written, "before\na\nc\n");
        assert_eq!(lost.load(Relaxed), 1);
    }

    #[test]
    fn a_file_that_was_moved_away_is_made_anew() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("access.log");
        let target = LogTarget::File(path.clone());
        let mut open = None;
        write_to(&mut open, &block(&target, "a\n")).unwrap();
        std::fs::rename(&path, directory.path().join("access.log.1")).unwrap();
        if let Some(Place { out: Out::File { looked, .. }, .. }) = &mut open {
            *looked -= LOOK_AGAIN;
        }
        write_to(&mut open, &block(&target, "b\n")).unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "b\n");
    }
}
