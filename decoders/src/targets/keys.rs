//! Keys, secrets and names in their text and binary forms.

use meshwork_api::link::{LinkMacs, Mac};
use meshwork_identity::{Identity, PublicKey, Secret, Secrets};
use meshwork_wire::PeerId;

pub(super) fn run(bytes: &[u8]) {
    if let Ok(key) = PublicKey::from_spki(bytes) {
        assert_eq!(key.spki_der(), bytes);
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(secret) = Secret::parse_hex(text) {
        assert_eq!(secret.to_hex().as_str(), text.trim_end().to_ascii_lowercase());
        assert!(Secrets::new(vec![secret.clone(), secret]).is_err());
    }
    if let Ok(id) = text.parse::<PeerId>() {
        assert_eq!(id.to_string(), text.to_ascii_lowercase());
    }
    if let Some(mac) = Mac::parse(text) {
        assert_eq!(Mac::parse(&mac.to_string()), Some(mac));
    }
    if let Some(macs) = LinkMacs::of_host_interface(text) {
        assert_ne!(macs.host, macs.pod);
    }
}

pub(super) fn seeds() -> Vec<Vec<u8>> {
    let identity = Identity::from_seed([7; 32]);
    let secret = Secret::generate([0xa5; 32]).to_hex();
    vec![
        identity.public_key().spki_der(),
        secret.as_bytes().to_vec(),
        format!("{}\n", secret.as_str()).into_bytes(),
        identity.peer_id().to_string().into_bytes(),
        b"02:00:ab:00:00:01".to_vec(),
        b"mw0123456789a".to_vec(),
    ]
}
