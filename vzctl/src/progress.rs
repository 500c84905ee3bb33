//! An operation under way, for whoever waits for it: after two seconds a line at a terminal says what it is at (a bar where
//! there is a measure), elsewhere each step is a plain line. Ctrl-C at a terminal asks whether to cancel it or to leave it
//! going on; without one it cancels.
//!
//! ```text
//!  asking thread:    request ------------------------------------------> answer
//!  following thread:          2 s  GET /v1/operations/ID/events -> Shown
//!  drawing thread:            2 s  draws Shown at a terminal
//!  signal thread:             Ctrl-C -> DELETE /v1/operations/ID, or leaves it
//! ```

use crate::ui::{self, Ui};
use indicatif::{ProgressBar, ProgressStyle};
use nix::sys::signal::{SigSet, Signal, raise};
use std::{
    io::{BufRead, IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use vz_api::{client::Client, wire::Operation};
use vz_types::OpId;

/// Before this, waiting needs no explanation.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two frames.
const FRAME: Duration = Duration::from_millis(120);
/// What a shell shows for a program ended by SIGINT.
const INTERRUPTED: i32 = 130;

/// A number for an operation to be.
pub fn number() -> OpId {
    let mut random = [0; 10];
    // Only two numbers of the same millisecond could be equal; then vzd refuses the second one.
    let _ = getrandom::fill(&mut random);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    OpId::new(u64::try_from(now.as_millis()).unwrap_or_default(), random)
}

/// What is shown.
#[derive(Default)]
struct Shown {
    over: bool,
    at: String,
    measure: Option<(u64, u64)>,
}

#[derive(Default)]
struct Board {
    shown: Mutex<Shown>,
    bell: Condvar,
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
}

/// Does `work`, which waits for the operation of this number; `words` say what that is.
pub fn waiting<T>(ui: &Ui, client: &Client, id: OpId, words: &str, work: impl FnOnce() -> T) -> T {
    let board = Arc::new(Board::default());
    let bar = ProgressBar::new_spinner();
    let signals = signals(client, id, &board, words, &bar);
    let terminal = std::io::stderr().is_terminal();
    let drawing = (!ui.quiet && terminal).then(|| {
        let (board, words) = (Arc::clone(&board), words.to_owned());
        std::thread::spawn(move || draw(&board, &words, &bar))
    });
    if !ui.quiet && (terminal || !ui.json) {
        let (board, client, words) = (Arc::clone(&board), client.clone(), words.to_owned());
        // Not waited for: it may be inside a read that ends with the connection.
        std::thread::spawn(move || follow(&client, id, &board, &words, terminal));
    }
    let out = work();
    board.change(|s| s.over = true);
    board.bell.notify_all();
    // It cannot panic but in indicatif; a lost spinner is no reason to fail.
    drawing.into_iter().for_each(|d| drop(d.join()));
    if let Some(mask) = signals {
        let _ = mask.thread_unblock();
    }
    out
}

/// The same for what tells of itself on a bar as it goes: only Ctrl-C is taken over.
pub fn told_itself<T>(client: &Client, id: OpId, words: &str, bar: &ProgressBar, work: impl FnOnce() -> T) -> T {
    let board = Arc::new(Board::default());
    let signals = signals(client, id, &board, words, bar);
    if !bar.is_hidden() {
        // Only now: the thread that draws must not be the one that Ctrl-C ends us by.
        bar.enable_steady_tick(FRAME);
    }
    let out = work();
    board.change(|s| s.over = true);
    if let Some(mask) = signals {
        let _ = mask.thread_unblock();
    }
    out
}

fn follow(client: &Client, id: OpId, board: &Board, words: &str, terminal: bool) {
    if board.wait(PATIENCE) {
        return;
    }
    let mut said = String::new();
    // What cannot be followed is waited for all the same; only nothing is told of it.
    let _ = client.follow(&id.to_string(), |now| {
        // How it ended is told by who waits for it.
        if now.ended.is_some() {
            return false;
        }
        let at = at(now);
        board.change(|s| {
            if s.over {
                return false;
            }
            if !terminal && at != said && !at.is_empty() {
                ui::print_error(&format!("{words}: {at}"));
            }
            said.clone_from(&at);
            s.measure = now.progress.as_ref().and_then(|p| Some((p.done, p.total?)));
            s.at = at;
            true
        })
    });
}

/// What an operation is at, in a few words.
pub fn at(o: &Operation) -> String {
    let said = match o.state.as_str() {
        "queued" => "waits for its turn".to_owned(),
        "cancelling" => "is being taken back".to_owned(),
        _ if o.line.is_empty() => o.step.clone(),
        _ => format!("{}: {}", o.step, ui::plain(&o.line)),
    };
    match (o.state.as_str(), o.steps_total) {
        ("running", total) if total > 0 => format!("{said} ({}/{total})", o.steps_done.min(total)),
        _ => said,
    }
}

fn draw(board: &Board, words: &str, bar: &ProgressBar) {
    if board.wait(PATIENCE) {
        return;
    }
    let spinner = style("{spinner} {msg} ({elapsed})");
    let measured = style("{spinner} {msg} {bar:30} {percent:>3} % ({elapsed})");
    bar.set_style(spinner.clone());
    let mut was = None;
    loop {
        let (at, measure) = board.change(|s| (s.at.clone(), s.measure));
        bar.set_message(if at.is_empty() { words.to_owned() } else { format!("{words}: {at}") });
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

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

/// Takes Ctrl-C over while an operation is waited for.
fn signals(client: &Client, id: OpId, board: &Arc<Board>, words: &str, bar: &ProgressBar) -> Option<SigSet> {
    let mut mask = SigSet::empty();
    mask.add(Signal::SIGINT);
    // Every thread made from here on inherits it.
    mask.thread_block().ok()?;
    let (client, board, words) = (client.within(Duration::from_secs(5)), Arc::clone(board), words.to_owned());
    let bar = bar.clone();
    std::thread::spawn(move || {
        loop {
            let Ok(Signal::SIGINT) = mask.wait() else { return };
            if board.wait(Duration::ZERO) {
                // Nothing is waited for any more: it is an ordinary Ctrl-C.
                let _ = mask.thread_unblock().and_then(|()| raise(Signal::SIGINT));
                std::process::exit(INTERRUPTED);
            }
            interrupted(&client, id, &words, &bar, &mask);
        }
    });
    Some(mask)
}

fn interrupted(client: &Client, id: OpId, words: &str, bar: &ProgressBar, mask: &SigSet) {
    let terminal = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if terminal {
        // Nothing is drawn over the question.
        match bar.suspend(|| asked(id, words, mask)) {
            Answer::Cancel => {}
            Answer::Leave => {
                ui::print_error(&format!("It goes on as operation {id}: `vzctl wait {id}`, `vzctl cancel {id}`"));
                std::process::exit(0);
            }
            Answer::Wait => return,
        }
    }
    match client.cancel(&id.to_string()) {
        // Who waits is told how it ended.
        Ok(_) => ui::print_error("Cancelling; what was done is taken back"),
        Err(e) => {
            ui::print_error(&e.to_string());
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

/// Asks. Whoever presses Ctrl-C once more instead leaves: the operation, whose number is on the screen, goes on.
fn asked(id: OpId, words: &str, mask: &SigSet) -> Answer {
    let mut err = std::io::stderr().lock();
    let _ = write!(err, "\n{words} (operation {id}): [c]ancel it, [l]eave it going on, or wait on? [c/l/w] ");
    let _ = err.flush();
    drop(err);
    let mut line = String::new();
    let _ = mask.thread_unblock();
    let read = std::io::stdin().lock().read_line(&mut line);
    let _ = mask.thread_block();
    match read {
        Ok(n) if n > 0 && line.trim().eq_ignore_ascii_case("c") => Answer::Cancel,
        Ok(n) if n > 0 && line.trim().eq_ignore_ascii_case("l") => Answer::Leave,
        _ => Answer::Wait,
    }
}
