//! `meshctl connect`: has an address dialled, and with `--wait` sees that it leads to a link.

use std::thread;
use std::time::{Duration, Instant};

use meshwork_api::client::Client;
use meshwork_api::model::{Connection, ConnectionState, Connections, Target};

use crate::answer::POLL;
use crate::cli::Global;
use crate::output::print;
use crate::units::plain;

/// Where a target stands.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Linked,
    /// Not yet, and why.
    Waiting(String),
    /// It will never be, and why.
    Never(String),
}

/// Carries out the verb. False where the target is to be waited for and gets no link in time.
pub(crate) fn connect(global: &Global, client: &Client, address: &str) -> anyhow::Result<bool> {
    let target: Target = client.post("/v1/connect", &Target { address: address.to_owned() })?;
    print(global.output, &target, |_, _| String::new())?;
    if global.wait { wait(client, &target.address, global.timeout()) } else { Ok(true) }
}

fn wait(client: &Client, target: &str, patience: Duration) -> anyhow::Result<bool> {
    let deadline = Instant::now() + patience;
    loop {
        let Connections { connections, .. } = client.get("/v1/connections")?;
        let reason = match standing(&connections, target) {
            Standing::Linked => return Ok(true),
            Standing::Waiting(_) if Instant::now() < deadline => {
                thread::sleep(POLL);
                continue;
            }
            Standing::Waiting(reason) | Standing::Never(reason) => reason,
        };
        eprintln!("meshctl: no link to {}: {}", plain(target), plain(&reason));
        return Ok(false);
    }
}

fn standing(connections: &[Connection], target: &str) -> Standing {
    let linked = |connection: &&Connection| connection.targets.iter().any(|led| led == target);
    if connections.iter().any(|connection| linked(&connection)) {
        return Standing::Linked;
    }
    let of_target = |connection: &&Connection| connection.address == target && connection.peer.is_none();
    match connections.iter().find(of_target) {
        Some(failed) if failed.state == ConnectionState::Failed => Standing::Never(failed.reason.clone()),
        Some(waiting) if !waiting.reason.is_empty() => Standing::Waiting(waiting.reason.clone()),
        Some(_) => Standing::Waiting("it is being dialled".to_owned()),
        None => Standing::Waiting("it is no longer a target".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::samples;

    #[test]
    fn a_target_is_linked_where_a_link_says_that_it_led_there() {
        let connections = samples::connections().connections;
        assert_eq!(standing(&connections, "192.0.2.2:6783"), Standing::Linked);
        let waiting = Standing::Waiting("no answer within 3 s".to_owned());
        assert_eq!(standing(&connections, "192.0.2.9:7000"), waiting);
        assert!(
            matches!(standing(&connections, "[2001:db8::3]:6783"), Standing::Waiting(_)),
            "only dialled from there"
        );
    }

    #[test]
    fn a_node_that_dials_itself_waits_for_nothing() {
        let mut connections = samples::connections().connections;
        connections[2].state = ConnectionState::Failed;
        assert_eq!(standing(&connections, "192.0.2.9:7000"), Standing::Never("no answer within 3 s".to_owned()));
    }
}
