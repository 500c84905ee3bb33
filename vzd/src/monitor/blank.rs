//! The mount namespace that containers' are copied from. Without one each copies the host's, which costs more and works as
//! well: so it is made beside everything else, and waited for only a moment.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};

/// What making it may take.
const MAKING: Duration = Duration::from_secs(10);
/// How long a start waits for one in the making.
const NEARLY: Duration = Duration::from_millis(300);

/// It, once it is there.
#[derive(Debug, Default)]
pub(super) struct Blank {
    now: Mutex<Now>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum Now {
    #[default]
    Absent,
    Making,
    Made(Arc<OwnedFd>),
}

impl Blank {
    /// Makes it with this, which is told how long it may take.
    pub fn make(&self, with: impl FnOnce(Duration) -> Result<OwnedFd, String>) {
        self.set(Now::Making);
        match with(MAKING) {
            Ok(fd) => self.set(Now::Made(Arc::new(fd))),
            Err(why) => {
                self.set(Now::Absent);
                tracing::warn!("no mount namespace for containers to begin in; each copies the host's: {why}");
            }
        }
    }

    fn set(&self, to: Now) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = to;
        self.changed.notify_all();
    }

    /// It, if it is there or is about to be.
    pub fn get(&self) -> Option<Arc<OwnedFd>> {
        let now = self.now.lock().unwrap_or_else(PoisonError::into_inner);
        let making = |now: &mut Now| matches!(now, Now::Making);
        let (now, _) = self.changed.wait_timeout_while(now, NEARLY, making).unwrap_or_else(PoisonError::into_inner);
        match &*now {
            Now::Made(fd) => Some(fd.clone()),
            Now::Absent | Now::Making => None,
        }
    }
}
