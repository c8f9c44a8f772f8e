//! Every bound and interval, with its reason.

use std::time::Duration;

/// Longest frame on a link, in bytes: small enough that a bulk transfer delays a change by one frame time only.
pub const MAX_FRAME: usize = 64 * 1024;

/// Bytes of what goes into one frame, as far as it is made of many things. The rest of [`MAX_FRAME`] covers the last of
/// them, and lengths.
pub const MAX_BATCH: usize = 32 * 1024;

/// Longest key of an entry, in bytes as encoded: room for two names of 253 characters.
pub const MAX_KEY: usize = 512;

/// Longest value of an entry, in bytes as encoded: room for a pod with many labels; a batch holds at least one.
pub const MAX_VALUE: usize = 16 * 1024;

/// Most bytes of all entries of one origin, keys and [`ENTRY_OVERHEAD`] included: bounds what a hostile member costs.
pub const MAX_ORIGIN: usize = 64 * 1024;

/// What an entry counts besides its key and value, so that a great many empty ones are bounded as well.
pub const ENTRY_OVERHEAD: usize = 16;

/// Own states that a run remembers to have signed, to tell them from those of another process: an hour of changes that
/// come one a second, in 64 KB.
pub(crate) const MOST_SIGNED: usize = 4096;

/// How long a node that was told of a later state of its own waits for it before it tells others its own: a few requests,
/// each to another neighbour.
pub(crate) const QUIET: Duration = Duration::from_secs(15);

/// Most origins held.
pub const MAX_MEMBERS: usize = 8192;

/// New origins per second that one link may bring which no second link vouches for: an inventor of members fills the
/// table in minutes, not at once.
pub const NEW_MEMBERS_PER_SECOND: u32 = 20;

/// New origins that one link may bring at once in this way, so that a node with a single link joins a mesh of this size
/// without waiting.
pub const NEW_MEMBERS_BURST: u32 = 200;

/// Origins below which a comparison lists them rather than go further down: a listed one costs about 40 bytes, and a
/// level 16 for each of its 16 subtrees.
pub const LIST_BELOW: u32 = 8;

/// Origins in one listing, whatever asks for it: about 20 KB.
pub const LIST_MOST: u32 = 512;

/// Bytes of states asked for at once over one link: what a link of 1 MB/s carries in a quarter of a second.
pub const PULL_WINDOW: usize = 256 * 1024;

/// Origins in one request.
pub const PULLS_PER_REQUEST: usize = 256;

/// Frames of one state: [`MAX_ORIGIN`] in parts of [`MAX_BATCH`].
pub const MAX_PARTS: u16 = 2;

/// Changes are pushed over a link while it carries less than this, with all headers. Beyond it they are announced, and
/// the neighbour asks for what it did not get from elsewhere.
pub const EAGER_BYTES_PER_SECOND: u64 = 16 * 1024;

/// What a datagram costs besides what it carries: IP, UDP and QUIC headers with their tag.
pub const DATAGRAM: u64 = 60;

/// Between two moments at which neighbours are told and asked, in a mesh where something always changes: each costs a
/// datagram and an acknowledgement for most links.
pub const FLUSH_PAUSE: Duration = Duration::from_millis(50);

/// How many of them may come at once after a quiet time.
pub const FLUSHES_IN_HAND: u32 = 20;

/// Between two announcements on a link that carries much: what changes meanwhile is told once.
pub const ANNOUNCE_PAUSE: Duration = Duration::from_millis(50);

/// Members up to which every change is passed on at once …
pub const HASTY_MEMBERS: usize = 24;

/// … and how long one that nobody waits for is gathered with others on its way, at each node, for each member beyond: all of
/// them handle it, and most neighbours have it from elsewhere by then …
pub const PATIENCE_PER_MEMBER: Duration = Duration::from_millis(1);

/// … and at most.
pub const PATIENCE: Duration = Duration::from_secs(1);

/// Bytes of changes kept for neighbours that ask for them: those of a few hundred members …
pub const MOST_RECENT: usize = 64 * 1024;

