//! Everything of Debian's that takes resolv.conf over, in both releases. Part of `cargo xtask long`; the suite
//! `name_servers` has the short form.

use std::thread;
use vz_tests::{
    takers::Site,
    template::Template::{Debian12, Debian13},
};

#[test]
fn names_resolve_whatever_takes_resolv_conf_over() {
    let all = [
        "systemd-resolved",
        "resolvconf",
        "openresolv",
        "network-manager",
        "dnsmasq",
        "unbound",
        "resolvconf dnsmasq",
        "openresolv dnsmasq",
    ];
    let site = Site::new(&[Debian12, Debian13]);
    thread::scope(|s| {
        for (template, first) in [(Debian12, 101), (Debian13, 121)] {
            let site = &site;
            s.spawn(move || {
                for (ctid, package) in (first..).zip(all) {
                    site.take_over(ctid, template, package);
                }
            });
        }
    });
}
