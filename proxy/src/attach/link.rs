//! One program at one place, adopted from an earlier start where possible.

use std::{fs, io, os::fd::OwnedFd, path::Path};

use super::pins;
use crate::error::{KernelError, Step};
use crate::sys::{self, AttachType, LinkInfo, LinkTarget};

/// How a program came to be attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// A link was there: its program was replaced in place.
    Adopted,
    /// A new link.
    New,
}

/// Where a program belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) target: LinkTarget<'a>,
    /// What [`sys::link_info`] tells of a link that is there.
    pub(crate) info: LinkInfo,
}

/// Makes `program` run at `place`, under the pin `path`. There is no moment in which neither the
/// old program nor the new one runs; where a link cannot be adopted both do for an instant, which
/// is harmless: an address translated once is no service's any more.
pub(crate) fn attach(
    program: &OwnedFd,
    attach_type: AttachType,
    place: Place<'_>,
    path: &Path,
    step: &Step,
) -> Result<How, KernelError> {
    if adopt(program, place.info, path).is_some_and(|adopted| adopted.is_ok()) {
        return Ok(How::Adopted);
    }
    let link = sys::create_link(program, place.target, attach_type)
        .map_err(|error| KernelError::system(step.clone(), error))?;
    // Pinned under another name first: the old link goes only when the new one is safe.
    let fresh = path.with_file_name(format!("{}{}", file_name(path), pins::NEW));
    pins::unpin(&fresh)?;
    sys::pin(&link, &fresh).map_err(|error| KernelError::pin(&fresh, error))?;
    fs::rename(&fresh, path).map_err(|error| KernelError::pin(path, error))?;
    Ok(How::New)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn adopt(program: &OwnedFd, wanted: LinkInfo, path: &Path) -> Option<io::Result<()>> {
    found(wanted, path).map(|link| sys::update_link(&link, program))
}

/// The link that is pinned there. `None` if there is none, or one of another place: of a cgroup that was removed and made
/// again, of a device that is gone, or of another --cgroup-root.
pub(crate) fn found(wanted: LinkInfo, path: &Path) -> Option<OwnedFd> {
    let link = sys::pinned(path).ok()?;
    (sys::link_info(&link).ok()?.attached_to == wanted).then_some(link)
}
