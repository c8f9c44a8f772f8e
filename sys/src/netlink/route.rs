//! Routes of the main table.
//!
//! What is listed and what callers want are compared as values, so both are held in one canonical form
//! ([`Route::canonical`]): what the kernel fills in by itself is left out.

use std::net::IpAddr;

use ipnet::IpNet;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType, RouteVia,
};

use super::{Family, Netlink, Scope};
use crate::{Error, Result};

/// What the kernel gives an IPv6 route without a metric (`IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// The bit of the locked metrics that stands for the MTU (`RTAX_MTU`).
const MTU_LOCK: u32 = 1 << 2;

/// A route of the main table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// Where to.
    pub destination: IpNet,
    /// What happens to the packets.
    pub kind: RouteKind,
    /// The interface they leave by.
    pub output: Option<u32>,
    /// The neighbour that takes them. An IPv4 route may have an IPv6 one.
    pub gateway: Option<IpAddr>,
    /// Take the gateway to be on the link, whatever other routes say.
    pub onlink: bool,
    /// The source address of packets from this host.
    pub source: Option<IpAddr>,
    /// How far the destination is; IPv4 only.
    pub scope: Scope,
    /// The lower the better among routes to the same destination. Zero is the family's default: none for IPv4, 1024 for
    /// IPv6.
    pub metric: u32,
    /// Who made it (`RTPROT_…`); the kernel does not care.
    pub protocol: u8,
    /// The nexthop object that says the way out instead of `output`, `gateway` and `onlink`.
    pub nexthop: Option<u32>,
    /// The largest packet on this route.
    pub mtu: Option<RouteMtu>,
}

/// What happens to packets that take a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum RouteKind {
    /// They go on.
    #[default]
    Unicast,
    /// They are dropped and the sender is told.
    Unreachable,
    /// They are dropped in silence.
    Blackhole,
}

/// The largest packet on a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouteMtu {
    /// In bytes, IP header included.
    pub bytes: u32,
    /// Path MTU discovery does not change it, and packets are not sent with "don't fragment" by its rules.
    pub locked: bool,
}

/// Which routes to list; all of them by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RouteFilter {
    /// Only those made by this protocol.
    pub protocol: Option<u8>,
}

impl Route {
    /// A route without a way out yet, to be completed with `..Route::new(destination)`.
    pub fn new(destination: IpNet) -> Self {
        Self {
            destination,
            kind: RouteKind::Unicast,
            output: None,
            gateway: None,
            onlink: false,
            source: None,
            scope: Scope::Global,
            metric: 0,
            protocol: libc::RTPROT_STATIC,
            nexthop: None,
            mtu: None,
        }
    }

    /// The same route as [`Netlink::routes`] would list it.
    #[must_use]
    pub fn canonical(mut self) -> Self {
        self.destination = self.destination.trunc();
        if self.nexthop.is_some() || self.kind != RouteKind::Unicast {
            (self.output, self.gateway, self.onlink) = (None, None, false);
        }
        if let IpNet::V6(_) = self.destination {
            self.scope = Scope::Global;
            self.metric = if self.metric == IPV6_DEFAULT_METRIC { 0 } else { self.metric };
        }
        self
    }
}

impl Netlink {
    /// The routes of the main table in canonical form, first IPv4. One with several ways out is told without any; left out
    /// are those of kinds that nothing here makes.
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>> {
        let mut routes = Vec::new();
        for family in [Family::V4, Family::V6] {
            let mut request = message(family);
            request.header.protocol = filter.protocol.unwrap_or_default().into();
            let answers = self.list(RouteNetlinkMessage::GetRoute(request), "list routes")?;
            routes.extend(answers.iter().filter_map(read));
        }
        routes.retain(|route| filter.protocol.is_none_or(|protocol| protocol == route.protocol));
        Ok(routes)
    }

    /// Makes a route. [`Error::is_exists`] if there is one with the same destination and metric, whoever made it.
    pub fn add_route(&mut self, route: &Route) -> Result<()> {
        let request = RouteNetlinkMessage::NewRoute(write(route));
        self.request(request, NLM_F_CREATE | NLM_F_EXCL, &format!("add route to {}", route.destination))
    }

    /// Makes a route, in place of the one with the same destination and metric if there is one.
    pub fn replace_route(&mut self, route: &Route) -> Result<()> {
        let request = RouteNetlinkMessage::NewRoute(write(route));
        self.request(request, NLM_F_CREATE | NLM_F_REPLACE, &format!("set route to {}", route.destination))
    }

    /// Deletes a route; one that is absent is fine. A route to the same destination that leads elsewhere, or that
    /// somebody else made, stays.
    pub fn delete_route(&mut self, route: &Route) -> Result<()> {
        // The kernel compares what is given. Source, MTU and scope do not tell routes apart.
        let mut message = write(&Route { source: None, mtu: None, ..route.clone() });
        message.header.scope = RouteScope::NoWhere;
        let operation = format!("delete route to {}", route.destination);
        match self.request(RouteNetlinkMessage::DelRoute(message), 0, &operation) {
            Err(error) if error.is_not_found() || self.went_with_its_nexthop(route, &error)? => Ok(()),
            outcome => outcome,
        }
    }

