//! vzubc: beancounters for people. Asks vzd; without one (inside a container) it reads the classic text.

use super::Root;
use crate::{
    failure::{Failure, Outcome},
    target::Target,
    ui::{self, print_line},
};
use clap::Parser;
use std::{collections::BTreeMap, ffi::OsString, fs, io::IsTerminal, path::PathBuf, time::Duration};
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
        From ten times the barrier or limit on the share is in times (12x). \
        Inside a CT it shows the CT's own, from /run/vz/user_beancounters.",
    max_term_width = 100
)]
pub struct UbcArgs {
    /// Only counters with a fail count, or held or maxheld near a limit
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Part of barrier or limit from which -q shows a counter for what is held (also -qh RATIO)
    #[arg(long = "qh", value_name = "RATIO", default_value = "0.5", value_parser = ratio)]
    pub q_held: f64,
    /// Part of barrier or limit from which -q shows a counter for what was held at most (also -qm RATIO)
    #[arg(long = "qm", value_name = "RATIO", default_value = "0.8", value_parser = ratio)]
    pub q_maxheld: f64,
    /// Colour what is near its limit or was refused, although this is no terminal
    #[arg(short = 'c', long)]
    pub color: bool,
    /// Show how much the fail counts have risen since the last -r (with -w: since the last screen)
    #[arg(short = 'r', long)]
    pub relative: bool,
    /// A column more: how much held has risen or fallen since the last -i; with -q, those that did are shown
    #[arg(short = 'i', long)]
    pub incremental: bool,
    /// Where -r and -i remember their figures (also -rd, -id); /run/vz/vzubc.json without it
    #[arg(long, value_name = "FILE")]
    pub store: Option<PathBuf>,
    /// Forget what -r and -i remember first (also -rc, -ic)
    #[arg(long)]
    pub clear: bool,
    /// Show again every 2 seconds, or every so many (also -wn SECONDS), until interrupted
    #[arg(short = 'w', long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true)]
    pub watch: Option<u64>,
    /// With the unit and what is to be said about each class
    #[arg(short = 'v', long)]
    pub verbose: bool,
    /// Read this classic text instead; `-` is standard input
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

/// Fail count and held at the last look, by container and counter.
type Last = BTreeMap<(u32, String), (u64, u64)>;

fn ratio(text: &str) -> Result<f64, String> {
    let n = text.parse::<f64>().ok().filter(|n| (0.0..=1e6).contains(n));
    n.ok_or_else(|| "it is no ratio like 0.8".into())
}

/// The classic tool's options of two letters as ours.
pub fn modern(argv: Vec<OsString>) -> Vec<OsString> {
    let mut out = Vec::with_capacity(argv.len());
    let mut rest = argv.into_iter();
    out.extend(rest.next());
    while let Some(word) = rest.next() {
        let long = match word.to_str() {
            Some("-qh") => "--qh",
            Some("-qm") => "--qm",
            Some("-rd" | "-id") => "--store",
            Some("-rc" | "-ic") => "--clear",
            // What has changed is not highlighted, and there is no title to leave out.
            Some("-wd" | "-wt") => "--watch",
            Some("-wn") => {
                let mut every = OsString::from("--watch=");
                every.push(rest.next().unwrap_or_default());
                out.push(every);
                continue;
            }
            _ => {
                out.push(word);
                continue;
            }
        };
        if long != "--clear" || !out.iter().any(|w| w == "--clear") {
            out.push(long.into());
        }
    }
    // -w -wn 10 says it twice, and the one with the seconds counts.
    if out.iter().any(|w| w.to_str().is_some_and(|w| w.starts_with("--watch="))) {
        out.retain(|w| w != "-w" && w != "--watch");
    } else if let Some(first) = out.iter().position(|w| w == "-w" || w == "--watch") {
        let mut n = 0;
        out.retain(|w| {
            n += 1;
            n - 1 <= first || (w != "-w" && w != "--watch")
        });
    }
    out
}

/// Prints them.
pub fn run(args: &UbcArgs) -> Outcome {
    let mut last = Last::new();
    let state = args.store.clone().unwrap_or_else(|| args.root.paths().run().join("vzubc.json"));
    if args.clear {
        match fs::remove_file(&state) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(Failure::system(format_args!("cannot remove {}", state.display()), e));
            }
            _ => {}
        }
    }
    let remembers = args.relative || args.incremental;
    if remembers && args.watch.is_none() {
        let kept: Option<Vec<(u32, String, u64, u64)>> =
            vz_sys::records::read(&state).ok().and_then(|t| serde_json::from_slice(&t).ok());
        last = kept.unwrap_or_default().into_iter().map(|(c, n, f, h)| ((c, n), (f, h))).collect();
    }
    loop {
        let mut all = read(args)?;
        let now: Last = all
            .iter()
            .flat_map(|(c, rows)| rows.iter().map(|b| ((*c, b.name.clone()), (b.failcnt, b.held.unwrap_or(0)))))
            .collect();
        if args.relative {
            for (ctid, rows) in &mut all {
                for b in rows {
                    let before = last.get(&(*ctid, b.name.clone())).map_or(0, |l| l.0);
                    // A count that fell was reset.
                    b.failcnt = b.failcnt.checked_sub(before).unwrap_or(b.failcnt);
                }
            }
        }
        if args.watch.is_some() {
            print_line("\x1b[H\x1b[2J");
        }
        show(args, &all, &last)?;
        last = now;
        let Some(seconds) = args.watch else { break };
        wait(seconds.clamp(1, 3600));
    }
    if remembers {
        let kept: Vec<(&u32, &String, &u64, &u64)> = last.iter().map(|((c, n), (f, h))| (c, n, f, h)).collect();
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
            let read = if file.as_os_str() == "-" {
                std::io::read_to_string(std::io::stdin())
            } else {
                fs::read_to_string(&file)
            };
            let text = read.map_err(|e| Failure::system(format_args!("cannot read {}", file.display()), e))?;
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

fn show(args: &UbcArgs, all: &[Rows], last: &Last) -> Result<(), Failure> {
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
        let change = |b: &Beancounter| -> i128 {
            let before = last.get(&(*ctid, b.name.clone())).map_or(0, |l| l.1);
            i128::from(b.held.unwrap_or(0)) - i128::from(before)
        };
        let moved = |b: &Beancounter| args.incremental && change(b) != 0;
        let rows: Vec<(&Beancounter, i128)> =
            rows.iter().filter(|b| !args.quiet || troubled(args, b) || moved(b)).map(|b| (b, change(b))).collect();
        if rows.is_empty() {
            continue;
        }
        table(*ctid, &rows, args, colour);
    }
    Ok(())
}

