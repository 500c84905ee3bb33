//! vzubc: beancounters for people. Asks vzd; without one (inside a container) it reads the classic text.

use super::Root;
use crate::{
    failure::{Failure, Outcome},
    target::Target,
    ui::print_line,
};
use clap::Parser;
use std::{collections::BTreeMap, fs, io::IsTerminal, path::PathBuf, time::Duration};
use vz_api::wire::Beancounter;
use vz_types::{
    ExitCode,
    limits::{Amount, PAGE, Ub, Unit},
};

/// vzubc: show beancounters.
#[derive(Debug, Parser)]
#[command(
    name = "vzubc",
    version = concat!("version ", env!("CARGO_PKG_VERSION")),
    about = "Show the beancounters of containers (CTs)",
    long_about = "Shows held and maxheld of each beancounter with its share of barrier and limit, the fail count, and \
        the class: whether the limit is enforced, guaranteed, per-process, accounted, or unenforced on this host. \
        Inside a CT it shows the CT's own, from /run/vz/user_beancounters.",
    max_term_width = 100
)]
pub struct UbcArgs {
    /// Only counters with a fail count, or held or maxheld near a limit
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Percent of barrier or limit from which -q shows a counter for what is held
    #[arg(long = "qh", alias = "q-held", value_name = "PERCENT", default_value_t = 50)]
    pub q_held: u64,
    /// Percent of barrier or limit from which -q shows a counter for what was held at most
    #[arg(long = "qm", alias = "q-maxheld", value_name = "PERCENT", default_value_t = 80)]
    pub q_maxheld: u64,
    /// Colour what is near its limit or was refused, although this is no terminal
    #[arg(short = 'c', long)]
    pub color: bool,
    /// Show how much the fail counts have risen since the last -r (with -w: since the last screen)
    #[arg(short = 'r', long)]
    pub relative: bool,
    /// As -r
    #[arg(short = 'i', long)]
    pub incremental: bool,
    /// Show again every second, or every so many seconds, until interrupted
    #[arg(short = 'w', long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", require_equals = true)]
    pub watch: Option<u64>,
    /// With the unit and what is to be said about each class
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Read this classic text instead
    #[arg(short = 'f', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Print JSON
    #[arg(short = 'j', long)]
    pub json: bool,
    /// Print the classic text of these CTs (user_beancounters)
    #[arg(long)]
    pub classic: bool,
    /// Where the manager is.
    #[command(flatten)]
    pub root: Root,
    /// Only these; without any, all that run
    #[arg(value_name = "CTID|NAME")]
    pub cts: Vec<String>,
}

/// One container with its counters.
type Rows = (u32, Vec<Beancounter>);

/// Prints them.
pub fn run(args: &UbcArgs) -> Outcome {
    let mut last: BTreeMap<(u32, String), u64> = BTreeMap::new();
    let state = args.root.paths().run().join("vzubc.json");
    let relative = args.relative || args.incremental;
    if relative && args.watch.is_none() {
        let kept: Option<Vec<(u32, String, u64)>> = fs::read(&state).ok().and_then(|t| serde_json::from_slice(&t).ok());
        last = kept.unwrap_or_default().into_iter().map(|(c, n, f)| ((c, n), f)).collect();
    }
    loop {
        let mut all = read(args)?;
        let now: BTreeMap<(u32, String), u64> =
            all.iter().flat_map(|(c, rows)| rows.iter().map(|b| ((*c, b.name.clone()), b.failcnt))).collect();
        if relative {
            for (ctid, rows) in &mut all {
                for b in rows {
                    let before = last.get(&(*ctid, b.name.clone())).copied().unwrap_or(0);
                    // A count that fell was reset.
                    b.failcnt = b.failcnt.checked_sub(before).unwrap_or(b.failcnt);
                }
            }
        }
        if args.watch.is_some() {
            print_line("\x1b[H\x1b[2J");
        }
        show(args, &all)?;
        last = now;
        let Some(seconds) = args.watch else { break };
        wait(seconds.clamp(1, 3600));
    }
    if relative {
        let kept: Vec<(&u32, &String, &u64)> = last.iter().map(|((c, n), f)| (c, n, f)).collect();
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        fs::write(&state, text)
            .map_err(|e| Failure::system(format_args!("cannot remember the fail counts in {}", state.display()), e))?;
    }
    Ok(0)
}

/// Until the next screen; an interrupt ends the program meanwhile.
fn wait(seconds: u64) {
    let until = std::time::Instant::now() + Duration::from_secs(seconds);
    let never = (std::sync::Mutex::new(()), std::sync::Condvar::new());
    if let Ok(guard) = never.0.lock() {
        drop(never.1.wait_timeout_while(guard, until.saturating_duration_since(std::time::Instant::now()), |()| true));
    }
}

