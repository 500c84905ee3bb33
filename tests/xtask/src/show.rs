//! Steps with their times: a spinner with the last line of output where somebody watches, plain lines elsewhere.

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::{BufRead, BufReader, IsTerminal},
    process::{Command, Stdio},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use vz_tests::{command, wait};

static TO_STDERR: AtomicBool = AtomicBool::new(false);
/// Shorter steps are not worth telling of where somebody asked for something else.
const BRIEF: Duration = Duration::from_secs(2);

/// From now on standard output is for what a command was asked for: steps are told on standard error, and only those
/// that took time or failed.
pub fn keep_stdout_clean() {
    TO_STDERR.store(true, Ordering::Relaxed);
}

/// Says that something is there already, unless somebody asked for something else.
pub fn settled(line: impl AsRef<str>) {
    if !TO_STDERR.load(Ordering::Relaxed) {
        say(line);
    }
}

/// One line on standard output; a reader that went away ends nothing.
pub fn say(line: impl AsRef<str>) {
    use std::io::Write;
    let _ = if TO_STDERR.load(Ordering::Relaxed) {
        writeln!(std::io::stderr(), "{}", line.as_ref())
    } else {
        writeln!(std::io::stdout(), "{}", line.as_ref())
    };
}

/// Says many short things, as many on a line as a terminal has room for, under what they belong to.
pub fn several(things: &[String]) {
    const WIDTH: usize = 110;
    let mut lines: Vec<String> = Vec::new();
    for thing in things {
        match lines.last_mut() {
            Some(line) if line.len() + thing.len() + 2 <= WIDTH => *line += &format!("  {thing}"),
            _ => lines.push(thing.clone()),
        }
    }
    lines.iter().for_each(|line| say(format!("       {line}")));
}

/// A time as a person reads it.
pub fn time(t: Duration) -> String {
    match t.as_millis() {
        ms @ 0..1000 => format!("{ms} ms"),
        ms if ms < 60_000 => format!("{:.1} s", t.as_secs_f64()),
        _ => format!("{} min {:02} s", t.as_secs() / 60, t.as_secs() % 60),
    }
}

/// Does one step and prints it with its time.
pub fn step<T>(title: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let begun = Instant::now();
    let done = work().with_context(|| title.to_owned());
    if done.is_ok() && TO_STDERR.load(Ordering::Relaxed) && begun.elapsed() < BRIEF {
        return done;
    }
    let mark = if done.is_ok() { "ok  " } else { "FAIL" };
    say(format!("{mark} {title:<58} {:>12}", time(begun.elapsed())));
    done
}

/// Runs a long command behind a spinner showing its last line and the time so far; its output is shown if it fails.
pub fn long(title: &str, command: &mut Command, limit: Duration) -> Result<()> {
    step(title, || {
        let words = command::line(command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run `{words}`"))?;
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}") {
            bar.set_style(style);
        }
        bar.set_prefix(title.to_owned());
        bar.enable_steady_tick(Duration::from_millis(120));
        let (send, lines) = mpsc::channel();
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let readers: [Option<Box<dyn std::io::Read + Send>>; 2] =
            [out.map(|p| Box::new(p) as _), err.map(|p| Box::new(p) as _)];
        for pipe in readers.into_iter().flatten() {
            let (send, bar) = (send.clone(), bar.clone());
            thread::spawn(move || {
                for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).into_owned();
                    bar.set_message(line.trim().to_owned());
                    if send.send(line).is_err() {
                        break;
                    }
                }
            });
        }
        drop(send);
        let ended = wait::process(child.id(), limit)?;
        if !ended {
            child.kill()?;
        }
        let status = child.wait()?;
        bar.finish_and_clear();
        if ended && status.success() {
            return Ok(());
        }
        let said: Vec<String> = wait_lines(&lines);
        for line in said.iter().skip(said.len().saturating_sub(60)) {
            eprintln!("  {line}");
        }
        if !ended {
            bail!("`{words}` was not done after {}", time(limit));
        }
        bail!("`{words}` ended with {status}")
    })
}

fn wait_lines(lines: &mpsc::Receiver<String>) -> Vec<String> {
    let mut all = Vec::new();
    while let Ok(line) = lines.recv_timeout(Duration::from_millis(500)) {
        all.push(line);
    }
    all
}

/// Runs a command whose output is the point of it, passing it through; returns the lines for which `keep` says so.
pub fn passed_through(command: &mut Command, limit: Duration, keep: fn(&str) -> bool) -> Result<(bool, Vec<String>)> {
    let words = command::line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run `{words}`"))?;
    let (send, kept) = mpsc::channel();
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let mut threads = Vec::new();
    if let Some(pipe) = out {
        let send = send.clone();
        threads.push(thread::spawn(move || copy(pipe, keep, &send, false)));
    }
    if let Some(pipe) = err {
        let send = send.clone();
        threads.push(thread::spawn(move || copy(pipe, keep, &send, true)));
    }
    drop(send);
    let ended = wait::process(child.id(), limit)?;
    if !ended {
        // A runner of tests that is asked ends what it started; one that is killed cannot.
        wait::Process::open(child.id())?.terminate();
        if !wait::process(child.id(), Duration::from_secs(30))? {
            child.kill()?;
        }
    }
    let status = child.wait()?;
    for t in threads {
        let _ = t.join();
    }
    if !ended {
        bail!("`{words}` was not done after {}", time(limit));
    }
    Ok((status.success(), kept.try_iter().collect()))
}

fn copy(pipe: impl std::io::Read, keep: fn(&str) -> bool, send: &mpsc::Sender<String>, to_err: bool) {
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        let line = String::from_utf8_lossy(&line).into_owned();
        if to_err {
            eprintln!("{line}");
        } else {
            say(&line);
        }
        if keep(&line) {
            let _ = send.send(line.trim().to_owned());
        }
    }
}
