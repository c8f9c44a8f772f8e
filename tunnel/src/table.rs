//! The snapshot that the packet threads work from, loaded once per batch.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meshwork_wire::PeerId;
use prefix_trie::PrefixMap;

use crate::noise::SecretKeys;
use crate::peer::Peer;
use crate::session::Session;

/// Who owns which inner addresses.
#[derive(Default)]
pub(crate) struct Routes {
    v4: PrefixMap<Ipv4Net, Arc<Peer>>,
    v6: PrefixMap<Ipv6Net, Arc<Peer>>,
    local: Vec<IpNet>,
}

impl Routes {
    pub(crate) fn new(local: Vec<IpNet>) -> Self {
        Self { local, ..Self::default() }
    }

    /// Gives `prefix` to `peer`.
    pub(crate) fn insert(&mut self, prefix: IpNet, peer: &Arc<Peer>) {
        match prefix {
            IpNet::V4(v4) => drop(self.v4.insert(v4, peer.clone())),
            IpNet::V6(v6) => drop(self.v6.insert(v6, peer.clone())),
        }
    }

    /// The peer that owns `address`: the longest prefix wins.
    pub(crate) fn owner(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        match address {
            IpAddr::V4(v4) => self.v4.get_lpm(&v4.into()).map(|(_, peer)| peer),
            IpAddr::V6(v6) => self.v6.get_lpm(&v6.into()).map(|(_, peer)| peer),
        }
    }

    /// Whether `address` is this node's.
    pub(crate) fn is_local(&self, address: IpAddr) -> bool {
        self.local.iter().any(|prefix| prefix.contains(&address))
    }
}

/// Routes, sessions by our index, and what tells members' handshakes from strangers'.
pub(crate) struct Table {
    pub(crate) routes: Arc<Routes>,
    pub(crate) sessions: BTreeMap<u32, Arc<Session>>,
    pub(crate) local: PeerId,
    pub(crate) secrets: Arc<[SecretKeys]>,
}
