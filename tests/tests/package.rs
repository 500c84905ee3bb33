//! The Debian package: what is in it, and what its scripts do in a root where no service manager runs. With one, in a
//! machine of its own with containers running, it is tested in `vm_package`.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};
use vz_tests::{command, package, package::Root};

const SOON: Duration = Duration::from_secs(60);

/// The package, and the directory it is in, which goes away with it.
struct Deb(tempfile::TempDir, PathBuf);

impl Deb {
    fn path(&self) -> &Path {
        assert!(self.1.starts_with(self.0.path()));
        &self.1
    }
}

fn deb() -> Deb {
    let dir = tempfile::tempdir().unwrap();
    let file = package::make(dir.path(), Some("1.0"));
    Deb(dir, file)
}

fn dpkg_deb(words: &[&str]) -> String {
    command::run(Command::new("dpkg-deb").args(words), None, SOON).unwrap().ok().stdout
}

#[test]
fn it_holds_all_an_operator_needs_owned_by_root_and_nothing_of_the_build_machine() {
    let listing = dpkg_deb(&["--contents", &deb().path().display().to_string()]);
    let line = |path: &str| {
        let end = format!(" .{path}");
        listing.lines().find(|l| l.ends_with(&end)).unwrap_or_else(|| panic!("{path} is not in it:\n{listing}"))
    };
    for program in ["/usr/sbin/vzctl", "/usr/sbin/vzd", "/usr/libexec/vz/vzmon"] {
        assert!(line(program).starts_with("-rwxr-xr-x root/root"), "{}", line(program));
    }
    for file in [
        "/etc/vz/vz.toml",
        "/usr/lib/systemd/system/vzd.service",
        "/usr/lib/systemd/system/vz.service",
        "/usr/lib/sysctl.d/60-vz.conf",
        "/usr/lib/tmpfiles.d/vz.conf",
        "/usr/lib/sysusers.d/vz.conf",
        "/usr/share/vz/templates/debian-12.toml",
        "/usr/share/vz/templates/debian-13.toml",
        "/usr/share/man/man8/vzctl.8.gz",
        "/usr/share/man/man8/vzlist.8.gz",
        "/usr/share/man/man8/vzd.8.gz",
        "/usr/share/bash-completion/completions/vzctl",
        "/usr/share/bash-completion/completions/vzlist",
        "/usr/share/zsh/vendor-completions/_vzctl",
        "/usr/share/fish/vendor_completions.d/vzctl.fish",
        "/usr/share/doc/vz/copyright",
        "/usr/share/doc/vz/changelog.gz",
        "/usr/share/doc/vz/guide/getting-started.md",
    ] {
        assert!(line(file).starts_with("-rw-r--r-- root/root"), "{}", line(file));
    }
    for name in ["vzlist", "vzubc", "vzcfgvalidate", "vzcalc", "vzmemcheck", "vzcpucheck", "vzsplit"] {
        assert!(listing.contains(&format!("./usr/sbin/{name} -> vzctl")), "{name}:\n{listing}");
        line(&format!("/usr/share/man/man8/{name}.8.gz"));
        line(&format!("/usr/share/bash-completion/completions/{name}"));
    }
    line("/usr/share/vz/samples/ct-basic.toml");
    for l in listing.lines() {
        assert!(l.contains(" root/root "), "not root's: {l}");
        assert!(!l.contains("./var/") && !l.contains("./run/"), "containers' places belong to no package: {l}");
    }
    let recipes = fs::read_dir(vz_tests::template::checkout().join("templates")).unwrap();
    let recipes = recipes.filter(|e| e.as_ref().is_ok_and(|e| e.path().is_file())).count();
    assert_eq!(listing.matches("./usr/share/vz/templates/").count(), recipes + 1, "every recipe, and their directory");
}

#[test]
fn it_says_what_it_needs_and_which_files_are_the_operators() {
    let made = deb();
    let deb = made.path().display().to_string();
    let field = |name: &str| dpkg_deb(&["--field", &deb, name]).trim().to_owned();
    assert_eq!((field("Package").as_str(), field("Version").as_str()), ("vz", "1.0"));
    let arch = command::run(Command::new("dpkg").arg("--print-architecture"), None, SOON).unwrap();
    assert_eq!(field("Architecture"), arch.text());
    for needed in ["libc6 (>= ", "e2fsprogs", "nftables", "systemd"] {
        assert!(field("Depends").contains(needed), "{needed} is not in {}", field("Depends"));
    }
    assert!(field("Recommends").contains("mmdebstrap"));
    let dir = tempfile::tempdir().unwrap();
    dpkg_deb(&["--control", &deb, &dir.path().display().to_string()]);
    assert_eq!(fs::read_to_string(dir.path().join("conffiles")).unwrap(), "/etc/vz/vz.toml\n");
    for script in ["preinst", "postinst", "prerm", "postrm"] {
        let file = dir.path().join(script);
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755, "{script}");
        command::run(Command::new("sh").arg("-n").arg(&file), None, SOON).unwrap().ok();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("#!/bin/sh\n") && text.contains("\nset -e\n"), "{script}");
        // Called in a way dpkg never does.
        command::run(Command::new("sh").arg(&file).arg("nonsense"), None, SOON).unwrap().expect_code(1);
    }
}

