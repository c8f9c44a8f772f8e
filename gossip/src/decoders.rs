//! What tests need that feed this crate with foreign bytes; nothing else does.

use meshwork_identity::Identity;
use meshwork_wire::{PeerId, frame};
use serde_bytes::ByteBuf;

use crate::block::{Block, Changes};
use crate::frames::{Answer, Base, Delta, Frame, Manifest, Mark, Part, Stamp, Summary};
use crate::hash::Hash;
use crate::limits::MAX_FRAME;

/// The bytes of the block that `bytes` are, and what they count against the bounds.
#[must_use]
pub fn block(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    let block = Block::parse(bytes).ok()?;
    // Reading it, changing nothing in it and looking for differences have to agree with what was taken.
    assert_eq!(block.with(&Changes::new()), Ok(block.clone()));
    assert!(block.difference(&block).is_empty());
    Some((block.bytes().to_vec(), block.size()))
}

/// The frame that `bytes` are, encoded again.
#[must_use]
pub fn again(bytes: &[u8]) -> Option<Vec<u8>> {
    let decoded: Frame = frame::decode(bytes, MAX_FRAME).ok()?;
    Some(frame::encode(&decoded))
}

/// Frames that ask for the changes in a frame, and that answer with them, where it holds any.
#[must_use]
pub fn asked(bytes: &[u8]) -> Option<[Vec<u8>; 3]> {
    let Frame::Changes(changes) = frame::decode(bytes, MAX_FRAME).ok()? else { return None };
    let deltas: Vec<Delta> = changes.iter().filter_map(|change| frame::decode(change, MAX_FRAME).ok()).collect();
    let named = |delta: &Delta| (delta.manifest.origin.peer_id(), delta.manifest.stamp.mark());
    let summary = |(origin, mark): (PeerId, Mark)| Summary { origin, mark, size: 9 };
    let told = Frame::Announce(deltas.iter().map(|delta| summary(named(delta))).collect());
    let base = |(origin, mark): (PeerId, Mark)| Base { origin, mark };
    let since = Frame::Since(deltas.iter().map(|delta| base(named(delta))).collect());
    let answers = Frame::Asked(changes.into_iter().map(|change| Answer { patient: true, change }).collect());
    Some([told, since, answers].map(|frame| frame::encode(&frame)))
}

/// The same frame with the states and changes in it signed by one of `identities` each, as hostile members would: their
/// signatures hold, and roots fit wherever they can.
#[must_use]
pub fn signed(bytes: &[u8], identities: &[Identity]) -> Option<Vec<u8>> {
    let mut decoded: Frame = frame::decode(bytes, MAX_FRAME).ok()?;
    match &mut decoded {
        Frame::Hello(hello) => {
            hello.echo.iter_mut().for_each(|echo| *echo = sign(*echo, None, identities));
        }
        Frame::Changes(changes) => changes.iter_mut().for_each(|change| sign_change(change, identities)),
        Frame::Asked(answers) => {
            answers.iter_mut().for_each(|answer| sign_change(&mut answer.change, identities));
        }
        Frame::States(parts) => parts.iter_mut().for_each(|part| sign_part(part, identities)),
        _ => {}
    }
    Some(frame::encode(&decoded))
}

fn sign_change(change: &mut ByteBuf, identities: &[Identity]) {
    let Ok(mut delta) = frame::decode::<Delta>(change, MAX_FRAME) else { return };
    let removed = delta.removals.iter().map(|name| (name.clone(), None));
    let put = delta.upserts.iter().map(|entry| (entry.name.clone(), Some(entry.value.clone())));
    let changes: Changes = removed.chain(put).collect();
    let root = Block::default().with(&changes).ok().map(|block| block.root());
    delta.manifest = sign(delta.manifest, root, identities);
    *change = ByteBuf::from(frame::encode(&delta));
}

fn sign_part(part: &mut Part, identities: &[Identity]) {
    let root = Block::parse(&part.bytes).ok().map(|block| block.root());
    part.manifest = sign(part.manifest, root, identities);
}

/// The first byte of the origin's key says who signs.
fn sign(manifest: Manifest, root: Option<Hash>, identities: &[Identity]) -> Manifest {
    let number = manifest.origin.0.first().copied().map_or(0, usize::from);
    let Some(identity) = identities.get(number % identities.len().max(1)) else { return manifest };
    Manifest::sign(identity, Stamp { root: root.unwrap_or(manifest.stamp.root), ..manifest.stamp })
}
