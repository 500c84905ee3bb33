//! exec, exec2, enter and runscript: straight into the container, without vzd unless a script needs a CT started. vzctl verifies the run record, writes
//! an [`AttachPlan`] and becomes `vzmon attach`, executed from a sealed copy in memory: a process that is about to
//! enter a container must not be something the container could reach back through `/proc/self/exe`.

use crate::{
    failure::{Failure, Outcome},
    target::{self, Target},
    verbs::Session,
};
use nix::sys::signal::{SigSet, Signal};
use rustix::fs::{MemfdFlags, SealFlags};
use std::{
    ffi::{CStr, CString, OsString},
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsRawFd, OwnedFd},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::Command,
};
use vz_api::wire::{StartRequest, StopRequest};
use vz_types::{
    ExitCode, Paths, Word,
    plan::{AttachPlan, PROTOCOL},
    run::RunRecord,
};

/// Directories a program is looked up in, inside.
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Where an installed vzmon is.
const INSTALLED: &str = "/usr/libexec/vz/vzmon";
/// A script is read by a shell, not stored: this is plenty.
const MAX_SCRIPT: u64 = 16 << 20;

/// `exec` (any failure exits 8) and `exec2` (the command's own status).
pub fn exec(paths: &Paths, target: &Target, words: &[OsString], classic: bool) -> Outcome {
    let record = target::must_run(paths, target)?;
    let shell = |name: &str| match words {
        [one] if one == "-" => vec![name.into(), "-s".into()],
        _ => vec![name.into(), "-c".into(), Word::joined(words)],
    };
    let (argv, argv_fallback) = match direct(words) {
        // As execvp(3) has it: sh is what every container has, and says what is wrong with a command.
        Some(argv) => (argv, shell("sh")),
        None => (shell("bash"), shell("sh")),
    };
    let plan = AttachPlan {
        argv,
        argv_fallback,
        fail_as: classic.then_some(ExitCode::ExecFailed.code()),
        ..plan(paths, record.ctid)
    };
    become_attach(&plan, &record)
}

/// What a shell itself would have to say about a command: bash's keywords and builtins (bash(1)) but `true` and
/// `false`, which are the same as programs.
const SHELL_WORDS: &[&str] = &[
    ".",
    ":",
    "alias",
    "bg",
    "bind",
    "break",
    "builtin",
    "caller",
    "case",
    "cd",
    "command",
    "compgen",
    "complete",
    "compopt",
    "continue",
    "coproc",
    "declare",
    "dirs",
    "disown",
    "do",
    "done",
    "echo",
    "elif",
    "else",
    "enable",
    "esac",
    "eval",
    "exec",
    "exit",
    "export",
    "fc",
    "fg",
    "fi",
    "for",
    "function",
    "getopts",
    "hash",
    "help",
    "history",
    "if",
    "in",
    "jobs",
    "kill",
    "let",
    "local",
    "logout",
    "mapfile",
    "popd",
    "printf",
    "pushd",
    "pwd",
    "read",
    "readarray",
    "readonly",
    "return",
    "select",
    "set",
    "shift",
    "shopt",
    "source",
    "suspend",
    "test",
    "then",
    "time",
    "times",
    "trap",
    "type",
    "typeset",
    "ulimit",
    "umask",
    "unalias",
    "unset",
    "until",
    "wait",
    "while",
];

/// The command as program and arguments when a shell would do nothing but execute it: it costs a millisecond that a
/// monitoring script running `exec` all day need not pay. Anything a shell might read differently is left to one,
/// and so is a program that is not found, for the message.
fn direct(words: &[OsString]) -> Option<Vec<Word>> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+ ".contains(c);
    let joined = Word::joined(words);
    let joined = std::str::from_utf8(joined.bytes()).ok()?;
    let argv: Vec<&str> = joined.split(' ').filter(|w| !w.is_empty()).collect();
    let first = argv.first()?;
    let simple = joined.chars().all(plain) && !first.starts_with('-') && !SHELL_WORDS.contains(first);
    simple.then(|| argv.into_iter().map(Word::from).collect())
}

