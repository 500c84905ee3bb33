//! What travels in a request and in its answer: bytes at once or as they are read, and lines as they come.

use http_body_util::BodyExt;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::{
    io::{self, Read},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};
use tokio::sync::mpsc;

/// The largest answer that is kept in memory; a list of 10000 containers has about 10 MiB.
const MAX_ANSWER: usize = 256 << 20;

/// What is sent.
pub(crate) enum Payload {
    /// All of it at once.
    Whole(Option<Bytes>),
    /// As it is read.
    Read { chunks: mpsc::Receiver<io::Result<Bytes>>, length: Option<u64> },
}

/// Bytes read at once.
const CHUNK: usize = 256 << 10;

impl Payload {
    /// Reads in a thread of its own, because a read may wait for somebody and the answer must be heard meanwhile. An
    /// error ends the request and is left in `failed`.
    pub(crate) fn reading(
        mut from: impl Read + Send + 'static,
        length: Option<u64>,
        failed: Arc<Mutex<Option<io::Error>>>,
    ) -> Self {
        let (send, chunks) = mpsc::channel(4);
        std::thread::spawn(move || {
            loop {
                let mut chunk = vec![0u8; CHUNK];
                match from.read(&mut chunk) {
                    Ok(0) => break,
                    Ok(n) => {
                        chunk.truncate(n);
                        // Nobody wants more: the answer is there.
                        if send.blocking_send(Ok(chunk.into())).is_err() {
                            break;
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    Err(e) => {
                        let words = io::Error::new(e.kind(), e.to_string());
                        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                        drop(send.blocking_send(Err(words)));
                        break;
                    }
                }
            }
        });
        Self::Read { chunks, length }
    }

    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Whole(_) => "application/json",
            Self::Read { .. } => "application/octet-stream",
        }
    }
}

impl Body for Payload {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().filter(|b| !b.is_empty()).map(|b| Ok(Frame::data(b)))),
            Self::Read { chunks, .. } => chunks.poll_recv(cx).map(|c| c.map(|c| c.map(Frame::data))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(bytes) if bytes.as_ref().is_none_or(Bytes::is_empty))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Read { length: Some(length), .. } => SizeHint::with_exact(*length),
            Self::Read { length: None, .. } => SizeHint::default(),
        }
    }
}

/// The lines of a body, each without its newline; one line is the whole of a JSON answer.
pub(crate) struct Lines {
    body: Incoming,
    pending: Vec<u8>,
    ended: bool,
}

impl Lines {
    pub(crate) fn of(body: Incoming) -> Self {
        Self { body, pending: Vec::new(), ended: false }
    }

    /// The next one; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Vec<u8>>, hyper::Error> {
        loop {
            if let Some(end) = self.pending.iter().position(|b| *b == b'\n') {
                let mut l: Vec<u8> = self.pending.drain(..=end).collect();
                l.pop();
                if !l.is_empty() {
                    return Ok(Some(l));
                }
                continue;
            }
            if self.ended || self.pending.len() > MAX_ANSWER {
                return Ok(Some(std::mem::take(&mut self.pending)).filter(|l| !l.is_empty()));
            }
            match self.body.frame().await {
                None => self.ended = true,
                Some(frame) => {
                    if let Some(data) = frame?.data_ref() {
                        self.pending.extend_from_slice(data);
                    }
                }
            }
        }
    }
}
