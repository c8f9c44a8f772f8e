//! What the kernel says.

use meshwork_sys::netlink::decoders::{answers, counters as listed, notices};

/// What the kernel listed for a namespace with devices, routes and nexthop objects of most kinds.
const RECORDED: &[u8] = include_bytes!("../../../sys/tests/data/listings.bin");

/// What the kernel listed of a table with three counters.
const COUNTED: &[u8] = include_bytes!("../../../sys/tests/data/counters.bin");

/// The sequence number of everything recorded.
const SEQUENCE: u32 = 1;

pub(super) fn netlink(bytes: &[u8]) {
    let told = answers(bytes, SEQUENCE) + notices(bytes);
    assert!(told <= bytes.len() / 8, "a message has a header");
}

/// The messages of the listing, a few at a time.
pub(super) fn netlink_seeds() -> Vec<Vec<u8>> {
    let (mut rest, mut messages) = (RECORDED, Vec::new());
    while let Some(length) = rest.first_chunk().map(|length| u32::from_ne_bytes(*length) as usize) {
        let (message, others) = rest.split_at(length.next_multiple_of(4).min(rest.len()));
        messages.push(message);
        rest = others;
    }
    let listings = messages.chunks(messages.len().div_ceil(8)).map(<[&[u8]]>::concat);
    let error = [36, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xea, 0xff, 0xff, 0xff];
    let refusal = [&error[..], &[0; 16]].concat();
    let name = [32, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 0, 1, 0];
    let table = [&name[..], b"meshwrk\0"].concat();
    let end = [28, 0, 0, 0, 15, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 7];
    listings.filter(|seed| seed.len() < 8000).chain([refusal, [&table[..], &end].concat()]).collect()
}

/// Attributes have headers of four bytes: of a counter the table's, its name's, its data's and that of its packets.
pub(super) fn counters(bytes: &[u8]) {
    assert!(listed(bytes) <= bytes.len() / 32, "a counter has a message and attributes");
}

pub(super) fn counter_seeds() -> Vec<Vec<u8>> {
    COUNTED.chunks(COUNTED.len().div_ceil(2)).map(<[u8]>::to_vec).chain([COUNTED.to_vec()]).collect()
}
