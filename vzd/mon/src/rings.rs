//! Keeps the count of what packet sockets hold ([`vz_sys::ring_bpf`]): counts again when the bell rings, and no more often
//! than it may cost. Whoever opens and closes rings all day has what he gave back found a little later, and no more of
//! this process's time than a fiftieth.

use std::{
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};
use vz_sys::ring_bpf;
use vz_types::policy::{Guard, PACKET_MEMORY};

/// Between two counts, at least.
const PAUSE: Duration = Duration::from_millis(20);
/// While much is held, it is counted without a bell as well: nothing rings at the end of a socket.
const LOOK: Duration = Duration::from_secs(1);
/// So many times longer than a count took is waited before the next.
const REST: u32 = 50;

/// The program on a container's cgroup, and when it is to be counted again.
pub struct Rings {
    program: ring_bpf::Rings,
    /// Before that, it is not counted.
    next: Instant,
    /// When it is to be counted.
    due: Option<Instant>,
    failed: bool,
}

impl Rings {
    /// Attaches the program. Where this kernel does not take it, seccomp refuses rings instead ([`guards`]), and the log
    /// says why.
    pub fn attach(level: BorrowedFd<'_>) -> Option<Self> {
        match ring_bpf::Rings::attach(level, PACKET_MEMORY) {
            Ok(program) => Some(Self { program, next: Instant::now(), due: None, failed: false }),
            Err(e) => {
                eprintln!("rings of packet sockets stay refused: {e}");
                None
            }
        }
    }

    /// Readable when [`Rings::rung`] is to be called.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.program.bell()
    }

    /// The bell rang.
    pub fn rung(&mut self) {
        self.program.hear();
        self.due = Some(self.next);
    }

    /// When [`Rings::turn`] has something to do.
    pub fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Counts, if it is time.
    pub fn turn(&mut self) {
        if self.due.is_none_or(|due| Instant::now() < due) {
            return;
        }
        // Of the first time only what comes again counts.
        let begun = self.program.prepare().map(|()| Instant::now());
        let held = begun.and_then(|begun| self.program.recount().map(|held| (held, begun.elapsed())));
        let now = Instant::now();
        let took = held.as_ref().map_or(Duration::ZERO, |(_, took)| *took);
        self.next = now + took.saturating_mul(REST).clamp(PAUSE, LOOK);
        self.due = match held {
            Ok((held, _)) => (held > PACKET_MEMORY / 4).then_some(now + LOOK),
            Err(e) => {
                // Once is enough in the log.
                if !std::mem::replace(&mut self.failed, true) {
                    eprintln!("what packet sockets gave back cannot be counted: {e}");
                }
                None
            }
        };
    }
}

/// What bounds the container besides seccomp.
pub fn guards(rings: Option<&Rings>) -> Vec<Guard> {
    rings.map(|_| Guard::Rings).into_iter().collect()
}
