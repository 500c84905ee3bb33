//! Which container is meant, and what of it can be known without vzd: its configuration file and the record its
//! monitor keeps below `/run/vz/ct/<CTID>/`.

use crate::failure::Failure;
use serde::Deserialize;
use std::{fs, io, str::FromStr};
use vz_sys::{proc, records};
use vz_types::{CtName, Ctid, ExitCode, Paths, run::ProcessId, run::RunRecord};

/// What stands where a CT is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A number.
    Ctid(Ctid),
    /// A name, never all digits.
    Name(CtName),
}

impl FromStr for Target {
    type Err = Failure;
    fn from_str(s: &str) -> Result<Self, Failure> {
        if s == "0" {
            return Err(Failure::value("CTID 0 is the host itself; nothing of it can be changed in this version")
                .hint("a CTID is 101..2147483644"));
        }
        if !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit()) {
            return Ctid::from_str(s).map(Self::Ctid).map_err(|e| Failure::value(format!("Bad CT ID {s}: {e}")));
        }
        CtName::from_str(s).map(Self::Name).map_err(|e| {
            Failure::value(format!(
                "Bad CT ID {:?}: neither a CTID nor a name ({e})",
                s.chars().take(80).collect::<String>()
            ))
            .hint("a CTID is 101..2147483644; `vzlist -a` shows the CTs with `-o ctid,name`")
        })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ctid(c) => c.fmt(f),
            Self::Name(n) => n.fmt(f),
        }
    }
}

impl Target {
    /// The CTID, from the configuration files where a name was given. Needs no vzd.
    pub fn ctid(&self, paths: &Paths) -> Result<Ctid, Failure> {
        match self {
            Self::Ctid(c) => Ok(*c),
            Self::Name(name) => by_name(paths, name)?.ok_or_else(|| {
                Failure::new(ExitCode::NoConfig, format!("there is no CT named {name}"))
                    .hint("`vzlist -a -n` shows the names")
            }),
        }
    }
}

/// The one key of a configuration file that is looked at here; a file broken elsewhere still has its name.
#[derive(Deserialize)]
struct NameOnly {
    name: Option<String>,
}

fn by_name(paths: &Paths, name: &CtName) -> Result<Option<Ctid>, Failure> {
    let dir = paths.conf_dir();
    let entries = match fs::read_dir(&dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(unreadable(&dir, &e)),
    };
    let mut denied = None;
    for entry in entries.flatten() {
        let file = entry.file_name();
        let ctid = file.to_str().and_then(|f| f.strip_suffix(".toml")).and_then(|c| Ctid::from_str(c).ok());
        let Some(ctid) = ctid else { continue };
        let text = match records::operators_text(&entry.path()) {
            Ok(text) => text,
            Err(e) => {
                // Whose name it has cannot be known.
                if e.kind() == io::ErrorKind::PermissionDenied {
                    denied = Some(unreadable(&entry.path(), &e));
                }
                continue;
            }
        };
        // Parsing is only worth its time where the name occurs at all.
        if text.contains(name.as_str())
            && toml::from_str::<NameOnly>(&text).is_ok_and(|c| c.name.as_deref() == Some(name.as_str()))
        {
            return Ok(Some(ctid));
        }
    }
    denied.map_or(Ok(None), Err)
}

fn unreadable(path: &std::path::Path, e: &io::Error) -> Failure {
    let f = Failure::system(format_args!("cannot read {}", path.display()), e);
    match e.kind() {
        io::ErrorKind::PermissionDenied => Failure { code: ExitCode::PermissionDenied, ..f }
            .hint("run vzctl as root: exec, enter, console and runscript are not for the group `vz`"),
        _ => f,
    }
}

/// Whether there is a configuration of the CT.
///
/// # Errors
/// It cannot be looked at, which does not mean that there is none.
pub fn is_configured(paths: &Paths, ctid: Ctid) -> Result<bool, Failure> {
    let file = paths.conf(ctid);
    match fs::symlink_metadata(&file) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(false),
        Err(e) => Err(unreadable(&file, &e)),
    }
}

