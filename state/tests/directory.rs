//! The state directory with real files: what survives, and what is done about everything that can be wrong with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails at that line")]

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use meshwork_ipam::{Change, HeldPart, Holding, Lease, Origin, SeenNamespace};
use meshwork_state::{NodeState, SecretFileError, StateError, create_secret, load_secret_files};
use meshwork_wire::record::{PodKey, PodRecord, RingPart};
use meshwork_wire::{Incarnation, Version};
use tempfile::TempDir;

fn open(directory: &Path) -> Result<NodeState, StateError> {
    let mut next = 0u8;
    NodeState::open(directory, &mut |bytes| {
        bytes.iter_mut().for_each(|byte| {
            next = next.wrapping_add(37);
            *byte = next;
        });
    })
}

fn fresh() -> (TempDir, NodeState) {
    let directory = TempDir::new().unwrap();
    let state = open(directory.path()).unwrap();
    (directory, state)
}

fn lease(number: u8) -> Lease {
    let name = PodKey { sandbox: format!("sandbox-{number}"), interface: "eth0".to_owned() };
    let addresses = vec![[10, 32, 0, number].into()];
    let pod = PodRecord { namespace: String::new(), name: String::new(), labels: Default::default(), addresses };
    let namespace = Some(SeenNamespace { device: 4, inode: u64::MAX, boot: [number; 16] });
    let origin = Origin { network: Some("mesh".to_owned()), namespace, address_only: true, unmasqueraded: true };
    Lease { name, netns: "/run/netns/x".to_owned(), pod, origin }
}

