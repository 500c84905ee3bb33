//! Values of the kernel's that all containers share and none can change for itself, with who needs them. vz's package sets
//! each (`config/vz.sysctl`).
//!
//! Not here is what each container has of its own (measured: writable inside): most of `net.ipv4` and `net.ipv6`,
//! `net.core.somaxconn`, `kernel.shm*`, `msg*` and `sem`, `fs.mqueue.*`.

use super::{CheckItem, Found, row};
use vz_sys::proc;

/// One of them.
struct Value {
    key: &'static str,
    /// What the package sets: with less, somebody goes short.
    least: u64,
    /// Who, and how it shows.
    loss: &'static str,
}

const VALUES: &[Value] = &[
    Value {
        key: "vm.max_map_count",
        least: 1_048_576,
        loss: "Elasticsearch and OpenSearch inside do not start (they want 262144), nor do large Java programs and game servers",
    },
    Value {
        key: "fs.inotify.max_user_instances",
        least: 8192,
        loss: "all users of a container count as one here: systemd, mail servers, Kubernetes and nested containers inside fail with \
               \"too many open files\"",
    },
    Value {
        key: "fs.inotify.max_user_watches",
        least: 1_048_576,
        loss: "all users of a container count as one here: Syncthing, Nextcloud, editors and build tools inside miss changes, or say \
               \"no space left on device\"",
    },
    Value {
        key: "fs.aio-max-nr",
        least: 1_048_576,
        loss: "one sum for all containers: MariaDB, MySQL, Oracle, ScyllaDB and QEMU inside fail at io_setup, or fall back to slower I/O",
    },
    Value {
        key: "fs.file-max",
        least: 1_048_576,
        loss: "one sum for all containers: any program anywhere fails with \"too many open files in system\"",
    },
    Value {
        key: "kernel.keys.maxkeys",
        least: 20_000,
        loss: "logins, services and nested containers inside hold a keyring each, and all of root's count together: \
               \"disk quota exceeded\"",
    },
    Value { key: "kernel.keys.maxbytes", least: 2_000_000, loss: "as kernel.keys.maxkeys" },
    Value {
        key: "kernel.pid_max",
        least: 4_194_304,
        loss: "the numbers of all containers' processes are taken from one range: \"cannot fork\" everywhere",
    },
    Value {
        key: "net.core.rmem_max",
        least: 7_500_000,
        loss: "servers and clients of HTTP/3 inside (Caddy, cloudflared, Syncthing) run with small buffers, and complain",
    },
    Value { key: "net.core.wmem_max", least: 7_500_000, loss: "as net.core.rmem_max" },
    Value {
        key: "net.ipv4.neigh.default.gc_thresh3",
        least: 16_384,
        loss: "one table for all networks: containers that talk to many neighbours lose the others' (\"neighbour table overflow\")",
    },
    Value { key: "net.ipv6.neigh.default.gc_thresh3", least: 16_384, loss: "as net.ipv4.neigh.default.gc_thresh3" },
];

/// Pseudo terminals that the package allows on the host.
const PTYS: u64 = 16_384;
/// Most that one container has at `/dev/pts` without `--numpty`.
const PTYS_OF_ONE: u64 = 1024;

pub(super) fn rows() -> Vec<CheckItem> {
    let mut rows: Vec<CheckItem> = VALUES.iter().filter_map(value_row).collect();
    rows.push(ptys_row());
    rows
}

fn file(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

fn remedy(key: &str, least: u64) -> String {
    format!("sysctl -w {key}={least} (vz's own sysctl file sets it)")
}

/// Nothing where the kernel has no such value (IPv6 may be off).
fn value_row(v: &Value) -> Option<CheckItem> {
    let found = match proc::number(&file(v.key)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return None,
        other => judged(v.least, other),
    };
    Some(row("sysctl", v.key, false, found, v.loss, &remedy(v.key, v.least)))
}

fn judged(least: u64, is: std::io::Result<u64>) -> Found {
    match is {
        Ok(n) if n >= least => Ok(n.to_string()),
        Ok(n) => Err(format!("{n}, less than {least}")),
        Err(e) => Err(format!("cannot be read: {e}")),
    }
}

fn ptys_row() -> CheckItem {
    const KEY: &str = "kernel.pty.max";
    let of_host = proc::number(&file("kernel.pty.reserve")).unwrap_or(0);
    let found = judged(PTYS, proc::number(&file(KEY)));
    let with_sum = |n: u64| {
        let many = n.saturating_sub(of_host) / PTYS_OF_ONE;
        format!("{n}: {many} containers with {PTYS_OF_ONE} each, beside {of_host} of the host's own")
    };
    let found = found.map(|n| n.parse().map_or(n.clone(), with_sum));
    let loss = "one sum for all containers: a few that hold all they may leave the others without terminals for ssh, screen and tmux";
    row("sysctl", KEY, false, found, loss, &remedy(KEY, PTYS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_packages_sysctl_file_sets_what_check_asks_for() {
        let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../config/vz.sysctl")).unwrap();
        let set: HashMap<&str, u64> = text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.split_once(" = "))
            .map(|(key, value)| (key, value.parse().unwrap()))
            .collect();
        let asked = VALUES.iter().map(|v| (v.key, v.least)).chain([("kernel.pty.max", PTYS)]);
        for (key, least) in asked {
            assert!(set.get(key).is_some_and(|n| *n >= least), "{key} is not set to {least}: {:?}", set.get(key));
        }
    }

    #[test]
    fn too_little_is_said_with_what_is_enough() {
        assert_eq!(judged(10, Ok(10)), Ok("10".into()));
        assert_eq!(judged(10, Ok(9)), Err("9, less than 10".into()));
    }
}
