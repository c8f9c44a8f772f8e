//! Small files that are there completely or not at all.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Makes a directory for its owner alone, with its parents. One that is there stays as it is.
pub(crate) fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Writes a new file for its owner alone, and to disk. One that is there is replaced.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    remove_if_there(path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(content).and_then(|()| file.sync_all());
    if written.is_err() {
        remove_if_there(path)?;
    }
    written
}

/// Reads a file of at most `limit` bytes; of a longer one the first `limit + 1`.
pub(crate) fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit + 1).read_to_end(&mut content)?;
    Ok(content)
}

/// Removes a file; that there is none is as good.
pub(crate) fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Renames each of these files that is there to its name with `.damaged-N`, with the least N that is free for all.
/// Returns the new names.
pub(crate) fn move_aside(directory: &Path, names: &[&str]) -> io::Result<Vec<PathBuf>> {
    let aside = |name: &&str, number: u32| directory.join(format!("{name}.damaged-{number}"));
    let is_free = |number: &u32| names.iter().all(|name| !aside(name, *number).exists());
    let number = (1..).find(is_free).unwrap_or(u32::MAX);
    let mut moved = Vec::new();
    for name in names {
        match fs::rename(directory.join(name), aside(name, number)) {
            Ok(()) => moved.push(aside(name, number)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    sync_directory(directory)?;
    Ok(moved)
}
