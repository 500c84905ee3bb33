//! vzmon: the small single-threaded program that does for vz what a threaded daemon must not do.
//!
//! | mode | started by | what it does |
//! |---|---|---|
//! | `run` | vzd | makes a container's namespaces, executes its init, stays its parent until it ends ([`run`]) |
//! | `blank` | vzd | makes the mount namespace that containers' are copied from ([`task`]) |
//! | `mount` | vzd | mounts a container's files on the host ([`storage`]) |
//! | `edit` | vzd | changes files of a stopped container from inside ([`task`], [`edit`]) |
//! | `attach FD` | vzctl, from a sealed memfd; vzd, with the plan on descriptor 0 | runs a program in a running container ([`attach`]) |
//!
//! Each mode is followed by the protocol its starter speaks ([`vz_types::plan::PROTOCOL`]); another one is refused.
//!
//! Rooms: [`launch`] makes processes and namespaces, [`setup`] builds what the container sees, [`confine`] is the
//! policy applied just before exec, [`console`], [`control`], [`stop`] and [`record`] belong to the monitor's loop.
//! One process per running container; it needs neither vzd nor the inventory, so those can go and come back.
//! Imports vz-types and vz-sys only.

mod attach;
mod confine;
mod console;
mod control;
mod edit;
mod error;
mod fence;
mod inside_net;
mod launch;
mod limits;
mod nudge;
mod record;
mod request;
mod rings;
mod run;
mod setup;
mod stop;
mod storage;
mod task;
mod written;

use std::process::ExitCode;
use vz_sys::{inherited, process::SingleThreaded};
use vz_types::plan::PROTOCOL;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let mode = args.next().unwrap_or_default();
    let one = match SingleThreaded::claim() {
        Ok(one) => one,
        Err(e) => return fail(&format!("cannot count our threads: {e}")),
    };
    // Executed from memory, it would be called after a descriptor.
    if let Err(e) = nix::sys::prctl::set_name(c"vzmon") {
        return fail(&format!("cannot name ourselves: {e}"));
    }
    inherited::own_files_readable();
    inherited::wait_for_children();
    // Whoever is about to share a namespace with strangers must not be traceable by them (prctl(2)).
    if let Err(e) = nix::sys::prctl::set_dumpable(false) {
        return fail(&format!("cannot become undumpable: {e}"));
    }
    let plan_fd = (mode == "attach").then(|| args.next()).flatten();
    if mode != "--version" {
        if let Err(e) = understands(args.next().as_deref()) {
            return fail(&e);
        }
    }
    match mode.as_str() {
        "run" => run::main(one),
        "blank" => task::blank(one),
        "mount" => task::mount(one),
        "edit" => task::edit(one),
        "attach" => attach::main(one, plan_fd.as_deref()),
        "--version" => {
            println!("vzmon {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => fail("usage: vzmon run|blank|mount|edit|attach FD [PROTOCOL] (started by vzd and vzctl; not for people)"),
    }
}

/// Whether the plan of whoever started us means what we take it to mean. Nothing said is the first protocol.
fn understands(protocol: Option<&str>) -> Result<(), String> {
    let theirs = protocol.unwrap_or("1");
    if theirs == PROTOCOL.to_string() {
        return Ok(());
    }
    Err(format!(
        "this is vzmon {}, protocol {PROTOCOL}, and was started by a program of vz that speaks protocol {theirs}: vz was \
         upgraded in part; `systemctl restart vzd`, or install vz again, and try again",
        env!("CARGO_PKG_VERSION")
    ))
}

fn fail(message: &str) -> ExitCode {
    eprintln!("vzmon: {message}");
    ExitCode::from(vz_types::ExitCode::System.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_starter_of_another_protocol_is_refused_with_both_numbers() {
        assert!(understands(Some(&PROTOCOL.to_string())).is_ok());
        let refusal = understands(Some("77")).unwrap_err();
        assert!(refusal.contains("protocol 77") && refusal.contains(&format!("protocol {PROTOCOL},")), "{refusal}");
    }
}
