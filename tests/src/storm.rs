//! A storm of kills: vzd is killed (SIGKILL) again and again at random moments, under load, beside containers whose
//! hearts beat. Whoever calls it is told how soon each new vzd answered, and that nothing else was noticed.
//!
//! ```text
//!  storm        kill, start, first answer, a random moment, kill, ...
//!  workers      each its own CT, create start set exec stop destroy, over and over: each answer is held against what is there
//!  list, events what runs is listed as running by every vzd; no event is missed or told twice
//!  hearts       a line in a file of theirs and a datagram to the host, every 40 ms
//! ```

use crate::{Output, Rig, census::Census, probe, seen::Unharmed, template::Template::Tiny, wait};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    net::UdpSocket,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use vz_types::Ctid;

const SOON: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(20);
/// Between two beats, in milliseconds.
const PERIOD: u32 = 40;
/// Address of the host that hearts send to.
const HOST: &str = "198.51.100.2";
/// First CTID of those whose hearts beat.
const HEARTS: u32 = 101;
/// First CTID of those that are made and destroyed.
const WORKED: u32 = 301;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub struct Storm {
    /// How often vzd is killed.
    pub kills: usize,
    /// How many containers do nothing but live.
    pub hearts: u32,
    /// How many clients change others meanwhile.
    pub workers: u32,
    /// Where the random moments begin.
    pub seed: u64,
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    /// From the start of each new vzd to its first answer, sorted; of those that lived so long.
    pub answers: Vec<Duration>,
    /// How often it was killed before it served.
    pub unborn: usize,
    /// Beats there were.
    pub beats: u64,
    /// The longest time between two beats of one heart.
    pub gap: Duration,
    /// Datagrams that did not arrive.
    pub lost: u64,
    /// What clients were told, and how often.
    pub told: BTreeMap<&'static str, u64>,
    /// Events that were followed.
    pub events: usize,
    /// How long it took.
    pub took: Duration,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |d: Duration| format!("{:.0} ms", d.as_secs_f64() * 1000.0);
        let at = |percent: usize| {
            let last = self.answers.len().saturating_sub(1);
            self.answers.get(last * percent / 100).copied().unwrap_or_default()
        };
        writeln!(
            f,
            "{} kills in {:.0} s, {} of them before it served",
            self.answers.len() + self.unborn,
            self.took.as_secs_f64(),
            self.unborn
        )?;
        writeln!(f, "first answer: median {}, p99 {}, max {}", ms(at(50)), ms(at(99)), ms(at(100)))?;
        writeln!(f, "{} beats, largest gap {}, {} datagrams lost", self.beats, ms(self.gap), self.lost)?;
        writeln!(f, "{} events followed; clients were told: {:?}", self.events, self.told)
    }
}

/// Numbers that look random (xorshift64*), the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % n
    }

    /// Lets a random time pass.
    fn moment(&mut self, from: u64, to: u64) {
        let (_keep, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(Duration::from_millis(from + self.below(to - from)));
    }
}

