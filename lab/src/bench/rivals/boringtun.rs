//! boringtun in its defaults: four threads, several queues, connected sockets.

use crate::bench::rivals::obtain::{Client, Package};
use crate::bench::rivals::wireguard::Kind;

pub(super) const PACKAGE: Package = Package {
    name: "boringtun",
    version: "0.7.1",
    client: Client::Cargo("boringtun-cli"),
    program: "bin/boringtun-cli",
};

/// It drops its privileges to those of whoever called `sudo`, and with them its device.
pub(super) const KIND: Kind =
    Kind { device: "plainbt", port: 51821, flags: &["--foreground", "--disable-drop-privileges"] };
