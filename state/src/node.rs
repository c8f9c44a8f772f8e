//! The state directory of one node.
//!
//! Life-cycle: [`NodeState::open`] locks the directory, makes or checks what is in it and keeps it open until dropped.
//! The first start writes both files under other names and renames the identity last, so that a crash in between is
//! recognised and begun again.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use meshwork_identity::Identity;
use meshwork_ipam::{Change, Snapshot};
use meshwork_wire::Incarnation;
use redb::{Database, WriteTransaction};
use tracing::info;
use zeroize::Zeroizing;

use crate::database::{self, Fault, in_use_error};
use crate::error::StateError;
use crate::file;

const IDENTITY: &str = "identity";
const IDENTITY_NEW: &str = "identity.new";
const DATABASE: &str = "meshwork.redb";
const DATABASE_NEW: &str = "meshwork.redb.new";
const LOCK: &str = "lock";

/// What to do when identity and database were moved aside.
const NEXT: &str = "start again, and this node joins as a new peer; to be the old one again, put back a whole copy of the \
                    state directory";

/// Everything that a node keeps on disk.
#[derive(Debug)]
pub struct NodeState {
    directory: PathBuf,
    identity: Arc<Identity>,
    store: Mutex<Store>,
    /// Locked as long as it is open.
    _lock: File,
}

#[derive(Debug)]
struct Store {
    /// Closed after a failure, and opened again before the next use.
    database: Option<Database>,
    /// Number of the last transaction that is known to be on disk.
    sequence: u64,
    uncertain: bool,
}

impl NodeState {
    /// Opens the state directory, and makes what is missing in a fresh one. `random` fills a buffer with random bytes.
    ///
    /// # Errors
    /// [`StateError`] says what is wrong and what to do; [`StateError::Damaged`] also that files were moved aside.
    pub fn open(directory: &Path, random: &mut dyn FnMut(&mut [u8])) -> Result<Self, StateError> {
        file::make_directory(directory).map_err(|error| StateError::of(directory, error))?;
        let lock = lock(directory)?;
        finish_interrupted_creation(directory)?;
        let at = |name: &str| directory.join(name);
        if !is_there(&at(IDENTITY))? && !is_there(&at(DATABASE))? {
            create(directory, random)?;
        }
        let identity = Arc::new(read_identity(directory)?);
        let opened = open_checked(&at(DATABASE), &identity);
        let (database, sequence) = opened.map_err(|fault| refuse(directory, fault))?;
        let store = Mutex::new(Store { database: Some(database), sequence, uncertain: false });
        Ok(Self { directory: directory.to_owned(), identity, store, _lock: lock })
    }

    /// Keys of this node.
    #[must_use]
    pub fn identity(&self) -> Arc<Identity> {
        Arc::clone(&self.identity)
    }

    /// Counts the incarnation up, durably. To be called once per start.
    ///
    /// # Errors
    /// The count could not be recorded.
    pub fn next_incarnation(&self) -> Result<Incarnation, StateError> {
        let mut next = Incarnation::default();
        self.write(|transaction| {
            next = database::count_incarnation(transaction)?;
            Ok(())
        })?;
        Ok(next)
    }

