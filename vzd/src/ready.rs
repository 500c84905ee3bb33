//! Waiting for a descriptor without holding a thread.

use std::{os::fd::OwnedFd, sync::Arc};
use tokio::io::{Interest, unix::AsyncFd};

/// Waits until a descriptor is readable; for ever where there is none. In a tokio runtime.
pub async fn readable(fd: Option<Arc<OwnedFd>>) {
    if let Some(fd) = fd {
        #[expect(deprecated, reason = "unsound for types whose descriptor may change; that of an Arc<OwnedFd> cannot")]
        let watched = AsyncFd::with_interest(fd, Interest::READABLE);
        match watched {
            Ok(fd) => {
                if fd.readable().await.is_ok() {
                    return;
                }
            }
            // No room in epoll: the caller's deadline is what is left.
            Err(e) => tracing::warn!("a descriptor cannot be waited for, only its time: {e}"),
        }
    }
    std::future::pending::<()>().await;
}
