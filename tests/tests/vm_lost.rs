//! A guest that hangs, crashes or goes away fails what waits for it, in time, and its console's log stays and is named.
//! The guests that are lost for good are small ones made here: a boot sector that says a line on the console.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    net::TcpListener,
    path::Path,
    time::{Duration, Instant},
};
use vz_tests::{
    vm::{
        VARIABLE, Vm,
        link::Link,
        machine::{Machine, Spec},
    },
    wait::Process,
};

/// Says the text that follows it on the first serial port, then does nothing for ever.
///
/// ```text
/// 7c00  cld; xor ax,ax; mov ds,ax; mov si,7c17h; mov dx,3f8h
/// 7c0b  lodsb; test al,al; jz 7c13h; out dx,al; jmp 7c0bh; 7c13: hlt; jmp 7c13h
/// ```
const SAYS: &[u8] = &[
    0xfc, 0x31, 0xc0, 0x8e, 0xd8, 0xbe, 0x17, 0x7c, 0xba, 0xf8, 0x03, 0xac, 0x84, 0xc0, 0x74, 0x03, 0xee, 0xeb, 0xf8,
    0xf4, 0xeb, 0xfd, 0x90,
];

/// A machine of its own that boots into saying `text`; gone when dropped.
struct Small {
    machine: Machine,
    _dir: tempfile::TempDir,
}

impl Small {
    fn says(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut sector = [0u8; 512];
        sector[..SAYS.len()].copy_from_slice(SAYS);
        sector[SAYS.len()..SAYS.len() + text.len()].copy_from_slice(text.as_bytes());
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let disk = dir.path().join("disk");
        fs::write(&disk, sector).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let words = format!(
            "qemu-system-x86_64 -accel tcg -machine pc -nodefaults -no-user-config -display none -m 32 -boot a \
             -drive file={},format=raw,if=floppy -netdev user,id=net,hostfwd=tcp:127.0.0.1:{port}-:22 -device e1000,netdev=net",
            disk.display()
        );
        let spec = Spec {
            command: words.split_whitespace().map(String::from).collect(),
            accelerator: "tcg".into(),
            port,
            key: dir.path().join("key"),
        };
        let machine = Machine::make(&dir.path().join("run"), spec).unwrap();
        machine.start().unwrap();
        Self { machine, _dir: dir }
    }

    /// Waits for it as for any guest; the refusal, which names the console's log, and how long it took.
    #[track_caller]
    fn refusal(&self, limit: Duration) -> (String, Duration) {
        let begun = Instant::now();
        let refused = Link::new(&self.machine).wait_up(&self.machine, limit).unwrap_err();
        let (said, took) = (format!("{refused:#}"), begun.elapsed());
        assert!(said.contains(&self.machine.console().display().to_string()), "{said}");
        (said, took)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = self.machine.end();
    }
}

#[test]
fn a_guest_that_never_answers_is_waited_for_no_longer_than_said() {
    let guest = Small::says("nobody home\r\n");
    let (said, took) = guest.refusal(Duration::from_secs(6));
    assert!(said.contains("does not answer after 6 s") && said.contains("nobody home"), "{said}");
    assert!(took >= Duration::from_secs(6) && took < Duration::from_secs(40), "{took:?}");
    guest.machine.end().unwrap();
    assert!(
        fs::read_to_string(guest.machine.console()).unwrap().contains("nobody home"),
        "the log outlives the machine"
    );
}

#[test]
fn a_guest_whose_kernel_crashed_is_not_waited_for() {
    let guest = Small::says("Kernel panic - not syncing: on purpose\r\n");
    let (said, took) = guest.refusal(Duration::from_secs(120));
    assert!(said.contains("crashed") && said.contains("on purpose"), "{said}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_machine_whose_qemu_was_killed_is_not_waited_for() {
    let guest = Small::says("soon gone\r\n");
    let (said, took) = std::thread::scope(|s| {
        let waiter = s.spawn(|| guest.refusal(Duration::from_secs(120)));
        guest.machine.process().unwrap().kill();
        waiter.join().unwrap()
    });
    assert!(said.contains("QEMU of the virtual test host is gone"), "{said}");
    assert!(took < Duration::from_secs(60), "{took:?}");
}

/// Lets the machine go on, whatever becomes of the test.
struct Stopped<'a>(&'a Machine, Process);

impl Drop for Stopped<'_> {
    fn drop(&mut self) {
        self.1.pause(false);
        self.0.take_back();
    }
}

#[test]
fn a_command_in_a_guest_that_stops_answering_fails_and_later_tests_do_not_wait_for_it() {
    let vm = Vm::alone();
    let dir = std::env::var(VARIABLE).unwrap();
    let machine = Machine::open(Path::new(&dir)).unwrap();
    vm.ok("true");
    let held = Stopped(&machine, machine.process().unwrap());
    held.1.pause(true);
    let begun = Instant::now();
    let out = Link::new(&machine).pass_through(&machine, "sleep 301", Duration::from_secs(300));
    let said = format!("{:#}", out.unwrap_err());
    assert!(said.contains("`sleep 301` in the guest, after ") && said.contains("is stopped"), "{said}");
    assert!(said.contains(&machine.console().display().to_string()), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    // What a test sees of it.
    let panicked =
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| vm.sh_within("true", Duration::from_secs(1))));
    let said = panicked.unwrap_err().downcast::<String>().unwrap();
    assert!(said.contains("is stopped") && said.contains(&machine.console().display().to_string()), "{said}");
    let begun = Instant::now();
    assert!(machine.given_up().is_some(), "the next test is told");
    vm.clear(&[2199]);
    assert!(begun.elapsed() < Duration::from_secs(2), "nothing is cleared on a machine that was given up");
    drop(held);
    // The guest knows nothing of all this, and the command goes on.
    vm.until("pkill -f '^sleep 301'", Duration::from_secs(120));
}
