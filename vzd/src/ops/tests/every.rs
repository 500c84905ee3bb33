//! Every operation swept. Beside the container it is about (101) another one runs all the time (102).

use super::{
    host::{Host, ct, template},
    sweep::Sweep,
};
use crate::{
    ct::{Changes, CreateSpec, SetSpec, StopSpec},
    ops::{self, Ask, Ops},
};
use std::sync::Arc;
use vz_types::{OpKind, Subject, config::Layout, judge::Request};

/// Settings as they are typed.
pub fn settings(all: &[(&str, &str)]) -> Changes {
    let mut changes = Changes::default();
    for (name, typed) in all {
        let value = vz_types::settings::find(name).unwrap().parse(&[(*typed).to_owned()]).unwrap();
        changes.set(name, &value).unwrap();
    }
    changes
}

fn changes() -> Changes {
    settings(&[("ipadd", "10.0.0.2"), ("name", "web")])
}

pub fn create(n: u32, changes: Changes) -> Ask {
    ops::create(CreateSpec { ctid: ct(n), template: template(), layout: Layout::Overlay, changes })
}

/// Another one runs.
pub fn other(host: &Host, ops: &Arc<Ops>) {
    host.ask(ops, create(102, settings(&[("ipadd", "10.0.0.102")]))).unwrap();
    host.ask(ops, ops::start(ct(102), false)).unwrap();
}

pub fn stopped(host: &Host, ops: &Arc<Ops>) {
    other(host, ops);
    host.ask(ops, create(101, changes())).unwrap();
}

fn mounted(host: &Host, ops: &Arc<Ops>) {
    stopped(host, ops);
    host.ask(ops, ops::mount(ct(101))).unwrap();
}

pub fn running(host: &Host, ops: &Arc<Ops>) {
    stopped(host, ops);
    host.ask(ops, ops::start(ct(101), false)).unwrap();
}

const PLAIN: Sweep = Sweep { name: "", before: stopped, then: |_| (), ask: start, also: &[], slow: false };

pub fn start() -> Ask {
    ops::start(ct(101), false)
}

pub fn stop() -> Ask {
    ops::stop(ct(101), StopSpec::default())
}

#[test]
fn a_create_leaves_nothing_half_made() {
    Sweep { name: "create", before: other, ask: || create(101, changes()), ..PLAIN }.run();
}

#[test]
fn a_start_leaves_nothing_half_up() {
    Sweep { name: "start", ..PLAIN }.run();
}

#[test]
fn a_stop_leaves_nothing_half_down() {
    Sweep { name: "stop", before: running, ask: stop, also: &[stop, || ops::mount(ct(101))], ..PLAIN }.run();
}

#[test]
fn a_destroy_leaves_nothing_behind() {
    Sweep { name: "destroy", ask: || ops::destroy(ct(101)), ..PLAIN }.run();
}

#[test]
fn a_mount_leaves_nothing_half_mounted() {
    Sweep { name: "mount", ask: || ops::mount(ct(101)), ..PLAIN }.run();
}

#[test]
fn an_umount_leaves_nothing_half_mounted() {
    Sweep { name: "umount", before: mounted, ask: || ops::umount(ct(101)), ..PLAIN }.run();
}

#[test]
fn a_create_with_a_password_leaves_nothing_half_made() {
    Sweep { name: "create with a password", before: other, ask: || create(101, password(changes())), ..PLAIN }.run();
}

#[test]
fn a_start_of_a_mounted_one_gives_its_mount_back() {
    Sweep { name: "start of a mounted one", before: mounted, ..PLAIN }.run();
}

#[test]
fn a_start_whose_monitor_is_slow_to_go_leaves_nothing_half_up() {
    Sweep { name: "start, slow monitor", slow: true, ..PLAIN }.run();
}

#[test]
fn a_stop_whose_monitor_is_slow_leaves_nothing_half_down() {
    Sweep {
        name: "stop, slow monitor",
        before: running,
        ask: stop,
        also: &[stop, || ops::mount(ct(101))],
        slow: true,
        ..PLAIN
    }
    .run();
}

#[test]
fn a_restart_ends_up_or_down() {
    let ask = || ops::restart(ct(101), false, false);
    Sweep { name: "restart", before: running, ask, also: &[stop], ..PLAIN }.run();
}

