//! What happens on a node: `GET /v1/events`, and both streams of changes.
//!
//! A stream (`?watch`) is one JSON object per line. It begins with what is there and goes on with what comes. Whoever
//! reads so slowly that the daemon no longer keeps what comes next is told in a last line how much is missed.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use meshwork_wire::PeerId;
use serde::{Deserialize, Serialize};

use crate::model::{Direction, Lease, PathKind};

/// `GET /v1/events`
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Events {
    /// [`crate::model::API_VERSION`].
    pub api: u32,
    /// The latest ones, oldest first.
    pub events: Vec<Event>,
}

/// One thing that happened. `GET /v1/events?watch` is a stream of these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Counts the events of one run of the daemon, without gaps.
    pub sequence: u64,
    /// Seconds since the daemon started.
    pub uptime_s: f64,
    /// Seconds since 1970, by the node's clock.
    pub unix_s: f64,
    /// What happened: `kind` and its details.
    #[serde(flatten)]
    pub happening: Happening,
    /// To whom or what, for people.
    pub subject: String,
    /// Why, for people.
    pub reason: String,
}

/// What happened. The key `kind` tells the variants apart; kinds are only added.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Happening {
    /// The daemon started.
    Started {
        /// Which run of this node it is.
        incarnation: u64,
        /// Version of the daemon.
        version: String,
    },
    /// A member was learned of, or can be reached again.
    MemberAlive {
        /// Who.
        peer: PeerId,
    },
    /// No link to a member is up.
    MemberSuspect {
        /// Who.
        peer: PeerId,
    },
    /// A member has been silent for long.
    MemberDead {
        /// Who.
        peer: PeerId,
    },
    /// A member started again.
    MemberRestarted {
        /// Who.
        peer: PeerId,
        /// Its new run.
        incarnation: u64,
    },
    /// A control link is up.
    LinkUp {
        /// The other side.
        peer: PeerId,
        /// Its underlay address.
        address: SocketAddr,
        /// Who dialled.
        direction: Direction,
    },
    /// A control link ended.
    LinkDown {
        /// The other side.
        peer: PeerId,
        /// Its underlay address.
        address: SocketAddr,
        /// Who dialled.
        direction: Direction,
    },
    /// A target cannot be reached. Told once for each reason, not for each attempt.
    DialFailed {
        /// What was dialled.
        target: String,
    },
    /// A target has as many links as it carries, and named others.
    SentElsewhere {
        /// What was dialled.
        target: String,
        /// Who has no room.
        by: PeerId,
    },
    /// Packets to a peer travel this way from now on.
    PathUp {
        /// The peer.
        peer: PeerId,
        /// What carries them.
        path: PathKind,
        /// Underlay address in use.
        endpoint: Option<SocketAddr>,
    },
    /// No path to a peer works any more.
    PathDown {
        /// The peer.
        peer: PeerId,
        /// What was tried last.
        path: PathKind,
        /// Underlay address that was in use.
        endpoint: Option<SocketAddr>,
    },
    /// Addresses can be handed out.
    RingReady,
    /// There is no ring or no space yet.
    RingWaiting,
    /// This node makes the ring when it is first used.
    RingSeeding,
    /// Two rings, or two owners of one part.
    RingConflict,
    /// This node owns more of the range.
    PartsGained {
        /// What, the first of them where they are many.
        parts: Vec<IpNet>,
        /// Who owned them before.
        from: Option<PeerId>,
    },
    /// This node owns less of the range.
    PartsGiven {
        /// What, the first of them where they are many.
        parts: Vec<IpNet>,
        /// Who owns them now.
        to: Option<PeerId>,
    },
    /// A sandbox, or the node itself, got addresses.
    LeaseGranted(LeaseRef),
    /// A sandbox gave its addresses back, or is gone.
    LeaseReleased(LeaseRef),
    /// A pod can be reached.
    PodRouted(LeaseRef),
    /// A pod can no longer be reached.
    PodRemoved(LeaseRef),
    /// Kernel objects of ours were missing or changed, and were put back.
    KernelRepaired {
        /// Which, the first of them where they are many.
        objects: Vec<String>,
    },
    /// The kernel refused a change.
    KernelRefused,
    /// Addresses or MTU of the host changed.
    UnderlayChanged {
        /// What others may reach.
        addresses: Vec<IpAddr>,
        /// Smallest MTU among their interfaces.
        mtu: u32,
    },
    /// The secret files were read again and are in force.
    SecretsReread,
    /// The secret files could not be used; those before stay in force.
    SecretsRefused,
    /// Kernel objects are in place and addresses can be handed out.
    Ready,
    /// They are not, or no longer.
    NotReady,
    /// Nothing is known to be wrong.
    Healthy,
    /// Something is wrong, or something else than before.
    Unhealthy {
        /// What.
        reasons: Vec<String>,
    },
    /// The operator added a target to dial.
    TargetAdded {
        /// Which.
        target: String,
    },
    /// The operator took a target away.
    TargetForgotten {
        /// Which.
        target: String,
    },
    /// The operator has packets to a peer sealed, whatever both sides allow.
    Sealed {
        /// Who.
        peer: PeerId,
    },
    /// The operator lets both sides' terms decide again whether packets to a peer are sealed.
    Unsealed {
        /// Who.
        peer: PeerId,
    },
    /// A second process of a member's identity, or of this node's, was told to end.
    CopyRefused {
        /// Whose identity.
        peer: PeerId,
        /// Where the second process is.
        address: SocketAddr,
    },
    /// Others may reach the host at the node's overlay addresses.
    Exposed,
    /// Others may no longer.
    Hidden,
    /// Last line of a stream whose reader is too slow.
    Missed {
        /// How many events it did not get.
        missed: u64,
    },
    /// Something that this build has no name for.
    #[serde(other)]
    Unknown,
}

