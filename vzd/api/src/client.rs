//! A small blocking client of vzd's API over its Unix socket: one connection per request, because each
//! `vzctl` makes one and ends. hyper speaks HTTP inside a current-thread runtime made for the request.
//!
//! Reading has a deadline, of 15 seconds unless [`Client::within`] says otherwise. Changes have none: a stop may rightly take its timeout, a
//! template build many minutes, and a vzd that dies closes the socket, which ends the wait at once. An archive to import
//! is read by a thread of its own while the answer to it already comes.

use crate::body::{Lines, Payload};
use crate::wire::{
    ApiError, CheckReport, CreateRequest, CtInfo, Done, Event, HostFigures, ListRequest, Operation, RestartRequest,
    SetRequest, StartRequest, StopRequest, Version, Why,
};
use hyper::{Method, Request, StatusCode};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Serialize, de::DeserializeOwned};
use std::{
    collections::BTreeMap,
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};
use vz_types::{ExitCode, OpId, Paths};

/// How long an answer that only reads may take.
const READ_DEADLINE: Duration = Duration::from_secs(15);
/// A check runs a dozen programs to ask for their versions, on whatever machine it is.
const CHECK_DEADLINE: Duration = Duration::from_secs(120);
/// `sun_path` of unix(7), with its final NUL.
const SUN_PATH: usize = 108;

/// Why there is no answer, or what the answer refused.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens on the socket.
    #[error("vzd is not running (nobody answers on {})", socket.display())]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The socket may not be used by this user.
    #[error("not allowed to talk to vzd on {}", socket.display())]
    Denied {
        /// The socket.
        socket: PathBuf,
        /// What connect(2) said.
        source: io::Error,
    },
    /// The connection could not be made or ended early.
    #[error("{what} {}", socket.display())]
    Broken {
        /// What could not be done, ending in a preposition.
        what: &'static str,
        /// The socket.
        socket: PathBuf,
        /// What the socket or HTTP said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There was an answer that is none of the API's.
    #[error("vzd answered {status} with something that is not an answer to {method} {path}: {excerpt}")]
    Nonsense {
        /// HTTP status.
        status: u16,
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// The parser's words and the answer's beginning.
        excerpt: String,
    },
    /// A request that only reads took longer than its deadline.
    #[error("vzd did not answer {method} {path} within {} seconds", deadline.as_secs())]
    Timeout {
        /// Of the request.
        method: Method,
        /// Of the request.
        path: String,
        /// The deadline.
        deadline: Duration,
    },
    /// vzd went away during the operation and did not come back in time.
    #[error("vzd went away and is not back: operation {id} may go on, or be done")]
    Lost {
        /// Its number.
        id: OpId,
        /// How the connection was lost.
        source: Box<ClientError>,
    },
    /// The connection was lost before vzd had written the operation down.
    #[error("vzd went away before it began")]
    NeverBegan {
        /// How the connection was lost.
        source: Box<ClientError>,
    },
    /// What was to be sent could not be read.
    #[error("the archive cannot be read")]
    Input {
        /// What read(2) said.
        source: io::Error,
    },
    /// vzd refused or failed, and says why.
    #[error("{}", .0.message)]
    Api(Box<ApiError>),
}

impl ClientError {
    /// What `vzctl` exits with.
    pub fn code(&self) -> ExitCode {
        match self {
            Self::Api(e) => e.code,
            Self::Denied { .. } => ExitCode::PermissionDenied,
            _ => ExitCode::System,
        }
    }

