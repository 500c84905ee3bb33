//! What tests of limits ask of the machine: counters, cgroup files, and the program that runs into limits.

use super::Vm;
use crate::probe;
use std::time::Duration;

/// A counter of a container as vzubc tells it.
///
/// # Panics
/// There is none.
#[track_caller]
pub fn bean(vm: &Vm, ctid: u32, name: &str) -> serde_json::Value {
    let text = vm.ok(&format!("vzubc -j {ctid}"));
    let all: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let rows = all[0]["beancounters"].as_array().cloned().unwrap_or_default();
    rows.into_iter().find(|b| b["name"] == name).unwrap_or_else(|| panic!("no {name}: {text}"))
}

/// One figure of a counter.
///
/// # Panics
/// There is none.
#[track_caller]
pub fn figure(vm: &Vm, ctid: u32, name: &str, key: &str) -> u64 {
    let bean = bean(vm, ctid, name);
    bean[key].as_u64().unwrap_or_else(|| panic!("no {key}: {bean}"))
}

/// A counter's fail count.
#[track_caller]
pub fn failcnt(vm: &Vm, ctid: u32, name: &str) -> u64 {
    figure(vm, ctid, name, "failcnt")
}

/// A file of a container's cgroup, our level.
#[track_caller]
pub fn cgroup(vm: &Vm, ctid: u32, file: &str) -> String {
    vm.ok(&format!("cat /sys/fs/cgroup/vz/{ctid}/{file}"))
}

/// Puts the flood program into running containers, as /flood.
#[track_caller]
pub fn give_flood(vm: &Vm, ctids: &[u32]) {
    let here = format!("/run/flood-{}", std::process::id());
    vm.push(&probe::flood(), &here);
    for ctid in ctids {
        vm.ok(&format!("vzctl exec2 {ctid} 'cat >/flood && chmod 755 /flood' <{here}"));
    }
    vm.ok(&format!("rm {here}"));
}

/// What a container's beats took: fork, write and fsync, TCP echo, and how much later than a second after the last one
/// it was done, in milliseconds.
pub type Beat = [u64; 4];

/// Starts a container's beat of a second, for so many of them.
#[track_caller]
pub fn start_beat(vm: &Vm, ctid: u32, seconds: u32) {
    vm.ok(&format!(
        "vzctl exec2 {ctid} 'rm -f /beat; setsid /flood beat {seconds} /beat 7 >/beat.log 2>&1 </dev/null &'"
    ));
}

/// The beats, once there are so many.
#[track_caller]
pub fn beats(vm: &Vm, ctid: u32, wanted: u32, limit: Duration) -> Vec<Beat> {
    vm.until(&format!("[ $(vzctl exec2 {ctid} 'cat /beat | wc -l') -ge {wanted} ]"), limit);
    let text = vm.inside(ctid, "cat /beat; cat /beat.log >&2");
    let number = |w: &str| w.parse::<i64>().map(|n| n.max(0).unsigned_abs()).unwrap_or_else(|e| panic!("{e}: {text}"));
    let beat = |l: &str| {
        let n: Vec<u64> = l.split(' ').map(number).collect();
        Beat::try_from(n).unwrap_or_else(|n| panic!("{n:?}: {text}"))
    };
    text.lines().map(beat).collect()
}
