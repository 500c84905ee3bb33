//! The device nodes of a plain system.

/// Device nodes archives of a plain system have below /dev. A container's /dev is made by vz at each start, so they are
/// left out without further ado; they must be what they are called.
const USUAL_NODES: &[(&[u8], u32, u32)] = &[
    (b"null", 1, 3),
    (b"zero", 1, 5),
    (b"full", 1, 7),
    (b"random", 1, 8),
    (b"urandom", 1, 9),
    (b"kmsg", 1, 11),
    (b"tty", 5, 0),
    (b"console", 5, 1),
    (b"ptmx", 5, 2),
    (b"pts/ptmx", 5, 2),
    (b"fuse", 10, 229),
    (b"net/tun", 10, 200),
];

/// Whether it is one of those, where a system has it.
pub fn is_usual(parts: &[&[u8]], block: bool, major: u32, minor: u32) -> bool {
    let name = below_dev(parts).map(|rest| rest.join(&b'/'));
    !block && name.is_some_and(|n| USUAL_NODES.contains(&(n.as_slice(), major, minor)))
}

/// What of a path is below a system's /dev: the system may be at the top, in one directory, or where other managers' images
/// and backups have it.
fn below_dev<'p, 'b>(parts: &'p [&'b [u8]]) -> Option<&'p [&'b [u8]]> {
    let at = parts.iter().position(|c| *c == b"dev")?;
    let system = at <= 1 || at <= 4 && parts[at - 1] == b"rootfs";
    system.then(|| &parts[at + 1..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_dev_is_known_wherever_an_image_has_its_system() {
        let usual = |path: &str, major, minor| {
            is_usual(&path.split('/').map(str::as_bytes).collect::<Vec<_>>(), false, major, minor)
        };
        for path in ["dev/null", "root.x86_64/dev/null", "rootfs/dev/null", "backup/container/rootfs/dev/null"] {
            assert!(usual(path, 1, 3) && !usual(path, 1, 1), "{path}");
        }
        assert!(usual("backup/snapshots/s1/rootfs/dev/pts/ptmx", 5, 2));
        for path in ["null", "dev", "a/b/dev/null", "home/x/y/dev/null", "rootfs/a/dev/null"] {
            assert!(!usual(path, 1, 3), "{path}");
        }
    }
}
