//! The mount calls behind named namespaces.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;

/// Gives the calling thread a new, empty network namespace.
pub(super) fn unshare_network() -> io::Result<()> {
    // SAFETY: unshare takes no pointers; only the network namespace of this thread changes.
    outcome(unsafe { libc::unshare(libc::CLONE_NEWNET) })
}

/// Makes `target` show the file `source`.
pub(super) fn bind(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, libc::MS_BIND)
}

/// The same for a directory and all mounts below.
pub(super) fn bind_tree(source: &Path, target: &Path) -> io::Result<()> {
    mount(Some(source), target, libc::MS_BIND | libc::MS_REC)
}

/// Makes mounts below `target` appear in copies of this mount namespace. `EINVAL` if `target` is no mount point.
pub(super) fn share(target: &Path) -> io::Result<()> {
    mount(None, target, libc::MS_SHARED | libc::MS_REC)
}

/// Takes away the mount at `target`, even if it is in use. `EINVAL` if there is none.
pub(super) fn detach(target: &Path) -> io::Result<()> {
    let target = text(target)?;
    // SAFETY: the path is a terminated string that outlives the call.
    outcome(unsafe { libc::umount2(target.as_ptr(), libc::MNT_DETACH) })
}

fn mount(source: Option<&Path>, target: &Path, flags: libc::c_ulong) -> io::Result<()> {
    let source = source.map(text).transpose()?;
    let target = text(target)?;
    let source = source.as_ref().map_or(ptr::null(), |source| source.as_ptr());
    // SAFETY: the paths are null or terminated strings that outlive the call; these flags use neither type nor data.
    outcome(unsafe { libc::mount(source, target.as_ptr(), ptr::null(), flags, ptr::null()) })
}

fn text(path: &Path) -> io::Result<CString> {
    Ok(CString::new(path.as_os_str().as_bytes())?)
}

fn outcome(code: libc::c_int) -> io::Result<()> {
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
