//! nftables through the `nft` program, in the network namespace of the calling thread.
//!
//! A script is one transaction of the kernel: all of it takes effect at once, or nothing. So callers replace a table by
//! a script that adds, deletes and defines it again, and there is never a moment of half a policy.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::fd::FromRawFd;
use std::process::{Command, Output, Stdio};

use crate::{Error, Result};

/// How much of nft's complaint is kept: it repeats whole lines of the script, which may be long.
const COMPLAINT_LIMIT: usize = 2048;

/// Applies a script in one transaction. With [`Error::NftRefused`] nothing of it has taken effect.
pub fn apply(script: &str) -> Result<()> {
    let output = run(&["-f", "-"], script)?;
    accepted(&output, || "apply a script".into())
}

/// The listing of a table in nft's own syntax, `None` if there is no such table.
pub fn list_table(family: &str, name: &str) -> Result<Option<String>> {
    let (family, name) = (word(family)?, word(name)?);
    let output = run(&["list", "table", family, name], "")?;
    match accepted(&output, || format!("list table {family} {name}")) {
        Ok(()) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Deletes a table with all in it; one that is absent is fine.
pub fn delete_table(family: &str, name: &str) -> Result<()> {
    let (family, name) = (word(family)?, word(name)?);
    // Adding what exists changes nothing, so the deletion always finds it.
    apply(&format!("add table {family} {name}\ndelete table {family} {name}\n"))
}

fn run(arguments: &[&str], script: &str) -> Result<Output> {
    let script = in_memory(script).map_err(|source| Error::refused("hold a script for nft", source))?;
    // Complaints are told apart by their text, so they must not be translated.
    let mut command = Command::new("nft");
    command.args(arguments).env("LC_ALL", "C").stdin(Stdio::from(script)).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().map_err(|source| Error::NftMissing { source })?;
    child.wait_with_output().map_err(|source| Error::refused("read the output of nft", source))
}

/// A file in memory that holds `text`, at its start. Unlike a pipe it takes any length without a reader, so we and nft
/// cannot end up waiting for each other.
fn in_memory(text: &str) -> io::Result<File> {
    // SAFETY: the name is a terminated string.
    let descriptor = unsafe { libc::memfd_create(c"nft-script".as_ptr(), libc::MFD_CLOEXEC) };
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and belongs to nobody else.
    let mut file = unsafe { File::from_raw_fd(descriptor) };
    file.write_all(text.as_bytes())?;
    file.rewind()?;
    Ok(file)
}

fn accepted(output: &Output, operation: impl FnOnce() -> String) -> Result<()> {
    match output.status.success() {
        true => Ok(()),
        false => Err(Error::NftRefused { operation: operation(), stderr: complaint(&output.stderr) }),
    }
}

fn complaint(stderr: &[u8]) -> String {
    let start = stderr.get(..COMPLAINT_LIMIT).unwrap_or(stderr);
    String::from_utf8_lossy(start).trim().to_owned()
}

/// Families and names become arguments and script: only plain words, which nft cannot take for options or syntax.
fn word(text: &str) -> Result<&str> {
    let plain = text.starts_with(|first: char| first.is_ascii_alphabetic())
        && text.chars().all(|character| character.is_ascii_alphanumeric() || matches!(character, '_' | '-' | '.'));
    match plain {
        true => Ok(text),
        false => {
            Err(Error::invalid("nftables name", text, "it must be a letter followed by letters, digits, _ - or ."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_nft_could_misread_are_refused() {
        for text in ["", "-f", "a b", "a;flush", "1st", "{x}"] {
            assert!(matches!(list_table("inet", text), Err(Error::Invalid { .. })), "{text:?}");
        }
    }

    #[test]
    fn a_long_complaint_is_cut_even_within_a_character() {
        let stderr = "é".repeat(COMPLAINT_LIMIT);
        assert!(complaint(&stderr.as_bytes()[1..]).len() <= COMPLAINT_LIMIT + 6);
    }
}