fn read(args: &UbcArgs) -> Result<Vec<Rows>, Failure> {
    let wanted: Vec<Target> = args.cts.iter().map(|t| t.parse()).collect::<Result<_, _>>()?;
    let own = args.root.paths().user_beancounters();
    let vzd = args.root.paths().socket().exists();
    let file = args.file.clone().or_else(|| (!vzd && own.exists()).then_some(own));
    let all: Vec<(u32, Option<String>, Vec<Beancounter>)> = match file {
        Some(file) => {
            let text = fs::read_to_string(&file)
                .map_err(|e| Failure::system(format_args!("cannot read {}", file.display()), e))?;
            parse(&text).into_iter().map(|(c, rows)| (c, None, rows)).collect()
        }
        None => {
            let infos = args.root.client().list()?;
            let shown = infos.into_iter().filter(|i| i.status == "running" || !wanted.is_empty());
            shown.map(|i| (i.ctid, i.name, i.beancounters)).collect()
        }
    };
    let mut out = Vec::new();
    for target in &wanted {
        let typed = target.to_string();
        let found = all.iter().find(|(c, name, _)| c.to_string() == typed || name.as_ref() == Some(&typed));
        let Some((ctid, _, rows)) = found else {
            return Err(Failure::new(ExitCode::NoConfig, format!("CT {typed} is not there"))
                .hint("`vzlist -a` shows those that exist"));
        };
        out.push((*ctid, rows.clone()));
    }
    if wanted.is_empty() {
        out = all.into_iter().map(|(c, _, rows)| (c, rows)).collect();
    }
    Ok(out)
}

/// The classic text, rows of one container after another.
fn parse(text: &str) -> Vec<Rows> {
    let mut out: Vec<Rows> = Vec::new();
    for line in text.lines().skip(2) {
        let mut words: Vec<&str> = line.split_whitespace().collect();
        if let Some(uid) = words.first().and_then(|w| w.strip_suffix(':')).and_then(|w| w.parse().ok()) {
            out.push((uid, Vec::new()));
            words.remove(0);
        }
        let Some((_, rows)) = out.last_mut() else { continue };
        let number = |n: usize| words.get(n).and_then(|w| w.parse().ok()).unwrap_or(0);
        let Some(ub) = words.first().and_then(|w| w.parse::<Ub>().ok()) else { continue };
        rows.push(Beancounter {
            name: ub.name().into(),
            unit: ub.row().unit.word().into(),
            held: Some(number(1)),
            maxheld: number(2),
            barrier: number(3),
            limit: number(4),
            failcnt: number(5),
            // The text does not tell; the tool on the host does.
            class: String::new(),
            note: None,
        });
    }
    out
}

fn show(args: &UbcArgs, all: &[Rows]) -> Result<(), Failure> {
    if args.json {
        let objects: Vec<_> =
            all.iter().map(|(c, rows)| serde_json::json!({ "ctid": c, "beancounters": rows })).collect();
        let text = serde_json::to_string_pretty(&objects).map_err(|e| Failure::system("cannot write JSON", e))?;
        print_line(&text);
        return Ok(());
    }
    if args.classic {
        let get = |rows: &[Beancounter], ub: Ub| {
            let b = rows.iter().find(|b| b.name == ub.name());
            b.map(|b| vz_types::limits::text::Figures {
                held: b.held.unwrap_or(0),
                maxheld: b.maxheld,
                barrier: b.barrier,
                limit: b.limit,
                failcnt: b.failcnt,
            })
            .unwrap_or_default()
        };
        let rows: Vec<_> = all.iter().map(|(c, rows)| (*c, |ub: Ub| get(rows, ub))).collect();
        print_line(vz_types::limits::text::user_beancounters(&rows).trim_end());
        return Ok(());
    }
    let colour = args.color || std::io::stdout().is_terminal();
    for (ctid, rows) in all {
        let rows: Vec<&Beancounter> = rows.iter().filter(|b| !args.quiet || troubled(args, b)).collect();
        if rows.is_empty() {
            continue;
        }
        table(*ctid, &rows, args.verbose, colour);
    }
    Ok(())
}

fn percent(n: u64, of: u64) -> Option<f64> {
    (of != 0 && of != Amount::CLASSIC_UNLIMITED).then(|| n as f64 * 100.0 / of as f64)
}

/// Shows what `-q` is for. Guarantees may be filled; that is what they are for.
fn troubled(args: &UbcArgs, b: &Beancounter) -> bool {
    let over =
        |n: u64, most: u64| [b.barrier, b.limit].into_iter().filter_map(|of| percent(n, of)).any(|p| p >= most as f64);
    let guarantee = b.class == "guaranteed";
    b.failcnt > 0 || (!guarantee && (over(b.held.unwrap_or(0), args.q_held) || over(b.maxheld, args.q_maxheld)))
}

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

