//! What is there after a power cut: files, what vzctl tells, and the inventory read as a file.

use super::{RUNS, Site, history::State};
use std::{
    collections::{BTreeMap, BTreeSet},
    process::{Command, Stdio},
    time::Duration,
};
use vz_tests::{command, vm::BOOT};

/// A container's address of a generation.
pub fn address(ctid: u32, g: u32) -> String {
    format!("10.{}.{}.{}", 100 + ctid % 100, g / 200, 1 + g % 200)
}

/// A row of the inventory with its claims.
#[derive(Clone, Debug, Default)]
struct Row {
    name: String,
    state: String,
    trouble: String,
    addresses: BTreeSet<String>,
}

/// All of it.
#[derive(Debug)]
pub struct Found {
    rows: BTreeMap<String, Row>,
    /// Texts of configuration files, by CTID.
    confs: BTreeMap<String, String>,
    /// Names in directories.
    private: BTreeSet<String>,
    trash: BTreeSet<String>,
    conf_dir: BTreeSet<String>,
    staging: BTreeSet<String>,
    /// `vzlist`: state and disk space, by CTID.
    listed: BTreeMap<String, (String, String)>,
    /// Of each template its state, and what is in the file that tells its generation.
    templates: BTreeMap<String, (String, String)>,
    store: BTreeSet<String>,
}

/// Everything in one go, for each command costs an emulated guest a second: sections, each under its name.
const LOOK: &str = "cd ${VZ_ROOT:-/}; for d in var/lib/vz/private var/lib/vz/trash etc/vz/conf var/lib/vz/template var/lib/vz/template/.staging; do \
     echo \"== $d\"; ls -A $d 2>/dev/null; done; \
     echo '== files'; (cd etc/vz/conf && grep -H '' 23??.toml); \
     echo '== list'; vzlist -aH -o ctid,status,diskspace.h; \
     echo '== templates'; vzctl template list --json; \
     echo '== markers'; grep -H '' /dev/null var/lib/vz/template/power-*/current/root/etc/marker; \
     echo '== inventory'; rm -rf $WORK/inventory; mkdir -p $WORK/inventory && cp var/lib/vz/inventory.db* $WORK/inventory && \
     rm -f $WORK/inventory/*-shm && tar -C $WORK/inventory -czf - . | base64";

impl Found {
    /// Looks at everything.
    pub fn look(site: &impl Site) -> Self {
        let mut sections: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut at = String::new();
        for line in site.run(LOOK, BOOT).ok().stdout.lines() {
            match line.strip_prefix("== ") {
                Some(name) => name.clone_into(&mut at),
                None => sections.entry(at.clone()).or_default().push(line.to_owned()),
            }
        }
        let section = |name: &str| sections.get(name).cloned().unwrap_or_default();
        let names = |dir: &str| -> BTreeSet<String> { section(dir).into_iter().collect() };
        let mut confs: BTreeMap<String, String> = BTreeMap::new();
        for line in section("files") {
            if let Some((file, rest)) = line.split_once(':') {
                let text = confs.entry(file.trim_end_matches(".toml").to_owned()).or_default();
                *text += &format!("{rest}\n");
            }
        }
        let listed =
            section("list").into_iter().filter_map(|l| match l.split_whitespace().collect::<Vec<_>>().as_slice() {
                [ctid, status, space] => Some(((*ctid).to_owned(), ((*status).to_owned(), (*space).to_owned()))),
                _ => None,
            });
        let markers = section("markers");
        let marker = |name: &str| {
            let of = format!("/{name}/");
            let line = markers.iter().find(|l| l.contains(&of));
            line.and_then(|l| l.rsplit_once(':')).map(|(_, g)| g.to_owned()).unwrap_or_default()
        };
        let all: serde_json::Value = serde_json::from_str(&section("templates").join("\n")).unwrap();
        let made = all.as_array().unwrap().iter().filter(|t| t["status"] != "recipe");
        let templates = made.map(|t| {
            let name = t["name"].as_str().unwrap().to_owned();
            let marker = marker(&name);
            (name, (t["status"].as_str().unwrap().to_owned(), marker))
        });
        Self {
            rows: rows(&section("inventory").concat()),
            confs,
            private: names("var/lib/vz/private"),
            trash: names("var/lib/vz/trash"),
            conf_dir: names("etc/vz/conf"),
            staging: names("var/lib/vz/template/.staging"),
            listed: listed.collect(),
            templates: templates.collect(),
            store: names("var/lib/vz/template"),
        }
    }

    /// Where a container or a template is.
    ///
    /// # Errors
    /// It is in no state at all; how that shows.
    pub fn state(&self, name: &str) -> Result<State, String> {
        match name.parse::<u32>() {
            Ok(ctid) => self.container(name, ctid),
            Err(_) => self.template(name),
        }
    }

