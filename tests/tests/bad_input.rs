//! Every mistake an operator can make: the documented exit code, one clear message naming the thing and the next
//! step, and nothing changed.

#![allow(clippy::unwrap_used)] // a panic is how a test says no

use std::{fs, os::unix::fs::symlink, process::Command, time::Duration};
use vz_tests::{Rig, command, template::Template::Tiny};
use vz_types::ExitCode::{self, *};

/// Runs it, expects the refusal, and holds the census before against the one after.
#[track_caller]
fn refused_and_nothing_changed(rig: &Rig, words: &[&str], code: ExitCode, names: &str) {
    let before = rig.census();
    let listed = rig.vzlist(&["-a", "-j"]).ok().stdout;
    let out = rig.refused(words, code, names);
    let lines: Vec<&str> = out.stderr.lines().filter(|l| !l.trim().is_empty()).collect();
    assert!(lines.len() <= 4, "one clear message, not a flood: {out}");
    assert!(!out.stderr.contains("panicked") && !out.stderr.contains("RUST_BACKTRACE"), "{out}");
    rig.assert_census(&before, &format!("after the refused `{}`", words.join(" ")));
    assert_eq!(rig.vzlist(&["-a", "-j"]).ok().stdout, listed, "after the refused `{}`", words.join(" "));
}

fn with_ct(options: &[&str]) -> Rig {
    let rig = Rig::new(&[Tiny]);
    rig.create(101, Tiny, options);
    rig
}

#[test]
fn bad_and_taken_ctids() {
    let rig = with_ct(&[]);
    for ctid in ["0", "1", "100", "2147483645", "99999999999999999999", "-5", "1O1", "", "../101", "101 "] {
        let out = rig.vzctl(&["create", ctid, "--ostemplate", "tiny"]);
        assert!([i32::from(BadValue.code()), i32::from(BadSyntax.code())].contains(&out.code()), "{ctid:?}: {out}");
        assert!(ctid.is_empty() || out.stderr.contains(ctid.trim()), "{ctid:?} is named: {out}");
    }
    refused_and_nothing_changed(&rig, &["create", "101", "--ostemplate", "tiny"], Exists, "101");
    for verb in ["start", "stop", "restart", "destroy", "mount", "umount"] {
        refused_and_nothing_changed(&rig, &[verb, "999"], NoConfig, "999");
    }
    refused_and_nothing_changed(&rig, &["set", "999", "--hostname", "x", "--save"], NoConfig, "999");
    refused_and_nothing_changed(&rig, &["exec", "999", "true"], NoConfig, "999");
    refused_and_nothing_changed(&rig, &["enter", "999"], NoConfig, "999");
    refused_and_nothing_changed(&rig, &["console", "999"], NoConfig, "999");
    assert_eq!(rig.status(999), "deleted unmounted down");
}

#[test]
fn unknown_templates_and_templates_without_init() {
    let rig = Rig::new(&[Tiny]);
    refused_and_nothing_changed(&rig, &["create", "101", "--ostemplate", "no-such-os"], NoTemplate, "no-such-os");
    refused_and_nothing_changed(&rig, &["create", "101", "--ostemplate", "debian-12"], NoTemplate, "template build");
    refused_and_nothing_changed(&rig, &["create", "101"], OsTemplateUnset, "--ostemplate");
    for path in ["../tiny", "/etc", ".", "a/b", ""] {
        let out = rig.vzctl(&["create", "101", "--ostemplate", path]);
        assert!([20, 21, 91].contains(&out.code()), "{path:?}: {out}");
    }
    // A tree without an init cannot become a template, and nothing of the attempt stays.
    let tree = rig.paths.base.join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/os-release"), "ID=none\n").unwrap();
    fs::create_dir_all(rig.paths.recipe_dir()).unwrap();
    let recipe = format!("description = 'no init'\ninit = 'busybox'\ntree = {:?}\n", tree.display().to_string());
    fs::write(rig.paths.recipe_dir().join("hollow.toml"), recipe).unwrap();
    rig.refused(&["template", "build", "hollow"], BadTemplate, "init");
    rig.refused(&["create", "101", "--ostemplate", "hollow"], NoTemplate, "hollow");
}

