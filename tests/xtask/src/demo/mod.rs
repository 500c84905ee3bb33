//! `cargo xtask demo`: on a fresh machine, from nothing to a running CT one can ssh into, every step shown with its
//! time. Its manager works on a private root, on the machine's own network, because the CT must be reachable from
//! the shell of whoever watches. Run again, it takes up what is there. [`clean`] removes every trace.

mod clean;
mod site;

use crate::{deps, programs, show};
use anyhow::{Context, Result, bail};
use clap::Args;
use site::Site;
use std::{path::PathBuf, time::Duration, time::Instant};
use vz_tests::command::Output;

/// Where, and which way.
#[derive(Args)]
pub struct Options {
    /// Remove every trace of the demo and verify that nothing is left
    #[arg(long)]
    clean: bool,
    /// Root of the demo's private manager
    #[arg(long, default_value = "/var/tmp/vz-demo", value_name = "DIR")]
    root: PathBuf,
    /// OS template
    #[arg(long, default_value = "debian-12")]
    ostemplate: String,
}

/// The demo's container.
pub const CT: &str = "101";

/// Shows it, or removes it.
///
/// # Errors
/// A step fails; what was made so far stays for looking at, and `--clean` removes it.
pub fn run(options: &Options) -> Result<()> {
    if !nix::unistd::Uid::effective().is_root() {
        bail!("CTs need root: run `cargo xtask demo` as root");
    }
    if !options.root.is_absolute() || options.root.parent().is_none() {
        bail!("--root must be an absolute path and not /: {}", options.root.display());
    }
    if options.clean {
        return clean::run(&options.root);
    }
    let begun = Instant::now();
    show::say("vz demo: a Debian VPS from template to ssh\n");
    show::say("-- what it needs");
    deps::install(deps::ALL)?;
    let bin = programs::build()?;

    show::say("\n-- a manager on a private root");
    let site = show::step(&format!("start vzd on {}", options.root.display()), || Site::open(&options.root, &bin))?;
    quote(&site.vzctl(&["check"], 30)?);

    show::say("\n-- an OS template, built from the host's own package mirror");
    template(&site, &options.ostemplate)?;

    show::say(format!("\n-- CT {CT}"));
    create(&site, &options.ostemplate)?;
    start(&site)?;

    show::say("\n-- inside, over ssh");
    login(&site)?;
    show::say("\n-- what an operator does");
    verbs(&site)?;
    show::say("\n-- a neighbour");
    neighbour(&site, &options.ostemplate)?;
    show::say("\n-- what an operator fears");
    survive(&site)?;
    farewell(&site, begun.elapsed());
    Ok(())
}

fn template(site: &Site, name: &str) -> Result<()> {
    let known = site.vzctl(&["--json", "template", "show", name], 30)?;
    let ready = known.code() == 0 && known.stdout.contains("\"ready\"");
    if ready {
        show::say(format!("ok   template {name} is there already"));
    } else {
        show::long(
            &format!("template build {name}"),
            &mut site.command("vzctl", &["template", "build", name]),
            Duration::from_secs(900),
        )?;
    }
    quote(&site.vzctl(&["template", "list"], 30)?);
    Ok(())
}

fn create(site: &Site, template: &str) -> Result<()> {
    let status = site.vzctl(&["status", CT], 30)?;
    if status.stdout.contains(" exist ") {
        show::say(format!("ok   CT {CT} is there already: {}", status.text()));
    } else {
        let mut words = vec![
            "create",
            CT,
            "--ostemplate",
            template,
            "--hostname",
            "demo",
            "--name",
            "demo",
            "--nameserver",
            "inherit",
        ];
        words.extend([
            "--diskspace",
            "4G",
            "--ipadd",
            &site.facts.ipv4,
            "--ipadd",
            &site.facts.ipv6,
            "--onboot",
            "yes",
        ]);
        show::step(&format!("create {CT} --ostemplate {template} --ipadd {}", site.facts.ipv4), || {
            done(site.vzctl(&words, 60)?)
        })?;
    }
    let key = site.identity.public().display().to_string();
    let password = format!("demo:{}", site.facts.password);
    show::step("set --userpasswd, --sshkey (done inside, as the CT's own root)", || {
        done(site.vzctl(
            &[
                "set",
                CT,
                "--userpasswd",
                &password,
                "--userpasswd",
                &format!("root:{}", site.facts.password),
                "--sshkey",
                &key,
            ],
            60,
        )?)
    })
}

