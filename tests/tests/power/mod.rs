//! A host that is busy with everything at once when its power goes, and what must hold when it is back: every container
//! and OS template is in its old state or in its new one, what was answered is there, and nothing is left of the rest.
//!
//! Each change carries a generation in all it sets, so that a mixture of two shows. The guest tells each operation before
//! and after; what it told before the cut is what is held against it ([`history`]), and what is there is looked at from
//! outside vzd: files, and the inventory as a file ([`found`]).

#![allow(dead_code)] // two test programs use this, each its part

mod found;
mod history;
pub mod site;

use found::Found;
use history::{History, State};
use site::Site;
use std::{
    collections::BTreeMap,
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant},
};
use vz_tests::{command::Output, vm::LIMIT};

/// Of each round, so many generations.
const ROUND: u32 = 200;
/// How long what was interrupted may take to be finished or taken back.
const RECOVERY: Duration = Duration::from_secs(120);
/// Created and destroyed all the time, by three workers.
const CHURNED: [[u32; 3]; 3] = [[2301, 2302, 2303], [2304, 2305, 2306], [2307, 2308, 2309]];
/// Stopped, and changed all the time by two workers.
const SET: [[u32; 2]; 2] = [[2311, 2312], [2313, 2314]];
/// Runs, is changed all the time, and is to run after every boot.
const RUNS: u32 = 2321;
/// Started and stopped all the time.
const STARTED: u32 = 2322;
/// Built from a recipe, and imported.
const TEMPLATES: [&str; 2] = ["power-built", "power-imported"];
/// Exit codes of what is there already, and of what is not there.
const EXISTS: i32 = 44;
const NO_CONTAINER: i32 = 14;
const NO_TEMPLATE: i32 = 91;
/// When the power goes.
#[derive(Clone, Copy, Debug)]
pub enum Cut {
    /// So long after the first operation began.
    After(Duration),
    /// With the n-th good answer to an operation of this kind.
    Answered(&'static str, u32),
    /// When vzd has come to this fault point, where it ends.
    At(&'static str),
}

/// Steps whose durability something that comes after relies on.
pub const POINTS: &[&str] = &[
    "create.claim",
    "create.layer",
    "create.place",
    "create.conf",
    "create.commit.before",
    "create.commit",
    "set.claim",
    "set.conf",
    "set.grow",
    "set.commit",
    "destroy.journal",
    "destroy.conf",
    "destroy.trash",
    "destroy.delete",
    "destroy.commit",
    "build.register",
    "build.switch",
    "build.commit",
    "import.register",
    "import.commit",
    "remove.hide",
    "remove.commit",
];
/// Kinds whose good answer the power goes with.
const ANSWERS: &[&str] = &["create", "set", "destroy", "build", "import", "remove"];

/// So many cuts: at steps, with answers and at random, each of them soon.
pub fn cuts(count: usize) -> Vec<Cut> {
    let mut all: Vec<Cut> = Vec::new();
    for n in 0.. {
        all.push(Cut::At(POINTS[n % POINTS.len()]));
        all.push(Cut::Answered(ANSWERS[n % ANSWERS.len()], 1 + (random() % 3) as u32));
        all.push(Cut::After(Duration::from_millis(200 + random() % 6000)));
        if all.len() >= count {
            break;
        }
    }
    all.truncate(count);
    all
}

/// Any number; it is told with the cut it was used for.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The host.
pub struct Power<S: Site> {
    site: S,
    state: BTreeMap<String, State>,
    round: u32,
    /// Cuts by kind of what was under way.
    pub cuts: BTreeMap<String, u32>,
    /// Operations by how they were found: kind, then `old`, `new`, or `answered`.
    pub outcomes: BTreeMap<(String, &'static str), u32>,
    /// What must not be.
    pub problems: Vec<String>,
}

impl<S: Site> Power<S> {
    /// Makes what the workers start from.
    pub fn new(mut site: S) -> Self {
        site.power_on();
        let mut host = Self {
            site,
            state: BTreeMap::new(),
            round: 0,
            cuts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            problems: Vec::new(),
        };
        host.clear();
        host.ok("mkdir -p $VZ_ROOT/etc/vz/templates && \
                 printf \"description = 'x'\\ntree = '$WORK/power-built'\\ninit = 'any'\\n\" \
                 >$VZ_ROOT/etc/vz/templates/power-built.toml && sync -f $VZ_ROOT/etc/vz");
        for (ctid, g) in SET.as_flattened().iter().chain(&[RUNS, STARTED]).zip(1..) {
            host.ok(&format!("create {ctid} {g}"));
            host.state.insert(ctid.to_string(), State::Is(g));
        }
        host.ok(&format!("vzctl set {RUNS} --onboot yes --save && vzctl start {RUNS}"));
        for name in CHURNED.as_flattened().iter().map(u32::to_string).chain(TEMPLATES.map(String::from)) {
            host.state.insert(name, State::Absent);
        }
        host
    }

    fn sh(&self, line: &str) -> Output {
        self.site.run(line, LIMIT)
    }

    #[track_caller]
    fn ok(&self, line: &str) -> Output {
        let out = self.sh(line);
        assert_eq!(out.code(), 0, "expected success: {out}{}", self.site.log());
        out
    }

    /// Containers of this, for whoever clears up.
    pub fn ctids() -> Vec<u32> {
        CHURNED.as_flattened().iter().chain(SET.as_flattened()).copied().chain([RUNS, STARTED]).collect()
    }

    /// Takes away what it has made.
    pub fn clear(&self) {
        let ctids: Vec<String> = Self::ctids().iter().map(u32::to_string).collect();
        self.sh(&format!(
            "for c in {}; do vzctl status $c | grep -q deleted || {{ vzctl stop $c --fast; vzctl destroy $c; }}; \
             rm -rf $VZ_ROOT/var/lib/vz/private/$c $VZ_ROOT/etc/vz/conf/$c.toml; done; \
             for t in {}; do vzctl template remove $t; rm -f $VZ_ROOT/etc/vz/templates/$t.toml; done",
            ctids.join(" "),
            TEMPLATES.join(" ")
        ));
    }

    /// The workers of this round, as one line.
    fn workers(&self, vzd: &str) -> String {
        let base = self.round * ROUND;
        let mut line = format!("guard {vzd} & ");
        for worker in CHURNED {
            let told: Vec<String> = worker
                .iter()
                .map(|c| format!("{c}:{}", u8::from(self.state[&c.to_string()] != State::Absent)))
                .collect();
            line += &format!("churn {base} {} & ", told.join(" "));
        }
        for [a, b] in SET {
            line += &format!("setter {base} {a} {b} & ");
        }
        let [built, imported] = TEMPLATES;
        line + &format!(
            "setter {base} {RUNS} & starter {STARTED} & maker build {base} {built} & maker import {base} {imported} & wait"
        )
    }

    /// One cut, and what is there after it.
    pub fn cut(&mut self, cut: Cut) {
        self.round += 1;
        let fault = match cut {
            Cut::At(point) => Some(point),
            _ => None,
        };
        let vzd = self.site.vzd(fault);
        let stream = self.site.stream(&self.workers(&vzd));
        let mut lines = Vec::new();
        let mut answers = 0;
        // Bounded: a kind of operation that never comes, or a point that is never reached, is a mistake of the test.
        let end = Instant::now() + Duration::from_secs(90);
        let mut until = end;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Some(line) = stream.next(left) else { break };
            if let (Cut::After(time), true) = (cut, lines.is_empty()) {
                until = Instant::now() + time;
            }
            if let Cut::Answered(kind, _) = cut
                && history::is_answer(&line, kind)
            {
                answers += 1;
            }
            let dead = line == "dead";
            lines.push(line);
            if dead || matches!(cut, Cut::Answered(_, n) if answers >= n) {
                break;
            }
        }
        let late = Instant::now() >= end;
        self.site.cut();
        let died = lines.iter().any(|l| l == "dead");
        let refused = if died { Vec::new() } else { History::of(&lines).refused() };
        lines.extend(stream.rest());
        let history = History::of(&lines);
        let begun = Instant::now();
        self.site.power_on();
        let boot = begun.elapsed();
        let before = self.problems.len();
        if late || died != matches!(cut, Cut::At(_)) {
            self.problem(format!("{cut:?} did not come to be: {:?}", lines.last()));
        }
        self.check(&history);
        for (op, said) in refused {
            self.problem(format!("{op} failed before the cut: {said}"));
        }
        self.again(&history);
        for kind in history.under_way() {
            *self.cuts.entry(kind).or_default() += 1;
        }
        eprintln!(
            "cut {} {cut:?}: under way {:?}; {} answered; up after {} s, checked after {} s; {} problems",
            self.round,
            history.under_way(),
            history.answered(),
            boot.as_secs(),
            begun.elapsed().as_secs(),
            self.problems.len() - before
        );
    }

    fn problem(&mut self, what: String) {
        let what = format!("cut {}: {what}", self.round);
        eprintln!("PROBLEM {what}");
        self.problems.push(what);
    }

    /// Holds what is there against what was told.
    fn check(&mut self, history: &History) {
        if !self.site.boots() {
            self.sh(&format!("vzctl start {RUNS}"));
        }
        let quiet = "test \"$(vzctl operations --open --json | tr -d ' \\n')\" = '[]' && \
                     test -z \"$(ls -A $VZ_ROOT/var/lib/vz/trash)\"";
        let line =
            format!("for i in $(seq {}); do {{ {quiet}; }} && exit 0; sleep 1; done; exit 1", RECOVERY.as_secs());
        if self.site.run(&line, RECOVERY * 3).code() != 0 {
            let left = self.sh("vzctl operations --open; ls -lA $VZ_ROOT/var/lib/vz/trash");
            self.problem(format!("recovery does not end: {left}{}", self.site.log()));
        }
        let complaints = self.site.complaints();
        if !complaints.trim().is_empty() {
            self.problem(complaints);
        }
        let found = Found::look(&self.site);
        for what in found.strange(&self.state) {
            self.problem(format!("{what}\n{}", self.site.log()));
        }
        let names: Vec<String> = self.state.keys().cloned().collect();
        for name in names {
            let old = self.state[&name];
            let told = history.about(&name);
            let possible = history::possible(old, &told);
            let is = match found.state(&name) {
                Ok(is) if possible.contains(&is) => is,
                Ok(is) => {
                    self.problem(format!("{name} was {old}, and is {is} after {told:?}\n{}", self.site.log()));
                    is
                }
                Err(half) => {
                    self.problem(format!("{name} was {old}, and is half after {told:?}: {half}\n{}", self.site.log()));
                    self.heal(&name)
                }
            };
            self.state.insert(name, is);
            self.count(&told, old, is);
        }
        let runs = self.sh(&format!(
            "vzlist -H -o hostname {RUNS}; vzctl exec2 {RUNS} 'hostname; ip -o -4 addr show scope global'"
        ));
        let State::Is(g) = self.state[&RUNS.to_string()] else { return self.problem(format!("CT {RUNS} is gone")) };
        let address = found::address(RUNS, g);
        if runs.code() != 0
            || !runs.stdout.contains(&format!("g{g}\n"))
            || !runs.stdout.contains(&format!("{address}/"))
        {
            self.problem(format!("CT {RUNS} of generation {g} does not run as it is to: {runs}\n{}", self.site.log()));
        }
    }

    /// What was under way is asked for again: it is done, or it was done already. What was created starts, and what was made
    /// of a template.
    fn again(&mut self, history: &History) {
        let base = self.round * ROUND + ROUND / 2;
        let mut wanted: BTreeMap<String, (i32, State)> = BTreeMap::new();
        let mut line = String::new();
        for ((kind, name), g) in history.open().into_iter().zip(base..) {
            let is = self.state[&name];
            let (code, then) = match (kind.as_str(), is) {
                ("create", State::Is(_)) => (EXISTS, is),
                ("create", _) => (0, State::Is(g)),
                ("destroy", State::Absent) => (NO_CONTAINER, is),
                ("remove", State::Absent) => (NO_TEMPLATE, is),
                ("destroy" | "remove", _) => (0, State::Absent),
                ("set" | "build" | "import", _) => (0, State::Is(g)),
                _ => (0, is),
            };
            line += &format!("{} {name} {g} & ", if kind == "set" { "change" } else { &kind });
            wanted.insert(name, (code, then));
        }
        let out = self.sh(&(line + "wait"));
        let told = History::of(&out.stdout.lines().map(String::from).collect::<Vec<_>>());
        for (name, (code, then)) in wanted {
            match told.about(&name).last() {
                Some(op) if op.code == Some(code) => {
                    self.state.insert(name, then);
                }
                other => {
                    let log = self.site.log();
                    self.problem(format!("asked for again, expected {code}, CT or template {name}: {other:?}\n{log}"));
                }
            }
        }
        // STARTED may have been started.
        let mut lines = vec![format!("stop {STARTED} >/dev/null")];
        let created = history.answered_last("create");
        let there = |n: &&String| self.state[*n] != State::Absent;
        lines.extend(created.iter().find(there).map(|c| format!("works {c}")));
        let template = TEMPLATES[self.round as usize % 2];
        if let State::Is(g) = self.state[template] {
            lines.push(format!("works_from {template} {g}"));
        }
        let out = self.sh(&format!("{{ {}; }} 2>&1", lines.join(" && ")));
        if out.code() != 0 {
            self.problem(format!("what was created does not work: {out}{}", self.site.log()));
        }
    }

    fn count(&mut self, told: &[history::Told], old: State, is: State) {
        let mut at = old;
        for op in told {
            let how = match (op.code, op.after(at)) {
                (Some(0), after) => {
                    at = after;
                    "answered"
                }
                (_, after) if after == at => "either",
                (_, after) if after == is => "new",
                _ => "old",
            };
            *self.outcomes.entry((op.kind.clone(), how)).or_default() += 1;
        }
    }

    /// Makes room again, so that one problem is told once.
    fn heal(&mut self, name: &str) -> State {
        let Ok(ctid) = name.parse::<u32>() else { return State::Absent };
        self.sh(&format!(
            "vzctl stop {name} --fast; vzctl destroy {name}; cd $VZ_ROOT/var/lib/vz/private && rm -rf {name} .new-{name}; \
             rm -f $VZ_ROOT/etc/vz/conf/{name}.toml"
        ));
        if CHURNED.as_flattened().contains(&ctid) {
            return State::Absent;
        }
        let g = self.round * ROUND + ROUND - 1;
        self.sh(&format!(
            "create {name} {g}; [ {name} = {RUNS} ] && vzctl set {name} --onboot yes --save && vzctl start {name}"
        ));
        State::Is(g)
    }

    /// What all the cuts came to, and that nothing was wrong.
    pub fn sum_up(&self) {
        eprintln!("cuts with an operation of a kind under way: {:?}", self.cuts);
        for ((kind, how), n) in &self.outcomes {
            eprintln!("  {kind:<8} {how:<9} {n}");
        }
        eprintln!("{} cuts", self.round);
        assert!(self.problems.is_empty(), "{} problems:\n{}", self.problems.len(), self.problems.join("\n"));
    }
}
