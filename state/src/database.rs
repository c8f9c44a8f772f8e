//! The tables, and the one place that talks to redb.
//!
//! redb may panic on files that were crafted or damaged; every call on content that could be is guarded, and a panic
//! counts as damage.

use std::fs::OpenOptions;
use std::io;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ipnet::Ipv4Net;
use meshwork_ipam::{Change, HeldPart, Lease, Origin, Snapshot};
use meshwork_wire::record::PodKey;
use meshwork_wire::{Incarnation, PeerId, frame};
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, TableDefinition, TableError, WriteTransaction};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::StateError;

/// Format of the tables that this build writes and the newest that it reads.
pub(crate) const FORMAT: u32 = 1;

/// Bytes of a database's first page: a shorter file cannot be one.
const LEAST_FILE: u64 = 4096;

/// What redb files begin with.
const MAGIC: &[u8] = b"redb\x1a\x0a\xa9\x0d\x0a";

/// Page cache: thousands of leases fit, and the daemon stays small.
const CACHE: usize = 2 << 20;

/// Most bytes of a row; a lease with many labels takes a few hundred.
const MAX_ROW: usize = 1 << 20;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const RING: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("ring");
const LEASES: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("leases");
/// Origins of leases, under the leases' keys. A table of its own, which builds that know leases alone neither need nor
/// mind; a lease without a row has the default origin.
const ORIGINS: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("lease-origins");
const FREED: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("freed");
const TARGETS: TableDefinition<'_, u64, &str> = TableDefinition::new("targets");

/// Why the file is of no use.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The system, or redb about the system.
    Io(io::Error),
    /// Content that cannot be right.
    Damaged(String),
    /// Another handle is open.
    InUse,
    /// A newer build wrote it.
    Newer(u32),
}

impl Fault {
    pub(crate) fn damaged(reason: impl Into<String>) -> Self {
        Self::Damaged(reason.into())
    }
}

impl<E: Into<redb::Error>> From<E> for Fault {
    fn from(error: E) -> Self {
        match error.into() {
            redb::Error::Io(error) => match error.kind() {
                io::ErrorKind::UnexpectedEof | io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => {
                    Self::Damaged(error.to_string())
                }
                _ => Self::Io(error),
            },
            redb::Error::DatabaseAlreadyOpen => Self::InUse,
            other => Self::Damaged(other.to_string()),
        }
    }
}

/// Runs something on content that may be damaged.
pub(crate) fn guarded<T>(work: impl FnOnce() -> Result<T, Fault>) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(Fault::damaged("the database cannot make sense of it")))
}

/// Makes an empty database that belongs to `owner`.
pub(crate) fn create(path: &Path, owner: PeerId) -> Result<(), Fault> {
    let options = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).clone();
    let file = options.open(path).map_err(Fault::Io)?;
    let database = Database::builder().set_cache_size(CACHE).create_file(file)?;
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", &FORMAT.to_be_bytes()[..])?;
        meta.insert("owner", &owner.0[..])?;
        put_number(&mut meta, "incarnation", 0)?;
        put_number(&mut meta, "sequence", 0)?;
        transaction.open_table(RING)?;
        transaction.open_table(LEASES)?;
        transaction.open_table(FREED)?;
        transaction.open_table(TARGETS)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Opens a database and checks every page, its format and its owner.
pub(crate) fn open(path: &Path, owner: PeerId) -> Result<Database, Fault> {
    check_header(path)?;
    guarded(|| {
        let mut database = Database::builder().set_cache_size(CACHE).open(path)?;
        if !database.check_integrity()? {
            return Err(Fault::damaged("its pages do not fit together"));
        }
        check_meta(&database, owner)?;
        Ok(database)
    })
}

fn check_header(path: &Path) -> Result<(), Fault> {
    let content = crate::file::read_bounded(path, LEAST_FILE - 1).map_err(Fault::Io)?;
    if (content.len() as u64) < LEAST_FILE || !content.starts_with(MAGIC) {
        return Err(Fault::damaged("it is no database"));
    }
    Ok(())
}

fn check_meta(database: &Database, owner: PeerId) -> Result<(), Fault> {
    let transaction = database.begin_read()?;
    let meta = transaction.open_table(META)?;
    let format = meta.get("format")?.and_then(|value| value.value().try_into().ok()).map(u32::from_be_bytes);
    match format {
        Some(FORMAT) => {}
        Some(found) if found > FORMAT => return Err(Fault::Newer(found)),
        _ => return Err(Fault::damaged("it does not say its format")),
    }
    let found = meta.get("owner")?.and_then(|value| value.value().try_into().ok()).map(PeerId);
    match found {
        Some(found) if found == owner => Ok(()),
        Some(found) => Err(Fault::damaged(format!("it belongs to peer {found}, and the identity file to {owner}"))),
        None => Err(Fault::damaged("it does not say whose it is")),
    }
}

/// Number of the last transaction.
pub(crate) fn sequence(database: &Database) -> Result<u64, Fault> {
    number(&database.begin_read()?.open_table(META)?, "sequence")
}

/// Reads everything that address management keeps.
pub(crate) fn load(database: &Database) -> Result<Snapshot, Fault> {
    let transaction = database.begin_read()?;
    let mut snapshot = Snapshot::default();
    for row in transaction.open_table(RING)?.iter()? {
        let (key, value) = row?;
        snapshot.parts.insert(decode::<Ipv4Net>(key.value())?, decode::<HeldPart>(value.value())?);
    }
    for row in transaction.open_table(LEASES)?.iter()? {
        let lease: Lease = decode(row?.1.value())?;
        snapshot.leases.insert(lease.name.clone(), lease);
    }
    load_origins(&transaction, &mut snapshot)?;
    for row in transaction.open_table(FREED)?.iter()? {
        let (key, value) = row?;
        snapshot.freed.insert(key.value(), decode::<IpAddr>(value.value())?);
    }
    Ok(snapshot)
}