/// Ends the load however the storm ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Storm {
    /// Kills vzd as often as it says, and looks.
    ///
    /// # Panics
    /// A container noticed, a request that was answered with success does not hold, one that was not has left neither the
    /// old state nor the new one, or something is left.
    #[track_caller]
    pub fn rage(self, rig: &Rig) -> Report {
        rig.host.ip(&format!("addr add {HOST}/32 dev lo"));
        let empty = rig.census();
        let hearts: Vec<u32> = (HEARTS..HEARTS + self.hearts).collect();
        let listener = rig.host.inside(|| UdpSocket::bind((HOST, 0))).expect("a socket of the host's");
        listener.set_read_timeout(Some(MOMENT)).expect("a timeout");
        // Room for what comes while the reader gets no processor.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&listener, 8 << 20).expect("a buffer");
        let port = listener.local_addr().expect("its address").port();
        let (over, told) = (AtomicBool::new(false), Mutex::new(BTreeMap::new()));
        let (mut report, unharmed, calm) = thread::scope(|s| {
            let ends = Over(&over);
            // From the first beat on: a socket that nobody reads is full soon.
            let all = s.spawn(|| received(&listener, &over));
            begin_hearts(rig, &hearts, port);
            let unharmed = Unharmed::of(rig, &hearts);
            let calm = rig.census();
            let events = s.spawn(|| followed(rig, &over));
            let list = s.spawn(|| listed(rig, &hearts, &over));
            let workers: Vec<_> = (0..self.workers)
                .map(|n| {
                    let worker = Worker { rig, ctid: WORKED + n, heart: HEARTS + n % self.hearts, told: &told };
                    let over = &over;
                    s.spawn(move || worker.work(over))
                })
                .collect();
            let (mut report, begun) = (Report::default(), Instant::now());
            {
                let _ends = ends;
                let mut dice = Dice(self.seed | 1);
                for n in 0..self.kills {
                    let failed = events.is_finished() || list.is_finished() || workers.iter().any(|w| w.is_finished());
                    if failed {
                        break;
                    }
                    // A vzd that has just been started, or one that has served for a while.
                    match dice.below(6) {
                        0 => dice.moment(0, 60),
                        _ => dice.moment(10, 400),
                    }
                    rig.kill_vzd();
                    let spared = dice.below(6) != 0 || n + 1 == self.kills;
                    match rig.next_vzd(spared) {
                        Some(took) => report.answers.push(took),
                        None => report.unborn += 1,
                    }
                    for (ctid, _, init) in &unharmed.0 {
                        let ended = init.ended(Duration::ZERO).expect("polling a process");
                        assert!(!ended, "kill {n}: CT {ctid} was ended\n{}", rig.vzd_log(60));
                    }
                }
            }
            report.took = begun.elapsed();
            workers.into_iter().for_each(|w| join(w.join()));
            join(list.join());
            report.events = join(events.join());
            let arrived = join(all.join());
            (report.beats, report.gap, report.lost) = count(rig, &hearts, &arrived);
            (report, unharmed, calm)
        });
        report.answers.sort();
        report.told = told.into_inner().unwrap_or_else(PoisonError::into_inner);
        unharmed.assert_taken_in(rig, "after the storm");
        let open = rig.ok(&["--json", "operations", "--open"]).json();
        assert_eq!(open.as_array().map(Vec::len), Some(0), "{open}");
        nothing_but(rig, &calm, "after the storm");
        for ctid in hearts {
            rig.ok(&["stop", &ctid.to_string(), "--fast"]);
            rig.ok(&["destroy", &ctid.to_string()]);
        }
        nothing_but(rig, &empty, "at the end");
        report
    }
}

/// What a destroyed container's configuration is kept as does not count.
#[track_caller]
fn nothing_but(rig: &Rig, before: &Census, when: &str) {
    let changes = before.changes(&rig.census().without(|l| l.ends_with(".destroyed")));
    assert!(changes.is_empty(), "{when}: resources differ\n{}\n--- vzd\n{}", changes.join("\n"), rig.vzd_log(60));
}

fn join<T>(joined: thread::Result<T>) -> T {
    joined.unwrap_or_else(|cause| std::panic::resume_unwind(cause))
}

fn begin_hearts(rig: &Rig, hearts: &[u32], port: u16) {
    let program = fs::read(probe::beat()).expect("reading the heartbeat");
    let one = |ctid: u32| {
        let (id, address) = (ctid.to_string(), format!("10.99.0.{}", ctid - 100));
        rig.create(ctid, Tiny, &["--ipadd", &address]);
        rig.ok(&["start", &id]);
        rig.settled(ctid);
        rig.vzctl_with(&["exec2", &id, "cat >/bin/beat; chmod 755 /bin/beat"], &program).ok();
        let line = format!("setsid beat /root/beats {HOST} {port} {ctid} {PERIOD} </dev/null >/dev/null 2>&1 &");
        rig.inside(ctid, &line);
    };
    thread::scope(|s| {
        hearts.chunks(hearts.len().div_ceil(4)).for_each(|some| drop(s.spawn(|| some.iter().for_each(|c| one(*c)))));
    });
    for ctid in hearts {
        let beats = || (rig.inside(*ctid, "wc -l </root/beats").parse::<u32>().ok()? > 2).then_some(());
        wait::retry(SOON, MOMENT, beats).unwrap_or_else(|| panic!("the heart of CT {ctid} does not beat"));
    }
}

/// Every datagram until it is over, and those that are on their way then: container and number.
fn received(listener: &UdpSocket, over: &AtomicBool) -> Vec<(u32, u64)> {
    let mut all = Vec::new();
    let mut bytes = [0; 256];
    loop {
        match listener.recv(&mut bytes) {
            Ok(n) => {
                let text = String::from_utf8_lossy(&bytes[..n]).into_owned();
                let mut words = text.split_whitespace();
                let (ctid, beat) =
                    (words.next().and_then(|w| w.parse().ok()), words.next().and_then(|w| w.parse().ok()));
                all.push((ctid.expect("a CTID"), beat.expect("a number")));
                // Hearts go on beating.
                if over.load(Ordering::Acquire) {
                    return all;
                }
            }
            Err(_) if over.load(Ordering::Acquire) => return all,
            Err(_) => {}
        }
    }
}

