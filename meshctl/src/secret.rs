//! `meshctl secret generate`.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::Context as _;
use meshwork_identity::Secret;

use crate::output::text_to_stdout;

/// Makes a secret and writes it to a new file, or to standard output.
pub(crate) fn generate(file: Option<&Path>) -> anyhow::Result<()> {
    let mut random = [0; 32];
    // Unlike /dev/urandom it waits until the kernel has gathered randomness after boot.
    let source = File::open("/dev/random").and_then(|mut source| source.read_exact(&mut random));
    source.context("no randomness from /dev/random")?;
    let text = Secret::generate(random).to_hex();
    match file {
        Some(path) => write(path, &text),
        None => text_to_stdout(&format!("{}\n", *text)),
    }
}

fn write(path: &Path, text: &str) -> anyhow::Result<()> {
    let place = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = place
        .with_context(|| format!("cannot make {}: a secret is never written over an existing file", path.display()))?;
    let written = writeln!(file, "{text}").and_then(|()| file.sync_all());
    written.with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_file_is_private_readable_by_the_daemon_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        generate(Some(&path)).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(Secret::parse_hex(&text).is_ok() && text.len() == 65);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(generate(Some(&path)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn two_secrets_differ() {
        let folder = tempfile::tempdir().unwrap();
        let [one, two] = ["1", "2"].map(|name| {
            generate(Some(&folder.path().join(name))).unwrap();
            fs::read(folder.path().join(name)).unwrap()
        });
        assert_ne!(one, two);
    }
}
