//! Cancelling what is under way: starts whose monitor is stuck, builds and imports, by `vzctl cancel` and by Ctrl-C; and
//! imports that are left to go on.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use expectrl::Expect;
use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::Write,
    path::PathBuf,
    process::Command,
    time::Duration,
};
use vz_tests::{
    Rig, command,
    template::Template::Tiny,
    wait::{self, Process},
};
use vz_types::ExitCode;

const SOON: Duration = Duration::from_secs(20);
const MOMENT: Duration = Duration::from_millis(20);
/// What is cancelled is over by then, on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(5);

/// A stopped tiny system whose monitor waits as long as the file is there.
fn held() -> (Rig, PathBuf) {
    let rig = Rig::stopped(&[Tiny]);
    let hold = rig.hold_monitors_by("hold");
    rig.start_vzd(&[]);
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1"]);
    (rig, hold)
}

/// The monitor that vzd has just spawned.
fn young_monitor(rig: &Rig) -> Process {
    let vzd = rig.vzd_pid().to_string();
    let find = || {
        fs::read_dir("/proc").unwrap().flatten().find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let parent = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.to_owned();
            let words = fs::read(entry.path().join("cmdline")).ok()?;
            let is_monitor = words.split(|b| *b == 0).nth(1) == Some(b"run");
            if parent == vzd && is_monitor { Process::open(pid).ok() } else { None }
        })
    };
    wait::retry(SOON, MOMENT, find).expect("vzd has a monitor that begins")
}

#[test]
fn a_start_whose_monitor_is_stopped_is_cancelled_at_once() {
    let (rig, hold) = held();
    let before = rig.census();
    for by in ["cancel", "stop", "kill"] {
        fs::write(&hold, "").unwrap();
        let start = rig.vzctl_running(&["start", "101"]);
        let id = rig.wait_step(101, "namespaces", SOON);
        let monitor = young_monitor(&rig);
        monitor.pause(true);
        let out = match by {
            "cancel" => rig.ok(&["cancel", &id]).says("was cancelled"),
            "stop" => rig.ok(&["stop", "101"]),
            // The next vzd takes it back, and does not wait for it either.
            _ => {
                rig.kill_vzd();
                rig.start_vzd(&[]);
                rig.vzctl(&["wait", &id])
            }
        };
        assert!(out.took < AT_ONCE, "{out}");
        assert!(monitor.ended(SOON).unwrap(), "its monitor is there still");
        let said = start.ends(SOON);
        assert!(said.code() != 0, "{by}: {said}");
        assert_eq!(rig.status(101), "exist unmounted down", "{by}");
        rig.assert_census(&before, by);
    }
    fs::remove_file(&hold).unwrap();
    rig.ok(&["start", "101"]);
}

/// The tiny system's files in an archive, and a FIFO it can be fed through: read up to the middle, it is waited for.
struct Archive {
    bytes: Vec<u8>,
    fifo: PathBuf,
}

impl Archive {
    fn new(rig: &Rig) -> Self {
        let mut b = tar::Builder::new(Vec::new());
        b.follow_symlinks(false);
        let home = Tiny.cached();
        b.append_dir_all(".", home.join(fs::read_link(home.join("current")).unwrap()).join("root")).unwrap();
        let fifo = rig.paths.base.join("archive.tar");
        let mut mkfifo = Command::new("mkfifo");
        command::run(mkfifo.arg(&fifo), None, SOON).unwrap().ok();
        Self { bytes: b.into_inner().unwrap(), fifo }
    }

    fn path(&self) -> &str {
        self.fifo.to_str().unwrap()
    }

    /// Opens it when somebody reads it, and sends its first half.
    fn half(&self) -> File {
        let mut pipe = OpenOptions::new().write(true).open(&self.fifo).unwrap();
        pipe.write_all(&self.bytes[..self.bytes.len() / 2]).unwrap();
        pipe
    }

    fn rest(&self, mut pipe: File) {
        pipe.write_all(&self.bytes[self.bytes.len() / 2..]).unwrap();
    }
}

/// The number of the one operation that is open, once it is at this step.
#[track_caller]
fn open_at(rig: &Rig, step: &str) -> String {
    let look = || {
        let all = rig.ok(&["--json", "operations", "--open"]).json();
        let one = all.as_array()?.iter().find(|o| o["step"] == step)?.clone();
        one["id"].as_str().map(str::to_owned)
    };
    wait::retry(SOON, MOMENT, look).unwrap_or_else(|| panic!("nothing is at `{step}`\n{}", rig.vzd_log(30)))
}

