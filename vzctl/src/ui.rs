//! What is printed: classic sentences on standard output, errors and warnings on standard error, JSON where asked
//! for, and progress for whoever waits at a terminal.

use crate::{args::Global, failure::Failure};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{IsTerminal, Write};
use vz_api::wire::Done;
use vz_types::ExitCode;

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

impl Ui {
    /// As the global options say.
    pub fn new(global: &Global) -> Self {
        Self { quiet: global.quiet, verbose: global.verbose, json: global.json }
    }

    /// A sentence of the classic tool.
    pub fn say(&self, line: &str) {
        if !self.quiet && !self.json {
            print_note(line);
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

    /// The answer to a change: sentences, warnings, steps; `classic` where there are no sentences.
    pub fn done(&self, done: Done, classic: &[String]) -> Result<(), Failure> {
        for w in &done.warnings {
            match w.starts_with("WARNING") {
                true => self.warn(w),
                false => self.warn(&format!("WARNING: {w}")),
            }
        }
        if self.json {
            return self.object(&done);
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

    /// What was left to go on: its number alone on standard output, so that a script can keep it.
    pub fn number(&self, done: Done) -> Result<(), Failure> {
        if self.json {
            return self.object(&done);
        }
        let id = done.operation.unwrap_or_default();
        self.data(&id);
        if !self.quiet {
            print_error(&format!("It goes on: `vzctl wait {id}` waits for its end"));
        }
        Ok(())
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
        bar
    }
}

/// One line on standard output. A reader that has gone away (`| head`) ends us quietly, as it does other tools; what else
/// keeps it from being written (a full disk) is a failure, as half an answer is none.
pub fn print_line(line: &str) {
    let mut out = std::io::stdout().lock();
    match out.write_all(line.as_bytes()).and_then(|()| out.write_all(b"\n")).and_then(|()| out.flush()) {
        Ok(()) => {}
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(e) => {
            print_error(&format!("standard output cannot be written: {e}"));
            std::process::exit(ExitCode::System.code().into());
        }
    }
}

/// One line on standard output that nobody asked for: what is under way goes on without a reader, and with a full disk.
pub fn print_note(line: &str) {
    drop(writeln!(std::io::stdout(), "{line}"));
}

/// One line on standard error; there is nobody to tell that it is closed.
pub fn print_error(line: &str) {
    drop(writeln!(std::io::stderr(), "{line}"));
}

/// Text of somebody else's, without what could steer a terminal.
pub fn plain(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).collect()
}

/// Columns of the terminal that standard output is; `None`: it is none, or does not say.
pub fn columns() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|n| *n > 0)
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.chars().count()
}

/// A text with blanks up to so many columns.
pub fn padded(text: &str, width: usize) -> String {
    format!("{text:<width$}")
}

/// `head` and `text` in lines of at most `most` columns, folded between words; those after the first begin with `indent`
/// blanks. A word that is longer than a line stays whole.
pub fn wrap(head: &str, text: &str, indent: usize, most: usize) -> Vec<String> {
    let (mut out, mut line, mut fresh) = (Vec::new(), head.to_owned(), true);
    // Runs of blanks inside a text are columns of its own.
    for word in text.split_inclusive(' ') {
        if !fresh && width(&line) + width(word.trim_end()) > most {
            out.push(std::mem::take(&mut line).trim_end().to_owned());
            line = " ".repeat(indent);
            fresh = true;
        }
        if !(fresh && word == " ") {
            line.push_str(word);
            fresh = false;
        }
    }
    out.push(line.trim_end().to_owned());
    out
}
