//! Kernel settings below `/proc/sys`, in the network namespace of the calling thread.
//!
//! Keys are written as sysctl(8) takes them. The first separator decides: `net.ipv4.conf.eth0/100.forwarding` and
//! `net/ipv4/conf/eth0.100/forwarding` are the same setting of the interface `eth0.100`.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const ROOT: &str = "/proc/sys";

/// The value of a setting, without the line end. [`Error::is_not_found`] if the kernel has no such setting.
pub fn read(key: &str) -> Result<String> {
    let value =
        fs::read_to_string(file(key)?).map_err(|source| Error::refused(format!("read sysctl {key}"), source))?;
    Ok(value.trim_end().to_owned())
}

/// Sets a setting. One that has the value already is left alone, so that a read-only `/proc/sys` with the right values
/// is good enough. Says whether it had another.
pub fn write(key: &str, value: &str) -> Result<bool> {
    if read(key).is_ok_and(|present| present == value) {
        return Ok(false);
    }
    let written = OpenOptions::new().write(true).open(file(key)?).and_then(|mut file| file.write_all(value.as_bytes()));
    written.map(|()| true).map_err(|source| Error::refused(format!("set sysctl {key} to {value}"), source))
}

fn file(key: &str) -> Result<PathBuf> {
    let path = match key.find(['.', '/']) {
        Some(first) if key[first..].starts_with('.') => key.chars().map(swap_separator).collect(),
        _ => key.to_owned(),
    };
    let plain = path.split('/').all(|part| !matches!(part, "" | "." | "..")) && !path.contains('\0');
    match plain {
        true => Ok(Path::new(ROOT).join(path)),
        false => Err(Error::invalid("sysctl key", key, "it must name a setting, like net.ipv4.ip_forward")),
    }
}

fn swap_separator(character: char) -> char {
    match character {
        '.' => '/',
        '/' => '.',
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_file() {
        let expected = Path::new("/proc/sys/net/ipv4/conf/eth0.100/forwarding");
        assert_eq!(file("net.ipv4.conf.eth0/100.forwarding").unwrap(), expected);
        assert_eq!(file("net/ipv4/conf/eth0.100/forwarding").unwrap(), expected);
    }

    #[test]
    fn a_key_cannot_leave_the_settings() {
        for key in ["", "/etc/passwd", "net/../../etc/passwd", "net.//.x", "net/ipv4/", "net/a\0b"] {
            assert!(matches!(file(key), Err(Error::Invalid { .. })), "{key:?}");
        }
    }

    #[test]
    fn a_setting_that_does_not_exist_is_not_found() {
        assert!(read("net.ipv4.no_such_setting").unwrap_err().is_not_found());
        assert!(write("net.ipv4.no_such_setting", "1").unwrap_err().is_not_found());
    }
}