/// Beats there were, the longest time between two of them, and how many datagrams did not arrive.
fn count(rig: &Rig, hearts: &[u32], arrived: &[(u32, u64)]) -> (u64, Duration, u64) {
    let (mut beats, mut gap, mut lost) = (0, Duration::ZERO, 0);
    for ctid in hearts {
        let text = rig.inside(*ctid, "cat /root/beats");
        let mut last: Option<(u64, u64)> = None;
        for line in text.lines() {
            let words: Vec<u64> = line.split(' ').filter_map(|w| w.parse().ok()).collect();
            let [_, n, at] = words[..] else { panic!("CT {ctid}: a beat is `{line}`") };
            match last {
                None => assert_eq!(n, 0, "CT {ctid}: the first beat"),
                Some((before, then)) => {
                    assert_eq!(n, before + 1, "CT {ctid}: a beat is missing");
                    gap = gap.max(Duration::from_micros(at - then));
                }
            }
            last = Some((n, at));
            beats += 1;
        }
        let numbers: BTreeSet<u64> = arrived.iter().filter(|(c, _)| c == ctid).map(|(_, n)| *n).collect();
        let ends = numbers.first().zip(numbers.last());
        let (first, last) = ends.unwrap_or_else(|| panic!("CT {ctid}: nothing of it arrived"));
        lost += last - first + 1 - numbers.len() as u64;
    }
    (beats, gap, lost)
}

/// Every vzd that answers lists the hearts as running.
fn listed(rig: &Rig, hearts: &[u32], over: &AtomicBool) {
    while !over.load(Ordering::Acquire) {
        let out = rig.vzlist(&["-H", "-o", "ctid,status"]);
        if out.code() != 0 {
            vzd_is_away(&out).unwrap_or_else(|| panic!("no honest answer:\n{out}--- vzd\n{}", rig.vzd_log(60)));
            continue;
        }
        for ctid in hearts {
            let id = ctid.to_string();
            let line = out.stdout.lines().find(|l| l.split_whitespace().next() == Some(&id));
            let runs = line.is_some_and(|l| l.contains("running"));
            assert!(runs, "CT {ctid} is not shown to run:\n{out}--- vzd\n{}", rig.vzd_log(60));
        }
    }
}

/// Follows events over every vzd. How many there were; each once, and none is missing.
fn followed(rig: &Rig, over: &AtomicBool) -> usize {
    let mut seen: Vec<serde_json::Value> = Vec::new();
    let last = |seen: &[serde_json::Value]| seen.last().and_then(|e| e["id"].as_i64()).unwrap_or(0).to_string();
    let parsed = |text: &str| -> Vec<serde_json::Value> {
        // The last line of one that was ended may be cut off.
        text.lines().map_while(|l| serde_json::from_str(l).ok()).collect()
    };
    while !over.load(Ordering::Acquire) {
        let follower = rig.vzctl_running(&["--json", "events", "--all", "--follow", "--after", &last(&seen)]);
        let ended = || (follower.has_ended() || over.load(Ordering::Acquire)).then_some(());
        let _ = wait::retry(Duration::from_secs(600), MOMENT, ended);
        seen.extend(parsed(&follower.said()));
    }
    let rest = rig.ok(&["--json", "events", "--all", "--after", &last(&seen)]);
    seen.extend(parsed(&rest.stdout));
    let all = parsed(&rig.ok(&["--json", "events", "--all", "--after", "0"]).stdout);
    // Meanwhile there may have been more.
    assert!(all.len() >= seen.len(), "{} events were followed, {} are on record", seen.len(), all.len());
    if let Some(n) = (0..seen.len()).find(|n| all[*n] != seen[*n]) {
        panic!("event {n} of those that were followed is {}, on record it is {}", seen[n], all[n]);
    }
    seen.len()
}

/// What an answer says of vzd itself, where that is why it is no success.
fn vzd_is_away(out: &Output) -> Option<&'static str> {
    let words = [
        ("because vzd ended; it was taken back", "taken back"),
        ("nothing was changed", "not begun"),
        ("vzd went away before it began", "not begun"),
        ("vzd is not running", "no vzd"),
        ("the connection to vzd was lost", "lost"),
        ("cannot connect to", "lost"),
    ];
    words.iter().find(|(said, _)| out.stderr.contains(said)).map(|(_, what)| *what)
}

/// A client that makes, changes and destroys one container, over and over.
struct Worker<'a> {
    rig: &'a Rig,
    ctid: u32,
    /// A running one whose settings it changes.
    heart: u32,
    told: &'a Mutex<BTreeMap<&'static str, u64>>,
}

