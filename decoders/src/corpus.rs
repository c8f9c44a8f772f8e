//! The inputs in `fuzz/corpus`: one folder for each target, one file for each input.

use std::fs;
use std::io;
use std::path::PathBuf;

use crate::target::Target;

/// Files of one target, named by their content or by what they show.
#[must_use]
pub fn folder(target: &Target) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus")).join(target.name)
}

/// Name and content of every input of a target, by name.
///
/// # Errors
/// The folder cannot be read.
pub fn inputs(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder(target))? {
        let entry = entry?;
        inputs.push((entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}

/// Writes the seeds of a target, in place of those of earlier builds.
///
/// # Errors
/// The folder cannot be written.
pub fn write_seeds(target: &Target) -> io::Result<usize> {
    let folder = folder(target);
    fs::create_dir_all(&folder)?;
    for entry in fs::read_dir(&folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(SEED) {
            fs::remove_file(entry.path())?;
        }
    }
    let seeds = (target.seeds)();
    for (number, seed) in seeds.iter().enumerate() {
        fs::write(folder.join(format!("{SEED}{number:02}")), seed)?;
    }
    Ok(seeds.len())
}

/// What the names of seeds begin with.
const SEED: &str = "seed-";
