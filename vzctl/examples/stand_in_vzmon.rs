//! Stands in for `vzmon attach` in the tests of vzctl: says as JSON how it was executed and with which plan, then exits
//! with the number that is the last word of the plan's command.

use rustix::fs::{SealFlags, fcntl_get_seals};
use std::{fs::File, io::Read};

fn main() {
    let argv: Vec<String> = std::env::args().collect();
    let number = argv.get(2).cloned().unwrap_or_default();
    let mut plan = String::new();
    let file = File::open(format!("/proc/self/fd/{number}"));
    let plan_seals = file.as_ref().map_or(SealFlags::empty(), |f| fcntl_get_seals(f).unwrap_or(SealFlags::empty()));
    if let Ok(mut f) = file {
        drop(f.read_to_string(&mut plan));
    }
    let exe = File::open("/proc/self/exe").ok();
    let exe_seals = exe.as_ref().and_then(|f| fcntl_get_seals(f).ok()).unwrap_or(SealFlags::empty());
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap_or_default();
    let script = plan["script_fd"].as_i64().and_then(|n| std::fs::read_to_string(format!("/proc/self/fd/{n}")).ok());
    let environment: Vec<String> = std::env::vars().map(|(k, v)| format!("{k}={v}")).collect();
    let said = serde_json::json!({
        "argv": [argv.first(), argv.get(1)],
        "plan": plan,
        "plan_seals": plan_seals.bits(),
        "exe": std::fs::read_link("/proc/self/exe").unwrap_or_default(),
        "exe_seals": exe_seals.bits(),
        "environment": environment,
        "script": script,
    });
    println!("{said}");
    let last = said["plan"]["argv"].as_array().and_then(|a| a.last()?.as_str()?.split(' ').next_back()?.parse().ok());
    std::process::exit(last.unwrap_or(0));
}
