//! When an answer is a yes: what the exit code says and what `--wait` waits for.

use std::thread;
use std::time::{Duration, Instant};

use meshwork_api::client::{Client, ClientError};
use meshwork_api::model::{ConnectionState, Connections, Ipam, IpamState, Paths, PeerState, Peers, Status};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How often `--wait` asks: often enough not to be felt, seldom enough not to be noticed by the daemon.
pub(crate) const POLL: Duration = Duration::from_millis(200);

/// An answer of the daemon that can be shown and judged.
pub(crate) trait Answer: Serialize + DeserializeOwned {
    /// Where it is read.
    const ROUTE: &str;

    /// What `--wait` waits for.
    fn is_complete(&self) -> bool;

    /// What the exit code says.
    fn is_yes(&self) -> bool {
        true
    }
}

impl Answer for Status {
    const ROUTE: &str = "/v1/status";

    fn is_complete(&self) -> bool {
        self.healthy
    }

    fn is_yes(&self) -> bool {
        self.healthy
    }
}

impl Answer for Peers {
    const ROUTE: &str = "/v1/peers";

    fn is_complete(&self) -> bool {
        self.peers.iter().any(|peer| !peer.is_self && peer.state == PeerState::Alive)
    }
}

impl Answer for Connections {
    const ROUTE: &str = "/v1/connections";

    fn is_complete(&self) -> bool {
        self.connections.iter().any(|connection| connection.state == ConnectionState::Established)
    }
}

impl Answer for Paths {
    const ROUTE: &str = "/v1/paths";

    fn is_complete(&self) -> bool {
        !self.paths.is_empty() && self.paths.iter().all(|path| path.up)
    }
}

impl Answer for Ipam {
    const ROUTE: &str = "/v1/ipam";

    fn is_complete(&self) -> bool {
        self.is_yes()
    }

    fn is_yes(&self) -> bool {
        self.summary.state == IpamState::Ready
    }
}

/// Reads an answer once, or until it is complete or the time is up; the last one counts. A daemon that cannot be
/// reached yet is waited for, too.
pub(crate) fn read<A: Answer>(client: &Client, wait: Option<Duration>) -> Result<A, ClientError> {
    let Some(patience) = wait else { return client.get(A::ROUTE) };
    let deadline = Instant::now() + patience;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer: Result<A, _> = client.clone().with_timeout(left.max(POLL)).get(A::ROUTE);
        let worth_waiting = match &answer {
            Ok(answer) => !answer.is_complete(),
            Err(error) => !matches!(error, ClientError::Protocol { .. }),
        };
        if !worth_waiting || left <= POLL {
            return answer;
        }
        thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use meshwork_api::model::ClearTraffic;

    use super::*;
    use crate::table::samples;

    #[test]
    fn an_answer_is_complete_once_there_is_something_good_to_show() {
        assert!(samples::status().is_complete() && samples::status().is_yes());
        assert!(samples::connections().is_complete());
        assert!(samples::ipam().is_yes());
        assert!(!samples::peers().is_complete(), "the only other member is suspect");
        assert!(!samples::paths().is_complete(), "one path is down");
        assert!(!Paths { api: 1, paths: vec![], clear: ClearTraffic::default() }.is_complete());
    }

    #[test]
    fn waiting_for_an_absent_daemon_ends_at_the_deadline() {
        let begin = Instant::now();
        let absent = Client::new("/nonexistent/meshd.sock");
        let result = read::<Status>(&absent, Some(Duration::from_millis(500)));
        assert!(matches!(result, Err(ClientError::Unreachable { .. })));
        assert!(begin.elapsed() >= Duration::from_millis(250));
    }
}