#[test]
fn a_restart_of_a_stopped_one_ends_up_or_down() {
    Sweep { name: "restart of a stopped one", ask: || ops::restart(ct(101), false, false), ..PLAIN }.run();
}

fn password(mut changes: Changes) -> Changes {
    changes.passwords = vec![("root".parse().unwrap(), "$6$x".into())];
    changes
}

pub fn set(changes: Changes, save: bool) -> Ask {
    ops::set(ct(101), SetSpec { changes, save, mode: None })
}

/// Another address instead of the one it has, another name, more room.
fn much() -> Changes {
    settings(&[
        ("ipdel", "all"),
        ("ipadd", "10.0.0.3"),
        ("name", "www"),
        ("hostname", "www.example.org"),
        ("diskspace", "20G"),
    ])
}

#[test]
fn a_set_of_a_stopped_one_is_never_half_done() {
    Sweep { name: "set", ask: || set(password(much()), true), ..PLAIN }.run();
}

#[test]
fn a_set_of_a_mounted_one_is_never_half_done() {
    Sweep { name: "set of a mounted one", before: mounted, ask: || set(password(much()), true), ..PLAIN }.run();
}

#[test]
fn a_set_of_a_running_one_is_never_half_done() {
    Sweep { name: "set of a running one", before: running, ask: || set(password(much()), true), ..PLAIN }.run();
}

#[test]
fn a_set_that_is_not_saved_is_never_half_done() {
    Sweep { name: "set, not saved", before: running, ask: || set(much(), false), ..PLAIN }.run();
}

#[test]
fn a_set_to_a_smaller_disk_is_never_half_done() {
    let ask = move || set(settings(&[("diskspace", "5G")]), true);
    Sweep { name: "set, smaller disk", ask, ..PLAIN }.run();
}

fn numproc(number: &str, changes: Changes) -> Changes {
    let mut changes = changes;
    changes.limits.set("numproc", number).unwrap();
    changes
}

#[test]
fn a_set_of_limits_is_never_half_done() {
    let ask = || {
        let mut changes = numproc("100", Changes::default());
        changes.reset_ub = true;
        set(changes, true)
    };
    Sweep { name: "set of limits", before: running, ask, ..PLAIN }.run();
}

#[test]
fn a_set_of_limits_that_is_not_saved_is_never_half_done() {
    let ask = || set(numproc("100", Changes::default()), false);
    Sweep { name: "set of limits, not saved", before: running, ask, ..PLAIN }.run();
}

fn clear() -> Ask {
    let make = |w: &ops::Work| ops::clear::Clear::prepare(w, ct(101));
    Ask::new(Subject::Ct(ct(101)), Request::plain(OpKind::Clear), make)
}

#[test]
fn an_end_nobody_asked_for_leaves_nothing_half_cleared() {
    let then = |host: &Host| host.world.power_off(ct(101));
    let also: &[fn() -> Ask] = &[clear, || ops::mount(ct(101))];
    Sweep { name: "clear", before: running, then, ask: clear, also, ..PLAIN }.run();
}

#[test]
fn a_template_that_is_removed_is_there_or_not() {
    let ask = || ops::remove_template(template());
    Sweep { name: "template remove", before: |_, _| (), ask, ..PLAIN }.run();
}

/// The only one that takes root, as a build does.
#[test]
fn a_template_that_is_built_is_there_or_not() {
    let before = |host: &Host, ops: &Arc<Ops>| host.ask(ops, ops::remove_template(template())).unwrap();
    Sweep { name: "template build", before, ask: || ops::build_template(template(), false), ..PLAIN }.run();
}

#[test]
fn a_vzd_that_dies_while_it_recovers_leaves_nothing_in_between() {
    Sweep { name: "create", before: other, ask: || create(101, password(changes())), ..PLAIN }.run_twice();
    Sweep { name: "start", ..PLAIN }.run_twice();
    Sweep { name: "stop", before: running, ask: stop, ..PLAIN }.run_twice();
    Sweep { name: "destroy", ask: || ops::destroy(ct(101)), ..PLAIN }.run_twice();
    Sweep { name: "set of a running one", before: running, ask: || set(much(), true), ..PLAIN }.run_twice();
}
