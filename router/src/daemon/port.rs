//! The UDP port, taken over from a former run.
//!
//! A daemon that is killed while it starts a program leaves a child behind that has not become that program yet: until it
//! does, it holds everything that the daemon had open. The port is bound before all else, so that waiting for it is
//! enough for the locks and ports that follow.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::{Duration, Instant};

use meshwork_sys::udp::{BindError, UdpSocket};

use crate::config::{DEFAULT_PORT, Listen};
use crate::kernel::underlay;

/// How long a port in use may be what a former run left: on a busy machine a child waits for its turn, and a port that
/// another program holds is to be named soon.
const TAKEOVER: Duration = Duration::from_secs(1);

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(10);

/// Binds the port, and waits a moment for one that is in use.
pub(super) async fn bind(listen: Listen) -> Result<UdpSocket, BindError> {
    let started = Instant::now();
    loop {
        match try_bind(listen) {
            Err(BindError::InUse(_)) if started.elapsed() < TAKEOVER => tokio::time::sleep(PAUSE).await,
            outcome => return outcome,
        }
    }
}

fn try_bind(listen: Listen) -> Result<UdpSocket, BindError> {
    match listen {
        Listen::Exactly(address) => UdpSocket::bind(address),
        Listen::Any if underlay::has_ipv6() => UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT).into()),
        Listen::Any => UdpSocket::bind((Ipv4Addr::UNSPECIFIED, DEFAULT_PORT).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken() -> (std::net::UdpSocket, Listen) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("its address");
        (socket, Listen::Exactly(address))
    }

    #[tokio::test]
    async fn a_port_that_is_let_go_in_time_is_taken() {
        let (socket, listen) = taken();
        let released = async {
            tokio::time::sleep(PAUSE * 3).await;
            drop(socket);
            Instant::now()
        };
        let bind = async { (bind(listen).await, Instant::now()) };
        let ((bound, taken), released) = tokio::join!(bind, released);
        assert!(bound.is_ok(), "{bound:?}");
        println!("figure: port taken {:.0?} after it was let go", taken - released);
    }

    #[tokio::test]
    async fn a_port_that_stays_in_use_is_named() {
        let (_socket, listen) = taken();
        assert!(matches!(bind(listen).await, Err(BindError::InUse(_))));
    }
}
