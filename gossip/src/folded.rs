//! Frames on their way between the nodes of one process. A mesh that starts has more states under way than it holds, and
//! nearly all of them are the same few thousand: those that the [`Pool`] knows are not kept a second time.

use std::sync::Arc;

use meshwork_wire::frame;

use crate::frames::{Frame, Part};
use crate::limits::MAX_FRAME;
use crate::replica::{Pool, Replica};

/// Shorter frames are kept as they are.
const WORTH: usize = 512;

/// A frame; unfolded it is the same to the last byte.
#[derive(Debug, Clone)]
pub struct Folded(Form);

#[derive(Debug, Clone)]
enum Form {
    Plain(Vec<u8>),
    States(Vec<State>),
}

#[derive(Debug, Clone)]
enum State {
    Shared(Arc<Replica>),
    Other(Box<Part>),
}

impl Pool {
    /// Keeps a frame.
    #[must_use]
    pub fn fold(&self, bytes: Vec<u8>) -> Folded {
        let decoded = if bytes.len() < WORTH { None } else { frame::decode(&bytes, MAX_FRAME).ok() };
        let Some(Frame::States(parts)) = decoded else { return Folded(Form::Plain(bytes)) };
        let folded = Folded(Form::States(parts.into_iter().map(|part| self.fold_state(part)).collect()));
        // There is more than one way to write a number, and hostile nodes may use the others.
        if folded.written() == bytes { folded } else { Folded(Form::Plain(bytes)) }
    }

    fn fold_state(&self, part: Part) -> State {
        let known = self.find(&part.manifest).filter(|_| part.parts == 1 && part.part == 0);
        match known.filter(|known| known.block.bytes() == part.bytes) {
            Some(known) => State::Shared(known),
            None => State::Other(Box::new(part)),
        }
    }
}

impl Folded {
    /// The frame as it was.
    #[must_use]
    pub fn unfold(self) -> Vec<u8> {
        match self.0 {
            Form::Plain(bytes) => bytes,
            Form::States(_) => self.written(),
        }
    }

    fn written(&self) -> Vec<u8> {
        let Form::States(states) = &self.0 else { return Vec::new() };
        let part = |state: &State| match state {
            State::Other(part) => Part::clone(part),
            State::Shared(state) => {
                Part { manifest: state.manifest, part: 0, parts: 1, bytes: state.block.bytes().to_vec() }
            }
        };
        frame::encode(&Frame::States(states.iter().map(part).collect()))
    }
}

#[cfg(test)]
mod tests {
    use meshwork_identity::Identity;
    use meshwork_wire::Incarnation;

    use super::*;
    use crate::block::{Block, Changes};
    use crate::frames::{Manifest, Name, Stamp};
    use crate::replica::Replica;

    fn part(value: u8) -> Part {
        let name = Name { store: meshwork_wire::record::StoreId(900), key: vec![1] };
        let block = Block::default().with(&Changes::from([(name, Some(vec![value; 999]))])).expect("it fits");
        let stamp = Stamp { incarnation: Incarnation(1), sequence: 1, root: block.root() };
        let manifest = Manifest::sign(&Identity::from_seed([value; 32]), stamp);
        Part { manifest, part: 0, parts: 1, bytes: block.bytes().to_vec() }
    }

    #[test]
    fn a_frame_is_the_same_again_and_what_is_known_is_not_kept_twice() {
        let (pool, [known, unknown]) = (Pool::shared(), [part(1), part(2)]);
        let _held = pool.keep(Replica::new(known.manifest, Block::parse(&known.bytes).expect("it is one")));
        let altered = Part { bytes: unknown.bytes.clone(), ..known.clone() };
        let bytes = frame::encode(&Frame::States(vec![known, unknown, altered]));
        let folded = pool.fold(bytes.clone());
        let Form::States(states) = &folded.0 else { panic!("it was not folded") };
        let shared: Vec<bool> = states.iter().map(|state| matches!(state, State::Shared(_))).collect();
        assert_eq!((shared, folded.unfold()), (vec![true, false, false], bytes));
    }

    #[test]
    fn what_is_written_otherwise_is_kept_as_it_came() {
        let mut bytes = frame::encode(&Frame::States(vec![part(1)]));
        // How many states there are, in two bytes where one would do.
        bytes.splice(2..3, [0x81, 0]);
        let folded = Pool::shared().fold(bytes.clone());
        assert!(matches!(folded.0, Form::Plain(_)) && frame::decode::<Frame>(&bytes, MAX_FRAME).is_ok());
        assert_eq!(folded.unfold(), bytes);
    }
}