/// `enter`: root's login shell on a terminal of its own where ours is one, or `--exec`'s command there.
pub fn enter(paths: &Paths, target: &Target, command: Option<&[OsString]>, quiet: bool) -> Outcome {
    let record = target::must_run(paths, target)?;
    let ctid = record.ctid;
    let shell = |name: &str| command.map(|c| vec![name.into(), "-c".into(), Word::joined(c)]).unwrap_or_default();
    if !quiet {
        crate::ui::print_note(&format!("entered into CT {ctid}"));
    }
    let plan = AttachPlan {
        argv: shell("bash"),
        argv_fallback: shell("sh"),
        tty: true,
        farewell: (!quiet).then(|| format!("exited from CT {ctid}")),
        ..plan(paths, ctid)
    };
    become_attach(&plan, &record)
}

/// `runscript`: the script is read here and shown inside as `/dev/fd/3`, to the program its first line names. A CT that
/// does not run is started for it and stopped afterwards.
pub fn runscript(session: &Session, target: &Target, script: &Path) -> Outcome {
    let text = read_script(script)?;
    let record = match target::must_run(&session.paths, target) {
        Err(f) if f.code == ExitCode::NotRunning => return run_between_start_and_stop(session, target, script),
        other => other?,
    };
    // Held back by the vzctl that started this one for a stopped CT.
    signals().thread_unblock().map_err(|e| Failure::system("cannot let signals through", e))?;
    let mut copy = memory(c"vz-script", MemfdFlags::ALLOW_SEALING).map_err(no_memory)?;
    copy.write_all(&text).and_then(|()| seal(&mut copy)).map_err(no_memory)?;
    let interpreter = interpreter(&text);
    let run = |shell: &str| {
        let mut argv = interpreter.clone().unwrap_or_else(|| vec![shell.into()]);
        argv.push("/dev/fd/3".into());
        argv
    };
    let plan = AttachPlan {
        argv: run("bash"),
        argv_fallback: if interpreter.is_none() { run("sh") } else { Vec::new() },
        script_fd: Some(copy.as_raw_fd()),
        ..plan(&session.paths, record.ctid)
    };
    become_attach(&plan, &record)
}

/// What an operator ends a script with.
fn signals() -> SigSet {
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT].into_iter().collect()
}

/// The script is run by a vzctl of its own, since that becomes the program inside and this one has to stop the CT.
fn run_between_start_and_stop(session: &Session, target: &Target, script: &Path) -> Outcome {
    let say = |words: &str| {
        if !session.ui.quiet {
            crate::ui::print_error(words);
        }
    };
    let name = target.to_string();
    let ours = std::env::current_exe().map_err(|e| Failure::system("cannot find vzctl itself", e))?;
    say(&format!("Container {name} is not running: it is started for the script and stopped after it"));
    // What ends the script must not end this process before the CT is stopped again.
    signals().thread_block().map_err(|e| Failure::system("cannot hold signals back", e))?;
    let client = session.client.numbered(crate::progress::number());
    client.start(&name, &StartRequest { force: false, wait: true })?;
    let ran =
        Command::new(&ours).arg("--root").arg(&session.paths.base).args(["runscript", &name]).arg(script).status();
    let stopped = session.client.numbered(crate::progress::number()).stop(&name, &StopRequest::default());
    say(&match &stopped {
        Ok(_) => format!("Container {name} was stopped again"),
        Err(_) => format!("Container {name} could not be stopped again"),
    });
    let ran = ran.map_err(|e| Failure::system(format_args!("cannot execute {}", ours.display()), e))?;
    stopped?;
    let code = ran.code().unwrap_or_else(|| 128 + ran.signal().unwrap_or_default());
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

/// The whole script, which must be a regular file of the host.
fn read_script(script: &Path) -> Result<Vec<u8>, Failure> {
    let unreadable = |e: io::Error| {
        Failure::value(format!("script {} cannot be read: {e}", script.display()))
            .hint("name a regular file of the host")
    };
    let mut text = Vec::new();
    let file = File::open(script).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::other("not a regular file")));
    }
    file.take(MAX_SCRIPT + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > MAX_SCRIPT {
        return Err(unreadable(io::Error::other("larger than 16 MiB")));
    }
    Ok(text)
}

