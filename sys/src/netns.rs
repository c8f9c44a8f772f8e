//! Network namespaces: opening, entering, and the named ones that `ip netns` knows.
//!
//! A namespace lives as long as a process is in it, a descriptor is open on it ([`NetNs`]) or a file is bind-mounted on
//! it (a named one). No thread of the program ever changes its own namespace: work in another one is done by a thread
//! made for it, which ends with it, so that no pool thread is left in the wrong place.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

mod mount;

use crate::netlink::Netlink;
use crate::{Error, Result};

/// Where iproute2 keeps its named namespaces; ours are there too, for `ip netns exec` and other tools.
const DIRECTORY: &str = "/run/netns";

/// An open network namespace; it stays alive while this is held.
#[derive(Debug)]
pub struct NetNs {
    file: File,
}

/// What tells namespaces apart while they live: device and inode of the namespace file. The kernel may give the numbers
/// of a dead namespace to a new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NetNsId {
    /// The device number of the namespace file system.
    pub dev: u64,
    /// The inode, which is also the number in `net:[4026531840]`.
    pub inode: u64,
}

impl NetNs {
    /// Opens a namespace by its file: `/proc/PID/ns/net`, `/run/netns/NAME` or what a container runtime hands over.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // The path comes from outside: a pipe or a device in its place must not block the open.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file =
            file.map_err(|source| Error::refused(format!("open network namespace {}", path.display()), source))?;
        if namespace_kind(&file) != Some(libc::CLONE_NEWNET) {
            let reason = "it is not the file of a network namespace, such as /proc/PID/ns/net or /run/netns/NAME";
            return Err(Error::invalid("network namespace", path.to_string_lossy(), reason));
        }
        Ok(Self { file })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self> {
        // Not /proc/self: that is the main thread's namespace.
        Self::open("/proc/thread-self/ns/net")
    }

    /// A second handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self> {
        let file = self.file.try_clone();
        Ok(Self { file: file.map_err(|source| Error::refused("duplicate a namespace descriptor", source))? })
    }

    /// What tells this namespace from others.
    pub fn identity(&self) -> Result<NetNsId> {
        let metadata = self.file.metadata().map_err(|source| Error::refused("examine a network namespace", source))?;
        Ok(NetNsId { dev: metadata.dev(), inode: metadata.ino() })
    }

    /// Runs `work` on a fresh thread inside this namespace and waits for it. Sockets that it opens and programs that it
    /// starts stay in the namespace after the thread has ended. A panic in `work` goes on in the caller.
    ///
    /// Do not combine with [`crate::process::die_with_parent`], which counts the thread as the parent.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        on_own_thread(|| {
            self.enter().map_err(|source| Error::refused("enter a network namespace", source))?;
            Ok(work())
        })
    }

    /// Moves the calling thread into the namespace. Only for threads and processes made for it. Async-signal-safe.
    pub(crate) fn enter(&self) -> io::Result<()> {
        // SAFETY: setns takes a descriptor, which is open as long as `self` is, and no pointers.
        match unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

impl AsFd for NetNs {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// Makes a namespace with the given name and brings its loopback up. Fails with [`Error::is_exists`] if there is one.
pub fn create(name: &str) -> Result<NetNs> {
    let path = checked_path(name)?;
    prepare_directory().map_err(|source| Error::refused(format!("prepare {DIRECTORY}"), source))?;
    let operation = || format!("create network namespace {name}");
    let place = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path);
    place.map_err(|source| Error::refused(operation(), source))?;
    let made = on_own_thread(|| {
        mount::unshare_network().map_err(|source| Error::refused(operation(), source))?;
        let mut netlink = Netlink::connect()?;
        let loopback = netlink.link("lo")?.map(|link| link.index);
        loopback.map_or(Ok(()), |index| netlink.set_up(index))?;
        mount::bind(Path::new("/proc/thread-self/ns/net"), &path)
            .map_err(|source| Error::refused(operation(), source))?;
        NetNs::current()
    });
    if made.is_err() {
        // The first error is the one to tell; what is left over is at most an empty file.
        let _ = remove(name);
    }
    made
}

/// Removes a named namespace; one that is absent is fine. The kernel ends the namespace, its links with it, once no
/// process and no descriptor holds it any more.
pub fn remove(name: &str) -> Result<()> {
    let path = checked_path(name)?;
    let operation = || format!("remove network namespace {name}");
    match mount::detach(&path) {
        // Not mounted: a left-over of an interrupted create, or absent.
        Err(source) if !matches!(source.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
            return Err(Error::refused(operation(), source));
        }
        _ => {}
    }
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => Err(Error::refused(operation(), source)),
        _ => Ok(()),
    }
}

/// The names of all named namespaces, sorted.
pub fn names() -> Result<Vec<String>> {
    let refused = |source| Error::refused(format!("list {DIRECTORY}"), source);
    let entries = match fs::read_dir(DIRECTORY) {
        Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(refused)?,
    };
    let names: io::Result<Vec<_>> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect();
    let mut names = names.map_err(refused)?;
    names.sort();
    Ok(names)
}

/// The file of the namespace with this name.
pub fn path(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

fn checked_path(name: &str) -> Result<PathBuf> {
    let usable = !matches!(name, "" | "." | "..") && !name.contains(['/', '\0']);
    match usable {
        true => Ok(path(name)),
        false => Err(Error::invalid("name of a network namespace", name, "it must be the name of a single file")),
    }
}

/// Makes the directory a shared mount of its own, as iproute2 does: a namespace mounted there later then also appears,
/// and disappears, in mount namespaces that were copied from this one, so that it can really end.
fn prepare_directory() -> io::Result<()> {
    let directory = Path::new(DIRECTORY);
    DirBuilder::new().mode(0o755).recursive(true).create(directory)?;
    let lock = File::open(directory)?;
    // Without the lock two programs could both mount the directory on itself, one hiding the other's namespaces.
    lock.lock()?;
    match mount::share(directory) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount::bind_tree(directory, directory)?;
            mount::share(directory)
        }
        outcome => outcome,
    }
}

fn on_own_thread<T: Send>(work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("netns".into()).spawn_scoped(scope, work);
        let thread = thread.map_err(|source| Error::refused("start a thread for a network namespace", source))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The `CLONE_NEW…` constant of a namespace file, `None` for any other file.
fn namespace_kind(file: &File) -> Option<i32> {
    // SAFETY: NS_GET_NSTYPE takes no argument, touches no memory of ours, and fails on files it does not know.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), libc::NS_GET_NSTYPE) };
    (kind >= 0).then_some(kind)
}
