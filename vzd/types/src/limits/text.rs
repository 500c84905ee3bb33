//! The classic text of beancounters, to the byte (kernel/bc/proc.c of OpenVZ's 2.6.32): `user_beancounters` and the
//! `resources` file of one container.

use super::table::{CLASSIC_ROWS, Ub};
use std::fmt::Write;

/// The five figures of one row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Now.
    pub held: u64,
    /// At most so far.
    pub maxheld: u64,
    /// Barrier, unlimited as `LONG_MAX`.
    pub barrier: u64,
    /// Limit, unlimited as `LONG_MAX`.
    pub limit: u64,
    /// Refusals so far.
    pub failcnt: u64,
}

fn row(out: &mut String, uid: &str, name: &str, f: Figures) {
    // Writing to a String cannot fail.
    let _ = writeln!(
        out,
        "{uid:>10}  {name:<12} {:>20} {:>20} {:>20} {:>20} {:>20}",
        f.held, f.maxheld, f.barrier, f.limit, f.failcnt
    );
}

/// `user_beancounters` of these containers, each with a way to its figures.
pub fn user_beancounters<F: Fn(Ub) -> Figures>(containers: &[(u32, F)]) -> String {
    let mut out = String::from("Version: 2.5\n");
    let _ = writeln!(
        out,
        "{:>10}  {:<12} {:>20} {:>20} {:>20} {:>20} {:>20}",
        "uid", "resource", "held", "maxheld", "barrier", "limit", "failcnt"
    );
    for (ctid, figures) in containers {
        for (n, ub) in CLASSIC_ROWS.iter().enumerate() {
            let uid = if n == 0 { format!("{ctid}:") } else { String::new() };
            row(&mut out, &uid, ub.map_or("dummy", Ub::name), ub.map(figures).unwrap_or_default());
        }
    }
    out
}

/// The `resources` file of one container: the rows without uid and header, swappages among them after physpages.
pub fn resources(figures: impl Fn(Ub) -> Figures) -> String {
    let mut out = String::new();
    for ub in CLASSIC_ROWS.iter().copied().flatten() {
        row(&mut out, "", ub.name(), figures(ub));
    }
    row(&mut out, "", Ub::Swappages.name(), figures(Ub::Swappages));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_classic_to_the_byte() {
        let f = |ub: Ub| Figures { held: ub as u64, maxheld: 2, barrier: 3, limit: i64::MAX as u64, failcnt: 5 };
        let text = user_beancounters(&[(101, f), (2_147_483_644, f)]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 2 * 24);
        assert_eq!(lines[0], "Version: 2.5");
        assert_eq!(
            lines[1],
            "       uid  resource                     held              maxheld              barrier                limit              failcnt"
        );
        assert_eq!(
            lines[2],
            "      101:  kmemsize                        0                    2                    3  9223372036854775807                    5"
        );
        assert_eq!(
            lines[6],
            "            dummy                           0                    0                    0                    0                    0"
        );
        assert!(lines[26].starts_with("2147483644:  kmemsize "));
        assert!(text.ends_with("5\n") && !text.contains("swappages"));
        assert_eq!(resources(f).lines().filter(|l| l.contains("swappages")).count(), 1);
    }
}