#[test]
fn a_template_whose_files_were_touched_is_refused() {
    let rig = Rig::new(&[]);
    let tree = rig.paths.base.join("tree");
    fs::create_dir_all(tree.join("sbin")).unwrap();
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::copy("/bin/busybox", tree.join("bin/busybox")).unwrap();
    symlink("../bin/busybox", tree.join("sbin/init")).unwrap();
    fs::create_dir_all(rig.paths.recipe_dir()).unwrap();
    let recipe = format!("description = 'x'\ninit = 'busybox'\ntree = {:?}\n", tree.display().to_string());
    fs::write(rig.paths.recipe_dir().join("own.toml"), recipe).unwrap();
    rig.ok(&["template", "build", "own"]);
    let root = rig.paths.template_dir().join("own/current/root");
    fs::write(root.join("planted"), "x").unwrap();
    let out = rig.vzctl(&["create", "101", "--ostemplate", "own"]);
    assert!(out.code() == i32::from(BadTemplate.code()) || out.code() == i32::from(NoTemplate.code()), "{out}");
    assert!(out.stderr.contains("own"), "{out}");
    assert_eq!(rig.status(101), "deleted unmounted down");
}

#[test]
fn taken_addresses_and_names() {
    let rig = with_ct(&["--ipadd", "10.99.0.1", "--name", "web"]);
    refused_and_nothing_changed(
        &rig,
        &["create", "102", "--ostemplate", "tiny", "--ipadd", "10.99.0.1"],
        IpInUse,
        "10.99.0.1",
    );
    refused_and_nothing_changed(&rig, &["create", "102", "--ostemplate", "tiny", "--name", "web"], SetName, "web");
    rig.create(102, Tiny, &["--name", "db"]);
    refused_and_nothing_changed(&rig, &["set", "102", "--ipadd", "10.99.0.1", "--save"], IpInUse, "10.99.0.1");
    refused_and_nothing_changed(&rig, &["set", "102", "--name", "web", "--save"], SetName, "web");
}

#[test]
fn malformed_values_each_have_their_code() {
    let rig = with_ct(&[]);
    let rows: &[(&[&str], ExitCode, &str)] = &[
        (&["--ipadd", "10.0.0.300"], BadIp, "10.0.0.300"),
        (&["--ipadd", "10.0.0.1/24"], BadIp, "10.0.0.1/24"),
        (&["--ipadd", "127.0.0.1"], BadIp, "127.0.0.1"),
        (&["--ipadd", "fe80::1"], BadIp, "fe80::1"),
        (&["--ipadd", "224.0.0.1"], BadIp, "224.0.0.1"),
        (&["--ipadd", "; reboot"], BadIp, "reboot"),
        (&["--ipdel", "nonsense"], BadIp, "nonsense"),
        (&["--hostname", "-bad-"], BadHostname, "-bad-"),
        (&["--hostname", "a b"], BadHostname, "a b"),
        (&["--hostname", "../../etc"], BadHostname, "etc"),
        (&["--nameserver", "ns.example.org"], BadDns, "ns.example.org"),
        (&["--nameserver", "0.0.0.0"], BadDns, "0.0.0.0"),
        (&["--searchdomain", "a..b"], BadDns, "a..b"),
        (&["--name", "12345"], SetName, "12345"),
        (&["--name", "../up"], SetName, "up"),
        (&["--name", "a b"], SetName, "a b"),
        (&["--bootorder", "first"], BadValue, "first"),
        (&["--onboot", "perhaps"], BadValue, "perhaps"),
        (&["--disabled", "2"], BadValue, "2"),
        (&["--diskspace", "lots"], BadValue, "lots"),
        (&["--diskspace", "1M"], BadValue, "1M"),
        (&["--diskinodes", "-1"], BadValue, "-1"),
        (&["--features", "warp:on"], BadValue, "warp"),
        (&["--userpasswd", "no/such:x"], BadValue, "no/such"),
        (&["--sshkey", "not a key"], BadValue, "key"),
        (&["--setmode", "maybe"], BadValue, "maybe"),
        (&["--no-such-option", "1"], BadSyntax, "--no-such-option"),
        (&["--ram", "1X"], BadValue, "--ram"),
    ];
    for (words, code, names) in rows {
        let mut all = vec!["set", "101"];
        all.extend(*words);
        if words[0] != "--userpasswd" && words[0] != "--sshkey" {
            all.push("--save");
        }
        refused_and_nothing_changed(&rig, &all, *code, names);
    }
    let out = rig.vzctl(&["set", "101", "--description", "two\nlines", "--save"]);
    assert_eq!(out.code(), i32::from(BadValue.code()), "{out}");
    rig.vzctl(&["no-such-verb"]).expect_code(i32::from(BadSyntax.code()));
    rig.vzctl(&["set"]).expect_code(i32::from(BadSyntax.code()));
}