fn start(site: &Site) -> Result<()> {
    if site.vzctl(&["status", CT], 30)?.stdout.contains(" running") {
        show::say(format!("ok   CT {CT} runs already"));
        return Ok(());
    }
    let begun = Instant::now();
    let answer = show::step(&format!("start {CT} --wait"), || {
        let out = site.vzctl(&["--json", "start", CT, "--wait"], 180)?;
        done(out.clone())?;
        Ok(out)
    })?;
    if let Ok(value) = serde_json::from_str::<serde_json::Value>(&answer.stdout) {
        let steps = value["steps"].as_array().into_iter().flatten();
        let told: Vec<String> = steps
            .map(|s| format!("{} {:.1}", s["name"].as_str().unwrap_or("?"), s["us"].as_f64().unwrap_or(0.0) / 1000.0))
            .collect();
        if !told.is_empty() {
            show::say(format!("     steps in ms: {}", told.join(", ")));
        }
    }
    show::say(format!("     booted {} after the command", show::time(begun.elapsed())));
    Ok(())
}

fn login(site: &Site) -> Result<()> {
    show::step(&format!("ssh root@{} with a key", site.facts.ipv4), || {
        done(site.ssh("root", &site.facts.ipv4, "true")?)
    })?;
    show::step(&format!("ssh demo@{} with a password", site.facts.ipv4), || done(site.ssh_password("demo", "id")?))?;
    show::step(&format!("ssh root@{}", site.facts.ipv6), || done(site.ssh("root", &site.facts.ipv6, "true")?))?;
    for line in [
        ". /etc/os-release; echo \"$PRETTY_NAME, PID 1 is $(cat /proc/1/comm)\"",
        "systemctl --failed --no-pager; systemctl is-system-running",
        "df -h / ",
        "ip -brief address",
        "free -m | head -2; nproc",
        "grep -E 'Seccomp:|CapBnd' /proc/1/status; cat /proc/1/uid_map",
    ] {
        show::say(format!("     root@demo:~# {line}"));
        let out = site.ssh("root", &site.facts.ipv4, line)?;
        quote(&out);
    }
    // Out over the container's own address, the host's masquerading and the name servers it inherited.
    let install = "export DEBIAN_FRONTEND=noninteractive; apt-get -q update && apt-get -qy install nginx-light";
    show::long(
        "apt-get install nginx-light",
        &mut site.command("vzctl", &["exec2", CT, install]),
        Duration::from_secs(300),
    )?;
    show::step("its service runs and answers on the CT's address", || {
        done(site.ssh("root", &site.facts.ipv4, "systemctl is-active nginx cron systemd-journald")?)?;
        let address: std::net::SocketAddr = format!("{}:80", site.facts.ipv4).parse()?;
        std::net::TcpStream::connect_timeout(&address, Duration::from_secs(5))
            .map(drop)
            .context("nginx does not answer")
    })?;
    let failed = site.ssh("root", &site.facts.ipv4, "systemctl --failed --plain --no-legend")?;
    show::step("zero failed units", || if failed.text().is_empty() { Ok(()) } else { bail!("{}", failed.text()) })
}

fn verbs(site: &Site) -> Result<()> {
    let shown: &[&[&str]] = &[
        &["status", CT],
        &["exec", CT, "uptime"],
        &["set", CT, "--description", "a machine to look at", "--save"],
        &["set", CT, "--hostname", "demo2", "--save"],
        &["exec", CT, "hostname"],
        &["set", CT, "--hostname", "demo", "--save"],
    ];
    for words in shown {
        let begun = Instant::now();
        let out = site.vzctl(words, 60)?;
        show::say(format!("     # vzctl {}  ({})", words.join(" "), show::time(begun.elapsed())));
        quote(&out);
        done(out)?;
    }
    show::say("     # vzlist -a -o ctid,numproc,status,ip,hostname,diskspace,uptime");
    quote(&site.run("vzlist", &["-a", "-o", "ctid,numproc,status,ip,hostname,diskspace,uptime"], 30)?);
    show::step("reboot typed inside: same CT, same address, new boot id", || {
        let boot_id = || -> Result<String> {
            Ok(site.vzctl(&["exec2", CT, "cat /proc/sys/kernel/random/boot_id"], 30)?.text().to_owned())
        };
        let first = boot_id()?;
        let before = site.boots()?;
        site.ssh("root", &site.facts.ipv4, "systemctl reboot")?;
        site.wait_boots(before + 1, Duration::from_secs(60))?;
        site.wait_ssh(Duration::from_secs(60))?;
        if boot_id()? == first { bail!("the boot id is still {first}") } else { Ok(()) }
    })
}

