//! What ran of a test run: read from the runner's own lines as they pass by, added up by suite.

use crate::show;
use std::{collections::BTreeMap, time::Duration};

/// How a line of nextest begins that tells of a test which passed.
const PASSED: &[&str] = &["PASS", "LEAK", "FLAKY"];
/// How a line begins that tells of one which did not; what a signal ended is called by the signal.
const FAILED: &[&str] = &["FAIL", "LEAK-FAIL", "TIMEOUT", "ABORT", "EXECFAIL"];

/// Tests of one suite.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Suite {
    passed: u32,
    failed: u32,
    /// Of all of them together; some ran side by side.
    took: Duration,
}

/// The tests of one run.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    suites: BTreeMap<String, Suite>,
    /// The names of those that failed.
    failed: Vec<String>,
    /// Behind its summary nextest tells once more what failed.
    over: bool,
}

impl Tally {
    /// Whether a line is of interest to [`Tally::of`].
    pub fn wants(line: &str) -> bool {
        // What a test program printed is shown indented by nextest, and has been told of by nextest itself.
        line.trim_start().starts_with("Summary [") || line.starts_with("test result:") || result(line).is_some()
    }

    /// Adds a run's lines up.
    pub fn of(lines: &[String]) -> Self {
        let mut tally = Self::default();
        for line in lines {
            tally.take(line.trim());
        }
        tally
    }

    fn take(&mut self, line: &str) {
        if line.starts_with("Summary [") {
            self.over = true;
        } else if let Some(told) = line.strip_prefix("test result:") {
            // Cargo's own runner tells of programs, not of suites.
            let count = |word: &str| {
                let part = told.split([';', '.']).find(|p| p.trim().ends_with(word));
                part.and_then(|p| p.split_whitespace().rev().nth(1)?.parse::<u32>().ok()).unwrap_or(0)
            };
            let all = self.suites.entry("tests".into()).or_default();
            all.passed += count("passed");
            all.failed += count("failed");
        } else if let Some((good, took, suite, test)) = result(line).filter(|_| !self.over) {
            let entry = self.suites.entry(suite.to_owned()).or_default();
            entry.took += took;
            if good {
                entry.passed += 1;
            } else {
                entry.failed += 1;
                self.failed.push(format!("{suite} {test}"));
            }
        }
    }

    /// How many tests ran.
    pub fn ran(&self) -> u32 {
        self.suites.values().map(|s| s.passed + s.failed).sum()
    }

    /// Whether a test failed.
    pub fn has_failed(&self) -> bool {
        self.suites.values().any(|s| s.failed > 0)
    }

    /// In a line: how many, and what failed.
    pub fn line(&self) -> String {
        let failed: u32 = self.suites.values().map(|s| s.failed).sum();
        match failed {
            0 if self.ran() == 0 => "no test of that name".into(),
            0 => format!("{} passed", tests(self.ran())),
            n if self.failed.is_empty() => format!("{n} of {} failed", tests(self.ran())),
            n => format!("{n} of {} failed: {}", tests(self.ran()), self.failed.join(", ")),
        }
    }

    /// Each suite with its tests and their time.
    pub fn suites(&self) -> Vec<String> {
        let told = self.suites.iter().map(|(name, s)| {
            let failed = if s.failed > 0 { format!(", {} FAILED", s.failed) } else { String::new() };
            format!("{name} {} ({}{failed})", s.passed + s.failed, show::time(s.took))
        });
        told.collect()
    }
}

/// So many tests, in words.
pub fn tests(count: u32) -> String {
    format!("{count} {}", if count == 1 { "test" } else { "tests" })
}

/// `PASS [   1.144s] (3/7) vz-tests::vm_lost a_name`: whether it passed, how long it took, its suite and its name.
fn result(line: &str) -> Option<(bool, Duration, &str, &str)> {
    let (word, rest) = line.trim_start().split_once(" [")?;
    let word = word.trim();
    let good = PASSED.contains(&word);
    if !good && !FAILED.contains(&word) && !word.starts_with("SIG") {
        return None;
    }
    let (took, rest) = rest.split_once("s] ")?;
    let took = Duration::try_from_secs_f64(took.trim().parse().ok()?).ok()?;
    // The count is as wide as its largest number, blanks included.
    let rest = rest.trim_start().strip_prefix('(')?.split_once(") ")?.1;
    let (program, test) = rest.trim().split_once(' ')?;
    Some((good, took, program.rsplit("::").next().unwrap_or(program), test))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(text: &str) -> Tally {
        Tally::of(&text.lines().filter(|l| Tally::wants(l)).map(String::from).collect::<Vec<_>>())
    }

    #[test]
    fn tests_are_counted_once_by_suite_with_their_times() {
        let t = tally(
            "    Starting 4 tests across 3 binaries\n\
             \u{20}       PASS [   6.176s] (1/4) vz-tests::vm_lost a_guest\n\
             \u{20}       SLOW [>120.000s] (───) vz-tests::vm_lost another\n\
             \u{20}       LEAK [  61.500s] (2/4) vz-tests::vm_lost another\n\
             \u{20} TRY 1 FAIL [   0.1s] nothing\n\
             \u{20}    SIGABRT [   0.500s] ( 3/4) vzd engine::tests::x\n\
             \u{20}       FAIL [   2.000s] (4/4) vz-tests::crash one::two\n\
             \u{20}   test result: FAILED. 0 passed; 1 failed; 0 ignored; 0 measured; 3 filtered out; finished in 2.00s\n\
             \u{20}    Summary [  10.2s] 4 tests run: 2 passed, 2 failed, 0 skipped\n\
             \u{20}       FAIL [   2.000s] (4/4) vz-tests::crash one::two\n",
        );
        assert_eq!(t.ran(), 4);
        assert_eq!(t.line(), "2 of 4 tests failed: vzd engine::tests::x, crash one::two");
        assert_eq!(t.suites(), ["crash 1 (2.0 s, 1 FAILED)", "vm_lost 2 (1 min 07 s)", "vzd 1 (500 ms, 1 FAILED)"]);
    }

    #[test]
    fn cargos_own_runner_is_added_up() {
        let t = tally(
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.01s\n\
             test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.01s\n",
        );
        assert_eq!((t.ran(), t.line().as_str()), (8, "1 of 8 tests failed"));
    }
}
