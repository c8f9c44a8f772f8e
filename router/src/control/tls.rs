//! TLS of control links: 1.3 only, raw public keys on both sides (RFC 7250), no resumption and no early data.
//!
//! The handshake proves possession of an identity key, nothing more: any key is taken here, and whether its holder
//! belongs to the mesh is shown by the admission proof that follows.

use std::sync::Arc;
use std::time::Duration;

use meshwork_identity::{Identity, PublicKey};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{AckFrequencyConfig, ClientConfig, EndpointConfig, IdleTimeout, ServerConfig, TransportConfig, VarInt};
use rustls::client::AlwaysResolvesClientRawPublicKeys;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use super::reset;

/// Names the control protocol and its version to TLS, so that strangers' QUIC ends in the handshake.
const PROTOCOL_NAME: &[u8] = b"meshwork/1";

/// QUIC closes a link that was silent for this long; gossip has long routed around it by then.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// What a new link takes the round trip to be: three times this passes before its first packet is sent again. The
/// usual third of a second makes nodes that start together wait a full second for the one that is not up yet.
const INITIAL_RTT: Duration = Duration::from_millis(50);

/// Packets that may be acknowledged together, within the usual 25 ms: every other one is QUIC's default, and most of what
/// a node receives while a mesh forms.
const ACKNOWLEDGED_TOGETHER: VarInt = VarInt::from_u32(8);

/// What a stranger may have in flight unread: the frames of the admission, whose longest has a kilobyte.
const STRANGER_WINDOW: VarInt = VarInt::from_u32(2048);

/// What an admitted link may have in flight unread: bounds memory per peer.
const RECEIVE_WINDOW: u32 = 1 << 20;

/// See [`RECEIVE_WINDOW`]; it holds once the other side proved the secret.
pub(super) const ADMITTED_WINDOW: VarInt = VarInt::from_u32(RECEIVE_WINDOW);

/// The name in the handshake means nothing with raw keys; TLS wants one all the same.
pub(super) const SERVER_NAME: &str = "meshwork";

/// Configuration of the endpoint and of both roles.
pub(super) struct QuicConfigs {
    pub(super) endpoint: EndpointConfig,
    pub(super) server: ServerConfig,
    pub(super) client: ClientConfig,
}

/// Builds them from the node's identity.
pub(super) fn quic_configs(identity: &Identity, reset_key: &[u8; 32]) -> Result<QuicConfigs, TlsError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = certified_key(identity, &provider)?;
    let verifier = Arc::new(AnyRawKey { algorithms: provider.signature_verification_algorithms });

    let mut server = rustls::ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_client_cert_verifier(Arc::clone(&verifier) as Arc<dyn ClientCertVerifier>)
        .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::clone(&key))));
    server.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
    server.send_tls13_tickets = 0;

    let mut client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(key)));
    client.alpn_protocols = vec![PROTOCOL_NAME.to_vec()];
    client.resumption = rustls::client::Resumption::disabled();
    client.enable_sni = false;

    let transport = Arc::new(transport());
    let mut server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(server)?));
    server.transport_config(Arc::clone(&transport)).migration(true);
    let mut client = ClientConfig::new(Arc::new(QuicClientConfig::try_from(client)?));
    client.transport_config(transport);
    let mut endpoint = reset::endpoint(reset_key);
    // The port is shared with data whose first byte is below 0x40, so the fixed bit must stay set.
    endpoint.grease_quic_bit(false);
    Ok(QuicConfigs { endpoint, server, client })
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(ADMITTED_WINDOW)
        .receive_window(STRANGER_WINDOW)
        .send_window(u64::from(RECEIVE_WINDOW))
        .datagram_receive_buffer_size(Some(64 * 1024))
        .datagram_send_buffer_size(64 * 1024)
        .initial_rtt(INITIAL_RTT)
        .ack_frequency_config(Some(acknowledgements()))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32))));
    transport
}

fn acknowledgements() -> AckFrequencyConfig {
    let mut acknowledgements = AckFrequencyConfig::default();
    acknowledgements.ack_eliciting_threshold(ACKNOWLEDGED_TOGETHER);
    acknowledgements
}

fn certified_key(identity: &Identity, provider: &CryptoProvider) -> Result<Arc<CertifiedKey>, TlsError> {
    let private = PrivateKeyDer::Pkcs8(identity.pkcs8_der().to_vec().into());
    let key = provider.key_provider.load_private_key(private)?;
    let public = CertificateDer::from(identity.public_key().spki_der().to_vec());
    Ok(Arc::new(CertifiedKey::new(vec![public], key)))
}

/// The key that the other side proved to hold.
pub(super) fn peer_key(connection: &quinn::Connection) -> Option<PublicKey> {
    let identity = connection.peer_identity()?;
    let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    match chain.as_slice() {
        [key] => PublicKey::from_spki(key).ok(),
        _ => None,
    }
}

/// The TLS library refused what we gave it: a defect of this build, not of any peer.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// Keys or versions.
    #[error("cannot set up TLS: {0}")]
    Tls(#[from] Error),
    /// The cipher that QUIC needs for its first packet.
    #[error("cannot set up QUIC: {0}")]
    Quic(#[from] quinn::crypto::rustls::NoInitialCipherSuite),
}

/// Takes any well-formed Ed25519 raw public key whose holder signed the handshake.
#[derive(Debug)]
struct AnyRawKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyRawKey {
    fn check(end_entity: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> Result<(), Error> {
        match PublicKey::from_spki(end_entity) {
            Ok(_) if intermediates.is_empty() => Ok(()),
            _ => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for AnyRawKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for AnyRawKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Self::check(end_entity, intermediates).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verify(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
