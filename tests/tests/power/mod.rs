//! A host that is busy with everything at once when its power goes, and what must hold when it is back: every container
//! and OS template is in its old state or in its new one, what was answered is there, and nothing is left of the rest.
//!
//! Each change carries a generation in all it sets, so that a mixture of two shows. The guest tells each operation before
//! and after; what it told before the cut is what is held against it ([`history`]), and what is there is looked at from
//! outside vzd: files, and the inventory as a file ([`found`]).

#![allow(dead_code)] // two test programs use this, each its part

mod found;
mod history;

use found::Found;
use history::{History, State};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use vz_tests::vm::{BOOT, Vm, link::quoted};

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
/// Nothing that was not asked for reaches a disk: neither a file's pages nor the journal of the file system go by themselves.
const UNFLUSHED: &str = "sysctl -qw vm.dirty_writeback_centisecs=0 vm.dirty_expire_centisecs=720000 \
     vm.dirty_background_ratio=80 vm.dirty_ratio=90 && \
     mount -o remount,commit=3600 / && mount -o remount,commit=3600 /var/lib/vz && \
     findmnt -no OPTIONS /var/lib/vz | grep commit=3600";

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

/// The host.
pub struct Power<'a> {
    vm: &'a Vm,
    state: BTreeMap<String, State>,
    round: u32,
    /// Cuts by kind of what was under way.
    pub cuts: BTreeMap<String, u32>,
    /// Operations by how they were found: kind, then `old`, `new`, or `answered`.
    pub outcomes: BTreeMap<(String, &'static str), u32>,
    /// What must not be.
    pub problems: Vec<String>,
}

impl<'a> Power<'a> {
    /// Makes what the workers start from.
    pub fn new(vm: &'a Vm) -> Self {
        let mut host = Self {
            vm,
            state: BTreeMap::new(),
            round: 0,
            cuts: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            problems: Vec::new(),
        };
        host.clear();
        vm.ok("mkdir -p /etc/vz/templates && printf \"description = 'x'\\ntree = '/run/power/power-built'\\ninit = 'any'\\n\" \
               >/etc/vz/templates/power-built.toml && sync");
        host.push();
        for (ctid, g) in SET.as_flattened().iter().chain(&[RUNS, STARTED]).zip(1..) {
            host.guest(&format!("create {ctid} {g}"));
            host.state.insert(ctid.to_string(), State::Is(g));
        }
        vm.ok(&format!("vzctl set {RUNS} --onboot yes --save && vzctl start {RUNS}"));
        for name in CHURNED.as_flattened().iter().map(u32::to_string).chain(TEMPLATES.map(String::from)) {
            host.state.insert(name, State::Absent);
        }
        vm.ok(UNFLUSHED);
        host
    }

    /// Containers of this, for whoever clears up.
    pub fn ctids() -> Vec<u32> {
        CHURNED.as_flattened().iter().chain(SET.as_flattened()).copied().chain([RUNS, STARTED]).collect()
    }

    /// Takes away what it has made.
    pub fn clear(&self) {
        self.vm.clear(&Self::ctids());
        for name in TEMPLATES {
            self.vm.sh(&format!("vzctl template list | grep -q ^{name} && vzctl template remove {name}; rm -f /etc/vz/templates/{name}.toml"));
        }
    }

    fn push(&self) {
        self.vm.sh_with("cat >/run/power.sh", include_bytes!("guest.sh"), BOOT).ok();
    }

    /// A line with the guest's functions.
    fn guest(&self, line: &str) {
        self.vm.ok(&format!(". /run/power.sh; {line}"));
    }