/// What all have in common: the minimal environment, no terminal, the program's own status.
fn plan(paths: &Paths, ctid: vz_types::Ctid) -> AttachPlan {
    AttachPlan {
        run_dir: paths.ct_run(ctid),
        argv: Vec::new(),
        env: [PATH, "HOME=/root", "USER=root", "LOGNAME=root", &term()].map(str::to_owned).into(),
        tty: false,
        script_fd: None,
        argv_fallback: Vec::new(),
        fail_as: None,
        farewell: None,
    }
}

/// The operator's terminal type, where it is one a program could look up.
fn term() -> String {
    let ours = std::env::var("TERM").unwrap_or_default();
    let sane =
        !ours.is_empty() && ours.len() <= 32 && ours.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.+".contains(&b));
    format!("TERM={}", if sane { ours.as_str() } else { "linux" })
}

/// `#!PROGRAM [ARGUMENT]` as execve(2) reads it: one argument, blanks inside it kept.
fn interpreter(script: &[u8]) -> Option<Vec<Word>> {
    let line = script.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?.trim_ascii();
    let blank = line.iter().position(u8::is_ascii_whitespace).unwrap_or(line.len());
    let (program, argument) = line.split_at(blank);
    let words: Vec<Word> =
        [program, argument.trim_ascii()].into_iter().filter(|w| !w.is_empty()).map(Word::from).collect();
    (!words.is_empty()).then_some(words)
}

/// Replaces this process. Returns only when that failed.
fn become_attach(plan: &AttachPlan, record: &RunRecord) -> Outcome {
    let text = serde_json::to_vec(plan).map_err(|e| Failure::system("cannot write the attach plan", e))?;
    let mut plan_fd = memory(c"vz-plan", MemfdFlags::ALLOW_SEALING).map_err(no_memory)?;
    plan_fd.write_all(&text).and_then(|()| seal(&mut plan_fd)).map_err(no_memory)?;
    let text_only = plan.argv.iter().chain(&plan.argv_fallback).all(Word::is_text);
    let sealed = match sealed_already(record).filter(|_| text_only) {
        Some(program) => program,
        None => {
            let program = vzmon()?;
            sealed_copy(&program)
                .map_err(|e| Failure::system(format_args!("cannot copy {} into memory", program.display()), e))?
        }
    };
    let number = CString::new(plan_fd.as_raw_fd().to_string()).map_err(|e| Failure::system("plan", e))?;
    let protocol = CString::new(PROTOCOL.to_string()).map_err(|e| Failure::system("protocol", e))?;
    let argv: [&CStr; 4] = [c"vzmon", c"attach", &number, &protocol];
    let nothing: [&CStr; 0] = [];
    match nix::unistd::fexecve(&sealed, &argv, &nothing) {
        Ok(never) => match never {},
        Err(e) => Err(Failure::system("cannot execute vzmon", e)),
    }
}

/// An anonymous file that stays open over exec.
fn memory(name: &CStr, flags: MemfdFlags) -> io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create(name, flags)?))
}

/// No change of its content or its seals from here on; readers start at its beginning.
fn seal(file: &mut File) -> io::Result<()> {
    rustix::fs::fcntl_add_seals(&*file, SEALS)?;
    file.rewind()
}

/// Every seal a program must have before it goes near a container.
const SEALS: SealFlags = SealFlags::WRITE.union(SealFlags::GROW).union(SealFlags::SHRINK).union(SealFlags::SEAL);