    /// Takes in what others know of a later state of this node: its run, above which the next start counts, and what
    /// follows from the rest, in one transaction.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn catch_up(&self, incarnation: Incarnation, changes: &[Change]) -> Result<(), StateError> {
        self.write(|transaction| {
            database::raise_incarnation(transaction, incarnation)?;
            changes.iter().try_for_each(|change| database::put(transaction, change))
        })
    }

    /// Everything that address management keeps.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn load(&self) -> Result<Snapshot, StateError> {
        self.read(database::load)
    }

    /// Records changes in one transaction, on disk when this returns.
    ///
    /// # Errors
    /// None of the changes is recorded, except that [`StateError::Uncertain`] leaves it open: the daemon has to be
    /// restarted then.
    pub fn commit(&self, changes: &[Change]) -> Result<(), StateError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|transaction| changes.iter().try_for_each(|change| database::put(transaction, change)))
    }

    /// Peers to begin from that were added at run time.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn targets(&self) -> Result<Vec<String>, StateError> {
        self.read(database::targets)
    }

    /// Replaces the peers to begin from.
    ///
    /// # Errors
    /// The change could not be recorded.
    pub fn set_targets(&self, targets: &[String]) -> Result<(), StateError> {
        self.write(|transaction| database::put_targets(transaction, targets))
    }

    /// Whether others may reach the host at the node's overlay addresses.
    ///
    /// # Errors
    /// The database could not be read.
    pub fn exposed(&self) -> Result<bool, StateError> {
        self.read(database::exposed)
    }

    /// Records whether they may.
    ///
    /// # Errors
    /// The change could not be recorded.
    pub fn set_exposed(&self, exposed: bool) -> Result<(), StateError> {
        self.write(|transaction| database::put_exposed(transaction, exposed))
    }

    fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, StateError> {
        let mut store = self.store();
        let path = self.database_path();
        let database = store.ready(&path, &self.identity)?;
        database::guarded(|| work(database)).map_err(|fault| in_use_error(&path, fault))
    }

    fn write(&self, work: impl FnOnce(&WriteTransaction) -> Result<(), Fault>) -> Result<(), StateError> {
        let mut store = self.store();
        let path = self.database_path();
        let sequence = store.sequence + 1;
        let database = store.ready(&path, &self.identity)?;
        match database::guarded(|| database::write(database, sequence, work)) {
            Ok(()) => {
                store.sequence = sequence;
                Ok(())
            }
            Err(fault) => store.recover(&path, &self.identity, in_use_error(&path, fault)),
        }
    }

    fn database_path(&self) -> PathBuf {
        self.directory.join(DATABASE)
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        // Panics inside are caught before they can leave a store half-changed.
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The open database. One that was closed by a failure is opened again and has to be as it was left.
    fn ready(&mut self, path: &Path, identity: &Identity) -> Result<&Database, StateError> {
        if self.uncertain {
            return Err(StateError::Uncertain { path: path.to_owned() });
        }
        if self.database.is_none() && self.reopen(path, identity)? != self.sequence {
            self.uncertain = true;
            self.database = None;
        }
        self.database.as_ref().ok_or_else(|| StateError::Uncertain { path: path.to_owned() })
    }

    /// Finds out whether the transaction that failed is on disk all the same.
    fn recover(&mut self, path: &Path, identity: &Identity, error: StateError) -> Result<(), StateError> {
        self.database = None;
        match self.reopen(path, identity) {
            Ok(found) if found == self.sequence + 1 => {
                self.sequence = found;
                Ok(())
            }
            _ => Err(error),
        }
    }

    fn reopen(&mut self, path: &Path, identity: &Identity) -> Result<u64, StateError> {
        let (database, sequence) = open_checked(path, identity).map_err(|fault| in_use_error(path, fault))?;
        self.database = Some(database);
        Ok(sequence)
    }
}

/// Opens the database and reads all of it once, so that no damage is met later.
fn open_checked(path: &Path, identity: &Identity) -> Result<(Database, u64), Fault> {
    let database = database::open(path, identity.peer_id())?;
    database::guarded(|| {
        database::load(&database)?;
        database::targets(&database)?;
        database::exposed(&database)?;
        let sequence = database::sequence(&database)?;
        Ok((database, sequence))
    })
}

fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let options = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).clone();
    let mut file = options.open(&path).map_err(|error| StateError::of(&path, error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let pid = file::read_bounded(&path, 16).ok().and_then(|text| String::from_utf8(text).ok());
            let pid = pid.and_then(|text| text.trim().parse().ok());
            return Err(StateError::InUse { directory: directory.to_owned(), pid });
        }
        Err(TryLockError::Error(error)) => return Err(StateError::of(&path, error)),
    }
    // The number only helps people; the lock holds without it, even on a full disk.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// A first start that was cut short left `identity.new`: the node never ran, so what is there is removed.
fn finish_interrupted_creation(directory: &Path) -> Result<(), StateError> {
    let at = |name: &str| directory.join(name);
    let remove = |name: &str| file::remove_if_there(&at(name)).map_err(|error| StateError::of(&at(name), error));
    if is_there(&at(IDENTITY_NEW))? && !is_there(&at(IDENTITY))? {
        remove(DATABASE)?;
    }
    remove(DATABASE_NEW)?;
    remove(IDENTITY_NEW)
}

