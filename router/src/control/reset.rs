//! What of QUIC outlives the process: the keys by which a restarted node ends the links of its former self.
//!
//! A packet of a link that this process does not know is answered by a stateless reset (RFC 9000, section 10.3), whose
//! token follows from the connection id. QUIC resets only what carries an id of its own making, so ids are made and
//! recognised under a key that stays the same as well.

use std::sync::Arc;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{ConnectionId, ConnectionIdGenerator, EndpointConfig};
// quinn has everything of this trait but the error.
use quinn_proto::InvalidCid;

/// Random bytes of a connection id: none comes twice, whatever the number of runs, so that no reset token does.
const NONCE_LEN: usize = 8;

/// Bytes by which an id is recognised. Whoever guesses them, once in four milliards, is answered by a reset and no more.
const TAG_LEN: usize = 4;

/// Tells the key of the ids apart from what the reset key signs, which are ids.
const ID_LABEL: &[u8] = b"meshwork quic connection ids v1";

/// The endpoint's part of the configuration. `secret` stays the same over restarts.
pub(super) fn endpoint(secret: &[u8; 32]) -> EndpointConfig {
    let reset = Key::new(HMAC_SHA256, secret);
    let ids = ConnectionIds(Arc::new(Key::new(HMAC_SHA256, sign(&reset, ID_LABEL).as_ref())));
    let mut endpoint = EndpointConfig::new(Arc::new(ResetKey(reset)));
    endpoint.cid_generator(move || Box::new(ids.clone()));
    endpoint
}

struct ResetKey(Key);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let tag = sign(&self.0, data);
        signature_out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        verify(&self.0, data, signature).map_err(|_| CryptoError)
    }
}

/// Makes random ids that end with a MAC over their beginning.
#[derive(Clone)]
struct ConnectionIds(Arc<Key>);

impl ConnectionIds {
    fn complete(&self, nonce: &[u8]) -> ConnectionId {
        let mut id = [0; NONCE_LEN + TAG_LEN];
        let tag = sign(&self.0, nonce);
        id.iter_mut().zip(nonce.iter().chain(tag.as_ref())).for_each(|(to, from)| *to = *from);
        ConnectionId::new(&id)
    }
}

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut nonce = [0; NONCE_LEN];
        crate::random::fill(&mut nonce);
        self.complete(&nonce)
    }

    fn validate(&self, id: &ConnectionId) -> Result<(), InvalidCid> {
        let known = id.get(..NONCE_LEN).is_some_and(|nonce| self.complete(nonce) == *id);
        if known { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        NONCE_LEN + TAG_LEN
    }

    fn cid_lifetime(&self) -> Option<std::time::Duration> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(secret: u8) -> ConnectionIds {
        ConnectionIds(Arc::new(Key::new(HMAC_SHA256, &[secret; 32])))
    }

    #[test]
    fn an_id_is_recognised_by_the_next_run_and_by_nobody_else() {
        let id = ids(1).generate_cid();
        assert!(ids(1).validate(&id).is_ok());
        assert!(ids(2).validate(&id).is_err());
        assert!(ids(1).validate(&ConnectionId::new(&[0; NONCE_LEN + TAG_LEN])).is_err());
        assert!(ids(1).validate(&ConnectionId::new(&id[..NONCE_LEN])).is_err());
    }
}
