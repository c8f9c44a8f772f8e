//! What a target is.

/// One decoder, or one place that foreign bytes come in at.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Names it on the command line, and the folder of its corpus.
    pub name: &'static str,
    /// Takes any bytes. Panics when something does not hold.
    pub run: fn(&[u8]),
    /// Valid inputs, by the encoders.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// What one input may cost.
    pub bound: Bound,
}

/// Memory that may be in use at once for one input, and how dear the target is.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// Bytes whatever the input: state machines hold something before it comes.
    pub fixed: u64,
    /// Bytes for each byte of the input.
    pub per_byte: u64,
    /// Longest input in bytes that the target is fuzzed with: a little more than its place takes, where that is short.
    pub longest: usize,
    /// How many times as long as the cheapest a run takes: it gets so many mutations less.
    pub dearness: u64,
}