/// The program of the container's own monitor, where vzd executed that from sealed memory: no copy is needed then,
/// which is a third of the time of an exec. Not where the monitor is of a version that would misunderstand our plan, and
/// not for words that are not UTF-8, which earlier versions do not understand; the installed program understands them. `VZ_VZMON` asks for another program.
fn sealed_already(record: &RunRecord) -> Option<OwnedFd> {
    let monitor = record.monitor;
    if record.protocol != PROTOCOL || std::env::var_os("VZ_VZMON").is_some_and(|p| !p.is_empty()) {
        return None;
    }
    let exe = File::open(format!("/proc/{}/exe", monitor.pid)).ok()?;
    let sealed = rustix::fs::fcntl_get_seals(&exe).is_ok_and(|seals| seals.contains(SEALS));
    // Looked at only now: what was opened is the monitor's if the monitor still has that number.
    (sealed && target::is_alive(monitor).unwrap_or(false)).then(|| exe.into())
}

/// The program in memory, sealed. `MFD_EXEC` says that executing it is meant (memfd_create(2), Linux 6.3); older
/// kernels do not know the flag and do not need it.
fn sealed_copy(program: &Path) -> io::Result<OwnedFd> {
    let mut from = File::open(program)?;
    let flags = MemfdFlags::ALLOW_SEALING | MemfdFlags::CLOEXEC;
    let mut copy = match memory(c"vzmon", flags | MemfdFlags::EXEC) {
        Err(e) if e.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error()) => memory(c"vzmon", flags)?,
        other => other?,
    };
    io::copy(&mut from, &mut copy)?;
    seal(&mut copy)?;
    Ok(copy.into())
}

/// `VZ_VZMON`, else beside vzctl, else where it is installed.
fn vzmon() -> Result<PathBuf, Failure> {
    let named = std::env::var_os("VZ_VZMON").filter(|p| !p.is_empty()).map(PathBuf::from);
    let beside = || std::env::current_exe().ok().and_then(|e| Some(e.parent()?.join("vzmon")));
    let installed = || PathBuf::from(INSTALLED);
    let candidates: Vec<PathBuf> = match named {
        Some(only) => vec![only],
        None => beside().into_iter().chain([installed()]).collect(),
    };
    candidates.iter().find(|p| p.is_file()).cloned().ok_or_else(|| {
        let places: Vec<String> = candidates.iter().map(|p| p.display().to_string()).collect();
        Failure::new(ExitCode::System, format!("there is no vzmon program at {}", places.join(" or at ")))
            .hint("install vz completely, or set VZ_VZMON to the program")
    })
}

fn no_memory(e: io::Error) -> Failure {
    Failure::system("cannot make an anonymous file", e)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_goes_to_the_program_its_first_line_names() {
        let words =
            |s: &str| interpreter(s.as_bytes()).map(|w| w.iter().map(Word::to_string).collect::<Vec<_>>().join("|"));
        assert_eq!(words("#!/bin/sh\necho"), Some("/bin/sh".into()));
        assert_eq!(words("#! /usr/bin/env  python3 -u\n"), Some("/usr/bin/env|python3 -u".into()));
        assert_eq!(words("#!\n"), None);
        assert_eq!(words("echo hi\n"), None);
    }

    #[test]
    fn a_sealed_copy_cannot_be_written_again() {
        let copy = File::from(sealed_copy(Path::new("/proc/self/exe")).unwrap());
        assert!((&copy).write_all(b"x").is_err());
        assert!(copy.set_len(0).is_err());
    }

    #[test]
    fn only_what_a_shell_would_merely_execute_goes_without_one() {
        let direct = |text: &str| direct(&[text.into()]);
        assert_eq!(direct("ls  -la /etc"), Some(["ls", "-la", "/etc"].map(Word::from).into()));
        assert_eq!(direct("true"), Some(vec!["true".into()]));
        for shell in
            ["", "-", "cd /", "time ls", "a=1 env", "ls *", "echo hi", "ls | wc", "ls ~", "x && y", "echo 'a'", "a#b"]
        {
            assert_eq!(direct(shell), None, "{shell:?}");
        }
    }
}
