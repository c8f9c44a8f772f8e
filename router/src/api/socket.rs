//! The unix socket: made for root alone, taken over from a daemon that died, never from one that lives.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::{UnixListener, UnixStream};

/// Why the socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A living daemon answers on it.
    #[error("another daemon answers on {0}; stop it, or give this one its own --socket")]
    InUse(PathBuf),
    /// Something else is at that path.
    #[error("{0} exists and is no socket; remove it, or give another --socket")]
    NotASocket(PathBuf),
    /// The system.
    #[error("cannot make the control socket {path}: {source}; check --socket and the permissions of its directory")]
    Io {
        /// The socket.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Binds the socket, mode 0600, in a directory made where it is missing.
///
/// # Errors
/// [`SocketError`] says who holds the path.
pub async fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let io = |source| SocketError::Io { path: path.to_owned(), source };
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(io)?;
    }
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) if is_alive(path).await => return Err(SocketError::InUse(path.to_owned())),
        Ok(_) => fs::remove_file(path).map_err(io)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path).map_err(io)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(io)?;
    Ok(listener)
}

/// Only a refusal shows that nobody listens: a daemon that is too busy to accept answers otherwise.
async fn is_alive(path: &Path) -> bool {
    !matches!(UnixStream::connect(path).await, Err(error) if error.kind() == io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dead_daemons_socket_is_taken_over_and_a_living_ones_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("sub/meshd.sock");
        let first = bind(&path).await.expect("bound");
        assert!(matches!(bind(&path).await, Err(SocketError::InUse(_))));
        drop(first);
        let second = bind(&path).await.expect("taken over");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        drop(second);
    }

    #[tokio::test]
    async fn a_file_in_the_way_is_left_alone() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        assert!(matches!(bind(file.path()).await, Err(SocketError::NotASocket(_))));
        assert!(file.path().exists());
    }
}
