//! Every setting, declared once: as flag, as `MESHD_*` variable and as key of the TOML file.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::BoolishValueParser;
use clap::{Arg, CommandFactory, Parser};
use ipnet::IpNet;
use meshwork_wire::record::Encryption;
use serde::Deserialize;

use super::{
    Config, ConfigError, DEFAULT_METRICS_LISTEN, DEFAULT_PORT, DEFAULT_STATE_DIR, DEFAULT_VXLAN_PORT, LARGEST_POD_MTU,
    Listen, MOST_TRUSTED, RingStart, SMALLEST_POD_MTU, Target, ranges,
};

/// Most bytes of a configuration file: all settings take a few hundred.
const MOST_FILE: u64 = 1 << 20;

/// Settings as given: nothing where nothing was said.
#[derive(Debug, Clone, Default, Parser, Deserialize)]
#[command(name = "meshd", version, about = "The node daemon of Meshwork: peers, encrypted pod traffic and addresses.")]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Flags {
    /// TOML file with keys of the same names as these flags
    #[arg(long, env = "MESHD_CONFIG", value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,

    /// Log filter: error, warn, info, debug, trace, or module=level,… [default: info]
    #[arg(long, env = "MESHD_LOG", value_name = "FILTER")]
    pub log: Option<String>,

    /// Name of this node for people [default: the host name]
    #[arg(long, env = "MESHD_NICKNAME", value_name = "NAME")]
    pub nickname: Option<String>,

    /// Cluster that this node belongs to [default: default]
    #[arg(long, env = "MESHD_CLUSTER", value_name = "NAME")]
    pub cluster: Option<String>,

    /// Directory of identity, secret and database [default: /var/lib/meshwork]
    #[arg(long, env = "MESHD_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Control socket [default: /run/meshwork/meshd.sock]
    #[arg(long, env = "MESHD_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// UDP address of control and encrypted data [default: port 6783 of every address, IPv4 alone where there is no IPv6]
    #[arg(long, env = "MESHD_LISTEN", value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,

    /// Endpoint told to others; repeatable [default: the addresses of the interfaces]
    #[arg(long, env = "MESHD_ADVERTISE", value_name = "ADDR:PORT", value_delimiter = ',')]
    pub advertise: Vec<SocketAddr>,

    /// A node of the mesh to begin with; repeatable
    #[arg(long, env = "MESHD_PEER", value_name = "HOST[:PORT]", value_delimiter = ',')]
    pub peer: Vec<String>,

    /// File of 64 hex digits; repeatable: the first is used, all are accepted [default: STATE-DIR/secret]
    #[arg(long, env = "MESHD_SECRET_FILE", value_name = "FILE", value_delimiter = ',')]
    pub secret_file: Vec<PathBuf>,

    /// Whether pod traffic may travel in clear: required (never), trusted (between trusted subnets) or off (with whoever
    /// says the same); the stricter side of a pair wins [default: required]
    #[arg(long, env = "MESHD_ENCRYPTION", value_name = "MODE")]
    pub encryption: Option<String>,

    /// Subnet whose nodes are trusted with clear traffic, for --encryption trusted; repeatable
    #[arg(long, env = "MESHD_TRUSTED_SUBNET", value_name = "PREFIX", value_delimiter = ',')]
    pub trusted_subnet: Vec<IpNet>,

    /// UDP port of clear traffic (VXLAN), the same on every node [default: 6784]
    #[arg(long, env = "MESHD_VXLAN_PORT", value_name = "PORT")]
    pub vxlan_port: Option<u16>,

    /// Overlay range; one per family [default: 10.32.0.0/12 and fd4d:6573:6877::/48]
    #[arg(long, env = "MESHD_IPAM_RANGE", value_name = "PREFIX", value_delimiter = ',')]
    pub ipam_range: Vec<IpNet>,

    /// How the address ring starts: auto, seed or join [default: auto]
    #[arg(long, env = "MESHD_IPAM_INIT", value_name = "MODE")]
    pub ipam_init: Option<String>,

    /// Address of /metrics, /healthz and /readyz [default: 127.0.0.1:6782]
    #[arg(long, env = "MESHD_METRICS_LISTEN", value_name = "ADDR:PORT")]
    pub metrics_listen: Option<SocketAddr>,

    /// MTU of pods [default: the underlay's less 100]
    #[arg(long, env = "MESHD_MTU", value_name = "BYTES")]
    pub mtu: Option<u32>,

    /// Dial only configured peers, not those learned by gossip
    #[arg(long, env = "MESHD_NO_DISCOVERY", value_parser = BoolishValueParser::new())]
    pub no_discovery: bool,

    /// Remove every kernel object of ours and exit
    #[arg(long)]
    #[serde(skip)]
    pub purge: bool,
}