    /// What to do next, if there is something.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotRunning { socket, .. } if socket.as_path() == Path::new("/run/vz/vzd.sock") => Some(
                "start it with `systemctl start vzd`; for a manager with another root, set VZ_ROOT or --root".into(),
            ),
            Self::NotRunning { .. } => {
                Some("start this root's own `vzd --root DIR`, or correct VZ_ROOT or --root".into())
            }
            Self::Denied { .. } => Some("run as root, or join the group `vz`".into()),
            Self::Lost { id, .. } => Some(format!(
                "once vzd runs again (`systemctl status vzd` where it is a service), `vzctl wait {id}` tells what became of it"
            )),
            Self::Broken { .. } | Self::Timeout { .. } => {
                Some("look at vzd's log (`journalctl -u vzd` where it is a service) and repeat it".into())
            }
            Self::NeverBegan { .. } => Some("repeat it; `vzctl operations` shows what is under way".into()),
            Self::Nonsense { .. } => {
                Some("vzctl and vzd may be of different versions: `vzctl version` shows both".into())
            }
            Self::Input { .. } => None,
            Self::Api(e) => e.hint.clone(),
        }
    }

    /// The number of the operation it is about, where it is known.
    pub fn operation(&self) -> Option<String> {
        match self {
            Self::Lost { id, .. } => Some(id.to_string()),
            Self::Api(e) => e.operation.clone(),
            _ => None,
        }
    }

    /// The same as it would have come over the wire.
    pub fn to_api(&self) -> ApiError {
        ApiError {
            code: self.code(),
            message: self.to_string(),
            hint: self.hint(),
            reason: None,
            operation: self.operation(),
        }
    }
}

/// A client of one manager.
#[derive(Clone, Debug)]
pub struct Client {
    pub(crate) socket: PathBuf,
    pub(crate) deadline: Duration,
    pub(crate) operation: Option<OpId>,
    pub(crate) background: bool,
}

impl Client {
    /// For the vzd of the manager at `paths`. Connects at each request, not here.
    pub fn new(paths: &Paths) -> Self {
        Self { socket: paths.socket(), deadline: READ_DEADLINE, operation: None, background: false }
    }

