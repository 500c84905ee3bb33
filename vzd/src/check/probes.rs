//! The looks at the kernel. Each answers what was found, or why it is missing; none changes anything.

use rustix::{
    io::Errno,
    mount::{FsOpenFlags, OpenTreeFlags, fsopen, open_tree},
    process::{PidfdFlags, pidfd_open},
};
use std::{fs, path::Path};
use vz_sys::proc;
use vz_types::Paths;

/// What was found, or why not.
pub type Found = Result<String, String>;

/// The kernel's version, which must be 6.1 or later.
pub fn version() -> Found {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(['.', '-']).map_while(|n| n.parse::<u32>().ok());
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) if (major, minor) >= (6, 1) => Ok(release),
        _ => Err(release),
    }
}

/// User namespaces: how many the host allows.
pub fn user_namespaces() -> Found {
    if !Path::new("/proc/self/ns/user").exists() {
        return Err("not in this kernel".into());
    }
    match proc::number("/proc/sys/user/max_user_namespaces") {
        Ok(0) => Err("user.max_user_namespaces is 0".into()),
        Ok(n) => Ok(format!("at most {n}")),
        Err(_) => Err("the kernel does not say how many it allows".into()),
    }
}

/// How many mounts the host allows in one mount namespace, a container's included; 100000 is the kernel's own default.
pub fn mount_max() -> Found {
    match proc::number("/proc/sys/fs/mount-max") {
        Ok(n) if n <= 100_000 => Ok(format!("at most {n} in a mount namespace")),
        Ok(n) => Err(format!("as many as {n} in a mount namespace")),
        Err(_) => Err("the kernel does not say how many it allows".into()),
    }
}

/// Every other namespace a container is made of.
pub fn namespaces() -> Found {
    let missing: Vec<&str> = ["pid", "mnt", "net", "uts", "ipc", "cgroup"]
        .into_iter()
        .filter(|n| !Path::new("/proc/self/ns").join(n).exists())
        .collect();
    if missing.is_empty() {
        Ok("pid mnt net uts ipc cgroup".into())
    } else {
        Err(format!("missing: {}", missing.join(" ")))
    }
}

/// A filesystem type: opened, which loads its module where it is one.
pub fn filesystem(name: &'static str) -> Found {
    match fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC) {
        Ok(_) => Ok("available".into()),
        Err(Errno::NODEV) => Err("the kernel does not know this filesystem".into()),
        Err(e) => Err(format!("cannot be opened: {e}")),
    }
}

/// A device or file that must exist.
pub fn device(path: &'static str) -> Found {
    if Path::new(path).exists() { Ok(path.into()) } else { Err(format!("{path} does not exist")) }
}

/// open_tree, the first of the calls an idmapped mount is made with.
pub fn mount_calls() -> Found {
    match open_tree(rustix::fs::CWD, "/", OpenTreeFlags::OPEN_TREE_CLOEXEC) {
        Ok(_) => Ok("open_tree answers".into()),
        Err(e) => Err(format!("open_tree: {e}")),
    }
}

/// A pidfd of this very process.
pub fn pidfd() -> Found {
    match pidfd_open(rustix::process::getpid(), PidfdFlags::empty()) {
        Ok(_) => Ok("pidfd_open answers".into()),
        Err(e) => Err(format!("pidfd_open: {e}")),
    }
}

/// The actions seccomp filters can take.
pub fn seccomp() -> Found {
    match fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail") {
        Ok(actions) if actions.split_whitespace().any(|a| a == "errno") => Ok(actions.trim().to_owned()),
        _ => Err("no filter can answer with an errno".into()),
    }
}

/// Something the kernel shows only when it was built with a feature.
pub fn config_word(what: &str, path: &'static str) -> Found {
    if Path::new(path).exists() { Ok(format!("{what} is there")) } else { Err(format!("{what} is not there")) }
}

/// nf_tables, by its netlink family.
pub fn nf_tables() -> Found {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, netlink, socket_with};
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(netlink::NETFILTER));
    match socket {
        Ok(_) if module("nf_tables").is_ok() => Ok("available".into()),
        Ok(_) => Err("the module nf_tables is neither loaded nor there".into()),
        Err(e) => Err(format!("no netfilter netlink: {e}")),
    }
}

/// rtnetlink.
pub fn netlink() -> Found {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    // Protocol 0 is NETLINK_ROUTE.
    match socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => Ok("available".into()),
        Err(e) => Err(e.to_string()),
    }
}

/// A kernel module: loaded, built in, or lying where modprobe finds it.
pub fn module(name: &str) -> Found {
    if Path::new("/sys/module").join(name).exists() {
        return Ok("loaded or built in".into());
    }
    let uname = rustix::system::uname();
    let dir = Path::new("/lib/modules").join(uname.release().to_string_lossy().as_ref());
    let listed = |file: &str| fs::read_to_string(dir.join(file)).is_ok_and(|t| t.lines().any(|l| is_module(l, name)));
    match (listed("modules.builtin"), listed("modules.dep")) {
        (true, _) => Ok("built in".into()),
        (_, true) => Ok("a module, loaded when needed".into()),
        _ if !dir.exists() => Ok(format!("not seen; {} does not exist, so it may be built in", dir.display())),
        _ => Err(format!("neither loaded nor below {}", dir.display())),
    }
}

/// A line of modules.dep or modules.builtin: `kernel/drivers/net/veth.ko.xz: ...`.
fn is_module(line: &str, name: &str) -> bool {
    let file = line.split(':').next().unwrap_or_default().rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().is_some_and(|n| n.replace('-', "_") == name)
}

/// Project quota on the filesystem the private areas are on.
pub fn project_quota(paths: &Paths) -> Found {
    let private = paths.private_dir();
    match fs::File::open(&private) {
        Ok(dir) if vz_sys::mount::has_project_quota(std::os::fd::AsFd::as_fd(&dir)) => {
            Ok(format!("on at {}", private.display()))
        }
        Ok(_) => Err(format!("off at {}", private.display())),
        Err(e) => Err(format!("{}: {e}", private.display())),
    }
}

/// A file every cgroup but the root has: looked for in ours, or in any other.
pub fn cgroup_file(mount: &Path, name: &str) -> Found {
    let below = fs::read_dir(mount).map_err(|e| format!("{}: {e}", mount.display()))?;
    let mut dirs = below.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
    match dirs.next() {
        Some(dir) if dir.path().join(name).exists() => Ok("available".into()),
        Some(dir) => Err(format!("{} has no such file", dir.path().display())),
        // No cgroup to look at. Both files are older than the oldest kernel that is accepted (5.14 and 5.2).
        None => version().map(|v| format!("kernel {v} has it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn module_lines_are_read() {
        assert!(is_module("kernel/drivers/net/veth.ko.xz: kernel/x.ko", "veth"));
        assert!(is_module("kernel/net/netfilter/nf_tables.ko", "nf_tables"));
        assert!(is_module("kernel/fs/ext4/ext-four.ko", "ext_four"));
        assert!(!is_module("kernel/drivers/net/vethx.ko", "veth"));
    }
}