impl Flags {
    /// Completes what flags and environment left open from the file, then checks the whole.
    ///
    /// # Errors
    /// [`ConfigError`] names the setting and what to change.
    pub fn resolve(self, host_name: &str) -> Result<Config, ConfigError> {
        let file = self.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let flags = self.or(file);
        let (range4, range6) = ranges(&flags.ipam_range)?;
        let config = Config {
            log: flags.log.unwrap_or_else(|| "info".to_owned()),
            nickname: name("--nickname", flags.nickname.unwrap_or_else(|| host_name.to_owned()))?,
            cluster: name("--cluster", flags.cluster.unwrap_or_else(|| "default".to_owned()))?,
            state_dir: flags.state_dir.unwrap_or_else(|| DEFAULT_STATE_DIR.into()),
            socket: flags.socket.unwrap_or_else(|| meshwork_api::model::DEFAULT_SOCKET.into()),
            listen: flags.listen.map_or(Listen::Any, Listen::Exactly),
            advertise: flags.advertise,
            peers: targets(&flags.peer)?,
            secret_files: flags.secret_file,
            encryption: encryption(flags.encryption.as_deref(), &flags.trusted_subnet)?,
            trusted: flags.trusted_subnet,
            vxlan_port: vxlan_port(flags.vxlan_port, flags.listen.map_or(DEFAULT_PORT, |address| address.port()))?,
            range4,
            range6,
            ring_start: ring_start(flags.ipam_init.as_deref())?,
            metrics_listen: flags.metrics_listen.unwrap_or(DEFAULT_METRICS_LISTEN),
            mtu: mtu(flags.mtu)?,
            discovery: !flags.no_discovery,
            purge: flags.purge,
        };
        Ok(config)
    }

    /// Settings of a TOML file.
    ///
    /// # Errors
    /// Says where and what.
    pub fn parse_file(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())
    }

    fn or(self, file: Self) -> Self {
        fn list<T>(given: Vec<T>, otherwise: Vec<T>) -> Vec<T> {
            if given.is_empty() { otherwise } else { given }
        }
        Self {
            config: self.config,
            log: self.log.or(file.log),
            nickname: self.nickname.or(file.nickname),
            cluster: self.cluster.or(file.cluster),
            state_dir: self.state_dir.or(file.state_dir),
            socket: self.socket.or(file.socket),
            listen: self.listen.or(file.listen),
            advertise: list(self.advertise, file.advertise),
            peer: list(self.peer, file.peer),
            secret_file: list(self.secret_file, file.secret_file),
            encryption: self.encryption.or(file.encryption),
            trusted_subnet: list(self.trusted_subnet, file.trusted_subnet),
            vxlan_port: self.vxlan_port.or(file.vxlan_port),
            ipam_range: list(self.ipam_range, file.ipam_range),
            ipam_init: self.ipam_init.or(file.ipam_init),
            metrics_listen: self.metrics_listen.or(file.metrics_listen),
            mtu: self.mtu.or(file.mtu),
            no_discovery: self.no_discovery || file.no_discovery,
            purge: self.purge,
        }
    }
}

fn read_file(path: &Path) -> Result<Flags, ConfigError> {
    let text = read_bounded(path).map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
    Flags::parse_file(&text).map_err(|message| ConfigError::File { path: path.to_owned(), message })
}

/// A device or a log named by mistake must not fill the memory.
fn read_bounded(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MOST_FILE + 1).read_to_string(&mut text)?;
    match text.len() as u64 {
        0..=MOST_FILE => Ok(text),
        _ => Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is longer than {MOST_FILE} bytes"))),
    }
}

/// Names travel in gossip and stand in tables: short, and nothing that moves a cursor.
fn name(setting: &'static str, text: String) -> Result<String, ConfigError> {
    if text.is_empty() || text.len() > 253 || text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(ConfigError::value(setting, "a name has 1 to 253 characters without blanks"));
    }
    Ok(text)
}

fn targets(given: &[String]) -> Result<Vec<Target>, ConfigError> {
    given.iter().map(|text| Target::parse(text).map_err(|message| ConfigError::value("--peer", message))).collect()
}

fn encryption(given: Option<&str>, trusted: &[IpNet]) -> Result<Encryption, ConfigError> {
    const SETTING: &str = "--encryption";
    match given {
        None | Some("required") => Ok(Encryption::Required),
        Some("trusted") if trusted.is_empty() => {
            Err(ConfigError::value(SETTING, "trusted needs at least one --trusted-subnet that other nodes lie in"))
        }
        Some("trusted") if trusted.len() > MOST_TRUSTED => {
            Err(ConfigError::value("--trusted-subnet", format!("give at most {MOST_TRUSTED}: every node learns them")))
        }
        Some("trusted") => Ok(Encryption::Trusted),
        Some("off") => Ok(Encryption::Off),
        Some(other) => Err(ConfigError::value(SETTING, format!("{other:?} is not required, trusted or off"))),
    }
}

fn vxlan_port(given: Option<u16>, listen: u16) -> Result<u16, ConfigError> {
    match given.unwrap_or(DEFAULT_VXLAN_PORT) {
        0 => Err(ConfigError::value("--vxlan-port", "0 is no port")),
        port if port == listen => {
            Err(ConfigError::value("--vxlan-port", format!("{port} is the port of --listen already")))
        }
        port => Ok(port),
    }
}

