//! Every refusal of the API is a 4xx with an `ApiError`, whatever is sent; asked over a real socket.

use super::{Listener, router, serve};
use crate::{hands::Hands, manager::Manager, network::Network, ops::Ops};
use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};
use vz_api::wire::ApiError;
use vz_types::{ExitCode, ManagerConfig, Paths};

/// A vzd without containers on a root of its own, served until dropped.
struct Served {
    _runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
    socket: PathBuf,
}

impl Served {
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::new(dir.path());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let config = ManagerConfig::default();
        let network = std::sync::Arc::new(Network::new(&paths, &config.network).unwrap());
        let manager = Manager::open(paths.clone(), config, Hands::real(&paths, None, None, network)).unwrap();
        let ops = Ops::new(manager, runtime.handle().clone()).unwrap();
        let _in_runtime = runtime.enter();
        let listener = Listener::bind(&paths.socket()).unwrap();
        runtime.spawn(serve(listener, router(ops), std::future::pending()));
        drop(_in_runtime);
        Self { _runtime: runtime, socket: paths.socket(), _dir: dir }
    }

    /// Sends bytes, answers status and body.
    fn raw(&self, request: &[u8]) -> (u16, String) {
        let mut s = UnixStream::connect(&self.socket).unwrap();
        s.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        // The server may have answered and hung up before it has read all.
        let _ = s.write_all(request);
        let mut answer = Vec::new();
        let _ = s.read_to_end(&mut answer);
        let text = String::from_utf8_lossy(&answer).into_owned();
        let status = text.split(' ').nth(1).and_then(|n| n.parse().ok()).unwrap_or(0);
        (status, text.split_once("\r\n\r\n").map(|(_, b)| b.to_owned()).unwrap_or_default())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.raw(
            format!(
                "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
        )
    }

    fn refused(&self, method: &str, path: &str, body: &str) -> (u16, ApiError) {
        let (status, answer) = self.ask(method, path, body);
        let error = serde_json::from_str(&answer)
            .unwrap_or_else(|e| panic!("{method} {path} {body:.80}: {status} {answer:?}: {e}"));
        (status, error)
    }
}

#[test]
fn every_refusal_says_why_with_its_exit_code() {
    let vzd = Served::start();
    use ExitCode::*;
    for (method, path, body, status, code) in [
        ("GET", "/", "", 404, BadSyntax),
        ("GET", "/v1/nothing", "", 404, BadSyntax),
        ("PUT", "/v1/cts", "", 405, BadSyntax),
        ("POST", "/v1/cts", "not json", 400, BadSyntax),
        ("POST", "/v1/cts", "{\"ctid\":101,\"unknown\":1}", 400, BadSyntax),
        ("POST", "/v1/cts", "{\"ctid\":\"101\"}", 400, BadSyntax),
        ("POST", "/v1/cts", "{\"ctid\":-1}", 400, BadSyntax),
        ("POST", "/v1/cts", "{\"ctid\":100,\"ostemplate\":\"x\"}", 400, BadValue),
        ("POST", "/v1/cts", "{\"ctid\":2147483645,\"ostemplate\":\"x\"}", 400, BadValue),
        ("POST", "/v1/cts", "{\"ctid\":101}", 400, OsTemplateUnset),
        ("POST", "/v1/cts", "{\"ctid\":101,\"ostemplate\":\"../../etc\"}", 404, NoTemplate),
        ("POST", "/v1/cts", "{\"ctid\":101,\"ostemplate\":\"nonesuch\"}", 404, NoTemplate),
        (
            "POST",
            "/v1/cts",
            "{\"ctid\":101,\"ostemplate\":\"x\",\"settings\":{\"ipadd\":[\"10.0.0.0/8\"]}}",
            400,
            BadIp,
        ),
        (
            "POST",
            "/v1/cts",
            "{\"ctid\":101,\"ostemplate\":\"x\",\"settings\":{\"hostname\":\"a b\"}}",
            400,
            BadHostname,
        ),
        (
            "POST",
            "/v1/cts",
            "{\"ctid\":101,\"ostemplate\":\"x\",\"settings\":{\"nameserver\":[\"nine\"]}}",
            400,
            BadDns,
        ),
        ("POST", "/v1/cts", "{\"ctid\":101,\"ostemplate\":\"x\",\"settings\":{\"name\":\"123\"}}", 409, SetName),
        (
            "POST",
            "/v1/cts",
            "{\"ctid\":101,\"ostemplate\":\"x\",\"settings\":{\"features\":{\"fly\":true}}}",
            400,
            BadValue,
        ),
        ("GET", "/v1/cts/101", "", 404, NoConfig),
        ("GET", "/v1/cts/nobody", "", 404, NoConfig),
        ("GET", "/v1/cts/0", "", 400, BadValue),
        ("GET", "/v1/cts/%2e%2e%2fetc", "", 400, BadValue),
        ("GET", "/v1/cts/%ff%fe", "", 400, BadValue),
        ("POST", "/v1/cts/101/start", "", 404, NoConfig),
        ("POST", "/v1/cts/101/start", "[]x", 400, BadSyntax),
        ("DELETE", "/v1/cts/101", "", 404, NoConfig),
        ("PATCH", "/v1/cts/101", "{\"settings\":{\"bootorder\":\"high\"}}", 400, BadSyntax),
        ("GET", "/v1/templates/nonesuch", "", 404, NoTemplate),
        ("DELETE", "/v1/templates/a%2fb", "", 400, BadValue),
        ("POST", "/v1/templates/..%2f/build", "", 400, BadValue),
        ("POST", "/v1/templates/..%2f/import", "", 400, BadValue),
        ("POST", "/v1/templates/x/import?replaec=true", "", 400, BadSyntax),
        ("POST", "/v1/templates/x/import?max_size=much", "", 400, BadSyntax),
    ] {
        let (got, error) = vzd.refused(method, path, body);
        assert_eq!((got, error.code), (status, code), "{method} {path} {body}: {}", error.message);
        assert!(!error.message.is_empty());
    }
}

#[test]
fn bodies_and_headers_are_bounded() {
    let vzd = Served::start();
    let (status, error) = vzd.refused("POST", "/v1/cts", &" ".repeat((1 << 20) + 1));
    assert_eq!((status, error.code), (413, ExitCode::BadSyntax));
    let (status, _) =
        vzd.raw(format!("GET /v1/version HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(64 << 10)).as_bytes());
    assert_eq!(status, 431);
    let deep = "[".repeat(100_000);
    assert_eq!(vzd.refused("POST", "/v1/cts", &deep).0, 400);
    assert_eq!(vzd.ask("GET", "/v1/version", "").0, 200, "it still serves");
}

#[test]
fn garbage_is_survived() {
    let vzd = Served::start();
    for garbage in [
        &b"\0\0\0\0"[..],
        b"GET",
        b"\x16\x03\x01\x02\x00",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/cts HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    ] {
        let s = UnixStream::connect(&vzd.socket).unwrap();
        let _ = (&s).write_all(garbage);
    }
    assert_eq!(vzd.ask("GET", "/v1/cts", ""), (200, "[]".into()));
}

#[test]
fn what_is_no_socket_is_not_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("vzd.sock");
    std::fs::write(&path, "data").unwrap();
    assert_eq!(Listener::bind(&path).unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "data");
}
