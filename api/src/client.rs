//! Blocking client of the control API.
//!
//! One request is one connection: HTTP/1.0, answered and closed. There is no runtime behind it, so that `mesh-cni` and
//! `meshctl` stay small. A request ends at its deadline whatever the other side does, and an answer is held to
//! [`MAX_ANSWER`]. [`watch`] reads streams, which end when either side wants.

mod watch;

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::{ErrorBody, ErrorDetail};

/// Most bytes taken of one answer: a thousand members with their endpoints stay far below.
pub const MAX_ANSWER: usize = 16 << 20;

/// How long one request may take unless told otherwise: longer than the daemon's own wait for a ring (5 s).
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(15);

/// More headers than the daemon ever sends.
const MAX_HEADERS: usize = 32;

/// Why a request brought no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The daemon does not listen, may not be asked, or did not answer in time. The request may have been carried out.
    #[error("cannot reach meshd at {}: {why}; {hint}", socket.display())]
    Unreachable {
        /// Socket that was tried.
        socket: PathBuf,
        /// What the system said.
        why: io::Error,
        /// What to do next.
        hint: &'static str,
    },
    /// The daemon refused.
    #[error("meshd refused: {} ({}){}", error.message, error.code, hint_suffix(&error.hint))]
    Api {
        /// HTTP status of the answer.
        status: u16,
        /// What the daemon said.
        error: ErrorDetail,
    },
    /// What listens there does not speak this protocol.
    #[error("the answer at {} is not understood: {why}; is it meshd, of a fitting version?", socket.display())]
    Protocol {
        /// Socket that was asked.
        socket: PathBuf,
        /// What is wrong with the answer.
        why: String,
    },
}

/// Speaks to the daemon behind one socket. Cheap to make; keeps no connection.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the daemon that listens on `socket`.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self { socket: socket.into(), timeout: DEFAULT_TIMEOUT }
    }

    /// Lets each request take `timeout`, from connecting to the last byte.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The socket it was made for.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Reads `path`, such as `/v1/status`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub fn get<A: DeserializeOwned>(&self, path: &str) -> Result<A, ClientError> {
        self.request("GET", path, &[])
    }

    /// Sends `question` to `path`, such as `/v1/pods`.
    ///
    /// # Errors
    /// Every [`ClientError`].
    pub fn post<Q: Serialize, A: DeserializeOwned>(&self, path: &str, question: &Q) -> Result<A, ClientError> {
        let body =
            serde_json::to_vec(question).map_err(|error| self.protocol(format!("unsendable request: {error}")))?;
        self.request("POST", path, &body)
    }

    fn request<A: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> Result<A, ClientError> {
        let answer = self.exchange(method, path, body).map_err(|why| self.unreachable(why))?;
        self.read(path, &answer)
    }

    /// What a whole answer about `path` says.
    #[doc(hidden)]
    pub fn read<A: DeserializeOwned>(&self, path: &str, answer: &[u8]) -> Result<A, ClientError> {
        let (status, body) = self.parse(answer)?;
        if !(200..300).contains(&status) {
            return Err(ClientError::Api { status, error: refusal(status, path, body) });
        }
        serde_json::from_slice(body).map_err(|error| self.protocol(format!("body of {path}: {error}")))
    }

    /// Sends one request and reads until the daemon closes, the cap is passed or the deadline is reached.
    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let deadline = Instant::now() + self.timeout;
        let mut stream = self.send(method, path, body, deadline)?;
        let answer = read_to_close(&mut stream, deadline)?;
        if answer.is_empty() {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed without an answer"));
        }
        Ok(answer)
    }

    fn send(&self, method: &str, path: &str, body: &[u8], deadline: Instant) -> io::Result<UnixStream> {
        let mut stream = connect(&self.socket, self.timeout)?;
        stream.set_write_timeout(Some(remaining(deadline)?))?;
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: meshd\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(&[head.as_bytes(), body].concat())?;
        Ok(stream)
    }

    fn parse<'a>(&self, answer: &'a [u8]) -> Result<(u16, &'a [u8]), ClientError> {
        if answer.len() > MAX_ANSWER {
            return Err(self.protocol(format!("longer than {MAX_ANSWER} bytes")));
        }
        let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
        let mut head = httparse::Response::new(&mut headers);
        let head_end = match head.parse(answer) {
            Ok(httparse::Status::Complete(end)) => end,
            Ok(httparse::Status::Partial) => return Err(self.protocol("cut off within its head".to_owned())),
            Err(error) => return Err(self.protocol(format!("no HTTP answer ({error})"))),
        };
        let body = answer.get(head_end..).unwrap_or_default();
        self.check_framing(head.headers, body)?;
        Ok((head.code.unwrap_or_default(), body))
    }

    fn check_framing(&self, headers: &[httparse::Header<'_>], body: &[u8]) -> Result<(), ClientError> {
        for header in headers {
            if header.name.eq_ignore_ascii_case("transfer-encoding") {
                return Err(self.protocol("a transfer encoding, which HTTP/1.0 does not have".to_owned()));
            }
            if header.name.eq_ignore_ascii_case("content-length") {
                let promised = std::str::from_utf8(header.value).ok().and_then(|text| text.trim().parse().ok());
                if promised != Some(body.len()) {
                    return Err(self.protocol(format!("cut off or overlong: its body has {} bytes", body.len())));
                }
            }
        }
        Ok(())
    }

    fn unreachable(&self, why: io::Error) -> ClientError {
        let hint = match why.kind() {
            ErrorKind::PermissionDenied => "ask as root, or as a user who may open the socket",
            ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
                "start meshd, or name its socket (meshctl: --socket; CNI configuration: the key `socket`)"
            }
            ErrorKind::TimedOut | ErrorKind::WouldBlock => "it listens but does not answer in time: see its log",
            _ => "see whether meshd runs, and its log",
        };
        ClientError::Unreachable { socket: self.socket.clone(), why, hint }
    }

    fn protocol(&self, why: String) -> ClientError {
        ClientError::Protocol { socket: self.socket.clone(), why }
    }
}

/// Connecting blocks while the backlog of a hung daemon is full and takes no timeout, so it has a thread of its own,
/// which outlives a call that gave up.
fn connect(socket: &Path, timeout: Duration) -> io::Result<UnixStream> {
    let (sender, receiver) = mpsc::sync_channel(1);
    let socket = socket.to_owned();
    thread::Builder::new().name("meshd-connect".to_owned()).spawn(move || {
        // Nobody receives when the caller has given up.
        let _ = sender.send(UnixStream::connect(socket));
    })?;
    receiver.recv_timeout(timeout).unwrap_or_else(|_| Err(ErrorKind::TimedOut.into()))
}

fn remaining(deadline: Instant) -> io::Result<Duration> {
    // A zero timeout would mean none at all.
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Reads at most one byte more than [`MAX_ANSWER`].
fn read_to_close(stream: &mut UnixStream, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    let mut chunk = [0; 16 << 10];
    while answer.len() <= MAX_ANSWER {
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        match stream.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(answer)
}

/// What the daemon said, or what a status without an explanation means.
fn refusal(status: u16, path: &str, body: &[u8]) -> ErrorDetail {
    serde_json::from_slice::<ErrorBody>(body).map_or_else(
        |_| ErrorDetail {
            code: format!("http_{status}"),
            message: format!("status {status} for {path}"),
            hint: "compare the versions of both sides with `meshctl version`".to_owned(),
        },
        |body| body.error,
    )
}

fn hint_suffix(hint: &str) -> String {
    if hint.is_empty() { String::new() } else { format!("; {hint}") }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