    fn template(&self, name: &str) -> Result<State, String> {
        match (self.templates.get(name), self.store.contains(name)) {
            (None, false) => Ok(State::Absent),
            (Some((status, marker)), true) if status == "ready" => {
                marker.parse().map(State::Is).map_err(|e| format!("its marker {marker:?}: {e}"))
            }
            other => Err(format!("listed, and in the store: {other:?}")),
        }
    }

    fn container(&self, name: &str, ctid: u32) -> Result<State, String> {
        let (row, conf) = (self.rows.get(name), self.confs.get(name));
        let private = self.private.contains(name);
        let (row, conf) = match (row, conf, private, self.listed.contains_key(name)) {
            (None, None, false, false) => return Ok(State::Absent),
            (Some(row), Some(conf), true, true) => (row, conf),
            (row, conf, private, listed) => {
                return Err(format!(
                    "row {row:?}, configuration {}, private area {private}, listed {listed}",
                    conf.is_some()
                ));
            }
        };
        let conf: toml::Table = conf.parse().map_err(|e| format!("{e}: {conf}"))?;
        let host = conf.get("hostname").and_then(toml::Value::as_str).unwrap_or_default();
        let g: u32 = host.trim_start_matches('g').parse().map_err(|e| format!("host name {host:?}: {e}"))?;
        let (ip, ct_name) = (address(ctid, g), format!("n{ctid}-{g}"));
        let space = if ctid == RUNS { 204_800 } else { 204_800 + g * 4 };
        let text = conf.to_string();
        let wanted = [format!("\"{ip}\""), format!("name = \"{ct_name}\""), format!("\"generation-{g}\"")];
        if let Some(missing) = wanted.iter().find(|w| !text.contains(*w)) {
            return Err(format!("of generation {g}, but no {missing} in {text}"));
        }
        if row.name != ct_name || row.addresses != BTreeSet::from([ip]) {
            return Err(format!("the configuration is of generation {g}, and the row is {row:?}"));
        }
        let (status, listed) = &self.listed[name];
        if *listed != space.to_string() {
            return Err(format!(
                "the configuration is of generation {g}, and the disk holds {listed} instead of {space}"
            ));
        }
        if !row.trouble.is_empty() || !matches!(status.as_str(), "stopped" | "running") {
            return Err(format!("it is {status}: {row:?}"));
        }
        Ok(State::Is(g))
    }

    /// What nobody should have left.
    pub fn strange(&self, known: &BTreeMap<String, State>) -> Vec<String> {
        let ours = |n: &String| n.trim_start_matches(".new-").starts_with("23");
        let mut all = Vec::new();
        for (place, names) in [("private", &self.private), ("the trash", &self.trash), ("conf", &self.conf_dir)] {
            for name in names.iter().filter(|n| ours(n)) {
                let plain = name.trim_end_matches(".destroyed").trim_end_matches(".toml");
                if !known.contains_key(plain) && !name.ends_with(".destroyed") {
                    all.push(format!("{name} is left in {place}"));
                }
            }
        }
        all.extend(self.staging.iter().map(|n| format!("{n} is left of a template")));
        all.extend(self.rows.keys().filter(|c| !known.contains_key(*c)).map(|c| format!("a row of CT {c}")));
        all
    }
}

/// The rows of our containers.
fn rows(packed: &str) -> BTreeMap<String, Row> {
    let dir = tempfile::tempdir().unwrap();
    let packed_file = dir.path().join("packed");
    std::fs::write(&packed_file, packed).unwrap();
    let mut unpack = Command::new("sh");
    unpack.args(["-c", "base64 -d packed | tar -xzf -"]).current_dir(dir.path()).stdin(Stdio::null());
    command::run(&mut unpack, None, Duration::from_secs(20)).unwrap().ok();
    let db = rusqlite::Connection::open(dir.path().join("inventory.db")).unwrap();
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    let text = |r: &rusqlite::Row<'_>, i: usize| r.get::<_, Option<String>>(i).map(Option::unwrap_or_default);
    let mut q = db
        .prepare("SELECT CAST(ctid AS TEXT), name, state, trouble FROM container WHERE ctid BETWEEN 2300 AND 2399")
        .unwrap();
    let all = q.query_map([], |r| {
        Ok((text(r, 0)?, Row { name: text(r, 1)?, state: text(r, 2)?, trouble: text(r, 3)?, ..Row::default() }))
    });
    rows.extend(all.unwrap().map(Result::unwrap));
    let mut q = db.prepare("SELECT CAST(ctid AS TEXT), ip FROM address WHERE ctid BETWEEN 2300 AND 2399").unwrap();
    for claim in q.query_map([], |r| Ok((text(r, 0)?, text(r, 1)?))).unwrap() {
        let (ctid, ip) = claim.unwrap();
        rows.entry(ctid).or_default().addresses.insert(ip);
    }
    rows
}
