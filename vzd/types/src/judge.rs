//! "May this happen now?": a pure function of the stored state of a container, of what is pending on it, and of the
//! request. One table for every way in: API, onboot, monitors' ends.

use crate::{
    op::{OpId, OpKind},
    reason::Reason,
    state::{CtState, Trouble},
};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// Which change.
    pub kind: OpKind,
    /// Even if the container is disabled.
    pub force: bool,
    /// At once: of a stop, without its time to shut down.
    pub fast: bool,
}

impl Request {
    /// Of this kind, neither forced nor fast.
    pub fn plain(kind: OpKind) -> Self {
        Self { kind, force: false, fast: false }
    }
}

/// An operation on the container that has not ended yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Its number.
    pub id: OpId,
    /// What it is.
    pub kind: OpKind,
    /// A stop that gives no time.
    pub fast: bool,
    /// Seconds since it was accepted.
    pub seconds: u64,
}

/// The container as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Where it is.
    pub state: CtState,
    /// What keeps it in `failed` or `unknown`.
    pub trouble: Option<Trouble>,
    /// Whether its configuration says that it is disabled.
    pub disabled: bool,
}

/// May it?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Yes; behind what is pending.
    Accept,
    /// There is nothing to do: a success.
    AlreadySo,
    /// This one does the same: its outcome is the answer.
    Join(OpId),
    /// This one does the same, and is to make haste.
    Hurry(OpId),
    /// Yes, once this one has been cancelled.
    Interrupt(OpId),
    /// No.
    Deny(Reason),
}

/// Judges a request. `pending`: in the order in which they will happen, vzd's own clearing up left out.
pub fn judge(seen: &Seen, pending: &[Pending], request: &Request) -> Verdict {
    match pending.last() {
        Some(last) => beside(last, request),
        None => alone(seen, request),
    }
}

/// What is pending decides; the state will be another when it has ended.
fn beside(last: &Pending, request: &Request) -> Verdict {
    use OpKind::*;
    match (last.kind, request.kind) {
        (Stop, Stop) if request.fast && !last.fast => Verdict::Hurry(last.id),
        (Start, Start)
        | (Stop, Stop)
        | (Restart, Restart)
        | (Destroy, Destroy)
        | (Mount, Mount)
        | (Umount, Umount)
        | (Build, Build)
        | (Remove, Remove)
        | (Clear, Clear)
        | (Onboot, Onboot) => Verdict::Join(last.id),
        // Whoever wants it down does not wait until it is up.
        (Start | Restart, Stop) => Verdict::Interrupt(last.id),
        // Nor does who wants it down at once wait for what a monitor may never answer.
        (Set, Stop) if request.fast => Verdict::Interrupt(last.id),
        (Set, Stop) => Verdict::Accept,
        // Housekeeping waits its turn.
        (_, Clear | Repair) => Verdict::Accept,
        (kind, _) => Verdict::Deny(Reason::Busy { kind, operation: last.id, seconds: last.seconds }),
    }
}