    /// The same, with another deadline for answers that only read.
    pub fn within(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Versions of the daemon.
    pub fn version(&self) -> Result<Version, ClientError> {
        self.get("/v1/version")
    }
    /// What this host can and cannot do.
    pub fn check(&self) -> Result<CheckReport, ClientError> {
        self.within(CHECK_DEADLINE).get("/v1/check")
    }
    /// Every container, in CTID order.
    pub fn list(&self) -> Result<Vec<CtInfo>, ClientError> {
        self.get("/v1/cts")
    }
    /// The same without counters, limits and parameters, which take longest to look up.
    pub fn list_brief(&self) -> Result<Vec<CtInfo>, ClientError> {
        self.list_asked(&ListRequest { brief: true, ..ListRequest::default() })
    }
    /// Those that are asked for, in CTID order.
    pub fn list_asked(&self, asked: &ListRequest) -> Result<Vec<CtInfo>, ClientError> {
        self.get(&format!("/v1/cts{}", query(asked)?))
    }
    /// One container, by CTID or name.
    pub fn info(&self, ct: &str) -> Result<CtInfo, ClientError> {
        self.get(&format!("/v1/cts/{}", segment(ct)))
    }
    /// Why a container is as it is.
    pub fn why(&self, ct: &str) -> Result<Why, ClientError> {
        self.get(&format!("/v1/cts/{}/why", segment(ct)))
    }
    /// What the host has and has promised.
    pub fn host(&self) -> Result<HostFigures, ClientError> {
        self.get("/v1/host")
    }
    /// Sample configurations: name to text.
    pub fn samples(&self) -> Result<BTreeMap<String, String>, ClientError> {
        self.get("/v1/samples")
    }
    /// Figures in Prometheus' text format.
    pub fn metrics(&self) -> Result<String, ClientError> {
        let mut text = Vec::new();
        self.run(Method::GET, "/metrics", Payload::Whole(None), Some(self.deadline), |_, line| {
            text.extend_from_slice(line);
            // The reader of lines takes their ends away.
            if !line.ends_with(b"\n") {
                text.push(b'\n');
            }
            Ok(true)
        })?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
    /// Events after number `after`, of one container or all, with changes of state or about limits alone; with `follow`
    /// it goes on until vzd ends.
    pub fn events(
        &self,
        ct: Option<&str>,
        after: i64,
        (follow, limits): (bool, bool),
        mut each: impl FnMut(&Event),
    ) -> Result<(), ClientError> {
        let ct = ct.map(|ct| format!("&ct={}", segment(ct))).unwrap_or_default();
        let path = format!("/v1/events?after={after}&follow={follow}&limits={limits}{ct}");
        self.run(Method::GET, &path, Payload::Whole(None), None, |status, line| {
            each(&decode(status, &Method::GET, &path, line)?);
            Ok(true)
        })
    }
    /// Makes a container.
    pub fn create(&self, request: &CreateRequest) -> Result<Done, ClientError> {
        self.change(Method::POST, "/v1/cts", request)
    }
    /// Changes one.
    pub fn set(&self, ct: &str, request: &SetRequest) -> Result<Done, ClientError> {
        self.change(Method::PATCH, &format!("/v1/cts/{}", segment(ct)), request)
    }
    /// Waits until a running one has reached its default runlevel.
    pub fn boot(&self, ct: &str) -> Result<Done, ClientError> {
        self.whole(Method::GET, &format!("/v1/cts/{}/boot", segment(ct)), Vec::new(), None)
    }
    /// Removes one.
    pub fn destroy(&self, ct: &str) -> Result<Done, ClientError> {
        self.change(Method::DELETE, &format!("/v1/cts/{}", segment(ct)), &())
    }
    /// Starts one.
    pub fn start(&self, ct: &str, request: &StartRequest) -> Result<Done, ClientError> {
        self.change(Method::POST, &format!("/v1/cts/{}/start", segment(ct)), request)
    }
    /// Stops one.
    pub fn stop(&self, ct: &str, request: &StopRequest) -> Result<Done, ClientError> {
        self.change(Method::POST, &format!("/v1/cts/{}/stop", segment(ct)), request)
    }
    /// Stops and starts one.
    pub fn restart(&self, ct: &str, request: &RestartRequest) -> Result<Done, ClientError> {
        self.change(Method::POST, &format!("/v1/cts/{}/restart", segment(ct)), request)
    }
    /// Shows a stopped one's files on the host.
    pub fn mount(&self, ct: &str) -> Result<Done, ClientError> {
        self.change(Method::POST, &format!("/v1/cts/{}/mount", segment(ct)), &())
    }
    /// Hides them again.
    pub fn umount(&self, ct: &str) -> Result<Done, ClientError> {
        self.change(Method::POST, &format!("/v1/cts/{}/umount", segment(ct)), &())
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.whole(Method::GET, path, Vec::new(), Some(self.deadline))
    }

    pub(crate) fn change<B: Serialize>(&self, method: Method, path: &str, body: &B) -> Result<Done, ClientError> {
        let body = Payload::Whole(Some(encode(body)?.into()));
        let path = if self.background { format!("{path}?background=true") } else { path.to_owned() };
        self.changed(method, &path, body)
    }

    /// The answer to a change, or what is found of it where the connection was lost.
    pub(crate) fn changed(&self, method: Method, path: &str, body: Payload) -> Result<Done, ClientError> {
        let (mut answer, mut code) = (Vec::new(), 0);
        let answered = self.run(method.clone(), path, body, None, |status, line| {
            code = status;
            answer.extend_from_slice(line);
            Ok(true)
        });
        match (answered, self.operation) {
            (Ok(()), _) if code == StatusCode::ACCEPTED.as_u16() => {
                let begun: Operation = decode(code, &method, path, &answer)?;
                Ok(Done { ctid: begun.ctid, operation: Some(begun.id), ..Done::default() })
            }
            (Ok(()), _) => decode(code, &method, path, &answer),
            (Err(e @ ClientError::Broken { .. }), Some(id)) => self.found_again(id, e),
            (Err(e), _) => Err(e),
        }
    }

    pub(crate) fn whole<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
        deadline: Option<Duration>,
    ) -> Result<T, ClientError> {
        let mut answer = Vec::new();
        let mut code = 0;
        self.run(method.clone(), path, Payload::Whole(Some(body.into())), deadline, |status, line| {
            code = status;
            answer.extend_from_slice(line);
            Ok(true)
        })?;
        decode(code, &method, path, &answer)
    }

    /// One request; `line` sees the status and each line of a successful answer, and says whether it wants more.
    pub(crate) fn run(
        &self,
        method: Method,
        path: &str,
        body: Payload,
        deadline: Option<Duration>,
        line: impl FnMut(u16, &[u8]) -> Result<bool, ClientError>,
    ) -> Result<(), ClientError> {
        let stream = self.connect()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| self.broken("no event loop to talk on", e))?;
        runtime.block_on(async {
            let exchange = self.exchange(stream, &method, path, body, line);
            match deadline {
                None => exchange.await,
                Some(d) => match tokio::time::timeout(d, exchange).await {
                    Ok(done) => done,
                    Err(_) => Err(ClientError::Timeout { method: method.clone(), path: path.to_owned(), deadline: d }),
                },
            }
        })
    }

