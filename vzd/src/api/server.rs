//! The Unix socket: one listener, bounded connections, bounded headers, times for everything.

use super::{extract::Peer, peer};
use axum::{Router, body::Body, http::Request, response::IntoResponse};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    fs, io,
    os::{
        fd::AsRawFd,
        unix::fs::{FileTypeExt, PermissionsExt},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::UnixListener, sync::Semaphore, task::JoinSet};

/// Connections served at once; more wait to be accepted. One that waits for an operation costs some KiB and no thread.
const MAX_CONNECTIONS: usize = 4096;
/// Bytes of a request's line and headers.
const MAX_HEADER: usize = 16 << 10;
/// How long a client may take to send them.
const HEADER_TIME: Duration = Duration::from_secs(10);
/// Longest before the next try after a connection could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(20);

/// The bound socket; its name goes away with it.
#[derive(Debug)]
pub struct Listener {
    socket: UnixListener,
    path: PathBuf,
}

impl Listener {
    /// Binds `path`, replacing a socket nobody serves any more: the caller holds the manager's lock.
    ///
    /// # Errors
    /// What the file system or bind(2) say; `AlreadyExists` when something else than a socket is there.
    pub fn bind(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(there) if there.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AlreadyExists, "something that is no socket is there")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        // Through the directory's descriptor: a socket address has 107 bytes, a root may have more.
        let dir = fs::File::open(path.parent().unwrap_or(Path::new("/")))?;
        let short =
            format!("/proc/self/fd/{}/{}", dir.as_raw_fd(), path.file_name().unwrap_or_default().to_string_lossy());
        let socket = UnixListener::bind(&short)?;
        // 0660 before the group: nobody gets in between. Without the group it stays root's.
        fs::set_permissions(path, fs::Permissions::from_mode(0o660))?;
        if let Ok(Some(group)) = nix::unistd::Group::from_name(peer::GROUP) {
            std::os::unix::fs::chown(path, Some(0), Some(group.gid.as_raw()))?;
        }
        Ok(Self { socket, path: path.into() })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// How long a connection may go on with its answer when vzd ends: what waits for an operation of minutes is found again
/// at the next vzd.
const LAST_ANSWERS: Duration = Duration::from_secs(2);

/// Serves until `quit` resolves, then lets connections finish what they are answering, for a moment.
pub async fn serve(listener: Listener, router: Router, quit: impl Future<Output = ()>) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    tokio::pin!(quit);
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { break };
        let stream = tokio::select! {
            () = &mut quit => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => continue,
            accepted = listener.socket.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(e) => {
                    tracing::warn!("a connection could not be accepted: {e}");
                    // Out of descriptors, say: one that is being served gives some back, or somebody else does.
                    let freed = async {
                        if connections.join_next().await.is_none() {
                            std::future::pending::<()>().await;
                        }
                    };
                    let _ = tokio::time::timeout(ACCEPT_AGAIN, freed).await;
                    continue;
                }
            },
        };
        let (router, mut stopped) = (router.clone(), stopped.clone());
        connections.spawn(async move {
            let _place = place;
            let refused = peer::refuse(&stream);
            let who = Peer(peer::name(&stream));
            let routes = TowerToHyperService::new(tower_service(router, refused));
            let service = hyper::service::service_fn(move |mut request: Request<hyper::body::Incoming>| {
                request.extensions_mut().insert(who.clone());
                hyper::service::Service::call(&routes, request)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIME)
                .max_buf_size(MAX_HEADER)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(e) = ended {
                        tracing::debug!("a connection ended early: {e}");
                    }
                    return;
                }
                _ = stopped.changed() => connection.as_mut().graceful_shutdown(),
            }
            let _ = connection.await;
        });
    }
    drop(listener);
    let _ = stop.send(true);
    let all = async { while connections.join_next().await.is_some() {} };
    let _ = tokio::time::timeout(LAST_ANSWERS, all).await;
}

/// The router, or the same refusal to everything.
fn tower_service(router: Router, refused: Option<String>) -> Router {
    match refused {
        None => router,
        Some(reason) => {
            Router::new().fallback(move |_: Request<Body>| async move { peer::forbidden(&reason).into_response() })
        }
    }
}