#[test]
fn a_broken_configuration_is_named_and_hides_no_other_container() {
    let rig = with_ct(&["--name", "web"]);
    rig.create(102, Tiny, &[]);
    let file = rig.paths.conf_dir().join("101.toml");
    let good = fs::read_to_string(&file).unwrap();
    let broken: &[(&str, String, &str)] = &[
        ("truncated", good[..good.len() / 2].trim_end_matches('\n').to_owned() + "\n[netw", "101.toml"),
        ("empty", String::new(), "ostemplate"),
        ("an unknown key", format!("onbot = true\n{good}"), "onbot"),
        ("a wrong type", format!("onboot = \"perhaps\"\n{}", good.replace("onboot", "#")), "onboot"),
        ("not even text", "\u{0}\u{1}\u{2}".into(), "101.toml"),
    ];
    for (how, text, names) in broken {
        fs::write(&file, text).unwrap();
        let out = rig.refused(&["start", "101"], BadConfig, names);
        assert!(out.stderr.contains("101"), "{how}: {out}");
        assert_eq!(fs::read_to_string(&file).unwrap(), *text, "{how}: the operator's file is left alone");
        let listed = rig.vzlist(&["-a1"]).ok();
        assert_eq!(listed.stdout.split_whitespace().collect::<Vec<_>>(), ["101", "102"], "{how}: {listed}");
        rig.vzlist(&["-a", "-j"]).ok().json();
        assert_eq!(rig.status(101), "exist unmounted down", "{how}");
        rig.ok(&["start", "102"]);
        rig.ok(&["stop", "102", "--fast"]);
        // A daemon that starts meanwhile serves all the others.
        rig.stop_vzd();
        rig.start_vzd(&[]);
        rig.ok(&["start", "102"]);
        rig.ok(&["stop", "102", "--fast"]);
    }
    fs::write(&file, good).unwrap();
    rig.ok(&["start", "101"]);
}

#[test]
fn a_second_vzd_on_one_root_is_refused_and_harms_nothing() {
    let rig = with_ct(&[]);
    rig.ok(&["start", "101"]);
    let mut second = rig.host.command(rig.bin.join("vzd"));
    second.arg("--root").arg(&rig.paths.base);
    let out = command::run(&mut second, None, Duration::from_secs(20)).unwrap();
    assert_ne!(out.code(), 0, "{out}");
    let said = format!("{}{}", out.stdout, out.stderr);
    assert!(said.contains(&rig.paths.base.display().to_string()), "the root is named: {out}");
    rig.ok(&["exec", "101", "true"]);
    rig.ok(&["stop", "101", "--fast"]);
}

#[test]
fn a_second_operation_on_a_busy_container_is_9() {
    let rig = with_ct(&[]);
    rig.ok(&["start", "101"]);
    // An init that takes its time: it reads its table again, and what it runs last takes longer than we wait.
    let table = "::respawn:/bin/sleep 99999\\n::shutdown:/bin/sleep 30";
    rig.inside(
        101,
        &format!(
            "printf '{table}\\n' >/etc/inittab; kill -HUP 1; until ps | grep -q '[s]leep 99999'; do sleep 0.1; done"
        ),
    );
    let stop = rig.vzctl_command(&["stop", "101", "--timeout", "8"]);
    std::thread::scope(|s| {
        let mut stop = stop;
        let stopping = s.spawn(move || command::run(&mut stop, None, Duration::from_secs(60)).unwrap());
        // Until the stop has begun, a start is refused for another reason.
        let busy = vz_tests::wait::retry(Duration::from_secs(5), Duration::from_millis(50), || {
            let out = rig.vzctl(&["start", "101"]);
            (out.code() == i32::from(Locked.code())).then_some(out)
        });
        let busy = busy.expect("the second operation was never refused as busy");
        assert!(busy.stderr.contains("101"), "{busy}");
        for words in [&["set", "101", "--hostname", "busy", "--save"][..], &["destroy", "101"], &["restart", "101"]] {
            rig.refused(words, Locked, "101");
        }
        stopping.join().unwrap().ok();
    });
    assert_eq!(rig.status(101), "exist unmounted down");
    assert!(!fs::read_to_string(rig.paths.conf_dir().join("101.toml")).unwrap().contains("busy"));
}