    async fn exchange(
        &self,
        stream: UnixStream,
        method: &Method,
        path: &str,
        body: Payload,
        mut line: impl FnMut(u16, &[u8]) -> Result<bool, ClientError>,
    ) -> Result<(), ClientError> {
        let lost = |e: hyper::Error| self.broken("the connection to vzd was lost on", e);
        let stream = tokio::net::UnixStream::from_std(stream).map_err(|e| self.broken("cannot use", e))?;
        let io = hyper_util::rt::TokioIo::new(stream);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.map_err(lost)?;
        let request =
            Request::builder().method(method).uri(path).header("host", "vzd").header("content-type", body.kind());
        let request = match self.operation {
            Some(id) => request.header("vz-operation", id.to_string()),
            None => request,
        };
        let request = request.body(body).map_err(|e| self.broken("cannot put a request to", e))?;
        let connection = std::pin::pin!(connection);
        let answer = std::pin::pin!(async {
            let response = sender.send_request(request).await.map_err(lost)?;
            let status = response.status();
            let mut lines = Lines::of(response.into_body());
            if !status.is_success() {
                let mut all = Vec::new();
                while let Some(l) = lines.next().await.map_err(lost)? {
                    all.extend_from_slice(&l);
                }
                let error: ApiError = decode(status.as_u16(), method, path, &all)?;
                return Err(ClientError::Api(Box::new(error)));
            }
            while let Some(l) = lines.next().await.map_err(lost)? {
                if !line(status.as_u16(), &l)? {
                    break;
                }
            }
            Ok(())
        });
        drive(connection, answer).await
    }

    fn connect(&self) -> Result<UnixStream, ClientError> {
        let connected = connect_path(&self.socket);
        let stream = connected.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                ClientError::NotRunning { socket: self.socket.clone(), source }
            }
            io::ErrorKind::PermissionDenied => ClientError::Denied { socket: self.socket.clone(), source },
            _ => self.broken("cannot connect to", source),
        })?;
        stream.set_nonblocking(true).map_err(|e| self.broken("cannot use", e))?;
        Ok(stream)
    }

    pub(crate) fn broken(
        &self,
        what: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ClientError {
        ClientError::Broken { what, socket: self.socket.clone(), source: source.into() }
    }
}