/// The record of a running CT; `None` when it does not run. Says so only after comparing the boot id of the host and
/// the start time of its init with the record, because both files and process ids outlive their meaning.
pub fn running(paths: &Paths, ctid: Ctid) -> Result<Option<RunRecord>, Failure> {
    let file = paths.ct_run(ctid).join("state.json");
    let text = match records::read(&file) {
        Ok(text) => text,
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(None),
        Err(e) => return Err(unreadable(&file, &e)),
    };
    let record: RunRecord = serde_json::from_slice(&text)
        .map_err(|e| Failure::system(format_args!("{} is not a run record", file.display()), e))?;
    let unknown = |e| Failure::system(format_args!("cannot tell whether CT {ctid} runs"), e);
    let same_boot = record.host_boot_id.trim() == proc::boot_id().map_err(unknown)?;
    let alive = same_boot && is_alive(record.init).map_err(unknown)?;
    Ok(Some(record).filter(|r| alive && r.ctid == ctid))
}

/// The record of a CT that must be running for what follows.
pub fn must_run(paths: &Paths, target: &Target) -> Result<RunRecord, Failure> {
    let ctid = target.ctid(paths)?;
    if let Some(record) = running(paths, ctid)? {
        return Ok(record);
    }
    Err(match is_configured(paths, ctid)? {
        true => Failure::new(ExitCode::NotRunning, format!("Container is not running: CT {ctid}"))
            .hint(format!("start it with `vzctl start {ctid}`")),
        false => Failure::new(ExitCode::NoConfig, format!("Container {ctid} does not exist"))
            .hint("`vzlist -a` shows those that exist"),
    })
}

/// The process on record is there and no zombie.
pub fn is_alive(process: ProcessId) -> io::Result<bool> {
    proc::is_alive(process.pid, process.start_time)
}

/// The container's files are mounted on the host.
pub fn is_mounted(paths: &Paths, ctid: Ctid) -> Result<bool, Failure> {
    let mounts = proc::mountinfo().map_err(|e| Failure::system("cannot read the mounts", e))?;
    Ok(mounts.iter().any(|m| m.mount_point == paths.root(ctid)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ct_is_a_number_in_range_or_a_name() {
        assert!(matches!("101".parse(), Ok(Target::Ctid(_))));
        assert!(matches!("web1".parse(), Ok(Target::Name(_))));
        for bad in ["", "0", "1", "100", "2147483645", "99999999999999999999", "-5", "../x", "a/b", "--help"] {
            assert_eq!(bad.parse::<Target>().unwrap_err().code, ExitCode::BadValue, "{bad}");
        }
    }

    #[test]
    fn a_name_is_found_even_in_a_file_with_other_faults_and_beside_broken_ones() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        fs::create_dir_all(paths.conf_dir()).unwrap();
        fs::write(paths.conf_dir().join("101.toml"), "name = ").unwrap();
        fs::write(paths.conf_dir().join("102.toml"), "ostemplate = 'x'\nname = 'web1'\nnonsense = 3\n").unwrap();
        fs::write(paths.conf_dir().join("103.toml.destroyed"), "name = 'web3'\n").unwrap();
        let find = |n: &str| n.parse::<Target>().unwrap().ctid(&paths).map(Ctid::get).map_err(|f| f.code);
        assert_eq!(find("web1"), Ok(102));
        assert_eq!(find("web3"), Err(ExitCode::NoConfig));
        assert_eq!(find("web"), Err(ExitCode::NoConfig));
    }

    #[test]
    fn a_record_of_another_boot_or_another_process_is_no_running_container() {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::new(root.path());
        let ctid = Ctid::try_from(101).unwrap();
        fs::create_dir_all(paths.ct_run(ctid)).unwrap();
        let pid = std::process::id();
        let start = proc::start_time(pid as i32).unwrap();
        let boot = proc::boot_id().unwrap();
        let write = |start: u64, boot: &str| {
            let p = serde_json::json!({"pid": pid, "start_time": start});
            let r = serde_json::json!({"ctid": 101, "init": p, "monitor": p, "cgroup": "/", "uid_base": 524288, "boots": 1,
                "booted_at": 1, "started_at": 1, "link": null, "addresses": [], "host_boot_id": boot});
            fs::write(paths.ct_run(ctid).join("state.json"), r.to_string()).unwrap();
        };
        write(start, &boot);
        assert!(running(&paths, ctid).unwrap().is_some());
        write(start + 1, &boot);
        assert!(running(&paths, ctid).unwrap().is_none());
        write(start, "other");
        assert!(running(&paths, ctid).unwrap().is_none());
    }
}