fn nothing_made(rig: &Rig) {
    let web = rig.paths.template_dir().join("web");
    assert!(!web.exists(), "{} is left", web.display());
    let staging = rig.paths.template_dir().join(".staging");
    let left = || fs::read_dir(&staging).map_or(0, |d| d.flatten().count());
    assert!(wait::retry(SOON, MOMENT, || (left() == 0).then_some(())).is_some(), "staging is left");
    assert_eq!(rig.ok(&["--json", "operations", "--open"]).text(), "[]");
}

#[test]
fn an_import_is_cancelled_at_once_and_leaves_nothing() {
    let rig = Rig::new(&[]);
    let archive = Archive::new(&rig);
    for by in ["cancel", "ctrl-c"] {
        let import = rig.vzctl_running(&["template", "import", archive.path(), "--name", "web"]);
        let pipe = archive.half();
        let id = open_at(&rig, "unpack");
        match by {
            "cancel" => {
                let out = rig.ok(&["cancel", &id]).says("was cancelled");
                assert!(out.took < AT_ONCE, "{out}");
            }
            // Without a terminal it cancels.
            _ => import.process().interrupt(),
        }
        // Although more of the archive may be to come.
        let said = import.ends(SOON);
        assert!(said.code() != 0 && said.stderr.contains("cancelled"), "{by}: {said}");
        drop(pipe);
        nothing_made(&rig);
        assert_eq!(rig.ok(&["--json", "operations", "--template", "web"]).json()[0]["state"], "cancelled");
    }
    let import = rig.vzctl_running(&["template", "import", archive.path(), "--name", "web"]);
    archive.rest(archive.half());
    import.ends(SOON).ok();
}

#[test]
fn ctrl_c_at_a_terminal_asks_waits_on_and_cancels() {
    let (rig, hold) = held();
    let archive = Archive::new(&rig);
    let before = rig.census();
    fs::write(&hold, "").unwrap();
    let session = |words: &[&str]| {
        let mut session = expectrl::Session::spawn(rig.vzctl_command(words)).unwrap();
        session.get_process_mut().set_window_size(120, 30).unwrap();
        session.set_expect_timeout(Some(SOON));
        session
    };
    let mut start = session(&["start", "101"]);
    rig.wait_step(101, "namespaces", SOON);
    start.send("\x03").unwrap();
    start.expect("[c/l/w]").unwrap();
    start.send_line("w").unwrap();
    // Nothing is drawn as long as it asks; then it waits on.
    start.expect("namespaces").unwrap();
    start.send("\x03").unwrap();
    start.expect("[c/l/w]").unwrap();
    start.send_line("c").unwrap();
    rig.wait_open(101, ("state", "cancelling"), SOON);
    fs::remove_file(&hold).unwrap();
    start.expect("cancelled").unwrap();
    start.expect(expectrl::Eof).unwrap();
    assert_eq!(rig.status(101), "exist unmounted down");
    rig.assert_census(&before, "after Ctrl-C");
    // Once more at the question leaves it going on.
    fs::write(&hold, "").unwrap();
    let mut start = session(&["start", "101"]);
    let id = rig.wait_step(101, "namespaces", SOON);
    start.send("\x03").unwrap();
    start.expect(id.as_str()).unwrap();
    start.expect("[c/l/w]").unwrap();
    start.send("\x03").unwrap();
    start.expect(expectrl::Eof).unwrap();
    fs::remove_file(&hold).unwrap();
    rig.ok(&["wait", &id]);
    rig.ok(&["stop", "101", "--fast"]);
    // What tells of itself as it goes asks as well.
    let mut import = session(&["template", "import", archive.path(), "--name", "web"]);
    let pipe = archive.half();
    open_at(&rig, "unpack");
    import.send("\x03").unwrap();
    import.expect("[c/l/w]").unwrap();
    import.send_line("c").unwrap();
    import.expect("cancelled").unwrap();
    import.expect(expectrl::Eof).unwrap();
    drop(pipe);
    assert!(!rig.paths.template_dir().join("web").exists());
}

