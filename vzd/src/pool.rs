//! Threads, all made when vzd starts: none is ever asked of the kernel later, so that a host without any left (a pids
//! limit, a fork bomb) makes operations fail and never vzd. What only waits holds none of them.
//!
//! | pool | for |
//! |---|---|
//! | `look` | requests that only read |
//! | `work` | steps of operations |
//! | `heavy` | steps of those that take minutes: builds and imports |
//! | `aside` | what a step does beside another: never waits for anybody |

use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, PoisonError},
};
use tokio::sync::oneshot;

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    bell: Condvar,
}

/// A fixed number of threads with one queue.
#[derive(Clone)]
pub struct Pool(Arc<Queue>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pool")
    }
}

/// What was to be done panicked; the log says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Panicked;

impl Pool {
    /// Makes the threads; `stack`: bytes of stack of each, touched only as far as they are needed.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn new(name: &str, threads: usize, stack: usize) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let pool = Self(queue.clone());
        for _ in 0..threads {
            let queue = queue.clone();
            std::thread::Builder::new().name(name.to_owned()).stack_size(stack).spawn(move || work(&queue))?;
        }
        Ok(pool)
    }

    /// Does `job` on a thread of the pool, after those that came before it. Whoever stops waiting ends nothing.
    pub fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> impl Future<Output = Result<T, Panicked>> + Send + 'static {
        let (tell, told) = oneshot::channel();
        self.post(move || {
            // The receiver may be gone.
            let _ = tell.send(job());
        });
        async move { told.await.map_err(|_| Panicked) }
    }

    /// Does `job` some time soon.
    pub fn post(&self, job: impl FnOnce() + Send + 'static) {
        let mut jobs = self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        jobs.push_back(Box::new(job));
        drop(jobs);
        self.0.bell.notify_one();
    }
}

/// Something done beside what its caller does.
pub enum Aside<T> {
    /// By another thread.
    Begun(std::sync::mpsc::Receiver<T>),
    /// When it is fetched.
    Later(Box<dyn FnOnce() -> T + Send>),
}

impl<T> std::fmt::Debug for Aside<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Aside")
    }
}

impl<T: Send + 'static> Aside<T> {
    /// Begins it on a thread of the pool, which must be one whose jobs wait for no other. Without a pool it is done when
    /// it is fetched.
    pub fn begin(pool: Option<&Pool>, job: impl FnOnce() -> T + Send + 'static) -> Self {
        let Some(pool) = pool else { return Self::Later(Box::new(job)) };
        let (tell, told) = std::sync::mpsc::sync_channel(1);
        pool.post(move || {
            // Nobody may want it any more.
            let _ = tell.send(job());
        });
        Self::Begun(told)
    }

    /// What came of it.
    ///
    /// # Errors
    /// It panicked.
    pub fn fetch(self) -> Result<T, Panicked> {
        match self {
            Self::Begun(told) => told.recv().map_err(|_| Panicked),
            Self::Later(job) => Ok(job()),
        }
    }
}

fn work(queue: &Queue) {
    loop {
        let mut jobs = queue.jobs.lock().unwrap_or_else(PoisonError::into_inner);
        let job = loop {
            match jobs.pop_front() {
                Some(job) => break job,
                None => jobs = queue.bell.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(jobs);
        // The panic's own words are in the log already; this thread goes on.
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("a piece of work panicked");
        }
    }
}

/// The pools of one vzd.
#[derive(Clone, Debug)]
pub struct Pools {
    /// For requests that only read.
    pub look: Pool,
    /// For steps of operations.
    pub work: Pool,
    /// For steps of operations that take minutes.
    pub heavy: Pool,
    /// For what is done beside a step.
    pub aside: Pool,
}

/// Heavy operations carried out side by side; more of them wait.
pub const HEAVY: usize = 2;

impl Pools {
    /// Makes them.
    ///
    /// # Errors
    /// The kernel gives no thread.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            look: Pool::new("look", 6, 512 << 10)?,
            work: Pool::new("work", 16, 512 << 10)?,
            heavy: Pool::new("heavy", HEAVY, 1 << 20)?,
            aside: Pool::new("aside", 4, 256 << 10)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_done_and_a_panic_ends_neither_pool_nor_waiter() {
        let pool = Pool::new("test", 2, 256 << 10).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            assert_eq!(pool.run(|| panic!("on purpose")).await, Err::<(), _>(Panicked));
            let all: Vec<_> = (0..50).map(|n| pool.run(move || n * 2)).collect();
            for (n, done) in all.into_iter().enumerate() {
                assert_eq!(done.await, Ok(n * 2));
            }
        });
    }
}