fn percent(n: u64, of: u64) -> Option<f64> {
    (of != 0 && of != Amount::CLASSIC_UNLIMITED).then(|| n as f64 * 100.0 / of as f64)
}

/// Shows what `-q` is for. Guarantees may be filled; that is what they are for.
fn troubled(args: &UbcArgs, b: &Beancounter) -> bool {
    let over =
        |n: u64, most: f64| [b.barrier, b.limit].into_iter().filter_map(|of| percent(n, of)).any(|p| p >= most * 100.0);
    let guarantee = b.class == "guaranteed";
    b.failcnt > 0 || (!guarantee && (over(b.held.unwrap_or(0), args.q_held) || over(b.maxheld, args.q_maxheld)))
}

/// Columns where nobody says how many there are, and the fewest in which a row with its class stands.
const COLUMNS: usize = 100;
const COLUMNS_LEAST: usize = 80;

const RED: &str = "\x1b[31m";
const YELLOW: &str = "\x1b[33m";
const PLAIN: &str = "\x1b[0m";

fn table(ctid: u32, rows: &[(&Beancounter, i128)], args: &UbcArgs, colour: bool) {
    let class = if args.verbose { " | UNIT  CLASS" } else { " | CLASS" };
    let fail = if args.relative { "+FAIL" } else { " FAIL" };
    let (diff, below) = if args.incremental { ("|  HELD+", "+-------") } else { ("", "") };
    print_line(&"-".repeat(74 + below.len()));
    print_line(&format!("CT {ctid:<11}| HELD Bar% Lim%| MAXH Bar% Lim%| BAR | LIM |{fail}{diff}{class}"));
    print_line(&format!("--------------+---------------+---------------+-----+-----+-----{below}-+--------"));
    // What is to be said goes on below, beside the names.
    let most = ui::columns().unwrap_or(COLUMNS).max(COLUMNS_LEAST);
    for (b, change) in rows {
        let share = |n: u64, of: u64| percent(n, of).map_or_else(|| "-".to_owned(), short_percent);
        let held = b.held.map_or_else(|| "-".into(), |n| short(&b.name, n));
        let (hb, hl) = b.held.map_or(("-".into(), "-".into()), |n| (share(n, b.barrier), share(n, b.limit)));
        let fail = if b.failcnt == 0 { "-".to_owned() } else { plain(b.failcnt) };
        let diff = match (args.incremental, change) {
            (false, _) => String::new(),
            (true, 0) => format!("| {:>6}", "-"),
            (true, n) => {
                let sign = if *n < 0 { '-' } else { '+' };
                format!(
                    "| {:>6}",
                    format!("{sign}{}", short(&b.name, u64::try_from(n.unsigned_abs()).unwrap_or(u64::MAX)))
                )
            }
        };
        let end = match args.verbose {
            true => {
                format!("{:<5} {}{}", b.unit, b.class, b.note.as_ref().map(|n| format!(": {n}")).unwrap_or_default())
            }
            false => b.class.clone(),
        };
        let line = format!(
            "{:>14}|{held:>5}{hb:>5}{hl:>5}|{:>5}{:>5}{:>5}|{:>5}|{:>5}|{fail:>5}{diff} | ",
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
        let lines = ui::wrap(&line, &end, 16, most);
        match tint.filter(|_| colour) {
            Some(tint) => print_line(&format!("{tint}{}{PLAIN}", lines.join("\n"))),
            None => print_line(&lines.join("\n")),
        }
    }
}

/// At most four characters, so that the next column stands apart: a percent sign, or so many times as much.
fn short_percent(p: f64) -> String {
    if p >= 99_950.0 {
        ">999".into()
    } else if p >= 999.5 {
        format!("{:.0}x", p / 100.0)
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
        for (p, shown) in [(999.4, "999%"), (999.6, "10x"), (99_949.0, "999x"), (99_950.0, ">999"), (1e18, ">999")] {
            assert_eq!(short_percent(p), shown);
        }
    }

    #[test]
    fn the_classic_tools_options_of_two_letters_are_taken() {
        let say = |words: &[&str]| {
            let argv = std::iter::once("vzubc").chain(words.iter().copied()).map(OsString::from).collect();
            UbcArgs::try_parse_from(modern(argv)).unwrap()
        };
        let a = say(&["-q", "-qh", "0.8", "-qm", "1", "101"]);
        assert!(a.quiet && a.q_held == 0.8 && a.q_maxheld == 1.0 && a.cts == ["101"]);
        let a = say(&["-w", "-wd", "-wn", "10", "web"]);
        assert_eq!((a.watch, a.cts.as_slice()), (Some(10), &["web".to_owned()][..]));
        assert_eq!(say(&["-w", "-wt", "-q", "-r"]).watch, Some(2));
        assert!(say(&["-rc", "-ic"]).clear);
        assert_eq!(say(&["-rd", "/x"]).store, Some("/x".into()));
        assert!(UbcArgs::try_parse_from(["vzubc", "--qh", "much"]).is_err());
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