#[test]
fn an_import_can_be_left_to_go_on_once_its_archive_is_sent() {
    let rig = Rig::new(&[]);
    let archive = Archive::new(&rig);
    let words = ["--json", "--background", "template", "import", archive.path(), "--name", "web"];
    let import = rig.vzctl_running(&words);
    let pipe = archive.half();
    let id = open_at(&rig, "unpack");
    assert!(!import.has_ended(), "it leaves although only half of the archive is sent: {}", import.said());
    archive.rest(pipe);
    let said = import.ends(SOON).ok();
    assert_eq!(said.json()["operation"], id.as_str(), "{said}");
    rig.ok(&["wait", &id]);
    let shown = rig.ok(&["--json", "template", "show", "web"]).json();
    assert_eq!(shown["status"], "ready", "{shown}");
    let kept = rig.ok(&["--json", "operations", "--template", "web"]).json();
    assert_eq!((&kept[0]["kind"], &kept[0]["state"]), (&"import".into(), &"done".into()), "{kept}");
    // From standard input; and what cannot be used is told, at once where that is known by then.
    let input = ["--background", "template", "import", "-", "--name", "other"];
    let out = rig.vzctl_with(&input, &archive.bytes).ok();
    let id = out.stdout.split_whitespace().find(|w| w.trim_end_matches(':').len() == 26).unwrap().to_owned();
    rig.ok(&["wait", id.trim_end_matches(':')]);
    let ends = |name: &str, bytes: &[u8]| {
        let out = rig.vzctl_with(&["--background", "template", "import", "-", "--name", name], bytes);
        if out.code() != 0 {
            return out;
        }
        // Found out only later: then it is the operation that tells.
        let id = out.stdout.split_whitespace().find(|w| w.trim_end_matches(':').len() == 26).unwrap();
        rig.vzctl(&["wait", id.trim_end_matches(':')])
    };
    ends("bad", &vec![b'x'; 4 << 20]).expect_code(ExitCode::BadTemplate.code().into());
    // The very same once more is what is there already.
    ends("web", &archive.bytes).ok();
    assert!(!rig.paths.template_dir().join("bad").exists());
}

#[test]
fn a_background_import_whose_vzd_is_killed_ends_as_failed_and_leaves_nothing() {
    let rig = Rig::new(&[]);
    let archive = Archive::new(&rig);
    let import = rig.vzctl_running(&["--background", "template", "import", archive.path(), "--name", "web"]);
    let pipe = archive.half();
    let id = open_at(&rig, "unpack");
    rig.kill_vzd();
    rig.start_vzd(&[]);
    let said = import.ends(SOON);
    assert!(said.code() != 0 && said.stderr.contains("vzd ended"), "{said}");
    drop(pipe);
    rig.refused(&["wait", &id], ExitCode::System, "vzd ended");
    nothing_made(&rig);
}

#[test]
fn a_step_is_told_once_where_there_is_no_terminal() {
    let (rig, hold) = held();
    rig.ok(&["start", "101"]);
    rig.settled(101);
    rig.make_slow_to_stop(101, 3);
    fs::write(&hold, "").unwrap();
    let restart = rig.vzctl_running(&["restart", "101"]);
    // Both halves take long enough to be told of.
    rig.wait_step(101, "namespaces", SOON);
    let told = || restart.warned().contains("namespaces").then_some(());
    wait::retry(SOON, MOMENT, told).expect("it says what it is at");
    fs::remove_file(&hold).unwrap();
    let said = restart.ends(SOON).ok();
    let steps: Vec<&str> = said.stderr.lines().map(|l| l.split(" (").next().unwrap_or(l)).collect();
    let once: BTreeSet<&str> = steps.iter().copied().collect();
    assert_eq!(once.len(), steps.len(), "{said}");
    assert!(steps.iter().any(|s| s.ends_with(": signal")), "{said}");
}

#[test]
fn a_set_that_is_left_behind_restarts_its_container_too() {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, &[]);
    rig.ok(&["start", "101"]);
    rig.settled(101);
    let before = rig.record(101).monitor;
    let words = ["--background", "set", "101", "--features", "nesting:on", "--save", "--setmode", "restart"];
    rig.ok(&words).says("vzctl wait");
    let other = || {
        let text = fs::read_to_string(rig.ct_run(101).join("state.json")).ok()?;
        let record: vz_types::run::RunRecord = serde_json::from_str(&text).ok()?;
        (record.monitor != before).then_some(())
    };
    wait::retry(SOON, MOMENT, other).unwrap_or_else(|| panic!("it was not restarted\n{}", rig.vzd_log(40)));
    rig.wait_state(101, "running");
    let kinds: Vec<String> = rig
        .ok(&["--json", "operations", "101", "--limit", "2"])
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|o| o["kind"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(kinds, ["restart", "set"]);
}
