//! A disk of a host's own under its state directory: small enough to be filled, and able to fail.
//!
//! It is a file system in a file of the host's directory, so that what befalls it befalls nobody else. Its mount is taken
//! away with the lab.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::host::Host;
use crate::topology::LabName;

/// Takes the room that is left on a full disk.
const FILLER: &str = "filler";
/// What the filler is written in, down to single bytes of the last block.
const PIECES: [usize; 2] = [4096, 1];

impl Host {
    /// Puts the state directory on a disk of `mebibytes` of its own. The daemon must not have run before.
    ///
    /// # Errors
    /// When there is a state directory already, or the kernel refuses the disk.
    pub fn give_disk(&self, mebibytes: u64) -> Result<()> {
        let state = self.state();
        fs::create_dir(&state).map_err(Error::io(format!("make {}", state.display())))?;
        let image = self.image();
        let sized = File::create(&image).and_then(|file| file.set_len(mebibytes << 20));
        sized.map_err(Error::io(format!("make {}", image.display())))?;
        self.exec(["mkfs.ext4", "-q", "-F", "-m", "0", &image.to_string_lossy()])?;
        self.mount_disk()
    }

    /// Leaves no room on the disk.
    ///
    /// # Errors
    /// When it fails in another way than by being full.
    pub fn fill_disk(&self) -> Result<()> {
        let path = self.state().join(FILLER);
        let failed = || Error::io(format!("fill the disk with {}", path.display()));
        let mut filler = File::create(&path).map_err(failed())?;
        for piece in PIECES {
            loop {
                match filler.write_all(&vec![0; piece]).and_then(|()| filler.sync_data()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => break,
                    Err(error) => return Err(failed()(error)),
                }
            }
        }
        Ok(())
    }

    /// Makes room on the disk again.
    ///
    /// # Errors
    /// When it was not filled.
    pub fn free_disk(&self) -> Result<()> {
        let path = self.state().join(FILLER);
        fs::remove_file(&path).map_err(Error::io(format!("remove {}", path.display())))
    }

    /// Lets the disk meet an error, by which the kernel makes it read-only, open files included.
    ///
    /// # Errors
    /// When the host has no disk of its own.
    pub fn fail_disk(&self) -> Result<()> {
        let device = self.exec([Path::new("findmnt"), Path::new("-no"), Path::new("SOURCE"), &self.state()])?;
        let trigger =
            Path::new("/sys/fs/ext4").join(device.trim().trim_start_matches("/dev/")).join("trigger_fs_error");
        fs::write(&trigger, "by the lab").map_err(Error::io(format!("write {}", trigger.display())))
    }

    /// Takes a failed disk out, checks it and puts it back, for which the daemon must not run.
    ///
    /// # Errors
    /// When the daemon runs, or the kernel refuses the disk.
    pub fn mend_disk(&self) -> Result<()> {
        self.exec([Path::new("umount"), &self.state()])?;
        // It ends with 1 when it had something to correct.
        self.namespace().output([Path::new("fsck.ext4"), Path::new("-fp"), &self.image()])?;
        self.mount_disk()
    }

    fn mount_disk(&self) -> Result<()> {
        let mount = ["mount", "-o", "loop,errors=remount-ro"].map(PathBuf::from);
        self.exec(mount.iter().chain([&self.image(), &self.state()])).map(drop)
    }

    fn image(&self) -> PathBuf {
        self.directory().join("disk")
    }
}

/// Takes away the mounts in a lab's directory.
pub(crate) fn unmount(lab: &LabName) -> Result<()> {
    let table = fs::read_to_string("/proc/self/mounts").map_err(Error::io("list mounts"))?;
    let below = format!("{}/", lab.directory().display());
    let places = table.lines().filter_map(|line| line.split(' ').nth(1));
    for place in places.filter(|place| place.starts_with(&below)) {
        let ended = std::process::Command::new("umount").args(["--lazy", place]).status();
        let ended = ended.map_err(Error::io(format!("run umount {place}")))?;
        if !ended.success() {
            return Err(Error::Unproven(format!("{place} does not let go: umount ended with {ended}")));
        }
    }
    Ok(())
}
