//! One session: two keys, a counter and a replay window.
//!
//! Counters are reserved atomically, so threads may seal at once; only the receiving thread opens. A session is sealed
//! to nobody until it is confirmed: its maker has proof that the other side holds the keys.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, Algorithm, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use meshwork_identity::KeyId;
use meshwork_wire::Incarnation;
use zeroize::Zeroizing;

use crate::drops::Drop;
use crate::header::{HEADER_LEN, Header, PacketType, SEALED_OVERHEAD, TAG_LEN};
use crate::peer::Peer;
use crate::replay::Window;

/// Packets after which new keys are due; far below what AES-GCM bears (2^32 of this size keep a forger's odds under
/// 2^-60), so that a failing handshake has time.
pub(crate) const REKEY_PACKETS: u64 = 1 << 26;
/// Packets after which a key is never used again.
const STOP_PACKETS: u64 = 1 << 28;

/// The AEAD of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cipher {
    Aes256Gcm,
    ChaCha20Poly1305,
}

impl Cipher {
    /// The number in an initiation's flags.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::ChaCha20Poly1305 => 2,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Aes256Gcm),
            2 => Some(Self::ChaCha20Poly1305),
            _ => None,
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Aes256Gcm => "AES-256-GCM",
            Self::ChaCha20Poly1305 => "ChaCha20-Poly1305",
        }
    }

    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes256Gcm => &AES_256_GCM,
            Self::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        }
    }
}

/// What a handshake yields.
pub(crate) struct Keys {
    pub(crate) cipher: Cipher,
    pub(crate) send: Zeroizing<[u8; 32]>,
    pub(crate) receive: Zeroizing<[u8; 32]>,
    /// Under which secret.
    pub(crate) key_id: KeyId,
    /// The other side's run.
    pub(crate) incarnation: Incarnation,
    pub(crate) remote_index: u32,
    pub(crate) initiator: bool,
}

/// Keys in use with one peer.
pub(crate) struct Session {
    pub(crate) peer: Arc<Peer>,
    pub(crate) local_index: u32,
    pub(crate) cipher: Cipher,
    pub(crate) key_id: KeyId,
    pub(crate) incarnation: Incarnation,
    pub(crate) initiator: bool,
    pub(crate) born: Instant,
    remote_index: u32,
    seal: LessSafeKey,
    open: LessSafeKey,
    next: AtomicU64,
    window: Mutex<Window>,
    confirmed: AtomicBool,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("peer", &self.peer.id).field("local_index", &self.local_index).finish()
    }
}

impl Session {
    /// `None` only if the cipher refuses a key of its own length.
    pub(crate) fn new(keys: &Keys, local_index: u32, peer: Arc<Peer>, now: Instant) -> Option<Self> {
        let key = |bytes: &[u8; 32]| UnboundKey::new(keys.cipher.algorithm(), bytes).ok().map(LessSafeKey::new);
        Some(Self {
            peer,
            local_index,
            cipher: keys.cipher,
            key_id: keys.key_id,
            incarnation: keys.incarnation,
            initiator: keys.initiator,
            born: now,
            remote_index: keys.remote_index,
            seal: key(&keys.send)?,
            open: key(&keys.receive)?,
            next: AtomicU64::new(0),
            window: Mutex::new(Window::new()),
            confirmed: AtomicBool::new(keys.initiator),
        })
    }

    /// Whether the other side has proven that it holds the keys. An initiator knows from the response.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.confirmed.load(Relaxed)
    }

    /// Marks the session as confirmed: true the first time.
    pub(crate) fn confirm(&self) -> bool {
        !self.is_confirmed() && !self.confirmed.swap(true, Relaxed)
    }

    /// Takes the mark back, so that the next packet sets it again.
    pub(crate) fn doubt(&self) {
        self.confirmed.store(false, Relaxed);
    }

    /// How many packets were sealed.
    pub(crate) fn sealed(&self) -> u64 {
        self.next.load(Relaxed)
    }

    /// Takes the numbers of `count` packets, the first of which is returned; `None` when the key is used up.
    pub(crate) fn reserve(&self, count: u64) -> Option<u64> {
        let first = self.next.fetch_add(count, Relaxed);
        (first + count <= STOP_PACKETS).then_some(first)
    }

    /// Seals `plaintext` into `out`, which is [`SEALED_OVERHEAD`] longer, under a number that was reserved.
    pub(crate) fn seal(&self, kind: PacketType, flags: u8, counter: u64, plaintext: &[u8], out: &mut [u8]) -> bool {
        debug_assert_eq!(out.len(), plaintext.len() + SEALED_OVERHEAD);
        let header = Header { kind, flags, index: self.remote_index, counter };
        let Some((front, sealed)) = out.split_first_chunk_mut::<HEADER_LEN>() else {
            return false;
        };
        *front = header.to_bytes();
        let nonce = Nonce::assume_unique_for_key(header.nonce());
        match self.cipher {
            Cipher::Aes256Gcm => {
                self.seal.seal_in_place_scatter(nonce, Aad::empty(), &mut [], plaintext, sealed).is_ok()
            }
            Cipher::ChaCha20Poly1305 => self.seal_copy(nonce, plaintext, sealed),
        }
    }

    /// Copies and seals in place: sealing out of place costs AES less than the copy, and ChaCha20 five times as much.
    fn seal_copy(&self, nonce: Nonce, plaintext: &[u8], sealed: &mut [u8]) -> bool {
        let places = sealed.split_last_chunk_mut::<TAG_LEN>();
        let Some((body, place)) = places.filter(|(body, _)| body.len() == plaintext.len()) else { return false };
        body.copy_from_slice(plaintext);
        let tag = self.seal.seal_in_place_separate_tag(nonce, Aad::empty(), body);
        tag.map(|tag| place.copy_from_slice(tag.as_ref())).is_ok()
    }

    /// A sealed packet of its own, for everything that is not the fast path.
    pub(crate) fn seal_alone(&self, kind: PacketType, plaintext: &[u8]) -> Option<Vec<u8>> {
        let counter = self.reserve(1)?;
        let mut out = vec![0; plaintext.len() + SEALED_OVERHEAD];
        self.seal(kind, 0, counter, plaintext, &mut out).then_some(out)
    }

    /// Opens `datagram` in place: the plaintext's length, which starts behind the header, and whether the packet is
    /// the newest so far.
    pub(crate) fn open(&self, header: Header, datagram: &mut [u8]) -> Result<(usize, bool), Drop> {
        let sealed = datagram.get_mut(HEADER_LEN..).filter(|bytes| bytes.len() >= TAG_LEN).ok_or(Drop::Malformed)?;
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if !window.is_fresh(header.counter) {
            return Err(Drop::Replay);
        }
        let nonce = Nonce::assume_unique_for_key(header.nonce());
        let length = self.open.open_in_place(nonce, Aad::empty(), sealed).map_err(|_| Drop::Forged)?.len();
        Ok((length, window.accept(header.counter)))
    }
}
