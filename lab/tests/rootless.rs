//! A lab without root: an unprivileged user makes a mesh, its pods ping each other, and nothing is left.

#![allow(clippy::unwrap_used, reason = "a story that cannot go on fails at that line")]

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use meshwork_lab::{Look, Programs, eventually};

/// What the user does. `$MESHLAB` is the program; the lab goes away however this ends.
const STORY: &str = r#"
set -e
trap '"$MESHLAB" --rootless down --name rootless' EXIT
[ "$(id -u)" != 0 ]
"$MESHLAB" --rootless up --hosts 2 --name rootless
address=$("$MESHLAB" pod h2 web --name rootless | awk '{ print $3 }')
"$MESHLAB" pod h1 client --name rootless
"$MESHLAB" exec h1/client --name rootless -- ping -n -c 3 -i 0.1 -W 2 "$address"
"$MESHLAB" link h2 --delay 5 --name rootless
"$MESHLAB" exec h1/client --name rootless -- ping -n -c 3 -i 0.1 -W 2 "$address"
"$MESHLAB" ls
"#;

/// Makes what an ordinary machine has and a test machine may lack, in a mount namespace that ends with the story: a TUN
/// device that everybody may open, the programs where everybody may read them, a runtime directory. Then gives root up.
const STAGE: &str = r#"
set -e
cd /
mount -t tmpfs -o mode=0755 tmpfs /dev/net
mknod -m 0666 /dev/net/tun c 10 200
mount -t tmpfs -o mode=0755 tmpfs /mnt
mkdir "$3" /mnt/runtime
chown 65534:65534 /mnt/runtime
mount --bind "$1" "$3"
exec setpriv --reuid 65534 --regid 65534 --clear-groups env -i PATH="$PATH" MESHWORK_BIN="$3" \
    MESHLAB="$3/meshlab" XDG_RUNTIME_DIR=/mnt/runtime sh -c "$2"
"#;

#[test]
fn an_unprivileged_user_has_a_mesh_of_two_hosts() {
    let programs = Programs::find().unwrap();
    let mut stage = Command::new("unshare");
    // Named after this process, so that its keeper is not taken for another's.
    let folder = format!("/mnt/{}", std::process::id());
    stage.args(["--mount", "sh", "-c", STAGE, "stage"]).arg(programs.meshlab.parent().unwrap()).args([STORY, &folder]);
    let output = stage.output().unwrap();
    let said = both(&output);
    assert!(output.status.success(), "this needs user namespaces: {said}");
    assert_eq!(said.matches("3 received, 0% packet loss").count(), 2, "{said}");
    assert!(said.contains("2 hosts are one mesh") && said.contains("delay 5ms"), "{said}");
    assert!(!Path::new("/run/meshlab/rootless").exists(), "what happens in the room stays there");
    eventually(Duration::from_secs(5), "end of the room after its last lab", || {
        let keepers = keepers();
        Ok(if keepers.contains(&folder) { Look::Missing(keepers) } else { Look::Done(()) })
    })
    .unwrap();
}

#[test]
fn where_user_namespaces_are_refused_it_says_what_to_change() {
    let runtime = tempfile::tempdir().unwrap();
    // The limit of a user namespace of its own stands for a machine that has it.
    let script = "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$0\" --rootless up --hosts 1 --name refused";
    let mut refused = Command::new("unshare");
    refused.args(["--user", "--map-root-user", "sh", "-c", script]).arg(Programs::find().unwrap().meshlab);
    let output = refused.env("XDG_RUNTIME_DIR", runtime.path()).output().unwrap();
    assert!(!output.status.success());
    let said = both(&output);
    assert!(said.contains("no user namespace") && said.contains("max_user_namespaces"), "{said}");
}

fn both(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).concat()
}

fn keepers() -> String {
    let listed = Command::new("ps").args(["-e", "-o", "args="]).output().unwrap();
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    listed.lines().filter(|line| line.contains("keep-room")).collect::<Vec<_>>().join("\n")
}