fn alone(seen: &Seen, request: &Request) -> Verdict {
    use CtState::*;
    use OpKind as K;
    let deny = Verdict::Deny;
    let runs = |kind| deny(Reason::Runs { kind });
    match (request.kind, seen.state) {
        (K::Clear | K::Repair | K::Build | K::Import | K::Remove | K::Onboot, _) => Verdict::Accept,
        (K::Create, Absent) => Verdict::Accept,
        // What is left of a create that failed is cleared away first.
        (K::Create, Failed) if seen.trouble.as_ref().is_some_and(|t| t.kind == Some(K::Create)) => Verdict::Accept,
        (K::Create, _) => deny(Reason::Exists),
        (_, Absent) => deny(Reason::Absent),
        (K::Start, Running | Unknown) => deny(Reason::AlreadyRuns),
        (K::Start | K::Restart, Suspended) => deny(Reason::IsSuspended),
        (K::Start | K::Restart, _) if seen.disabled && !request.force => deny(Reason::Disabled),
        (K::Stop, Stopped | Mounted | Suspended) => Verdict::AlreadySo,
        (K::Destroy | K::Mount | K::Umount, Running | Unknown) => runs(request.kind),
        (K::Destroy, Mounted) => deny(Reason::IsMounted),
        (K::Destroy | K::Mount, Suspended) => deny(Reason::IsSuspended),
        (K::Mount, Mounted) => deny(Reason::AlreadyMounted),
        (K::Umount, Stopped | Suspended) => deny(Reason::NotMounted),
        (K::Set, Unknown) => {
            deny(Reason::NotUnderstood { cause: seen.trouble.as_ref().map_or_else(String::new, |t| t.cause.clone()) })
        }
        // `failed`: what is left is finished first, and then it is judged again. An in-flight state without its
        // operation is one whose end could not be noted, which comes to the same.
        (K::Start | K::Stop | K::Restart | K::Destroy | K::Mount | K::Umount | K::Set, _) => Verdict::Accept,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitCode;
    use proptest::prelude::*;

    fn seen(state: CtState) -> Seen {
        Seen { state, trouble: None, disabled: false }
    }

    fn code(kind: OpKind, state: CtState) -> Option<ExitCode> {
        match judge(&seen(state), &[], &Request::plain(kind)) {
            Verdict::Deny(reason) => Some(reason.code()),
            _ => None,
        }
    }

    #[test]
    fn refusals_have_the_classic_codes() {
        assert_eq!(code(OpKind::Create, CtState::Stopped), Some(ExitCode::Exists));
        assert_eq!(code(OpKind::Stop, CtState::Stopped), None);
        assert_eq!(code(OpKind::Set, CtState::Running), None);
        for kind in [OpKind::Start, OpKind::Destroy, OpKind::Mount, OpKind::Umount] {
            assert_eq!(code(kind, CtState::Running), Some(ExitCode::Running), "{kind:?}");
        }
        for kind in [OpKind::Destroy, OpKind::Mount] {
            assert_eq!(code(kind, CtState::Mounted), Some(ExitCode::Mounted), "{kind:?}");
        }
        assert_eq!(code(OpKind::Umount, CtState::Stopped), Some(ExitCode::NotMounted));
        for kind in [OpKind::Start, OpKind::Stop, OpKind::Restart, OpKind::Destroy, OpKind::Mount, OpKind::Set] {
            assert_eq!(code(kind, CtState::Absent), Some(ExitCode::NoConfig), "{kind:?}");
        }
    }

    /// A container as the rules mean it, far simpler than vzd: what is carried out changes the state at once.
    #[derive(Clone, Debug)]
    struct Oracle {
        state: CtState,
        disabled: bool,
        queue: Vec<Pending>,
        next: u64,
    }

    impl Oracle {
        fn ask(&mut self, request: Request) -> Verdict {
            let seen = Seen { state: self.state, trouble: None, disabled: self.disabled };
            let verdict = judge(&seen, &self.queue, &request);
            match &verdict {
                Verdict::Accept => self.push(request),
                Verdict::Interrupt(id) => {
                    self.queue.retain(|p| p.id != *id);
                    self.push(request);
                }
                Verdict::Hurry(id) => {
                    self.queue.iter_mut().filter(|p| p.id == *id).for_each(|p| p.fast = true);
                }
                Verdict::AlreadySo | Verdict::Join(_) | Verdict::Deny(_) => {}
            }
            verdict
        }

        fn push(&mut self, r: Request) {
            self.next += 1;
            self.queue.push(Pending { id: OpId::new(self.next, [0; 10]), kind: r.kind, fast: r.fast, seconds: 0 });
        }

        /// The first one in the queue is carried out. What was accepted may have become needless meanwhile.
        fn step(&mut self) {
            use CtState::*;
            if self.queue.is_empty() {
                return;
            }
            let p = self.queue.remove(0);
            self.state = match (p.kind, self.state) {
                (OpKind::Create, Absent) => Stopped,
                (OpKind::Start, Stopped | Mounted) | (OpKind::Restart, Stopped | Mounted | Running) => Running,
                (OpKind::Stop, Running) => Stopped,
                (OpKind::Destroy, Stopped) => Absent,
                (OpKind::Mount, Stopped) => Mounted,
                (OpKind::Umount, Mounted) => Stopped,
                (_, same) => same,
            };
        }
    }

    const KINDS: [OpKind; 8] = [
        OpKind::Create,
        OpKind::Start,
        OpKind::Stop,
        OpKind::Restart,
        OpKind::Destroy,
        OpKind::Mount,
        OpKind::Umount,
        OpKind::Set,
    ];

    fn requests() -> impl Strategy<Value = Option<Request>> {
        let asked = (prop::sample::select(&KINDS[..]), any::<bool>(), any::<bool>())
            .prop_map(|(kind, force, fast)| Some(Request { kind, force, fast: fast && kind == OpKind::Stop }));
        // None: time goes by, and the first pending operation is carried out.
        prop_oneof![3 => asked, 2 => Just(None)]
    }

    proptest! {
        #[test]
        fn over_any_sequence_what_is_accepted_makes_sense_and_nothing_waits_for_nothing(
            disabled: bool, asked in prop::collection::vec(requests(), 1..40),
        ) {
            let mut ct = Oracle { state: CtState::Absent, disabled, queue: Vec::new(), next: 0 };
            for request in asked {
                let Some(request) = request else { ct.step(); continue };
                let before = ct.clone();
                let verdict = ct.ask(request);
                // Two at most: one, and a stop behind it.
                prop_assert!(ct.queue.len() <= 2, "{:?}", ct.queue);
                if ct.queue.len() == 2 {
                    prop_assert_eq!((ct.queue[0].kind, ct.queue[1].kind), (OpKind::Set, OpKind::Stop));
                }
                match verdict {
                    Verdict::Join(id) | Verdict::Hurry(id) => {
                        let joined = before.queue.iter().find(|p| p.id == id);
                        prop_assert_eq!(joined.map(|p| p.kind), Some(request.kind), "it does the same");
                    }
                    Verdict::Interrupt(_) => prop_assert_eq!(request.kind, OpKind::Stop),
                    Verdict::AlreadySo => {
                        prop_assert!(before.queue.is_empty() && !before.state.runs() && request.kind == OpKind::Stop);
                    }
                    Verdict::Deny(Reason::Busy { operation, .. }) => {
                        prop_assert_eq!(before.queue.last().map(|p| p.id), Some(operation));
                    }
                    Verdict::Deny(Reason::Disabled) => prop_assert!(disabled && !request.force),
                    Verdict::Deny(Reason::Absent) => prop_assert_eq!(before.state, CtState::Absent),
                    Verdict::Deny(Reason::Exists) => prop_assert_ne!(before.state, CtState::Absent),
                    Verdict::Deny(_) => prop_assert!(before.queue.is_empty()),
                    Verdict::Accept if before.queue.is_empty() => {
                        let mut after = ct.clone();
                        after.step();
                        let same = after.state == before.state;
                        let meant = matches!(request.kind, OpKind::Set | OpKind::Restart);
                        prop_assert!(!same || meant, "{request:?} in {:?} was accepted and does nothing", before.state);
                    }
                    Verdict::Accept => {}
                }
                // A stop always ends with the container down.
                if request.kind == OpKind::Stop && before.state != CtState::Absent {
                    let mut after = ct.clone();
                    while !after.queue.is_empty() {
                        after.step();
                    }
                    let destroyed_or_made = before.queue.iter().any(|p| p.kind != OpKind::Set);
                    prop_assert!(destroyed_or_made || !after.state.runs(), "{before:?} {request:?} {after:?}");
                }
            }
        }

        #[test]
        fn disabled_is_for_starts_that_are_not_forced(
            kind in prop::sample::select(&KINDS[..]), state in prop::sample::select(CtState::ALL), force: bool,
        ) {
            let ask = |disabled| judge(&Seen { state, trouble: None, disabled }, &[], &Request { kind, force, fast: false });
            if !matches!(kind, OpKind::Start | OpKind::Restart) || force {
                prop_assert_eq!(ask(true), ask(false));
            }
            if state == CtState::Absent {
                prop_assert_eq!(ask(false) == Verdict::Accept, kind == OpKind::Create);
            }
        }
    }
}
