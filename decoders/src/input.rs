//! What a fuzzer's bytes mean to targets that take more than one thing: bytes, numbers, and parts with their lengths.

/// Bytes that are used up from the front; behind their end everything is zero and empty.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

impl<'a> Input<'a> {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// As many bytes as the next word says, or as there are.
    pub(crate) fn part(&mut self) -> &'a [u8] {
        let length = usize::from(self.word()).min(self.0.len());
        let (part, rest) = self.0.split_at(length);
        self.0 = rest;
        part
    }

    /// All that is left, in parts.
    pub(crate) fn parts(mut self) -> Vec<&'a [u8]> {
        let mut parts = Vec::new();
        while !self.is_empty() {
            parts.push(self.part());
        }
        parts
    }
}

/// Writes what [`Input::part`] reads.
pub(crate) fn part(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    [&length.to_be_bytes()[..], &bytes[..length.into()]].concat()
}

/// Writes what [`Input::parts`] reads.
pub(crate) fn parts<T: AsRef<[u8]>>(all: impl IntoIterator<Item = T>) -> Vec<u8> {
    all.into_iter().flat_map(|one| part(one.as_ref())).collect()
}

/// A seed of a target that tells by the first byte what the others are.
pub(crate) fn of_kind(kind: u8, bytes: &[u8]) -> Vec<u8> {
    [&[kind], bytes].concat()
}