/// Lets the connection work until the answer is complete, in one task: nothing needs spawning.
async fn drive<C, A, T>(mut connection: std::pin::Pin<&mut C>, mut answer: std::pin::Pin<&mut A>) -> T
where
    C: Future,
    A: Future<Output = T>,
{
    let mut open = true;
    std::future::poll_fn(move |cx| {
        // The connection's own failure also fails the answer, with the better words.
        if open && connection.as_mut().poll(cx).is_ready() {
            open = false;
        }
        match answer.as_mut().poll(cx) {
            // Writing the request may only have been possible just now.
            std::task::Poll::Pending if open => {
                if connection.as_mut().poll(cx).is_ready() {
                    open = false;
                    cx.waker().wake_by_ref();
                }
                std::task::Poll::Pending
            }
            other => other,
        }
    })
    .await
}

/// Connects to `path`, also where it is longer than an address may be (deep roots in tests).
fn connect_path(path: &Path) -> io::Result<UnixStream> {
    if path.as_os_str().len() < SUN_PATH {
        return UnixStream::connect(path);
    }
    let (dir, name) = match (path.parent(), path.file_name()) {
        (Some(dir), Some(name)) => (dir, name),
        _ => return Err(io::ErrorKind::InvalidInput.into()),
    };
    let dir = std::fs::File::open(dir)?;
    UnixStream::connect(Path::new(&format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

pub(crate) fn encode<B: Serialize>(body: &B) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(body).map_err(|e| {
        ClientError::Api(Box::new(ApiError {
            code: ExitCode::System,
            message: format!("the request cannot be written as JSON: {e}"),
            hint: None,
            reason: None,
            operation: None,
        }))
    })
}

pub(crate) fn decode<T: DeserializeOwned>(
    status: u16,
    method: &Method,
    path: &str,
    text: &[u8],
) -> Result<T, ClientError> {
    serde_json::from_slice(text).map_err(|e| {
        let start: String = String::from_utf8_lossy(text).chars().filter(|c| !c.is_control()).take(160).collect();
        ClientError::Nonsense {
            status,
            method: method.clone(),
            path: path.to_owned(),
            excerpt: format!("{e}: `{start}`"),
        }
    })
}

/// A flat structure as a query string, with its `?`; what is absent is left out.
pub(crate) fn query<B: Serialize>(value: &B) -> Result<String, ClientError> {
    let fields: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(&encode(value)?).unwrap_or_default();
    let pairs = fields.iter().filter_map(|(key, value)| {
        let text = match value {
            serde_json::Value::Null => return None,
            serde_json::Value::String(s) => s.clone(),
            other => other.to_string(),
        };
        Some(format!("{}={}", segment(key), segment(&text)))
    });
    Ok(format!("?{}", pairs.collect::<Vec<_>>().join("&")))
}

/// One path segment, with everything but letters, digits and `-_.` percent-encoded.
pub(crate) fn segment(text: &str) -> String {
    const KEPT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');
    utf8_percent_encode(text, KEPT).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ImportRequest;

    #[test]
    fn a_segment_can_never_become_a_path() {
        assert_eq!(segment("101"), "101");
        assert_eq!(segment("web-1.a_b"), "web-1.a_b");
        assert_eq!(segment("../x?y"), "..%2Fx%3Fy");
        assert_eq!(segment("ж ~"), "%D0%B6%20%7E");
    }

    #[test]
    fn options_become_a_query_string() {
        let request =
            ImportRequest { source: Some("a b&c.tar".into()), replace: true, max_size: Some(5), ..Default::default() };
        let text = query(&request).unwrap();
        for part in ["source=a%20b%26c.tar", "replace=true", "max_size=5", "skip_devices=false"] {
            assert!(text.split(['?', '&']).any(|p| p == part), "{text}");
        }
        assert!(!text.contains("description"), "{text}");
    }

    #[test]
    fn a_missing_socket_is_told_as_a_missing_daemon() {
        let dir = std::env::temp_dir().join(format!("vz-api-client-{}", std::process::id()));
        let e = Client::new(&Paths::new(&dir)).version().unwrap_err();
        assert!(matches!(e, ClientError::NotRunning { .. }), "{e:?}");
        assert_eq!(e.code(), ExitCode::System);
        assert!(e.hint().unwrap().contains("VZ_ROOT"));
    }
}