fn ring_start(given: Option<&str>) -> Result<RingStart, ConfigError> {
    const SETTING: &str = "--ipam-init";
    match given {
        None | Some("auto") => Ok(RingStart::Auto),
        Some("seed") => Ok(RingStart::Seed),
        Some("join") => Ok(RingStart::Join),
        Some(text) if text.starts_with("consensus") => Err(ConfigError::value(
            SETTING,
            "this build does not vote yet; start one node with seed, the others with join",
        )),
        Some(other) => Err(ConfigError::value(SETTING, format!("{other:?} is not auto, seed or join"))),
    }
}

fn mtu(given: Option<u32>) -> Result<Option<u32>, ConfigError> {
    match given {
        Some(bytes) if !(SMALLEST_POD_MTU..=LARGEST_POD_MTU).contains(&bytes) => {
            Err(ConfigError::value("--mtu", format!("{bytes} is not within {SMALLEST_POD_MTU} to {LARGEST_POD_MTU}")))
        }
        given => Ok(given),
    }
}

/// Variables, among those of the environment, that are named like a setting and are none. What Kubernetes sets in every
/// pod for a Service called `meshd` is passed over.
pub fn meaningless_variables(names: impl Iterator<Item = String>) -> Vec<String> {
    let command = Flags::command();
    let known = |name: &str| command.get_arguments().filter_map(Arg::get_env).any(|env| env == name);
    let of_service = |name: &str| ["MESHD_SERVICE_", "MESHD_PORT"].iter().any(|prefix| name.starts_with(prefix));
    names.filter(|name| name.starts_with("MESHD_") && !of_service(name) && !known(name)).collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn resolve(arguments: &[&str]) -> Result<Config, ConfigError> {
        let arguments = std::iter::once("meshd").chain(arguments.iter().copied());
        Flags::try_parse_from(arguments).expect("flags parse").resolve("host")
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
        file.write_all(text.as_bytes()).expect("written");
        file
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let config = resolve(&[]).expect("valid");
        assert_eq!((config.nickname.as_str(), config.cluster.as_str()), ("host", "default"));
        assert_eq!(config.listen, Listen::Any);
        assert_eq!(config.encryption, Encryption::Required);
        assert!(config.discovery);
    }

    #[test]
    fn a_flag_outranks_the_file() {
        let file = file("nickname = \"from-file\"\ncluster = \"east\"\npeer = [\"a\", \"b:1\"]\nmtu = 1400\n");
        let path = file.path().to_str().expect("utf-8");
        let config = resolve(&["--config", path, "--nickname", "from-flag"]).expect("valid");
        assert_eq!((config.nickname.as_str(), config.cluster.as_str()), ("from-flag", "east"));
        assert_eq!((config.peers.len(), config.mtu), (2, Some(1400)));
    }

    #[test]
    fn unknown_keys_and_damaged_files_are_refused() {
        for text in ["nikname = \"x\"", "nickname = ", "mtu = \"big\"", "purge = true"] {
            let file = file(text);
            let path = file.path().to_str().expect("utf-8");
            assert!(matches!(resolve(&["--config", path]), Err(ConfigError::File { .. })), "{text}");
        }
        assert!(matches!(resolve(&["--config", "/dev/zero"]), Err(ConfigError::Unreadable { .. })));
        assert!(matches!(resolve(&["--config", "/nonexistent"]), Err(ConfigError::Unreadable { .. })));
    }

    #[test]
    fn clear_traffic_is_what_was_said_and_to_whom() {
        let config = resolve(&["--encryption", "off"]).expect("valid");
        assert_eq!((config.encryption, config.vxlan_port), (Encryption::Off, 6784));
        let trusted = ["--encryption", "trusted", "--trusted-subnet", "10.0.0.0/8,fd00::/8", "--vxlan-port", "4789"];
        let config = resolve(&trusted).expect("valid");
        assert_eq!((config.encryption, config.trusted.len(), config.vxlan_port), (Encryption::Trusted, 2, 4789));
    }

    #[test]
    fn variables_that_set_nothing_are_found() {
        let names = ["MESHD_NIKNAME", "MESHD_NICKNAME", "MESHD_SERVICE_HOST", "MESHD_PORT_6783_UDP", "HOME"];
        assert_eq!(meaningless_variables(names.map(String::from).into_iter()), ["MESHD_NIKNAME"]);
    }

    #[test]
    fn what_cannot_be_kept_is_refused_with_the_setting_named() {
        for (flag, value) in [
            ("--encryption", "trusted"),
            ("--encryption", "none"),
            ("--vxlan-port", "0"),
            ("--ipam-init", "consensus=3"),
            ("--ipam-init", "later"),
            ("--mtu", "900"),
            ("--peer", "a b"),
            ("--nickname", ""),
        ] {
            let error = resolve(&[flag, value]).expect_err("refused").to_string();
            assert!(error.starts_with(flag), "{error}");
        }
    }
}