/// … each no longer than this: about a third of a usual state.
pub const LONGEST_RECENT: usize = 512;

/// Between a manifest of an origin and the next where links alone changed. The first change after a quiet time is signed at
/// once, and a burst together: where many start, links come by the dozen at every node.
pub const SIGN_PAUSE: Duration = Duration::from_millis(100);

/// The same where something else changed: what a node gave or leased shall be known elsewhere before its disk can be lost.
pub const PROMPT_SIGN_PAUSE: Duration = Duration::from_millis(10);

/// Within this a link is told to a member that can be reached without it: it changes nobody's view of who lives, and in
/// a mesh that chooses its links anew a node gets several at a time.
pub const SPARE_LINK_PAUSE: Duration = Duration::from_millis(500);

/// Within this for each member beyond [`HASTY_MEMBERS`] the same is told, and that a link was given up which neither end
/// needs: each of them handles it.
pub const SPARE_LINK_PAUSE_PER_MEMBER: Duration = Duration::from_millis(10);

/// The same while members come: whom a node wants a link to changes with each of them …
pub const SPARE_LINK_PAUSE_WHILE_GROWING: Duration = Duration::from_millis(50);

/// … which has an end when none came for so long.
pub const GROWTH_ENDED: Duration = Duration::from_secs(3);

/// Longest of these pauses.
pub const LONGEST_SPARE_LINK_PAUSE: Duration = Duration::from_secs(5);

/// Between two computations of who is reachable, when it takes going over all links.
pub const REACH_PAUSE: Duration = Duration::from_millis(100);

/// Between two computations of the ways of messages, as long as the ways in use stand.
pub const ROUTE_PAUSE: Duration = Duration::from_millis(500);

/// Claims of links to members that are not known yet.
pub const MAX_CLAIMS: usize = 4 * MAX_MEMBERS;

/// A neighbour that was asked for states and sends none of them for this long is asked for nothing of them any more.
pub const PULL_TIMEOUT: Duration = Duration::from_secs(3);

/// Nothing is expected of one neighbour for longer than this, even if it sends other things all the time: it may send
/// them so that nobody else is asked. What was asked for at once takes this on a link of 25 KB/s.
pub const LONGEST_PULL: Duration = Duration::from_secs(10);

/// What a state counts at least among those asked for at once, whatever size was told of it.
pub const LEAST_PULL: usize = 256;

/// Bytes waiting for one link. What does not fit is dropped: a comparison finds it again.
pub const MAX_QUEUE: usize = 4 * 1024 * 1024;

/// Longest payload of an application message, in bytes.
pub const MAX_PAYLOAD: usize = 16 * 1024;

/// Application messages waiting to be taken by the driver.
pub const MAX_INBOX: usize = 1024;

/// Links that a message may cross: twice the diameter of a random 8-regular graph of 1,000 nodes.
pub const HOP_LIMIT: u8 = 8;

/// Between two heartbeats on a link.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// How late a heartbeat may be before it counts as missed.
pub const HEARTBEAT_SLACK: Duration = Duration::from_millis(250);

/// Between two probes of a link on which a heartbeat was missed.
pub const PROBE: Duration = Duration::from_millis(250);

/// A link is down when this long nothing came after a heartbeat was due. Counted from there, a pause of a peer that
/// is shorter than this is never noticed, and a death is known everywhere within 5 s.
pub const SILENCE: Duration = Duration::from_secs(3);

/// The driver is told to close a link on which nothing came for this long.
pub const LINK_SILENT: Duration = Duration::from_secs(10);

/// An unreachable member counts as dead after this long.
pub const DEATH: Duration = Duration::from_secs(30);

/// A timer that fires this much late shows that this process stood still, which says nothing about others.
pub const STALL: Duration = Duration::from_millis(200);

/// Between two comparisons that one side of a link begins because heartbeats disagree.
pub const WALK_INTERVAL: Duration = Duration::from_secs(2);

/// After this long without a change, a heartbeat that disagrees is no longer about changes on their way.
pub const SETTLED: Duration = Duration::from_millis(500);

