//! The daemon's configuration: one struct, resolved from flags, environment and file in that order of precedence.
//!
//! [`flags`] declares every setting once; a TOML file has keys of the same names. What is contradictory or not offered
//! is refused here, before anything of the system is touched.

mod defaults;
mod flags;

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use meshwork_wire::record::Encryption;

pub use defaults::*;
pub use flags::{Flags, meaningless_variables};

/// How the ring of addresses comes to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RingStart {
    /// Seed when alone, join when peers are configured.
    Auto,
    /// Make the ring at once.
    Seed,
    /// Wait for a ring that others made.
    Join,
}

/// Everything the daemon was told.
#[derive(Debug, Clone)]
pub struct Config {
    /// Filter of the log, `info` or `module=level,…`.
    pub log: String,
    /// Name for people.
    pub nickname: String,
    /// Cluster that the node belongs to.
    pub cluster: String,
    /// Directory of identity, secret and database.
    pub state_dir: PathBuf,
    /// Control socket.
    pub socket: PathBuf,
    /// UDP address of control and encrypted data, and whether it was asked for.
    pub listen: Listen,
    /// Endpoints told to others; empty means the addresses of the interfaces.
    pub advertise: Vec<SocketAddr>,
    /// Where to begin: `HOST[:PORT]`.
    pub peers: Vec<Target>,
    /// Secret files; empty means the default one.
    pub secret_files: Vec<PathBuf>,
    /// Which clear paths are allowed.
    pub encryption: Encryption,
    /// Subnets whose nodes are trusted with clear traffic.
    pub trusted: Vec<IpNet>,
    /// UDP port of the clear path.
    pub vxlan_port: u16,
    /// IPv4 overlay range.
    pub range4: Ipv4Net,
    /// IPv6 overlay range.
    pub range6: Ipv6Net,
    /// How the ring starts.
    pub ring_start: RingStart,
    /// Address of metrics and health.
    pub metrics_listen: SocketAddr,
    /// MTU of pods, or nothing to take it from the underlay.
    pub mtu: Option<u32>,
    /// Whether peers learned by gossip are dialled.
    pub discovery: bool,
    /// Remove every kernel object of ours and exit.
    pub purge: bool,
}

/// UDP address to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listen {
    /// The default, IPv6 and IPv4 on one socket, or IPv4 alone where the kernel has no IPv6.
    Any,
    /// Exactly this.
    Exactly(SocketAddr),
}

/// `HOST[:PORT]`: a name or address of a node, resolved at each attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// Host name or literal address.
    pub host: String,
    /// UDP port.
    pub port: u16,
}

/// A setting that cannot be used. The operator is to blame.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {path}: {source}; check --config and its permissions")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML, or has keys that mean nothing.
    #[error("configuration file {path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// Where and what.
        message: String,
    },
    /// A value that is not of its kind.
    #[error("{setting}: {message}")]
    Value {
        /// Name of the flag.
        setting: &'static str,
        /// What is wrong and what would be right.
        message: String,
    },
}

impl ConfigError {
    fn value(setting: &'static str, message: impl Into<String>) -> Self {
        Self::Value { setting, message: message.into() }
    }
}

impl Target {
    /// Reads `HOST`, `HOST:PORT`, `[V6]:PORT` or a bare address.
    ///
    /// # Errors
    /// Says what the form is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (host, port) = split_port(text)?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let allowed = |c: char| c.is_ascii_alphanumeric() || ".-_:%".contains(c);
        if host.is_empty() || host.len() > 253 || !host.chars().all(allowed) || port == 0 {
            return Err(format!("{text:?} is not HOST, HOST:PORT or [IPV6]:PORT"));
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

fn split_port(text: &str) -> Result<(&str, u16), String> {
    let port_of = |digits: &str| digits.parse().map_err(|_| format!("{digits:?} is not a port in {text:?}"));
    if let Some(end) = text.find(']') {
        let rest = &text[end + 1..];
        return match rest.strip_prefix(':') {
            Some(digits) => Ok((&text[..=end], port_of(digits)?)),
            None if rest.is_empty() => Ok((text, DEFAULT_PORT)),
            None => Err(format!("{text:?} has something other than a port behind the bracket")),
        };
    }
    match text.split_once(':') {
        Some((host, digits)) if !digits.contains(':') => Ok((host, port_of(digits)?)),
        _ => Ok((text, DEFAULT_PORT)),
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// One range per family out of `--ipam-range`.
fn ranges(given: &[IpNet]) -> Result<(Ipv4Net, Ipv6Net), ConfigError> {
    const SETTING: &str = "--ipam-range";
    let (mut range4, mut range6) = (None, None);
    for net in given {
        let doubled = match net.trunc() {
            IpNet::V4(net) => range4.replace(net).is_some(),
            IpNet::V6(net) => range6.replace(net).is_some(),
        };
        if doubled {
            return Err(ConfigError::value(SETTING, "give at most one range per family"));
        }
        if net.trunc() != *net {
            return Err(ConfigError::value(SETTING, format!("{net} has host bits set; did you mean {}?", net.trunc())));
        }
    }
    let range4 = range4.unwrap_or(DEFAULT_RANGE4);
    let range6 = range6.unwrap_or(DEFAULT_RANGE6);
    if !(8..=RANGE4_LONGEST_PREFIX).contains(&range4.prefix_len()) {
        let message = format!("{range4}: an IPv4 range has a prefix of 8 to {RANGE4_LONGEST_PREFIX} bits");
        return Err(ConfigError::value(SETTING, message));
    }
    if range6.prefix_len() != RANGE6_PREFIX {
        return Err(ConfigError::value(SETTING, format!("{range6}: an IPv6 range is a /{RANGE6_PREFIX}")));
    }
    Ok((range4, range6))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(text: &str) -> String {
        Target::parse(text).map_or_else(|_| "refused".to_owned(), |target| target.to_string())
    }

    #[test]
    fn targets_take_names_addresses_and_ports() {
        assert_eq!(target("node-1"), "node-1:6783");
        assert_eq!(target("192.0.2.1:7000"), "192.0.2.1:7000");
        assert_eq!(target("2001:db8::1"), "[2001:db8::1]:6783");
        assert_eq!(target("[2001:db8::1]"), "[2001:db8::1]:6783");
        assert_eq!(target("[2001:db8::1]:7000"), "[2001:db8::1]:7000");
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for text in ["", ":6783", "host:", "host:port", "host:70000", "[::1]x", "a b", "host:0", "http://x"] {
            assert_eq!(target(text), "refused", "{text}");
        }
    }

    #[test]
    fn ranges_are_one_per_family_and_without_host_bits() {
        let parse = |text: &str| text.parse::<IpNet>().expect("a prefix");
        assert_eq!(ranges(&[]).expect("defaults"), (DEFAULT_RANGE4, DEFAULT_RANGE6));
        assert!(ranges(&[parse("10.0.0.0/8")]).is_ok());
        for bad in ["10.0.0.1/8", "10.0.0.0/30", "0.0.0.0/0", "fd00::/64"] {
            assert!(ranges(&[parse(bad)]).is_err(), "{bad}");
        }
        assert!(ranges(&[parse("10.0.0.0/8"), parse("11.0.0.0/8")]).is_err());
    }
}
