//! The socket and the exchange of messages over it (RFC 3549, section 2.3; the kernel's documentation of netlink).
//!
//! One request is under way at a time. Answers carry its sequence number; anything else is left over from an exchange
//! that was given up and is skipped.

use std::fmt::Debug;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlasIterator,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};

use crate::netns::NetNs;
use crate::{Error, Result};

/// Answers come from within the system call, so waiting happens only behind the kernel's routing lock. Unregistering
/// many interfaces can hold that for seconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel makes answers of up to 32 KiB, and larger ones only for a link with more virtual functions than fit.
const DATAGRAM_LIMIT: usize = 128 * 1024;

/// A listing is taken anew this often while others keep changing what it lists.
const LISTING_ATTEMPTS: usize = 20;

/// A refusal begins with the header of the refused request; explanations follow it.
const REPEATED_HEADER: usize = 16;

/// The attribute of an extended acknowledgement that holds the kernel's sentence (`NLMSGERR_ATTR_MSG`).
const ACKNOWLEDGEMENT_TEXT: u16 = 1;

/// A connection to the kernel's networking in one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// What can be sent and received here.
pub(super) trait Message: NetlinkSerializable + NetlinkDeserializable + Debug + Clone {}

impl<M: NetlinkSerializable + NetlinkDeserializable + Debug + Clone> Message for M {}

/// What has been answered to the request under way.
pub(super) struct Answers<M> {
    pub(super) messages: Vec<M>,
    /// Why one of the messages could not be decoded.
    pub(super) unreadable: Option<String>,
    /// False if others changed what is being listed, so that entries may be missing or doubled.
    pub(super) consistent: bool,
}

impl<M> Default for Answers<M> {
    fn default() -> Self {
        Self { messages: Vec::new(), unreadable: None, consistent: true }
    }
}

impl Netlink {
    /// Connects to the namespace of the calling thread.
    pub fn connect() -> Result<Self> {
        let socket = open().map_err(|source| Error::refused("open a netlink socket", source))?;
        Ok(Self { socket, sequence: 0, buffer: vec![0; DATAGRAM_LIMIT] })
    }

    /// Connects to another namespace; the calling thread stays where it is.
    pub fn connect_in(netns: &NetNs) -> Result<Self> {
        netns.run(Self::connect)?
    }

    /// Names this connection in the kernel's notices of what changed over it.
    pub(super) fn port(&self) -> Result<u32> {
        let mut address = SocketAddr::new(0, 0);
        let asked = self.socket.get_address(&mut address);
        asked.map(|()| address.port_number()).map_err(|source| Error::refused("name a netlink socket", source))
    }

    /// Asks for a change. `operation` names it in errors, as it reads after "refused to".
    pub(super) fn request<M: Message>(&mut self, message: M, flags: u16, operation: &str) -> Result<()> {
        self.query(message, flags, operation).map(drop)
    }

    /// Asks about one object, or for a change that is answered.
    pub(super) fn query<M: Message>(&mut self, message: M, flags: u16, operation: &str) -> Result<Vec<M>> {
        let answers = self.exchange(message, NLM_F_REQUEST | NLM_F_ACK | flags, operation)?;
        match answers.unreadable {
            Some(reason) => Err(malformed(operation, reason)),
            None => Ok(answers.messages),
        }
    }

    /// Lists all objects that match `message`. Entries that cannot be decoded belong to features that nothing here
    /// uses, and are left out.
    pub(super) fn list<M: Message>(&mut self, message: M, operation: &str) -> Result<Vec<M>> {
        for _ in 0..LISTING_ATTEMPTS {
            match self.exchange(message.clone(), NLM_F_REQUEST | NLM_F_DUMP, operation) {
                Ok(answers) if answers.consistent => return Ok(answers.messages),
                Ok(_) => {}
                // Answers were lost for want of room in the socket's buffer.
                Err(error) if error.errno() == Some(libc::ENOBUFS) => {}
                // The namespace does not have the table yet; the kernel makes it with the first entry.
                Err(error) if error.errno() == Some(libc::ENOENT) => return Ok(Vec::new()),
                Err(error) => return Err(error),
            }
        }
        Err(Error::refused(operation, io::Error::from_raw_os_error(libc::EINTR)))
    }

    fn exchange<M: Message>(&mut self, message: M, flags: u16, operation: &str) -> Result<Answers<M>> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = encode(message, flags, self.sequence);
        uninterrupted(|| self.socket.send_to(&request, &SocketAddr::new(0, 0), 0))
            .map_err(|source| Error::refused(operation, source))?;
        let mut answers = Answers::default();
        loop {
            let length = self.receive(operation)?;
            let datagram = self.buffer.get(..length).unwrap_or_default();
            if read_datagram(datagram, self.sequence, operation, &mut answers)? {
                if let Some(reason) = &answers.unreadable {
                    tracing::debug!(operation, reason, "skipped what the kernel listed in an unknown form");
                }
                return Ok(answers);
            }
        }
    }

    /// The length of the next datagram from the kernel, which is then in the buffer.
    fn receive(&mut self, operation: &str) -> Result<usize> {
        loop {
            let mut window = self.buffer.as_mut_slice();
            match self.socket.recv_from(&mut window, libc::MSG_TRUNC) {
                // Other programs can send to this socket too.
                Ok((_, sender)) if sender.port_number() != 0 => {}
                Ok((length, _)) if length > DATAGRAM_LIMIT => {
                    return Err(malformed(operation, format!("{length} bytes in one datagram")));
                }
                Ok((length, _)) => return Ok(length),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(Error::NoAnswer { operation: operation.into(), seconds: ANSWER_TIMEOUT.as_secs() });
                }
                Err(source) => return Err(Error::refused(operation, source)),
            }
        }
    }
}