impl Worker<'_> {
    fn work(&self, over: &AtomicBool) {
        let id = self.ctid.to_string();
        let ip = format!("10.99.1.{}", self.ctid - WORKED + 1);
        let (absent, down, up) = ("deleted unmounted down", "exist unmounted down", "exist mounted running");
        for round in 0.. {
            let onboot = if round % 2 == 0 { "yes" } else { "no" };
            let stop: &[&str] = if round % 2 == 0 { &["stop", &id] } else { &["stop", &id, "--fast"] };
            self.leads(&["create", &id, "--ostemplate", "tiny", "--ipadd", &ip], absent, down);
            self.changes(self.ctid, &["--onboot", onboot], &format!("{round} of CT {id}"));
            self.leads(&["start", &id], down, up);
            self.changes(self.ctid, &["--hostname", &format!("h{round}")], &format!("{round} of CT {id}, running"));
            // Needs no vzd.
            assert_eq!(self.rig.inside(self.ctid, "echo hello"), "hello");
            self.changes(self.heart, &[], &format!("{round} by CT {id}"));
            self.leads(stop, up, down);
            self.leads(&["destroy", &id], down, absent);
            if over.load(Ordering::Acquire) {
                return;
            }
        }
    }

    /// Asks until it succeeds. Whatever is answered, the container is in the old state or in the new one.
    fn leads(&self, words: &[&str], old: &str, new: &str) {
        let is_so = |done: bool, out: &Output| {
            let now = self.rig.status(self.ctid);
            let right = now == new || !done && now == old;
            assert!(right, "`{now}` after\n{out}--- vzd\n{}", self.rig.vzd_log(80));
            now == new
        };
        self.until(words, is_so);
    }

    /// Changes the settings of a container and its description, until that succeeds.
    fn changes(&self, ctid: u32, more: &[&str], text: &str) {
        let id = ctid.to_string();
        let words = [&["set", id.as_str()], more, &["--description", text, "--save"]].concat();
        let file = self.rig.paths.conf(Ctid::try_from(ctid).expect("a CTID"));
        let before = fs::read_to_string(&file).unwrap_or_default();
        let is_so = |done: bool, out: &Output| {
            let now = fs::read_to_string(&file).unwrap_or_default();
            let is_new = now.contains(&format!("\"{text}\"")) || now.contains(&format!("'{text}'"));
            // Somebody else may have changed a heart meanwhile.
            let right = is_new || !done && now == before || ctid == self.heart;
            assert!(right, "after\n{out}\nit is\n{now}--- vzd\n{}", self.rig.vzd_log(80));
            is_new
        };
        self.until(&words, is_so);
    }

    /// Asks until what was to be is so.
    fn until(&self, words: &[&str], is_so: impl Fn(bool, &Output) -> bool) {
        let end = Instant::now() + 3 * SOON;
        loop {
            let out = self.rig.vzctl(words);
            let done = out.code() == 0;
            let what = match (done, vzd_is_away(&out)) {
                (true, _) => "done",
                (false, Some(what)) => what,
                // Another worker changes the same heart.
                (false, None) if out.stderr.contains("has been under way for") => "busy",
                (false, None) => panic!("no honest answer:\n{out}--- vzd\n{}", self.rig.vzd_log(80)),
            };
            *self.told.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += 1;
            if !done {
                self.calm();
            }
            if is_so(done, &out) {
                return;
            }
            assert!(Instant::now() < end, "it was not done for a minute:\n{out}--- vzd\n{}", self.rig.vzd_log(80));
        }
    }

    /// Waits until a vzd says that nothing is under way on it any more.
    fn calm(&self) {
        let id = self.ctid.to_string();
        let calm = || {
            let out = self.rig.vzctl(&["--json", "operations", &id, "--open"]);
            (out.code() == 0 && out.text() == "[]").then_some(())
        };
        wait::retry(3 * SOON, MOMENT, calm)
            .unwrap_or_else(|| panic!("an operation on CT {id} does not end\n--- vzd\n{}", self.rig.vzd_log(80)));
    }
}

impl Rig {
    /// Starts vzd after one was killed. `spared`: and waits for its first answer; how long that took.
    ///
    /// # Panics
    /// It does not answer.
    #[track_caller]
    pub fn next_vzd(&self, spared: bool) -> Option<Duration> {
        let before = self.socket_identity();
        let begun = Instant::now();
        self.spawn_vzd(&[]);
        if !spared {
            return None;
        }
        let answers = || {
            // The one that was killed has left its socket, at which nobody answers.
            let new = self.socket_identity().is_some_and(|now| Some(now) != before);
            let asked = new.then(|| self.try_asked("GET", "/v1/cts?brief=true", &[], "").ok()).flatten()?;
            (crate::background::answer(asked).0 == 200).then(|| begun.elapsed())
        };
        let took = wait::retry(SOON, Duration::from_millis(1), answers);
        Some(took.unwrap_or_else(|| panic!("the next vzd does not answer\n{}", self.vzd_log(60))))
    }
}