fn changes(state: &NodeState) -> Vec<Change> {
    let version = Version { incarnation: Incarnation(1), counter: 0 };
    let owner = state.identity().peer_id();
    let part = RingPart { ring: [1; 16], epoch: 0, version, owner, gift: None };
    let held = HeldPart { part, holding: Holding::Owned };
    vec![
        Change::PutPart { prefix: "10.32.0.0/12".parse().unwrap(), held },
        Change::PutLease(lease(1)),
        Change::PutLease(lease(2)),
        Change::DropLease(lease(2).name),
        Change::PutFreed { sequence: 4, address: [10, 32, 0, 2].into() },
    ]
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn what_was_committed_is_there_after_reopening() {
    let (directory, state) = fresh();
    let peer = state.identity().peer_id();
    state.commit(&changes(&state)).unwrap();
    state.set_targets(&["a:6783".to_owned(), "b".to_owned()]).unwrap();
    let before = state.load().unwrap();
    let mut folded = meshwork_ipam::Snapshot::default();
    folded.apply(&changes(&state));
    assert_eq!(before, folded);
    drop(state);
    let state = open(directory.path()).unwrap();
    assert_eq!(state.identity().peer_id(), peer);
    assert_eq!(state.load().unwrap(), before);
    assert_eq!(state.targets().unwrap(), ["a:6783", "b"]);
    state.set_targets(&[]).unwrap();
    assert!(state.targets().unwrap().is_empty());
}

#[test]
fn a_daemon_killed_after_its_transaction_finds_it_and_one_killed_before_does_not() {
    let (directory, state) = fresh();
    state.commit(&changes(&state)).unwrap();
    let committed = fs::read(directory.path().join("meshwork.redb")).unwrap();
    state.commit(&[Change::PutLease(lease(9))]).unwrap();
    // A kill leaves the file as the last transaction left it, without the daemon closing it.
    let killed = fs::read(directory.path().join("meshwork.redb")).unwrap();
    drop(state);
    for (content, expected) in [(committed, 1), (killed, 2)] {
        fs::write(directory.path().join("meshwork.redb"), content).unwrap();
        let state = open(directory.path()).unwrap();
        assert_eq!(state.load().unwrap().leases.len(), expected);
    }
}

#[test]
fn leases_that_were_recorded_without_an_origin_stay_readable() {
    let (directory, state) = fresh();
    state.commit(&changes(&state)).unwrap();
    drop(state);
    let database = redb::Database::open(directory.path().join("meshwork.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    let origins: redb::TableDefinition<'_, &[u8], &[u8]> = redb::TableDefinition::new("lease-origins");
    assert!(transaction.delete_table(origins).unwrap());
    transaction.commit().unwrap();
    drop(database);

    let state = open(directory.path()).unwrap();
    let leases = state.load().unwrap().leases;
    assert_eq!(leases.into_values().collect::<Vec<_>>(), [Lease { origin: Origin::default(), ..lease(1) }]);
    state.commit(&[Change::PutLease(lease(1))]).unwrap();
    assert_eq!(state.load().unwrap().leases[&lease(1).name], lease(1));
}

/// Bytes of a lease as the first build wrote them.
#[test]
fn a_lease_is_written_as_it_always_was() {
    let bytes = meshwork_wire::frame::encode(&lease(1));
    let text = [&b"\x09sandbox-1\x04eth0\x0c/run/netns/x\x00\x00\x00\x01\x00"[..], &[10, 32, 0, 1]].concat();
    assert_eq!(bytes, [&[1][..], &text].concat());
}

#[test]
fn a_host_is_hidden_until_it_is_exposed_and_stays_as_it_was_left() {
    let (directory, state) = fresh();
    assert!(!state.exposed().unwrap(), "a database that says nothing");
    for exposed in [true, false, true] {
        state.set_exposed(exposed).unwrap();
        assert_eq!(state.exposed().unwrap(), exposed);
    }
    drop(state);
    assert!(open(directory.path()).unwrap().exposed().unwrap());
}

#[test]
fn the_incarnation_counts_every_start() {
    let (directory, state) = fresh();
    assert_eq!(state.next_incarnation().unwrap(), Incarnation(1));
    drop(state);
    assert_eq!(open(directory.path()).unwrap().next_incarnation().unwrap(), Incarnation(2));
}

#[test]
fn only_the_owner_can_read_anything() {
    let parent = TempDir::new().unwrap();
    let directory = parent.path().join("deep/state");
    let _state = open(&directory).unwrap();
    assert_eq!(mode(&directory), 0o700);
    for name in ["identity", "meshwork.redb", "lock"] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    let text = fs::read_to_string(directory.join("identity")).unwrap();
    assert_eq!((text.len(), text.ends_with('\n')), (65, true));
}

#[test]
fn a_second_daemon_is_told_who_was_first() {
    let (directory, _state) = fresh();
    match open(directory.path()) {
        Err(StateError::InUse { pid, .. }) => assert_eq!(pid, Some(std::process::id())),
        other => panic!("{other:?}"),
    }
}

/// Damages a used directory, and expects both files to be moved aside and the next start to be a new peer.
fn expect_damaged(damage: impl FnOnce(&Path)) {
    let (directory, state) = fresh();
    state.commit(&changes(&state)).unwrap();
    drop(state);
    damage(directory.path());
    let Err(StateError::Damaged { moved_to, .. }) = open(directory.path()) else { panic!("damage was not seen") };
    assert!(!moved_to.is_empty() && moved_to.iter().all(|path| path.exists()));
    assert!(!directory.path().join("identity").exists() && !directory.path().join("meshwork.redb").exists());
    let state = open(directory.path()).unwrap();
    assert_eq!(state.load().unwrap(), meshwork_ipam::Snapshot::default());
}

#[test]
fn damaged_foreign_and_missing_files_are_moved_aside_together() {
    expect_damaged(|directory| fs::write(directory.join("meshwork.redb"), "no database").unwrap());
    expect_damaged(|directory| fs::write(directory.join("meshwork.redb"), "").unwrap());
    expect_damaged(|directory| fs::remove_file(directory.join("meshwork.redb")).unwrap());
    expect_damaged(|directory| fs::remove_file(directory.join("identity")).unwrap());
    expect_damaged(|directory| fs::write(directory.join("identity"), "not hex").unwrap());
    expect_damaged(|directory| fs::write(directory.join("identity"), "0".repeat(66)).unwrap());
    // Someone else's identity beside this database.
    expect_damaged(|directory| fs::write(directory.join("identity"), "0".repeat(64)).unwrap());
    println!("figure: 7 of 7 damaged, foreign or missing files moved aside together");
}

#[test]
fn earlier_damage_is_kept() {
    let (directory, state) = fresh();
    drop(state);
    for number in 1..=2 {
        fs::write(directory.path().join("meshwork.redb"), "no database").unwrap();
        assert!(matches!(open(directory.path()), Err(StateError::Damaged { .. })));
        assert!(directory.path().join(format!("meshwork.redb.damaged-{number}")).exists());
        assert!(directory.path().join(format!("identity.damaged-{number}")).exists());
        drop(open(directory.path()).unwrap());
    }
}

#[test]
fn an_interrupted_first_start_is_begun_again() {
    let (directory, state) = fresh();
    drop(state);
    let at = |name: &str| directory.path().join(name);
    fs::rename(at("identity"), at("identity.new")).unwrap();
    fs::copy(at("meshwork.redb"), at("meshwork.redb.new")).unwrap();
    drop(open(directory.path()).unwrap());
    assert!(at("identity").exists() && !at("identity.new").exists() && !at("meshwork.redb.new").exists());
}

#[test]
fn no_truncation_or_flipped_bit_panics_and_none_goes_unnoticed_silently_wrong() {
    let (directory, state) = fresh();
    state.commit(&changes(&state)).unwrap();
    let whole = state.load().unwrap();
    drop(state);
    let at = |name: &str| directory.path().join(name);
    let (database, identity) = (fs::read(at("meshwork.redb")).unwrap(), fs::read(at("identity")).unwrap());
    let step = (database.len() / 150).max(1);
    let cut = (0..database.len()).step_by(step * 5).map(|length| database[..length].to_vec());
    let used = |position: &usize| *position < 512 || position.is_multiple_of(step) || database[*position] != 0;
    let positions = (0..database.len()).filter(used).collect::<Vec<_>>();
    let sampled = positions.iter().step_by((positions.len() / 400).max(1)).map(|position| {
        let mut damaged = database.clone();
        damaged[*position] ^= 1 << (position % 8);
        damaged
    });
    let mut damaged = [0, 0];
    for content in cut.chain(sampled) {
        fs::write(at("meshwork.redb"), content).unwrap();
        fs::write(at("identity"), &identity).unwrap();
        match open(directory.path()) {
            // A flip where nothing is stored, or one that ends the last transaction as a crash would have.
            Ok(state) => {
                let loaded = state.load().unwrap();
                assert!(loaded == whole || loaded == meshwork_ipam::Snapshot::default(), "{loaded:?}");
                damaged[0] += 1;
            }
            Err(StateError::Damaged { moved_to, .. }) => {
                moved_to.iter().for_each(|path| fs::remove_file(path).unwrap());
                damaged[1] += 1;
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    let [harmless, refused] = damaged;
    println!("figure: {refused} damaged databases moved aside, {harmless} without harm, 0 read wrongly");
}

/// Runs one test of this binary again in a user namespace, where `setup` prepares the mount at `$STATE`.
fn rerun(test: &str, setup: &str) {
    let directory = TempDir::new().unwrap();
    let script = format!("{setup} && exec \"$0\" --exact {test} --nocapture");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", &script]);
    command.arg(std::env::current_exe().unwrap()).env("STATE", directory.path());
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_full_disk_is_named_and_what_was_recorded_stays() {
    let Some(directory) = std::env::var_os("STATE") else {
        return rerun("a_full_disk_is_named_and_what_was_recorded_stays", "mount -t tmpfs -o size=6m none \"$STATE\"");
    };
    let directory = Path::new(&directory);
    let state = open(directory).unwrap();
    state.commit(&changes(&state)).unwrap();
    fs::write(directory.join("filler"), vec![0; 64 << 20]).unwrap_err();
    let mut big = lease(3);
    let mut recorded = 0u32;
    let error = loop {
        big.name.sandbox = format!("big-{recorded}");
        big.netns = "x".repeat(100_000);
        match state.commit(&[Change::PutLease(big.clone())]) {
            Ok(()) => recorded += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, StateError::Full { .. }), "{error:?}");
    let full = open(&directory.join("another"));
    assert!(matches!(full, Err(StateError::Full { .. })), "{full:?}");
    fs::remove_file(directory.join("filler")).unwrap();
    state.commit(&[Change::PutLease(lease(7))]).unwrap();
    assert_eq!(state.load().unwrap().leases.len() as u32, recorded + 2);
    drop(state);
    assert_eq!(open(directory).unwrap().load().unwrap().leases.len() as u32, recorded + 2);
}

#[test]
fn a_directory_without_access_is_left_alone() {
    let Some(directory) = std::env::var_os("STATE") else {
        // Without its capabilities the mapped root is a user like others.
        let drop = "mkdir \"$STATE/in\" && cd \"$STATE/in\" && true";
        let setup = format!("{drop} && export STATE=\"$STATE/in\"");
        return rerun_without_power("a_directory_without_access_is_left_alone", &setup);
    };
    let directory = Path::new(&directory);
    drop(open(directory).unwrap());
    for name in ["identity", "meshwork.redb", "lock"] {
        fs::set_permissions(directory.join(name), Permissions::from_mode(0o000)).unwrap();
        assert!(matches!(open(directory), Err(StateError::NoAccess { .. })), "{name}");
        fs::set_permissions(directory.join(name), Permissions::from_mode(0o600)).unwrap();
    }
    drop(open(directory).unwrap());
}

fn rerun_without_power(test: &str, setup: &str) {
    let directory = TempDir::new().unwrap();
    let script = format!("{setup} && exec setpriv --bounding-set=-all --inh-caps=-all \"$0\" --exact {test}");
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", &script]);
    command.arg(std::env::current_exe().unwrap()).env("STATE", directory.path());
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&text));
}

#[test]
fn secret_files_are_made_once_read_in_order_and_judged() {
    let directory = TempDir::new().unwrap();
    let at = |name: &str| directory.path().join(name);
    let one = create_secret(&at("one"), [1; 32]).unwrap();
    let two = create_secret(&at("two"), [2; 32]).unwrap();
    assert_eq!(mode(&at("one")), 0o600);
    assert!(matches!(create_secret(&at("one"), [3; 32]), Err(SecretFileError::Exists { .. })));
    fs::set_permissions(at("two"), Permissions::from_mode(0o640)).unwrap();
    let loaded = load_secret_files(&[at("one"), at("two")]).unwrap();
    assert!(loaded.secrets.iter().eq([&one, &two]));
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!((&loaded.warnings[0].path, loaded.warnings[0].mode), (&at("two"), 0o640));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
}

#[test]
fn secret_files_that_hold_none_are_refused() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("secret");
    assert!(matches!(load_secret_files(&[&path]), Err(SecretFileError::Missing { .. })));
    for content in ["", "abc", &"g".repeat(64), &"a".repeat(1000), &format!("{}\n\n", "a".repeat(64))] {
        fs::write(&path, content).unwrap();
        assert!(matches!(load_secret_files(&[&path]), Err(SecretFileError::Content { .. })), "{content}");
    }
    fs::write(&path, [0xff; 64]).unwrap();
    assert!(matches!(load_secret_files(&[&path]), Err(SecretFileError::Content { .. })));
    fs::write(&path, "a".repeat(64)).unwrap();
    assert!(matches!(load_secret_files(&[&path, &path]), Err(SecretFileError::List(_))));
    assert!(matches!(load_secret_files::<&Path>(&[]), Err(SecretFileError::List(_))));
}
