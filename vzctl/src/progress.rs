//! An operation under way, for whoever waits for it: after two seconds a line at a terminal says what it is at (a bar where
//! there is a measure), elsewhere each step is a plain line. Ctrl-C at a terminal asks whether to cancel it or to leave it
//! going on; without one it cancels.
//!
//! ```text
//!  asking thread:    request ------------------------------------------> answer
//!  watching thread:  Ctrl-C -> DELETE /v1/operations/ID, or leaves it
//!                             2 s
//!  following thread:           +-> GET /v1/operations/ID/events -> Shown
//!  drawing thread:             +-> draws Shown
//! ```

use crate::ui::{self, Ui};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nix::sys::{
    signal::{SigSet, Signal, raise},
    signalfd::{SfdFlags, SignalFd},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec},
    io::Errno,
};
use std::{
    io::{BufRead, IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use vz_api::{client::Client, wire::Operation};
use vz_types::OpId;

/// Before this, waiting needs no explanation.
const PATIENCE: Duration = Duration::from_secs(2);
/// A step that takes longer is told where there is no terminal.
const LASTS: Duration = Duration::from_millis(500);
/// Between two frames.
const FRAME: Duration = Duration::from_millis(120);
/// What a shell shows for a program ended by SIGINT.
const INTERRUPTED: i32 = 130;

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or_default()
}

/// A number for an operation to be.
pub fn number() -> OpId {
    let mut random = [0; 10];
    // Only two numbers of the same millisecond could be equal; then vzd refuses the second one.
    let _ = getrandom::fill(&mut random);
    OpId::new(now_ms(), random)
}

/// What is shown.
#[derive(Default)]
struct Shown {
    over: bool,
    /// Something draws it.
    drawn: bool,
    /// A question is on the terminal, which must not be drawn over.
    asking: bool,
    at: String,
    /// The same without what only counts.
    step: String,
    /// Something to be said once.
    note: Option<String>,
    /// When it was asked for, in milliseconds since the epoch.
    asked: Option<u64>,
    measure: Option<(u64, u64)>,
}

#[derive(Default)]
struct Board {
    shown: Mutex<Shown>,
    bell: Condvar,
    /// What draws by itself.
    bar: Option<ProgressBar>,
}

impl Board {
    /// Waits; says whether it is over.
    fn wait(&self, time: Duration) -> bool {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        let (shown, _) = self.bell.wait_timeout_while(shown, time, |s| !s.over).unwrap_or_else(PoisonError::into_inner);
        shown.over
    }

    fn change<T>(&self, change: impl FnOnce(&mut Shown) -> T) -> T {
        change(&mut self.shown.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn over(&self) -> bool {
        self.change(|s| s.over)
    }

    /// It is over; comes back when nothing is drawn any more.
    fn end(&self) {
        self.change(|s| s.over = true);
        self.bell.notify_all();
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.bell.wait_while(shown, |s| s.drawn).unwrap_or_else(PoisonError::into_inner));
    }
}

/// What draws says by its end that it draws no more.
struct Drawn(Arc<Board>);

impl Drop for Drawn {
    fn drop(&mut self) {
        self.0.change(|s| s.drawn = false);
        self.0.bell.notify_all();
    }
}

/// An operation that is waited for.
#[derive(Clone)]
pub struct Awaited {
    /// The number it was asked for under, or is watched under. One that was joined has another of its own.
    pub id: OpId,
    /// What is said of it.
    pub words: String,
    /// It was asked for by somebody else: whoever only watches ends nothing by going away.
    pub watched: bool,
}

/// Does `work`, which waits for the operation.
pub fn waiting<T>(ui: &Ui, client: &Client, awaited: &Awaited, work: impl FnOnce() -> T) -> T {
    let terminal = std::io::stderr().is_terminal();
    let shows = !ui.quiet && (terminal || !ui.json);
    let board = Arc::new(Board::default());
    watched(client, awaited, &board, work, move |client, board, awaited| {
        if !shows || !board.change(|s| (!s.over).then(|| s.drawn = true).is_some()) {
            return;
        }
        {
            let (board, client, awaited) = (Arc::clone(board), client.clone(), awaited.clone());
            beside(move || follow(&client, awaited.id, &board, &awaited.words));
        }
        // However it ends, without a thread too, the answer is not waited for in vain.
        let (drawn, words) = (Drawn(Arc::clone(board)), awaited.words.clone());
        beside(move || if terminal { draw(&drawn.0, &words) } else { lines(&drawn.0, &words) });
    })
}

/// The same for what tells of itself on a bar as it goes: only Ctrl-C is taken over.
pub fn told_itself<T>(client: &Client, awaited: &Awaited, bar: &ProgressBar, work: impl FnOnce() -> T) -> T {
    let board = Arc::new(Board { bar: Some(bar.clone()).filter(|b| !b.is_hidden()), ..Board::default() });
    watched(
        client,
        awaited,
        &board,
        || {
            if let Some(bar) = &board.bar {
                // Only now: the thread that draws must not be the one that Ctrl-C ends us by.
                bar.enable_steady_tick(FRAME);
            }
            work()
        },
        |client, _, awaited| {
            let (client, awaited) = (client.clone(), awaited.clone());
            beside(move || {
                if let Ok(now) = client.operation(&awaited.id.to_string())
                    && now.id != awaited.id.to_string()
                {
                    let Operation { id, asker, .. } = now;
                    let words = &awaited.words;
                    ui::print_error(&format!("{words}: it is followed as operation {id}, asked for by {asker}"));
                }
            });
        },
    )
}

/// Does `work` beside the watching thread, which calls `late` where it takes longer than [`PATIENCE`]. One thread only: what
/// takes milliseconds pays for each.
fn watched<T>(
    client: &Client,
    awaited: &Awaited,
    board: &Arc<Board>,
    work: impl FnOnce() -> T,
    late: impl FnOnce(&Client, &Arc<Board>, &Awaited) + Send + 'static,
) -> T {
    // Before any other thread is made.
    let mask = take_interrupts();
    let ordinary = || {
        let _ = mask.map(|m| m.thread_unblock());
    };
    {
        let (client, awaited, board) = (client.clone(), awaited.clone(), Arc::clone(board));
        if !beside(move || watch(&client, &awaited, &board, mask, late)) {
            ordinary();
        }
    }
    let out = work();
    board.end();
    ordinary();
    out
}

/// Does it on a thread of its own. On a host that has none to give it is not done, and what was asked for all the same.
fn beside(work: impl FnOnce() + Send + 'static) -> bool {
    std::thread::Builder::new().spawn(work).is_ok()
}

fn follow(client: &Client, id: OpId, board: &Board, words: &str) {
    let mut first = true;
    // What cannot be followed is waited for all the same; only nothing is told of it.
    let _ = client.follow(&id.to_string(), |now| {
        // How it ended is told by who waits for it.
        if now.ended.is_some() {
            return false;
        }
        let (at, step) = (at(now), step(now));
        let joined = std::mem::take(&mut first) && now.id != id.to_string();
        board.change(|s| {
            if joined {
                let by = &now.asker;
                s.note = Some(format!("{words}: it was under way already, as operation {}, asked for by {by}", now.id));
            }
            s.asked = Some(now.asked);
            s.measure = now.progress.as_ref().and_then(|p| Some((p.done, p.total?)));
            (s.at, s.step) = (at, step);
            !s.over
        })
    });
}

/// The step an operation is at, in a few words.
fn step(o: &Operation) -> String {
    match o.state.as_str() {
        "queued" => "waits for its turn".to_owned(),
        "cancelling" => "is being taken back".to_owned(),
        _ if o.line.is_empty() => o.step.clone(),
        _ => format!("{}: {}", o.step, ui::plain(&o.line)),
    }
}

/// What an operation is at, in a few words: its step, and how many of its steps are behind it.
pub fn at(o: &Operation) -> String {
    let said = step(o);
    match (o.state.as_str(), o.steps_total) {
        ("running", total) if total > 0 => format!("{said} ({}/{total})", o.steps_done.min(total)),
        _ => said,
    }
}

fn draw(board: &Board, words: &str) {
    let begun = now_ms().saturating_sub(u64::try_from(PATIENCE.as_millis()).unwrap_or_default());
    let spinner = style("{spinner} {msg}");
    let measured = style("{spinner} {msg} {bar:30} {percent:>3} %");
    let bar = ProgressBar::new_spinner();
    bar.set_style(spinner.clone());
    let mut was = None;
    loop {
        let (at, measure, asking) = board.change(|s| (s.at.clone(), s.measure, s.asking));
        let (note, asked) = board.change(|s| (s.note.take(), s.asked));
        if asking {
            if board.wait(FRAME) {
                break;
            }
            continue;
        }
        if let Some(note) = note {
            bar.println(note);
        }
        // Of what somebody else asked for earlier it is that time that counts.
        let seconds = now_ms().saturating_sub(asked.unwrap_or(begun).min(begun)) / 1000;
        bar.set_message(match at.is_empty() {
            true => format!("{words} ({seconds}s)"),
            false => format!("{words}: {at} ({seconds}s)"),
        });
        if measure.is_some() != was.is_some() {
            bar.set_style(if measure.is_some() { measured.clone() } else { spinner.clone() });
        }
        if let Some((done, total)) = measure {
            bar.set_length(total);
            bar.set_position(done);
        }
        was = measure;
        bar.tick();
        if board.wait(FRAME) {
            break;
        }
    }
    bar.finish_and_clear();
}

/// Where there is no terminal: each step that lasts is a line. Those that are over at once would only fill a log.
fn lines(board: &Board, words: &str) {
    let (mut was, mut said) = (String::new(), String::new());
    while !board.wait(LASTS) {
        let (step, at, note) = board.change(|s| (s.step.clone(), s.at.clone(), s.note.take()));
        if let Some(note) = note {
            ui::print_error(&note);
        }
        if step == was && step != said && !step.is_empty() {
            ui::print_error(&format!("{words}: {at}"));
            said.clone_from(&step);
        }
        was = step;
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Blocks Ctrl-C in this thread and all it makes from now on; one made before would be ended by it.
fn take_interrupts() -> Option<SigSet> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    mask.thread_block().ok()?;
    Some(mask)
}

/// Ctrl-C says what becomes of many that are worked on at once, and ends this program. To be called before their threads
/// are made.
pub fn interrupted_by(said: impl Fn() -> String + Send + 'static) {
    let Some(mask) = take_interrupts() else { return };
    std::thread::spawn(move || {
        if mask.wait().is_ok() {
            ui::print_error(&said());
            std::process::exit(INTERRUPTED);
        }
    });
}

/// Takes Ctrl-C over while an operation is waited for, and calls `late` when it is so.
fn watch(
    client: &Client,
    awaited: &Awaited,
    board: &Arc<Board>,
    mask: Option<SigSet>,
    late: impl FnOnce(&Client, &Arc<Board>, &Awaited),
) {
    let begun = Instant::now();
    let signals = mask.and_then(|m| SignalFd::with_flags(&m, SfdFlags::SFD_CLOEXEC).ok());
    let mut late = Some(late);
    let mut asking = None::<std::thread::JoinHandle<()>>;
    let short = client.within(Duration::from_secs(5));
    loop {
        let time = late.is_some().then(|| PATIENCE.saturating_sub(begun.elapsed()));
        if !interrupt_within(signals.as_ref(), time) {
            match late.take() {
                Some(late) if !board.over() => late(client, board, awaited),
                // Over, or signals can't be waited for at all.
                _ => return,
            }
            continue;
        }
        if board.over() {
            // Nothing is waited for any more: it is an ordinary Ctrl-C.
            let _ = mask.map(|m| m.thread_unblock().and_then(|()| raise(Signal::SIGINT)));
            std::process::exit(INTERRUPTED);
        }
        // Again at the question is an answer: away from here.
        if asking.as_ref().is_some_and(|a| !a.is_finished()) {
            leave(awaited.id, INTERRUPTED);
        }
        let (client, board, awaited) = (short.clone(), Arc::clone(board), awaited.clone());
        let number = awaited.id;
        let asks = std::thread::Builder::new().spawn(move || interrupted(&client, &awaited, &board));
        // Nobody there to ask: away, and it goes on.
        asking = Some(asks.unwrap_or_else(|_| leave(number, INTERRUPTED)));
    }
}

/// Waits for Ctrl-C, for so long or for ever; says whether it came.
fn interrupt_within(signals: Option<&SignalFd>, time: Option<Duration>) -> bool {
    let Some(signals) = signals else {
        let time = time.and_then(|t| Timespec::try_from(t).ok());
        let _ = time.map(|t| rustix::event::poll(&mut [], Some(&t)));
        return false;
    };
    let begun = Instant::now();
    loop {
        let left = time.map(|t| t.saturating_sub(begun.elapsed()));
        let left = left.and_then(|t| Timespec::try_from(t).ok());
        match rustix::event::poll(&mut [PollFd::new(signals, PollFlags::IN)], left.as_ref()) {
            Ok(0) => return false,
            Ok(_) => return signals.read_signal().is_ok_and(|s| s.is_some()),
            Err(Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

fn leave(id: OpId, code: i32) -> ! {
    ui::print_error(&format!("\nIt goes on as operation {id}: `vzctl wait {id}`, `vzctl cancel {id}`"));
    std::process::exit(code)
}

fn interrupted(client: &Client, awaited: &Awaited, board: &Board) {
    let Awaited { id, words, watched } = awaited;
    let now = client.operation(&id.to_string()).ok();
    if let Some(o) = now.as_ref().filter(|o| o.ended.is_some()) {
        // What is waited for is no change any more, but what follows it inside.
        ui::print_error(&format!("\n{words}: no longer waited for; operation {} has ended: {}", o.id, o.state));
        std::process::exit(INTERRUPTED);
    }
    let own = now.and_then(|o| o.id.parse().ok()).unwrap_or(*id);
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if terminal {
        // Nothing is drawn over the question.
        board.change(|s| s.asking = true);
        board.bar.iter().for_each(|b| b.set_draw_target(ProgressDrawTarget::hidden()));
        let answer = asked(own, words);
        board.bar.iter().for_each(|b| b.set_draw_target(ProgressDrawTarget::stderr()));
        board.change(|s| s.asking = false);
        match answer {
            Answer::Cancel => {}
            Answer::Leave => leave(own, 0),
            Answer::Wait => return,
        }
    } else if *watched || own != *id {
        leave(own, INTERRUPTED);
    }
    match client.cancel(&own.to_string()) {
        // Who waits is told how it ended.
        Ok(_) => ui::print_error("Cancelling; what was done is taken back"),
        Err(e) => {
            let hint = e.hint().map(|h| format!("\nHint: {h}")).unwrap_or_default();
            ui::print_error(&format!("{e}{hint}"));
            if !terminal {
                std::process::exit(INTERRUPTED);
            }
        }
    }
}

enum Answer {
    Cancel,
    Leave,
    Wait,
}

fn asked(id: OpId, words: &str) -> Answer {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\n{words} (operation {id}): [c]ancel it, [l]eave it going on, or wait on? [c/l/w] ");
    let _ = err.flush();
    drop(err);
    let mut line = String::new();
    match std::io::stdin().lock().read_line(&mut line) {
        Ok(n) if n > 0 && line.trim().eq_ignore_ascii_case("c") => Answer::Cancel,
        Ok(n) if n > 0 && line.trim().eq_ignore_ascii_case("l") => Answer::Leave,
        _ => Answer::Wait,
    }
}