/// A round trip is published again when it moved by more than this share (in percent) …
pub const RTT_CHANGE_PERCENT: u32 = 25;

/// … and by more than this …
pub const RTT_CHANGE: Duration = Duration::from_millis(5);

/// … for this long …
pub const RTT_STEADY: Duration = Duration::from_secs(30);

/// … at most this often.
pub const RTT_INTERVAL: Duration = Duration::from_secs(60);

/// Up to this many others everyone has a link to everyone: fewer links would cost more in lost deltas than they save.
pub const FULL_MESH: usize = 12;

/// A mesh of bounded links becomes a full one again only at this many others, so that a mesh around [`FULL_MESH`] whose
/// nodes come and go keeps its links.
pub const FULL_MESH_AGAIN: usize = 10;

/// Rings of a small mesh: a neighbour on either side of each gives a random graph of degree 6, in which a change reaches
/// 1,000 nodes over 4 links.
pub const LEAST_RINGS: usize = 3;

/// One ring more for each eightfold mesh, from 4,096 members on: degree and diameter both stay O(log n).
pub const RING_GROWTH_LOG2: u32 = 3;

/// Most rings looked at. In a small mesh the same neighbour turns up on several, and further ones make up for it.
pub const MOST_RINGS: usize = 16;

/// Links besides those of the rings, chosen for a low round trip.
pub const NEAR_LINKS: usize = 2;

/// Links beyond which callers are sent elsewhere: twice what a node wants itself.
pub const MOST_LINKS: usize = 16;

/// Links beyond [`MOST_LINKS`] for callers whose operator named this node: it may be what joins two sites. A mesh of
/// thousands that all begin from one node does not come to rest on it nevertheless.
pub const MOST_NAMED: usize = 16;

/// Links beyond that for callers that found nobody else: they leave once they know the mesh.
pub const MOST_ALONE: usize = 8;

/// A member with this many links is named to nobody as one with room, and chosen last.
pub const ROOMY: usize = 12;

/// Members named to a caller that is sent elsewhere: one of them will do, and all fit in one packet.
pub const MOST_REFERRED: usize = 4;

/// Unreachable members dialled at once. Those beside this node on the rings, as others do with those beside them: so
/// every one that comes back, and every partition that ends, is noticed by some.
pub const MOST_LOST: usize = FULL_MESH;

/// How long a chosen member may do without a link before another is chosen in its place …
pub const LINK_PATIENCE: Duration = Duration::from_secs(3);

/// … and how long it is passed over: the pair may be cut off from each other for good.
pub const PASSED_OVER: Duration = Duration::from_secs(60);

/// Within this after a change links are chosen anew; drawn at random, so that those who lost the same neighbour do not
/// turn to the same others at once.
pub const CHOOSE_WITHIN: Duration = Duration::from_millis(300);

/// The same for a node that has enough links: what changed is no loss of its own, and in a mesh that grows by a hundred at
/// once it would make new links for each of them.
pub const CHOOSE_CALMLY: Duration = Duration::from_secs(6);

/// How long a mesh has to be about as large as it is before all links are chosen in it. Who joins with a thousand others
/// would make links to those beside it at every size that the mesh passes through.
pub const RIPE: Duration = Duration::from_secs(1);

/// Links that a node makes do with until then: a random graph of as many is whole.
pub const FEW_LINKS: usize = 3;

/// Of two that both want a link the lesser id dials first; the other one follows after this.
pub const SECOND_CALLER: Duration = Duration::from_millis(500);

/// How long a link has to be one too many before it is given up, and least pause until the next.
pub const GIVE_UP_AFTER: Duration = Duration::from_secs(10);

/// The same for a node that has hardly room for callers left.
pub const GIVE_UP_SOON: Duration = Duration::from_secs(1);

/// Members that a node without near ones tries in vain before it leaves it at that: one in eight is near in a mesh over
/// as many sites, and a quiet mesh changes nothing.
pub const MOST_EXPLORED: usize = 16;

/// Between two looks for members that are nearer than the neighbours.
pub const NEARER_INTERVAL: Duration = Duration::from_secs(60);
