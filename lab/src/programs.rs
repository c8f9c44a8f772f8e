//! Where the programs of this build are.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

/// Names the folder of the programs, for tests and for builds that lie elsewhere.
const FOLDER_VARIABLE: &str = "MESHWORK_BIN";

/// The programs that a lab runs: all of one build.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub meshd: PathBuf,
    /// The command line.
    pub meshctl: PathBuf,
    /// The CNI plugin.
    pub mesh_cni: PathBuf,
    /// The lab's own program, which carries the frames of links with a delay.
    pub meshlab: PathBuf,
}

impl Programs {
    /// Finds them in the folder that `MESHWORK_BIN` names, else beside the running program (and one above, where cargo
    /// puts test programs one deeper).
    ///
    /// # Errors
    /// [`Error::ProgramMissing`] for the first one that is nowhere.
    pub fn find() -> Result<Self> {
        Self::find_in(&folders(env::var_os(FOLDER_VARIABLE), env::current_exe().ok().as_deref()))
    }

    fn find_in(folders: &[PathBuf]) -> Result<Self> {
        let find = |program: &'static str| {
            folders.iter().map(|folder| folder.join(program)).find(|path| path.is_file()).ok_or_else(|| {
                let looked_in = folders.iter().map(|folder| folder.display().to_string()).collect::<Vec<_>>();
                Error::ProgramMissing { program, looked_in: looked_in.join(", ") }
            })
        };
        Ok(Self {
            meshd: find("meshd")?,
            meshctl: find("meshctl")?,
            mesh_cni: find("mesh-cni")?,
            meshlab: find("meshlab")?,
        })
    }
}

fn folders(named: Option<OsString>, running: Option<&Path>) -> Vec<PathBuf> {
    match named {
        Some(named) => vec![PathBuf::from(named)],
        None => running.into_iter().flat_map(Path::ancestors).skip(1).take(2).map(Path::to_path_buf).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_folder_is_the_only_one_searched() {
        let named = folders(Some("/opt/mesh".into()), Some(Path::new("/usr/bin/meshlab")));
        assert_eq!(named, [PathBuf::from("/opt/mesh")]);
        let error = Programs::find_in(&named).unwrap_err().to_string();
        assert!(error.starts_with("meshd is not in /opt/mesh; run `make build`"), "{error}");
    }

    #[test]
    fn else_they_lie_beside_the_running_program() {
        let beside = folders(None, Some(Path::new("/build/debug/deps/story-1234")));
        assert_eq!(beside, [PathBuf::from("/build/debug/deps"), PathBuf::from("/build/debug")]);
    }
}
