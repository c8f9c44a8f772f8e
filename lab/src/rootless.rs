//! Labs without root: a room of its own, made of a user, a mount and a network namespace with an empty `/run`, in which the
//! caller is root and everything else of the lab works as it does outside.
//!
//! Namespaces end with their last process, so a room has a keeper, a process that does nothing. The first command makes the
//! room, later ones enter it, and the command after which no lab is left ends it. `unshare` and `nsenter` do the work: a
//! process that has threads may not change its user namespace.

use std::env;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail};
use meshwork_lab::remains;
use meshwork_sys::process::{self, Signal};

/// Tells a command that it is in a room, and who keeps it.
const KEEPER_VARIABLE: &str = "MESHLAB_KEEPER";
/// What the keeper says when the room can be entered.
const READY: &str = "ready";
/// The keeper's verb.
pub(crate) const KEEP: &str = "keep-room";
const REFUSED: &str = "no user namespace could be made; check `sysctl user.max_user_namespaces` (above 0), \
    `kernel.unprivileged_userns_clone` (1, where it exists) and `kernel.apparmor_restrict_unprivileged_userns` (0, where \
    it exists), or run as root";

/// Whether this command has to go into a room first.
pub(crate) fn is_wanted(asked: bool) -> Result<bool> {
    Ok(env::var_os(KEEPER_VARIABLE).is_none() && (asked || user()? != 0))
}

/// Becomes the same command inside the room. Only returns when that fails.
pub(crate) fn enter() -> Result<std::convert::Infallible> {
    check_tun()?;
    let keeper = match living_keeper()? {
        Some(keeper) => keeper,
        None => make()?,
    };
    let keeper = keeper.to_string();
    let mut command = Command::new("nsenter");
    command.args(["--target", &keeper, "--user", "--mount", "--net", "--preserve-credentials", "--wd=."]);
    command.arg("--").arg(env::current_exe()?).args(env::args_os().skip(1)).env(KEEPER_VARIABLE, keeper);
    Err(command.exec()).context("cannot run nsenter; install util-linux")
}

/// Ends the room, if this command is in one and was the last to need it.
pub(crate) fn leave() -> Result<()> {
    let keeper = env::var(KEEPER_VARIABLE).ok().and_then(|keeper| keeper.parse().ok());
    let Some(keeper) = keeper.filter(|_| remains::labs().is_ok_and(|labs| labs.is_empty())) else { return Ok(()) };
    match process::signal(keeper, Signal::Term) {
        // Another command was the last, too.
        Err(error) if !error.is_not_found() => Err(error.into()),
        _ => Ok(()),
    }
}

/// Furnishes the room and keeps it until [`leave`].
pub(crate) fn keep() -> Result<std::convert::Infallible> {
    let line = ["-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/run"];
    let mounted = Command::new("mount").args(line).status().context("cannot run mount; install util-linux")?;
    if !mounted.success() {
        bail!("the kernel refuses a tmpfs on /run in a user namespace; run as root");
    }
    writeln!(io::stdout(), "{READY}")?;
    loop {
        thread::park();
    }
}

/// Makes a room and tells who keeps it.
fn make() -> Result<u32> {
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "--net", "--"]).arg(env::current_exe()?).arg(KEEP);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let mut keeper = command.spawn().context("cannot run unshare; install util-linux")?;
    if !says_ready(&mut keeper)? {
        let mut said = String::new();
        keeper.stderr.take().map_or(Ok(0), |mut errors| errors.read_to_string(&mut said))?;
        keeper.wait()?;
        bail!("{REFUSED} ({})", said.trim());
    }
    record(keeper.id())?;
    Ok(keeper.id())
}

fn says_ready(keeper: &mut Child) -> Result<bool> {
    let mut line = String::new();
    if let Some(said) = keeper.stdout.take() {
        BufReader::new(said).read_line(&mut line)?;
    }
    Ok(line.trim() == READY)
}

/// The keeper of this user's room, if it lives. The number in the file may meanwhile be someone else's: owner and command
/// line decide.
fn living_keeper() -> Result<Option<u32>> {
    let record = record_path()?;
    let ours = |path: &Path| {
        Ok::<_, anyhow::Error>(fs::symlink_metadata(path).is_ok_and(|file| Some(file.uid()) == user().ok()))
    };
    let Ok(text) = fs::read_to_string(&record) else { return Ok(None) };
    let Ok(keeper) = text.trim().parse::<u32>() else { return Ok(None) };
    let process = PathBuf::from(format!("/proc/{keeper}"));
    let line = fs::read(process.join("cmdline")).unwrap_or_default();
    let keeps = line.split(|byte| *byte == 0).any(|word| word == KEEP.as_bytes());
    Ok((keeps && ours(&record)? && ours(&process)?).then_some(keeper))
}

fn record(keeper: u32) -> Result<()> {
    let path = record_path()?;
    // One that is left names a room that has ended. What is not ours cannot be removed from /tmp, and is not followed.
    let _ = fs::remove_file(&path);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
    let written = file.and_then(|mut file| writeln!(file, "{keeper}"));
    written.with_context(|| format!("cannot write {}; remove it, or set XDG_RUNTIME_DIR", path.display()))
}

fn record_path() -> Result<PathBuf> {
    Ok(match env::var_os("XDG_RUNTIME_DIR") {
        Some(directory) => PathBuf::from(directory).join("meshlab-room"),
        None => env::temp_dir().join(format!("meshlab-room-{}", user()?)),
    })
}

fn user() -> Result<u32> {
    Ok(fs::metadata("/proc/self").context("cannot read /proc")?.uid())
}

/// Root in a user namespace may make TUN devices, but the device file's rights are those outside.
fn check_tun() -> Result<()> {
    let opened = File::options().read(true).write(true).open("/dev/net/tun");
    opened.map(drop).context(
        "cannot open /dev/net/tun, which daemons need; let root run `modprobe tun` and `chmod 0666 /dev/net/tun`, as \
         most distributions have it, or run as root",
    )
}