fn open() -> io::Result<Socket> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind_auto()?;
    // The sentence behind an errno; requests are not repeated in refusals; filters in listings are obeyed or refused.
    socket.set_ext_ack(true)?;
    socket.set_cap_ack(true)?;
    socket.set_netlink_get_strict_chk(true)?;
    set_timeout(&socket, ANSWER_TIMEOUT)?;
    Ok(socket)
}

fn set_timeout(socket: &Socket, timeout: Duration) -> io::Result<()> {
    let timeout = libc::timeval { tv_sec: timeout.as_secs() as _, tv_usec: 0 };
    set_option(socket, libc::SO_RCVTIMEO, timeout)
}

/// Lets the kernel hold so many bytes for us while we do something else, whatever the machine's limit. Where that takes
/// a right which we lack, the limit holds.
pub(super) fn set_receive_buffer(socket: &Socket, bytes: libc::c_int) -> io::Result<()> {
    set_option(socket, libc::SO_RCVBUFFORCE, bytes).or_else(|_| set_option(socket, libc::SO_RCVBUF, bytes))
}

/// Only for options whose value is a plain `T`.
fn set_option<T: Copy>(socket: &Socket, option: libc::c_int, value: T) -> io::Result<()> {
    let length = size_of_val(&value) as libc::socklen_t;
    // SAFETY: the option's value lives through the call, and its size is given.
    let code =
        unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, option, (&raw const value).cast(), length) };
    match code {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn uninterrupted<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome,
        }
    }
}

fn encode<M: Message>(message: M, flags: u16, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = flags;
    header.sequence_number = sequence;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Reads the messages of one datagram, each padded to four bytes. True if the exchange ends with it.
pub(super) fn read_datagram<M: Message>(
    datagram: &[u8],
    sequence: u32,
    operation: &str,
    answers: &mut Answers<M>,
) -> Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        let buffer = NetlinkBuffer::new_checked(rest).map_err(|error| malformed(operation, error.to_string()))?;
        let length = buffer.length() as usize;
        let ours = buffer.sequence_number() == sequence;
        let interrupted = buffer.flags() & NLM_F_DUMP_INTR != 0;
        let bytes = rest.get(..length).unwrap_or_default();
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        if ours {
            answers.consistent &= !interrupted;
            if read_message(bytes, operation, answers)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Reads one message. True if it ends the exchange.
fn read_message<M: Message>(bytes: &[u8], operation: &str, answers: &mut Answers<M>) -> Result<bool> {
    match NetlinkMessage::<M>::deserialize(bytes).map(|message| message.payload) {
        Ok(NetlinkPayload::InnerMessage(message)) => answers.messages.push(message),
        Ok(NetlinkPayload::Done(done)) => {
            return outcome(done.code, &done.extended_ack, operation).map(|()| true);
        }
        Ok(NetlinkPayload::Error(error)) => {
            let attributes = error.header.get(REPEATED_HEADER..).unwrap_or_default();
            return outcome(error.raw_code(), attributes, operation).map(|()| true);
        }
        Ok(NetlinkPayload::Overrun(_)) => {
            return Err(Error::refused(operation, io::Error::from_raw_os_error(libc::ENOBUFS)));
        }
        Ok(_) => {}
        Err(error) => answers.unreadable = Some(error.to_string()),
    }
    Ok(false)
}

/// What a closing message says: nothing, or a negative errno with attributes that explain it.
fn outcome(code: i32, attributes: &[u8], operation: &str) -> Result<()> {
    if code >= 0 {
        return Ok(());
    }
    let source = io::Error::from_raw_os_error(code.saturating_neg());
    Err(Error::Refused { operation: operation.into(), source, detail: explanation(attributes) })
}

fn explanation(attributes: &[u8]) -> Option<String> {
    let attributes = NlasIterator::new(attributes).map_while(|attribute| attribute.ok());
    let text = attributes.into_iter().find(|attribute| attribute.kind() == ACKNOWLEDGEMENT_TEXT)?;
    let text = String::from_utf8_lossy(text.value());
    Some(text.trim_end_matches('\0').to_owned()).filter(|text| !text.is_empty())
}

fn malformed(operation: &str, reason: String) -> Error {
    Error::Malformed { operation: operation.into(), reason }
}