#[test]
fn it_is_installed_upgraded_removed_and_purged_without_touching_what_is_the_operators() {
    let (deb, root) = (deb(), Root::debian12());
    root.install(deb.path()).ok();
    root.sh("getent group vz").ok();
    root.sh("vzctl --version; vzlist --version; /usr/libexec/vz/vzmon --version; vzd --version").ok().says("vzmon ");
    for unit in ["vzd.service", "vz.service"] {
        let link = root.path(&format!("/etc/systemd/system/multi-user.target.wants/{unit}"));
        assert!(fs::symlink_metadata(&link).is_ok(), "{unit} is not started at boot");
    }
    for (dir, mode) in
        [("/var/lib/vz/private", 0o700), ("/var/lib/vz/root", 0o700), ("/run/vz/ct", 0o700), ("/etc/vz/conf", 0o755)]
    {
        assert_eq!(fs::metadata(root.path(dir)).unwrap().permissions().mode() & 0o777, mode, "{dir}");
    }
    // What an operator and a container leave.
    fs::write(root.path("/etc/vz/vz.toml"), "# mine\n").unwrap();
    fs::write(root.path("/etc/vz/conf/101.toml"), "ostemplate = 'tiny'\n").unwrap();
    fs::create_dir_all(root.path("/var/lib/vz/private/101")).unwrap();
    fs::write(root.path("/var/lib/vz/private/101/disk.img"), "customer").unwrap();
    fs::write(root.path("/var/lib/vz/inventory.db"), "").unwrap();
    let kept = |when: &str| {
        assert_eq!(fs::read_to_string(root.path("/var/lib/vz/private/101/disk.img")).unwrap(), "customer", "{when}");
        assert!(
            root.path("/etc/vz/conf/101.toml").exists() && root.path("/var/lib/vz/inventory.db").exists(),
            "{when}"
        );
    };
    root.sh("systemctl disable vz.service").ok();
    root.install(deb.path()).ok();
    kept("after an upgrade");
    assert_eq!(fs::read_to_string(root.path("/etc/vz/vz.toml")).unwrap(), "# mine\n");
    let link = root.path("/etc/systemd/system/multi-user.target.wants/vz.service");
    assert!(fs::symlink_metadata(&link).is_err(), "an upgrade enables what the operator has disabled");
    root.sh("dpkg --remove vz 2>&1").ok();
    kept("after removing it");
    assert_eq!(fs::read_to_string(root.path("/etc/vz/vz.toml")).unwrap(), "# mine\n");
    assert!(!root.path("/usr/sbin/vzd").exists());
    root.sh("dpkg --purge vz 2>&1").ok().says("/var/lib/vz is kept");
    kept("after purging it");
    assert!(!root.path("/etc/vz/vz.toml").exists());
    root.install(deb.path()).ok();
    kept("after installing it again");
}

#[test]
fn purging_it_where_no_container_ever_was_leaves_nothing() {
    let (deb, root) = (deb(), Root::debian12());
    root.install(deb.path()).ok();
    fs::write(root.path("/var/lib/vz/inventory.db"), "").unwrap();
    fs::create_dir_all(root.path("/var/lib/vz/cache")).unwrap();
    root.sh("dpkg --purge vz 2>&1").ok();
    for gone in ["/var/lib/vz", "/etc/vz", "/run/vz", "/var/log/vz", "/usr/share/vz", "/usr/libexec/vz"] {
        assert!(!root.path(gone).exists(), "{gone} is left: {}", root.sh(&format!("find {gone}")).text());
    }
    let units = root.sh("find /etc/systemd /var/lib/systemd -name 'vz.*' -o -name 'vzd.*'").ok();
    assert_eq!(units.text(), "", "links of units are left");
}

#[test]
fn a_version_that_cannot_read_the_inventory_is_refused_before_anything_is_touched() {
    let (deb, root) = (deb(), Root::debian12());
    root.install(deb.path()).ok();
    let version = |n: i64| {
        let db = rusqlite::Connection::open(root.path("/var/lib/vz/inventory.db")).unwrap();
        db.pragma_update(None, "user_version", n).unwrap();
    };
    version(4711);
    let out = root.install(deb.path()).expect_code(1);
    assert!(out.stdout.contains("has schema 4711") && out.stdout.contains("nothing was changed"), "{out}");
    root.sh("vzd --version && dpkg -s vz | grep -qx 'Status: install ok installed'").ok();
    version(1);
    root.install(deb.path()).ok();
}
