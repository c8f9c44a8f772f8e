//! The command line.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use meshwork_api::model::DEFAULT_SOCKET;

/// Shows and steers the mesh of this node.
///
/// Exit codes: 0 yes, 1 no or unhealthy, 2 usage, 3 the daemon cannot be reached.
#[derive(Debug, Parser)]
#[command(name = "meshctl", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Socket of the daemon
    #[arg(long, global = true, env = "MESHD_SOCKET", default_value = DEFAULT_SOCKET)]
    pub(crate) socket: PathBuf,
    /// How answers are written
    #[arg(short, long, global = true, value_enum, default_value_t)]
    pub(crate) output: Format,
    /// Wait until the answer is good: healthy, ready, linked, or something to show
    #[arg(long, global = true)]
    pub(crate) wait: bool,
    /// Seconds that a request, or all of the waiting, may take [default: 15, with --wait 60]
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: Option<u64>,
}

impl Global {
    pub(crate) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout.unwrap_or(if self.wait { 60 } else { 15 }))
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people
    #[default]
    Table,
    /// For people with wide terminals: every column, whole ids
    Wide,
    /// For programs: fields are only added, never renamed
    Json,
    /// The same as YAML
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Whether all is well; exits with 1 where it is not
    Status,
    /// Members of the mesh, this node first
    Peers,
    /// Control links, and targets that have none
    Connections,
    /// How packets travel to each peer, and why so
    Paths,
    /// Address management
    Ipam {
        #[command(subcommand)]
        verb: Option<IpamVerb>,
    },
    /// What happened lately, and why
    Events {
        /// Go on with what happens, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Link a network namespace to the mesh
    Attach(AttachArgs),
    /// Take away the links that `attach` made in a network namespace
    Detach {
        /// Path of the namespace, or its name in /run/netns
        netns: PathBuf,
        /// Only this interface, not all that `attach` made
        #[arg(long)]
        interface: Option<String>,
    },
    /// Dial an address, now and after every loss; with --wait until it leads to a link
    Connect {
        /// HOST or HOST:PORT
        address: String,
    },
    /// No longer dial an address
    Forget {
        /// HOST or HOST:PORT, as it was given
        address: String,
    },
    /// Seal packets to a peer also where both sides allow clear, until the daemon ends
    Seal {
        /// Name or id of the peer
        peer: String,
    },
    /// Let the rule decide again whether packets to a peer are sealed
    Unseal {
        /// Name or id of the peer
        peer: String,
    },
    /// Let pods and other hosts reach this host at its overlay addresses, from now on; prints them
    Expose,
    /// No longer let them (the default); what the host began, and pings, go on working
    Hide,
    /// Change what the daemon logs, until it ends
    Log {
        /// error, warn, info, debug, trace, or module=level,…
        filter: String,
    },
    /// Mesh secrets
    Secret {
        #[command(subcommand)]
        verb: SecretVerb,
    },
    /// Versions of this program and of the daemon
    Version,
    /// Print a completion script
    Completion {
        /// For which shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum IpamVerb {
    /// The ring, its owners and what this node handed out (the default)
    Status,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SecretVerb {
    /// Make a secret of 64 hex digits
    Generate {
        /// Write it there (mode 0600, never over an existing file) rather than to the terminal
        #[arg(long)]
        file: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Path of the namespace, or its name in /run/netns
    pub(crate) netns: PathBuf,
    /// Wished IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) ip: Option<IpAddr>,
    /// Kubernetes-like namespace of the pod
    #[arg(long, default_value = "")]
    pub(crate) namespace: String,
    /// Name of the pod
    #[arg(long, default_value = "")]
    pub(crate) pod: String,
    /// Label of the pod (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Name of the link inside the namespace
    #[arg(long, default_value = "eth0", value_parser = interface)]
    pub(crate) interface: String,
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a label is KEY=VALUE".to_owned()),
    }
}

fn interface(name: &str) -> Result<String, String> {
    let allowed = name.chars().all(|letter| !matches!(letter, '/' | ':') && !letter.is_whitespace());
    if matches!(name, "" | "." | ".." | "lo") || name.len() > 15 || !allowed {
        return Err("an interface name has 1 to 15 bytes without `/`, `:` and blanks, and is not lo".to_owned());
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_stand_before_or_behind_the_verb() {
        for line in ["meshctl --socket /s -o json status", "meshctl status --socket /s -o json"] {
            let cli = parse(line).unwrap();
            assert_eq!((cli.global.socket.to_str(), cli.global.output), (Some("/s"), Format::Json));
        }
        assert_eq!(parse("meshctl status").unwrap().global.timeout(), Duration::from_secs(15));
        assert_eq!(parse("meshctl status --wait").unwrap().global.timeout(), Duration::from_secs(60));
        assert_eq!(parse("meshctl status --wait --timeout 5").unwrap().global.timeout(), Duration::from_secs(5));
    }

    #[test]
    fn attach_takes_an_identity() {
        let line = "meshctl attach /n --ip 10.32.0.9 --namespace shop --pod web --label a=b --label c=";
        let Verb::Attach(attach) = parse(line).unwrap().verb else { panic!("another verb") };
        assert_eq!(attach.interface, "eth0");
        let expected = [("a".to_owned(), "b".to_owned()), ("c".to_owned(), String::new())];
        assert_eq!(attach.labels, expected);
    }

    #[test]
    fn wrong_usage_is_exit_code_2() {
        for line in [
            "meshctl",
            "meshctl nothing",
            "meshctl attach",
            "meshctl attach /n --label a",
            "meshctl attach /n --label =b",
            "meshctl attach /n --interface a/b",
            "meshctl attach /n --ip x",
            "meshctl status -o xml",
            "meshctl status --timeout 0",
            "meshctl dns",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
