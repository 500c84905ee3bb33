//! A request's body as a pipe, for those who read as it comes: an archive may be larger than memory, and whoever reads it
//! is another process. Nothing is kept but the few bytes on their way, and their sha256.

use crate::template::UploadEnd;
use axum::body::Body;
use futures::StreamExt;
use rustix::pipe::{PipeFlags, pipe_with};
use sha2::{Digest, Sha256};
use std::{
    io,
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::AsyncWriteExt,
    net::unix::pipe::Sender,
    task::JoinHandle,
    time::{Instant, timeout},
};

/// A client that sends nothing for this long has given up.
const SILENCE: Duration = Duration::from_secs(60);
/// How long a client may go on sending what nobody reads any more. Ours stops at once, when it is told why.
const PATIENCE: Duration = Duration::from_secs(30);

/// A body on its way into a pipe.
#[derive(Debug)]
pub struct Feed {
    /// The end to read from.
    pub bytes: OwnedFd,
    /// Where it will be said how the upload ended; that is known before the pipe ends.
    pub end: Arc<Mutex<UploadEnd>>,
    /// Ends with the upload.
    pub over: JoinHandle<()>,
}

/// Starts feeding the body into a pipe.
///
/// # Errors
/// No pipe could be made.
pub fn start(body: Body) -> io::Result<Feed> {
    let (bytes, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    let sender = Sender::from_owned_fd(writer)?;
    let end = Arc::new(Mutex::new(UploadEnd::Coming));
    let over = tokio::spawn(feed(body, sender, end.clone()));
    Ok(Feed { bytes, end, over })
}

async fn feed(body: Body, mut sender: Sender, end: Arc<Mutex<UploadEnd>>) {
    let mut chunks = body.into_data_stream();
    let mut hash = Sha256::new();
    let mut unread_since: Option<Instant> = None;
    let outcome = loop {
        match timeout(SILENCE, chunks.next()).await {
            Err(_) => break UploadEnd::Broken(format!("nothing of it arrived for {} s", SILENCE.as_secs())),
            Ok(None) => break UploadEnd::Whole(crate::template::hex(&hash.finalize())),
            Ok(Some(Err(e))) => break UploadEnd::Broken(format!("the upload broke off: {e}")),
            Ok(Some(Ok(_))) if unread_since.is_some_and(|t| t.elapsed() > PATIENCE) => {
                break UploadEnd::Broken("nobody read it any more".into());
            }
            Ok(Some(Ok(_))) if unread_since.is_some() => {}
            Ok(Some(Ok(bytes))) => {
                hash.update(&bytes);
                if sender.write_all(&bytes).await.is_err() {
                    unread_since = Some(Instant::now());
                }
            }
        }
    };
    *end.lock().unwrap_or_else(PoisonError::into_inner) = outcome;
    drop(sender);
}
