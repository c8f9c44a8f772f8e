//! A damaged state directory: the database and the identity file beside it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use meshwork_ipam::Change;
use meshwork_simulator::content::pod_of;
use meshwork_state::{NodeState, load_secret_files};
use tempfile::TempDir;

use crate::input::{Input, of_kind, part};

const IDENTITY: &str = "identity";
const DATABASE: &str = "meshwork.redb";

/// Identity and database of a node that ran for a while.
static SOUND: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    let directory = directory();
    let state = NodeState::open(directory.path(), &mut |bytes| bytes.fill(7)).expect("a new directory");
    state.next_incarnation().expect("it is written");
    state.set_targets(&["192.0.2.1:6783".to_owned(), "node-2".to_owned()]).expect("it is written");
    let mut random = meshwork_simulator::Random::new(1);
    let leases = (0..4).map(|number| {
        let (name, pod) = pod_of(&mut random, 1, number);
        Change::PutLease(meshwork_ipam::Lease { name, netns: String::new(), pod, origin: Default::default() })
    });
    state.commit(&leases.collect::<Vec<_>>()).expect("it is written");
    drop(state);
    [IDENTITY, DATABASE].map(|name| fs::read(directory.path().join(name)).expect("it was written"))
});

/// In memory where there is such a place, since every run syncs.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a temporary directory")
}

pub(super) fn run(bytes: &[u8]) {
    let [mut identity, mut database] = SOUND.clone();
    let mut input = Input(bytes);
    while !input.is_empty() {
        damage(&mut input, &mut identity, &mut database);
    }
    let directory = directory();
    let write = |name, content: &[u8]| fs::write(directory.path().join(name), content).expect("it is written");
    write(IDENTITY, &identity);
    write(DATABASE, &database);
    open(directory.path());
}

fn damage(input: &mut Input<'_>, identity: &mut Vec<u8>, database: &mut Vec<u8>) {
    let place = |input: &mut Input<'_>, length: usize| {
        ((usize::from(input.byte()) << 16) | usize::from(input.word())) % length.max(1)
    };
    match input.byte() % 4 {
        0 => {
            let at = place(input, database.len());
            let bytes = input.part();
            database.iter_mut().skip(at).zip(bytes).for_each(|(to, from)| *to = *from);
        }
        1 => {
            let length = place(input, database.len());
            database.truncate(length);
        }
        2 => {
            let at = place(input, database.len()).min(database.len());
            let bytes = input.part();
            database.splice(at..at, bytes.iter().copied());
        }
        _ => *identity = input.part().to_vec(),
    }
}

/// Either everything is read, or nothing is left where it was found.
fn open(directory: &Path) {
    let Ok(state) = NodeState::open(directory, &mut |bytes| bytes.fill(9)) else { return };
    let known = state.load().is_ok();
    // Damage behind what was checked is an error, whatever is asked.
    let _ = (state.targets(), state.exposed());
    if known {
        let _ = state.next_incarnation();
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let patch = |place: u16, bytes: &[u8]| [&[0, 0][..], &place.to_be_bytes(), &part(bytes)].concat();
    vec![
        Vec::new(),
        patch(9, &[1]),
        patch(4096, &[0xff; 16]),
        [patch(64, &[0; 8]), patch(320, &[1, 2, 3])].concat(),
        vec![1, 0, 0x20, 0],
        of_kind(3, &part(b"not an identity")),
        of_kind(3, &part(&[b'7'; 64])),
    ]
}

/// A secret file with this content.
pub(super) fn secret(bytes: &[u8]) {
    let directory = directory();
    let path: PathBuf = directory.path().join("secret");
    fs::write(&path, bytes).expect("it is written");
    if let Ok(loaded) = load_secret_files(&[&path]) {
        let hex = loaded.secrets.iter().next().map(|secret| secret.to_hex().to_string());
        assert_eq!(
            hex.as_deref(),
            std::str::from_utf8(bytes).ok().map(|text| text.trim_end().to_ascii_lowercase()).as_deref()
        );
    }
}

pub(super) fn secret_seeds() -> Vec<Vec<u8>> {
    vec![[b'a'; 64].to_vec(), [&[b'A'; 64][..], b"\n"].concat(), [b'7'; 66].to_vec()]
}
