//! What is printed: classic sentences on standard output, errors and warnings on standard error, JSON where asked
//! for, and progress for whoever waits at a terminal.

use crate::{args::Global, failure::Failure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::{
    io::{IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, PoisonError},
    time::Duration,
};
use vz_api::wire::Done;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Ui {
    /// Data and errors only.
    pub quiet: bool,
    /// Steps too.
    pub verbose: bool,
    /// JSON on standard output.
    pub json: bool,
}

/// Before this, waiting needs no explanation.
const PATIENCE: Duration = Duration::from_secs(2);

impl Ui {
    /// As the global options say.
    pub fn new(global: &Global) -> Self {
        Self { quiet: global.quiet, verbose: global.verbose, json: global.json }
    }

    /// A sentence of the classic tool.
    pub fn say(&self, line: &str) {
        if !self.quiet && !self.json {
            print_line(line);
        }
    }

    /// Asked-for data, as text.
    pub fn data(&self, text: &str) {
        print_line(text);
    }

    /// Asked-for data, as JSON.
    pub fn object<T: Serialize>(&self, value: &T) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value).map_err(|e| Failure::system("cannot write JSON", e))?;
        print_line(&text);
        Ok(())
    }

    /// Something that was not done as asked for.
    pub fn warn(&self, line: &str) {
        print_error(line);
    }

    /// The answer to a change: sentences, warnings, steps; `classic` where vzd sent no sentences.
    pub fn done(&self, done: &Done, classic: &[String]) -> Result<(), Failure> {
        for w in &done.warnings {
            match w.starts_with("WARNING") {
                true => self.warn(w),
                false => self.warn(&format!("WARNING: {w}")),
            }
        }
        if self.json {
            return self.object(done);
        }
        for line in if done.messages.is_empty() { classic } else { &done.messages } {
            self.say(line);
        }
        if self.verbose {
            let width = done.steps.iter().map(|s| s.name.len()).max().unwrap_or(0);
            for s in &done.steps {
                self.say(&format!("  {:<width$} {:>10.3} ms", s.name, s.us as f64 / 1000.0));
            }
        }
        Ok(())
    }

    /// Runs `work`; at a terminal a spinner with `words` appears when it takes more than two seconds.
    pub fn waiting<T>(&self, words: &str, work: impl FnOnce() -> T) -> T {
        if self.quiet || !std::io::stderr().is_terminal() {
            return work();
        }
        let finished = Arc::new((Mutex::new(false), Condvar::new()));
        let (theirs, words) = (Arc::clone(&finished), words.to_owned());
        let spinner = std::thread::spawn(move || {
            let (flag, bell) = &*theirs;
            let wait = |patience| {
                let guard = flag.lock().unwrap_or_else(PoisonError::into_inner);
                *bell.wait_timeout_while(guard, patience, |done| !*done).unwrap_or_else(PoisonError::into_inner).0
            };
            if !wait(PATIENCE) {
                let bar = ProgressBar::new_spinner().with_message(words);
                bar.set_style(
                    ProgressStyle::with_template("{spinner} {msg} ({elapsed})")
                        .unwrap_or_else(|_| ProgressStyle::default_spinner()),
                );
                while !wait(Duration::from_millis(120)) {
                    bar.tick();
                }
                bar.finish_and_clear();
            }
        });
        let out = work();
        *finished.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        finished.1.notify_all();
        // The spinner thread cannot panic but in indicatif; a lost spinner is no reason to fail.
        drop(spinner.join());
        out
    }

    /// A bar of percents for a template build; hidden when nobody looks.
    pub fn bar(&self) -> ProgressBar {
        if self.quiet || self.json || !std::io::stderr().is_terminal() {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(100);
        bar.set_style(
            ProgressStyle::with_template("{bar:30} {percent:>3} %  {elapsed}  {wide_msg}")
                .unwrap_or_else(|_| ProgressStyle::default_bar()),
        );
        bar.enable_steady_tick(Duration::from_millis(200));
        bar
    }
}

/// One line on standard output. A reader that has gone away (`| head`) ends us quietly, as it does other tools.
pub fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).is_err() {
        std::process::exit(0);
    }
}

/// One line on standard error; there is nobody to tell that it is closed.
pub fn print_error(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}
