//! Files that hold mesh secrets.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use meshwork_identity::{Secret, SecretError, Secrets};
use zeroize::Zeroizing;

use crate::error::{SecretFileError, StateError};
use crate::file;

/// 64 digits and a newline.
const MAX_SECRET_FILE: u64 = 65;

/// Secrets with what should be said about their files.
#[derive(Debug)]
pub struct LoadedSecrets {
    /// In the order of the files.
    pub secrets: Secrets,
    /// Nothing that stops anyone.
    pub warnings: Vec<SecretWarning>,
}

/// A secret file that should be corrected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} has mode {mode:o}, so others can read the mesh secret: run `chmod 600` on it", .path.display())]
pub struct SecretWarning {
    /// The file.
    pub path: PathBuf,
    /// Its permission bits.
    pub mode: u32,
}

/// Reads secrets: the first one is used, all are accepted.
///
/// # Errors
/// [`SecretFileError`] names the file and what is wrong with it.
pub fn load_secret_files<P: AsRef<Path>>(paths: &[P]) -> Result<LoadedSecrets, SecretFileError> {
    let (mut secrets, mut warnings) = (Vec::new(), Vec::new());
    for path in paths.iter().map(AsRef::as_ref) {
        secrets.push(load(path)?);
        warnings.extend(exposure(path));
    }
    let secrets = Secrets::new(secrets).map_err(SecretFileError::List)?;
    Ok(LoadedSecrets { secrets, warnings })
}

/// Makes a secret of 32 random bytes in a new file that only its owner can read. One that is there stays.
///
/// # Errors
/// [`SecretFileError::Exists`], or that the file could not be written.
pub fn create_secret(path: &Path, random: [u8; 32]) -> Result<Secret, SecretFileError> {
    let fail = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => SecretFileError::Exists { path: path.to_owned() },
        _ => SecretFileError::File(StateError::of(path, error)),
    };
    let secret = Secret::generate(random);
    let text = Zeroizing::new(format!("{}\n", secret.to_hex().as_str()));
    let mut new = path.as_os_str().to_owned();
    new.push(format!(".new-{}", std::process::id()));
    let new = PathBuf::from(new);
    file::write_private(&new, text.as_bytes()).map_err(fail)?;
    // A link, unlike a rename, never replaces a file that appeared meanwhile.
    let linked = fs::hard_link(&new, path);
    file::remove_if_there(&new).map_err(fail)?;
    linked.map_err(fail)?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    file::sync_directory(directory).map_err(fail)?;
    Ok(secret)
}

fn load(path: &Path) -> Result<Secret, SecretFileError> {
    let content =
        file::read_bounded(path, MAX_SECRET_FILE).map(Zeroizing::new).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => SecretFileError::Missing { path: path.to_owned() },
            _ => SecretFileError::File(StateError::of(path, error)),
        })?;
    let wrong = |source| SecretFileError::Content { path: path.to_owned(), source };
    let text = std::str::from_utf8(&content).map_err(|_| wrong(SecretError::NotHex))?;
    Secret::parse_hex(text).map_err(wrong)
}

fn exposure(path: &Path) -> Option<SecretWarning> {
    let mode = fs::metadata(path).map(|metadata| metadata.permissions()).as_ref().map_or(0, Permissions::mode) & 0o7777;
    (mode & 0o077 != 0).then(|| SecretWarning { path: path.to_owned(), mode })
}
