use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use tempfile::TempDir;

use super::*;
use crate::model::{Done, Target, VersionInfo};

/// Plays the daemon once: takes a request, sends `answer` bytes and closes. The thread hands back the request.
fn serve(answer: Vec<u8>) -> (TempDir, Client, JoinHandle<String>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("meshd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let request = read_request(&mut stream);
        // The client may have heard enough before the end.
        let _ = stream.write_all(&answer);
        let _ = stream.shutdown(Shutdown::Both);
        request
    });
    (folder, Client::new(socket), server)
}

fn read_request(stream: &mut UnixStream) -> String {
    let mut request = Vec::new();
    let mut byte = [0];
    let length = |request: &[u8]| -> Option<usize> {
        let text = std::str::from_utf8(request).unwrap();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let (_, rest) = head.split_once("Content-Length: ")?;
        let promised: usize = rest.lines().next().unwrap().parse().unwrap();
        Some(promised - body.len())
    };
    while length(&request) != Some(0) {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "the request ended early");
        request.push(byte[0]);
    }
    String::from_utf8(request).unwrap()
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.0 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn protocol_reason(answer: &[u8]) -> String {
    let (_folder, client, server) = serve(answer.to_vec());
    let result = client.get::<VersionInfo>("/v1/version");
    server.join().unwrap();
    match result {
        Err(ClientError::Protocol { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_question_is_sent_whole_and_the_answer_read() {
    let (_folder, client, server) = serve(ok(r#"{"api":1,"version":"1.2.3","protocol":1,"later":true}"#));
    let answer: VersionInfo = client.get("/v1/version").unwrap();
    assert_eq!(answer, VersionInfo { api: 1, version: "1.2.3".to_owned(), protocol: 1 });
    assert!(server.join().unwrap().starts_with("GET /v1/version HTTP/1.0\r\n"));

    let (_folder, client, server) = serve(ok("{}"));
    let Done {} = client.post("/v1/connect", &Target { address: "10.0.0.1".to_owned() }).unwrap();
    let request = server.join().unwrap();
    assert!(request.starts_with("POST /v1/connect HTTP/1.0\r\n") && request.ends_with(r#"{"address":"10.0.0.1"}"#));
}

#[test]
fn a_refusal_carries_what_the_daemon_said() {
    let body = r#"{"error":{"code":"no_space","message":"no address left","hint":"remove dead peers"}}"#;
    let (_folder, client, _server) = serve(format!("HTTP/1.1 503 Busy\r\n\r\n{body}").into_bytes());
    let error = client.get::<VersionInfo>("/v1/version").unwrap_err();
    assert_eq!(error.to_string(), "meshd refused: no address left (no_space); remove dead peers");
    assert!(matches!(error, ClientError::Api { status: 503, .. }));
}

#[test]
fn a_refusal_without_an_explanation_is_still_one() {
    let (_folder, client, _server) = serve(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec());
    let ClientError::Api { status: 404, error } = client.get::<VersionInfo>("/v1/nothing").unwrap_err() else {
        panic!("not a refusal");
    };
    assert_eq!(error.code, "http_404");
}

#[test]
fn garbage_is_refused_with_a_reason() {
    assert!(protocol_reason(b"\x00\x01\x02 not http\r\n\r\n").contains("no HTTP answer"));
    assert!(protocol_reason(b"HTTP/1.0 200").contains("within its head"));
    assert!(protocol_reason(&ok("[]")).contains("/v1/version"));
    assert!(protocol_reason(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n").contains("transfer"));
    let many = format!("HTTP/1.0 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAX_HEADERS + 1));
    assert!(protocol_reason(many.as_bytes()).contains("headers"));
}

#[test]
fn a_truncated_body_is_not_believed() {
    let whole = ok(r#"{"version":"1.2.3","protocol":1}"#);
    assert!(protocol_reason(&whole[..whole.len() - 1]).contains("cut off"));
    assert!(protocol_reason(b"HTTP/1.0 200 OK\r\nContent-Length: -7\r\n\r\n{}").contains("cut off"));
}

#[test]
fn an_endless_answer_ends_at_the_cap() {
    let mut answer = b"HTTP/1.0 200 OK\r\n\r\n".to_vec();
    answer.resize(MAX_ANSWER + (1 << 20), b' ');
    assert!(protocol_reason(&answer).contains("longer than"));
}

#[test]
fn a_silent_daemon_costs_no_more_than_the_timeout() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("meshd.sock");
    let _listener = UnixListener::bind(&socket).unwrap();
    let client = Client::new(socket).with_timeout(Duration::from_millis(50));
    let ClientError::Unreachable { hint, .. } = client.get::<VersionInfo>("/v1/version").unwrap_err() else {
        panic!("an answer out of nothing");
    };
    assert!(hint.contains("in time"));
}

#[test]
fn a_dripping_answer_ends_at_the_deadline() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("meshd.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        // Ends when the client hangs up.
        while stream.write_all(b"H").is_ok() {
            thread::sleep(Duration::from_millis(5));
        }
    });
    let client = Client::new(socket).with_timeout(Duration::from_millis(100));
    assert!(matches!(client.get::<VersionInfo>("/v1/version"), Err(ClientError::Unreachable { .. })));
    server.join().unwrap();
}

#[test]
fn a_missing_a_dead_a_closing_and_a_forbidden_socket_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("none.sock");
    let hint = |path: &Path| match Client::new(path).get::<VersionInfo>("/v1/version") {
        Err(error @ ClientError::Unreachable { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    assert!(hint(&missing).contains("start meshd"));

    let dead = folder.path().join("dead.sock");
    drop(UnixListener::bind(&dead).unwrap());
    assert!(hint(&dead).contains("refused") && hint(&dead).contains("start meshd"));

    let closing = folder.path().join("closing.sock");
    let listener = UnixListener::bind(&closing).unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        read_request(&mut stream);
    });
    assert!(hint(&closing).contains("without an answer"));
    server.join().unwrap();

    let forbidden = Client::new("/x").unreachable(ErrorKind::PermissionDenied.into());
    assert!(forbidden.to_string().contains("as root"));
}