#[test]
fn a_full_disk_while_creating_leaves_nothing() {
    // The private areas on a small filesystem of their own.
    let rig = Rig::stopped(&[Tiny]);
    let small = rig.paths.private_dir();
    fs::create_dir_all(&small).unwrap();
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", "size=256k,mode=700", "tmpfs"]).arg(&small);
    command::run(&mut mount, None, Duration::from_secs(10)).unwrap().ok();
    rig.start_vzd(&[]);
    let before = rig.census();
    let out = rig.vzctl(&["create", "101", "--ostemplate", "tiny", "--ipadd", "10.99.0.1"]);
    assert_eq!(out.code(), i32::from(NoSpace.code()), "{out}");
    assert!(out.stderr.contains("space"), "{out}");
    rig.assert_census(&before, "after the failed create");
    assert_eq!(rig.status(101), "deleted unmounted down");
    nix::mount::umount(&small).unwrap();
    // Nothing of the attempt is claimed.
    rig.create(101, Tiny, &["--ipadd", "10.99.0.1"]);
}

#[test]
fn an_address_the_host_has_got_since_create_refuses_the_start() {
    let rig = with_ct(&["--ipadd", "10.99.0.1"]);
    rig.host.ip("addr add 10.99.0.1/32 dev lo");
    refused_and_nothing_changed(&rig, &["start", "101"], IpInUse, "10.99.0.1");
    rig.host.ip("addr del 10.99.0.1/32 dev lo");
    rig.ok(&["start", "101"]);
}

#[test]
fn a_file_inside_that_cannot_be_written_fails_only_what_writes_it() {
    let rig = with_ct(&["--hostname", "one"]);
    rig.ok(&["start", "101"]);
    rig.inside(101, "rm -f /etc/hostname; mkfifo /etc/hostname");
    let out = rig.vzctl(&["set", "101", "--hostname", "two", "--save"]);
    assert!(out.code() != 0 && out.stderr.contains("/etc/hostname"), "{out}");
    rig.ok(&["set", "101", "--nameserver", "192.0.2.1", "--save"]);
    assert!(rig.inside(101, "cat /etc/resolv.conf").contains("192.0.2.1"));
}

#[test]
fn a_missing_program_is_named_with_its_package() {
    for (program, package, words) in [
        ("/usr/sbin/mkfs.ext4", "e2fsprogs", &["create", "101", "--ostemplate", "tiny"][..]),
        ("/usr/bin/mmdebstrap", "mmdebstrap", &["template", "build", "debian-12"][..]),
    ] {
        let rig = Rig::stopped(&[Tiny]);
        let recipes = rig.paths.recipe_dir();
        fs::create_dir_all(&recipes).unwrap();
        let source = vz_tests::template::checkout().join("templates/debian-12.toml");
        fs::copy(source, recipes.join("debian-12.toml")).unwrap();
        rig.start_vzd_without(&[program]);
        let before = rig.census();
        let out = rig.vzctl(words);
        assert_ne!(out.code(), 0, "{out}");
        assert!(out.stderr.contains(package), "the package is named: {out}");
        assert!(!out.stderr.contains("panicked"), "{out}");
        let after = rig.census().without(|l| l == "template .staging");
        assert!(before.changes(&after).is_empty(), "without {program}: {:?}", before.changes(&after));
        // What cannot be done without makes `check` fail; what is told is the same.
        let check = rig.vzctl(&["--json", "check"]).json();
        let row = check["items"].as_array().into_iter().flatten().find(|i| {
            i["group"] == "program" && i["name"].as_str().is_some_and(|n| program.ends_with(n) || n.contains(package))
        });
        assert!(row.is_some_and(|r| r["status"] != "ok"), "check says what is missing: {check}");
    }
}

#[test]
fn a_missing_nft_refuses_what_needs_it_and_says_why() {
    let rig = Rig::stopped(&[Tiny]);
    let nft = ["/usr/sbin/nft"];
    rig.start_vzd_without(&nft);
    let before = rig.census();
    let out = rig.vzctl(&["create", "101", "--ostemplate", "tiny", "--ipadd", "10.99.0.1"]);
    assert!(
        out.code() != 0 && out.stderr.contains("nft"),
        "an address without its source filter is never given out: {out}"
    );
    rig.assert_census(&before, "without nft");
}

#[test]
fn without_vzd_the_message_says_how_to_start_it() {
    let rig = Rig::stopped(&[]);
    let out = rig.vzctl(&["start", "101"]);
    assert_eq!(out.code(), i32::from(System.code()), "{out}");
    assert!(out.stderr.contains("vzd"), "{out}");
}

#[test]
fn a_relative_root_is_refused() {
    let rig = Rig::stopped(&[]);
    let mut c = Command::new(rig.bin.join("vzctl"));
    c.args(["--root", "some/where", "status", "101"]).env_remove("VZ_ROOT");
    let out = command::run(&mut c, None, Duration::from_secs(10)).unwrap();
    assert_ne!(out.code(), 0, "{out}");
}