/// A second container for a while: they reach each other, neither can pretend to be the other, files can be looked at.
fn neighbour(site: &Site, template: &str) -> Result<()> {
    const OTHER: &str = "102";
    let (first, second) = (site.facts.ipv4.clone(), site.facts.ipv4.replace(".101", ".102"));
    if site.vzctl(&["status", OTHER], 30)?.stdout.contains(" exist ") {
        // Of a demo that was cut off.
        done(site.vzctl(&["stop", OTHER, "--fast"], 60)?)?;
        done(site.vzctl(&["destroy", OTHER], 60)?)?;
    }
    show::step(&format!("create and start {OTHER}"), || {
        done(site.vzctl(&["create", OTHER, "--ostemplate", template, "--ipadd", &second, "--diskspace", "512M"], 60)?)?;
        done(site.vzctl(&["start", OTHER, "--wait"], 120)?)
    })?;
    show::step(&format!("{CT} reaches {OTHER}, and the host both"), || {
        done(site.vzctl(&["exec2", CT, &format!("ping -c1 -W2 {second}")], 30)?)?;
        done(site.vzctl(&["exec2", OTHER, &format!("ping -c1 -W2 {first}")], 30)?)
    })?;
    show::step(&format!("{OTHER} with the address of {CT} gets nowhere"), || {
        // Of the host's own addresses, the one it would use towards the CT.
        let host = site.host_address()?;
        done(site.vzctl(&["exec2", OTHER, &format!("ping -c1 -W2 {host}")], 30)?)?;
        let steal = format!("ip addr add {first}/32 dev venet0 && ping -c1 -W1 -I {first} {host}");
        let out = site.vzctl(&["exec2", OTHER, &steal], 30)?;
        if out.code() == 0 { bail!("it got an answer:\n{out}") } else { done(site.ssh("root", &first, "true")?) }
    })?;
    show::step("a second address comes and goes while it runs", || {
        let extra = site.facts.ipv4.replace(".101", ".103");
        done(site.vzctl(&["set", OTHER, "--ipadd", &extra, "--save"], 30)?)?;
        done(site.vzctl(&["exec2", CT, &format!("ping -c1 -W2 {extra}")], 30)?)?;
        done(site.vzctl(&["set", OTHER, "--ipdel", &extra, "--save"], 30)?)
    })?;
    show::step("its disk is full at 512M, and nobody else's", || {
        let out = site.vzctl(&["exec2", OTHER, "dd if=/dev/zero of=/big bs=1M count=600"], 60)?;
        if out.code() == 0 {
            bail!("600M fit into 512M")
        } else {
            done(site.vzctl(&["exec2", CT, "touch /root/fine"], 30)?)
        }
    })?;
    show::step("stop, mount, look, umount, destroy", || {
        done(site.vzctl(&["stop", OTHER], 60)?)?;
        done(site.vzctl(&["mount", OTHER], 60)?)?;
        if !site.paths.root_dir().join(OTHER).join("etc/os-release").exists() {
            bail!("its files are not at {}", site.paths.root_dir().join(OTHER).display());
        }
        done(site.vzctl(&["umount", OTHER], 60)?)?;
        done(site.vzctl(&["destroy", OTHER], 60)?)
    })
}

fn survive(site: &Site) -> Result<()> {
    let pid = site.init_pid()?;
    show::step("kill -9 vzd: exec, status and ssh still work", || {
        site.kill_vzd()?;
        done(site.vzctl(&["exec", CT, "true"], 30)?)?;
        let status = site.vzctl(&["status", CT], 30)?;
        if !status.stdout.contains("running") {
            bail!("{status}");
        }
        done(site.ssh("root", &site.facts.ipv4, "true")?)
    })?;
    show::step("start vzd again: it finds the CT as it was", || {
        site.start_vzd()?;
        if site.init_pid()? != pid {
            bail!("init is another process now");
        }
        let listed = site.run("vzlist", &["-1"], 30)?;
        if listed.text() != CT { bail!("{listed}") } else { Ok(()) }
    })
}

fn farewell(site: &Site, took: Duration) {
    show::say(format!("\nCT {CT} runs. All of this took {}.\n", show::time(took)));
    show::say(format!("  log in:      ssh -i {} root@{}", site.identity.private().display(), site.facts.ipv4));
    show::say(format!("  by password: ssh demo@{}        (password {})", site.facts.ipv4, site.facts.password));
    show::say(format!(
        "  manage it:   export VZ_ROOT={} PATH={}:$PATH; vzctl enter {CT}",
        site.paths.base.display(),
        site.bin.display()
    ));
    let root = if site.paths.base == std::path::Path::new("/var/tmp/vz-demo") {
        String::new()
    } else {
        format!(" --root {}", site.paths.base.display())
    };
    show::say(format!("  remove all:  cargo xtask demo --clean{root}"));
}

/// Prints what a command said, indented.
fn quote(out: &Output) {
    for line in out.stdout.lines().chain(out.stderr.lines()) {
        show::say(format!("       {line}"));
    }
}

/// An error unless the command succeeded.
fn done(out: Output) -> Result<()> {
    if out.code() == 0 { Ok(()) } else { Err(anyhow::anyhow!("{out}")).context("it did not succeed") }
}
