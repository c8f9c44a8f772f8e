//! The wire: what the kernel has no queueing discipline for here. It moves frames between two TAP devices and lets them
//! take their time, overtake each other, or arrive twice.
//!
//! It is a program of its own (`meshlab wire`), so that a lab outlives whoever made it. Frames cross it as the kernel hands
//! them over, up to 64 KB behind a virtio-net header: it neither cuts nor sums.

mod queue;
mod splice;

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use meshwork_sys::tun::{Layer, Tun, TunError, TunOptions, VNET_HEADER_LEN};

use crate::error::{Error, Result};
use crate::link::Link;
use crate::random::Random;
use crate::say;
use crate::wait::{Look, eventually};

use queue::Queue;
use splice::READY;
pub(crate) use splice::Splice;

/// The largest frame that the kernel hands over: 64 KB of IP behind Ethernet and a tag.
const FRAME_LIMIT: usize = VNET_HEADER_LEN + 65_535 + 18;
/// Frames that are read before due ones are written: one burst must not delay the other frames.
const BATCH: usize = 32;

/// A persistent TAP, which stays when the wire changes hands.
pub(crate) const TAP: TunOptions = TunOptions { layer: Layer::Ethernet, persistent: true };

/// How long a device may stay with the wire before: the threads of a process that was killed end one after the other, and
/// hold it until then.
const HANDED_OVER: Duration = Duration::from_secs(5);

/// Carries frames between two TAP devices under the conditions in `file`, for as long as both are there.
///
/// # Errors
/// When a device cannot be opened, or is deleted.
pub fn carry(near: &str, far: &str, file: &Path) -> Result<()> {
    let conditions = Link::read_file(file)?;
    let (near, far) = (open(near)?, open(far)?);
    // The directions have chances of their own, else a doubled question would always get a doubled answer.
    let mut seeds = Random::new(conditions.seed);
    let (tell, ended) = mpsc::channel();
    for (from, to) in [(near.clone(), far.clone()), (far, near)] {
        let mut queue = Queue::new(conditions.clone(), Random::new(seeds.number()));
        let tell = tell.clone();
        let carrying = thread::Builder::new().name(format!("from {}", from.name()));
        let spawned = carrying.spawn(move || {
            let Err(error) = carry_one_way(&from, &to, &mut queue);
            // Nobody listens any more when the other direction ended first.
            let _ = tell.send(Error::io(format!("carry frames from {}", from.name()))(error));
        });
        spawned.map_err(Error::io("start a thread of the wire"))?;
    }
    say!("{READY}");
    Err(ended.recv().map_err(|_| Error::Unproven("both directions of the wire panicked".into()))?)
}

fn open(name: &str) -> Result<Arc<Tun>> {
    eventually(HANDED_OVER, &format!("device {name}"), || match Tun::open(name, TAP) {
        Ok(tap) => Ok(Look::Done(Arc::new(tap))),
        Err(error @ TunError::Busy(_)) => Ok(Look::Missing(error.to_string())),
        Err(error) => Err(Error::Unproven(error.to_string())),
    })
}

fn carry_one_way(from: &Tun, to: &Tun, queue: &mut Queue) -> io::Result<Infallible> {
    let mut buffer = vec![0; FRAME_LIMIT];
    loop {
        while let Some(frame) = queue.due(Instant::now()) {
            // A device that is down or full loses frames, as any wire's end.
            let _ = to.write(&[IoSlice::new(&frame)]);
        }
        let patience = queue.next_due().map(|due| due.saturating_duration_since(Instant::now()));
        if from.wait(patience)? {
            read(from, queue, &mut buffer)?;
        }
    }
}

/// Takes what is there, up to a batch.
fn read(from: &Tun, queue: &mut Queue, buffer: &mut [u8]) -> io::Result<()> {
    for _ in 0..BATCH {
        let Some(length) = from.read(buffer)? else { break };
        queue.take(buffer.get(..length).unwrap_or_default(), Instant::now());
    }
    Ok(())
}
