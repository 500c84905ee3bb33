//! Names resolve in a container whatever its tenant installs for that. The suite `long_name_servers` has all of them.

use std::thread;
use vz_tests::{
    takers::Site,
    template::Template::{Debian12, Debian13},
};

#[test]
fn installing_systemd_resolved_or_resolvconf_does_not_end_name_resolution() {
    let site = Site::new(&[Debian12, Debian13]);
    thread::scope(|s| {
        s.spawn(|| site.take_over(101, Debian12, "systemd-resolved"));
        s.spawn(|| site.take_over(102, Debian13, "resolvconf"));
    });
}