/// Rows without a lease are those of leases that an older build freed.
fn load_origins(transaction: &ReadTransaction, snapshot: &mut Snapshot) -> Result<(), Fault> {
    let table = match transaction.open_table(ORIGINS) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for row in table.iter()? {
        let (key, value) = row?;
        if let Some(lease) = snapshot.leases.get_mut(&decode::<PodKey>(key.value())?) {
            lease.origin = decode::<Origin>(value.value())?;
        }
    }
    Ok(())
}

/// Reads the peers to begin from that were added at run time.
pub(crate) fn targets(database: &Database) -> Result<Vec<String>, Fault> {
    let transaction = database.begin_read()?;
    let table = transaction.open_table(TARGETS)?;
    let rows = table.iter()?.map(|row| Ok(row?.1.value().to_owned()));
    rows.collect()
}

/// Writes within one transaction, numbered, on disk when this returns.
pub(crate) fn write(
    database: &Database,
    sequence: u64,
    work: impl FnOnce(&WriteTransaction) -> Result<(), Fault>,
) -> Result<(), Fault> {
    let transaction = database.begin_write()?;
    work(&transaction)?;
    put_number(&mut transaction.open_table(META)?, "sequence", sequence)?;
    transaction.commit()?;
    Ok(())
}

/// Writes one change.
pub(crate) fn put(transaction: &WriteTransaction, change: &Change) -> Result<(), Fault> {
    match change {
        Change::PutPart { prefix, held } => {
            transaction.open_table(RING)?.insert(&encode(prefix)[..], &encode(held)[..])?;
        }
        Change::DropPart(prefix) => {
            transaction.open_table(RING)?.remove(&encode(prefix)[..])?;
        }
        Change::PutLease(lease) => {
            let name = encode(&lease.name);
            transaction.open_table(LEASES)?.insert(&name[..], &encode(lease)[..])?;
            transaction.open_table(ORIGINS)?.insert(&name[..], &encode(&lease.origin)[..])?;
        }
        Change::DropLease(name) => {
            let name = encode(name);
            transaction.open_table(LEASES)?.remove(&name[..])?;
            transaction.open_table(ORIGINS)?.remove(&name[..])?;
        }
        Change::PutFreed { sequence, address } => {
            transaction.open_table(FREED)?.insert(sequence, &encode(address)[..])?;
        }
        Change::DropFreed { sequence } => {
            transaction.open_table(FREED)?.remove(sequence)?;
        }
    }
    Ok(())
}

/// Replaces the targets.
pub(crate) fn put_targets(transaction: &WriteTransaction, targets: &[String]) -> Result<(), Fault> {
    let mut table = transaction.open_table(TARGETS)?;
    table.retain(|_, _| false)?;
    for (place, target) in (0..).zip(targets) {
        table.insert(place, target.as_str())?;
    }
    Ok(())
}

/// Whether others may reach the host. A database from before this was asked says nothing, which means no.
pub(crate) fn exposed(database: &Database) -> Result<bool, Fault> {
    let meta = database.begin_read()?.open_table(META)?;
    Ok(meta.get("exposed")?.is_some_and(|value| value.value() == [1]))
}

/// Writes whether others may.
pub(crate) fn put_exposed(transaction: &WriteTransaction, exposed: bool) -> Result<(), Fault> {
    transaction.open_table(META)?.insert("exposed", &[u8::from(exposed)][..])?;
    Ok(())
}

/// Counts the incarnation up and answers the new one.
pub(crate) fn count_incarnation(transaction: &WriteTransaction) -> Result<Incarnation, Fault> {
    let mut meta = transaction.open_table(META)?;
    let next = number(&meta, "incarnation")?.saturating_add(1);
    put_number(&mut meta, "incarnation", next)?;
    Ok(Incarnation(next))
}

pub(crate) fn raise_incarnation(transaction: &WriteTransaction, least: Incarnation) -> Result<(), Fault> {
    let mut meta = transaction.open_table(META)?;
    let known = number(&meta, "incarnation")?;
    put_number(&mut meta, "incarnation", known.max(least.0))
}

fn number(meta: &impl ReadableTable<&'static str, &'static [u8]>, key: &str) -> Result<u64, Fault> {
    let bytes = meta.get(key)?.and_then(|value| value.value().try_into().ok());
    bytes.map(u64::from_be_bytes).ok_or_else(|| Fault::damaged(format!("it has no {key}")))
}

fn put_number(meta: &mut redb::Table<'_, &'static str, &'static [u8]>, key: &str, number: u64) -> Result<(), Fault> {
    meta.insert(key, &number.to_be_bytes()[..])?;
    Ok(())
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    frame::encode(value)
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    frame::decode(bytes, MAX_ROW).map_err(|error| Fault::damaged(format!("a row of it is not readable: {error}")))
}

/// What a fault means while the database is in use.
pub(crate) fn in_use_error(path: &Path, fault: Fault) -> StateError {
    let path = path.to_owned();
    match fault {
        Fault::Io(error) => StateError::of(&path, error),
        Fault::Damaged(reason) => StateError::Database { path, reason },
        Fault::InUse => StateError::Database { path, reason: "it is open elsewhere".to_owned() },
        Fault::Newer(found) => StateError::NewerFormat { path, found, known: FORMAT },
    }
}
