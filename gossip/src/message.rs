//! Small application messages over one or more links.

use std::time::Instant;

use meshwork_wire::PeerId;

use crate::event::{Event, Misbehaved};
use crate::frames::{Frame, Message};
use crate::gossip::Gossip;
use crate::limits::{HOP_LIMIT, MAX_INBOX, MAX_PAYLOAD};

impl Gossip {
    /// Sends a message to a member, over its link or over several by the published ones. It is dropped and counted
    /// when no path is known or it is longer than [`MAX_PAYLOAD`]; who needs an answer asks again.
    pub fn send(&mut self, now: Instant, to: PeerId, topic: u16, payload: Vec<u8>) {
        self.observe(now);
        if payload.len() > MAX_PAYLOAD {
            self.counters.no_route += 1;
        } else if to == self.id {
            self.deliver(to, topic, payload);
        } else {
            let source = self.id;
            let signature = self.identity.sign(&Message::signed_bytes(source, to, topic, &payload));
            self.forward(now, Message { source, target: to, hops: HOP_LIMIT, topic, payload, signature });
        }
    }

    /// A message that came straight from its source was authenticated by the link; any other by its signature.
    pub(crate) fn on_message(&mut self, now: Instant, from: PeerId, message: Message) -> Result<(), Misbehaved> {
        if message.target != self.id {
            self.forward(now, message);
            return Ok(());
        }
        if message.source != from {
            let Some(key) = self.members.public_key(message.source) else {
                self.counters.unexpected += 1;
                return Ok(());
            };
            if !message.is_valid(key) {
                return Err(Misbehaved::Forged(message.source));
            }
        }
        self.deliver(message.source, message.topic, message.payload);
        Ok(())
    }

    fn forward(&mut self, now: Instant, message: Message) {
        let target = message.target;
        let direct = self.links.get(&target).is_some_and(|link| link.pulse.is_up());
        let next = if direct { Some(target) } else { self.first_hop(now, target) };
        match (next, message.hops.checked_sub(1)) {
            (Some(next), Some(hops)) => {
                self.transmit(next, &Frame::Message(Message { hops, ..message }));
            }
            _ => self.counters.no_route += 1,
        }
    }

    fn deliver(&mut self, from: PeerId, topic: u16, payload: Vec<u8>) {
        if self.inbox >= MAX_INBOX {
            self.counters.inbox_full += 1;
            return;
        }
        self.inbox += 1;
        self.emit(Event::Message { from, topic, payload });
    }
}
