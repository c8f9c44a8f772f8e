//! Answering neighbours that ask: with whole states, or with the change since what they hold, in the order of their asking.

use std::collections::VecDeque;
use std::sync::Arc;

use meshwork_wire::PeerId;
use serde_bytes::ByteBuf;

use crate::frames::{Answer, Base, Frame, Manifest, Part};
use crate::gossip::Gossip;
use crate::limits::{MAX_BATCH, PULLS_PER_REQUEST};
use crate::replica::Replica;

/// Answers of one kind that go into one frame.
enum Batch {
    States(Vec<Part>),
    Changes(Vec<Answer>),
}

/// What is being answered to one request.
struct Answers {
    to: PeerId,
    batch: Batch,
    size: usize,
}

impl Answers {
    const fn new(to: PeerId) -> Self {
        Self { to, batch: Batch::States(Vec::new()), size: 0 }
    }
}

impl Gossip {
    /// Sends the states that were asked for, as far as they are held and the queue has room.
    pub(crate) fn on_request(&mut self, from: PeerId, origins: &[PeerId]) {
        let mut answers = Answers::new(from);
        for origin in origins.iter().take(PULLS_PER_REQUEST) {
            if self.answer(&mut answers, *origin, None).is_none() {
                return;
            }
        }
        self.send_answers(&mut answers);
    }

    /// Sends what came after the states that the neighbour holds.
    pub(crate) fn on_since(&mut self, from: PeerId, bases: &[Base]) {
        let mut answers = Answers::new(from);
        for base in bases.iter().take(PULLS_PER_REQUEST) {
            if self.answer(&mut answers, base.origin, Some(base)).is_none() {
                return;
            }
        }
        self.send_answers(&mut answers);
    }

    /// Answers about one origin; nothing where the queue is full.
    fn answer(&mut self, answers: &mut Answers, origin: PeerId, base: Option<&Base>) -> Option<()> {
        if origin == self.id && !self.tells_own(answers.to) {
            return Some(());
        }
        let Some(number) = self.members.find(origin) else { return Some(()) };
        let Some(replica) = self.members.get(number).and_then(|known| known.replica.clone()) else { return Some(()) };
        let change = base.and_then(|base| self.recent.find(number, base.mark, replica.mark()));
        match change {
            Some((patient, change)) => self.answer_with_change(answers, patient, &change),
            None => parts(&replica).into_iter().try_for_each(|part| self.answer_with_state(answers, part)),
        }
    }

    fn answer_with_state(&mut self, answers: &mut Answers, part: Part) -> Option<()> {
        if !matches!(answers.batch, Batch::States(_)) || answers.size + part.bytes.len() > MAX_BATCH {
            self.send_answers(answers)?;
            answers.batch = Batch::States(Vec::new());
        }
        answers.size += part.bytes.len() + size_of::<Manifest>();
        if let Batch::States(batch) = &mut answers.batch {
            batch.push(part);
        }
        Some(())
    }

    fn answer_with_change(&mut self, answers: &mut Answers, patient: bool, change: &[u8]) -> Option<()> {
        if !matches!(answers.batch, Batch::Changes(_)) || answers.size + change.len() > MAX_BATCH {
            self.send_answers(answers)?;
            answers.batch = Batch::Changes(Vec::new());
        }
        answers.size += change.len();
        if let Batch::Changes(batch) = &mut answers.batch {
            batch.push(Answer { patient, change: ByteBuf::from(change) });
        }
        Some(())
    }

    /// Sends what is gathered. Nothing where the queue is full.
    fn send_answers(&mut self, answers: &mut Answers) -> Option<()> {
        answers.size = 0;
        let frame = match &mut answers.batch {
            Batch::States(batch) if !batch.is_empty() => Frame::States(std::mem::take(batch)),
            Batch::Changes(batch) if !batch.is_empty() => Frame::Asked(std::mem::take(batch)),
            _ => return Some(()),
        };
        self.transmit_bulk(answers.to, &frame).then_some(())
    }
}

/// A state in parts of at most [`MAX_BATCH`] bytes, at least one.
fn parts(replica: &Arc<Replica>) -> VecDeque<Part> {
    let mut chunks: Vec<&[u8]> = replica.block.bytes().chunks(MAX_BATCH).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    let parts = u16::try_from(chunks.len()).unwrap_or(u16::MAX);
    let part = |(part, bytes): (u16, &[u8])| Part { manifest: replica.manifest, part, parts, bytes: bytes.to_vec() };
    (0..parts).zip(chunks).map(part).collect()
}
