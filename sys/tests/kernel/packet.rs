use std::io;
use std::time::Duration;

use meshwork_sys::packet::{ETHERNET_HEADER, PacketSocket};
use meshwork_sys::wake::{Ready, Wake};

use crate::sandbox::Sandbox;

const OURS: u16 = 0x88b5;

#[test]
fn a_frame_arrives_once_with_the_interface_it_came_by() {
    let (mut sandbox, left) = Sandbox::with_veth();
    let right = sandbox.index("right");
    let [left_mac, right_mac] = ["left", "right"].map(|name| sandbox.netlink.link(name).unwrap().unwrap().mac.unwrap());
    let (socket, other) =
        sandbox.netns.run(|| (PacketSocket::open(OURS).unwrap(), PacketSocket::open(OURS + 1).unwrap())).unwrap();
    socket.send(left, left_mac, right_mac, b"hello").unwrap();
    socket.send(left, left_mac, [0xff; 6], b"to all").unwrap();

    let wake = Wake::new().unwrap();
    let mut buffer = [0; 64];
    let ready = wake.wait_readable(std::os::fd::AsFd::as_fd(&socket), Some(Duration::from_secs(5))).unwrap();
    assert_eq!(ready, Ready::Readable);
    let (interface, length) = socket.receive(&mut buffer).unwrap();
    assert_eq!((interface, &buffer[ETHERNET_HEADER..length]), (right, &b"hello"[..]));
    assert_eq!((&buffer[..6], &buffer[6..12]), (&right_mac[..], &left_mac[..]));
    for socket in [&socket, &other] {
        assert_eq!(socket.receive(&mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
