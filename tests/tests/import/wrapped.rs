//! Archives whose system is not at the top: images and backups of other managers, and one directory around all.

use super::{Builder, LONG, add, device, file, import, laid, link, only, packed, store};
use std::{fs, path::Path};
use vz_tests::{Rig, command::Output, template::Template::Tiny};
use vz_types::ExitCode::BadTemplate;

/// The tiny system below a directory, with a device its /dev has, a link that leaves it and a hard link within.
fn system(b: &mut Builder, below: &str) {
    let home = Tiny.cached();
    b.follow_symlinks(false);
    b.append_dir_all(below, home.join(fs::read_link(home.join("current")).unwrap()).join("root")).unwrap();
    device(b, &format!("{below}/dev/null"), tar::EntryType::Char, 1, 3);
    link(b, &format!("{below}/opt/out"), "../../../../etc/shadow");
    super::hard_link(b, &format!("{below}/opt/second"), &format!("{below}/etc/os-release"));
}

fn made(rig: &Rig, name: &str, bytes: &[u8]) -> Output {
    let path = laid(rig, &format!("{name}.tar"), bytes);
    rig.ok(&["template", "import", &path, "--name", name])
}

fn names(dir: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect();
    all.sort();
    all
}

#[test]
fn an_image_or_backup_of_another_manager_or_a_tree_below_one_directory_becomes_a_template_that_boots() {
    let rig = Rig::new(&[]);
    let yaml = b"architecture: x86_64\nproperties:\n  os: tiny\n";
    let plain = only(|b| {
        system(b, ".");
        file(b, "etc/vzdump/pct.conf", b"arch: amd64\n");
    });
    let out = made(&rig, "pve", &plain);
    assert!(out.stdout.contains("vzdump") && out.stdout.contains("left out: etc/vzdump"), "{out}");
    let arch = only(|b| {
        file(b, "pkglist.x86_64.txt", b"filesystem\n");
        system(b, "root.x86_64");
    });
    let out = made(&rig, "arch", &arch);
    assert!(
        out.stdout.contains("root.x86_64/ becomes /") && out.stdout.contains("left out: pkglist.x86_64.txt"),
        "{out}"
    );
    let incus = only(|b| {
        file(b, "metadata.yaml", yaml);
        file(b, "templates/hostname.tpl", b"{{ container.name }}\n");
        system(b, "rootfs");
    });
    let out = made(&rig, "incus", &packed("xz", &incus));
    assert!(out.stdout.contains("Incus") && out.stdout.contains("left out: metadata.yaml, templates"), "{out}");
    let backup = only(|b| {
        file(b, "backup/index.yaml", b"name: c1\n");
        system(b, "backup/container/rootfs");
        file(b, "backup/container/backup.yaml", b"x\n");
        file(b, "backup/snapshots/s1/rootfs/etc/motd", b"old\n");
    });
    let out = made(&rig, "backup", &backup);
    assert!(out.stdout.contains("backup/container/rootfs/ becomes /"), "{out}");
    assert!(out.stdout.contains("backup/snapshots") && out.stdout.contains("backup/index.yaml"), "{out}");
    let lxc = only(|b| {
        system(b, "rootfs");
        file(b, "config", b"lxc.uts.name = c1\n");
    });
    // By a pipe, where the file that tells comes last.
    let out = rig.vzctl_with(&["template", "import", "-", "--name", "lxc"], &packed("zst", &lxc)).ok();
    assert!(out.stdout.contains("LXC") && out.stdout.contains("left out: config"), "{out}");
    let digest =
        |name: &str| rig.ok(&["template", "show", name, "--json"]).json()["digest"].as_str().unwrap().to_owned();
    for name in ["arch", "incus", "backup", "lxc"] {
        assert_eq!(digest(name), digest("pve"), "{name}: the same files, wherever they were packed");
    }
    let version = rig.paths.template_dir().join("lxc").join(&digest("lxc")[..12]);
    assert!(!names(&version).contains(&"whole".to_owned()), "{:?}", names(&version));
    assert_eq!(fs::read_link(version.join("root/opt/out")).unwrap(), Path::new("../../../../etc/shadow"));
    rig.ok(&["create", "101", "--ostemplate", "backup"]);
    rig.ok(&["start", "101"]);
    rig.wait_console(101, "tiny is up", LONG);
    assert_eq!(
        rig.inside(101, "ls /backup /rootfs 2>/dev/null; cat /opt/second | grep -c ID"),
        rig.inside(101, "grep -c ID /etc/os-release")
    );
}

#[test]
fn an_archive_of_another_form_is_called_by_its_name_and_the_way_to_take_it_is_told() {
    let rig = Rig::new(&[]);
    let before = store(&rig);
    let says = |bytes: &[u8], what: &str, hint: &str| {
        let path = laid(&rig, "x", bytes);
        let out = import(&rig, &path, "odd").expect_code(BadTemplate.code().into());
        assert!(out.stderr.contains(what) && out.stderr.contains(hint), "{what} / {hint}: {out}");
        assert_eq!(store(&rig), before, "{out}");
    };
    let files = |names: &[&str]| only(|b| names.iter().for_each(|n| file(b, n, b"x")));
    says(&files(&["metadata.yaml"]), "in two files", "rootfs.squashfs");
    says(&files(&["backup/index.yaml", "backup/container.bin"]), "storage's own format", "--optimized-storage");
    says(&files(&["metadata.yaml", "rootfs.img"]), "virtual machine", "container's image");
    says(&files(&["oci-layout", "index.json"]), "OCI image", "docker export");
    says(&files(&["root.hdd/DiskDescriptor.xml"]), "ploop", "tar ");
    says(&files(&["qemu-server.conf"]), "virtual machine", "tar ");
    says(&[b"hsqs", &[0u8; 1020][..]].concat(), "squashfs", "sqfs2tar");
    says(b"BZh91AY&SY", "bzip2", "bzip2 -dc");
    let two = only(|b| {
        for top in ["one", "two"] {
            add(b, tar::EntryType::Regular, format!("{top}/sbin/init").as_bytes(), "", 0o755, 0, b"#!/bin/sh\n");
        }
    });
    says(&two, "more than one system: one and two", "tar ");
    // A link of that name leads nowhere, least of all out.
    let linked = only(|b| {
        file(b, "metadata.yaml", b"x");
        link(b, "rootfs", "/");
    });
    says(&linked, "in two files", "rootfs");
    let out = only(|b| {
        link(b, "rootfs", "..");
        file(b, "config", b"x");
    });
    says(&out, "no usable init", "/sbin/init");
}
