//! External programs of the storage, by the runner of [`crate::program`].

use super::{StorageError, io_step};
use crate::program::{command, find, output};
use std::{path::Path, time::Duration};

/// Runs a program of `package` on `path` and waits for it. Exit codes in `fine` count as success.
///
/// # Errors
/// It is missing, fails, or takes longer than `deadline` (then it is killed).
pub fn run(
    program: &'static str,
    package: &'static str,
    args: &[&std::ffi::OsStr],
    path: &Path,
    fine: &[i32],
    deadline: Duration,
) -> Result<(), StorageError> {
    let file = find(program).ok_or(StorageError::MissingProgram { program, package })?;
    let mut command = command(&file);
    command.args(args);
    let (status, said) = io_step("run a program on", path, output(command, None, deadline))?;
    match status {
        Some(s) if s.code().is_some_and(|c| fine.contains(&c)) => Ok(()),
        Some(s) => {
            Err(StorageError::Program { program, path: path.to_owned(), said: format!("{} ({s})", tail(&said.1)) })
        }
        None => Err(StorageError::Program {
            program,
            path: path.to_owned(),
            said: format!("no end after {} s, so it was killed", deadline.as_secs()),
        }),
    }
}

fn tail(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().filter(|l| !l.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}
