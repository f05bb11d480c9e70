//! Memory that is not needed any more goes back to the system: what was freed, which the allocator keeps for
//! what comes next, and code that only a start needs. After a start or a list of everything nothing as large
//! comes for days.
#![expect(unsafe_code, reason = "two calls without a safe wrapper; nowhere else")]

use std::{fs, io, ops::Range, ptr, time::Duration};

use fairlead_state::store::Snapshots;

/// What a change needs is freed by then, and many changes are one.
const PAUSE: Duration = Duration::from_secs(5);
/// Traffic frees memory, too.
const AT_LATEST: Duration = Duration::from_secs(60);

/// Gives back what is free after each change, and every minute; ends with the store.
pub(crate) async fn keep_small(mut snapshots: Snapshots) {
    let mut has_started = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        let is_known = snapshots.borrow_and_update().is_some();
        let ends_start = is_known && !std::mem::replace(&mut has_started, is_known);
        // Milliseconds of system calls: no work for a thread that serves.
        let giving = tokio::task::spawn_blocking(move || {
            give_back();
            if ends_start && let Err(error) = give_back_code() {
                tracing::debug!(%error, "code that only the start needed stays in memory");
            }
        });
        if giving.await.is_err() {
            return;
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(AT_LATEST) => {}
        }
    }
}

fn give_back() {
    // SAFETY: it takes no pointers and may be called by any thread at any time.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Takes the program's pages out of this process: those that are needed come back from the page cache as they
/// are touched. The kernel maps 64 KiB around each place a start touches, so that half of a large program
/// is there in the end, and serving needs a fraction of it.
fn give_back_code() -> io::Result<()> {
    let program = fs::read_link("/proc/self/exe")?;
    let smaps = fs::read_to_string("/proc/self/smaps")?;
    for part in clean_parts(&smaps, &program.to_string_lossy()) {
        let start = ptr::with_exposed_provenance_mut(part.start);
        // SAFETY: a private mapping of our own program in which nothing was ever written, as the kernel has just
        // said: whoever touches a page of it again gets the file's, which is what was there.
        let result = unsafe { libc::madvise(start, part.len(), libc::MADV_DONTNEED) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Where a file is mapped privately and nothing was written: no relocations, and no breakpoints.
fn clean_parts(smaps: &str, file: &str) -> Vec<Range<usize>> {
    let mut clean = vec![];
    let mut part = None;
    for line in smaps.lines() {
        if let Some((range, permissions, of)) = mapping(line) {
            part = (permissions.ends_with('p') && of == file).then_some(range);
        } else if let Some(written) = line.strip_prefix("Anonymous:") {
            clean.extend(part.take().filter(|_| written.trim() == "0 kB"));
        }
    }
    clean
}

/// A mapping's place, permissions and file, if a line begins one (proc_pid_maps(5)).
fn mapping(line: &str) -> Option<(Range<usize>, &str, &str)> {
    let mut words = line.splitn(6, ' ');
    let (from, to) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(from)?..address(to)?;
    let permissions = words.next()?;
    Some((range, permissions, words.nth(3).unwrap_or_default().trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_to_is_never_given_back() {
        let part = |place: &str, permissions: &str, file: &str, written: u32| {
            format!(
                "{place} {permissions} 00000000 fe:00 1234                       {file}\n\
                 Size:                  4 kB\nAnonymous:        {written:8} kB\nVmFlags: rd mr\n"
            )
        };
        let smaps = [
            part("1000-3000", "r--p", "/bin/fair lead", 0),
            part("3000-9000", "r-xp", "/bin/fair lead", 0),
            // Relocations; a breakpoint; what others share; another file; none.
            part("9000-a000", "r--p", "/bin/fair lead", 4),
            part("b000-c000", "r-xp", "/bin/fair lead", 8),
            part("c000-d000", "r--s", "/bin/fair lead", 0),
            part("d000-e000", "r-xp", "/lib/libc.so.6", 0),
            part("e000-f000", "rw-p", "", 0),
        ];
        assert_eq!(
            clean_parts(&smaps.concat(), "/bin/fair lead"),
            [0x1000..0x3000, 0x3000..0x9000]
        );
    }

    #[test]
    fn code_is_given_back_and_goes_on_working() {
        let of_files = || {
            let status = fs::read_to_string("/proc/self/status").unwrap();
            let line = status.lines().find_map(|line| line.strip_prefix("RssFile:")).unwrap();
            line.trim().trim_end_matches(" kB").parse::<u64>().unwrap()
        };
        let before = of_files();
        give_back_code().unwrap();
        assert!(of_files() < before, "{} of {before} kB", of_files());
    }
}