fn table(ctid: u32, rows: &[&Beancounter], verbose: bool, colour: bool) {
    let class = if verbose { " | UNIT  CLASS" } else { " | CLASS" };
    print_line("--------------------------------------------------------------------------");
    print_line(&format!("CT {ctid:<11}| HELD Bar% Lim%| MAXH Bar% Lim%| BAR | LIM | FAIL{class}"));
    print_line("--------------+---------------+---------------+-----+-----+------+--------");
    for b in rows {
        let share = |n: u64, of: u64| percent(n, of).map_or_else(|| "-".to_owned(), short_percent);
        let held = b.held.map_or_else(|| "-".into(), |n| short(&b.name, n));
        let (hb, hl) = b.held.map_or(("-".into(), "-".into()), |n| (share(n, b.barrier), share(n, b.limit)));
        let fail = if b.failcnt == 0 { "-".to_owned() } else { plain(b.failcnt) };
        let end = match verbose {
            true => {
                format!("{:<5} {}{}", b.unit, b.class, b.note.as_ref().map(|n| format!(": {n}")).unwrap_or_default())
            }
            false => b.class.clone(),
        };
        let line = format!(
            "{:>14}|{held:>5}{hb:>5}{hl:>5}|{:>5}{:>5}{:>5}|{:>5}|{:>5}|{fail:>5} | {end}",
            b.name,
            short(&b.name, b.maxheld),
            share(b.maxheld, b.barrier),
            share(b.maxheld, b.limit),
            short(&b.name, b.barrier),
            short(&b.name, b.limit),
        );
        let near = |n: u64| percent(n, b.limit).is_some_and(|p| p >= 90.0);
        let tint = match b.failcnt > 0 || near(b.held.unwrap_or(0)) {
            true => Some(RED),
            false if near(b.maxheld) => Some(YELLOW),
            false => None,
        };
        match tint.filter(|_| colour) {
            Some(tint) => print_line(&format!("{tint}{}{PLAIN}", line.trim_end())),
            None => print_line(line.trim_end()),
        }
    }
}

/// At most four characters and a percent sign.
fn short_percent(p: f64) -> String {
    if p >= 999.5 {
        ">999%".into()
    } else if p >= 9.95 {
        format!("{p:.0}%")
    } else {
        format!("{p:.1}%")
    }
}

/// A figure in at most five characters; pages as memory.
fn short(name: &str, n: u64) -> String {
    if n == Amount::CLASSIC_UNLIMITED {
        return "-".into();
    }
    match name.parse::<Ub>().map(|u| u.row().unit) {
        Ok(Unit::Pages) => scaled(n.saturating_mul(PAGE), 1024.0),
        Ok(Unit::Bytes) => scaled(n, 1024.0),
        _ => plain(n),
    }
}

fn plain(n: u64) -> String {
    if n < 100_000 { n.to_string() } else { scaled(n, 1000.0) }
}

fn scaled(n: u64, step: f64) -> String {
    if n == 0 {
        return "-".into();
    }
    let mut value = n as f64;
    for suffix in ["", "K", "M", "G", "T", "P", "E"] {
        if value < 999.5 || suffix == "E" {
            return match suffix {
                "" => format!("{value:.0}"),
                _ if value < 9.95 => format!("{value:.1}{suffix}"),
                _ => format!("{value:.0}{suffix}"),
            };
        }
        value /= step;
    }
    String::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_fit_their_columns() {
        for n in [0, 1, 999, 1000, 1023, 1024, 99_999, 100_000, 1 << 20, 1 << 30, 1 << 52, i64::MAX as u64] {
            for name in ["physpages", "kmemsize", "numproc"] {
                assert!(short(name, n).len() <= 5, "{name} {n}: {}", short(name, n));
            }
        }
        assert_eq!(short("physpages", 131_072), "512M");
        assert_eq!(short("numproc", 400), "400");
        assert_eq!(short_percent(7.26), "7.3%");
        assert_eq!(short_percent(100.0), "100%");
    }

    #[test]
    fn the_classic_text_is_read() {
        let f = |ub: Ub| vz_types::limits::text::Figures {
            held: ub as u64,
            maxheld: 9,
            barrier: 10,
            limit: 20,
            failcnt: 1,
        };
        let rows = parse(&vz_types::limits::text::user_beancounters(&[(101, f), (102, f)]));
        assert_eq!(rows.iter().map(|(c, r)| (*c, r.len())).collect::<Vec<_>>(), [(101, 20), (102, 20)]);
        let numproc = rows[1].1.iter().find(|b| b.name == "numproc").unwrap();
        assert_eq!((numproc.held, numproc.limit, numproc.failcnt), (Some(Ub::Numproc as u64), 20, 1));
    }
}