fn create(directory: &Path, random: &mut dyn FnMut(&mut [u8])) -> Result<(), StateError> {
    let at = |name: &str| directory.join(name);
    let mut seed = Zeroizing::new([0; 32]);
    random(&mut seed[..]);
    let identity = Identity::from_seed(*seed);
    let mut text = Zeroizing::new(String::with_capacity(65));
    seed.iter().for_each(|byte| text.push_str(&Zeroizing::new(format!("{byte:02x}"))));
    text.push('\n');
    let fail = |name: &str, error: io::Error| StateError::of(&at(name), error);
    file::write_private(&at(IDENTITY_NEW), text.as_bytes()).map_err(|error| fail(IDENTITY_NEW, error))?;
    let created = database::guarded(|| database::create(&at(DATABASE_NEW), identity.peer_id()));
    created.map_err(|fault| in_use_error(&at(DATABASE_NEW), fault))?;
    for (from, to) in [(DATABASE_NEW, DATABASE), (IDENTITY_NEW, IDENTITY)] {
        fs::rename(at(from), at(to)).map_err(|error| fail(to, error))?;
        file::sync_directory(directory).map_err(|error| StateError::of(directory, error))?;
    }
    info!(peer = %identity.peer_id(), directory = %directory.display(), "made a new identity");
    Ok(())
}

fn read_identity(directory: &Path) -> Result<Identity, StateError> {
    let path = directory.join(IDENTITY);
    let content = match file::read_bounded(&path, 65) {
        Ok(content) => Zeroizing::new(content),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refuse(directory, Fault::damaged("its identity file is missing")));
        }
        Err(error) => return Err(StateError::of(&path, error)),
    };
    let digits = content.strip_suffix(b"\n").unwrap_or(&content);
    let seed =
        parse_seed(digits).ok_or_else(|| refuse(directory, Fault::damaged("the identity file is not readable")))?;
    Ok(Identity::from_seed(*seed))
}

fn parse_seed(digits: &[u8]) -> Option<Zeroizing<[u8; 32]>> {
    let mut seed = Zeroizing::new([0; 32]);
    for (byte, pair) in seed.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = char::from(*digit).to_digit(16)?;
            *byte = *byte << 4 | u8::try_from(value).ok()?;
        }
    }
    (digits.len() == 64).then_some(seed)
}

/// What a fault means at start. Damage moves identity and database aside, together.
fn refuse(directory: &Path, fault: Fault) -> StateError {
    let path = directory.join(DATABASE);
    let reason = match fault {
        Fault::Io(error) if error.kind() == io::ErrorKind::NotFound => "the database is missing".to_owned(),
        Fault::Damaged(reason) => format!("the state in {} is damaged: {reason}", directory.display()),
        Fault::InUse => return StateError::InUse { directory: directory.to_owned(), pid: None },
        other => return in_use_error(&path, other),
    };
    match file::move_aside(directory, &[DATABASE, IDENTITY]) {
        Ok(moved_to) => StateError::Damaged { reason, moved_to, next: NEXT },
        Err(error) => StateError::of(directory, error),
    }
}

fn is_there(path: &Path) -> Result<bool, StateError> {
    path.try_exists().map_err(|error| StateError::of(path, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A transaction failed and closed the database; what is found there is neither the state before it nor after it.
    #[test]
    fn a_database_that_is_not_as_it_was_left_is_written_no_more() {
        let directory = tempfile::tempdir().unwrap();
        let state = NodeState::open(directory.path(), &mut |bytes| bytes.fill(7)).unwrap();
        state.set_targets(&["known".into()]).unwrap();
        {
            let mut store = state.store();
            store.database = None;
            store.sequence += 2;
        }
        for _ in 0..2 {
            let refused = state.set_targets(&["lost".into()]);
            assert!(matches!(refused, Err(StateError::Uncertain { .. })), "{refused:?}");
        }
        drop(state);
        let next = NodeState::open(directory.path(), &mut |bytes| bytes.fill(7)).unwrap();
        assert_eq!(next.targets().unwrap(), ["known"], "the next daemon reads the disk");
        println!("figure: 2 of 2 later transactions refused, 0 of them found on disk");
    }
}