/// The lease that an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseRef {
    /// Sandbox id.
    pub sandbox: String,
    /// Interface inside the sandbox.
    pub interface: String,
    /// One address per family.
    pub addresses: Vec<IpAddr>,
}

/// One line of `GET /v1/pods?watch`: first every lease there is as added, then [`Self::Synced`], then what changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "snake_case")]
pub enum PodChange {
    /// A lease that exists, or a new one.
    Added {
        /// As it is.
        lease: Lease,
    },
    /// A lease became another, such as when its pod is routed.
    Changed {
        /// As it is now.
        lease: Lease,
    },
    /// A lease is gone.
    Removed {
        /// As it was.
        lease: Lease,
    },
    /// All that existed has been told; what follows are changes.
    Synced,
    /// Last line of a stream whose reader is too slow: ask anew.
    Missed {
        /// How many changes it did not get.
        missed: u64,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(happening: Happening) -> Event {
        Event { sequence: 7, uptime_s: 1.5, unix_s: 0.0, happening, subject: "h2".to_owned(), reason: "why".to_owned() }
    }

    #[test]
    fn an_event_is_one_flat_object_with_its_kind() {
        let happening = Happening::MemberRestarted { peer: PeerId([0xab; 16]), incarnation: 3 };
        let json = serde_json::to_string(&event(happening.clone())).unwrap();
        assert_eq!(
            json,
            format!(
                r#"{{"sequence":7,"uptime_s":1.5,"unix_s":0.0,"kind":"member_restarted","peer":"{}","incarnation":3,"subject":"h2","reason":"why"}}"#,
                "ab".repeat(16)
            )
        );
        assert_eq!(serde_json::from_str::<Event>(&json).unwrap(), event(happening));
    }

    #[test]
    fn kinds_of_a_later_daemon_are_still_events() {
        let later =
            r#"{"sequence":1,"uptime_s":0.1,"unix_s":0.1,"kind":"later","more":[1],"subject":"s","reason":"r"}"#;
        let read: Event = serde_json::from_str(later).unwrap();
        assert_eq!((read.happening, read.subject.as_str()), (Happening::Unknown, "s"));
    }

    #[test]
    fn changes_of_pods_say_what_changed_beside_the_lease() {
        assert_eq!(serde_json::to_string(&PodChange::Synced).unwrap(), r#"{"change":"synced"}"#);
        assert_eq!(
            serde_json::to_string(&PodChange::Missed { missed: 2 }).unwrap(),
            r#"{"change":"missed","missed":2}"#
        );
    }
}
