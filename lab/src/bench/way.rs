//! What carries the packets of pods: ours, its rivals, and what the kernel does by itself.

/// A way of carrying, in the order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Way {
    Meshwork,
    WireguardGo,
    Boringtun,
    Nebula,
    Tinc,
    Clear,
    Vxlan,
    Routing,
}

impl Way {
    pub(super) const ALL: [Self; 8] = [
        Self::Meshwork,
        Self::WireguardGo,
        Self::Boringtun,
        Self::Nebula,
        Self::Tinc,
        Self::Clear,
        Self::Vxlan,
        Self::Routing,
    ];

    /// What else encrypts in userspace.
    pub(super) const RIVALS: [Self; 4] = [Self::WireguardGo, Self::Boringtun, Self::Nebula, Self::Tinc];

    pub(super) const fn shown(self) -> &'static str {
        match self {
            Self::Meshwork => "Meshwork, encrypted",
            Self::WireguardGo => "wireguard-go",
            Self::Boringtun => "boringtun",
            Self::Nebula => "nebula",
            Self::Tinc => "tinc",
            Self::Clear => "Meshwork, clear",
            Self::Vxlan => "hand-made VXLAN, clear",
            Self::Routing => "plain routing",
        }
    }

    /// Whether it runs between pods of the mesh, and not between plain ones.
    pub(super) const fn is_ours(self) -> bool {
        matches!(self, Self::Meshwork | Self::Clear)
    }
}