    /// The workers of this round, as one line.
    fn workers(&self, vzd: &str) -> String {
        let base = self.round * ROUND;
        let mut line = format!(". /run/power.sh; guard {vzd} & ");
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
        let vm = self.vm;
        self.round += 1;
        let vzd = "systemctl show -p MainPID --value vzd";
        let vzd = match cut {
            Cut::At(point) => vm.ok(&format!(
                "mkdir -p /run/systemd/system/vzd.service.d && \
                 printf '[Service]\\nEnvironment=VZ_FAULT={point}\\nRestart=no\\n' >/run/systemd/system/vzd.service.d/fault.conf && \
                 systemctl daemon-reload && systemctl restart vzd && {vzd}"
            )),
            _ => vm.ok(vzd),
        };
        let stream = vm.stream(&self.workers(&vzd));
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
        vm.cut_power();
        lines.extend(stream.rest());
        let history = History::of(&lines);
        let died = lines.iter().any(|l| l == "dead");
        let begun = Instant::now();
        vm.power_on();
        let boot = begun.elapsed();
        vm.sh_with(&format!("cat >/run/power.sh && {UNFLUSHED}"), include_bytes!("guest.sh"), BOOT).ok();
        let before = self.problems.len();
        if late || died != matches!(cut, Cut::At(_)) {
            self.problem(format!("{cut:?} did not come to be: {:?}", lines.last()));
        }
        self.check(&history, died);
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
    fn check(&mut self, history: &History, died: bool) {
        let vm = self.vm;
        let quiet = "test \"$(vzctl operations --open --json | tr -d ' \\n')\" = '[]' && test -z \"$(ls -A /var/lib/vz/trash)\"";
        let settled = vm.sh_within(
            &format!(
                "for i in $(seq {}); do {{ {quiet}; }} && break; sleep 1; done; {quiet}; r=$?; \
                 systemctl --failed --no-legend; dmesg | grep -E 'EXT4-fs (error|warning)'; exit $r",
                RECOVERY.as_secs()
            ),
            RECOVERY * 3,
        );
        if settled.code() != 0 || !settled.text().is_empty() {
            let left = vm.sh("vzctl operations --open; ls -lA /var/lib/vz/trash").stdout;
            self.problem(format!("recovery does not end well: {settled}{left}{}", vm.vzd_log(40)));
        }
        let found = Found::look(vm);
        for what in found.strange(&self.state) {
            self.problem(format!("{what}\n{}", vm.vzd_log(60)));
        }
        let names: Vec<String> = self.state.keys().cloned().collect();
        for name in names {
            let old = self.state[&name];
            let told = history.about(&name);
            let possible = history::possible(old, &told);
            let is = match found.state(&name) {
                Ok(is) if possible.contains(&is) => is,
                Ok(is) => {
                    self.problem(format!("{name} was {old}, and is {is} after {told:?}\n{}", vm.vzd_log(60)));
                    is
                }
                Err(half) => {
                    self.problem(format!("{name} was {old}, and is half after {told:?}: {half}\n{}", vm.vzd_log(60)));
                    self.heal(&name);
                    State::Absent
                }
            };
            self.state.insert(name, is);
            self.count(&told, old, is);
        }
        if !died {
            for (op, said) in history.refused() {
                self.problem(format!("{op} failed before the cut: {said}"));
            }
        }
        let runs = vm.sh(&format!(
            "vzlist -H -o hostname {RUNS}; vzctl exec2 {RUNS} 'hostname; ip -o -4 addr show scope global'"
        ));
        let State::Is(g) = self.state[&RUNS.to_string()] else { return self.problem(format!("CT {RUNS} is gone")) };
        let address = found::address(RUNS, g);
        if runs.code() != 0
            || !runs.stdout.contains(&format!("g{g}\n"))
            || !runs.stdout.contains(&format!("{address}/"))
        {
            self.problem(format!("CT {RUNS} of generation {g} does not run as it is to: {runs}\n{}", vm.vzd_log(40)));
        }
    }

    /// What was under way is asked for again: it is done, or it was done already. What was created starts, and what was made
    /// of a template.
    fn again(&mut self, history: &History) {
        let base = self.round * ROUND + ROUND / 2;
        let mut wanted: BTreeMap<String, (i32, State)> = BTreeMap::new();
        let mut line = String::from(". /run/power.sh; ");
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
        let out = self.vm.sh(&(line + "wait"));
        let told = History::of(&out.stdout.lines().map(String::from).collect::<Vec<_>>());
        for (name, (code, then)) in wanted {
            match told.about(&name).last() {
                Some(op) if op.code == Some(code) => {
                    self.state.insert(name, then);
                }
                other => {
                    let log = self.vm.vzd_log(40);
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
        let out = self.vm.sh(&format!(". /run/power.sh; {{ {}; }} 2>&1", lines.join(" && ")));
        if out.code() != 0 {
            self.problem(format!("what was created does not work: {out}{}", self.vm.vzd_log(40)));
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
    fn heal(&self, name: &str) {
        if name.parse::<u32>().is_ok() {
            self.vm.sh(&format!(
                "vzctl stop {name} --fast; vzctl destroy {name}; rm -rf /var/lib/vz/private/{name} /var/lib/vz/private/.new-{name} /etc/vz/conf/{name}.toml"
            ));
            if SET.as_flattened().iter().chain(&[RUNS, STARTED]).any(|c| c.to_string() == name) {
                let line = format!("create {name} {}", self.round * ROUND + ROUND - 1);
                self.vm.sh(&format!(". /run/power.sh; {}", quoted(&line)));
            }
        }
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
