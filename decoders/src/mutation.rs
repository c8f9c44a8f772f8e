//! Damage to inputs: what a fuzzer does without looking at what comes of it.

use meshwork_simulator::Random;

/// Numbers at which lengths and counts go wrong.
const EDGES: [u8; 8] = [0, 1, 0x3f, 0x40, 0x7f, 0x80, 0xfe, 0xff];

/// Longest piece that is doubled, moved or taken out.
const PIECE: usize = 64;

/// One to eight changes to an input of at most `longest` bytes, pieces of `other` among them.
#[must_use]
pub fn mutated(random: &mut Random, input: &[u8], other: &[u8], longest: usize) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(8) {
        change(random, &mut bytes, other);
    }
    bytes.truncate(longest);
    bytes
}

fn change(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let place = random.index(bytes.len() + 1);
    match random.below(8) {
        0 => set(bytes, place, |byte| byte ^ (1 << random.below(8))),
        1 => set(bytes, place, |_| random.draw() as u8),
        2 => set(bytes, place, |_| random.pick(&EDGES)),
        3 => set(bytes, place, |byte| byte.wrapping_add(1)),
        4 => bytes.truncate(place),
        5 => insert(bytes, place, &piece(random, other)),
        6 => {
            let own = piece(random, bytes);
            insert(bytes, place, &own);
        }
        _ => drop(bytes.drain(place..(place + random.index(PIECE)).min(bytes.len()))),
    }
}

fn set(bytes: &mut [u8], place: usize, value: impl FnOnce(u8) -> u8) {
    if let Some(byte) = bytes.get_mut(place) {
        *byte = value(*byte);
    }
}

fn insert(bytes: &mut Vec<u8>, place: usize, piece: &[u8]) {
    bytes.splice(place..place, piece.iter().copied());
}

fn piece(random: &mut Random, from: &[u8]) -> Vec<u8> {
    let start = random.index(from.len());
    from.iter().skip(start).take(1 + random.index(PIECE)).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_mutates_alike_and_stays_short() {
        let mutate = |seed| mutated(&mut Random::new(seed), &[7; 100], &[9; 100], 110);
        assert!((0..200).all(|seed| mutate(seed) == mutate(seed) && mutate(seed).len() <= 110));
        assert!((0..200).filter(|seed| mutate(*seed) != [7; 100]).count() > 190);
        assert!((0..200).all(|seed| mutated(&mut Random::new(seed), &[], &[], 9).len() <= 9));
    }
}
