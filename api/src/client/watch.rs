//! Streams of the daemon: one JSON object per line, for as long as both sides want.
//!
//! The head of the answer has to come within the client's timeout; lines come when something happens. A line is held to
//! [`MAX_LINE`], so that memory is bounded whatever the other side sends.

use std::io::{self, BufRead, BufReader, ErrorKind, Read};
use std::ops::ControlFlow;
use std::os::unix::net::UnixStream;
use std::time::Instant;

use serde::de::DeserializeOwned;

use super::{Client, ClientError, remaining};

/// Most bytes of a line: a pod with all the labels that a request may carry takes a quarter of it.
const MAX_LINE: u64 = 1 << 20;

/// Most bytes of an answer's head: the daemon's takes some hundred.
const MAX_HEAD: usize = 16 << 10;

impl Client {
    /// Reads the stream at `path`, such as `/v1/events?watch`, and hands on each line until `each` breaks or the daemon
    /// ends it.
    ///
    /// # Errors
    /// Every [`ClientError`], and what `each` fails with.
    pub fn watch<A: DeserializeOwned, E: From<ClientError>>(
        &self,
        path: &str,
        mut each: impl FnMut(A) -> Result<ControlFlow<()>, E>,
    ) -> Result<(), E> {
        let mut lines = self.open(path)?;
        loop {
            let mut line = Vec::new();
            let read = (&mut lines).take(MAX_LINE).read_until(b'\n', &mut line);
            read.map_err(|why| self.unreachable(why))?;
            if line.is_empty() {
                return Ok(());
            }
            if line.last() != Some(&b'\n') {
                return Err(self.protocol("cut off within a line, or a line without an end".to_owned()).into());
            }
            let answer = serde_json::from_slice(&line);
            let answer = answer.map_err(|error| self.protocol(format!("a line of {path}: {error}")))?;
            if each(answer)?.is_break() {
                return Ok(());
            }
        }
    }

    /// Sends the request and reads the head of the answer; what follows are lines.
    fn open(&self, path: &str) -> Result<BufReader<UnixStream>, ClientError> {
        let deadline = Instant::now() + self.timeout;
        let mut answer = self.begin(path, deadline).map_err(|why| self.unreachable(why))?;
        let head = read_head(&mut answer, deadline).map_err(|why| self.unreachable(why))?;
        let accepted = head.split(|byte| *byte == b' ').nth(1).is_some_and(|status| status.starts_with(b"2"));
        if accepted {
            answer.get_ref().set_read_timeout(None).map_err(|why| self.unreachable(why))?;
            return Ok(answer);
        }
        let mut whole = head;
        let rest = answer.take(MAX_LINE).read_to_end(&mut whole);
        rest.map_err(|why| self.unreachable(why))?;
        let (status, body) = self.parse(&whole)?;
        Err(ClientError::Api { status, error: super::refusal(status, path, body) })
    }

    fn begin(&self, path: &str, deadline: Instant) -> io::Result<BufReader<UnixStream>> {
        let stream = self.send("GET", path, &[], deadline)?;
        stream.set_read_timeout(Some(remaining(deadline)?))?;
        Ok(BufReader::new(stream))
    }
}

/// Reads up to the empty line.
fn read_head(answer: &mut BufReader<UnixStream>, deadline: Instant) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        answer.get_ref().set_read_timeout(Some(remaining(deadline)?))?;
        let mut line = answer.by_ref().take(MAX_HEAD as u64);
        if line.read_until(b'\n', &mut head)? == 0 || head.len() > MAX_HEAD {
            return Err(io::Error::new(ErrorKind::UnexpectedEof, "it closed without an answer"));
        }
    }
    Ok(head)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use serde_json::Value;

    use super::*;

    /// What a client sees of `answer`: its lines, and how it ended.
    fn watch(answer: &[u8], most: usize) -> (Vec<Value>, Result<(), ClientError>) {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("meshd.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let answer = answer.to_vec();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = BufReader::new(stream.try_clone().unwrap());
            let mut line = String::new();
            while line != "\r\n" {
                line.clear();
                request.read_line(&mut line).unwrap();
            }
            // The client may have seen enough.
            let _ = stream.write_all(&answer);
        });
        let mut seen = Vec::new();
        let outcome = Client::new(&socket).watch("/v1/events?watch", |line: Value| {
            seen.push(line);
            Ok(if seen.len() == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        });
        server.join().unwrap();
        (seen, outcome)
    }

    #[test]
    fn lines_are_handed_on_until_either_side_ends() {
        let answer = b"HTTP/1.0 200 OK\r\nContent-Type: application/x-ndjson\r\n\r\n1\n2\n3\n";
        let (seen, outcome) = watch(answer, 9);
        assert!(outcome.is_ok() && seen == [1, 2, 3]);
        let (seen, outcome) = watch(answer, 2);
        assert!(outcome.is_ok() && seen == [1, 2]);
    }

    #[test]
    fn a_refusal_a_broken_line_and_an_endless_one_are_errors() {
        let refused = b"HTTP/1.0 503 Busy\r\n\r\n{\"error\":{\"code\":\"many\",\"message\":\"m\",\"hint\":\"h\"}}";
        assert!(matches!(watch(refused, 9).1, Err(ClientError::Api { status: 503, .. })));
        for broken in [&b"HTTP/1.0 200 OK\r\n\r\n{\n"[..], b"HTTP/1.0 200 OK\r\n\r\n{\"a\":1}"] {
            assert!(matches!(watch(broken, 9).1, Err(ClientError::Protocol { .. })));
        }
        let mut endless = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
        endless.resize(endless.len() + (2 << 20), b'1');
        assert!(matches!(watch(&endless, 9).1, Err(ClientError::Protocol { .. })));
        assert!(matches!(watch(b"", 9).1, Err(ClientError::Unreachable { .. })));
    }
}