    /// The kernel calls it an invalid argument to name a nexthop object that is gone; its routes went with it.
    fn went_with_its_nexthop(&mut self, route: &Route, error: &Error) -> Result<bool> {
        match route.nexthop {
            Some(id) if error.errno() == Some(libc::EINVAL) => Ok(!self.has_nexthop(id)?),
            _ => Ok(false),
        }
    }
}

fn message(family: Family) -> RouteMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family.address_family();
    message.header.table = RouteHeader::RT_TABLE_MAIN;
    message
}

fn write(route: &Route) -> RouteMessage {
    let route = route.clone().canonical();
    let mut message = message(Family::of(route.destination.addr()));
    let header = &mut message.header;
    header.destination_prefix_length = route.destination.prefix_len();
    header.protocol = route.protocol.into();
    header.scope = route.scope.number().into();
    header.kind = match route.kind {
        RouteKind::Unicast => RouteType::Unicast,
        RouteKind::Unreachable => RouteType::Unreachable,
        RouteKind::Blackhole => RouteType::BlackHole,
    };
    if route.onlink {
        header.flags = RouteFlags::Onlink;
    }
    message.attributes = attributes(&route);
    message
}

fn attributes(route: &Route) -> Vec<RouteAttribute> {
    let mut attributes = vec![RouteAttribute::Destination(route.destination.addr().into())];
    attributes.extend(route.output.map(RouteAttribute::Oif));
    attributes.extend(route.gateway.map(|gateway| match Family::of(gateway) == Family::of(route.destination.addr()) {
        true => RouteAttribute::Gateway(gateway.into()),
        false => RouteAttribute::Via(gateway.into()),
    }));
    attributes.extend(route.source.map(|source| RouteAttribute::PrefSource(source.into())));
    attributes.extend(Some(route.metric).filter(|&metric| metric != 0).map(RouteAttribute::Priority));
    attributes.extend(route.nexthop.map(RouteAttribute::NhId));
    attributes.extend(route.mtu.map(|mtu| {
        let lock = mtu.locked.then_some(RouteMetric::Lock(MTU_LOCK));
        RouteAttribute::Metrics(lock.into_iter().chain([RouteMetric::Mtu(mtu.bytes)]).collect())
    }));
    attributes
}

pub(super) fn read(answer: &RouteNetlinkMessage) -> Option<Route> {
    let RouteNetlinkMessage::NewRoute(message) = answer else { return None };
    let header = &message.header;
    let mut route = Route::new(destination(message)?);
    route.kind = kind(header.kind)?;
    route.onlink = header.flags.contains(RouteFlags::Onlink);
    route.scope = Scope::from_number(header.scope.into());
    route.protocol = header.protocol.into();
    let mut table = u32::from(header.table);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(index) => route.output = Some(*index),
            RouteAttribute::Gateway(gateway) => route.gateway = address(gateway),
            RouteAttribute::Via(RouteVia::Inet(gateway)) => route.gateway = Some(IpAddr::V4(*gateway)),
            RouteAttribute::Via(RouteVia::Inet6(gateway)) => route.gateway = Some(IpAddr::V6(*gateway)),
            RouteAttribute::PrefSource(source) => route.source = address(source),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::NhId(id) => route.nexthop = Some(*id),
            RouteAttribute::Metrics(metrics) => route.mtu = mtu(metrics),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    (table == u32::from(RouteHeader::RT_TABLE_MAIN)).then(|| route.canonical())
}

/// The destination; a default route is listed without one.
fn destination(message: &RouteMessage) -> Option<IpNet> {
    let given = message.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(destination) => Some(address(destination)),
        _ => None,
    });
    let family = [Family::V4, Family::V6].into_iter().find(|f| f.address_family() == message.header.address_family)?;
    let unspecified = match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0; 16]),
    };
    IpNet::new(given.unwrap_or(Some(unspecified))?, message.header.destination_prefix_length).ok()
}

fn kind(kind: RouteType) -> Option<RouteKind> {
    match kind {
        RouteType::Unicast => Some(RouteKind::Unicast),
        RouteType::Unreachable => Some(RouteKind::Unreachable),
        RouteType::BlackHole => Some(RouteKind::Blackhole),
        _ => None,
    }
}

fn address(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    }
}

fn mtu(metrics: &[RouteMetric]) -> Option<RouteMtu> {
    let bytes = metrics.iter().find_map(|metric| match metric {
        RouteMetric::Mtu(bytes) => Some(*bytes),
        _ => None,
    })?;
    let locked = metrics.iter().any(|metric| matches!(metric, RouteMetric::Lock(locks) if locks & MTU_LOCK != 0));
    Some(RouteMtu { bytes, locked })
}
